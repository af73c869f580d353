"""What inspection says of a statement: facts, refusals, and the text that is forwarded."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import broker.sql.sight as sight_module
from broker.sql.inspect import inspect, tripwire
from broker.sql.model import Refusal, Terms
from policies.engine.decisions import Effect, FieldView, RelationFields
from tests.unit.broker.sql.shop import CATALOGUE, FIELDS, catalogue, refused


def test_masked_relation_becomes_a_sub_select_of_every_column_in_order() -> None:
    rewritten = inspect("select * from customers c where id = 1", CATALOGUE, FIELDS).rewritten
    assert rewritten == (
        'select * from (SELECT t."id", t."name", (CASE WHEN pg_catalog.length(t."ssn"::pg_catalog.text) '
        "OPERATOR(pg_catalog.>=) 8 THEN '***'::pg_catalog.text OPERATOR(pg_catalog.||) "
        "pg_catalog.right(t.\"ssn\"::pg_catalog.text, 4) ELSE '***'::pg_catalog.text END)"
        '::character varying(11) AS "ssn", '
        'NULL::numeric(10,2) AS "salary" '
        'FROM "public"."customers" AS t) c where id = 1'
    )


def test_clean_statement_is_forwarded_to_the_byte() -> None:
    for sql in ("select note from orders", " /* a */ SELECT 1 ;; -- b", "begin;select 'é\U0001f600';commit"):
        assert inspect(sql, CATALOGUE, FIELDS).rewritten == sql


def test_facts_name_effects_relations_functions_and_masked_fields() -> None:
    (statement,) = inspect(
        "select upper(c.ssn), count(*) from customers c join orders o on o.id = c.id group by 1", CATALOGUE, FIELDS
    ).statements
    assert statement.facts.effects == {Effect.READ}
    assert statement.facts.reads == {"public.customers", "public.orders"}
    assert statement.facts.functions == {"upper", "count"}
    assert statement.facts.masked == {"public.customers.ssn"}


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ("select * from order_totals", "relation-kind"),
        ("select * from secrets", "relation-kind"),
        ("select * from nothing", "relation-unknown"),
        ("select total_of(1)", "function-defined"),
        ("select o.total_of from orders o", "function"),
        ("select (1.0).pg_sleep", "function"),
        ("select pg_reload_conf()", "function"),
        ("select archive.upper('a')", "function"),
        ("select 1 <+> 2", "operator"),
        ("select 1 operator(public.+) 2", "operator"),
        ("select 'x'::checked", "type"),
        ("select 'x'::public.checked[]", "type"),
        ("select * from pg_statistic", "catalogue"),
        ("select uuid(note) from orders", "type"),
        ("update customers set name = ssn", "write-reads-masked"),
        ("update customers c set name = '' where c is not null", "write-reads-masked"),
        ("delete from customers where salary > 1", "write-reads-masked"),
        ("delete from customers returning customers", "write-reads-masked"),
        ("update customers set name = '' returning with (old as o) o", "write-reads-masked"),
        ("insert into customers (id) values (1) on conflict (ssn) do nothing", "write-reads-masked"),
        ("merge into customers c using orders o on c.ssn = o.note when matched then delete", "write-reads-masked"),
        ("drop table customers", "ddl-masked"),
        ("do $$ begin end $$", "statement-kind"),
        ('set search_path = "$user", public', "settings"),
        ("set search_path = x, pg_catalog", "settings"),
        ("set search_path = pg_temp, x", "settings"),
        ("set search_path = information_schema", "settings"),
        ("set search_path = 7", "settings"),
        ("set search_path = " + ", ".join(f"s{at}" for at in range(40)), "settings"),
        ("set search_path = x; select 1", "search-path"),
        ("select set_config('search_path', 'x', false); select 1", "search-path"),
        ("select set_config('search_path', note, false) from orders", "settings"),
        ("select set_config('search_path', $1, false)", "settings"),
        ("select set_config('search_path', 'x', false), app.f()", "function"),
        ("select set_config('search_path', 'x', false), count(*) from orders", "settings"),
        ("prepare p as select set_config('search_path', 'x', false)", "settings"),
        ("copy (select set_config('search_path', 'x', false)) to stdout", "settings"),
        ("explain select set_config('search_path', 'x', false)", "settings"),
        ("create table t as select set_config('search_path', 'x', false)", "settings"),
        ("reset role", "settings"),
        ("reset transaction_read_only", "settings"),
        ('reset "Transaction_Read_Only"', "settings"),
        ("set transaction_read_only to default", "settings"),
        ("set local transaction_isolation to default", "settings"),
        ("set client_encoding = 'SJIS'", "settings"),
        ("copy orders to '/tmp/x'", "copy-server"),
        ("prepare transaction 'x'", "transaction"),
        ("selec 1", "syntax"),
        ("select '", "syntax"),
        ("select 1 \0", "encoding"),
        ("select " + "(" * 200 + "1" + ")" * 200, "limit-nesting"),
        ("select " + "1+" * 5000 + "1", "limit-operators"),
        ("select " + "/*" * 9000 + "*/" * 9000, "limit-operators"),
        ("select '" + "x" * 140_000 + "'", "limit-length"),
    ],
)
def test_what_is_not_on_a_list_is_refused(sql: str, rule: str) -> None:
    assert refused(sql).rule == rule


@pytest.mark.parametrize(
    "sql",
    [
        "select jsonb(note), inet(note), regtype(note), tsvector(note), pg_catalog.xid8(note) from orders",
        "select setseed(0.5), array_shuffle(array[1, 2]), array_sample(array[1, 2], 1)",
    ],
)
def test_a_cast_that_is_written_as_a_call_passes_and_so_does_chance(sql: str) -> None:
    (one,) = inspect(sql, CATALOGUE, FIELDS).statements
    assert one.refusal is None


def test_unknown_relation_asks_for_a_fresh_catalogue_and_says_where() -> None:
    refusal = refused("select é from nothing")
    assert refusal.retry
    assert refusal.sqlstate == "42P01"


@pytest.mark.parametrize(
    ("sql", "calls"),
    [
        ("select spent(1)", {"public.spent(integer)", "public.spent(text)"}),
        ("select public.spent(1), archive.spent(2)",
         {"public.spent(integer)", "public.spent(text)", "archive.spent(integer)"}),
        ("select * from archive.spent(1)", {"archive.spent(integer)"}),
        ("delete from orders where archive.spent(id) > 1", {"archive.spent(integer)"}),
        ("select upper('x')", {"public.upper(integer)"}),
        ("select pg_catalog.upper('x')", set()),
        ("select public.pg_rotate_logfile('x')", {"public.pg_rotate_logfile(text)"}),
        ("prepare p as select archive.spent(1)", {"archive.spent(integer)"}),
        ("copy orders from stdin where archive.spent(id) > 1", {"archive.spent(integer)"}),
        ("select pg_sleep(1), pg_catalog.nextval('s')", {"pg_sleep", "nextval"}),
    ],
)  # fmt: skip
def test_every_function_that_a_rule_must_name_is_a_fact(sql: str, calls: set[str]) -> None:
    (statement,) = inspect(sql, CATALOGUE, FIELDS).statements
    assert {str(call) for call in statement.facts.calls} == calls


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("select total_of(1)", "no function that may be called in a statement"),
        ("select pg_rotate_logfile('x')", "could be a builtin function that is not on the list"),
        ("select everybody()", "returns rows of public.customers, which has masked fields"),
        ("select o.spent from orders o", "would call the function spent"),
        ("select nowhere.spent(1)", "no function nowhere.spent that may be called"),
    ],
)
def test_functions_of_users_that_no_rule_could_let_pass_are_refused(sql: str, why: str) -> None:
    assert why in refused(sql).message


def test_what_a_function_of_users_says_is_withheld_where_fields_are_masked() -> None:
    assert inspect("select archive.spent(1)", CATALOGUE, FIELDS).scrub
    assert not inspect("select archive.spent(1)", CATALOGUE, {}).scrub
    (statement,) = inspect("select spent(1)", CATALOGUE, {}).statements
    assert (statement.facts.effects, statement.facts.all_effects) == ({Effect.READ}, {Effect.READ, Effect.WRITE})


@pytest.mark.parametrize(
    ("sql", "behind"),
    [
        ("select id from people", {"public.staff"}),
        ("select id from only people", set()),
        ("update people set id = 1 where id = 2", {"public.staff"}),
        ("delete from only people where id = 2", set()),
        ("truncate people", {"public.staff"}),
        ("lock table people", {"public.staff"}),
        ("select id from staff", {"public.people"}),
        ("create table t as select id from people", {"public.staff"}),
        ("alter table people drop column ssn", {"public.staff"}),
        ("alter table only people set (fillfactor = 50)", set()),
        ("vacuum people", {"public.staff"}),
        ("drop table staff", {"public.people"}),
        ("comment on table people is 'x'", {"public.staff"}),
        ("copy (select id from people) to stdout", {"public.staff"}),
        ("select id from orders", set()),
    ],
)
def test_what_comes_along_with_a_table_is_a_fact(sql: str, behind: set[str]) -> None:
    (statement,) = inspect(sql, CATALOGUE, {}, terms=Terms(covers=("public.*", "archive.*"))).statements
    assert statement.refusal is None
    assert statement.facts.through == behind


@pytest.mark.parametrize("fields", [FIELDS, {}], ids=["masked", "clear"])
def test_table_with_a_foreign_partition_is_no_more_open_than_that(fields: FieldView) -> None:
    foreign = replace(CATALOGUE.by_oid[16407], kind="f")
    known = replace(CATALOGUE, heirs={16406: (foreign,)}, version=f"foreign {len(fields)}")
    with pytest.raises(Refusal, match="foreign tables among its partitions"):
        inspect("select id from people", known, fields, terms=Terms(covers=("public.*", "archive.*")))


def test_functions_that_show_literals_keep_their_arguments_and_lose_their_answer() -> None:
    rewritten = inspect("select pg_get_expr(adbin, 0) from pg_attrdef", CATALOGUE, FIELDS).rewritten
    assert "pg_get_expr(adbin" not in rewritten
    assert '(SELECT a1::pg_catalog.text AS "pg_get_expr" FROM (SELECT adbin, 0) AS airlock(a1, a2))' in rewritten
    assert """WHEN t."adbin" IS NOT NULL THEN '(hidden)' END)::pg_catalog.text AS "adbin\"""" in rewritten


def test_a_refusal_points_to_the_relation_that_there_is_none_of() -> None:
    sql = "select 'é' from nowhere.nothing"
    assert refused(sql).position == sql.index("nowhere") + 1


@pytest.mark.parametrize(
    ("sql", "fields"),
    [
        ("select * from customers where ssn = 'x'", "ssn"),
        ("select id from customers c where c.ssn like '%1' or c.salary > 1", "ssn salary"),
        ("select c.id from customers c join orders o on o.note = c.ssn", "ssn"),
        ("select 1 from customers join people using (ssn)", "ssn people.ssn"),
        ("select ssn from customers order by 1", "ssn"),
        ("select ssn as s from customers order by s desc", "ssn"),
        ("select salary, count(*) from customers group by salary having max(ssn) > ''", "salary ssn"),
        ("select distinct on (ssn) id from customers", "ssn"),
        ("with a as (select id from customers where ssn = 'x') select * from a", "ssn"),
        ("select exists (select from customers where ssn = 'x')", "ssn"),
        ("delete from orders where id in (select id from customers where ssn = 'x')", "ssn"),
        ("select ssn from customers", ""),
        ("select ssn from customers where id = 1 order by id", ""),
        ("select o.id from orders o, customers c where o.note = 'ssn' and c.id = o.id", ""),
    ],
)
def test_masked_fields_that_are_compared_are_named(sql: str, fields: str) -> None:
    (statement,) = inspect(sql, CATALOGUE, FIELDS).statements
    assert statement.compared == {
        f"public.{name}" if "." in name else f"public.customers.{name}" for name in fields.split()
    }


def test_tripwire_holds_masked_attributes_and_the_whole_row() -> None:
    assert tripwire(CATALOGUE, FIELDS) >= {(16400, 3), (16400, 5), (16400, 0)}


def test_tripwire_is_made_once_for_the_same_catalogue_and_rules_and_anew_for_others() -> None:
    first = tripwire(CATALOGUE, FIELDS)
    assert inspect("select 1", CATALOGUE, FIELDS).tripwire is first
    assert tripwire(catalogue(), FIELDS) is first
    for number in range(300):
        other: FieldView = {"public.orders": RelationFields(clear=frozenset({"id", f"c{number}"}))}
        assert (16401, 2) in tripwire(CATALOGUE, other)
    assert tripwire(CATALOGUE, FIELDS) == first
    assert len(sight_module._sights) <= sight_module._KEPT


@given(st.text(max_size=200))
def test_any_text_is_inspected_or_refused(sql: str) -> None:
    try:
        inspect(sql, CATALOGUE, FIELDS)
    except Refusal:
        return


def test_revealed_field_is_read_under_a_name_of_the_brokers_own_and_the_rest_stays_masked() -> None:
    found = inspect("select id, airlock.reveal(c.ssn), c.ssn from customers c", catalogue(), FIELDS)
    assert found.revealed == ((1, 16400, 3),)
    assert (16400, 3) in found.tripwire
    assert 'select id, "c"."airlock_reveal_3" AS "ssn", c.ssn from (SELECT' in found.rewritten
    assert 't."ssn" AS "airlock_reveal_3" FROM "public"."customers" AS t) c' in found.rewritten
    facts = found.statements[0].facts
    assert (facts.reveals, facts.masked) == ({"public.customers.ssn"}, {"public.customers.ssn"})
    alone = inspect("select airlock.reveal(ssn) as x from customers", catalogue(), FIELDS)
    assert alone.statements[0].facts.masked == frozenset()
    assert alone.rewritten.startswith('select "customers"."airlock_reveal_3" as x from (SELECT t."ssn" AS')


def test_refused_reveal_says_how_to_write_it() -> None:
    with pytest.raises(Refusal, match="stands by itself in the target list") as caught:
        inspect("select upper(airlock.reveal(ssn)) from customers", catalogue(), FIELDS)
    assert "select id, airlock.reveal(ssn) from customers where id = 1" in (caught.value.hint or "")


@pytest.mark.parametrize("row", ["c.row_to_json", "c.to_jsonb ->> 'ssn'", "(select c.to_json)::text", "c.a_domain"])
def test_function_that_is_called_as_a_field_of_a_row_is_given_the_whole_row(row: str) -> None:
    """`row.name` calls the function `name` with the row, or casts it to the domain, where it has no such column."""
    for sql in (
        f"update customers c set name = 'x' returning {row}",
        f"delete from customers c where ({row})::text like '%1%'",
        f"insert into customers as c (id) values (1) on conflict (id) do update set name = ({row})::text",
        f"delete from customers c returning {row.replace('c.', 'old.', 1)}",
    ):
        with pytest.raises(Refusal, match=r"would read every field of public\.customers"):
            inspect(sql, CATALOGUE, FIELDS)
    for sql in (
        f"select airlock.reveal(c.ssn), {row} from customers c",
        f"select airlock.reveal(c.ssn) from customers c where ({row})::text like '%1%'",
        f"select airlock.reveal(c.ssn) from customers c order by ({row})::text limit 1",
    ):
        with pytest.raises(Refusal, match="does not go together with all of c"):
            inspect(sql, CATALOGUE, FIELDS)
    found = inspect(f"select {row} from customers c", CATALOGUE, FIELDS)
    assert "public.customers.ssn" in found.statements[0].facts.masked
    assert 't."ssn" AS' not in found.rewritten
