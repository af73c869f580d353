"""`currval` and `lastval` where fields are masked: the number that a session was given, of columns in clear."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from tests.integration.postgres_world import connected, endpoint, make_world, psql
from tests.support.broker import POLICY, TestBroker, serving
from tests.support.postgres import Server
from tests.support.require import missing, require_program

MORE = """
  - {id: orders-fields, resource: prod-db, relation: public.orders, clear: [id, item], masks: {code: hide}}
"""
TABLES = (
    "create table orders (id serial primary key, item text, code bigserial)",
    "grant select, insert on orders to app_write",
    "grant usage on all sequences in schema public to app_write",
)
READ_BACK = [
    "select currval('log_id_seq')",
    "select pg_catalog.currval('public.\"log_id_seq\"'::regclass)",
    "select currval(pg_get_serial_sequence('log', 'id'))",
    "select currval(pg_get_serial_sequence('public.log'::text, 'id')::regclass)",
]


@pytest.fixture
async def served(postgres: Server, tmp_path: Path) -> AsyncIterator[TestBroker]:
    write = endpoint(postgres, "app_write")
    made = ("create table tickets (id serial primary key, what text)", "grant select, insert on tickets to app_write")
    read = make_world(postgres, *made, "grant usage on all sequences in schema public to app_write")
    async with serving(tmp_path, read, write=write) as broker:
        yield broker


@pytest.fixture
async def numbered(postgres: Server, tmp_path: Path) -> AsyncIterator[TestBroker]:
    """Serve where a sequence numbers a masked column, and another one a clear one."""
    write = endpoint(postgres, "app_write")
    async with serving(tmp_path, make_world(postgres, *TABLES), policy=POLICY + MORE, write=write) as broker:
        yield broker


async def test_the_number_of_a_row_just_inserted_is_read_back(served: TestBroker) -> None:
    async with await connected(served.ticket(role="write")) as connection:
        await connection.execute("insert into log (what) values ('a')")
        await connection.execute("insert into log (what) values ('b')")
        for sql in (*READ_BACK, "select lastval()", "select pg_catalog.lastval() as id"):
            assert await (await connection.execute(sql)).fetchone() == (2,), sql
        await connection.execute("insert into notes (id, body) values (currval('log_id_seq') + 1e6, 'of log')")


PERL = """
use DBI;
my $source = "dbi:Pg:dbname=$ENV{DB};host=127.0.0.1;port=$ENV{PORT};sslmode=require";
my $line = DBI->connect($source, $ENV{NAME}, $ENV{SECRET}, {RaiseError => 1});
$line->do("insert into tickets (what) values ('perl')");
print $line->last_insert_id(undef, undef, "tickets", undef);
"""
PHP = """
$source = "pgsql:host=127.0.0.1;port=".getenv("PORT").";dbname=".getenv("DB").";sslmode=require";
$line = new PDO($source, getenv("NAME"), getenv("SECRET"), [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION]);
$line->exec("insert into tickets (what) values ('php')");
print $line->lastInsertId().$line->lastInsertId("tickets_id_seq");
"""


@pytest.mark.parametrize(
    ("program", "words", "said", "package"),
    [("perl", ("-e", PERL), b"1", "libdbd-pg-perl"), ("php", ("-r", PHP), b"11", "php-cli php-pgsql")],
)
async def test_drivers_that_ask_for_the_last_number_are_told_it(
    served: TestBroker, program: str, words: tuple[str, ...], said: bytes, package: str
) -> None:
    path, ticket = require_program(program, f"apt install {package}"), served.ticket(role="write")
    names = {"DB": ticket.database, "PORT": str(ticket.port), "NAME": ticket.user, "SECRET": ticket.password}
    process = await asyncio.create_subprocess_exec(
        *(path, *words), env=names, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output = (await asyncio.wait_for(process.communicate(), 60))[0]
    if b"Can't locate" in output or b"could not find driver" in output:
        missing(f"no driver for {program}", f"apt install {package}")
    assert output == said


async def test_before_any_number_the_server_says_so(served: TestBroker) -> None:
    _, _, errors = await psql(served.ticket(role="write"), "select lastval()")
    assert "lastval is not yet defined" in errors or "55000" in errors


async def test_the_number_of_a_masked_column_is_not_told(numbered: TestBroker) -> None:
    async with await connected(numbered.ticket(role="write")) as connection:
        await connection.execute("insert into orders (item) values ('a')")
        assert await (await connection.execute("select currval('orders_id_seq')")).fetchone() == (1,)
        for sql in (
            "select currval('orders_code_seq')",
            "select currval('public.orders_code_seq'::regclass::oid)",
            "select currval(pg_get_serial_sequence('orders', 'code'))",
            "select currval(pg_get_serial_sequence('orders', item)) from orders",
            "select currval(('orders_' || 'code_seq')::regclass)",
            "select ('orders_code_seq'::regclass).currval",
            "select currval(to_regclass('orders_code_seq'))",
            "select lastval()",
            "insert into notes (id) values (lastval())",
            "insert into notes (id) values (1), (currval('orders_code_seq'))",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"masked for you|which is not on the list"):
                await connection.execute(sql)


async def test_a_sequence_that_could_number_something_masked_is_not_told(postgres: Server, tmp_path: Path) -> None:
    write = endpoint(postgres, "app_write")
    tables = (
        *TABLES,
        "create sequence loose",
        "alter table orders alter code set default nextval('orders_id_seq')",
        "grant usage on sequence loose to app_write",
    )
    async with serving(tmp_path, make_world(postgres, *tables), policy=POLICY + MORE, write=write) as broker:
        for name in ("loose", "orders_id_seq"):
            _, _, errors = await psql(broker.ticket(role="write"), f"select currval('{name}')")
            assert f"public.{name} belongs to no column alone, so its numbers could be of masked ones" in errors
            assert "INSERT ... RETURNING gives the number that a row got" in errors


async def test_numbers_are_of_what_a_role_covers_and_may_read(postgres: Server, tmp_path: Path) -> None:
    write = endpoint(postgres, "app_write")
    policy = POLICY.replace('write: {credential: "file:x", relations: ["public.*"]}',
                            'write: {credential: "file:x", relations: [public.notes, public.people]}')  # fmt: skip
    async with serving(tmp_path, make_world(postgres), policy=policy, write=write) as broker:
        for sql in ("select currval('log_id_seq')", "select lastval()"):
            assert "public.log is not covered by write" in (await psql(broker.ticket(role="write"), sql))[2]
