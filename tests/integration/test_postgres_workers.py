"""A broker of several processes behind one port: to people one broker, whichever of them serves whom."""

import asyncio
import json
import os
import signal
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import asyncpg
import psycopg
import pytest

from broker.adapters.verify import verify
from tests.integration.broker import Bot, until
from tests.integration.postgres_world import SLOW, backends, gone_within, make_world
from tests.integration.running import Running
from tests.support.broker import POLICY, Line
from tests.support.postgres import Server
from workflows.orders import HoldAnswer, sign_hold_answer

SEARCHED = "masks: {ssn: {mask: hide, search: equality, searches_per_hour: 4}}"

T = TypeVar("T")


@dataclass
class Crew:
    """A broker of two workers and its reaper."""

    running: Running
    process: subprocess.Popen[bytes]
    bot: Bot
    workers: list[int]
    port: int
    home: Path

    async def ticket(self, role: str = "read") -> tuple[dict[str, Any], Line]:
        grant = await self.bot.grant(role=role, reviews=[])
        _, found = await self.bot.json("POST", f"/v1/grants/{grant['id']}/tickets")
        return grant, Line(found["user"], found["password"], found["database"], found["port"])

    def served(self) -> dict[str, int]:
        """Which process serves each session, by what leases say."""
        lines = map(json.loads, (self.home / "leases" / "leases.ndjson").read_text().splitlines())
        return {line["session"]: line["broker_pid"] for line in lines if line["op"] == "lease"}

    async def served_by(self, line: Line, count: int, besides: int) -> bool:
        """Whether so many processes serve after one more session."""
        await (await connect(line)).fetchval("select 1")
        return len({*self.served().values()} - {besides}) >= count

    async def told(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in await self.bot.events() if event["type"] == kind]

    def recorded(self, grant: str) -> list[dict[str, Any]]:
        text = (self.home / "recordings" / f"{grant}.ndjson").read_text()
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def world(wheel_postgres: Server, tmp_path: Path) -> Iterator[Running]:
    make_world(wheel_postgres)
    running = Running(tmp_path)
    policy = POLICY.replace("port: 1,", f"port: {wheel_postgres.port},").replace("masks: {ssn: hide}", SEARCHED)
    running.world.write_policy(policy)
    (running.state / "secrets" / "x").write_text("app:app-password\n")
    yield running
    running.end()


@asynccontextmanager
async def crew(world: Running) -> AsyncIterator[Crew]:
    if len(world.processes) == 0:
        world.start("broker.reaper")
    process = world.start(AIRLOCK_WORKERS="2")
    facts = await asyncio.to_thread(world.wait_ready, process)
    async with aiohttp.ClientSession() as http:
        bot = Bot(world.world.key, facts["api"], http)
        await soon(lambda: answers(http, f"{facts['api']}/v1/ready"))
        yield Crew(world, process, bot, facts["workers"], facts["ports"]["postgres"], world.state / "broker")


async def soon(look: Callable[[], Awaitable[T]], patience: float = 20.0) -> T:
    """What is found once there is something."""
    async with asyncio.timeout(patience):
        while not (found := await look()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return found


async def answers(http: aiohttp.ClientSession, url: str) -> bool:
    async with http.get(url) as answer:
        return answer.status == 200


async def connect(line: Line) -> asyncpg.Connection:
    return await asyncpg.connect(**line.asyncpg())


async def test_sessions_in_several_workers_are_one_broker(world: Running, wheel_postgres: Server) -> None:
    async with crew(world) as found:
        grant, line = await found.ticket()
        clients = [await connect(line) for _ in range(4)]
        assert sorted(found.served().values()) == sorted(found.workers * 2)
        for number, client in enumerate(clients):
            for _ in range(3):
                assert await client.fetchval("select count(*) from notes where id <= $1", number + 1) == number + 1
            assert await client.fetchval("select ssn from people where id = 1") == "***"

        # A search is rationed for the grant, whoever serves it.
        search, outcomes = "select name from people where ssn = $1", []
        for turn in range(6):
            try:
                outcomes.append(await clients[turn % 4].fetchval(search, "123-45-6789"))
            except asyncpg.PostgresError as error:
                outcomes.append(type(error).__name__)
        assert outcomes[:4] == ["Ann"] * 4
        assert "Ann" not in outcomes[4:]

        # A cancel request may come in at any of them.
        for _ in range(3):
            with pytest.raises(psycopg.errors.QueryCanceled):
                await asyncio.to_thread(_cancelled, line)

        # What they obey is read once.
        text = (world.world.settings.policies / "all.yaml").read_text()
        world.world.write_policy(
            text.replace("{id: reads,", "{id: writes-not, decision: deny, effects: [session]}\n  - {id: reads,")
        )
        for client in clients:
            await soon(partial(_refused, client))

        status, ended = await found.bot.json("DELETE", f"/v1/grants/{grant['id']}", json={"reason": "over"})
        assert (status, ended["verified"]) == (200, True)
        await gone_within(wheel_postgres, 3)
        await until(lambda: found.recorded(grant["id"])[-1]["type"] == "grant.closed", patience=15)
        lines = found.recorded(grant["id"])
        assert lines[-1]["data"]["sessions"] == 7
        assert sum(one["type"] == "session.closed" for one in lines) == 7
        allowed = [one["data"]["statement"] for one in lines if one["type"] == "statement.allowed"]
        assert len(allowed) == len(set(allowed))
        finished = [one["data"]["statement"] for one in lines if one["type"] == "statement.finished"]
        assert sorted(allowed) == sorted(finished)
        found.process.terminate()
        assert await asyncio.to_thread(found.process.wait, 15) == 0
        await until(lambda: not any(map(_alive, found.workers)))
    assert verify(world.state).good


async def test_a_statement_that_one_worker_holds_is_answered_where_holds_are_kept(world: Running) -> None:
    async with crew(world) as found:
        _, line = await found.ticket("ask")
        first, second = await connect(line), await connect(line)
        held = asyncio.create_task(first.execute("insert into log (what) values ('held')"))
        (opened,) = await soon(lambda: found.told("hold.opened"))
        hold = opened["data"]["hold"]
        assert await second.fetchval("select count(*) from log") == 0
        _, view = await found.bot.json("GET", f"/v1/holds/{hold}")
        review = found.bot.review("bob")
        answer = HoldAnswer(id="answer-1", hold=hold, digest=view["digest"], reviews=[review], policy_hash="0" * 64)
        token = sign_hold_answer(answer, found.bot.key, review.at)
        status, text = await found.bot.call("POST", f"/v1/holds/{hold}/answers", json={"answer": token})
        assert status == 200, text
        assert await held == "INSERT 0 1"
        assert await second.fetchval("select count(*) from log") == 1


async def test_a_dead_worker_takes_its_own_sessions_along_and_no_others(world: Running, wheel_postgres: Server) -> None:
    async with crew(world) as found:
        grant, line = await found.ticket()
        first, second = await connect(line), await connect(line)
        await first.fetchval("select count(*) from notes")
        await second.fetchval("select count(*) from notes")
        (mine, pid), (other, _) = list(found.served().items())
        running = asyncio.create_task(first.execute(SLOW))
        await until(lambda: any(state == "active" for _, state, _ in backends(wheel_postgres)), patience=15)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises((asyncpg.PostgresError, OSError)):
            await running
        await until(lambda: len(backends(wheel_postgres)) == 1)
        closed = await soon(lambda: found.told("session.closed"))
        assert [(one["session"], one["data"]["verified"]) for one in closed] == [(mine, True)]
        assert await second.fetchval("select count(*) from notes") == 1000
        third = await connect(line)
        assert await third.fetchval("select 1") == 1
        lines = found.recorded(grant["id"])
        outcomes = [(one["session"], one["data"]["outcome"]) for one in lines if one["type"] == "statement.finished"]
        assert outcomes[-1][0] != mine or outcomes[-1][1] == "unknown"
        assert (mine, "unknown") in outcomes
        assert (other, "unknown") not in outcomes
        # Another took its place, and its end is as sure.
        await soon(lambda: found.served_by(line, 2, besides=pid))
        _, ended = await found.bot.json("DELETE", f"/v1/grants/{grant['id']}", json={"reason": "over"})
        assert ended["verified"]
        await gone_within(wheel_postgres, 3)
    assert verify(world.state).good


async def test_what_was_renamed_stays_masked_in_workers_that_come_later(world: Running, wheel_postgres: Server) -> None:
    async with crew(world) as found:
        _, line = await found.ticket()
        sql = "select name from people where id = 1"
        first = await connect(line)
        assert await first.fetchval(sql) == "Ann"
        for change in ("name to spare", "ssn to name"):
            wheel_postgres.execute(f"alter table people rename column {change}", "shop")
        await soon(lambda: _is(first, sql, "***"))
        # The other one has read no catalogue yet; nor has who takes a dead one's place.
        clients = [await connect(line)]
        assert await clients[0].fetchval(sql) == "***"
        os.kill(next(iter(found.served().values())), signal.SIGKILL)
        await soon(lambda: found.told("session.closed"))

        async def served_by_three() -> bool:
            clients.append(await connect(line))
            return len({*found.served().values()}) == 3

        await soon(served_by_three)
        assert [await client.fetchval(sql) for client in clients] == ["***"] * len(clients)


async def test_what_a_broker_that_stands_still_records_late_is_decided_anew(
    world: Running, wheel_postgres: Server
) -> None:
    async with crew(world) as found:
        _, line = await found.ticket()
        client = await psycopg.AsyncConnection.connect(line.dsn(), autocommit=True)
        await client.execute("select name from people")
        os.kill(found.process.pid, signal.SIGSTOP)
        try:
            waiting = asyncio.create_task(client.execute("select name || '' from people where id = 1"))
            await asyncio.sleep(0.1)
            for change in ("name to spare", "ssn to name"):
                wheel_postgres.execute(f"alter table people rename column {change}", "shop")
            await asyncio.sleep(1)
        finally:
            os.kill(found.process.pid, signal.SIGCONT)
        assert await (await waiting).fetchall() == [("***",)]
        await client.close()


async def test_a_table_that_one_worker_has_seen_made_is_known_to_the_others(
    world: Running, wheel_postgres: Server
) -> None:
    wheel_postgres.execute("grant usage, create on schema public to app", "shop")
    async with crew(world) as found:
        _, line = await found.ticket("write")
        changing, reading = await connect(line), await connect(line)
        assert len({*found.served().values()}) == 2
        for at in range(5):
            await changing.execute(f"create table made{at} (id int)")
            assert await reading.fetchval(f"select count(*) from made{at}") == 0


async def test_what_waits_in_one_worker_keeps_no_session_out_of_another(world: Running, wheel_postgres: Server) -> None:
    text = (world.world.settings.policies / "all.yaml").read_text()
    world.world.write_policy(text.replace('relations: ["public.*"]}', 'relations: ["public.*"], spares: 3}'))
    async with crew(world) as found:
        _, line = await found.ticket()
        _, other = await found.ticket("few")
        first = await connect(line)
        await until(lambda: len(backends(wheel_postgres)) == 4)
        (taken,) = wheel_postgres.execute("select count(*) from pg_stat_activity where usename = 'app'")
        # The broker itself needs one more, to read the catalogue.
        wheel_postgres.execute(f"alter role app connection limit {taken[0] + 1}")
        try:
            second = await connect(other)
            assert await second.fetchval("select 1") == await first.fetchval("select 1") == 1
            assert len({*found.served().values()}) == 2
        finally:
            wheel_postgres.execute("alter role app connection limit -1")


async def test_workers_do_not_outlive_their_broker_and_the_next_one_goes_on(
    world: Running, wheel_postgres: Server
) -> None:
    async with crew(world) as found:
        grant, line = await found.ticket()
        clients = [await connect(line) for _ in range(2)]
        for client in clients:
            await client.execute("select 1")
            await client.execute("select 1")
        found.process.kill()
        await until(lambda: not any(map(_alive, found.workers)))
        await gone_within(wheel_postgres, 3)
    async with crew(world) as again:
        line = replace(line, port=again.port)
        assert await (await connect(line)).fetchval("select 2") == 2
        lines = again.recorded(grant["id"])
        allowed = [one["data"]["statement"] for one in lines if one["type"] == "statement.allowed"]
        assert len(allowed) == len(set(allowed)) >= 4
        assert not list((again.home / "recordings").glob("*.torn"))
    assert verify(world.state).good


def _cancelled(line: Line) -> None:
    """Run what takes long, and cancel it from another connection."""
    with psycopg.connect(line.dsn(), autocommit=True) as client:
        timer = threading.Timer(0.3, client.cancel_safe)
        timer.start()
        client.execute(SLOW)


async def _refused(client: asyncpg.Connection) -> bool:
    try:
        await client.execute("set extra_float_digits = 0")
    except asyncpg.PostgresError:
        return True
    return False


async def _is(client: asyncpg.Connection, sql: str, wanted: str) -> bool:
    return bool(await client.fetchval(sql) == wanted)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
