"""A hot standby as the upstream: it is read like any other server, follows its primary, and may take over from it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest

from broker.protocols.postgres import OFFER
from broker.protocols.postgres.admin import Admin, Fetch
from broker.sessions.findings import Grade
from broker.sessions.model import CloseReason
from policies.engine.load import read_texts
from tests.integration.clinic import said
from tests.integration.postgres_world import SLOW, backends, connected, endpoint, make_maker, make_world, psql
from tests.support.broker import POLICY, TestBroker, serving
from tests.support.postgres import Server, running_server, running_standby

BOUNDED = POLICY.replace("effects: [write, ddl]}", "effects: [write, ddl], max_rows: 10}")
IMPATIENT = {"max_standby_streaming_delay": "50ms"}
"""What is in the way of what a standby has to follow waits no longer."""


@dataclass(frozen=True)
class Pair:
    primary: Server
    standby: Server

    def change(self, *statements: str) -> None:
        """Run statements at the primary, and wait until its standby has followed."""
        for statement in statements:
            self.primary.execute(statement, "shop")
        # Its commit has all before it written, which a server of tests does not hurry with.
        flushed = "select set_config('synchronous_commit', 'on', true), pg_logical_emit_message(true, '', '')"
        ((_, written),) = self.primary.execute(flushed)
        while self.standby.execute(f"select pg_last_wal_replay_lsn() < '{written}'") == [(True,)]:
            time.sleep(0.01)


@contextmanager
def followed(label: str) -> Iterator[Pair]:
    with running_server(label) as primary:
        make_world(primary)
        make_maker(primary)
        with running_standby(primary, IMPATIENT) as standby:
            yield Pair(primary, standby)


@pytest.fixture(scope="module", params=["wheel", "debian"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with followed(request.param) as both:
        yield both


@pytest.fixture
async def served(pair: Pair, tmp_path: Path) -> AsyncIterator[TestBroker]:
    write = endpoint(pair.standby, "app_write")
    async with serving(tmp_path, endpoint(pair.standby, "app"), policy=BOUNDED, write=write, sized=write) as broker:
        yield broker


async def test_a_standby_is_read_like_any_other_server(served: TestBroker) -> None:
    status, output, errors = await psql(served.ticket(), "table people", "\\d people", "show transaction_read_only")
    assert (status, errors) == (0, "")
    assert output == "1|Ann|***\n2|Bo|***\nid|integer||not null|\nname|text|||\nssn|text|||\non\n"
    bounded = "update notes set body = 'x' where id = 1"
    status, output, errors = await psql(served.ticket(role="write"), bounded, "select count(*) from public.notes")
    assert (status, output) == (0, "1000\n")
    assert errors == "ERROR:  cannot execute UPDATE in a read-only transaction\n"
    _, output, errors = await psql(
        served.ticket(role="sized"), "select 1 from notes where id = 1", "update notes set id = 1"
    )
    assert output == "1\n"
    assert "the planner expects " in errors


async def test_drivers_find_a_standby_where_they_look_for_one(pair: Pair, served: TestBroker) -> None:
    for wanted, finds in (("standby", 0), ("prefer-standby", 0), ("read-only", 0), ("primary", 2), ("read-write", 2)):
        status, _, errors = await psql(served.ticket(role="write"), "select 1", target_session_attrs=wanted)
        assert status == finds, (wanted, errors)


async def test_a_session_on_a_standby_is_ended_for_sure(pair: Pair, served: TestBroker) -> None:
    async with await connected(served.ticket()) as connection:
        running = asyncio.ensure_future(connection.execute(SLOW))
        await served.until(lambda: any(state == "active" for _, state, _ in backends(pair.standby)))
        (session,) = served.live.sessions
        assert await session.end(CloseReason.REVOKED)
        assert backends(pair.standby) == []
        with pytest.raises(psycopg.Error):
            await running


async def test_a_column_renamed_at_the_primary_is_masked_at_its_standby(pair: Pair, served: TestBroker) -> None:
    async with await connected(served.ticket(), prepare_threshold=None) as connection:
        for before, now in (("ssn", "number"), ("number", "ssn")):
            pair.change(f"alter table people rename column {before} to {now}")
            sql = f"select {now} from people where id = 1"
            async with asyncio.timeout(20):
                while True:
                    try:
                        rows = await (await connection.execute(sql.encode())).fetchall()
                    except psycopg.errors.UndefinedColumn:
                        await asyncio.sleep(0.02)
                    else:
                        break
            assert rows == [("***",)]


async def test_a_statement_in_the_way_of_recovery_is_told_so(pair: Pair, served: TestBroker) -> None:
    """With the words that drivers and people know, also where it reads masked fields."""
    slow = SLOW.replace("select count(*) from", "select min(p.ssn) from people p,")
    async with await connected(served.ticket()) as connection:
        running = asyncio.ensure_future(connection.execute(slow.encode()))
        await served.until(lambda: any(state == "active" for _, state, _ in backends(pair.standby)))
        await asyncio.to_thread(pair.change, "update notes set body = body where id > 900", "vacuum notes")
        with pytest.raises(psycopg.errors.SerializationFailure) as raised:
            await running
    assert raised.value.diag.message_primary == "canceling statement due to conflict with recovery"


@pytest.mark.parametrize("runs", [True, False])
async def test_the_brokers_own_reading_in_the_way_of_recovery_is_begun_anew(pair: Pair, *, runs: bool) -> None:
    """Whether a query of it runs at that moment, or none."""
    admin, begun = Admin(endpoint(pair.standby, "app")), 0

    async def look(fetch: Fetch) -> int:
        nonlocal begun
        begun += 1
        await fetch("select count(*) from public.notes")
        if begun == 1:
            changing = asyncio.to_thread(pair.change, "update notes set body = body where id < 100", "vacuum notes")
            await asyncio.gather(changing, *([fetch("select pg_sleep(20)")] if runs else []))
        return len(await fetch("select id from public.notes"))

    try:
        assert await admin.snapshot(look) == 1000
    finally:
        await admin.close()
    assert begun == 2


async def test_that_no_role_can_be_made_at_a_standby_is_said(pair: Pair, tmp_path: Path) -> None:
    level = replace(endpoint(pair.standby, "app"), provisioner=endpoint(pair.standby, "maker"))
    async with serving(tmp_path, level) as broker:
        status, _, errors = await psql(broker.ticket(), "select 1")
    assert status == 2
    assert "it is a standby, where no session can have a role of its own" in errors
    policy = read_texts({"test.yaml": POLICY})
    found = await OFFER.examine(policy, "prod-db", "read", level)
    assert any(text.startswith("no role can be made on a standby") for text in said(found, Grade.PROBLEM))
    found = await OFFER.examine(policy, "prod-db", "read", endpoint(pair.standby, "app"))
    assert any(text.startswith("it is a hot standby: ") for text in said(found, Grade.NOTE))
    assert "a session of the role is ended by the broker, and verified gone" in said(found, Grade.GOOD)
    assert not any("standby" in text for text in said(found))


@pytest.mark.parametrize("label", ["wheel", "debian"])
async def test_sessions_go_on_where_a_standby_takes_over(label: str, tmp_path: Path) -> None:
    with followed(label) as pair:
        standby, write = pair.standby, endpoint(pair.standby, "app_write")
        async with (
            serving(tmp_path, endpoint(standby, "app"), policy=BOUNDED, write=write) as broker,
            await connected(broker.ticket()) as reader,
            await connected(broker.ticket(role="write")) as writer,
        ):
            assert await (await reader.execute("table people")).fetchall() == [(1, "Ann", "***"), (2, "Bo", "***")]
            pair.primary.cluster.stop()
            standby.execute("select pg_promote()")
            changed = await writer.execute("update notes set body = 'x' where id < 5")
            assert changed.statusmessage == "UPDATE 4"
            with pytest.raises(psycopg.Error, match="touched 1,000 rows"):
                await writer.execute("update notes set body = 'x'")
            standby.execute("alter table people rename column ssn to number", "shop")
            async with asyncio.timeout(20):
                while True:
                    try:
                        rows = await (await reader.execute("select number, id from people")).fetchall()
                    except psycopg.errors.UndefinedColumn:
                        await asyncio.sleep(0.02)
                    else:
                        break
            assert rows == [("***", 1), ("***", 2)]
            if standby.major >= 14:
                assert reader.info.parameter_status("in_hot_standby") == "off"
