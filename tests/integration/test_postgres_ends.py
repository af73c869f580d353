"""What moves a session's end and what does not, and what ends it beside its grant."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from broker.adapters.leases import LeaseFailed
from broker.protocols.postgres import codec, inspector
from broker.protocols.postgres.admin import Admin
from broker.protocols.postgres.login import LoginFailed
from broker.protocols.postgres.spares import Spares
from broker.protocols.postgres.upstream import Upstream
from broker.sessions.model import CloseReason, Lease
from tests.integration.postgres_world import backends, endpoint, enter, gone_within, kinds, make_world, problem, raw
from tests.support.broker import TestBroker, serving
from tests.support.postgres import Server

LOOPS = ("uvloop", "asyncio")


@pytest.fixture
async def served(wheel_postgres: Server, tmp_path: Path) -> AsyncIterator[TestBroker]:
    read, write = make_world(wheel_postgres), endpoint(wheel_postgres, "app_write")
    async with serving(tmp_path, read, write=write) as broker:
        yield broker


async def test_an_extended_session_works_on_past_its_old_end_and_ends_at_the_new_one(
    served: TestBroker, wheel_postgres: Server
) -> None:
    ticket = served.ticket(lasts=3.0)
    with raw(served.port) as client:
        await asyncio.to_thread(enter, client, ticket)
        until = ticket.grant.expires_at + timedelta(seconds=3)
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
        await gone_within(wheel_postgres, 15.0)
        assert b"the time of this access is over" in await asyncio.to_thread(client.rest)


@pytest.mark.parametrize("lease", ["before", "behind"])
async def test_a_session_that_is_extended_as_it_opens_has_a_lease_that_says_so(
    served: TestBroker, monkeypatch: pytest.MonkeyPatch, lease: str
) -> None:
    """Otherwise the reaper would end it at the end that it began with."""
    ticket, reached, go = served.ticket(), asyncio.Event(), asyncio.Event()
    until = ticket.grant.expires_at + timedelta(seconds=60)
    where = (Admin, "version") if lease == "before" else (Upstream, "_connected")
    real = getattr(*where)

    async def stuck(one: Any) -> Any:
        if not reached.is_set():
            reached.set()
            await go.wait()
            if lease == "behind":
                raise LoginFailed("53300 sorry, too many clients already")
        return await real(one)

    monkeypatch.setattr(*where, stuck)
    monkeypatch.setattr(Spares, "make_room", lambda *_: True)
    with raw(served.port) as client:
        entering = asyncio.create_task(asyncio.to_thread(enter, client, ticket))
        await asyncio.wait_for(reached.wait(), 10)
        (session,) = served.live.sessions
        assert bool(served.leases.written) is (lease == "behind")
        await session.extend(until)
        go.set()
        assert kinds(await entering).endswith("Z")
        assert session.facts.grant.expires_at == until
        assert served.leases.written[-1].expires_at == until


async def test_a_session_that_fails_as_it_opens_is_recorded_to_its_end(
    served: TestBroker, wheel_postgres: Server
) -> None:
    write = served.leases.write

    async def fails_once_known(lease: Lease) -> None:
        if lease.pid is not None:
            raise LeaseFailed("the disk is full")
        await write(lease)

    served.leases.write = fails_once_known
    with raw(served.port) as client:
        frames = await asyncio.to_thread(enter, client, served.ticket())
        assert problem(frames[-1])["C"] == "58030"
    await gone_within(wheel_postgres, 15.0)
    await served.until(lambda: not served.live.sessions and served.recorder.of("session.refused") != [])
    assert [entry.type for entry in served.recorder.entries] == ["session.opened", "session.closed", "session.refused"]
    assert served.leases.sessions() == frozenset()


async def test_a_session_whose_new_lease_cannot_be_written_keeps_its_old_end(
    served: TestBroker, wheel_postgres: Server
) -> None:
    ticket = served.ticket(lasts=4.0)
    with raw(served.port) as client:
        await asyncio.to_thread(enter, client, ticket)
        (session,) = served.live.sessions

        async def fail(_lease: Lease) -> None:
            raise LeaseFailed("the disk is full")

        served.leases.write = fail
        with pytest.raises(LeaseFailed):
            await session.extend(ticket.grant.expires_at + timedelta(seconds=60))
        await asyncio.sleep(max(0.0, ticket.grant.expires_at.timestamp() - time.time()))
        await gone_within(wheel_postgres, 15.0)


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


async def test_a_session_that_cannot_be_recorded_ends(served: TestBroker, wheel_postgres: Server) -> None:
    with raw(served.port) as client:
        await asyncio.to_thread(enter, client, served.ticket())
        served.recorder.broken = True
        client.send(codec.query("select 1"))
        frames = await asyncio.to_thread(client.until, "E")
        assert "cannot be recorded any more" in problem(frames[-1])["M"]
        await gone_within(wheel_postgres, 15.0)


async def test_an_end_is_on_disk_before_it_is_told_and_nobody_waits_for_that_of_a_client_that_left(
    served: TestBroker,
) -> None:
    for leaves in (True, False):
        served.recorder.delay = 0.0
        with raw(served.port) as client:
            await asyncio.to_thread(enter, client, served.ticket())
            (session,) = served.live.sessions
            served.recorder.delay = 600.0 if leaves else 0.3
            begun = time.monotonic()
            if leaves:
                client.send(codec.TERMINATE)
                await served.until(lambda: not served.live.sessions)
            else:
                assert await session.end(CloseReason.REVOKED)
                assert time.monotonic() - begun >= 0.3
        assert (served.recorder.entries[-1].type, served.recorder.entries[-1].session) == (
            "session.closed",
            session.facts.id,
        )


async def test_masked_results_wait_until_their_record_is_on_disk(served: TestBroker) -> None:
    with raw(served.port) as client:
        await asyncio.to_thread(enter, client, served.ticket())
        served.recorder.delay = 2.0
        client.send(codec.query("select body from notes where id = 1"))
        assert kinds(await asyncio.to_thread(client.until, "Z")) == "TDCZ"
        assert served.recorder.pending
        begun = time.monotonic()
        client.send(codec.query("select ssn from people"))
        assert kinds(await asyncio.to_thread(client.until, "Z")) == "TDDCZ"
        assert time.monotonic() - begun >= 1.99
        served.recorder.delay, served.recorder.unsyncable = 0.0, True
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


async def test_a_masked_field_that_the_rewrite_missed_ends_the_session(
    served: TestBroker, wheel_postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = inspector.inspect
    monkeypatch.setattr(
        inspector, "inspect", lambda sql, *rest, **more: replace(real(sql, *rest, **more), rewritten=sql)
    )
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


async def test_a_psql_that_was_idle_reads_first_why_its_session_was_ended(served: TestBroker) -> None:
    ticket = served.ticket()
    process = await asyncio.create_subprocess_exec(
        *("psql", "--no-psqlrc", "-At", ticket.dsn()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"select 'ready';\n")
    assert await asyncio.wait_for(process.stdout.readline(), 10) == b"ready\n"
    (session,) = served.live.sessions
    assert await session.end(CloseReason.ENDED)
    # Also when the connection has long been closed: nothing that was sent to it is lost.
    await asyncio.sleep(1.5)
    output, errors = await asyncio.wait_for(process.communicate(b"select 'late';\n"), 10)
    assert output == b""
    first, hint, *_ = errors.decode().splitlines()
    assert first == "FATAL:  airlock: this access was ended"
    assert hint.startswith("HINT:  ask again: /access prod-db read")
    assert process.returncode == 2
