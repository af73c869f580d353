"""The settings that say what a text means: an approval is for a text under the ones that its reviewers saw."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest

from broker.protocols.postgres import codec
from tests.integration.postgres_world import connected, endpoint, enter, make_world, problem, psql, raw, written
from tests.playbooks.postgres_play import bind
from tests.support.broker import TestBroker, serving
from tests.support.postgres import Server
from workflows.reviews import Answer

SECOND = "insert into log (what) values (extract(month from date '02/01/2020'))"
"""Of January where a month comes second."""


@pytest.fixture
async def served(postgres: Server, tmp_path: Path) -> AsyncIterator[TestBroker]:
    read = make_world(postgres)
    write = endpoint(postgres, "app_write")
    async with serving(tmp_path, read, write=write, ask=write, ask_first=write) as broker:
        yield broker


async def test_reviewers_see_what_a_text_means_where_that_is_unusual(served: TestBroker, postgres: Server) -> None:
    running = asyncio.create_task(
        psql(served.ticket(role="ask"), "set datestyle = 'German'; set timezone = 'Asia/Tokyo'", SECOND)
    )
    hold = await served.held()
    assert hold.text == f"-- under DateStyle = German, DMY\n-- under TimeZone = Asia/Tokyo\n{SECOND}"
    await served.answer(hold)
    assert (await running)[0] == 0
    assert written(postgres) == ["1"]


@pytest.mark.parametrize(
    "change",
    [
        "set datestyle = 'ISO, DMY'",
        "select set_config('datestyle', 'ISO, DMY', false)",
        "begin; set datestyle = 'ISO, DMY'; commit",
        "set intervalstyle = 'sql_standard'",
        "set timezone = 'Asia/Tokyo'",
        "set bytea_output = 'escape'",
        "set extra_float_digits = -5",
    ],
)
async def test_an_approval_for_later_is_for_the_settings_it_was_shown_under(
    served: TestBroker, postgres: Server, change: str
) -> None:
    async with await connected(served.ticket(role="ask_first")) as connection:

        async def refused() -> None:
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="this needs a review by 1 of dbas"):
                await connection.execute(SECOND)

        await refused()
        await served.answer(await served.held())
        await connection.execute(change)
        await refused()
        assert len(served.recorder.of("hold.opened")) == 2
        # What is set back means what it did.
        await connection.execute("reset all")
        await connection.execute(SECOND)
    assert written(postgres) == ["2"]


@pytest.mark.parametrize(
    "ended", ["begin; set datestyle = 'ISO, DMY'; rollback", "begin; set local datestyle = 'ISO, DMY'; commit"]
)
async def test_an_approval_under_what_has_ended_with_its_transaction_is_for_nothing_else(
    served: TestBroker, postgres: Server, ended: str
) -> None:
    async with await connected(served.ticket(role="ask_first")) as connection:

        async def refused() -> None:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute(SECOND)

        await connection.execute("begin")
        await connection.execute("set local datestyle = 'ISO, DMY'")
        await refused()
        await connection.execute("rollback")
        await served.answer(await served.held())
        await connection.execute(ended)
        await refused()
    assert written(postgres) == []
    assert len(served.recorder.of("hold.opened")) == 2


async def test_what_was_prepared_under_others_is_done_again(served: TestBroker, postgres: Server) -> None:
    connection = await asyncpg.connect(**served.ticket(role="ask").asyncpg())
    asked: list[str] = []

    async def approved(running: Awaitable[Any]) -> None:
        waiting = asyncio.ensure_future(running)
        hold = await served.held(len(asked) + 1)
        asked.append(hold.text)
        await served.answer(hold)
        await waiting

    async def outdated(running: Awaitable[Any]) -> None:
        with pytest.raises(asyncpg.FeatureNotSupportedError, match="has changed since it was prepared or bound"):
            await running

    try:
        await connection.execute("set datestyle = 'ISO, DMY'")
        prepared = await connection.prepare(SECOND)
        await approved(connection.execute(f"prepare named as {SECOND}"))
        # Read under another style than the one before it and behind it.
        other = f"set datestyle = 'ISO, MDY'; prepare hidden as {SECOND}; set datestyle = 'ISO, DMY'"
        await approved(connection.execute(other))
        await outdated(connection.execute("execute hidden"))
        await connection.execute("set datestyle = 'ISO, MDY'")
        await outdated(connection.execute("execute named"))
        await outdated(prepared.fetch())
        assert len(asked) == 2
        await connection.execute("set datestyle = 'ISO, DMY'")
        await approved(connection.execute("execute named"))
        await approved(prepared.fetch())
    finally:
        await connection.close()
    assert all(text.startswith("-- under DateStyle = ISO, DMY\n") for text in asked)
    assert written(postgres) == ["1", "1"]


async def test_a_portal_that_was_approved_does_not_run_under_others(served: TestBroker, postgres: Server) -> None:
    text = "insert into log (what) values (extract(month from ('02/01/2020'::text)::date))"
    with raw(served.port) as client:
        await asyncio.to_thread(enter, client, served.ticket(role="ask"))
        client.send(codec.query("begin"))
        await asyncio.to_thread(client.until, "Z")
        client.send(codec.parse("", text) + bind("", "approved") + codec.FLUSH)
        await served.answer(await served.held())
        await asyncio.to_thread(client.until, "2")
        client.send(codec.parse("", "set datestyle = 'ISO, DMY'") + bind("") + codec.execute("") + codec.FLUSH)
        await asyncio.to_thread(client.until, "C")
        client.send(codec.execute("approved") + codec.SYNC)
        frames = await asyncio.to_thread(client.until, "Z")
        (failure,) = [problem(frame) for frame in frames if chr(frame.type) == "E"]
        assert "has changed since it was prepared or bound" in failure["M"]
        client.send(codec.query("commit"))
        await asyncio.to_thread(client.until, "Z")
    assert written(postgres) == []


async def test_the_planner_is_asked_under_the_settings_of_the_session(served: TestBroker, postgres: Server) -> None:
    for statement in (
        "create table days as select date '2020-01-01' + g as day from generate_series(0, 364) g",
        "analyze days",
        "grant select, delete on days to app_write",
    ):
        postgres.execute(statement, "shop")
    expected = []
    for count, style in enumerate(("ISO, MDY", "ISO, DMY"), 1):
        running = asyncio.create_task(
            psql(served.ticket(role="ask"), f"set datestyle = '{style}'", "delete from days where day < '02/12/2020'")
        )
        await served.until(lambda count=count: len(served.recorder.of("hold.estimated")) >= count)
        hold = await served.held(count)
        assert hold.estimate is not None
        expected.append(hold.estimate.rows)
        await served.answer(hold, Answer.DENY)
        await running
    assert expected[0] < 60 < 300 < expected[1]
