"""What a held statement's reviewers learn from the upstream, which runs nothing of the statement for it."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest

from broker.errors import UpstreamUnavailable
from broker.protocols.postgres import admin
from tests.integration.postgres_world import endpoint, make_world, psql
from tests.support.broker import TestBroker, serving
from tests.support.postgres import Server
from workflows.reviews import Answer
from workflows.wire import EstimateView, HoldView

MORE = (
    "analyze notes",
    # Immutable in name alone: planning runs it wherever its argument is a constant.
    "create function lies(int) returns int immutable language plpgsql as "
    "$$ begin raise log 'lies ran'; return $1; end $$",
    "create table defaulted (id int, n int default lies(1))",
    "create table indexed (id int)",
    "create index on indexed ((lies(1) + id))",
    "create table checked (id int check (id > lies(0)))",
    "create type mood as enum ('calm', 'cross')",
    "create domain small as int check (value < 100)",
    "create table moods (id int, mood mood)",
    "insert into moods select g, 'calm' from generate_series(1, 50) g",
    "analyze moods",
    "create table smalls (id small)",
    "create table parts (id int) partition by range (id)",
    "create table parts_low partition of parts for values from (0) to (100)",
    "create table parts_high partition of parts for values from (100) to (200)",
    "insert into parts select g from generate_series(0, 199) g",
    "analyze parts_low",
    "analyze parts_high",
    "create table owners (id int primary key)",
    "create table pets (id int primary key, owner int references owners on delete cascade on update cascade)",
    "create table visits (pet int references pets on delete set null, day int) partition by range (day)",
    "create table visits_early partition of visits for values from (0) to (10)",
    "create table bills (owner int references owners)",
    "create function public.notes_it() returns trigger language plpgsql as $$ begin return null; end $$",
    "create trigger told after update on visits for each row execute function notes_it()",
    "create trigger unheard after insert on pets for each row execute function notes_it()",
    "create constraint trigger late after delete on owners deferrable for each row execute function notes_it()",
    "grant select, insert, update, delete on owners to app_write",
    "grant select, insert, update, delete on defaulted, indexed, checked, moods, smalls, parts to app_write",
)


@pytest.fixture
async def served(postgres: Server, tmp_path: Path) -> AsyncIterator[TestBroker]:
    read = make_world(postgres, *MORE)
    write = endpoint(postgres, "app_write")
    async with serving(tmp_path, read, write=write, ask=write, ask_first=write, sized=write) as broker:
        yield broker


async def estimated(served: TestBroker, count: int = 1) -> HoldView:
    """Return the hold once the upstream has been asked about it."""
    await served.until(lambda: len(served.recorder.of("hold.estimated")) >= count)
    return await served.held(count)


async def estimate_of(served: TestBroker, text: str, values: Any = None) -> tuple[EstimateView, HoldView]:
    """Have a statement held and refused, and return what its reviewers were told."""
    before = len(served.recorder.of("hold.opened"))
    async with await psycopg.AsyncConnection.connect(served.ticket(role="ask").dsn(), autocommit=True) as connection:
        running = asyncio.create_task(connection.execute(text.encode(), values))
        hold = await estimated(served, before + 1)
        await served.answer(hold, Answer.DENY)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await running
    assert hold.estimate is not None
    return hold.estimate, hold


async def test_card_learns_sizes_and_how_many_rows_are_expected(served: TestBroker) -> None:
    estimate, hold = await estimate_of(served, "update notes set body = 'x' where id <= 250")
    (notes,) = estimate.relations
    assert (notes.name, notes.rows) == ("public.notes", 1000)
    assert (notes.bytes or 0) > 8192
    assert estimate.rows is not None
    assert 200 <= estimate.rows <= 300
    assert estimate.why == ""
    (said,) = served.recorder.of("hold.estimated")
    assert (said["hold"], said["rows"]) == (hold.id, estimate.rows)


async def test_question_is_recorded_as_a_statement_of_its_own_before_it_is_asked(served: TestBroker) -> None:
    await estimate_of(served, "delete from notes where id = 7")
    kinds = [entry.type for entry in served.recorder.entries if entry.type.startswith("hold.")]
    assert kinds[:3] == ["hold.opened", "hold.explained", "hold.estimated"]
    (entry,) = [entry for entry in served.recorder.entries if entry.type == "hold.explained"]
    opened = served.recorder.of("hold.opened")[0]
    assert entry.data["statement"] != opened["statement"]
    assert "7" not in entry.data["text"]
    assert entry.detail == {"sql": "EXPLAIN delete from notes where id = 7"}


async def test_planner_is_asked_with_the_values_of_this_statement(
    served: TestBroker, subtests: pytest.Subtests
) -> None:
    cases: list[tuple[str, Any, int, int]] = [
        ("delete from notes where id <= %s", (100,), 90, 110),
        ("delete from notes where id <= %s", ("100",), 90, 110),
        ("insert into log (what) values (%s), (null)", ("it's \\ 'quoted'",), 2, 2),
        ("insert into log (what) select body from notes where id <= 500", None, 450, 550),
        ("delete from parts where id < 120", None, 110, 130),
        ("update moods set id = 0 where mood = 'calm'", None, 45, 50),
        ("with gone as (delete from notes where id <= 10 returning id) select count(*) from gone", None, 8, 12),
        ("delete from notes using people where people.id = notes.id and people.name = 'Ann'", None, 1, 10),
    ]
    for text, values, least, most in cases:
        with subtests.test(text, values=values):
            estimate, _ = await estimate_of(served, text, values)
            assert estimate.rows is not None, estimate.why
            assert least <= estimate.rows <= most


async def test_where_planning_is_not_harmless_there_is_no_estimate_and_it_says_why(
    served: TestBroker, postgres: Server, subtests: pytest.Subtests
) -> None:
    own = "planning could run code of your own, through public"
    cases: list[tuple[str, Any, str]] = [
        ("insert into defaulted (id) values (1)", None, f"{own}.defaulted"),
        ("delete from indexed where id = 1", None, f"{own}.indexed"),
        ("delete from checked where id = 1", None, f"{own}.checked"),
        ("insert into smalls values (1)", None, f"{own}.smalls"),
        ("insert into moods values (1, %s)", ("calm",), "a parameter has a type of your own"),
        ("delete from notes where body in (select ssn from people)", None, "it reads masked fields"),
        ("delete from notes; delete from log", None, "it is more than one statement"),
        ("delete from notes where id = 1 / 0", None, "the planner gives none"),
    ]
    before = postgres.log.read_text().count("lies ran")
    for text, values, why in cases:
        with subtests.test(text):
            estimate, hold = await estimate_of(served, text, values)
            assert (estimate.rows, estimate.why) == (None, why)
            assert hold.state == "waiting"
            assert {one.name for one in estimate.relations} == set(hold.relations)
            assert postgres.log.read_text().count("lies ran") == before


async def test_a_cast_that_nobody_writes_is_not_run_for_an_estimate(served: TestBroker, postgres: Server) -> None:
    body = "$$ begin raise log 'lies ran'; return 'x'; end $$"
    postgres.execute(f"create function told(int) returns text immutable language plpgsql as {body}", "shop")
    postgres.execute("create cast (int as text) with function told(int) as assignment", "shop")
    before = postgres.log.read_text().count("lies ran")
    estimate, _ = await estimate_of(served, "insert into log (what) values (7)", None)
    assert estimate.why == "planning could run code of your own, through told"
    assert postgres.log.read_text().count("lies ran") == before


async def test_value_cannot_become_code_where_a_role_reads_strings_in_the_old_way(
    served: TestBroker, postgres: Server
) -> None:
    before = postgres.log.read_text().count("lies ran")
    postgres.execute("alter role app_write set standard_conforming_strings = off")
    try:
        value = "\\' || public.lies(1)::text) --"
        estimate, _ = await estimate_of(served, "insert into log (what) values (%s)", (value,))
    finally:
        postgres.execute("alter role app_write reset standard_conforming_strings")
    assert estimate.rows == 1, estimate.why
    assert postgres.log.read_text().count("lies ran") == before


async def test_estimate_of_what_reads_masked_relations_asks_about_what_would_run(served: TestBroker) -> None:
    text = "delete from notes using people where people.id = notes.id and people.name = 'Ann'"
    await estimate_of(served, text)
    (entry,) = [entry for entry in served.recorder.entries if entry.type == "hold.explained"]
    assert "SELECT t." in entry.detail["sql"]


async def test_locks_that_wait_with_a_statement_are_named(served: TestBroker) -> None:
    async with await psycopg.AsyncConnection.connect(served.ticket(role="ask").dsn()) as connection:
        await connection.execute("select 1 from notes")
        running = asyncio.create_task(connection.execute("delete from log"))
        hold = await estimated(served)
        assert hold.in_transaction
        assert hold.estimate is not None
        assert hold.estimate.locks == ["public.notes (access share)"]
        await served.answer(hold)
        await running
        running = asyncio.create_task(connection.execute("delete from notes where id = 1"))
        hold = await estimated(served, 2)
        assert hold.estimate is not None
        assert hold.estimate.locks == ["public.log (row exclusive)", "public.notes (access share)"]
        await served.answer(hold)
        await running


async def test_transaction_that_has_only_begun_is_said_to_have_no_locks(served: TestBroker) -> None:
    async with await psycopg.AsyncConnection.connect(served.ticket(role="ask").dsn()) as connection:
        running = asyncio.create_task(connection.execute("delete from log where id = %s", (1,)))
        hold = await estimated(served)
        assert hold.in_transaction
        assert hold.estimate is not None
        assert hold.estimate.locks == []
        await served.answer(hold)
        await running
    async with await psycopg.AsyncConnection.connect(served.ticket(role="ask").dsn(), autocommit=True) as connection:
        running = asyncio.create_task(connection.execute("delete from log where id = 1"))
        hold = await estimated(served, 2)
        assert hold.estimate is not None
        assert (hold.in_transaction, hold.estimate.locks) == (False, None)
        await served.answer(hold)
        await running


async def test_lock_in_the_way_costs_the_estimate_and_not_the_hold(served: TestBroker, postgres: Server) -> None:
    with postgres.connect("shop", autocommit=False) as other:
        other.execute("lock table notes in access exclusive mode")
        estimate, hold = await estimate_of(served, "delete from notes")
        assert (estimate.rows, estimate.why) == (None, "a lock is in the way, or planning takes too long")
    opened = next(entry for entry in served.recorder.entries if entry.type == "hold.opened")
    assert opened.data["hold"] == hold.id


async def test_what_cannot_be_recorded_is_not_asked(
    served: TestBroker, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = served.recorder.write

    def refusing(entry: Any, *, lazy: bool = False) -> Any:
        served.recorder.broken = entry.type == "hold.explained"
        try:
            return write(entry, lazy=lazy)
        finally:
            served.recorder.broken = False

    monkeypatch.setattr(served.recorder, "write", refusing)
    postgres.execute("alter role app_write set log_statement = 'all'")
    try:
        estimate, _ = await estimate_of(served, "delete from notes where body = 'markexplained'")
    finally:
        postgres.execute("alter role app_write reset log_statement")
    assert (estimate.rows, estimate.why) == (None, "asking for it cannot be recorded")
    assert "markexplained" not in postgres.log.read_text()


async def test_statement_that_was_refused_at_once_is_estimated_once(served: TestBroker) -> None:
    for _ in range(2):
        status, _, _ = await psql(served.ticket(role="ask_first"), "delete from notes where id <= 10")
        assert status == 1
    hold = await estimated(served)
    assert not hold.waits
    assert hold.estimate is not None
    assert 8 <= (hold.estimate.rows or 0) <= 12


async def test_nothing_is_left_on_the_brokers_connection(served: TestBroker, postgres: Server) -> None:
    for _ in range(3):
        await estimate_of(served, "delete from notes where id = %s", (1,))
    activity = "select count(*) from pg_stat_activity where application_name = 'airlock:broker' and state <> 'idle'"
    await served.until(lambda: postgres.execute(activity) == [(0,)])
    assert postgres.execute("select count(*) from notes", "shop") == [(1000,)]


async def test_a_broker_that_stops_in_the_middle_leaves_no_transaction_open(
    served: TestBroker, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "LEFT_SECONDS", 0.2)
    asked = admin.Admin(endpoint(postgres, "app_write"))
    open_ = "select count(*) from pg_stat_activity where application_name = 'airlock:broker' and xact_start is not null"

    async def stopped(connection: asyncpg.Connection) -> None:
        async with connection.transaction():
            await connection.execute("lock notes in row exclusive mode")
            assert postgres.execute(open_) == [(1,)]
            await served.until(lambda: postgres.execute(open_) == [(0,)])
            await connection.execute("select 1")

    try:
        with pytest.raises(UpstreamUnavailable):
            await asked.aside(stopped)
        assert await asked.fetch("select 1 as one") == [{"one": 1}]
        await asked.aside(lambda connection: connection.execute("reset all"))
        shown = await asked.fetch("show idle_in_transaction_session_timeout")
        assert shown == [{"idle_in_transaction_session_timeout": "200ms"}]
        assert await asked.fetch("show lock_timeout") == [{"lock_timeout": "30s"}]
    finally:
        await asked.close()


async def test_card_learns_what_foreign_keys_and_triggers_would_do(served: TestBroker) -> None:
    estimate, _ = await estimate_of(served, "delete from owners where id = 1")
    assert estimate.cascades == [
        "public.pets: deleted with public.owners (on delete cascade)",
        "public.visits: changed with public.pets (on delete set null)",
    ]
    assert estimate.triggers == [
        "public.owners: late on delete runs public.notes_it, perhaps at the end of the transaction",
        "public.visits: told on update runs public.notes_it",
        "public.visits_early: told on update runs public.notes_it",
    ]
    estimate, _ = await estimate_of(served, "update owners set id = 3 where id = 1")
    assert estimate.cascades == ["public.pets: changed with public.owners (on update cascade)"]
    assert estimate.triggers == []
    estimate, _ = await estimate_of(served, "insert into owners values (1)")
    assert (estimate.cascades, estimate.triggers) == ([], [])
    (said, *_) = served.recorder.of("hold.estimated")
    assert said["cascades"][0].startswith("public.pets")


async def test_a_rule_may_allow_what_the_planner_expects_few_rows_of(served: TestBroker, postgres: Server) -> None:
    count = "select count(*) from notes where body = 'few'"
    async with await psycopg.AsyncConnection.connect(served.ticket(role="sized").dsn(), autocommit=True) as connection:
        for threshold in (None, 0):
            connection.prepare_threshold = threshold
            text = "update notes set body = 'few' where id <= %s"
            await connection.execute(text, (50,))
            with pytest.raises(
                psycopg.errors.InsufficientPrivilege, match=r"the planner expects 9\d\d rows, and at most 100"
            ):
                await connection.execute(text, (950,))
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="nobody can say how many rows this is about"):
            await connection.execute("delete from checked where id = 1")
        connection.prepare_threshold = None
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="nobody can say"):
            await connection.execute("delete from notes where id = 1; delete from notes where id = 2")
    assert postgres.execute(count, "shop") == [(50,)]
    entries = [entry for entry in served.recorder.entries if entry.type == "statement.explained"]
    assert len(entries) == 4
    assert "few" not in str(entries[0].data)
    assert entries[0].detail["sql"] == "EXPLAIN update notes set body = 'few' where id <= $1"


async def test_what_the_planner_expects_more_rows_of_may_be_asked_about(served: TestBroker) -> None:
    ticket = served.ticket(role="sized")
    _, output, errors = await psql(
        ticket, "select count(*) from notes", "select id from notes", "select id from people"
    )
    assert output == "1000\n"
    assert errors.count("this needs a review by 1 of dbas") == 2  # of people nothing is known: nobody counted it
    assert len(served.recorder.of("hold.opened")) == 2
    # A change of one row leads around no bound on what else comes back.
    status, output, errors = await psql(
        ticket, "with one as (update notes set body = '' where id = 1 returning id) select notes.id from notes"
    )
    assert (status, output) == (1, "")
    assert re.search(r"expects (9\d\d|1000) rows, and at most 100", errors)


async def test_what_only_reads_is_read_again_where_its_connection_was_lost(
    served: TestBroker, postgres: Server
) -> None:
    asked = admin.Admin(endpoint(postgres, "app_write"))
    query = "select 2 as two from pg_sleep(0.3)"
    end = f"select pg_terminate_backend(pid) from pg_stat_activity where query = '{query}' and state = 'active'"

    async def look(fetch: admin.Fetch) -> list[list[int]]:
        return [[*row] for sql in (query, "select 1 as one") for row in await fetch(sql)]

    try:
        reading = asyncio.create_task(asked.snapshot(look))
        await served.until(lambda: bool(postgres.execute(end)))
        assert await reading == [[2], [1]]
        with pytest.raises(UpstreamUnavailable, match="division by zero"):
            await asked.fetch("select 1 / 0")
    finally:
        await asked.close()
