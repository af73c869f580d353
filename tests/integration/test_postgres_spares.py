"""Connections that are logged in ahead: what a session on one is, when one is used, and when none waits any more."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from broker.adapters.leases import LeaseFailed
from broker.protocols.postgres import pins, spares, upstream
from broker.protocols.postgres.proxy import Session
from broker.protocols.postgres.spares import Spare, Spares
from broker.sessions.model import Lease
from policies.engine.load import read_texts
from tests.integration.postgres_world import backends, enter, gone_within, kinds, make_world, raw
from tests.support.broker import POLICY, Shown, TestBroker, serving
from tests.support.postgres import Server

ROLE = 'read: {credential: "file:x", relations: ["public.*"]'
AHEAD = POLICY.replace(ROLE, f"{ROLE}, spares: 1")
SETTINGS = "select name, setting, reset_val, source from pg_settings"


@pytest.fixture
async def served(wheel_postgres: Server, tmp_path: Path) -> AsyncIterator[TestBroker]:
    async with serving(tmp_path, make_world(wheel_postgres), policy=AHEAD) as broker:
        yield broker


def house_spares(served: TestBroker) -> Spares:
    return served.listener._house.spares


def waiting(served: TestBroker) -> list[Spare]:
    return [spare for shelf in house_spares(served)._shelves.values() for spare in shelf.ready]


async def connect(ticket: Shown, **more: str) -> psycopg.AsyncConnection[Any]:
    return await psycopg.AsyncConnection.connect(ticket.dsn(**more), autocommit=True)


async def one(connection: psycopg.AsyncConnection[Any], sql: str) -> Any:
    row = await (await connection.execute(sql)).fetchone()
    assert row is not None
    return row[0]


def is_gone(served: TestBroker, spare: Spare) -> bool:
    return spare not in waiting(served)


def has_ended(server: Server, spare: Spare) -> bool:
    return spare.logged_in.pid not in [pid for pid, *_ in backends(server)]


async def warmed(served: TestBroker, again: Shown | None = None, **more: str) -> tuple[Shown, Spare]:
    """Open a session and close it; returns its ticket, and what then waits for the next."""
    ticket = again or served.ticket()
    async with await connect(ticket, **more):
        await served.until(lambda: len(waiting(served)) == 1)
    await served.until(lambda: not served.live.sessions)
    return ticket, waiting(served)[0]


async def test_a_session_takes_what_was_logged_in_ahead_with_its_lease_and_its_times(served: TestBroker) -> None:
    ticket, spare = await warmed(served)
    leases: list[tuple[Lease, bool]] = []
    write = served.leases.write

    async def watched(lease: Lease) -> None:
        session = served.live.sessions[0]
        assert isinstance(session, Session)
        leases.append((lease, session._opened))
        await write(lease)

    served.leases.write = watched
    async with await connect(ticket) as client:
        (session,) = served.live.sessions
        assert session.facts.id == spare.session
        assert await one(client, "select pg_backend_pid()") == spare.logged_in.pid
        assert [(lease.session, lease.pid, opened) for lease, opened in leases] == [
            (spare.session, spare.logged_in.pid, False)
        ]
        assert leases[0][0].backend_start == spare.logged_in.backend_start
        assert leases[0][0].grant == ticket.grant.id
        assert await one(client, "select ssn from people limit 1") == "***"
    assert [entry.session for entry in served.recorder.entries if entry.type == "session.opened"][1] == spare.session


async def test_a_session_on_a_spare_has_the_settings_of_every_other_and_resets_to_them(served: TestBroker) -> None:
    ticket, found = served.ticket(), []
    for _ in range(2):
        async with await connect(ticket, application_name="tool") as client:
            await served.until(lambda: len(waiting(served)) == 1)
            await client.execute("set timezone to 'Asia/Tokyo'")
            await client.execute("reset timezone")
            rows = await (await client.execute(SETTINGS)).fetchall()
            found.append({row[0]: row[1:] for row in rows})
            found[-1]["session"] = served.live.sessions[0].facts.id
        await served.until(lambda: not served.live.sessions)
    for each in found:
        name = f"airlock:{each.pop('session')}"
        assert each.pop("application_name") == (name, name, "client")
    fresh, spare = found
    for name in pins.ARMED:
        if name in fresh:
            set_to, reset_to = [(each.pop(name)) for each in (fresh, spare)]
            assert abs(int(set_to[0]) - int(reset_to[0])) < 10_000
            assert int(reset_to[0]) <= int(reset_to[1]) <= int(set_to[0])
    assert fresh == spare


async def test_times_of_a_spare_are_those_of_its_session_and_not_of_its_login(served: TestBroker) -> None:
    ticket, _ = await warmed(served)
    served.clock.offset = timedelta(seconds=300)
    async with await connect(ticket) as client:
        rows = await (await client.execute(SETTINGS)).fetchall()
    (armed,) = [int(row[1]) for row in rows if row[0] == "statement_timeout"]
    # The policy gives four hours at most.
    assert abs(armed - (4 * 3600 - 300 + 1) * 1000) < 20_000


async def test_a_session_of_another_kind_opens_a_connection_of_its_own(served: TestBroker) -> None:
    ticket, spare = await warmed(served)
    with raw(served.port) as client:
        await asyncio.to_thread(enter, client, ticket, ("TimeZone", "Asia/Tokyo"))
        assert served.live.sessions[0].facts.id != spare.session
        assert spare in waiting(served)
    # A grant's spares are its own, whoever has the other grant; a role that does not say so has none.
    for other in (served.ticket(), served.ticket(role="write")):
        async with await connect(other) as client:
            assert await one(client, "select pg_backend_pid()") != spare.logged_in.pid
    assert spare in waiting(served)
    assert {kind.role for kind in house_spares(served)._shelves} == {"read"}


async def test_spares_that_must_not_wait_are_thrown_away_and_nobody_notices(
    served: TestBroker, wheel_postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket, spare = await warmed(served)

    def killed() -> None:
        wheel_postgres.execute(f"select pg_terminate_backend({spare.logged_in.pid})")

    def told() -> None:
        # Whatever it was told, it is not as it was when it was logged in.
        stream = spare.upstream.stream
        assert stream is not None
        stream.data_received(b"S")

    def changed() -> None:
        served.policies.current = read_texts({"test.yaml": AHEAD.replace("4h", "3h")})

    def aged() -> None:
        monkeypatch.setattr(spares, "MAX_AGE", 0.0)

    for happens in (killed, told, changed, aged):
        await asyncio.to_thread(happens)
        async with await connect(ticket) as client:
            assert await one(client, "select pg_backend_pid()") != spare.logged_in.pid, happens
            assert await one(client, "select 1") == 1
        await served.until(partial(is_gone, served, spare))
        monkeypatch.undo()
        await served.until(lambda: len(waiting(served)) == 1 and not served.live.sessions)
        (spare,) = waiting(served)


async def test_a_spare_that_falls_silent_as_it_is_taken_is_replaced_by_a_connection_of_its_own(
    served: TestBroker, wheel_postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket, spare = await warmed(served)
    monkeypatch.setattr(pins, "arming", lambda _: "select pg_sleep(60)")
    monkeypatch.setattr(upstream, "ARM_SECONDS", 0.2)
    async with await connect(ticket) as client:
        pid = await one(client, "select pg_backend_pid()")
        assert pid != spare.logged_in.pid
        assert [lease.pid for lease in served.leases.written][-3:] == [spare.logged_in.pid, None, pid]
    monkeypatch.undo()
    wheel_postgres.execute(f"select pg_terminate_backend({spare.logged_in.pid})")


async def test_spares_are_gone_when_their_grant_is_over_or_has_another_credential(
    served: TestBroker, wheel_postgres: Server
) -> None:
    await warmed(served)
    served.endpoints.endpoint = replace(served.endpoints.endpoint, password="changed")
    await served.until(lambda: not waiting(served))
    await gone_within(wheel_postgres, 5.0)
    served.endpoints.endpoint = replace(served.endpoints.endpoint, password="app-password")
    ticket, _ = await warmed(served)
    async with await connect(ticket) as client:
        await served.until(lambda: len(waiting(served)) == 1)
        served.live.over.add(ticket.grant.id)
        await served.until(lambda: not waiting(served))
        assert await one(client, "select 1") == 1
        assert len(backends(wheel_postgres)) == 1


async def test_the_server_ends_what_waits_too_long_by_itself(
    served: TestBroker, wheel_postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if wheel_postgres.major < 14:
        pytest.skip("before version 14 a server ends nothing that idles outside a transaction")
    monkeypatch.setattr(spares, "WAITS_MS", "300")
    monkeypatch.setattr(spares, "SWEEP_SECONDS", 60.0)
    _, spare = await warmed(served)
    await gone_within(wheel_postgres, 5.0)
    assert waiting(served) == [spare]
    assert not spare.sound(served.policies.hash)


async def test_spares_end_with_the_broker_and_none_is_made_after(served: TestBroker, wheel_postgres: Server) -> None:
    _, spare = await warmed(served)
    assert [pid for pid, *_ in backends(wheel_postgres)] == [spare.logged_in.pid]
    await served.listener.close()
    await gone_within(wheel_postgres, 5.0)
    assert served.leases.sessions() == frozenset()


async def test_spares_make_room_where_the_role_has_no_connection_left(
    served: TestBroker, wheel_postgres: Server
) -> None:
    ticket, spare = await warmed(served)
    (taken,) = wheel_postgres.execute("select count(*) from pg_stat_activity where usename = 'app'")
    wheel_postgres.execute(f"alter role app connection limit {taken[0]}")
    try:
        with raw(served.port) as client:
            assert kinds(await asyncio.to_thread(enter, client, ticket, ("TimeZone", "Asia/Tokyo"))).endswith("Z")
            assert spare not in waiting(served)
    finally:
        wheel_postgres.execute("alter role app connection limit -1")


async def test_a_session_that_does_not_open_leaves_no_spare_behind(served: TestBroker, wheel_postgres: Server) -> None:
    # One grant's throughout: another would have a spare of its own again within half a second.
    ticket = served.ticket()
    for broken in ("reaper", "full", "lease"):
        _, spare = await warmed(served, ticket)
        write = served.leases.write

        async def fails(_: Lease) -> None:
            raise LeaseFailed("the disk is full")

        match broken:
            case "reaper":
                served.leases.alive = False
            case "full":
                served.live.full = True
            case _:
                served.leases.write = fails
        with pytest.raises(psycopg.OperationalError):
            await connect(ticket)
        served.leases.alive, served.live.full, served.leases.write = True, False, write
        assert not served.live.sessions
        await served.until(partial(has_ended, wheel_postgres, spare))


async def test_a_timeout_that_a_session_begins_with_is_what_its_spare_goes_back_to(served: TestBroker) -> None:
    ticket, spare = await warmed(served, options="-cstatement_timeout=1min")
    async with await connect(ticket, options="-cstatement_timeout=1min") as connection:
        assert connection.info.backend_pid == spare.logged_in.pid
        assert await one(connection, "show statement_timeout") == "1min"
        await connection.execute("set statement_timeout = '1s'")
        await connection.execute("reset all")
        assert await one(connection, "show statement_timeout") == "1min"
    async with await connect(ticket, options="-csearch_path=app") as connection:
        assert await one(connection, "show search_path") == '"app", pg_temp'
        assert not [kind for kind in house_spares(served)._shelves if kind.path is not None]
