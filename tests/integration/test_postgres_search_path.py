"""A search path that a session sets or begins with: names mean what they do under it, and no masked one moves."""

import asyncio
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from broker.protocols.postgres import codec
from tests.integration.postgres_world import enter, kinds, psql, raw
from tests.integration.schema_world import MASKED, OPEN, connected, let_change, serve
from tests.support.postgres import Server


@pytest.fixture
async def world(postgres: Server, tmp_path: Path) -> tuple[Server, Path]:
    let_change(postgres)
    return postgres, tmp_path


TWO_SCHEMAS = (
    "create view mine as select id from notes where id = 1 and current_schema = 'public'",
    "create view behind as select id from mine where current_schemas(true) is not null",
    "create view plain as select id, body::varchar(9), id::text as t from notes where id = 1",
    "grant select on mine, behind, plain to app",
    "create schema app authorization app_write",
    "create table app.people (id int primary key, ssn text)",
    "insert into app.people values (7, 'clear here')",
    "create table app.notes as select 7 as id, 'app' as body",
    "create function traced() returns trigger language plpgsql as "
    "$$begin insert into log (what) values ('seen'); return new; end$$",
    "create table app.watched (id int)",
    "create trigger t before insert on app.watched for each row execute function traced()",
    "alter table app.people owner to app_write",
    "alter table app.watched owner to app_write",
    "grant usage on schema app to app",
    "grant select on all tables in schema app to app, app_write",
)

BOTH = MASKED.replace('["public.*"]', '["public.*", "app.*"]')


async def test_a_search_path_that_is_set_moves_no_masked_name(world: tuple[Server, Path]) -> None:
    for statement in TWO_SCHEMAS:
        world[0].execute(statement, "shop")
    async with serve(world, BOTH) as broker:
        connection = await connected(broker.ticket())
        prepared = await connection.prepare("select ssn from people order by id limit 1")
        assert await prepared.fetchval() == "***"
        await connection.execute("set search_path to app, public")
        assert await connection.fetchval("show search_path") == "app, public, pg_temp"
        assert await connection.fetchval("select ssn from people where id = 7") == "clear here"
        # Upstream it means the other table by now: what was sent for it then is never run again.
        with pytest.raises(asyncpg.FeatureNotSupportedError, match="cached statement plan"):
            await prepared.fetchval()
        assert await connection.fetchval("select ssn from public.people where id = 1") == "***"
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("set local search_path to public")
        assert await connection.fetchval("select ssn from people where id = 1") == "***"
        await connection.execute("savepoint a")
        await connection.execute("set local search_path to app")
        assert await connection.fetchval("select ssn from people") == "clear here"
        await connection.execute("rollback to a")
        assert await connection.fetchval("select ssn from people where id = 1") == "***"
        await transaction.rollback()
        assert await connection.fetchval("select ssn from people") == "clear here"
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="could mean other tables"):
            await connection.fetch("select public.spent(1)")
        for view in ("mine", "behind"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="could mean other tables"):
                await connection.fetch(f"select * from public.{view}")
        assert await connection.fetchval("select id from public.plain") == 1
        await connection.execute("reset search_path")
        assert await connection.fetchval("select ssn from people where id = 1") == "***"
        assert await connection.fetchval("select id from behind") == 1
        await connection.close()
        texts = ["select set_config('search_path', 'app', true)", "begin; set local search_path = app", "table notes"]
        said = await psql(broker.ticket(), *texts, "rollback", "table notes limit 1")
        assert said == (0, '"app", pg_temp\nBEGIN\nSET\n7|app\nROLLBACK\n1|note 1\n', "")
        code, _, errors = await psql(broker.ticket(), 'set search_path to "$user", public')
        assert code == 1
        assert "name the schema itself" in errors
        with raw(broker.port) as client:
            await asyncio.to_thread(enter, client, broker.ticket())
            run = [codec.bind("", ""), codec.execute("")]
            sent = [codec.parse("", "set search_path to app"), *run, codec.parse("", "select ssn from people"), *run]
            client.send(b"".join([*sent, codec.SYNC]) + codec.query("select ssn from people limit 1"))
            answer = await asyncio.to_thread(client.until, "Z")
            assert b"clear here" in b"".join(frame.body for frame in answer)
            answer = await asyncio.to_thread(client.until, "Z")
            assert b"clear here" in b"".join(frame.body for frame in answer)
            # An error undoes what the same segment has set.
            sent = [codec.parse("", "set search_path to public"), *run, codec.parse("", "select 1/0"), *run]
            client.send(b"".join([*sent, codec.SYNC]) + codec.query("select ssn from people limit 1"))
            assert "E" in kinds(await asyncio.to_thread(client.until, "Z"))
            answer = await asyncio.to_thread(client.until, "Z")
            assert b"clear here" in b"".join(frame.body for frame in answer)


@pytest.mark.parametrize(
    "asked",
    [{"search_path": "app,public"}, {"options": "-c search_path=app,\\ public -cjit=off"}],
    ids=["own", "options"],
)
async def test_a_session_may_begin_with_a_search_path_and_goes_back_to_it(
    world: tuple[Server, Path], asked: dict[str, str]
) -> None:
    for statement in TWO_SCHEMAS:
        world[0].execute(statement, "shop")
    async with serve(world, BOTH) as broker:
        pool = await asyncpg.create_pool(**broker.ticket().asyncpg(), min_size=1, max_size=1, server_settings=asked)
        async with pool.acquire() as connection:
            reported = [] if world[0].major < 18 else ['"app", "public", pg_temp', "public, pg_temp"]
            assert getattr(connection.get_settings(), "search_path", None) in (reported[:1] or [None])
            assert await connection.fetchval("show search_path") == '"app", "public", pg_temp'
            for back in (None, "reset search_path", "reset all", "set search_path to default"):
                if back is not None:
                    await connection.execute("set search_path to public")
                    assert getattr(connection.get_settings(), "search_path", None) in (reported[1:] or [None])
                    assert await connection.fetchval("select ssn from people where id = 1") == "***"
                    await connection.execute(back)
                assert await connection.fetchval("select ssn from people") == "clear here"
                assert await connection.fetchval("select ssn from public.people where id = 1") == "***"
                with pytest.raises(asyncpg.InsufficientPrivilegeError, match="could mean other tables"):
                    await connection.fetch("select public.spent(1)")
            async with connection.transaction():
                await connection.execute("set local search_path to public")
                assert await connection.fetchval("select body from notes where id = 1") == "note 1"
            assert await connection.fetchval("select body from notes") == "app"
            await connection.execute("set search_path to public")
        async with pool.acquire() as connection:
            assert await connection.fetchval("select body from notes") == "app"
        await pool.close()
        texts = ["set search_path to public", "discard all", "table notes"]
        assert (await psql(broker.ticket(), *texts, options="-csearch_path=app"))[:2] == (
            0,
            "SET\nDISCARD ALL\n7|app\n",
        )
        first = broker.recorder.of("statement.allowed")[0]
        assert (first["verb"], first["text"], first["rules"]) == (
            "SET",
            'SET search_path TO "app", "public"',
            ["reads"],
        )
        assert first["statement"] == broker.recorder.of("statement.finished")[0]["statement"]
        assert [entry.type for entry in broker.recorder.entries[:2]] == ["session.opened", "statement.allowed"]
        connection = await connected(broker.ticket())
        assert await connection.fetchval("select ssn from people where id = 1") == "***"
        await connection.close()


AT_LOGINS = (
    "create function at_login() returns event_trigger language plpgsql as 'begin end'",
    "create event trigger at_login on login execute function at_login()",
)


def begun_with(path: str) -> str:
    """The option that asks for a path, with a backslash before each space, as a connection string has it."""
    return "'-csearch_path=" + path.replace(" ", r"\\ ") + "'"


async def test_a_search_path_that_nobody_may_set_is_none_to_begin_with(world: tuple[Server, Path]) -> None:
    for statement in TWO_SCHEMAS:
        world[0].execute(statement, "shop")
    async with serve(world, BOTH) as broker:
        for value in ('"$user", public', "pg_temp, app", "app, pg_catalog", "pg_toast"):
            _, _, set_to = await psql(broker.ticket(), f"set search_path to {value}")
            told = set_to.partition("airlock: ")[2].splitlines()
            denied = broker.recorder.of("statement.denied")[-1]
            status, _, errors = await psql(broker.ticket(), "select 1", options=begun_with(value))
            assert status == 2
            assert errors.partition("FATAL:  airlock: ")[2].splitlines() == told
            again = broker.recorder.of("statement.denied")[-1]
            assert {**again, "statement": "", "text": ""} == {**denied, "statement": "", "text": ""}
            assert broker.recorder.of("session.refused")[-1]["reason"] == "its search path"
        if world[0].major >= 17:
            for statement in AT_LOGINS:
                world[0].execute(statement, "shop")
            _, _, errors = await psql(broker.ticket(), "select 1", options="-csearch_path=app")
            assert "code that runs at each login would look its names up in it" in errors
            assert (await psql(broker.ticket(), "select 1"))[:2] == (0, "1\n")
            world[0].execute("alter function at_login() set search_path to public", "shop")
            assert (await psql(broker.ticket(), "select 1", options="-csearch_path=app"))[:2] == (0, "1\n")
        policy = broker.policies.current.model_dump(mode="json")
        policy["statements"][0]["effects"] = ["read"]
        broker.policies.current = type(broker.policies.current).model_validate(policy)
        _, _, errors = await psql(broker.ticket(), "select 1", options="-csearch_path=app")
        assert "airlock: changing session settings is not allowed" in errors
        asked = {"decision": "ask", "reviewers": [{"count": 1, "groups": ["dbas"]}]}
        policy["statements"][0] |= {"effects": ["session"], **asked}
        broker.policies.current = type(broker.policies.current).model_validate(policy)
        _, _, errors = await psql(broker.ticket(), "select 1", options="-csearch_path=app")
        assert "airlock: this needs a review by" in errors
        assert "connect without a search path, then SET search_path" in errors
        await broker.until(lambda: not broker.live.sessions)


async def test_a_migration_sets_the_path_that_it_works_in(world: tuple[Server, Path]) -> None:
    for statement in TWO_SCHEMAS:
        world[0].execute(statement, "shop")
    async with serve(world, OPEN) as broker:
        ticket = broker.ticket(role="write")
        url = sa.URL.create(
            "postgresql+asyncpg", ticket.user, ticket.password, "127.0.0.1", ticket.port, ticket.database
        )
        engine = create_async_engine(url, connect_args={"ssl": ticket.asyncpg()["ssl"]})
        async with engine.begin() as connection:
            await connection.execute(sa.text("set search_path to app"))
            await connection.execute(sa.text("create table made (id serial primary key, x text)"))
            await connection.execute(sa.text("insert into made (x) values ('one')"))
            assert (await connection.execute(sa.text("select x from made"))).scalar() == "one"
            names = await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names())
            assert "made" in names
        async with engine.begin() as connection:
            with pytest.raises(sa.exc.DBAPIError, match="under another search path"):
                await connection.execute(sa.text("insert into watched values (1)"))
        await engine.dispose()
        begun = {"ssl": ticket.asyncpg()["ssl"], "server_settings": {"search_path": "app"}}
        engine = create_async_engine(url, connect_args=begun, pool_pre_ping=True)
        for _ in range(2):
            async with engine.begin() as connection:
                assert (await connection.execute(sa.text("select x from made"))).scalar() == "one"
                assert await connection.run_sync(lambda sync: sa.inspect(sync).default_schema_name) == "app"
        await engine.dispose()
        dumped = "select pg_catalog.set_config('search_path', '', false)"
        said = await psql(broker.ticket(role="write"), dumped, "select x from app.made", "reset all", "table log")
        assert said == (0, "pg_catalog, pg_temp\none\nRESET\n", "")
    assert world[0].execute("select x from app.made", "shop") == [("one",)]


async def test_an_approval_holds_for_the_path_that_it_was_given_under(world: tuple[Server, Path]) -> None:
    for statement in TWO_SCHEMAS:
        world[0].execute(statement, "shop")
    async with serve(world, OPEN) as broker:
        connection = await connected(broker.ticket(role="ask"))
        await connection.execute("set search_path to app")
        running = asyncio.create_task(connection.execute("create table held (id int)"))
        held = await broker.held()
        assert held.relations == ["app.held"]
        assert held.text.startswith("-- under search_path = app\n")
        await broker.answer(held)
        await running
        await connection.close()
    assert world[0].execute("select to_regclass('app.held')::text", "shop") == [("app.held",)]
