"""Masking judged by two worlds: what a reader sees never depends on a masked value; on two servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from broker.sql.catalogue import Catalogue
from broker.sql.inspect import inspect, tripwire
from broker.sql.model import Refusal
from broker.sql.paths import confirmed
from broker.sql.sight import sights
from policies.engine.decisions import HIDE, Effect, FieldView, Mask, MaskKind, RelationFields
from tests.support.catalogue import load_catalogue, read_catalogue
from tests.support.postgres import CASES, Server, load_world, running_server

ID = frozenset({"id"})
DOCUMENT = Mask(MaskKind.KEYS, show=("name", "address.city", "tags", "open.*"))
FIELDS: FieldView = {
    "public.customers": RelationFields(clear=ID | {"name"}),
    "public.part": RelationFields(clear=ID),
    "public.staff": RelationFields(clear=ID | {"badge"}),
    "public.gone": RelationFields(clear=ID),
    'public.Upper "Case"': RelationFields(clear=ID),
    "public.parted": RelationFields(clear=ID | {"region"}),
    "public.bykey": RelationFields(clear=ID),
    "public.gen": RelationFields(clear=ID, masks={"ssn": HIDE, "known": HIDE}, others=None),
    "public.cadre": RelationFields(clear=ID | {"rank"}),
    "public.v_own": RelationFields(clear=ID),
    "public.docs": RelationFields(clear=ID, masks={"profile": DOCUMENT}),
    "public.own_types": RelationFields(clear=ID),
    "public.spokes": RelationFields(clear=ID | {"hub"}),
    "public.baskets": RelationFields(clear=ID | {"label"}),
    "public.ranked": RelationFields(clear=ID | {"tag", "note"}, masks={"code": Mask(MaskKind.PARTIAL, tail=4)}),
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

    def reveal(self, sql: str) -> object:
        """What a reader gets whose reveals are all approved, without the revealed outputs themselves."""
        answer = self.run(sql)
        if not isinstance(answer, list):
            return answer
        hidden = {position for position, _, _ in inspect(sql, self.catalogue, FIELDS).revealed}
        return [
            (status, [[None if at in hidden else value for at, value in enumerate(row)] for row in rows])
            for status, rows in answer
        ]

    def write(self, sql: str) -> object:
        """What a writer gets whose writes are allowed; nothing stays. Errors are rebuilt where fields are masked."""
        return self._run(sql, self.writer, CHANGES - {Effect.WRITE})

    def alter(self, sql: str, fields: FieldView = FIELDS, but: tuple[str, ...] = ()) -> object:
        """What whoever may change the schema gets, and then sees of every table, within one transaction.

        `but` is what a rule lets nobody read.
        """
        covers = ("public.*", "evil.*", "closed.*")
        try:
            inspection = inspect(sql, self.catalogue, fields, covers=covers, but=but)
        except Refusal as refusal:
            return "refused", refusal.rule
        if refusals := [one.refusal.rule for one in inspection.statements if one.refusal]:
            return "refused", refusals
        if any((one.facts.relations | one.facts.through) & set(but) for one in inspection.statements):
            return "refused", "rule"
        with self.server.connect("world", autocommit=False, prepare_threshold=None) as owner:
            try:
                owner.execute("set search_path = public, pg_temp")
                said = self._rows(inspection.rewritten, owner)
                catalogue = read_catalogue(owner)
                changed = {name for one in inspection.statements for name in one.facts.writes} | {"public.customers"}
                changed -= set(but)
                for name in sorted(changed):
                    text = f"select * from {name}"
                    if catalogue.relation(*name.split(".")) is not None:
                        again = inspect(text, catalogue, fields, covers=covers, but=but).rewritten
                        said.append((name, self._rows(again, owner)))
                return said
            except psycopg.Error as error:
                return "error", error.sqlstate
            finally:
                owner.rollback()

    def under(self, path: str, sql: str) -> object:
        """What a writer gets who has set a search path before."""
        setting = inspect(f"set search_path = {path}", self.catalogue, FIELDS).rewritten
        self.writer.execute(setting.encode())
        return self._run(sql, self.writer, CHANGES - {Effect.WRITE})

    def _run(self, sql: str, connection: psycopg.Connection[Any], denied: set[Effect]) -> object:
        (shown,) = connection.execute("show search_path").fetchone() or ("",)
        path = confirmed(shown)
        assert path is not None, shown
        try:
            inspection = inspect(sql, self.catalogue, FIELDS, path=None if path == ("public",) else path)
        except Refusal as refusal:
            return "refused", refusal.rule
        for statement in inspection.statements:
            if statement.refusal or statement.facts.effects & denied:
                return "refused", statement.refusal.rule if statement.refusal else "effects"
            if statement.writable or any(not call.schema for call in statement.facts.calls):
                return "refused", "default-function"
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
            connection.execute("reset search_path")

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
    # At the start, as the broker pins them: RESET ALL brings them back. Parallel workers would answer in any order.
    pins = "-c search_path=public,pg_temp -c max_parallel_workers_per_gather=0"
    reading = f"{pins} -c default_transaction_read_only=on"
    connection = server.connect("world", "lvl_read", prepare_threshold=None, options=reading)
    writer = server.connect("world", "lvl_write", prepare_threshold=None, options=pins)
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
    with customers as (select * from customers), orders as (select * from orders) select note from customers, orders
    with recursive customers as (select 1 as id union all select id + 1 from customers where id < 3) table customers
    with pg_class as (select 'mine' as relname) select * from pg_class
    select * from json_to_recordset('[{"a": 1}]') as x(a int, b text)
    select s.leak from (select id as leak from customers) s limit 1
    select leak, t.bump from typed t
    select note, short from typed
    select 'x'::short::text
    with v_clear as (select 1 as x) select x from v_clear
    with recursive v_clear as (select 1 as x union all select x + 1 from v_clear where x < 3) select * from v_clear
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
    select id, tax_id, e from v_cust order by id limit 3
    select * from v_keyed where id < 3
    select * from v_window where id < 4 order by id
    select * from v_cte where id < 4
    select * from v_tree
    select * from v_sub where id < 3
    select * from v_using
    select * from v_whole where id = 1
    select * from v_classes
    select * from v_of_mv limit 1
    select * from v_where
    select * from parted_1n
    select * from v_gen
    select * from officer
    select * from docs
    select profile, n from v_docs
    select * from own_types
""".strip().split("\n")


BASE_TYPES = """
    smallint integer bigint numeric numeric(6,2) real float8 money boolean text varchar varchar(2) char(8) "char" name
    bytea date time timetz timestamp timestamptz interval uuid json jsonb inet cidr macaddr macaddr8 point line lseg box
    path polygon circle bit(3) varbit tsvector tsquery int4range numrange tstzrange int4multirange oid regclass xid8
    pg_lsn text[] integer[] jsonb[]
""".split()


def every_mask_decodes(world: World, relation: str) -> None:
    """Read a relation under every mask, as text and as binary: the same types, and rows that decode."""
    for kind in MaskKind:
        fields = {f"public.{relation}": RelationFields(clear=ID, others=Mask(kind, 4, "7"))}
        sql = inspect(f"select * from {relation}", load_catalogue(world.server, "world"), fields).rewritten
        for binary in (False, True):
            cursor = world.connection.cursor(binary=binary)
            cursor.execute(sql.encode())
            plain = world.connection.cursor(binary=binary).execute(f"select * from {relation} limit 0".encode())
            types = [(column.type_code, column._fmod) for column in cursor.description or []]
            assert types == [(column.type_code, column._fmod) for column in plain.description or []]
            assert len(cursor.fetchall()) > 0


def test_every_base_type_has_every_mask_in_text_and_in_binary(worlds: tuple[World, World]) -> None:
    columns = ", ".join(f"c{at} {name}" for at, name in enumerate(BASE_TYPES))
    for world in worlds:
        owner = world.server.connect("world")
        owner.execute(f"create table if not exists public.every_type (id int, {columns})".encode())
        owner.execute("insert into every_type (id) values (1)")
        owner.execute("grant select on every_type to lvl_read")
    every_mask_decodes(worlds[0], "every_type")


def test_every_kind_of_users_types_has_every_mask_in_text_and_in_binary(worlds: tuple[World, World]) -> None:
    every_mask_decodes(worlds[0], "own_types")


def test_a_document_shows_its_keys_and_nothing_else(worlds: tuple[World, World]) -> None:
    found = worlds[0].run("select id, profile from docs order by id")
    assert isinstance(found, list)
    shown = dict(found[0][1])
    assert shown[1] == {"name": "name1", "address": {"city": "c1"}, "tags": None, "open": {"a": {"b": 1}}}
    assert (shown[4], shown[5], shown[6]) == (None, None, None)
    assert shown[7] == {"name": None, "address": None, "tags": None, "open": 3}


def test_no_change_of_the_schema_tells_two_worlds_apart(worlds: tuple[World, World]) -> None:
    passed = 0
    for line in CASES.with_name("ddl.sql").read_text().splitlines():
        if line[:2] == "--":
            continue
        left, right = (world.alter(line) for world in worlds)
        assert repr(left) == repr(right), line
        passed += isinstance(left, list)
    assert passed > 10


def test_no_change_of_the_schema_tells_of_what_a_rule_lets_nobody_read(worlds: tuple[World, World]) -> None:
    but = ("public.customers", "public.part", "public.staff")
    lines = [line for line in CASES.with_name("ddl.sql").read_text().splitlines() if line[:2] != "--"]
    found = {}
    # Half of them on each server, for there are many.
    for line in lines[worlds[0].server.major % 2 :: 2]:
        found[line] = tuple(world.alter(line, {}, but) for world in worlds)
    assert [line for line, (left, right) in found.items() if repr(left) != repr(right)] == []
    assert sum(isinstance(left, list) for left, _ in found.values()) > 2
    for denied in ("alter table customers add column x int", "drop table kid", "create table evil.v_cust (id int)"):
        assert worlds[0].alter(denied, {}, but) in (("refused", ["ddl-masked"]), ("refused", "ddl-masked")), denied


OF_SESSIONS = {
    "select * from pg_stat_activity",
    "select query from pg_stat_activity where pid <> pg_backend_pid()",
    "select * from pg_stat_ssl",
}
"""Whoever runs them, their sessions' own pids and times are among the rows, and as many rows as there are sessions."""


def test_no_statement_of_the_corpus_tells_two_worlds_apart(worlds: tuple[World, World]) -> None:
    tried = [(case, sql) for case, sql, _ in texts() if sql not in OF_SESSIONS]
    told_apart = [(case, sql) for case, sql in tried if repr(worlds[0].run(sql)) != repr(worlds[1].run(sql))]
    assert told_apart == [], "\n".join(map(str, told_apart))


def test_no_write_of_the_corpus_tells_two_worlds_apart(worlds: tuple[World, World]) -> None:
    untimed = [(case, sql) for case, sql, _ in texts() if case != "PG-050.04" and sql not in OF_SESSIONS]
    told_apart = [(case, sql) for case, sql in untimed if repr(worlds[0].write(sql)) != repr(worlds[1].write(sql))]
    assert told_apart == [], "\n".join(map(str, told_apart))


def test_no_search_path_that_is_set_tells_two_worlds_apart(worlds: tuple[World, World]) -> None:
    """The schema `evil` has a view `orders` of the masked fields, an `upper` and a `+` of its own."""
    untimed = [
        sql for case, sql, _ in texts() if case != "PG-050.04" and sql not in OF_SESSIONS and "_size(" not in sql
    ]
    found = {}
    # Half of them on each server, for there are many.
    for sql in untimed[worlds[0].server.major % 2 :: 2]:
        found[sql] = tuple(world.under("evil, public", sql) for world in worlds)
    told_apart = [sql for sql, (left, right) in found.items() if repr(left) != repr(right)]
    assert told_apart == [], "\n".join(told_apart)
    assert sum(isinstance(left, list) for left, _ in found.values()) > 50
    assert "'***'" in repr(worlds[0].under("evil", "select note from orders"))


@pytest.mark.parametrize(
    ("sql", "reached"),
    [
        ("delete from owners where id = 1", "parcels parcels_1 pets toys"),
        ("delete from pets where id = 1", "toys"),
        ("delete from toys where id = 1", ""),
        ("update owners set town = 'x' where id = 1", ""),
        ("update owners set code = 2 where id = 1", "pets"),
        ("update owners set (town, code) = ('x', 2) where id = 1", "pets"),
        ("update pets set id = 2 where id = 1", "toys"),
        ("insert into owners values (1, 2, 'x')", ""),
        ("insert into owners values (1, 2, 'x') on conflict (id) do update set code = 3", "pets"),
        ("insert into owners values (1, 2, 'x') on conflict (id) do update set town = 'x'", ""),
        ("merge into owners o using pets p on p.id = o.id when matched then update set code = 1", "pets"),
        ("merge into owners o using pets p on p.id = o.id when matched then delete", "parcels parcels_1 pets toys"),
        ("merge into owners o using pets p on p.id = o.id when matched then do nothing", ""),
        (
            "with x as (delete from owners where id = 1 returning id) select * from x",
            "parcels parcels_1 pets toys",
        ),
        ("explain delete from pets where id = 1", "toys"),
        ("delete from v_owners where id = 1", "parcels parcels_1 pets toys"),
        ("update v_owners set number = 1 where id = 1", "pets"),
        ("select id from owners", ""),
    ],
)
def test_what_foreign_keys_have_follow_is_a_fact(worlds: tuple[World, World], sql: str, reached: str) -> None:
    (statement,) = inspect(sql, worlds[0].catalogue, FIELDS).statements
    assert statement.facts.reaches == {f"public.{name}" for name in reached.split()}


@pytest.mark.parametrize(
    "sql",
    [
        "insert into customers (id, name, ssn) values (9001, 'x', 'y') returning *",
        "insert into customers (id, name) values (1, '') on conflict (id) do update set name = 'x' returning *",
        "update customers c set name = 'x' where id = 1 returning c.id, c.ssn, c.salary as s",
        "delete from customers where id = 3 returning customers.*",
        "update v_checked set name = 'x' where id = 1 returning *",
    ],
)
def test_returning_gives_masked_fields_masked(worlds: tuple[World, World], sql: str) -> None:
    left, right = (world.write(sql) for world in worlds)
    assert isinstance(left, list)
    assert "***" in repr(left)
    assert repr(left) == repr(right)


@pytest.mark.parametrize(
    ("sql", "views"),
    [
        ("drop table docs cascade", "v_docs"),
        ("drop table docs", ""),
        ("drop view v_cust cascade", "v2 v_nested"),
        ("alter table docs drop column plain cascade", "v_docs"),
        ("alter table docs drop column plain", ""),
        ("drop schema evil cascade", ""),
    ],
)
def test_views_that_go_with_what_is_dropped_are_a_fact(worlds: tuple[World, World], sql: str, views: str) -> None:
    (statement,) = inspect(sql, worlds[0].catalogue, {}, covers=("*.*",)).statements
    found = statement.facts.through - statement.facts.writes
    assert found >= {f"public.{name}" for name in views.split()}
    assert views or not found


def test_sequences_and_indexes_are_known_by_their_tables(worlds: tuple[World, World]) -> None:
    catalogue = worlds[0].catalogue
    for sql in ("select nextval('numbered_id_seq')", "select setval('numbered_other_seq', 2)"):
        (statement,) = inspect(sql, catalogue, FIELDS).statements
        assert statement.facts.writes == {"public.numbered"}
    assert inspect("select nextval('s1')", catalogue, FIELDS).statements[0].facts.writes == {"public.s1"}
    (statement,) = inspect('drop index "an odd ""index""", ix_lit', catalogue, {}, covers=("*.*",)).statements
    assert statement.facts.writes == {"public.numbered", "public.orders"}


ORDERED = """
    select code from ranked limit 2
    select code from only ranked limit 3
    select id from ranked
    select id from only ranked limit 1
    select id, code from ranked where id > 5 limit 3
    select tag from only ranked limit 3
    select string_agg(tag, ' ') from ranked
    select row_number() over (), tag from ranked
    select distinct on (id > 100) id, code from ranked
    select code from ranked_kid limit 2
    select id from ranked_kid limit 3
    select id, code from mv_ranked limit 4
    select id from (select * from only ranked) r limit 2
    select id from (select * from only ranked where tag <> '') r limit 2
    with r as (select id from ranked) select * from r limit 2
    select o.id, r.code from orders o cross join lateral (select code from ranked limit 1) r
    copy ranked (code) to stdout
    declare c cursor for select id from ranked
    select count(*) from ranked
    select * from ranked limit 2
""".strip().split("\n")


def test_no_order_of_rows_that_an_index_gives_tells_two_worlds_apart(worlds: tuple[World, World]) -> None:
    for world in worlds:
        world.server.execute("vacuum analyze ranked", "world")
        world.server.execute("vacuum analyze ranked_kid", "world")
        world.server.execute("vacuum analyze mv_ranked", "world")
        world.connection.execute("set enable_seqscan = off")
    raw = [world._rows("select code from only ranked limit 3", world.connection) for world in worlds]
    assert raw == [
        world._rows("select code from only ranked order by code limit 3", world.connection) for world in worlds
    ]
    found = [[repr(world.run(line.strip())) for line in ORDERED] for world in worlds]
    for world in worlds:
        world.connection.execute("reset enable_seqscan")
    assert found[0] == found[1]
    assert not any("refused" in one for one in found[0])


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


LINEAGE = {
    "v_cust": {"tax_id": "by lineage from public.customers.ssn", "e": "by lineage from public.customers.email"},
    "v_nested": dict.fromkeys(("tax", "u"), "by lineage from public.v2.t"),
    "mv_cust": {"ssn": "by lineage from public.customers.ssn"},
    "v_all": {"x": "by lineage from public.customers.ssn"},
    "v_keyed": {"ssn": "by lineage from public.customers.ssn"},
    "v_window": {"r": "by lineage from public.customers.ssn", "k": "by lineage from public.customers.email"},
    "v_sub": dict.fromkeys(("s", "e"), "by lineage from public.customers.ssn")
    | {"a": "by lineage from public.customers.salary"},
    "v_tree": {"ssn": "by lineage from public.customers.ssn"},
    "v_lateral": {"k": "by lineage from public.customers.ssn"},
    "v_whole": dict.fromkeys(("whole", "doc"), "by lineage from public.customers.dob"),
    "v_case": {"w": "by lineage from public.customers.salary", "m": "by lineage from public.customers.email"},
    "v_group": {},
    "v_clear": {},
    "v_where": {},
    "v_classes": {"reltuples": "by lineage from pg_catalog.pg_class.reltuples"},
    "v_kid": dict.fromkeys(("ssn", "email", "dob", "salary"), "") | {"ssn": "by lineage from public.kid.ssn"},
    "parted_2": {"ssn": "by the rules of public.parted"},
    "kid": {"ssn": "by the rules of public.customers"},
    "officer": {"oath": "by the rules of public.cadre"},
    "people": {"ssn": "by the rules of public.staff"},
    "gen": {"loud": "generated from public.gen.ssn"},
}


@pytest.mark.parametrize("name", LINEAGE)
def test_what_is_masked_of_a_relation_and_why(worlds: tuple[World, World], name: str) -> None:
    catalogue = worlds[0].catalogue
    sight = sights(catalogue, FIELDS).of(catalogue.relations["public", name])
    assert sight.problem == ""
    assert set(LINEAGE[name]) <= set(sight.masks)
    if name.startswith(("v", "mv")):
        assert set(sight.masks) == set(LINEAGE[name])
    assert {column: why for column, why in LINEAGE[name].items() if why} == {
        column: sight.why[column] for column, why in LINEAGE[name].items() if why
    }


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        *(
            (name, "relation-rows")
            for name in ("v_rich", "v_ordered", "v_limited", "v_union", "v_distinct", "v_grouped")
        ),
        *((name, "relation-rows") for name in ("v_chars", "v_series", "v_joined", "bykey", "bykey_7", "v_bykey")),
        *((name, "relation-kind") for name in ("v_vol", "v_bump", "v_sleep", "v_locking", "v_stats")),
    ],
)
def test_views_that_would_tell_or_do_something_are_refused(worlds: tuple[World, World], name: str, rule: str) -> None:
    assert worlds[0].run(f"select * from {name}") == ("refused", rule)


def test_rules_of_a_views_own_may_show_what_lineage_would_mask(worlds: tuple[World, World]) -> None:
    def seen(sql: str, **rules: object) -> str:
        view: FieldView = {**FIELDS, "public.v_rich": RelationFields(**{"clear": ID | {"name"}, "rows": True} | rules)}
        return inspect(sql, worlds[0].catalogue, view).rewritten

    assert seen("select id from v_rich") == "select id from v_rich"
    with pytest.raises(Refusal, match=r"follows public\.customers\.salary"):
        seen("select id from v_rich", rows=False)
    view: FieldView = {**FIELDS, "public.v_cust": RelationFields(clear=frozenset({"e"}), others=None)}
    rewritten = inspect("select * from v_cust", worlds[0].catalogue, view).rewritten
    assert """t."id", ('***')::pg_catalog.text AS "tax_id", t."e" FROM""" in rewritten


def test_a_mask_goes_with_a_bare_column_through_views(worlds: tuple[World, World]) -> None:
    partial: FieldView = {"public.customers": RelationFields(clear=ID, masks={"ssn": Mask(MaskKind.PARTIAL, 4)})}
    rewritten = inspect("select t from v2", worlds[0].catalogue, partial).rewritten
    with worlds[0].server.connect("world") as connection:
        assert connection.execute(f"{rewritten} order by 1 limit 1".encode()).fetchone() == ("***0001",)


def test_no_masked_column_of_a_view_or_partition_can_be_attested(worlds: tuple[World, World]) -> None:
    catalogue = worlds[0].catalogue
    wires = tripwire(catalogue, FIELDS)
    for name in ("v_cust", "mv_cust", "kid", "parted_1n", "v_gen"):
        relation = catalogue.relations["public", name]
        masks = sights(catalogue, FIELDS).of(relation).masks
        assert {(relation.oid, each.attnum) for each in relation.columns if each.name in masks} < wires


REVEALED = """
    select id, airlock.reveal(ssn) from customers where id = 1
    select "airlock"."reveal"("ssn"), id from public.customers where id < 3 order by id
    select airlock.reveal(c.ssn) as x, c.ssn, upper(c.ssn), c.email from customers c order by c.id limit 3
    select airlock.reveal(c.ssn), o.note from customers c join orders o on o.customer_id = c.id order by o.id limit 5
    select airlock.reveal(ssn), count(*) over (order by ssn), rank() over (order by email, id) from customers
    select airlock.reveal(ssn), id from customers order by upper(ssn), id limit 2
    select airlock.reveal(a.ssn), airlock.reveal(a.email), b.ssn from customers a join customers b using (id)
    select airlock.reveal(ssn) from customers limit (select length(min(ssn)) from customers)
    select airlock.reveal(ssn), id from customers where id in (select id from customers where ssn not like '7%')
    select airlock.reveal(ssn), id from customers where ssn < '8' or email ~ 'a' order by id
    select airlock.reveal(c.ssn) from customers c left join orders o on o.note = c.ssn order by c.id, o.id limit 3
    select airlock.reveal(c.ssn) from only customers c tablesample bernoulli (100) repeatable (3) where id = 1
    with x as (select id, ssn from customers) select airlock.reveal(c.ssn), x.ssn from customers c join x using (id)
""".strip().split("\n")
NEVER_REVEALED = """
    select airlock.reveal(ssn) from customers order by ssn limit 2
    select airlock.reveal(ssn) as s from customers order by s limit 2
    select airlock.reveal(ssn) from customers order by 1 limit 2
    select distinct airlock.reveal(ssn) from customers
    select distinct on (id) airlock.reveal(ssn) from customers
    select upper(airlock.reveal(ssn)) from customers
    select airlock.reveal(ssn)::text from customers
    select airlock.reveal(ssn) || '' from customers
    select case when true then airlock.reveal(ssn) end from customers
    select string_agg(airlock.reveal(ssn), ',') from customers
    select airlock.reveal(ssn) over () from customers
    select airlock.reveal(distinct ssn) from customers
    select airlock.reveal(ssn, 1) from customers
    select airlock.reveal(upper(ssn)) from customers
    select airlock.reveal(*) from customers
    select airlock.reveal(customers.*) from customers
    select airlock.reveal(customers) from customers
    select airlock.reveal(public.customers.ssn) from customers
    select airlock.reveal(id) from customers
    select airlock.reveal(nothing) from customers
    select id from customers where airlock.reveal(ssn) = '731-55-0001'
    select id from customers order by airlock.reveal(ssn)
    select count(*) from customers group by airlock.reveal(ssn)
    select airlock.reveal(ssn) from customers group by id
    select airlock.reveal(ssn) from customers for update
    select * from (select airlock.reveal(ssn) from customers) x
    select (select airlock.reveal(ssn) from customers limit 1)
    select airlock.reveal(x.ssn) from (select ssn from customers) x
    with x as (select airlock.reveal(ssn) as s from customers) select s from x
    select airlock.reveal(ssn) from customers union all select '1'
    (select airlock.reveal(ssn) from customers) except select '1'
    select *, airlock.reveal(ssn) from customers
    select airlock.reveal(ssn), c from customers c
    select airlock.reveal(ssn), to_jsonb(c) from customers c
    select airlock.reveal(ssn), c::text from customers as c(a, b, c)
    select airlock.reveal(c.ssn) from customers c, orders o where exists (select c)
    select airlock.reveal(ssn) from customers c, orders o
    select airlock.reveal(a.ssn) from customers a natural join customers b
    select airlock.reveal(j.ssn) from (customers a join orders o on o.id = a.id) as j
    select airlock.reveal(ssn), airlock_reveal_3 from customers
    select airlock.reveal(ssn), c.airlock_reveal_3 from customers c
    select airlock.reveal(ssn), airlock_reveal_3(c) from customers c
    select airlock.reveal(c.ssn) from customers c cross join lateral (select c.airlock_reveal_3 as y) z
    select airlock.reveal(c.ssn) from customers c where exists (select 1 where airlock_reveal_3 like '7%')
    select airlock.reveal(a.ssn) from customers a join customers b using (airlock_reveal_3)
    select airlock.reveal(ssn) from customers; select 1
    insert into orders (note) select airlock.reveal(ssn) from customers
    update orders set note = (select airlock.reveal(ssn) from customers limit 1)
    delete from orders returning airlock.reveal(note)
    create table x as select airlock.reveal(ssn) from customers
    select airlock.reveal(ssn) into x from customers
    copy (select airlock.reveal(ssn) from customers) to stdout
    declare c cursor for select airlock.reveal(ssn) from customers
    explain analyze select airlock.reveal(ssn) from customers
    prepare p as select airlock.reveal(ssn) from customers
    values (airlock.reveal('x'))
    select airlock.reveal(ssn)
    select airlock.other(ssn) from customers
""".strip().split("\n")


@pytest.mark.parametrize("sql", [line.strip() for line in REVEALED])
def test_reveal_shows_its_own_output_in_clear_and_nothing_else(worlds: tuple[World, World], sql: str) -> None:
    left, right = worlds
    clear = [world.run(sql) for world in worlds]
    assert isinstance(clear[0], list), clear
    assert clear[0] != clear[1]
    assert left.reveal(sql) == right.reveal(sql)


@pytest.mark.parametrize("sql", [line.strip() for line in NEVER_REVEALED])
def test_reveal_is_refused_where_more_than_its_output_could_depend_on_it(worlds: tuple[World, World], sql: str) -> None:
    answers = {str(world.run(sql)) for world in worlds}
    assert len(answers) == 1
    assert "refused" in answers.pop()


SEARCHED: FieldView = {
    **FIELDS,
    "public.customers": RelationFields(clear=ID | {"name"}, searches={"ssn": 10, "email": 10}),
}
FOUND = """
    select * from customers where ssn = '{ssn}'
    select id, ssn, upper(ssn) from customers c where '{ssn}' = c.ssn and id > 0
    select count(*), min(ssn) from customers where (ssn = '{ssn}') and (id > 0 and name <> 'x')
    select to_jsonb(c), o.id from customers c join orders o on o.customer_id = c.id where c.ssn = '{ssn}' order by 2
    select distinct id from only customers where ssn = '{ssn}' order by id
    select c.id from orders o, customers c where c.ssn = '{ssn}' and o.customer_id = c.id group by c.id order by c.id
""".strip().split("\n")
NOT_SEARCHED = """
    select id from customers where ssn = '{ssn}' or id = 1 order by id
    select id from customers where not ssn = '{ssn}' order by id
    select id from customers where ssn <> '{ssn}' order by id
    select id from customers where ssn in ('{ssn}') order by id
    select id from customers where ssn = any (array['{ssn}']) order by id
    select id from customers where ssn like '{ssn}' order by id
    select id from customers where ssn = '{ssn}' || '' order by id
    select id from customers where upper(ssn) = '{ssn}' order by id
    select id from customers where (ssn = '{ssn}') is true order by id
    select id from customers where case when ssn = '{ssn}' then true end order by id
    select id from customers where ssn = '{ssn}' and email = 'x' order by id
    select id from customers where ssn = '{ssn}' and ssn = '{ssn}' order by id
    select id from customers where ssn = (select '{ssn}') order by id
    select id from customers group by id having min(ssn) = '{ssn}' order by id
    select id, ssn = '{ssn}' from customers order by id
    select count(*) filter (where ssn = '{ssn}') from customers
    select id from customers where exists (select from customers d where d.ssn = '{ssn}') order by id
    select id from (select id, ssn from customers) c where ssn = '{ssn}' order by id
    with c as (select id, ssn from customers where ssn = '{ssn}') select id from c order by id
    select id from customers where ssn = '{ssn}' union all select 1
    select o.id from orders o left join customers c on c.id = o.customer_id where c.ssn = '{ssn}' order by 1
    select o.id from orders o join customers c on c.ssn = '{ssn}' order by 1 limit 3
    select c.id from customers c join (values ('{ssn}')) v (x) on true where c.ssn = v.x order by 1
    select a.id from customers a, customers b where ssn = '{ssn}' order by 1
    select id from customers tablesample bernoulli (100) repeatable (1) where ssn = '{ssn}' order by id
    select id from customers as c (id, name, ssn) where ssn = '{ssn}' order by id
    select id from customers where salary = 1 order by id
    select 1; select id from customers where ssn = '{ssn}' order by id
    copy (select id from customers where ssn = '{ssn}') to stdout
    declare c cursor for select id from customers where ssn = '{ssn}'
    prepare p as select id from customers where ssn = '{ssn}'
    explain select id from customers where ssn = '{ssn}'
    update orders set note = 'x' from customers c where c.ssn = '{ssn}'
    delete from orders using customers c where c.ssn = '{ssn}'
""".strip().split("\n")


def raw_ssn(world: World, id_: int) -> str:
    return str(world.server.execute(f"select ssn from customers where id = {id_}", "world")[0][0])


@pytest.mark.parametrize("sql", [line.strip() for line in FOUND])
def test_search_finds_the_rows_of_one_clear_value_and_shows_them_masked(worlds: tuple[World, World], sql: str) -> None:
    for world in worlds:
        there, absent = (inspect(sql.format(ssn=ssn), world.catalogue, SEARCHED) for ssn in (raw_ssn(world, 1), "none"))
        assert there.searches == (("public.customers.ssn", 10),)
        found, nothing = (world._rows(each.rewritten, world.connection) for each in (there, absent))
        by_id = sql.replace("'{ssn}' = c.ssn", "c.id = 1").replace("c.ssn = '{ssn}'", "c.id = 1")
        same = world.run(by_id.replace("ssn = '{ssn}'", "id = 1"))
        assert found == same
        assert found != nothing


@pytest.mark.parametrize("sql", [line.strip() for line in NOT_SEARCHED])
def test_what_is_no_plain_equality_still_compares_masked_values(worlds: tuple[World, World], sql: str) -> None:
    asked = sql.format(ssn=raw_ssn(worlds[0], 1))
    answers: list[object] = []
    for world in worlds:
        try:
            found = inspect(asked, world.catalogue, SEARCHED)
        except Refusal as refusal:
            answers.append(refusal.rule)
            continue
        assert found.searches == ()
        plain = inspect(asked, world.catalogue, FIELDS)
        assert found.rewritten == plain.rewritten
        answers.append(world.run(asked))
    assert answers[0] == answers[1]
