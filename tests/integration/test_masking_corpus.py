"""Masking judged by two worlds: what a reader sees never depends on a masked value; on two servers."""

from __future__ import annotations

import pytest

from broker.sql.inspect import inspect, tripwire
from broker.sql.model import Refusal, Terms
from broker.sql.sight import sights
from policies.engine.decisions import FieldView, Mask, MaskKind, RelationFields
from tests.integration.masking_cases import (
    BASE_TYPES,
    HONEST,
    LINEAGE,
    MEASURED,
    OF_SESSIONS,
    ORDERED,
)
from tests.integration.two_worlds import FIELDS, ID, World, texts, worlds
from tests.support.catalogue import load_catalogue
from tests.support.postgres import CASES
from tests.support.require import older_than, skip_where_older

__all__ = ["worlds"]

HONEST_WRITES = CASES.with_name("honest_writes.sql")


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
    types = [name for name in BASE_TYPES if not older_than(name, worlds[0].server.major)]
    columns = ", ".join(f"c{at} {name}" for at, name in enumerate(types))
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


def test_a_database_in_another_encoding_is_known_for_one(worlds: tuple[World, World]) -> None:
    server = worlds[0].server
    server.execute("create database latin encoding 'LATIN1' lc_collate 'C' lc_ctype 'C' template template0")
    assert (load_catalogue(server, "world").utf8, load_catalogue(server, "latin").utf8) == (True, False)


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
        ("update plots set side = 3 where id = 1", "fences"),
        ("update plots set town = '' where id = 1", ""),
        ("select id from owners", ""),
    ],
)
def test_what_foreign_keys_have_follow_is_a_fact(worlds: tuple[World, World], sql: str, reached: str) -> None:
    (statement,) = inspect(sql, worlds[0].catalogue, FIELDS).statements
    assert statement.facts.reaches == {f"public.{name}" for name in reached.split()}


def test_how_foreign_keys_follow_is_a_fact(worlds: tuple[World, World]) -> None:
    (deletes, updates) = inspect(
        "delete from owners; update owners set code = 2", worlds[0].catalogue, FIELDS
    ).statements
    assert deletes.facts.follows >= {"DELETE public.pets"}
    assert updates.facts.follows == {"UPDATE public.pets"}


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
    (statement,) = inspect(sql, worlds[0].catalogue, {}, terms=Terms(covers=("*.*",))).statements
    found = statement.facts.through - statement.facts.writes
    assert found >= {f"public.{name}" for name in views.split()}
    assert views or not found


def test_sequences_and_indexes_are_known_by_their_tables(worlds: tuple[World, World]) -> None:
    catalogue = worlds[0].catalogue
    for sql in ("select nextval('numbered_id_seq')", "select setval('numbered_other_seq', 2)"):
        (statement,) = inspect(sql, catalogue, FIELDS).statements
        assert statement.facts.writes == {"public.numbered"}
    assert inspect("select nextval('s1')", catalogue, FIELDS).statements[0].facts.writes == {"public.s1"}
    (statement,) = inspect(
        'drop index "an odd ""index""", ix_lit', catalogue, {}, terms=Terms(covers=("*.*",))
    ).statements
    assert statement.facts.writes == {"public.numbered", "public.orders"}


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


def test_no_memory_that_explain_measures_tells_how_long_a_field_is(worlds: tuple[World, World]) -> None:
    formats = "", ", verbose, format json"
    texts = [f"explain (analyze, timing off, summary off{more}) {sql}" for sql in MEASURED for more in formats]
    found = [[repr(world.run(sql)) for sql in texts] for world in worlds]
    assert found[0] == found[1]
    assert not any("refused" in one for one in found[0])
    assert "Memory" in repr(found[0])
    for compares in ("where code = '***0001'", "group by code order by code"):
        sql = f"select max(name) from lengths {compares}"
        assert worlds[0].run(f"explain analyze {sql}") == ("refused", "explain")
        assert isinstance(worlds[0].run(f"explain {sql}"), list)
    system = "select s.setting, a.query from pg_settings s, pg_stat_activity a"
    for text, reads in ((f"explain analyze {system}", False), (f"explain {system}", True), (system, True)):
        rewritten = inspect(text, worlds[0].catalogue, FIELDS).rewritten
        assert ('THEN t."setting"' in rewritten, 'THEN t."query"' in rewritten) == (reads, reads)


def test_honest_statements_of_the_corpus_run(worlds: tuple[World, World]) -> None:
    honest = [(case, sql) for case, sql, expect in texts() if expect == "ALLOW"]
    assert [(case, sql) for case, sql in honest if not isinstance(worlds[0].run(sql), list)] == []


@pytest.mark.parametrize("sql", HONEST)
def test_honest_statements_run(worlds: tuple[World, World], sql: str) -> None:
    assert isinstance(worlds[0].run(sql), list), worlds[0].run(sql)


@pytest.mark.parametrize("sql", HONEST_WRITES.read_text().splitlines()[1:])
def test_honest_writes_run_where_they_read_nothing_masked_of_what_they_change(
    worlds: tuple[World, World], sql: str
) -> None:
    skip_where_older(sql, worlds[0].server.major)
    left, right = (world.write(sql) for world in worlds)
    assert isinstance(left, list), left
    assert repr(left) == repr(right)


@pytest.mark.parametrize(
    "sql",
    [
        "select tableoid from bykey",
        "delete from bykey returning id, tableoid::regclass",
        "update bykey b set id = id where b.tableoid = 'bykey_7'::regclass",
        "merge into bykey using orders o on o.id = bykey.id and tableoid = 1 when matched then delete",
        "with gone as (delete from bykey returning tableoid as t) select t from gone",
        "explain analyze select id from bykey where id = 1",
        "explain (analyze, verbose) delete from bykey where id = 1",
    ],
)
def test_in_which_partition_a_row_is_stays_masked_where_rows_are_clear(worlds: tuple[World, World], sql: str) -> None:
    fields = {**FIELDS, "public.bykey": RelationFields(clear=ID, rows=True)}
    with pytest.raises(Refusal, match=r"in which partition of|counts the calls of triggers"):
        inspect(sql, worlds[0].catalogue, fields)
    for passed in ("explain select id from bykey", "delete from bykey where id = 1 returning id"):
        inspect(passed, worlds[0].catalogue, fields)


@pytest.mark.parametrize(
    "sql",
    [
        "delete from v_ranked returning id",
        "update v_ranked set name = name where id < 4",
        "merge into v_ranked v using orders o on o.id = v.id when matched then delete",
    ],
)
def test_rows_of_a_view_are_not_changed_in_the_order_of_a_masked_field(worlds: tuple[World, World], sql: str) -> None:
    """A trigger that changes them has all of the view computed, windows that nobody reads too."""
    with pytest.raises(Refusal, match=r"order in which rows of public.v_ranked are changed follows .*ssn"):
        inspect(sql, worlds[0].catalogue, FIELDS)
    inspect("insert into v_ranked (id) values (1) returning id", worlds[0].catalogue, FIELDS)


@pytest.mark.parametrize("into", ["customers (id)", "spokes (id)", "v_checked (id)", "baskets (id)"])
def test_a_conflict_by_any_field_is_asked_about_where_none_of_them_is_masked(
    worlds: tuple[World, World], into: str
) -> None:
    answer = worlds[0].write(f"insert into {into} values (1) on conflict do nothing")
    assert isinstance(answer, list) if into == "baskets (id)" else answer == ("refused", "write-reads-masked")


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
        *((name, "relation-rows") for name in ("v_kept", "v_twice", "v_arm", "v_first", "v_gathered", "v_volatile")),
        *((name, "relation-rows") for name in ("v_kept_view", "v_arm_view", "v_of_mv_rank", "mv_rank", "mv_rank_view")),
        *((name, "relation-rows") for name in ("mv_gathered", "v_jitter", "v_jitter_view")),
        *((name, "relation-rows") for name in ("v_sorted", "v_top", "v_unlike", "v_many")),
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
