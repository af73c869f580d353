"""The terminal pane: a real psql and a real server, and everything one would try to get more out of it."""

import asyncio
import contextlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bot.workspace.terminal.client import CAGE, Client
from bot.workspace.terminal.lines import Refused, read_typed
from bot.workspace.terminal.ticket import Connection
from broker.demo.install import installs
from tests.support.postgres import Server
from tests.support.require import missing
from tests.unit.bot.workspace.world import GENERAL, World, running, until

DM = "D0ALICE001"


@pytest.fixture(scope="module")
def postgres(wheel_postgres: Server) -> Server:
    """One server: the pane does not depend on its version."""
    return wheel_postgres


def psqls() -> list[Path]:
    """Every psql program here, a wheel's among them."""
    return [path for install in installs() if (path := install.bin / "psql").is_file()]


@pytest.fixture(params=range(2))
def psql(request: pytest.FixtureRequest) -> Path:
    found = psqls()
    if not found:
        missing("no psql", "apt install postgresql-client")
    if request.param >= len(found):
        pytest.skip("there is one psql here")
    return found[request.param]


@pytest.fixture
async def world(tmp_path: Path, psql: Path) -> AsyncIterator[World]:
    async with running(tmp_path / "state", psql=psql) as started:
        yield started


@pytest.fixture
def line(postgres: Server) -> str:
    postgres.create_role("pane", "pane-password")
    target = f"host=127.0.0.1 port={postgres.port} dbname=postgres user=pane sslmode=disable"
    return f'PGPASSWORD=pane-password psql "{target}"'


def connection(server: Server) -> Connection:
    server.create_role("pane", "pane-password")
    return Connection("127.0.0.1", server.port, "postgres", "pane", "disable", "pane-password")


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
        await first.hear("\x1epostgres=>\x20\x1f")
        assert "42" in await first.run("select 6 * 7 as answer;")
        await first.tell(send="select pg_sleep(0.3), 'late' as when_nobody_looked;")
    async with pane(world) as again:
        said = await again.hear("late")
        assert "42" in said
        assert {"in": "select 6 * 7 as answer;"} in again.frames
        assert any(frame.get("label") == "postgres as pane" for frame in again.frames)
        await again.tell(send="\\q")
        await again.hear("end")


async def test_control_c_cancels_what_runs_and_clears_a_half_typed_statement(
    world: World, line: str, postgres: Server
) -> None:
    ts = await offer(world, line)
    async with pane(world) as mine:
        await mine.tell(open={"channel": DM, "ts": ts})
        await mine.hear("\x1f")
        await mine.tell(send="select pg_sleep(600);")
        await until(lambda: sleeping(postgres), 20)
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
        assert {"in": "select 1;"} not in mine.frames


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


# Straight into psql, past the list: the cage has to hold alone.
ATTACKS = [
    "\\! touch {}",
    "\\o {}\nselect 1;\n\\o",
    "\\o |touch {}\nselect 1;\n\\o",
    "select 1 \\g {}",
    "select 1 \\g |touch {}",
    "\\copy (select 1) to '{}'",
    "\\copy (select 1) to program 'touch {}'",
    "\\set x `touch {}`",
    "\\echo `touch {}`",
    "select 1;\n\\w {}",
    "select 1;\n\\w |touch {}",
    "\\setenv PSQL_EDITOR 'touch {} #'\nselect 1;\n\\e",
    "\\setenv PAGER 'touch {}'\n\\pset pager always\n\\dS\n\\?",
    "\\s {}",
    "\\lo_import /etc/passwd\n\\i /etc/passwd\n\\! cat /etc/passwd",
    "\\set PROMPT1 '%`touch {}`'\nselect 1;",
    "select 'touch {}' as t \\gset\n\\! :t",
]


@pytest.fixture
def target() -> Iterator[Path]:
    # Open to everyone, so that the cage and not the folder's mode is what keeps it empty.
    with tempfile.TemporaryDirectory(prefix="airlock-pane-") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder) / "broken-out"


def made(target: Path) -> int:
    """How many bytes somebody has written there, -1 where nothing is."""
    return target.stat().st_size if target.exists() else -1


@pytest.mark.parametrize("attack", ATTACKS)
async def test_the_cage_holds_without_the_list(psql: Path, postgres: Server, target: Path, attack: str) -> None:
    said: list[str] = []
    client = Client(1, connection(postgres), lambda what, text: said.append(text) if what == "said" else None)
    client.start(psql, 100, 30)
    try:
        await until(lambda: "\x1f" in "".join(said), 20)
        client.send([*attack.format(target).split("\n"), "\\echo all-was-tried"])
        await until(lambda: "all-was-tried" in "".join(said), 20)
    finally:
        await client.close()
    text = "".join(said)
    assert made(target) <= (-1 if "touch" in attack else 0), text
    assert "root:x:0" not in text


async def test_psql_has_no_power_no_path_and_no_secret_of_ours(
    psql: Path, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-not-for-psql")
    said: list[str] = []
    client = Client(1, connection(postgres), lambda what, text: said.append(text) if what == "said" else None)
    client.start(psql, 100, 30)
    try:
        await until(lambda: "\x1f" in "".join(said), 20)
        proc = Path(f"/proc/{client.pid}")
        status = (proc / "status").read_text()
        assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE), status
        assert re.search(r"^CapPrm:\s+0+$", status, re.MULTILINE), status
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE), status
        assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE), status
        assert re.search(r"^Max processes +0 +0", (proc / "limits").read_text(), re.MULTILINE)
        assert (proc / "exe").resolve().name == "psql"
        assert b"xoxb" not in (proc / "environ").read_bytes()
        assert b"pane-password" not in (proc / "cmdline").read_bytes()
        assert {os.readlink(each).split(":")[0] for each in (proc / "fd").iterdir()} <= {
            "socket",
            *(os.readlink(proc / "fd" / "0"),),
        }
    finally:
        await client.close()


async def test_psql_reaches_no_other_port(psql: Path, postgres: Server) -> None:
    listener = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    other = listener.sockets[0].getsockname()[1]
    said: list[str] = []
    client = Client(1, connection(postgres), lambda what, text: said.append(text) if what == "said" else None)
    client.start(psql, 100, 30)
    try:
        await until(lambda: "\x1f" in "".join(said), 20)
        client.send([f"\\c 'host=127.0.0.1 port={other} sslmode=disable'", "\\echo tried"])
        await until(lambda: "tried\n" in "".join(said), 20)
    finally:
        await client.close()
        listener.close()
    if _landlock_version() >= 4:
        assert "Permission denied" in "".join(said)


def _landlock_version() -> int:
    if not sys.platform.startswith("linux"):
        return 0
    import ctypes

    return int(ctypes.CDLL(None, use_errno=True).syscall(444, None, 0, 1))


def test_psql_is_not_started_where_the_cage_does_not_hold(tmp_path: Path) -> None:
    """The cage's last act is to try: with its layers taken out, it must refuse."""
    script = (
        "import runpy, sys\n"
        f"cage = runpy.run_path({str(CAGE)!r}, run_name='cage')\n"
        "main = cage['main']\n"
        "main.__globals__['enclose'] = lambda psql, port: None\n"
        "main('/bin/echo', 1)\n"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, timeout=30)
    assert done.returncode == 97
    assert "other programs could be started" in done.stdout


FRAGMENTS = [
    *("select 1", ";", " ", "'", '"', "$$", "$a$", "--", "/*", "*/", "E'", "U&'", "\\x", "\\d", "\\g", "\\gx", "\\p"),
    *("\\r", "\\! touch %", "\\o |touch %", "\\g |touch %", "`touch %`", "\\echo `touch %`", "|touch %", "\\copy"),
    *("\\t", "\\a", "\\echo ", ":'x'", ":LAST_ERROR_MESSAGE", "::text", ":a", "\\;", "\\:", "(", ")", "{", "}", "\\\\"),
    *("\\pset null ", "set standard_conforming_strings=off", "set standard_conforming_strings=on", "begin", "rollback"),
    *("\n", "\n", "\t"),
    *("copy (select 1) to stdout", "copy nowhere from stdin", "\\.", "\\c ", "\\h ", "\\q", "\\set x ", "\\if 1", "é"),
    *("select (chr(92)||'! touch %')::int", "select (chr(34)||';'||chr(92)||'! touch %')::int", "\\errverbose"),
]  # fmt: skip


def test_nothing_that_passes_the_list_starts_a_program_in_a_psql_without_a_cage(postgres: Server, target: Path) -> None:
    """Thousands of random lines: those that pass go to a psql that could do harm, the others are counted."""
    psql = psqls()[0]
    conn = connection(postgres)
    dice = random.Random(20)
    passed, refused = [], 0
    while len(passed) < 3000:
        text = "".join(dice.choice(FRAGMENTS) for _ in range(dice.randint(1, 7))).replace("%", str(target))
        typed = read_typed(text)
        if isinstance(typed, Refused):
            refused += 1
        elif not any("\\q" in each for each in typed):
            passed += typed
    assert refused > 300
    env = {**conn.environment(), "PATH": os.environ["PATH"], "PGCLIENTENCODING": "UTF8"}
    for start in range(0, len(passed), 100):
        # A fresh psql now and then, since a quote left open swallows what follows.
        subprocess.run(
            [psql, "-X", "-n", "-w"], input="\n".join(passed[start : start + 100]), env=env, text=True,
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert not target.exists(), passed[start : start + 100]
    # The same psql does break out when it is told to: the test can fail.
    escape = f"select (chr(34)||';'||chr(92)||'! touch {target} #')::int;\n:LAST_ERROR_MESSAGE\n"
    command = [psql, "-X", "-n", "-w"]
    subprocess.run(command, input=escape, env=env, text=True, capture_output=True, timeout=60, check=False)
    assert target.exists()
