"""Masking judged by two worlds: what a reader sees never depends on a masked value; on two servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from broker.sql.catalogue import Catalogue
from broker.sql.inspect import inspect
from broker.sql.model import Refusal
from policies.engine.decisions import Effect, FieldView, Mask, MaskKind, RelationFields
from tests.support.catalogue import load_catalogue
from tests.support.postgres import CASES, Server, load_world, running_server

ID = frozenset({"id"})
FIELDS: FieldView = {
    "public.customers": RelationFields(clear=ID | {"name"}),
    "public.part": RelationFields(clear=ID),
    "public.staff": RelationFields(clear=ID | {"badge"}),
    "public.gone": RelationFields(clear=ID),
    'public.Upper "Case"': RelationFields(clear=ID),
}
CHANGES = {Effect.WRITE, Effect.DDL, Effect.ADMIN}
OBJECTS = CASES.with_name("masking_objects.sql")


@dataclass
class World:
    server: Server
    catalogue: Catalogue
    connection: psycopg.Connection[Any]
    writer: psycopg.Connection[Any]

    def run(self, sql: str) -> object:
        """What a reader gets: a refusal's rule, rows, or an error without its position."""
        return self._run(sql, self.connection, CHANGES)

    def write(self, sql: str) -> object:
        """What a writer gets whose writes are allowed; nothing stays. Errors are rebuilt where fields are masked."""
        return self._run(sql, self.writer, CHANGES - {Effect.WRITE})

    def _run(self, sql: str, connection: psycopg.Connection[Any], denied: set[Effect]) -> object:
        try:
            inspection = inspect(sql, self.catalogue, FIELDS)
        except Refusal as refusal:
            return "refused", refusal.rule
        for statement in inspection.statements:
            if statement.refusal or statement.facts.effects & denied:
                return "refused", statement.refusal.rule if statement.refusal else "effects"
        try:
            if connection is self.writer:
                connection.execute("begin")
            return self._rows(inspection.rewritten, connection)
        except psycopg.Error as error:
            if connection is self.writer and inspection.scrub:
                return "error", error.sqlstate
            return "error", error.sqlstate, error.diag.message_primary, error.diag.message_detail
        finally:
            connection.execute("rollback")
            connection.execute("deallocate all")

    def _rows(self, sql: str, connection: psycopg.Connection[Any]) -> list[object]:
        cursor = connection.cursor()
        if sql.lower().startswith("copy"):
            with cursor.copy(sql.encode()) as copy:
                return [bytes(chunk) for chunk in copy]
        cursor.execute(sql.encode())
        found: list[object] = []
        while True:
            found.append((cursor.statusmessage, cursor.fetchall() if cursor.description else None))
            if not cursor.nextset():
                return found


@pytest.fixture(scope="module", params=["wheel", "debian"])
def worlds(request: pytest.FixtureRequest) -> Iterator[tuple[World, World]]:
    # Two servers, so that oids and transaction ids are the same in both.
    with running_server(request.param) as left, running_server(request.param) as right:
        yield _world(left, "A"), _world(right, "B")


def _world(server: Server, name: str) -> World:
    load_world(server, "world", name)
    done = server.psql(OBJECTS, "world")
    assert done.returncode == 0, done.stderr
    connection, writer = (server.connect("world", level, prepare_threshold=None) for level in ("lvl_read", "lvl_write"))
    for each in (connection, writer):
        each.execute("set search_path = public, pg_temp")
        each.execute("set max_parallel_workers_per_gather = 0")  # Workers answer in any order.
    connection.execute("set default_transaction_read_only = on")
    return World(server, load_catalogue(server, "world"), connection, writer)


def texts() -> list[tuple[str, str, str]]:
    cases = [json.loads(line) for line in CASES.read_text().splitlines()]
    texts = [
        (case["id"], op[1] if op[0] == "Q" else op[2], case["expect"])
        for case in cases
        for op in case["ops"]
        if op[0] in "QP"
    ]
    lines = (CASES.with_name("masking.sql")).read_text().splitlines()
    return texts + [(f"masking.sql:{at}", line, "SAME") for at, line in enumerate(lines, 1) if line[:2] != "--"]


HONEST = """
    select * from json_to_recordset('[{"a": 1}]') as x(a int, b text)
    select s.leak from (select id as leak from customers) s limit 1
    select leak, t.bump from typed t
    select note, short from typed
    select 'x'::short::text
    with v_cust as (select 1 as x) select x from v_cust
    with recursive v_cust as (select 1 as x union all select x + 1 from v_cust where x < 3) select * from v_cust
    select pg_size_pretty(pg_total_relation_size('orders')), pg_relation_size('orders', 'main')
    select current_setting('work_mem'), current_setting('work' || '_mem', true)
    select name, setting from pg_settings where name = 'work_mem'
    select count(*) from customers
    select c.id, c.name, c.ssn, count(o.id) from customers c left join orders o on o.customer_id = c.id group by c.id
    select name from customers group by customers.id
    select public.customers.id, orders.note from public.customers join public.orders on orders.id = customers.id
    select * from pg_largeobject_metadata
    show work_mem
    select (information_schema._pg_expandarray(i.indkey)).n from pg_index i where i.indisprimary
    show transaction isolation level
""".strip().split("\n")


BASE_TYPES = """
    smallint integer bigint numeric numeric(6,2) real float8 money boolean text varchar varchar(2) char(8) "char" name
    bytea date time timetz timestamp timestamptz interval uuid json jsonb inet cidr macaddr macaddr8 point line lseg box
    path polygon circle bit(3) varbit tsvector tsquery int4range numrange tstzrange int4multirange oid regclass xid8
    pg_lsn text[] integer[] jsonb[]
""".split()


def test_every_base_type_has_every_mask_in_text_and_in_binary(worlds: tuple[World, World]) -> None:
    columns = ", ".join(f"c{at} {name}" for at, name in enumerate(BASE_TYPES))
    for world in worlds:
        owner = world.server.connect("world")
        owner.execute(f"create table if not exists public.every_type (id int, {columns})".encode())
        owner.execute("insert into every_type (id) values (1)")
        owner.execute("grant select on every_type to lvl_read")
    catalogue = load_catalogue(worlds[0].server, "world")
    for kind in MaskKind:
        fields = {"public.every_type": RelationFields(clear=frozenset({"id"}), others=Mask(kind, 4, "7"))}
        sql = inspect("select * from every_type", catalogue, fields).rewritten
        for binary in (False, True):
            cursor = worlds[0].connection.cursor(binary=binary)
            cursor.execute(sql.encode())
            assert cursor.description is not None
            plain = worlds[0].connection.cursor(binary=binary)
            assert plain.execute(b"select * from every_type limit 0").description is not None
            types = [(column.type_code, column._fmod) for column in cursor.description]
            assert types == [(column.type_code, column._fmod) for column in plain.description or []]
            assert len(cursor.fetchall()) == 1


def test_no_statement_of_the_corpus_tells_two_worlds_apart(worlds: tuple[World, World]) -> None:
    told_apart = [(case, sql) for case, sql, _ in texts() if repr(worlds[0].run(sql)) != repr(worlds[1].run(sql))]
    assert told_apart == [], "\n".join(map(str, told_apart))


def test_no_write_of_the_corpus_tells_two_worlds_apart(worlds: tuple[World, World]) -> None:
    untimed = [(case, sql) for case, sql, _ in texts() if case != "PG-050.04"]
    told_apart = [(case, sql) for case, sql in untimed if repr(worlds[0].write(sql)) != repr(worlds[1].write(sql))]
    assert told_apart == [], "\n".join(map(str, told_apart))


def test_honest_statements_of_the_corpus_run(worlds: tuple[World, World]) -> None:
    honest = [(case, sql) for case, sql, expect in texts() if expect == "ALLOW"]
    assert [(case, sql) for case, sql in honest if not isinstance(worlds[0].run(sql), list)] == []


@pytest.mark.parametrize("sql", HONEST)
def test_honest_statements_run(worlds: tuple[World, World], sql: str) -> None:
    assert isinstance(worlds[0].run(sql), list), worlds[0].run(sql)


def test_statements_with_effects_are_refused_or_leave_nothing(worlds: tuple[World, World]) -> None:
    server = worlds[0].connection
    before = server.execute("select count(*) from audit_log").fetchone()
    for _, sql, _ in texts():
        worlds[0].run(sql)
    assert server.execute("select count(*) from audit_log").fetchone() == before
    assert server.execute("select count(*) from pg_largeobject_metadata").fetchone() == (0,)


def test_whole_rows_and_stars_arrive_masked_not_refused(worlds: tuple[World, World]) -> None:
    for sql in ("select * from customers where id = 1", "select row_to_json(c) from customers c where id = 1"):
        assert "***" in repr(worlds[0].run(sql)), sql
    assert worlds[0].run("select upper(ssn) from customers where id = 1") == [("SELECT 1", [("***",)])]
    assert worlds[0].run("copy (select ssn from customers where id = 1) to stdout") == [b"***\n"]
