"""Sessions with roles of their own upstream: made after the lease, gone with the session, swept where one is left."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from broker.protocols.postgres import OFFER, codec
from broker.protocols.postgres.identities import Sweep
from broker.protocols.postgres.login import LoginFailed
from broker.protocols.postgres.proxy import Session
from broker.protocols.postgres.spares import Spares
from broker.protocols.postgres.upstream import Upstream
from broker.sessions.model import CloseReason, IdentityEnd, Lease
from tests.integration.postgres_world import SLOW, endpoint, enter, make_maker, make_world, problem, raw, session_roles
from tests.support.broker import TestBroker, serving
from tests.support.ports import MemoryLeases
from tests.support.postgres import Server


class Watched(MemoryLeases):
    """Leases that note which roles there were when each line was written."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server
        self.seen: list[list[str]] = []

    async def write(self, lease: Lease) -> None:
        self.seen.append(await asyncio.to_thread(session_roles, self.server))
        await super().write(lease)


@pytest.fixture
async def served(postgres: Server, tmp_path: Path) -> AsyncIterator[TestBroker]:
    level = replace(make_world(postgres), provisioner=make_maker(postgres))
    async with serving(tmp_path, level, leases=Watched(postgres)) as broker:
        yield broker
    assert session_roles(postgres) == []


def own(served: TestBroker) -> Session:
    (session,) = served.live.sessions
    assert isinstance(session, Session)
    return session


async def connected(served: TestBroker) -> psycopg.AsyncConnection[Any]:
    return await psycopg.AsyncConnection.connect(served.ticket().dsn(), autocommit=True)


async def test_a_session_has_a_role_of_its_own_from_its_lease_to_its_end(served: TestBroker, postgres: Server) -> None:
    postgres.execute("alter role maker set log_statement = 'all'")
    async with await connected(served) as connection:
        session = own(served)
        (name,) = session_roles(postgres)
        assert name.startswith("airlock_s_")
        assert name.endswith(f"_{session.facts.id}")
        found = await connection.execute("select current_user, session_user, count(*), min(ssn) from people")
        assert await found.fetchone() == (name, name, 2, "***")
        # The lease was there before the role, and says who may end it.
        assert served.leases.seen == [[], [name]]
        (first, last) = served.leases.written
        assert (first.identity, last.identity, last.source.credential) == (name, name, "file:maker")
        ((limit, until, inherits),) = postgres.execute(
            f"select rolconnlimit, rolvaliduntil, rolinherit from pg_roles where rolname = '{name}'"
        )
        assert (limit, inherits) == (1, True)
        assert until == session.facts.grant.opened_at + timedelta(hours=4)
        # The password is nowhere: the server is told what it checks it with.
        assert session._backend.identity is not None
        log = postgres.log.read_text()
        assert f"create role {name}" in log
        assert session._backend.identity.password not in log
        assert session._backend.identity.password not in repr(session._backend.identity)
        if postgres.major >= 16:
            assert postgres.execute(f"select pg_has_role('{name}', 'app', 'set')") == [(False,)]
        assert await session.end(CloseReason.REVOKED)
        assert session_roles(postgres) == []
    await served.until(lambda: bool(served.recorder.of("session.closed")))
    assert served.recorder.of("session.opened")[0]["identity"] == name
    (closed,) = served.recorder.of("session.closed")
    assert (closed["verified"], closed["identity"]) == (True, "dropped")


async def test_a_session_for_which_room_is_made_logs_in_with_the_role_that_it_has(
    served: TestBroker, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tried = Upstream._login, []

    async def full_at_first(one: Upstream, *rest: Any) -> Any:
        tried.append(session_roles(postgres))
        if len(tried) == 1:
            raise LoginFailed("53300 sorry, too many clients already")
        return await real(one, *rest)

    monkeypatch.setattr(Upstream, "_login", full_at_first)
    monkeypatch.setattr(Spares, "make_room", lambda *_: True)
    async with await connected(served):
        assert tried == [session_roles(postgres)] * 2
        assert await own(served).end(CloseReason.REVOKED)


async def test_sessions_of_one_grant_cannot_reach_each_other(served: TestBroker, postgres: Server) -> None:
    async with await connected(served), await connected(served):
        one, other = session_roles(postgres)
        for kind in ("member", "usage"):
            assert postgres.execute(f"select pg_has_role('{one}', '{other}', '{kind}')") == [(False,)]
        ended = await asyncio.gather(*(session.end(CloseReason.ENDED) for session in list(served.live.sessions)))
        assert ended == [True, True]


async def test_a_busy_session_of_a_dead_broker_is_ended_by_its_lease_alone(
    served: TestBroker, postgres: Server
) -> None:
    with raw(served.port) as client:
        await asyncio.to_thread(enter, client, served.ticket())
        client.send(codec.query(SLOW))
        lease = served.leases.written[-1]
        for foreign in ("app", f"airlock_s_00000000_s{'0' * 16}"):
            # Whatever a lease says, only the role that was made for its session goes.
            killed = await OFFER.kill(replace(lease, pid=None, identity=foreign), endpoint(postgres, "maker"))
            assert killed.identity is None
            assert len(session_roles(postgres)) == 1
        # As a reaper finds it that has only the first of a session's lines.
        killed = await OFFER.kill(replace(lease, pid=None, backend_start=None), endpoint(postgres, "maker"))
        assert (killed.verified, killed.identity) == (True, IdentityEnd.DROPPED)
        assert problem((await asyncio.to_thread(client.until, "E"))[-1])["C"] == "57P01"
        assert session_roles(postgres) == []
        again = await OFFER.kill(lease, endpoint(postgres, "maker"))
        assert again.verified


async def test_a_role_that_owns_something_is_disabled_and_told(served: TestBroker, postgres: Server) -> None:
    async with await connected(served):
        (name,) = session_roles(postgres)
        postgres.execute(f"create table mine (); alter table mine owner to {name}", "shop")
        assert await own(served).end(CloseReason.REVOKED)
        assert postgres.execute(f"select rolcanlogin, rolconnlimit from pg_roles where rolname = '{name}'") == [
            (False, 0)
        ]
    await served.until(lambda: bool(served.recorder.of("session.closed")))
    assert served.recorder.of("session.closed")[0]["identity"] == "disabled"
    (left,) = served.recorder.of("identity.left")
    assert (left["identity"], left["owns"]) == (name, "owner of table public.mine")
    postgres.execute("drop table mine", "shop")
    sweep = Sweep(served.listener._house)
    await sweep.look()
    assert served.recorder.of("identity.swept") == [{"identity": name, "resource": "prod-db", "end": "dropped"}]


async def test_what_was_left_behind_is_swept_and_nothing_else(served: TestBroker, postgres: Server) -> None:
    house = served.listener._house
    ours, others = f"airlock_s_{house.name}_s{'a' * 16}", f"airlock_s_{'f' * 8}_s{'a' * 16}"
    near = f"airlock_s_{house.name}_backup"
    async with await connected(served) as connection:
        (living,) = session_roles(postgres)
        for name in (ours, others, near):
            postgres.execute(f"create role {name}; grant {name} to maker with admin option")
        try:
            await Sweep(house).look()
            assert sorted(session_roles(postgres)) == sorted([living, others, near])
            assert await (await connection.execute("select 1")).fetchone() == (1,)
        finally:
            postgres.execute(f"drop role {others}; drop role {near}")
    assert [one["identity"] for one in served.recorder.of("identity.swept")] == [ours]


async def test_a_login_that_fails_leaves_no_role(served: TestBroker, postgres: Server) -> None:
    # The upstream's clock is a day ahead, so that the role is over before it begins.
    served.clock.offset = -timedelta(days=1)
    with raw(served.port) as client:
        (answer,) = await asyncio.to_thread(enter, client, served.ticket())
        assert problem(answer)["M"] == "airlock: prod-db cannot be used now: it does not let the broker in"
    assert session_roles(postgres) == []
    assert served.leases.sessions() == frozenset()


async def test_a_maker_without_rights_opens_no_session(served: TestBroker, postgres: Server) -> None:
    postgres.execute("alter role maker nocreaterole")
    with raw(served.port) as client:
        (answer,) = await asyncio.to_thread(enter, client, served.ticket())
        assert "cannot be used now" in problem(answer)["M"]
    assert served.leases.sessions() == frozenset()
