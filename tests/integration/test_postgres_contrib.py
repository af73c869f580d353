"""Extensions behind a broker: what drivers load, what a rule lets be called, what is estimated."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import psycopg
import pytest
from psycopg.types import TypeInfo
from psycopg.types.hstore import register_hstore

from tests.integration.postgres_world import connected, endpoint, make_world, psql
from tests.support.broker import POLICY, TestBroker, serving
from tests.support.postgres import Server
from workflows.reviews import Answer
from workflows.wire import EstimateView

MORE = (
    "create extension hstore",
    "create extension citext",
    "create extension pg_trgm",
    "create extension tablefunc",
    "create extension pg_buffercache",
    "create view cached as select count(*) from pg_buffercache",
    "create function one() returns int volatile language sql as 'select 1'",
    "create view ones as select one()",
    "create table docs (id int primary key, words text, author citext, attrs hstore)",
    "insert into docs select g, 'word ' || g, 'Author' || g, hstore('n', g::text) from generate_series(1, 50) g",
    "create index on docs using gin (words gin_trgm_ops)",
    "create index on docs using gin (attrs)",
    "analyze docs",
    "alter table people add email citext default 'ann@mail.org', add attrs hstore default 'ssn=>1'",
    "create function lies(text, text) returns bool immutable language plpgsql as "
    "$$ begin raise log 'lies ran'; return true; end $$",
    "create operator === (leftarg = text, rightarg = text, function = lies)",
    "create function lied(text) returns hstore immutable language plpgsql as "
    "$$ begin raise log 'lies ran'; return ''; end $$",
    "grant select on docs to app",
    "grant select on ones to app_write",
    "grant select, insert, update, delete on docs to app_write",
)
WILD = POLICY.replace('["public.spent(integer)", "public.spent(text)", public.told]', "['public.*']")
CLEAR = POLICY.partition("fields:")[0].replace(
    "statements:",
    "statements:\n  - {id: code, decision: ask, roles: [ask],"
    " effects: [read, write], functions: ['*.*'], reviewers: {count: 1, groups: [dbas]}}\n"
    "  - {id: sets, decision: ask, roles: [ask], effects: [write], functions: [public.crosstab],"
    " reviewers: {count: 1, groups: [dbas]}}",
)


@pytest.fixture
async def served(postgres: Server, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[TestBroker]:
    read, write = make_world(postgres, *MORE), endpoint(postgres, "app_write")
    policy = getattr(request, "param", POLICY)
    async with serving(tmp_path, read, policy=policy, write=write, ask=write, sized=write, few=read) as broker:
        yield broker


async def test_drivers_load_their_types_and_get_masked_values_of_them(served: TestBroker) -> None:
    async with await connected(served.ticket()) as connection:
        for name in ("hstore", "citext"):
            info = await TypeInfo.fetch(connection, name)
            assert info is not None
            info.register(connection)
            if name == "hstore":
                register_hstore(info, connection)
        for binary in (False, True):
            cursor = await connection.execute("select email, attrs from people", binary=binary)
            # This driver leaves binary values of types that it knows by name alone as they are.
            assert set(await cursor.fetchall()) == {(b"***" if binary else "***", None)}
            cursor = await connection.execute("select author::text, attrs from docs where id = 1", binary=binary)
            assert await cursor.fetchone() == ("Author1", {"n": "1"})
        cursor = await connection.execute("select id from docs where author = %s and attrs ? %s", ("AUTHOR2", "n"))
        assert await cursor.fetchall() == [(2,)]
    driver = await asyncpg.connect(**served.ticket().asyncpg())
    await driver.set_builtin_type_codec("hstore", codec_name="pg_contrib.hstore")
    assert await driver.fetchval("select attrs from docs where attrs @> $1", {"n": "3"}) == {"n": "3"}
    assert set(await driver.fetch("select email, attrs from people")) == {("***", None)}
    await driver.close()
    status, output, errors = await psql(served.ticket(), r"\dx", r"\df similarity", r"\dT", r"\d docs", r"\d people")
    assert (status, errors) == (0, "")
    assert "similarity|real|text, text|func" in output
    assert "email|citext" in output


@pytest.mark.parametrize("served", [WILD], indirect=True)
async def test_a_rule_with_a_star_has_no_text_run_as_a_query(served: TestBroker) -> None:
    async with await connected(served.ticket(role="few")) as connection:
        assert await (await connection.execute("select spent('a'), similarity('a', 'b')")).fetchone() == ("A", 0.0)
        for text in (
            "crosstab('select id::text, name, ssn from people') as c (a text, b text)",
            "connectby('people', 'ssn', 'name', 'Ann', 1) as c (a text, b text, level int)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="to by a text") as found:
                await connection.execute(f"select * from {text}".encode())
            assert "FILTER" in (found.value.diag.message_hint or "")


async def estimate_of(served: TestBroker, text: str, values: tuple[str, ...] = ()) -> EstimateView:
    """Have a statement held and refused, and return what its reviewers were told."""
    before = len(served.recorder.of("hold.estimated"))
    async with await connected(served.ticket(role="ask")) as connection:
        running = asyncio.create_task(connection.execute(text.encode(), values or None))
        await served.until(lambda: len(served.recorder.of("hold.estimated")) > before)
        hold = await served.held(before + 1)
        await served.answer(hold, Answer.DENY)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await running
    assert hold.estimate is not None
    return hold.estimate


@pytest.mark.parametrize("served", [CLEAR], indirect=True)
async def test_planner_is_not_asked_where_an_operator_or_a_cast_could_run_code(
    served: TestBroker, postgres: Server
) -> None:
    before = postgres.log.read_text().count("lies ran")
    for text, through in {
        "delete from docs where 'a'::text === 'b'::text": "operator ===",
        "delete from docs where 'a' operator(public.===) 'b'": "operator public.===",
        "delete from docs where lied('a') ? 'b'": "lied",
        "select * from crosstab('select 1') as c (a text)": "crosstab",
    }.items():
        estimate = await estimate_of(served, text)
        assert (estimate.rows, estimate.why) == (None, f"planning could run {through}")
    assert postgres.log.read_text().count("lies ran") == before


@pytest.mark.parametrize("served", [CLEAR], indirect=True)
async def test_a_view_calls_no_function_in_c_that_no_rule_names(served: TestBroker) -> None:
    async with await connected(served.ticket(role="ask")) as connection:
        for text in ("select count(*) from pg_buffercache", "select * from cached", "table pg_buffercache"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="pg_buffercache_pages") as found:
                await connection.execute(text.encode())
            assert "`functions: [public.pg_buffercache_pages()]`" in (found.value.diag.message_hint or "")
        running = asyncio.create_task(connection.execute("select * from ones"))
        await served.answer(await served.held())
        assert await (await running).fetchall() == [(1,)]


async def test_tables_with_their_types_and_indexes_are_estimated(served: TestBroker) -> None:
    cases: list[tuple[str, tuple[str, ...]]] = [
        ("delete from docs where author = 'author1' and id <= 50", ()),
        ("delete from docs where attrs ? 'n' and words % 'word'", ()),
        ("delete from docs where similarity(words, 'word') > 0.1 and replace(words, 'a', 'b') <> ''", ()),
        ("delete from docs where author = %s and attrs @> %s", ("AUTHOR1", "n=>1")),
        ("delete from docs where author = any(%s)", ("{author1,author2}",)),
    ]
    for text, values in cases:
        estimate = await estimate_of(served, text, values)
        assert (estimate.why, estimate.rows is not None) == ("", True), text
    async with await connected(served.ticket(role="sized")) as connection:
        cursor = await connection.execute("select max(id), max(author) from docs where author <> %s", ("x",))
        assert await cursor.fetchone() == (50, "Author9")
