"""What is approved is what was shown: names, types and code that mean something else by the time that it runs."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from broker.protocols.postgres import codec
from policies.engine.load import read_texts
from tests.integration.postgres_world import Raw, connected, endpoint, enter, kinds, make_world, problem, raw
from tests.support.broker import POLICY, TestBroker, serving
from tests.support.postgres import Server
from workflows.reviews import Answer

CLEAR = POLICY.partition("fields:")[0] + (
    "  - {id: changes, decision: allow, roles: [ask, ask_first], effects: [ddl]}\n"
    "  - {id: code, decision: allow, roles: [ask, ask_first], functions: ['*.*']}\n"
    "  - {id: calls, decision: ask, roles: [ask], effects: [write], functions: [public.said],"
    " reviewers: {count: 1, groups: [dbas]}}\n"
)
MORE = (
    "create table scratch (id int)",
    "create table ledger (id int)",
    "insert into ledger select generate_series(1, 8)",
    "create table codes (code text)",
    "create type mood as enum ('gone', 'active')",
    "create table moods (id int, mood mood)",
    "insert into moods values (1, 'gone'), (2, 'active')",
    "create function said() returns text volatile language sql as $$ select 'shown' $$",
    "create function fine(text) returns boolean immutable language sql as $$ select true $$",
    "create domain short as text check (fine(value))",
    "create table told (what text default said(), word short, check (fine(what)))",
    "create type place as (street text, town text)",
    "create table places (place place)",
    "grant select, insert, update, delete on scratch, ledger, codes, moods, told, places to app_write",
    "alter table scratch owner to app_write",
    "alter table ledger owner to app_write",
    "grant temp on database shop to app_write",
)


@pytest.fixture
async def served(postgres: Server, tmp_path: Path) -> AsyncIterator[TestBroker]:
    read = make_world(postgres, *MORE)
    write = endpoint(postgres, "app_write")
    async with serving(tmp_path, read, policy=CLEAR, ask=write, ask_first=write) as broker:
        yield broker


async def refused(connection: psycopg.AsyncConnection[object], statement: str) -> str:
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"needs a review by|is not what it was") as caught:
        await connection.execute(statement.encode())
    return str(caught.value)


async def approve(served: TestBroker) -> str:
    """Approve what was refused last; returns what its reviewers saw."""
    hold = await served.held(len(served.recorder.of("hold.opened")))
    await served.answer(hold)
    return hold.text


def ledger(postgres: Server) -> int:
    return int(postgres.execute("select count(*) from ledger", "shop")[0][0])


async def test_an_approval_is_not_for_what_its_own_transaction_has_put_under_the_name(
    served: TestBroker, postgres: Server
) -> None:
    statement = "delete from scratch"
    async with await connected(served.ticket(role="ask_first")) as connection:
        await refused(connection, statement)
        await approve(served)
        opened = len(served.recorder.of("hold.opened"))
        for change in (
            "alter table scratch rename to other; alter table ledger rename to scratch",
            "alter table scratch rename to other; create view scratch as select * from ledger",
            "drop table scratch; alter table ledger rename to scratch",
        ):
            await connection.execute("begin")
            for one in change.split("; "):
                await connection.execute(one)
            assert "commit the change of the schema before it" in await refused(connection, statement)
            await connection.execute("rollback")
        assert len(served.recorder.of("hold.opened")) == opened
        assert (await connection.execute(statement)).statusmessage == "DELETE 0"
    assert ledger(postgres) == 8


@pytest.mark.parametrize("values", [None, (0,)], ids=["simple", "extended"])
async def test_an_approval_is_not_for_what_got_the_name_while_its_statement_waited_for_a_lock(
    served: TestBroker, postgres: Server, values: tuple[int] | None
) -> None:
    served.policies.current = read_texts({"test.yaml": CLEAR.replace("[write], rev", "[write], max_rows: 10, rev")})
    statement, ticket = f"delete from scratch where id > {'%s' if values else 0}", served.ticket(role="ask_first")
    waits = "select count(*) from pg_locks where not granted"

    async def run(connection: psycopg.AsyncConnection[object]) -> str | None:
        return (await connection.execute(statement.encode(), values)).statusmessage

    async with await connected(ticket) as connection, await connected(ticket) as other:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="needs a review"):
            await run(connection)
        # What the planner is asked takes the same locks.
        await served.until(lambda: bool(served.recorder.of("hold.estimated")))
        await approve(served)
        for change in ("begin", "alter table scratch rename to other", "alter table ledger rename to scratch"):
            await other.execute(change.encode())
        running = asyncio.create_task(run(connection))
        await served.until(lambda: postgres.execute(waits, "shop") != [(0,)])
        await other.execute("commit")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="not what it was when this was approved"):
            await running
        assert postgres.execute("select count(*) from scratch", "shop") == [(8,)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="needs a review"):
            await run(connection)
        await approve(served)
        assert await run(connection) == "DELETE 8"


async def test_reviewers_are_told_that_names_may_mean_something_else(served: TestBroker) -> None:
    async with await connected(served.ticket(role="ask")) as connection:
        await connection.execute("begin")
        await connection.execute("alter table scratch rename to other")
        await connection.execute("alter table ledger rename to scratch")
        running = asyncio.create_task(connection.execute("delete from scratch"))
        hold = await served.held()
        told = "-- behind a change of the schema, so that names may mean something else\ndelete from scratch"
        assert hold.text == told
        await served.answer(hold)
        await running
        await connection.execute("rollback")


@pytest.mark.parametrize("name", ["mine", "pg_temp.mine"])
async def test_an_approval_about_what_is_temporary_ends_where_its_session_changes_that(
    served: TestBroker, postgres: Server, name: str
) -> None:
    statement, ticket = f"delete from {name}", served.ticket(role="ask_first")
    async with await connected(ticket) as connection, await connected(ticket) as other:
        await connection.execute("create temp table mine as select * from scratch")
        await refused(connection, statement)
        await approve(served)
        await other.execute("create temp view mine as select * from ledger")
        await refused(other, statement)
        assert (await connection.execute(statement)).statusmessage == "DELETE 0"
        await refused(connection, statement)
        await approve(served)
        await connection.execute("drop table mine")
        await connection.execute("create temp view mine as select * from ledger")
        await refused(connection, statement)
    assert ledger(postgres) == 8


_SAID = "create or replace function said() returns text language sql as $$select 'x'$$"
_FINE = "create or replace function fine(text) returns boolean immutable language sql as $$select false$$"
CHANGES = {
    "insert into told (word) values ('x')": _SAID,
    "insert into told values ('x', 'x')": _FINE,
    "insert into told (what) values ('x')": "alter domain short set default 'other'",
    "delete from moods where mood = 'gone'": "alter type mood rename value 'gone' to 'left'",
    "insert into places values (('Acacia', 'Ham'))": "alter type place rename attribute street to former",
    "insert into codes values ('a') on conflict do nothing": "create unique index on codes (code)",
}


@pytest.mark.parametrize(
    "statement", CHANGES, ids=["function of a default", "of a check", "domain", "labels", "fields", "unique index"]
)
async def test_what_a_change_runs_or_compares_is_what_it_was(
    served: TestBroker, postgres: Server, statement: str
) -> None:
    async with await connected(served.ticket(role="ask_first")) as connection:
        await refused(connection, statement)
        await approve(served)
        postgres.execute(CHANGES[statement], "shop")
        await refused(connection, statement)


async def test_what_was_approved_at_its_bind_is_what_it_was_at_its_execute(
    served: TestBroker, postgres: Server
) -> None:
    bound = codec.parse("", "insert into told values ('x')") + codec.bind("p", "") + codec.SYNC
    for change in ("create or replace function said() returns text language sql as $$select 'x'$$", ""):
        opened = len(served.recorder.of("hold.opened"))
        with raw(served.port) as client:
            await asyncio.to_thread(enter, client, served.ticket(role="ask"))

            async def said(message: bytes, client: Raw = client) -> str:
                client.send(message)
                return kinds(await asyncio.to_thread(client.until, "Z")).replace("N", "")

            assert await said(codec.query("begin")) == "CZ"
            binding = asyncio.create_task(said(bound))
            await served.answer(await served.held(opened + 1))
            assert await binding == "12Z"
            if change:
                postgres.execute(change, "shop")
                # Longer than a client needs to send both.
                await asyncio.sleep(0.2)
            else:
                assert await said(codec.query("alter table scratch add more int")) == "CZ"
            running = asyncio.create_task(said(codec.execute("p") + codec.SYNC))
            await served.answer(await served.held(opened + 2), Answer.DENY)
            assert await running == "EZ"
    assert postgres.execute("select count(*) from told", "shop") == [(0,)]


async def test_a_cursor_that_was_approved_is_fetched_while_it_means_the_same(
    served: TestBroker, postgres: Server
) -> None:
    async with await connected(served.ticket(role="ask")) as connection:
        await connection.execute("begin")
        running = asyncio.create_task(connection.execute("declare c cursor for select said() from ledger"))
        await served.answer(await served.held())
        await running
        assert await (await connection.execute("fetch 1 from c")).fetchone() == ("shown",)
        postgres.execute("create or replace function said() returns text language sql as $$select 'x'$$", "shop")
        # Until the catalogue is looked at again.
        await asyncio.sleep(1.1)
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="has changed since this cursor was declared"):
            await connection.execute("fetch 1 from c")


async def test_an_approval_of_execute_is_for_the_types_that_its_reviewers_saw(
    served: TestBroker, postgres: Server
) -> None:
    body, ran = "insert into codes values ($1::text)", "execute p('010')"
    async with await connected(served.ticket(role="ask_first")) as connection:
        for types in ("int", "text"):
            prepared = f"prepare p({types}) as {body}"
            await refused(connection, prepared)
            await approve(served)
            await connection.execute(prepared)
            await refused(connection, ran)
            assert await approve(served) == f"{ran}\n\n-- which runs:\n-- of parameters ({types})\n {body}"
            await connection.execute("deallocate p")
    ticket = served.ticket(role="ask_first")

    def talk(oid: int) -> dict[str, str]:
        with raw(served.port) as client:
            enter(client, ticket)
            client.send(codec.parse("p", body, (oid,)) + codec.SYNC)
            client.until("Z")
            client.send(codec.query(ran))
            return next((problem(frame) for frame in client.until("Z") if chr(frame.type) == "E"), {})

    assert "needs a review" in (await asyncio.to_thread(talk, 23))["M"]
    assert "-- of parameters (integer)\n" in await approve(served)
    assert "needs a review" in (await asyncio.to_thread(talk, 25))["M"]
    assert await asyncio.to_thread(talk, 23) == {}
    assert postgres.execute("select code from codes", "shop") == [("10",)]
