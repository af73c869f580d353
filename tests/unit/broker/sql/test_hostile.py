"""What tries to get around inspection: other names for masked fields, code of users' behind values, and sheer size."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import FrameType

import pytest

from broker.sql.inspect import inspect, tripwire
from broker.sql.library import FULL, ON_THE_SPOT, Costly, scan
from broker.sql.model import Refusal, Terms
from broker.sql.overloads import Overload
from policies.engine.decisions import OwnFunction
from tests.unit.broker.sql.shop import CATALOGUE, FIELDS, refused


def rewritten(sql: str) -> str:
    return inspect(sql, CATALOGUE, FIELDS).rewritten


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ("select ('archive_command'::text).current_setting", "function"),
        ("select (x).total_of from json_populate_record(null::orders, '{}') x, typed", "function"),
        ("select o.total_of from orders o, typed t", "function"),
        ("select ('x'::text).checked", "function"),
        ("select checked('x'::text)", "type"),
        ("select '{x}'::_checked", "type"),
        ("select gen_random_uuid()::uuid", "type"),
        ("select pair from typed", "type"),
        ("select * from typed", "type"),
        ("select json_populate_record(o, '{}') from orders o", "function"),
        ("select * from json_to_record('{}') x(a checked)", "type"),
        ("select current_setting('airlock.secret').x", "syntax"),
        ("show primary_conninfo", "settings"),
        ("show archive_command", "settings"),
        ("delete from people where ssn = ''", "write-reads-masked"),
        ("insert into customers select 1 returning (customers).ssn", "write-reads-masked"),
        ("select a.id from customers a, (select public.customers.id from archive.customers) b", "relation-unknown"),
        ("select fmgr_sql_validator(1)", "function"),
        (
            "update orders set (" + ", ".join(["note"] * 900) + ") = (select " + ", ".join(["id"] * 900) + ")",
            "limit-tree",
        ),
        ("select 1 from " + ", ".join(f"customers a{at}" for at in range(4000)), "limit-masks"),
        ("with " + ", ".join(f"a{at} as (select)" for at in range(900)) + " select", "limit-queries"),
        ("select " + "case when a then " * 200 + "1" + " end" * 200, "limit-nesting"),
        ("select 1" + "::int" * 6000, "limit-nesting"),
        ("select 1" + "+" * 8000, "limit-operators"),
        ("select 1 " + "/**/" * 8000, "limit-operators"),
        (";".join(["select 1"] * (FULL.statements + 1)), "limit-statements"),
    ],
)
def test_ways_around_are_refused(sql: str, rule: str) -> None:
    assert refused(sql).rule == rule


@pytest.mark.parametrize(
    "sql",
    [
        "insert into customers (id, ssn) select id, note as ssn from orders",
        "insert into customers (id) values (1) on conflict (id) do nothing",
        "select s.total_of from (select id as total_of from orders) s",
        "select t.total_of from typed t",
        "with order_totals as (select 1 as x) select x from order_totals",
        "select * from json_to_record('{}') x(a int)",
        "set session characteristics as transaction isolation level serializable, deferrable",
        "select " + ", ".join(["case when true then 1 end"] * 300),
        "merge into orders o using orders p on o.id = p.id when matched then delete returning merge_action()",
    ],
)
def test_honest_statements_pass(sql: str) -> None:
    inspect(sql, CATALOGUE, FIELDS)


@pytest.mark.parametrize(
    "sql",
    [
        "select case 1 when 2 then 3 end",
        "select 1 between 2 and 3",
        "select 1 not between 2 and 3",
        "select 1 in (select 2)",
        "select 1 from orders join archive.orders o using (id)",
        "select 1 from orders natural join archive.orders o",
    ],
)
def test_operators_that_the_grammar_leaves_out_are_checked(sql: str) -> None:
    inspect(sql, CATALOGUE, FIELDS)
    overloaded = replace(CATALOGUE, operators=frozenset({("public", "="), ("public", "<=")}))
    with pytest.raises(Refusal, match="operator"):
        inspect(sql, overloaded, FIELDS)


def test_rows_and_column_names_of_a_join_count_as_every_column() -> None:
    for sql in (
        "select j from (pg_attrdef d cross join orders) j",
        "select b from (pg_attrdef d cross join orders) j(a, b)",
    ):
        assert """WHEN t."adbin" IS NOT NULL THEN '(hidden)' END""" in rewritten(sql), sql


def test_only_columns_that_are_mentioned_are_selected() -> None:
    assert rewritten("select count(*) from customers where id = 1") == (
        'select count(*) from (SELECT t."id" FROM "public"."customers" AS t) AS "customers" where id = 1'
    )


def test_group_by_a_key_groups_by_what_the_key_decides() -> None:
    sql = rewritten("select c.name, c.ssn from customers c join orders o on true group by o.id, c . id order by c.name")
    assert sql.endswith('group by "c"."id", "c"."name", "c"."ssn", o.id, c . id order by c.name')
    assert rewritten("select count(*) from customers group by name").endswith("group by name")


def test_fields_masked_in_a_child_are_masked_in_its_parent() -> None:
    assert 't."ssn"' not in rewritten("select ssn from people")
    assert (16406, 2) in tripwire(CATALOGUE, FIELDS)


def test_domains_whose_checks_are_code_are_read_as_their_base() -> None:
    assert 't."checked"::pg_catalog.text AS "checked"' in rewritten("select checked from typed")


def test_a_with_query_hides_a_relation_only_where_it_is_seen() -> None:
    inside = "select * from (with archive_orders as (select 1) select 1) a, {}"
    assert refused(inside.format("order_totals").replace("archive_orders", "order_totals")).rule == "relation-kind"
    (statement,) = inspect("with orders as (select * from orders) select * from orders", CATALOGUE, FIELDS).statements
    assert statement.facts.reads == {"public.orders"}
    (statement,) = inspect("with orders as (select 1) select * from orders", CATALOGUE, FIELDS).statements
    assert statement.facts.reads == frozenset()


def test_settings_and_sizes_are_shown_where_they_hold_nothing_private() -> None:
    assert rewritten("select current_setting('work_mem')") == "select current_setting('work_mem')"
    assert "CASE WHEN pg_catalog.lower(a1)" in rewritten("select current_setting('archive_command')")
    assert "relkind" in rewritten("select pg_relation_size('orders')")
    assert "pg_database_size(" not in rewritten("select pg_database_size('x')")


REPEATED = {
    "sum": ("select 1", "+1", ""),
    "conjunction": ("select a", " and a", ""),
    "operators": ("select 1 ", "+", "1"),
    "operators of comments": ("select 1 ", "/**/", ""),
    "casts": ("select 1", "::int", ""),
    "calls": ("select 1", ",abs(1)", ""),
    "calls that show definitions": ("select 1", ",pg_get_viewdef(1)", ""),
    "settings": ("select 1", ",current_setting(a)", ""),
    "list": ("select 1 in (1", ",1", ")"),
    "whens": ("select case", " when a then 1", " end"),
    "unions": ("table customers", " union table customers", ""),
    "joins": ("select * from customers", " cross join customers", ""),
    "tables": ("select * from customers", ",customers", ""),
    "rows from": ("select * from rows from (abs(1)", ",abs(1)", ")"),
    "laterals": ("select 1 from orders", ",lateral (select ssn from customers) a", ""),
    "statements": ("begin", ";begin", ""),
    "masked statements": ("table customers", ";table customers", ""),
    "cursors": ("begin", ";declare a cursor for table customers", ""),
    "columns": ("select c.ssn", ",c.ssn", " from customers c"),
    "assigned columns": ("update orders set (note", ",note", ")=(select " + ",".join(["id"] * 100) + ")"),
    "assigned source": ("update orders set (" + ",".join(["note"] * 100) + ")=(select 1", ",1", ")"),
    "grouped": ("select ssn from customers c group by id", ",id", ""),
    "cubes": ("select 1 group by cube(a)", ",cube(a,b)", ""),
    "parameters": ("select $1", ",$1", ""),
    "dollar quotes": ("select $$", "$a$", "$$"),
    "doubled quotes": ("select '", "''", "'"),
    "escapes": ("select u&'", "\\0041", "'"),
    "columns of a document": ("select * from json_table('a','$' columns (a int", ",a int", "))"),
    "words": ("grant select on a", ",a", " to b"),
    "unknown signs": ("select 1 ", "\x01", ""),
    "samples": ("select 1 from orders", ",customers tablesample system(1)", ""),
    "branches": ("merge into orders o using customers c on true", " when matched then delete", ""),
}
"""What a statement of any length is made of: its beginning, what is repeated, its end."""


@pytest.mark.parametrize("size", [300, 1000, 4096])
@pytest.mark.parametrize("name", REPEATED)
def test_no_text_is_read_on_the_spot_that_takes_long(name: str, size: int) -> None:
    begin, repeated, end = REPEATED[name]
    text = begin + repeated * ((size - len(begin) - len(end)) // len(repeated)) + end
    steps = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal steps
        steps += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        inspect(text, CATALOGUE, FIELDS, ON_THE_SPOT)
    except (Refusal, Costly):
        pass
    finally:
        sys.setprofile(None)
    # About ten milliseconds; clocks prove nothing on a shared machine.
    assert steps < 90_000


def test_honest_statements_are_read_on_the_spot() -> None:
    inspect(
        "select o.id, upper(o.note), c.name, c.ssn from orders o join customers c on c.id = o.id left join orders p "
        "on p.id = o.id + 1 where o.note like 'a%' and o.id between 1 and 100 and c.name in ('a', 'b', 'c') "
        "order by 1 desc, 2 limit 10",
        CATALOGUE,
        FIELDS,
        ON_THE_SPOT,
    )


def test_rulers_and_comments_are_no_long_operators() -> None:
    ruler = "-- " + "=" * 100 + "\n"
    inspect((ruler + "/* what it is */ select 1;\n" + ruler) * 100, CATALOGUE, FIELDS)


def test_a_text_of_too_many_words_is_not_read_to_its_end() -> None:
    with pytest.raises(Refusal, match="more than 20000 words"):
        scan(b"," * 120_000)


@pytest.mark.parametrize(
    ("sql", "name", "since"),
    [
        ("select json_value(note, '$') from orders", "json_value", 17),
        ("select json_query(note, '$') from orders", "json_query", 17),
        ("select 1 where json_exists('x', '$')", "json_exists", 17),
        ("select json_scalar('x')", "json_scalar", 17),
        ("select json_serialize('x')", "json_serialize", 17),
        ("select json('x')", "json", 17),
        ("select * from orders, lateral json_value(note, '$') as x", "json_value", 17),
        ("select merge_action()", "merge_action", 17),
        ("select json_array(1, 2)", "json_array", 16),
        ("select json_array()", "json_array", 16),
        ("select json_arrayagg(id) from orders", "json_arrayagg", 16),
        ("select json_object()", "json_object", 16),
        ("select json_object('{a}', note) from orders", "json_object", 16),
        ("update orders set note = json_scalar(note)", "json_scalar", 17),
    ],
)
def test_syntax_that_a_server_does_not_know_is_a_call_of_a_function_of_users(sql: str, name: str, since: int) -> None:
    own = Overload(OwnFunction("public", name, ("text",)))
    shop = replace(
        CATALOGUE,
        functions=CATALOGUE.functions | {("public", name)},
        overloads={**CATALOGUE.overloads, ("public", name): (own,)},
    )
    for version, called in ((since - 1, True), (since, False)):
        (statement,) = inspect(sql, replace(shop, server_version=version * 10_000), FIELDS).statements
        assert (own.function in statement.facts.calls) is called
    (statement,) = inspect(sql, replace(CATALOGUE, server_version=130_000), FIELDS).statements
    assert not statement.facts.calls


LONG = "é" * 32


@pytest.mark.parametrize(
    "sql",
    [
        """with "kundÉ" as (select 1 as ssn) select ssn || '' from KUNDÉ""",
        "update customers set name = SSNÉ",
        "select o.É from orders o",
        "prepare É as select 1",
        f'with "{LONG[:31]}" as (select 1 as ssn) select ssn from "{LONG}"',
        f"select {LONG} from orders",
        'select U&"' + r"\00e9" * 32 + '" from orders',
    ],
)
def test_a_name_that_a_database_in_another_encoding_could_take_for_another_is_refused(sql: str) -> None:
    with pytest.raises(Refusal) as refusal:
        inspect(sql, replace(CATALOGUE, utf8=False), FIELDS)
    assert refusal.value.rule == "name"


def test_names_in_other_letters_are_passed_where_they_mean_one_thing() -> None:
    for sql in ('select id as "É" from orders', "select id as é, 'É' from orders", "select 1 -- É"):
        for utf8 in (True, False):
            assert inspect(sql, replace(CATALOGUE, utf8=utf8), FIELDS).rewritten == sql
    assert inspect("select id as É from orders", CATALOGUE, FIELDS).rewritten == "select id as É from orders"


def test_an_implicit_cast_between_builtin_types_is_called_by_every_statement() -> None:
    cast = Overload(OwnFunction("public", "shown", ("integer",)), planned=False, implied=True)
    catalogue = replace(CATALOGUE, implied=frozenset({cast}), version="with a cast")
    for sql in (
        "select lower(1)",
        "select id from orders where note = id",
        "update orders set note = 'x' where id like '1%'",
        "copy (values ('x'), (id)) to stdout",
        "declare c cursor for select 1 || ''",
        "explain select id from orders limit '1'",
        "execute p(1)",
    ):
        for fields in (FIELDS, {}):
            (statement,) = inspect(sql, catalogue, fields).statements
            assert statement.facts.calls == {cast.function}, sql
    indexing = inspect("create index on orders (note)", catalogue, {}, terms=Terms(covers=("public.*", "archive.*")))
    assert indexing.statements[0].facts.calls == {cast.function}
