"""Transactions that have only begun: drivers begin one in a statement's own flight, or prepare the statement first."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import psycopg
import pytest

from broker.protocols.postgres import codec
from tests.integration.postgres_world import connected, endpoint, enter, make_world, raw, written
from tests.playbooks.postgres_play import bind
from tests.support.broker import TestBroker, serving
from tests.support.jdbc import compiled
from tests.support.postgres import Server
from workflows.reviews import Answer
from workflows.wire import HoldView

INSERT = "insert into log (what) values ($1)"
LOCKS = (
    "select mode from pg_locks join pg_stat_activity using (pid) "
    "where relation = 'log'::regclass and application_name <> 'airlock:broker'"
)


@pytest.fixture
async def served(postgres: Server, tmp_path: Path) -> AsyncIterator[TestBroker]:
    read, write = make_world(postgres), endpoint(postgres, "app_write")
    async with serving(tmp_path, read, write=write, ask=write, ask_first=write) as broker:
        yield broker


async def opened(served: TestBroker, number: int, seconds: float = 20.0) -> tuple[HoldView, float]:
    """Wait for a hold; gives it with how long it may wait."""
    await served.until(lambda: len(served.recorder.of("hold.opened")) >= number, seconds)
    hold = await served.held(number)
    return hold, (hold.expires_at - hold.opened_at).total_seconds()


@pytest.mark.parametrize("isolation", ["read_committed", "repeatable_read", "serializable"])
async def test_what_asyncpg_prepares_in_its_transaction_waits_as_long_as_elsewhere(
    served: TestBroker, postgres: Server, isolation: str
) -> None:
    connection = await asyncpg.connect(**served.ticket(role="ask", lasts=3600).asyncpg())
    try:
        async with connection.transaction(isolation=isolation):
            running = asyncio.create_task(connection.execute(INSERT, "first"))
            hold, seconds = await opened(served, 1)
            assert (seconds, hold.in_transaction) == (600, True)
            assert postgres.execute(LOCKS, "shop") == []
            await served.answer(hold)
            assert await running == "INSERT 0 1"
            assert await connection.fetchval("show transaction_isolation") == isolation.replace("_", " ")
            running = asyncio.create_task(connection.execute(INSERT, "second"))
            hold, seconds = await opened(served, 2)
            assert seconds == 60
            await served.answer(hold)
            await running
    finally:
        await connection.close()
    assert written(postgres) == ["first", "second"]


async def test_a_denial_behind_such_a_wait_fails_the_transaction_on_both_sides(
    served: TestBroker, postgres: Server
) -> None:
    connection = await asyncpg.connect(**served.ticket(role="ask", lasts=3600).asyncpg())
    try:
        transaction = connection.transaction()
        await transaction.start()
        running = asyncio.create_task(connection.execute(INSERT, "refused"))
        hold, _ = await opened(served, 1)
        await served.answer(hold, Answer.DENY)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await running
        with pytest.raises(asyncpg.InFailedSQLTransactionError):
            await connection.fetch("select 1")
        await transaction.rollback()
        assert await connection.fetchval("select 1") == 1
    finally:
        await connection.close()
    assert written(postgres) == []


async def test_what_was_read_before_keeps_the_wait_short(served: TestBroker, postgres: Server) -> None:
    connection = await asyncpg.connect(**served.ticket(role="ask", lasts=3600).asyncpg())
    try:
        for number, first in enumerate(("select 1", "set local jit = off", "savepoint a"), 1):
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(first)
            running = asyncio.create_task(connection.execute(INSERT, first))
            hold, seconds = await opened(served, number)
            assert seconds == 60
            await served.answer(hold)
            await running
            await transaction.commit()
    finally:
        await connection.close()
    assert len(written(postgres)) == 3


async def test_a_cursor_of_before_outlives_the_wait(served: TestBroker, postgres: Server) -> None:
    connection = await asyncpg.connect(**served.ticket(role="ask", lasts=3600).asyncpg())
    try:
        await connection.execute("begin; declare kept cursor with hold for select id from notes order by id; commit")
        async with connection.transaction():
            running = asyncio.create_task(connection.execute(INSERT, "beside"))
            hold, seconds = await opened(served, 1)
            assert seconds == 600
            await served.answer(hold)
            await running
            assert await connection.fetchval("fetch kept") == 1
    finally:
        await connection.close()


@pytest.mark.parametrize("mode", ["extended", "extendedForPrepared", "extendedCacheEverything", "simple"])
async def test_what_pgjdbc_sends_with_its_begin_waits_as_long_as_elsewhere(
    served: TestBroker, postgres: Server, tmp_path: Path, mode: str
) -> None:
    program = compiled(tmp_path)
    try:
        async with program.running("begun", served.ticket(role="ask", lasts=3600), preferQueryMode=mode) as process:
            for number, expected in enumerate((600, 60, 600), 1):
                hold, seconds = await opened(served, number, 40)
                assert (seconds, hold.in_transaction) == (expected, mode != "simple" or number == 2 or seconds == 600)
                assert number == 2 or postgres.execute(LOCKS, "shop") == []
                await served.answer(hold)
            assert await process.said() == ["changed 1", "changed 1", "count 2", "changed 1", "count 2"]
    finally:
        program.close()
    assert written(postgres) == ["first", "second"]


async def test_what_psycopg_sends_in_a_pipeline_waits_as_long_as_elsewhere(
    served: TestBroker, postgres: Server
) -> None:
    async with await connected(served.ticket(role="ask", lasts=3600), autocommit=False) as connection:

        async def work() -> None:
            async with connection.pipeline():
                await connection.execute("insert into log (what) values (%s)", ("piped",))
            await connection.commit()

        running = asyncio.create_task(work())
        hold, seconds = await opened(served, 1)
        assert seconds == 600
        assert postgres.execute(LOCKS, "shop") == []
        await served.answer(hold)
        await running
    assert written(postgres) == ["piped"]


def flight(*texts: str) -> bytes:
    """Write statements that are parsed, bound and executed in one flight, before the Sync."""
    return b"".join(codec.parse("", text) + bind("") + codec.execute("") for text in texts)


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (flight("begin"), 600),
        (flight("start transaction isolation level serializable"), 600),
        (codec.parse("s", "select id from notes") + flight("begin"), 600),
        (flight("begin") + codec.parse("s", "select id from notes"), 600),
        (flight("select 1", "begin"), 60),
        (flight("begin", "select 1"), 60),
        (flight("begin", "begin"), 600),
        (flight("begin") + codec.parse("s", "select id from notes") + bind("s", "p"), 60),
        (codec.parse("s", "select id from notes") + bind("s", "p") + codec.execute("p") + flight("begin"), 60),
    ],
)
async def test_nothing_is_undone_of_what_came_with_the_begin(
    served: TestBroker, postgres: Server, messages: bytes, expected: int
) -> None:
    with raw(served.port) as client:
        await asyncio.to_thread(enter, client, served.ticket(role="ask", lasts=3600))
        insert = flight("insert into log (what) values ('last')")
        client.send(messages + insert + codec.SYNC)
        hold, seconds = await opened(served, 1)
        assert seconds == expected
        await served.answer(hold)
        await asyncio.to_thread(client.until, "Z")
        client.send(codec.query("commit"))
        await asyncio.to_thread(client.until, "Z")
    assert written(postgres) == ["last"]


async def test_a_statement_that_is_to_come_again_leaves_its_transaction_alone(served: TestBroker) -> None:
    """With `hold: refuse` nothing waits, and the refusal ends the transaction anyway."""
    async with await connected(served.ticket(role="ask_first"), autocommit=False) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute("insert into log (what) values (%s)", ("later",), prepare=True)
        await connection.rollback()
