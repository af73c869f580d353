"""Sessions end when they must, verified on the upstream: at expiry, on revoke, with the client or the broker gone."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from broker.adapters.leases import LeaseFailed, LeaseFile
from broker.protocols.postgres import codec
from broker.sessions.model import CloseReason, Lease
from tests.integration.postgres_world import Raw, backends, endpoint, enter, kinds, make_world, problem, raw
from tests.support.broker import POLICY, Shown, TestBroker, serving
from tests.support.postgres import Server

SLOW = "select count(*) from notes a, notes b, notes c, notes d where a.body || b.body <> c.body || d.body"
STREAM = "select a.body || b.body || c.body from notes a, notes b, notes c"
OLD = "1970-01-01T00:00:00+00:00"
ROOT = Path(__file__).parents[2]


LOOPS = ("uvloop", "asyncio")


@pytest.fixture
async def served(wheel_postgres: Server, tmp_path: Path) -> AsyncIterator[TestBroker]:
    read, write = make_world(wheel_postgres), endpoint(wheel_postgres, "app_write")
    async with serving(tmp_path, read, write=write) as broker:
        yield broker


def gone(server: Server) -> bool:
    return not backends(server) and not backends(server, "app_write")


async def gone_within(server: Server, seconds: float) -> float:
    begun = time.monotonic()
    while not await asyncio.to_thread(gone, server):
        assert time.monotonic() - begun < seconds, backends(server)
        await asyncio.sleep(0.01)
    return time.monotonic() - begun


STATES = {
    "idle": [],
    "idle in a transaction": [codec.query("begin; insert into log (what) values ('x')")],
    "a long query": [codec.query(SLOW)],
    "streaming to a client that does not read": [codec.query(STREAM)],
    "copying out": [codec.query(f"copy ({STREAM}) to stdout")],
    "copying in": [codec.query("copy notes (id, body) from stdin")],
    "a suspended portal": [
        codec.query("begin"),
        codec.parse("", "select * from notes")
        + codec.message(b"B", b"p\0\0" + bytes(6))
        + codec.execute("p", 5)
        + codec.SYNC,
    ],
}


@pytest.mark.parametrize("state", STATES)
async def test_expiry_ends_the_upstreams_work_within_a_second(
    served: TestBroker, wheel_postgres: Server, state: str
) -> None:
    ticket = served.ticket(role="write", lasts=1.2)
    with raw(served.port) as client:
        await asyncio.to_thread(enter, client, ticket)
        for message in STATES[state]:
            client.send(message)
            await asyncio.sleep(0.05)
        await asyncio.sleep(max(0.0, ticket.grant.expires_at.timestamp() - time.time()))
        await gone_within(wheel_postgres, 1.0)
        told = await asyncio.to_thread(client.rest)
        if "does not read" not in state and "out" not in state:
            assert b"the time of this access is over" in told
            assert b"57P01" in told
    await served.until(lambda: bool(served.recorder.of("session.closed")))
    (closed,) = served.recorder.of("session.closed")
    assert (closed["reason"], closed["verified"]) == ("expired", True)
    assert len(served.leases.closed) == 1
    outcomes = [entry["outcome"] for entry in served.recorder.of("statement.finished")]
    assert len(outcomes) == len(served.recorder.of("statement.allowed"))
    assert wheel_postgres.execute("select count(*) from log", "shop") == [(0,)]


async def test_an_extended_session_works_on_past_its_old_end_and_ends_at_the_new_one(
    served: TestBroker, wheel_postgres: Server
) -> None:
    ticket = served.ticket(lasts=1.5)
    with raw(served.port) as client:
        await asyncio.to_thread(enter, client, ticket)
        until = ticket.grant.expires_at + timedelta(seconds=2)
        (session,) = served.live.sessions
        await session.extend(until)
        assert [lease.expires_at for lease in served.leases.written][-1] == until
        assert served.leases.written[-1].pid == served.leases.written[-2].pid
        await asyncio.sleep(max(0.0, ticket.grant.expires_at.timestamp() + 0.5 - time.time()))
        assert not served.recorder.of("session.closed")
        # What is armed upstream, once, is for the longest that the policy gives.
        client.send(codec.query("show statement_timeout"))
        (row,) = [frame for frame in await asyncio.to_thread(client.until, "Z") if frame.type == ord("D")]
        armed = row.body[6:].decode()
        assert timedelta(hours=3) < timedelta(milliseconds=int(armed.removesuffix("ms"))) < timedelta(hours=5), armed
        await asyncio.sleep(max(0.0, until.timestamp() - time.time()))
        await gone_within(wheel_postgres, 1.0)
        assert b"the time of this access is over" in await asyncio.to_thread(client.rest)


async def test_a_session_whose_new_lease_cannot_be_written_keeps_its_old_end(
    served: TestBroker, wheel_postgres: Server
) -> None:
    ticket = served.ticket(lasts=1.5)
    with raw(served.port) as client:
        await asyncio.to_thread(enter, client, ticket)
        (session,) = served.live.sessions

        async def fail(_lease: Lease) -> None:
            raise LeaseFailed("the disk is full")

        served.leases.write = fail
        with pytest.raises(LeaseFailed):
            await session.extend(ticket.grant.expires_at + timedelta(seconds=60))
        await asyncio.sleep(max(0.0, ticket.grant.expires_at.timestamp() - time.time()))
        await gone_within(wheel_postgres, 1.0)


async def test_a_session_that_ends_is_not_extended(served: TestBroker, wheel_postgres: Server) -> None:
    ticket = served.ticket()
    with raw(served.port) as client:
        await asyncio.to_thread(enter, client, ticket)
        (session,) = served.live.sessions
        leases = len(served.leases.written)
        _, gone = await asyncio.gather(
            session.extend(ticket.grant.expires_at + timedelta(seconds=60)), session.end(CloseReason.REVOKED)
        )
        assert gone
        await session.extend(ticket.grant.expires_at + timedelta(seconds=90))
        # Nothing is written after the close, or the reaper would take a session that is gone for one that lives.
        assert len(served.leases.written) == leases + 1
        assert served.leases.closed == [session.facts.id]


async def test_a_revoked_session_is_told_why_and_verified_gone(served: TestBroker, wheel_postgres: Server) -> None:
    with raw(served.port) as client:
        await asyncio.to_thread(enter, client, served.ticket())
        client.send(codec.query(SLOW))
        await asyncio.sleep(0.2)
        (session,) = served.live.sessions
        begun = time.monotonic()
        assert await asyncio.gather(*(session.end(CloseReason.REVOKED) for _ in range(3))) == [True] * 3
        assert time.monotonic() - begun < 1
        assert gone(wheel_postgres)
        frames = await asyncio.to_thread(client.until, "E")
        assert "this access was revoked" in problem(frames[-1])["M"]
    assert not served.live.sessions


@pytest.mark.parametrize("how", ["close", "terminate", "reset"])
async def test_a_client_that_leaves_takes_its_work_along(served: TestBroker, wheel_postgres: Server, how: str) -> None:
    with raw(served.port) as client:
        await asyncio.to_thread(enter, client, served.ticket(role="write"))
        client.send(codec.query(f"insert into log (what) select body from notes; {SLOW}"))
        await asyncio.sleep(0.2)
        if how == "terminate":
            client.send(codec.TERMINATE)
        if how == "reset":
            client.socket.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")
        client.close()
        await gone_within(wheel_postgres, 1.0)
    await served.until(lambda: bool(served.recorder.of("session.closed")))
    assert served.recorder.of("session.closed")[0]["reason"] == "client"
    assert wheel_postgres.execute("select count(*) from log", "shop") == [(0,)]


async def test_a_session_that_cannot_be_recorded_ends(served: TestBroker, wheel_postgres: Server) -> None:
    with raw(served.port) as client:
        await asyncio.to_thread(enter, client, served.ticket())
        served.recorder.broken = True
        client.send(codec.query("select 1"))
        frames = await asyncio.to_thread(client.until, "E")
        assert "cannot be recorded any more" in problem(frames[-1])["M"]
        await gone_within(wheel_postgres, 1.0)


async def test_masked_results_wait_until_their_record_is_on_disk(served: TestBroker) -> None:
    served.recorder.delay = 0.4
    with raw(served.port) as client:
        await asyncio.to_thread(enter, client, served.ticket())
        begun = time.monotonic()
        client.send(codec.query("select body from notes where id = 1"))
        assert kinds(await asyncio.to_thread(client.until, "Z")) == "TDCZ"
        assert time.monotonic() - begun < 0.3
        begun = time.monotonic()
        client.send(codec.query("select ssn from people"))
        assert kinds(await asyncio.to_thread(client.until, "Z")) == "TDDCZ"
        assert time.monotonic() - begun >= 0.39
        served.recorder.unsyncable = True
        client.send(codec.query("select ssn from people"))
        assert kinds(await asyncio.to_thread(client.until, "E")) == "E"


async def test_an_upstream_process_that_is_ended_by_others_ends_the_session(
    served: TestBroker, wheel_postgres: Server
) -> None:
    with raw(served.port) as client:
        await asyncio.to_thread(enter, client, served.ticket())
        ((pid, *_),) = backends(wheel_postgres)
        wheel_postgres.execute(f"select pg_terminate_backend({pid})")
        assert problem((await asyncio.to_thread(client.until, "E"))[-1])["C"] == "57P01"
        await served.until(lambda: bool(served.recorder.of("session.closed")))
    assert served.recorder.of("upstream.failed")


@contextmanager
def reaper(state: Path, secrets: Path) -> Iterator[subprocess.Popen[bytes]]:
    ready = state / f"reaper-{time.monotonic_ns()}.json"
    environment = {
        "PATH": os.environ["PATH"],
        "AIRLOCK_STATE": str(state),
        "AIRLOCK_POLICIES": str(state / "none"),
        "AIRLOCK_SECRETS": str(secrets),
        "AIRLOCK_READY_FILE": str(ready),
    }
    process = subprocess.Popen([sys.executable, "-m", "broker.reaper"], cwd=ROOT, env=environment)
    try:
        deadline = time.monotonic() + 10
        while not ready.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert json.loads(ready.read_text())["pid"] == process.pid
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        assert process.wait(10) == 0


SERVER = """
import asyncio, json, sys
from datetime import timedelta
from pathlib import Path
sys.path.insert(0, {root!r})
from broker.adapters.leases import LeaseFile
from broker.sessions.model import Source
from broker.sessions.ports import Endpoint
from tests.support.broker import POLICY, serving

async def main():
    state = Path({state!r})
    source = Source("127.0.0.1", {upstream}, "shop", "disable", "file:x")
    end = Endpoint("127.0.0.1", {upstream}, "shop", "app", "app-password", "disable", None, source)
    async with serving(state / "broker", end, policy={policy!r}, leases=LeaseFile(state / "broker")) as broker:
        ticket = broker.ticket(lasts={lasts})
        shown = {{"user": ticket.user, "password": ticket.password, "port": ticket.port,
                 "ends": ticket.grant.expires_at.timestamp()}}
        Path(state / "ready.json.part").write_text(json.dumps(shown))
        (state / "ready.json.part").rename(state / "ready.json")
        if {longer}:
            while not any(lease.pid for lease in broker.leases._open.values()):
                await asyncio.sleep(0.02)
            await broker.live.sessions[0].extend(ticket.grant.expires_at + timedelta(seconds={longer}))
        await asyncio.sleep(60)

asyncio.run(main())
"""


@contextmanager
def broker_process(
    state: Path, policy: str, upstream: int, lasts: float, longer: float = 0.0
) -> Iterator[tuple[Any, dict[str, Any]]]:
    text = SERVER.format(root=str(ROOT), state=str(state), upstream=upstream, policy=policy, lasts=lasts, longer=longer)
    process = subprocess.Popen([sys.executable, "-c", text], cwd=ROOT)
    try:
        deadline = time.monotonic() + 10
        while not (state / "ready.json").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield process, json.loads((state / "ready.json").read_text())
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("how", "limit"), [(signal.SIGSTOP, 3.0), (signal.SIGKILL, 3.0)])
async def test_the_reaper_ends_sessions_of_a_broker_that_cannot(
    wheel_postgres: Server, tmp_path: Path, how: signal.Signals, limit: float
) -> None:
    make_world(wheel_postgres)
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    policy = POLICY.replace("port: 1,", f"port: {wheel_postgres.port},")
    (secrets / "x").write_text("app:app-password\n")
    with (
        reaper(tmp_path, secrets),
        broker_process(tmp_path, policy, wheel_postgres.port, 2.0) as (process, shown),
    ):
        ticket = Shown(shown["user"], shown["password"], "prod-db", shown["port"], None)  # type: ignore[arg-type]
        with raw(shown["port"]) as client:
            assert kinds(await asyncio.to_thread(enter, client, ticket)).endswith("Z")
            client.send(codec.query(SLOW))
            await asyncio.sleep(0.3)
            assert len(backends(wheel_postgres)) == 1
            process.send_signal(how)
            begun = time.monotonic()
            if how is signal.SIGSTOP:
                begun += max(0.0, shown["ends"] - time.time())
                await asyncio.sleep(max(0.0, shown["ends"] - time.time()))
            await gone_within(wheel_postgres, limit)
            assert time.monotonic() - begun < limit
        stream = tmp_path / "broker" / "events"
        deadline = time.monotonic() + 3
        while not (lines := [line for path in stream.glob("reaper*.ndjson") for line in _lines(path)]):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        (line,) = [line for line in lines if line["type"] == "session.closed"]
        assert line["data"]["verified"] is True
        assert line["data"]["reason"] == ("expired" if how is signal.SIGSTOP else "error")


async def test_the_reaper_follows_an_extension_and_ends_the_session_at_its_new_end(
    wheel_postgres: Server, tmp_path: Path
) -> None:
    make_world(wheel_postgres)
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    policy = POLICY.replace("port: 1,", f"port: {wheel_postgres.port},")
    (secrets / "x").write_text("app:app-password\n")
    with (
        reaper(tmp_path, secrets),
        broker_process(tmp_path, policy, wheel_postgres.port, 2.0, longer=2.0) as (process, shown),
    ):
        ticket = Shown(shown["user"], shown["password"], "prod-db", shown["port"], None)  # type: ignore[arg-type]
        with raw(shown["port"]) as client:
            assert kinds(await asyncio.to_thread(enter, client, ticket)).endswith("Z")
            client.send(codec.query(SLOW))
            leases = tmp_path / "broker" / "leases" / "leases.ndjson"
            later = shown["ends"] + 1.0
            while not any(
                datetime.fromisoformat(row.get("expires_at", OLD)).timestamp() > later for row in _lines(leases)
            ):
                assert time.time() < shown["ends"]
                await asyncio.sleep(0.02)
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(max(0.0, shown["ends"] + 1.0 - time.time()))
            assert len(backends(wheel_postgres)) == 1
            await asyncio.sleep(max(0.0, shown["ends"] + 2.0 - time.time()))
            await gone_within(wheel_postgres, 3.0)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_a_stopped_or_ended_reaper_is_seen(tmp_path: Path) -> None:
    leases = LeaseFile(tmp_path / "broker")
    try:
        assert not leases.reaper_alive()
        with reaper(tmp_path, tmp_path) as process:
            assert leases.reaper_alive()
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(2.2)
            assert not leases.reaper_alive()
            process.send_signal(signal.SIGCONT)
            await asyncio.sleep(0.7)
            assert leases.reaper_alive()
        assert not leases.reaper_alive()
    finally:
        leases.release()


async def test_sixty_kills_at_once_are_each_verified_within_a_second(
    served: TestBroker, wheel_postgres: Server
) -> None:
    ticket = served.ticket()
    clients: list[Raw] = []
    try:
        for _ in range(60):
            clients.append(Raw(served.port))
            await asyncio.to_thread(enter, clients[-1], ticket)
        begun = time.monotonic()
        ended = await asyncio.gather(*(session.end(CloseReason.REVOKED) for session in list(served.live.sessions)))
        assert time.monotonic() - begun < 1.0
        assert ended == [True] * 60
        assert gone(wheel_postgres)
    finally:
        for client in clients:
            client.close()


async def test_a_masked_field_that_the_rewrite_missed_ends_the_session(
    served: TestBroker, wheel_postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from broker.protocols.postgres import inspector

    real = inspector.inspect
    monkeypatch.setattr(inspector, "inspect", lambda sql, *rest: replace(real(sql, *rest), rewritten=sql))
    async with await psycopg.AsyncConnection.connect(served.ticket().dsn(), autocommit=True) as connection:
        for text in ("select upper(name) from people", "select ssn as x from people"):
            if "ssn" in text:
                with pytest.raises(psycopg.OperationalError, match="a masked field was about to be shown"):
                    await connection.execute(text)
            else:
                await connection.execute(text)
    await served.until(lambda: bool(served.recorder.of("session.closed")))
    assert served.recorder.of("session.closed")[0]["reason"] == "tripwire"
    assert "123-45-6789" not in str(served.recorder.entries)
