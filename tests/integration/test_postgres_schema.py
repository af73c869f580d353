"""Changes of the schema through the broker: by rule, seen by the session that makes them, and by nobody too early."""

import asyncio
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from broker.protocols.postgres import codec
from policies.engine.load import read_texts
from tests.integration.postgres_world import enter, kinds, psql, raw
from tests.integration.schema_world import CODE, MASKED, OPEN, connected, let_change, serve
from tests.support.postgres import Server
from tests.support.require import require_program


@pytest.fixture
async def world(postgres: Server, tmp_path: Path) -> tuple[Server, Path]:
    let_change(postgres)
    return postgres, tmp_path


async def test_a_migration_in_one_transaction_sees_what_it_makes(world: tuple[Server, Path]) -> None:
    async with serve(world, OPEN) as broker:
        connection = await connected(broker.ticket(role="write"))
        async with connection.transaction():
            await connection.execute("create table a (id serial primary key, x text)")
            await connection.execute("create type feeling as enum ('calm')")
            await connection.execute("alter table a add column f feeling default 'calm'")
            assert await connection.fetchval("insert into a (x) values ($1) returning id", "one") == 1
            await connection.execute("alter table a rename to b")
            assert await connection.fetchval("select f::text from b") == "calm"
        await connection.execute("create temp table t as select * from b; insert into t (x) values ('two')")
        assert await connection.fetchval("select count(*) from t join b on true") == 2
        assert await connection.fetchval("select nextval('a_id_seq')") == 2
        with pytest.raises(asyncpg.UndefinedTableError):
            await connection.fetch("select * from a")
        await connection.close()
        made = "begin; create table q (id int); insert into q values (7); commit"
        said = await psql(broker.ticket(role="write"), made, "table q")
        assert said == (0, "BEGIN\nCREATE TABLE\nINSERT 0 1\nCOMMIT\n7\n", "")
    assert world[0].execute("select x from b", "shop") == [("one",)]


async def test_other_sessions_are_decided_under_the_new_schema_at_once(world: tuple[Server, Path]) -> None:
    async with serve(world, MASKED) as broker:
        changing, reading = [await connected(broker.ticket(role=role)) for role in ("write", "read")]
        for at in range(3):
            await changing.execute(f"create table made{at} (id int, ssn text)")
            await changing.execute(f"insert into made{at} values (1, 'mine')")
            await psql(broker.ticket(role="write"), f"comment on table made{at} is 'x'")
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
                await reading.fetch(f"select * from made{at}")  # The upstream's own answer: the broker knows it.
            await changing.execute(f"drop table made{at}")
            with pytest.raises(asyncpg.UndefinedTableError, match="does not exist"):
                await reading.fetch(f"select * from made{at}")
        await changing.close()
        await reading.close()


async def test_under_masks_nothing_is_read_between_a_change_and_its_commit(world: tuple[Server, Path]) -> None:
    async with serve(world, MASKED) as broker:
        ticket = broker.ticket(role="write")
        connection = await connected(ticket)
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("alter table notes add column extra int")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="changed earlier in this transaction"):
            await connection.fetch("select * from people")
        await transaction.rollback()
        assert await connection.fetchval("select ssn from people where id = 1") == "***"
        await connection.execute("create table copied as select * from people")
        assert {row["ssn"] for row in await connection.fetch("select * from copied")} == {"***"}
        await connection.close()
        with raw(broker.port) as client:
            await asyncio.to_thread(enter, client, ticket)
            # The end of an earlier segment comes while a change is on its way in the next.
            sent = [codec.parse("", "select 1"), codec.bind("", ""), codec.execute(""), codec.SYNC]
            sent += [codec.parse("", "alter table notes add column more int"), codec.bind("", ""), codec.execute("")]
            client.send(b"".join(sent))
            await asyncio.to_thread(client.until, "Z")
            client.send(codec.parse("", "select * from people") + codec.bind("", "") + codec.execute("") + codec.SYNC)
            answer = await asyncio.to_thread(client.until, "Z")
            assert "E" in kinds(answer)
            assert "D" not in kinds(answer)
    assert world[0].execute("select count(*) from pg_attribute where attname in ('extra', 'more')", "shop") == [(0,)]


async def test_a_held_change_is_shown_and_runs_as_it_was_shown(world: tuple[Server, Path]) -> None:
    async with serve(world, OPEN) as broker:
        connection = await connected(broker.ticket(role="ask"))
        create = "create table held (id int default 42)"
        running = asyncio.create_task(connection.execute(create))
        held = await broker.held()
        assert (held.text, held.effects, held.relations) == (create, ["ddl"], ["public.held"])
        assert world[0].execute("select to_regclass('held')::text", "shop") == [(None,)]
        await broker.answer(held)
        await running
        assert world[0].execute("select to_regclass('held')::text", "shop") == [("held",)]
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="administering"):
            await connection.execute("vacuum")
        await connection.close()


async def test_code_of_users_is_defined_and_called_where_a_rule_is_about_all_of_it(world: tuple[Server, Path]) -> None:
    define = "create function twice(int) returns int language sql as 'select 2 * $1'"
    async with serve(world, OPEN) as broker:
        connection = await connected(broker.ticket(role="write"))
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="no rule lets it"):
            await connection.execute(define)
        await connection.close()
    async with serve(world, OPEN + CODE) as broker:
        connection = await connected(broker.ticket(role="write"))
        async with connection.transaction():
            await connection.execute(define)
            assert await connection.fetchval("select twice(4)") == 8
            await connection.execute("create function seen() returns trigger language plpgsql as "
                                     "$$begin new.what = new.what || '!'; return new; end$$")  # fmt: skip
            await connection.execute("create trigger seen before insert on log for each row execute function seen()")
            assert await connection.fetchval("insert into log (what) values ('x') returning what") == "x!"
        assert await connection.fetchval("select twice(5)") == 10
        await connection.close()


def migrate(connection: sa.Connection) -> None:
    """What a migration does, in Alembic's words."""
    with MigrationContext.configure(connection).begin_transaction():
        change = Operations(MigrationContext.configure(connection))
        change.create_table(
            "author",
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("name", sa.String(50), nullable=False, server_default="nobody", comment="as printed"),
            sa.Column("kind", sa.Enum("person", "group", name="author_kind")),
            sa.CheckConstraint("name <> ''", name="named"),
            comment="who wrote",
        )
        change.create_table(
            "book",
            sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
            sa.Column("author_id", sa.Integer, sa.ForeignKey("author.id", ondelete="CASCADE")),
            sa.Column("title", sa.Text, sa.Computed("'the book'", persisted=True)),
        )
        change.create_index(
            "by_name", "author", [sa.text("lower(name)")], unique=True, postgresql_where=sa.text("id > 0")
        )
        change.add_column("book", sa.Column("year", sa.Integer, server_default=sa.text("2000")))
        change.alter_column("author", "name", type_=sa.String(80))
        change.execute("create view titles as select title, name from book join author on author.id = author_id")
        change.execute("insert into author (name, kind) values ('Ann', 'person')")


def reflected(connection: sa.Connection) -> dict[str, object]:
    """Everything that SQLAlchemy's inspector tells."""
    look, found = sa.inspect(connection), {}
    for name in ("columns", "pk_constraint", "foreign_keys", "indexes", "unique_constraints", "check_constraints",
                 "table_comment", "table_options"):  # fmt: skip
        found[name] = repr(sorted(getattr(look, f"get_multi_{name}")(kind=sa.engine.reflection.ObjectKind.ANY).items()))
    found["views"] = {view: look.get_view_definition(view) for view in look.get_view_names()}
    found["names"] = (look.get_schema_names(), look.get_table_names(), look.get_sequence_names(), look.get_enums())
    metadata = sa.MetaData()
    metadata.reflect(connection, views=True)
    found["reflected"] = sorted(str(sa.schema.CreateTable(table)) for table in metadata.tables.values())
    return found


async def told(engine: AsyncEngine) -> dict[str, object]:
    async with engine.connect() as connection:
        found = await connection.run_sync(reflected)
    await engine.dispose()
    return found


async def test_alembic_migrates_and_sqlalchemy_reflects_as_it_does_directly(world: tuple[Server, Path]) -> None:
    server = world[0]
    async with serve(world, OPEN) as broker:
        ticket = broker.ticket(role="write").asyncpg()
        engine = create_async_engine("postgresql+asyncpg://", connect_args=ticket)
        async with engine.begin() as connection:
            await connection.run_sync(migrate)
        through = await told(engine)
    url = sa.make_url(server.url("shop", "app_write").replace("postgresql:", "postgresql+asyncpg:"))
    assert through == await told(create_async_engine(url))
    assert server.execute("select name from author", "shop") == [("Ann",)]


DUMPED = """
SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = on;
CREATE FUNCTION public.counted() RETURNS bigint LANGUAGE sql STABLE AS 'select count(*) from public.zoo';
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE public.zoo (id integer NOT NULL, what text);
CREATE MATERIALIZED VIEW public.stocked AS SELECT zoo.what FROM public.zoo WITH NO DATA;
COPY public.zoo (id, what) FROM stdin;
1\towl
\\.
ALTER TABLE ONLY public.zoo ADD CONSTRAINT zoo_pkey PRIMARY KEY (id);
"""
"""What pg_dump writes, shortened: the function's body names what comes behind it."""


async def test_a_range_of_a_type_of_ones_own_is_made_where_all_code_is_let(world: tuple[Server, Path]) -> None:
    for policy, made in ((OPEN + CODE, (0, "f\n", "")), (OPEN, (1, "", "no rule lets it be called"))):
        world[0].execute("drop type if exists public.span", "shop")
        async with serve(world, OPEN + CODE) as broker:
            assert (await psql(broker.ticket(role="write"), "create type span as range (subtype = text)"))[0] == 0
        async with serve(world, policy) as broker:
            status, output, errors = await psql(broker.ticket(role="write"), "select isempty(span('a', 'b'))")
            assert (status, output) == made[:2]
            assert made[2] in errors


async def test_a_dump_is_restored(world: tuple[Server, Path]) -> None:
    async with serve(world, OPEN + CODE) as broker:
        ticket = broker.ticket(role="write")
        said = await psql(ticket, r"\set ON_ERROR_STOP 1", r"\i /dev/stdin", stdin=f"BEGIN;\n{DUMPED}COMMIT;\n")
        assert said[::2] == (0, "")
        assert (await psql(ticket, "select counted()"))[1] == "1\n"
        # From 17 on the server has a search path of its own for what refreshing, vacuuming and indexing run.
        upkeep = ("vacuum (analyze) public.zoo", "reindex table public.zoo", "refresh materialized view public.stocked")
        status, _, errors = await psql(ticket, "select set_config('search_path', '', false)", *upkeep)
        assert (status == 0) == (world[0].major >= 17), errors


async def test_code_that_copying_or_refreshing_runs_is_under_the_rules_about_code(world: tuple[Server, Path]) -> None:
    postgres = world[0]
    made = (
        "alter table notes enable row level security",
        "create function noticed(id int) returns bool language sql"
        " as $$ insert into public.log (what) values ('read ' || id); select true $$",
        "create policy seen on notes for select to app_write using (noticed(id))",
        "alter table notes force row level security",
        "create materialized view kept as select noticed(1) as seen",
        "create materialized view plain as select what from log",
        "alter materialized view kept owner to app_write",
        "alter materialized view plain owner to app_write",
        "truncate log",
    )
    for text in made:
        postgres.execute(text, "shop")
    run = "copy notes to stdout", "copy notes (id) to stdout", "refresh materialized view kept"
    async with serve(world, OPEN) as broker:
        ticket = broker.ticket(role="write")
        for sql in (*run, "select id from notes"):
            assert "code of this database's own" in (await psql(ticket, sql))[2], sql
        assert (await psql(ticket, "refresh materialized view plain"))[0] == 0
        assert (await psql(ticket, "copy log to stdout"))[0] == 0
    assert postgres.execute("select count(*) from log", "shop") == [(0,)]
    async with serve(world, OPEN + CODE) as broker:
        for sql in run:
            assert (await psql(broker.ticket(role="write"), sql))[0] == 0, sql


CASTS = (
    "create function shown(int) returns text stable language sql as 'select ssn from public.people where id = $1'",
    "create cast (int as text) with function shown(int) as implicit",
)
SORTS = (
    "create schema sorting",
    "create function shown(json, json) returns int immutable language sql as 'select 0'",
    *(
        f"create function sorting.f{at}(json, json) returns bool immutable language sql as 'select true'"
        for at in range(5)
    ),
    *(
        f"create operator sorting.{name} (leftarg = json, rightarg = json, function = sorting.f{at})"
        for at, name in enumerate("< <= = >= >".split())
    ),
    "create operator class sorting.of_json default for type json using btree as operator 1 sorting.<, "
    "operator 2 sorting.<=, operator 3 sorting.=, operator 4 sorting.>=, operator 5 sorting.>, "
    "function 1 shown(json, json)",
)


@pytest.mark.parametrize(
    ("made", "texts"),
    [
        (CASTS, ("select upper(1)", "select id from notes where body ~ id", "select trim(id) from people")),
        (SORTS, ("select to_json(id) from notes order by 1", "select distinct to_json(1)", "select id from notes")),
    ],
)
async def test_what_nobody_writes_is_under_the_rules_about_its_functions(
    world: tuple[Server, Path], made: tuple[str, ...], texts: tuple[str, ...]
) -> None:
    named = "  - {id: unwritten, decision: allow, roles: [write], functions: [public.shown, 'sorting.*']}\n"
    for text in made:
        world[0].execute(text, "shop")
    async with serve(world, MASKED) as broker:
        for policy, lets in ((MASKED, False), (MASKED.replace("fields:", f"{named}fields:"), True)):
            broker.policies.current = read_texts({"test.yaml": policy})
            for sql in texts:
                status, _, errors = await psql(broker.ticket(role="write"), sql)
                assert (status == 0) == lets, errors
                assert lets or "is of this database's own, and no rule lets it be called" in errors


@pytest.mark.parametrize("words", [(), ("--analyze",), ("--analyze-in-stages",), ("--table=notes", "--table=log")])
async def test_vacuumdb_goes_through_every_table(world: tuple[Server, Path], words: tuple[str, ...]) -> None:
    program = require_program("vacuumdb", "apt install postgresql-client")
    async with serve(world, OPEN) as broker:
        ticket = broker.ticket(role="write")
        process = await asyncio.create_subprocess_exec(
            *(program, *words, "--maintenance-db", ticket.dsn(), "--dbname", ticket.dsn()),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said = (await asyncio.wait_for(process.communicate(), 60))[0].decode()
    newer = world[0].major >= 17
    assert (process.returncode == 0) == newer, said
    assert newer or "vacuumdb and the like, which set one, pass on servers from 17 on" in said


async def test_a_temporary_table_and_what_a_transaction_has_made_say_what_to_do_where_fields_are_masked(
    world: tuple[Server, Path],
) -> None:
    async with serve(world, MASKED) as broker:
        ticket = broker.ticket(role="write")
        _, _, errors = await psql(ticket, "create temp table t as select id, name from people")
        assert "its columns are in no catalogue" in errors
        assert "CREATE TABLE ... AS without TEMPORARY keeps what you see" in errors
        # As pandas does, and dbt.
        _, _, errors = await psql(ticket, "begin", "create table made (id int)", "insert into made values (1)")
        assert "the schema was changed earlier in this transaction" in errors
        assert "COMMIT first, or use autocommit" in errors
        made = ("create table made as select id, name, ssn from people", "create index on made (id)", "table made")
        status, output, errors = await psql(ticket, *made)
        assert (status, errors) == (0, "")
        assert "Ann" in output
        assert "123-45" not in output
