"""The terminal pane: a real psql and a real server, opened from a message and followed from the page."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bot.workspace.terminal.client import Client
from bot.workspace.terminal.panes import MOST
from tests.support.postgres import Server
from tests.unit.bot.workspace.world import GENERAL, World, running, until

DM = "D0ALICE001"


@pytest.fixture
async def world(tmp_path: Path, psql: Path) -> AsyncIterator[World]:
    async with running(tmp_path / "state", psql=psql) as started:
        yield started


@pytest.fixture
def line(wheel_postgres: Server) -> str:
    wheel_postgres.create_role("pane", "pane-password")
    target = f"host=127.0.0.1 port={wheel_postgres.port} dbname=postgres user=pane sslmode=disable"
    return f'PGPASSWORD=pane-password psql "{target}"'


def code(text: str) -> list[dict[str, Any]]:
    part = {"type": "rich_text_preformatted", "elements": [{"type": "text", "text": text}]}
    return [{"type": "rich_text", "elements": [part]}]


def sleeping(server: Server) -> bool:
    return bool(server.execute("select 1 from pg_stat_activity where usename = 'pane' and query ~ 'pg_sleep.600'"))


class Pane:
    """A page's pane, as the server sees it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.frames: list[dict[str, Any]] = []
        self.text = ""

    async def tell(self, **wish: Any) -> None:
        await self.socket.send_json(wish)

    async def hear(self, has: str) -> str:
        """Waits for a text or a kind of frame."""
        async with asyncio.timeout(20):
            while has not in self.text[-20_000:] and not any(has in frame for frame in self.frames[-20:]):
                await self._receive()
        return self.text

    async def _receive(self) -> None:
        self.frames.append(json.loads((await self.socket.receive()).data))
        self.text += self.frames[-1].get("out", "")

    async def hears(self, kind: str, value: Any = None) -> dict[str, Any]:
        """Waits for the next frame of a kind, with that value if one is given."""
        async with asyncio.timeout(20):
            while True:
                await self._receive()
                if kind in self.frames[-1] and value in (None, self.frames[-1][kind]):
                    return self.frames[-1]

    async def run(self, sql: str) -> str:
        """Sends a line and waits for the next prompt; returns what came before it."""
        before = len(self.text)
        prompts = self.text.count("\x1f")
        await self.tell(send=sql)
        async with asyncio.timeout(20):
            while self.text.count("\x1f") <= prompts:
                await self._receive()
        return self.text[before:]


def pane_address(world: World, user: str = "alice", token: str | None = None) -> str:
    shown = world.space.panes.token if token is None else token
    return f"{world.url}/local/terminal?as={user}&token={shown}"


@contextlib.asynccontextmanager
async def pane(world: World, user: str = "alice") -> AsyncIterator[Pane]:
    headers = {"Origin": world.url}
    async with world.session.ws_connect(pane_address(world, user), headers=headers) as socket:
        yield Pane(socket)


async def offer(world: World, text: str, channel: str = DM) -> str:
    answer = await world.client.chat_postMessage(channel=channel, text="your line", blocks=code(text))
    return str(answer["ts"])


async def test_psql_runs_with_the_line_of_a_message_and_goes_on_while_nobody_looks(world: World, line: str) -> None:
    ts = await offer(world, line)
    async with pane(world) as first:
        await first.tell(size=[120, 40])
        await first.tell(open={"channel": "@helper", "ts": ts})
        greeting = await first.hear("\x1epostgres=>\x20\x1f")
        # psql's age beside the server's is no news to anybody here; what else it greets with is.
        assert "might not work" not in greeting
        assert 'Type "help" for help.' in greeting
        assert "42" in await first.run("select 6 * 7 as answer;")
        await first.tell(send="select pg_sleep(0.3), 'late' as when_nobody_looked;")
    async with pane(world) as again:
        said = await again.hear("late")
        assert "42" in said
        assert {"in": "select 6 * 7 as answer;", "tab": 1} in again.frames
        assert any(frame.get("label") == "postgres as pane" for frame in again.frames)
        await again.tell(send="\\q")
        await again.hear("end")


async def test_each_line_has_its_own_psql_and_only_one_that_lost_its_session_gives_way(
    world: World, line: str, wheel_postgres: Server
) -> None:
    def sessions(state: str) -> int:
        return len(
            wheel_postgres.execute(f"select 1 from pg_stat_activity where usename = 'pane' and state = '{state}'")
        )

    def clients() -> list[Client]:
        return world.space.panes.clients("U0ALICE001")

    lines = [await offer(world, line) for _ in range(MOST + 1)]
    async with pane(world) as mine, pane(world) as elsewhere:
        for number, ts in enumerate(lines[:MOST], 1):
            await mine.tell(open={"channel": DM, "ts": ts})
            await until(lambda: sessions("idle") == number, 20)  # noqa: B023
        await mine.tell(send="begin;", tab=1)
        await until(lambda: sessions("idle in transaction") == 1, 20)
        await mine.tell(open={"channel": DM, "ts": lines[0]})
        assert (await mine.hears("show", 1))["show"] == 1, "the line's own psql is shown, not a new one"
        await mine.tell(open={"channel": DM, "ts": lines[MOST]})
        await mine.hears("failed")
        assert [one.number for one in clients()] == [1, 2, 3, 4]
        wheel_postgres.execute("alter role pane nologin")
        wheel_postgres.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename='pane' and state='idle'"
        )
        await mine.tell(send="select 1;", tab=2)
        await until(lambda: not clients()[1].connected, 20)
        wheel_postgres.execute("alter role pane login")
        await mine.tell(forget=True, tab=1)
        await mine.tell(open={"channel": DM, "ts": lines[MOST]})
        await mine.hears("show", 5)
        await elsewhere.hears("gone", 2)
        assert [one.number for one in clients()] == [1, 3, 4, 5]
        assert sessions("idle in transaction") == 1, "what lives is never ended for another"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells")
async def test_a_session_that_is_ended_while_nobody_types_is_said_to_be_over(
    world: World, line: str, wheel_postgres: Server
) -> None:
    end = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'pane'"
    async with pane(world) as mine:
        await mine.tell(open={"channel": DM, "ts": await offer(world, line)})
        await mine.hear("\x1f")
        (client,) = world.space.panes.clients("U0ALICE001")
        assert client.connected
        wheel_postgres.execute(end)
        assert (await mine.hears("lost"))["tab"] == 1
        assert (client.running, client.connected) == (True, False)
        # Told something, psql notices too, and here it may come back.
        assert "terminating connection" in await mine.run("select 1;")
        await until(lambda: client.connected, 20)
        wheel_postgres.execute(end)
        await mine.hears("lost")
    async with pane(world) as again:
        await again.hears("lost")
        await again.tell(forget=True)
        await again.hears("gone", 1)


async def test_control_c_cancels_what_runs_and_clears_a_half_typed_statement(
    world: World, line: str, wheel_postgres: Server
) -> None:
    ts = await offer(world, line)
    async with pane(world) as mine:
        await mine.tell(open={"channel": DM, "ts": ts})
        await mine.hear("\x1f")
        await mine.tell(send="select pg_sleep(600);")
        await until(lambda: sleeping(wheel_postgres), 20)
        await mine.tell(interrupt=True)
        assert "canceling statement due to user request" in await mine.hear("canceling statement")
        await mine.tell(send="select 1,")
        await mine.hear("postgres->")
        await mine.tell(interrupt=True)
        await mine.hear("postgres-> \x1f\n\x1epostgres=> \x1f")
        await mine.tell(send="select 6 + 1 as seven;")
        assert "syntax error" not in await mine.hear("(1 row)")


async def test_columns_follow_the_pane(world: World, line: str) -> None:
    ts = await offer(world, line)
    async with pane(world) as mine:
        await mine.tell(size=[200, 40])
        await mine.tell(open={"channel": DM, "ts": ts})
        await mine.hear("\x1f")
        wide = "select repeat('x', 40) as one, repeat('y', 40) as two;"
        assert "RECORD" not in await mine.run(wide)
        await mine.tell(size=[40, 40])
        assert "RECORD 1" in await mine.run(wide)


async def test_what_is_not_on_the_list_is_not_sent_and_comes_back(world: World, line: str) -> None:
    ts = await offer(world, line)
    async with pane(world) as mine:
        await mine.tell(open={"channel": DM, "ts": ts})
        await mine.hear("\x1f")
        await mine.tell(send="select 1;\n\\! id")
        await mine.hear("refused")
        assert mine.frames[-1]["text"] == "select 1;\n\\! id"
        assert "nothing else" in mine.frames[-1]["refused"]
        assert not any(frame.get("in") == "select 1;" for frame in mine.frames)


async def test_a_pane_opens_only_what_the_app_sent_to_that_person_alone(world: World, line: str) -> None:
    own = await offer(world, line)
    public = await offer(world, line, "C0ACCESS01")
    typed = await world.post("message", user="alice", channel="@helper", text=f"```{line}```", wait_ms=0)
    assert typed["ok"]
    mine = (await world.seen("alice", "@helper"))[-1]["ts"]
    away = await offer(world, line.replace("127.0.0.1", "192.0.2.1"))
    wishes = [("bob", DM, own), ("alice", "C0ACCESS01", public), ("alice", DM, mine), ("alice", DM, away)]
    wishes += [("alice", DM, "1.1"), ("alice", GENERAL, own), ("gus", DM, own)]
    for user, channel, ts in wishes:
        async with pane(world, user) as theirs:
            await theirs.tell(open={"channel": channel, "ts": ts})
            await theirs.hear("failed")
        assert world.space.panes.client("U0ALICE001") is None
    ephemeral = await world.client.chat_postEphemeral(
        channel="C0ACCESS01", user="U0ALICE001", text="x", blocks=code(line)
    )
    async with pane(world) as theirs:
        await theirs.tell(open={"channel": "C0ACCESS01", "ts": ephemeral["message_ts"]})
        await theirs.hear("\x1f")


@pytest.mark.parametrize(
    ("origin", "host", "token"),
    [
        (None, None, None),
        ("http://evil.test", None, None),
        ("null", None, None),
        ("own", "evil.test", None),
        ("own", None, ""),
        ("own", None, "guess"),
        ("own", None, "\u00fc"),
    ],
)
async def test_no_page_but_ours_gets_a_pane(
    tmp_path: Path, origin: str | None, host: str | None, token: str | None
) -> None:
    async with running(tmp_path / "state") as world:
        headers = {"Origin": world.url if origin == "own" else origin} if origin else {}
        headers |= {"Host": host} if host else {}
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await world.session.ws_connect(pane_address(world, token=token), headers=headers)
        assert refused.value.status == 403
        assert world.space.panes.token not in await (await world.session.get(f"{world.url}/")).text()


async def test_the_token_is_new_with_every_start(tmp_path: Path) -> None:
    tokens = set()
    for _ in range(2):
        async with running(tmp_path / "state") as world:
            tokens.add((await world.get("workspace"))["terminal"]["token"])
    assert len(tokens) == 2


async def test_a_flood_of_output_is_kept_in_bounds(world: World, line: str) -> None:
    ts = await offer(world, line)
    async with pane(world) as mine:
        await mine.tell(size=[200, 40])
        await mine.tell(open={"channel": DM, "ts": ts})
        await mine.hear("\x1f")
        await mine.tell(send="select g, repeat('x', 100) from generate_series(1, 30000) g;")
        assert "(30000 rows)" in await mine.hear("(30000 rows)")
    async with pane(world) as again:
        assert len(await again.hear("(30000 rows)")) < 400_000
