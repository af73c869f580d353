"""Kills, verified on the upstream: in every state that a session can be in, at expiry, on revoke, with its client."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from broker.protocols.postgres import codec
from broker.sessions.model import CloseReason
from tests.integration.postgres_world import (
    SLOW,
    Raw,
    backends,
    endpoint,
    enter,
    gone,
    gone_within,
    make_world,
    problem,
    raw,
)
from tests.support.broker import POLICY, Shown, TestBroker, serving
from tests.support.postgres import Server

LOOPS = ("uvloop", "asyncio")
AHEAD = POLICY.replace(
    "    roles:\n", "    roles:\n      ahead: {credential: 'file:x', relations: ['public.*'], spares: 1}\n", 1
)
STREAM = "select a.body || b.body || c.body from notes a, notes b, notes c"
TRAPS = """
    create table locked (id int);
    create table careless (what text);
    create table deaf (what text);
    create table late (what text);
    grant select, insert on locked, careless, deaf, late to app_write;
    create function careless() returns trigger language plpgsql as
        $$ begin loop begin perform pg_sleep(60); exception when others then null; end; end loop; end $$;
    create function deaf() returns trigger language plpgsql as
        $$ begin loop begin perform pg_sleep(60); exception when query_canceled then null; end; end loop; end $$;
    create function late() returns trigger language plpgsql as $$ begin perform pg_sleep(60); return null; end $$;
    create trigger t before insert on careless for each row execute function careless();
    create trigger t before insert on deaf for each row execute function deaf();
    create constraint trigger t after insert on late deferrable initially deferred for each row
        execute function late();
"""
"""Tables whose rows are never done: functions that catch what comes their way, and one that waits in COMMIT."""


@pytest.fixture
async def served(wheel_postgres: Server, tmp_path: Path) -> AsyncIterator[TestBroker]:
    read, write = make_world(wheel_postgres), endpoint(wheel_postgres, "app_write")
    async with serving(tmp_path, read, policy=AHEAD, write=write, ahead=write) as broker:
        yield broker


@dataclass(frozen=True)
class State:
    """What a client sends, and how the upstream then describes its process; `told` is whether it reads its end."""

    sends: tuple[bytes, ...]
    upstream: str = "active"
    role: str = "write"
    told: bool = True
    ahead: bool = False
    """On a connection that was logged in before the session began."""


def _sql(*texts: str) -> tuple[bytes, ...]:
    return tuple(codec.query(text) for text in texts)


PORTAL = codec.parse("", "select * from notes") + codec.message(b"B", b"p\0\0" + bytes(6)) + codec.execute("p", 5)
STATES = {
    "idle": State((), "idle"),
    "idle on a spare": State((), "idle", "ahead", ahead=True),
    "idle in a transaction": State(_sql("begin", "insert into log (what) values ('x')"), "idle in transaction"),
    "a failed transaction": State(_sql("begin", "select 1/0"), "idle in transaction (aborted)"),
    "copying in": State(_sql("copy notes (id, body) from stdin")),
    "a suspended portal": State((*_sql("begin"), PORTAL + codec.SYNC), "idle in transaction"),
    "a Parse that waits for a lock": State((codec.parse("p", "select * from locked") + codec.SYNC,)),
    "waiting for a lock": State(_sql("insert into log (what) values ('x'); insert into locked values (1)")),
    "a held statement": State(_sql("insert into log (what) values ('x')"), "idle", "ask"),
    "a function that catches everything": State(_sql("insert into careless values ('x')")),
    "a function that catches a cancel": State(_sql("insert into deaf values ('x')")),
    "in COMMIT": State(_sql("begin", "insert into late values ('x')", "commit")),
    "PREPARE TRANSACTION": State(
        _sql("begin", "insert into log (what) values ('x')", "prepare transaction 'x'"), "idle in transaction (aborted)"
    ),
    # These take a processor each for as long as they run.
    "a long query on a spare": State(_sql(SLOW), role="ahead", ahead=True),
    "a long query": State(_sql(SLOW)),
    "a long query of several statements": State(_sql(f"insert into log (what) values ('x'); {SLOW}")),
    "queries behind a long one": State((*_sql(SLOW), *_sql("insert into log (what) values ('x')") * 1000)),
    "streaming to a client that does not read": State(_sql(STREAM), told=False),
    "copying out": State(_sql(f"copy ({STREAM}) to stdout"), told=False),
    "a cursor's FETCH": State(_sql("begin", f"declare c cursor for {SLOW}", "fetch c")),
}


async def _in_state(served: TestBroker, server: Server) -> dict[str, Raw]:
    """Open a session for each state, each under a grant of its own, and wait until the upstream sees them there."""
    clients, sessions = {}, {}
    for name, state in STATES.items():
        ticket = served.ticket(role=state.role)
        spare = await _spare(served, ticket) if state.ahead else ""
        client = clients[name] = Raw(served.port)
        await asyncio.to_thread(enter, client, ticket)
        assert spare in ("", served.live.sessions[-1].facts.id)
        sessions[f"airlock:{served.live.sessions[-1].facts.id}"] = name
        for message in state.sends:
            await asyncio.to_thread(client.send, message)
            if len(state.sends) < 10:
                await asyncio.sleep(0.03)
    deadline = time.monotonic() + 40
    while wrong := {
        sessions[name]: state
        for name, state in (await asyncio.to_thread(_upstream, server)).items()
        if name in sessions and state != STATES[sessions[name]].upstream
    }:
        assert time.monotonic() < deadline, wrong
        await asyncio.sleep(0.05)
    assert len(served.live.sessions) == len(STATES)
    return clients


async def _spare(served: TestBroker, ticket: Shown) -> str:
    """Have a connection logged in ahead for the next session of a ticket; returns what that will be called."""
    before = len(served.live.sessions)
    shelves = served.listener._house.spares._shelves
    with raw(served.port) as client:
        await asyncio.to_thread(enter, client, ticket)
        await served.until(lambda: any(shelf.ready for kind, shelf in shelves.items() if kind.grant == ticket.grant.id))
    await served.until(lambda: len(served.live.sessions) == before)
    return next(shelf.ready[0].session for kind, shelf in shelves.items() if kind.grant == ticket.grant.id)


def _upstream(server: Server) -> dict[str, str]:
    rows = server.execute(
        "select application_name, state from pg_stat_activity where application_name like 'airlock:s%' "
        "and backend_type = 'client backend'"
    )
    return {str(name): str(state) for name, state in rows}


async def test_every_state_a_session_can_be_in_ends_with_its_grant(served: TestBroker, wheel_postgres: Server) -> None:
    wheel_postgres.execute(TRAPS, "shop")
    with wheel_postgres.connect("shop", autocommit=False) as other:
        other.execute("lock table locked in access exclusive mode")
        clients = await _in_state(served, wheel_postgres)
        assert len(served.recorder.of("hold.opened")) == 1
        # The clock is set forward, as by a person or after a sleep: each session looks at it every second.
        served.clock.offset = timedelta(seconds=601)
        served.live.over = {session.facts.grant.id for session in served.live.sessions}
        # How soon is measured by `make chaos`; here a busy machine has all the time it needs.
        await gone_within(wheel_postgres, 40.0)
        # Some came before, to have a connection logged in ahead for another.
        before = sum(state.ahead for state in STATES.values())
        await served.until(lambda: len(served.recorder.of("session.closed")) == before + len(STATES), 40.0)
    for name, client in clients.items():
        told = await asyncio.to_thread(client.rest)
        assert not STATES[name].told or b"the time of this access is over" in told, name
        client.close()
    closed = served.recorder.of("session.closed")[before:]
    assert {(one["reason"], one["verified"]) for one in closed} == {("expired", True)}
    assert len(served.leases.closed) == before + len(STATES)
    # What was recorded before it was forwarded has its end recorded too.
    finished = served.recorder.of("statement.finished")
    assert len(finished) == len(served.recorder.of("statement.allowed"))
    for table in ("log", "careless", "deaf", "late", "locked", "pg_prepared_xacts"):
        assert wheel_postgres.execute(f"select count(*) from {table}", "shop") == [(0,)], table


async def test_a_revoked_session_is_told_why_and_verified_gone(served: TestBroker, wheel_postgres: Server) -> None:
    with raw(served.port) as client:
        await asyncio.to_thread(enter, client, served.ticket())
        client.send(codec.query(SLOW))
        await served.until(lambda: [state for _, state, _ in backends(wheel_postgres)] == ["active"])
        (session,) = served.live.sessions
        begun = time.monotonic()
        assert await asyncio.gather(*(session.end(CloseReason.REVOKED) for _ in range(3))) == [True] * 3
        assert time.monotonic() - begun < 15
        assert gone(wheel_postgres)
        frames = await asyncio.to_thread(client.until, "E")
        assert "this access was revoked" in problem(frames[-1])["M"]
    assert not served.live.sessions


async def test_a_kill_does_not_wait_for_connections_of_the_brokers_own_that_have_gone_silent(
    served: TestBroker, wheel_postgres: Server
) -> None:
    """As when a firewall between them has forgotten the connections: nothing comes back, not even a refusal."""
    with raw(served.port) as client:
        await asyncio.to_thread(enter, client, served.ticket())
        client.send(codec.query(SLOW))
        await served.until(lambda: [state for _, state, _ in backends(wheel_postgres)] == ["active"])
        (session,) = served.live.sessions
        own = wheel_postgres.execute("select pid from pg_stat_activity where application_name = 'airlock:broker'")
        assert own
        try:
            for (pid,) in own:
                os.kill(pid, signal.SIGSTOP)
            assert await session.end(CloseReason.REVOKED)
        finally:
            for (pid,) in own:
                os.kill(pid, signal.SIGCONT)
        assert gone(wheel_postgres)


@pytest.mark.parametrize("how", ["close", "terminate", "reset"])
async def test_a_client_that_leaves_takes_its_work_along(served: TestBroker, wheel_postgres: Server, how: str) -> None:
    with raw(served.port) as client:
        await asyncio.to_thread(enter, client, served.ticket(role="write"))
        client.send(codec.query(f"insert into log (what) select body from notes; {SLOW}"))
        await served.until(lambda: [state for _, state, _ in backends(wheel_postgres, "app_write")] == ["active"])
        if how == "terminate":
            client.send(codec.TERMINATE)
        if how == "reset":
            client.socket.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")
        client.close()
        await gone_within(wheel_postgres, 40.0)
    await served.until(lambda: bool(served.recorder.of("session.closed")))
    assert served.recorder.of("session.closed")[0]["reason"] == "client"
    assert wheel_postgres.execute("select count(*) from log", "shop") == [(0,)]


async def test_sixty_kills_at_once_are_each_verified(served: TestBroker, wheel_postgres: Server) -> None:
    ticket = served.ticket()
    clients: list[Raw] = []
    try:
        for _ in range(60):
            clients.append(Raw(served.port))
            await asyncio.to_thread(enter, clients[-1], ticket)
        begun = time.monotonic()
        ended = await asyncio.gather(*(session.end(CloseReason.REVOKED) for session in list(served.live.sessions)))
        assert time.monotonic() - begun < 30
        assert ended == [True] * 60
        assert gone(wheel_postgres)
    finally:
        for client in clients:
            client.close()


class Stuck:
    """A way to a server that sticks in the middle of a session's login: nothing passes any more, nothing is closed."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.stuck = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward, upstream = await asyncio.open_connection("127.0.0.1", self._server.port)
        try:
            startup = await reader.read(65536)
            upstream.write(startup)
            if b"airlock:broker" in startup:
                await asyncio.gather(_pass(reader, upstream), _pass(onward, writer))
                return
            writer.write(await onward.read(65536))
            upstream.write(await reader.read(65536))
            await onward.read(65536)
            # The challenge never comes.
            self.stuck.set()
            await reader.read()
        finally:
            upstream.close()
            writer.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


def _processes(server: Server) -> int:
    """How many processes the server has, those that nobody has logged in to yet among them."""
    found = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            found += stat.read_text().rpartition(")")[2].split()[1] == str(server.pid)
        except OSError:
            continue
    return found


async def test_a_session_that_is_logging_in_to_its_upstream_is_ended(wheel_postgres: Server, tmp_path: Path) -> None:
    make_world(wheel_postgres)
    stuck = Stuck(wheel_postgres)
    async with await asyncio.start_server(stuck.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with serving(tmp_path, endpoint(wheel_postgres, "app", port=port)) as served:
            with raw(served.port) as client:
                entering = asyncio.create_task(asyncio.to_thread(enter, client, served.ticket()))
                await asyncio.wait_for(stuck.stuck.wait(), 10)
                before = _processes(wheel_postgres)
                (session,) = served.live.sessions
                assert await session.end(CloseReason.REVOKED)
                assert "this access was ended" in problem((await entering)[-1])["M"]
            assert served.leases.closed == [session.facts.id]
            assert not served.recorder.of("session.opened")
            await served.until(lambda: _processes(wheel_postgres) == before - 1)
