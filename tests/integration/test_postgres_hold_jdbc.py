"""pgJDBC through holds: extended and simple, batches, transactions with autosave, cancels and time limits."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.integration.postgres_world import endpoint, make_world
from tests.support.broker import POLICY, TestBroker, serving
from tests.support.jdbc import Program, compiled
from tests.support.postgres import Server
from workflows.reviews import Answer

EXTENDED = {"preferQueryMode": "extended"}
SIMPLE = {"preferQueryMode": "simple"}
NAMED = {"preferQueryMode": "extended", "prepareThreshold": "1"}
JAVA_SECONDS = 30.0


def written(postgres: Server) -> list[str | None]:
    return [row[0] for row in postgres.execute("select what from log order by id", "shop")]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    made = compiled(tmp_path_factory.mktemp("java"))
    yield made
    made.close()


@pytest.fixture
async def served(postgres: Server, tmp_path: Path) -> AsyncIterator[TestBroker]:
    read, write = make_world(postgres), endpoint(postgres, "app_write")
    async with serving(tmp_path, read, write=write, ask=write) as broker:
        yield broker


async def answered(served: TestBroker, *answers: Answer) -> list[tuple[str, list[str | None]]]:
    """Answer so many holds as they come; gives what reviewers saw of each."""
    seen = []
    for number, answer in enumerate(answers, 1):
        await served.until(lambda number=number: len(served.recorder.of("hold.opened")) >= number, JAVA_SECONDS)
        hold = await served.held(number)
        seen.append((hold.text, hold.parameters))
        await served.answer(hold, answer, reason="not today")
    return seen


@pytest.mark.parametrize("mode", [EXTENDED, NAMED, SIMPLE], ids=["extended", "named", "simple"])
async def test_each_execution_of_a_prepared_statement_is_held_with_its_values(
    served: TestBroker, postgres: Server, program: Program, mode: dict[str, str]
) -> None:
    async with program.running("prepared", served.ticket(role="ask"), **mode) as process:
        seen = await answered(served, *[Answer.APPROVE] * 3)
        assert await process.said() == ["changed 1"] * 3 + ["count 3"]
    assert written(postgres) == ["one", "it's two", None]
    if mode is SIMPLE:
        assert [parameters for _, parameters in seen] == [[], [], []]
        assert "it''s two" in seen[1][0]
    else:
        assert [parameters for _, parameters in seen] == [["one"], ["it's two"], [None]]
        assert {text for text, _ in seen} == {"insert into log (what) values ($1)"}


async def test_current_schema_is_where_what_has_no_schema_is_looked_up(
    wheel_postgres: Server, tmp_path: Path, program: Program
) -> None:
    read, write = make_world(wheel_postgres), endpoint(wheel_postgres, "app_write")
    with wheel_postgres.connect("shop") as connection:
        connection.execute("create schema app")
        connection.execute("create table app.log (what text)")
        connection.execute("grant usage on schema app to app_write")
        connection.execute("grant select, insert on app.log to app_write")
    policy = POLICY.replace('["public.*"]', '["public.*", "app.*"]')
    async with serving(tmp_path, read, policy=policy, write=write) as broker:
        ticket = broker.ticket(role="write")
        async with program.running("prepared", ticket, currentSchema="app,public") as process:
            assert await process.said() == ["changed 1"] * 3 + ["count 3"]
        async with program.running("prepared", ticket, options="-csearch_path=app%20-cjit=off") as process:
            assert (await process.said())[-1] == "count 6"
    assert wheel_postgres.execute("select count(*) from public.log", "shop") == [(0,)]


@pytest.mark.parametrize("mode", [EXTENDED, SIMPLE], ids=["extended", "simple"])
async def test_denial_with_its_reason_is_an_exception_and_the_connection_goes_on(
    served: TestBroker, postgres: Server, program: Program, mode: dict[str, str]
) -> None:
    async with program.running("denied", served.ticket(role="ask"), **mode) as process:
        await answered(served, Answer.DENY)
        failed, count = await process.said()
    assert failed.startswith("failed 42501 ERROR: airlock: Bob refused this statement: not today")
    assert count == "count 0"
    assert written(postgres) == []


async def test_batch_is_held_row_by_row_and_runs_whole(served: TestBroker, postgres: Server, program: Program) -> None:
    async with program.running("batch", served.ticket(role="ask"), **EXTENDED) as process:
        seen = await answered(served, *[Answer.APPROVE] * 3)
        assert await process.said() == ["batch [1, 1, 1]", "count 3"]
    assert [parameters for _, parameters in seen] == [["row 1"], ["row 2"], ["row 3"]]
    assert written(postgres) == ["row 1", "row 2", "row 3"]


async def test_denial_within_a_batch_runs_none_of_it(served: TestBroker, postgres: Server, program: Program) -> None:
    async with program.running("batch", served.ticket(role="ask"), **EXTENDED) as process:
        await answered(served, Answer.APPROVE, Answer.DENY)
        lines = await process.said()
    assert "42501" in lines[1]
    assert "Bob refused this statement: not today" in lines[1]
    assert lines[-1] == "count 0"
    assert len(served.recorder.of("hold.opened")) == 2
    assert written(postgres) == []


@pytest.mark.parametrize("mode", [EXTENDED, SIMPLE], ids=["extended", "simple"])
async def test_denial_fails_a_transaction_on_both_sides(
    served: TestBroker, postgres: Server, program: Program, mode: dict[str, str]
) -> None:
    async with program.running("transaction", served.ticket(role="ask"), **mode) as process:
        await answered(served, Answer.APPROVE, Answer.DENY)
        lines = await process.said()
    assert lines[:2] == ["count 0", "changed 1"]
    assert "not today" in lines[2]
    assert lines[3].startswith("failed 25P02")
    assert lines[4] == "count 0"
    assert written(postgres) == []


@pytest.mark.parametrize("mode", [EXTENDED, SIMPLE], ids=["extended", "simple"])
async def test_autosave_keeps_a_transaction_through_a_denial(
    served: TestBroker, postgres: Server, program: Program, mode: dict[str, str]
) -> None:
    async with program.running("transaction", served.ticket(role="ask"), autosave="always", **mode) as process:
        await answered(served, Answer.APPROVE, Answer.DENY)
        lines = await process.said()
    assert lines[:2] == ["count 0", "changed 1"]
    assert "not today" in lines[2]
    assert lines[3:] == ["count 1", "count 1"]
    assert written(postgres) == ["in a transaction"]


async def test_cancel_of_a_statement_gives_its_review_up(
    served: TestBroker, postgres: Server, program: Program
) -> None:
    async with program.running("cancel", served.ticket(role="ask"), **EXTENDED) as process:
        await served.until(lambda: bool(served.recorder.of("hold.opened")), JAVA_SECONDS)
        hold = await served.held()
        process.tell()
        failed, count = await process.said()
    assert failed.startswith("failed 57014 ERROR: airlock: canceled: the review was given up")
    assert count == "count 0"
    assert served.recorder.of("hold.abandoned") == [{"hold": hold.id, "reason": "cancelled"}]
    assert written(postgres) == []


async def test_query_timeout_gives_the_review_up(served: TestBroker, postgres: Server, program: Program) -> None:
    async with program.running("timeout", served.ticket(role="ask"), **EXTENDED) as process:
        failed, count = await process.said()
    assert failed.startswith("failed 57014")
    assert count == "count 0"
    assert len(served.recorder.of("hold.abandoned")) == 1
    assert written(postgres) == []


async def test_notices_arrive_as_warnings(
    served: TestBroker, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.protocols.postgres.holder.TELL_SECONDS", 0.2)
    async with program.running("notices", served.ticket(role="ask"), **EXTENDED) as process:
        await served.until(lambda: bool(served.recorder.of("hold.opened")), JAVA_SECONDS)
        await asyncio.sleep(0.5)
        await answered(served, Answer.APPROVE)
        lines = await process.said()
    assert len(lines) >= 2
    *waits, released = lines
    assert all("waiting for 1 of dbas (Bob or Dana) to review this statement" in line for line in waits)
    assert "approved by" in released
