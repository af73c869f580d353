"""What inspection says of a statement: facts, refusals, and the text that is forwarded."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import broker.sql.sight as sight_module
from broker.sql.catalogue import Catalogue, Relation, build
from broker.sql.catalogue_queries import QUERIES
from broker.sql.inspect import inspect, tripwire
from broker.sql.model import Control, Refusal
from broker.sql.redact import redact
from broker.sql.rewrite import edited, position_in_user_text
from policies.engine.decisions import Effect, FieldView, Mask, MaskKind, RelationFields

FIELDS: FieldView = {
    "public.customers": RelationFields(clear=frozenset({"id", "name"}), masks={"ssn": Mask(MaskKind.PARTIAL, 4)}),
    "public.staff": RelationFields(clear=frozenset({"id"})),
}


def _column(oid: int, attnum: int, name: str, type_: str, typname: str) -> dict[str, object]:
    return {
        "oid": oid, "attnum": attnum, "name": name, "type": type_, "typname": typname, "typschema": "pg_catalog",
        "typtype": "b", "category": "S", "base": None,
    }  # fmt: skip


def _relation(oid: int, name: str, kind: str = "r", schema: str = "public", **flags: bool) -> dict[str, object]:
    return {
        "oid": oid, "schema": schema, "name": name, "kind": kind, "rules": False, "row_security": False, **flags,
    }  # fmt: skip


OWN: dict[tuple[str, str], list[tuple[list[str], bool, int, bool]]] = {
    ("public", "spent"): [(["integer"], False, 0, False), (["text"], True, 0, False)],
    ("archive", "spent"): [(["integer"], False, 0, False)],
    ("public", "everybody"): [([], False, 16400, False)],
    ("public", "upper"): [(["integer"], False, 0, True)],
    ("public", "pg_rotate_logfile"): [(["text"], False, 0, True)],
}
"""Functions of users': argument types, whether they act, whose rows they return, whether one of the name is builtin."""


def catalogue() -> Catalogue:
    rows: dict[str, list[dict[str, object]]] = {name: [] for name in QUERIES}
    rows["relations"] = [
        {**_relation(16400, "customers"), "key": ["id"]},
        _relation(16401, "orders"),
        _relation(16402, "order_totals", "v"),
        _relation(16403, "orders_2024"),
        _relation(16404, "secrets", row_security=True),
        _relation(16405, "orders", schema="archive"),
        _relation(16406, "people"),
        {**_relation(16407, "staff"), "parents": [16406]},
        _relation(16408, "typed"),
        _relation(1259, "pg_class", schema="pg_catalog"),
        _relation(2619, "pg_statistic", schema="pg_catalog"),
        _relation(2604, "pg_attrdef", schema="pg_catalog"),
    ]
    rows["columns"] = [
        _column(16400, 1, "id", "integer", "int4"),
        _column(16400, 2, "name", "text", "text"),
        _column(16400, 3, "ssn", "character varying(11)", "varchar"),
        _column(16400, 5, "salary", "numeric(10,2)", "numeric"),
        _column(16401, 1, "id", "integer", "int4"),
        _column(16401, 2, "note", "text", "text"),
        _column(16406, 1, "id", "integer", "int4"),
        _column(16406, 2, "ssn", "text", "text"),
        _column(16407, 1, "id", "integer", "int4"),
        _column(16407, 2, "ssn", "text", "text"),
        {**_column(16408, 1, "checked", "public.checked", "text"), "base": "text", "code": "domain"},
        {**_column(16408, 2, "pair", "public.pair", "pair"), "code": "type"},
        _column(16408, 3, "total_of", "integer", "int4"),
        _column(2604, 1, "oid", "oid", "oid"),
        _column(2604, 2, "adbin", "pg_node_tree", "pg_node_tree"),
    ]
    rows["functions"] = [
        {"schema": "public", "name": "total_of", "single": True, "loose": False},
        *({"schema": schema, "name": name, "single": True, "loose": False} for schema, name in OWN),
    ]
    rows["overloads"] = [
        {
            "schema": schema,
            "name": name,
            "arguments": arguments,
            "acting": acting,
            "returns": returns,
            "builtin": builtin,
        }
        for (schema, name), overloads in OWN.items()
        for arguments, acting, returns, builtin in overloads
    ]
    rows["attributes"] = [{"name": "pg_sleep"}, {"name": "upper"}, {"name": "current_setting"}]
    builtins = "pg_sleep upper current_setting pg_reload_conf pg_read_file pg_terminate_backend lo_import query_to_xml"
    rows["builtins"] = [{"name": name} for name in builtins.split()]
    rows["operators"] = [{"schema": "public", "name": "<+>"}]
    rows["types"] = [
        {"schema": "public", "name": "mood", "kind": "e", "trusted": True},
        {"schema": "public", "name": "checked", "kind": "d", "trusted": False},
        {"schema": "public", "name": "_checked", "kind": "b", "trusted": False},
        {"schema": "pg_catalog", "name": "uuid", "kind": "b", "trusted": False},
    ]
    return build(rows, ["public"], 150018)


CATALOGUE = catalogue()


def refused(sql: str) -> Refusal:
    try:
        inspection = inspect(sql, CATALOGUE, FIELDS)
    except Refusal as refusal:
        return refusal
    refusals = [statement.refusal for statement in inspection.statements if statement.refusal]
    assert refusals, f"passed: {inspection.rewritten}"
    return refusals[0]


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


def test_data_modifying_with_at_any_depth_is_a_write() -> None:
    for sql in (
        "with a as (with b as (delete from orders returning 1) select 1) select 1",
        "explain update orders set note = ''",
        "copy (delete from orders returning 1) to stdout",
        "select 1 from orders for update",
        "copy orders from stdin",
    ):
        facts = inspect(sql, CATALOGUE, FIELDS).statements[0].facts
        assert Effect.WRITE in facts.effects, sql


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
        ("update customers set name = ssn", "write-reads-masked"),
        ("update customers c set name = '' where c is not null", "write-reads-masked"),
        ("delete from customers where salary > 1", "write-reads-masked"),
        ("delete from customers returning customers", "write-reads-masked"),
        ("update customers set name = '' returning with (old as o) o", "write-reads-masked"),
        ("insert into customers (id) values (1) on conflict (ssn) do nothing", "write-reads-masked"),
        ("merge into customers c using orders o on c.ssn = o.note when matched then delete", "write-reads-masked"),
        ("drop table customers", "ddl-masked"),
        ("do $$ begin end $$", "statement-kind"),
        ("truncate orders cascade", "truncate"),
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


def test_unknown_relation_asks_for_a_fresh_catalogue_and_says_where() -> None:
    refusal = refused("select é from nothing")
    assert refusal.retry
    assert refusal.sqlstate == "42P01"


_MANY = "insert into customers (id, name, ssn) select *, 'ssn' as ssn from (values (1, 'a')) v"


@pytest.mark.parametrize(
    "more", ["returning id", "on conflict (id) do nothing", "on conflict (id) do update set name = ''"]
)
def test_what_is_inserted_may_be_a_star_for_it_cannot_be_of_the_target(more: str) -> None:
    (statement,) = inspect(f"{_MANY} {more}", CATALOGUE, FIELDS).statements
    assert statement.facts.writes == {"public.customers"}


@pytest.mark.parametrize(
    "more",
    [
        "returning *, upper(ssn)",
        "returning customers",
        "returning (customers).name",
        "returning (select customers.ssn)",
        "returning with (new as n) n",
        "returning (select x from orders o join lateral (select ssn as x) y on true)",
        "on conflict (ssn) do nothing",
        "on conflict (id) do update set name = excluded.ssn",
        "on conflict (id) do update set name = excluded::text",
        "on conflict (id) do update set name = '' where customers.salary > 1",
    ],
)
def test_what_stands_behind_what_is_inserted_names_no_masked_field_of_the_target(more: str) -> None:
    assert refused(f"{_MANY} {more}").rule == "write-reads-masked"


_SSN = (
    "((CASE WHEN pg_catalog.length({0}::pg_catalog.text) OPERATOR(pg_catalog.>=) 8 THEN '***'::pg_catalog.text "
    "OPERATOR(pg_catalog.||) pg_catalog.right({0}::pg_catalog.text, 4) ELSE '***'::pg_catalog.text END)"
    "::character varying(11))"
)


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        ("ssn", f"""{_SSN.format('"c"."ssn"')} AS "ssn\""""),
        ("id, c.ssn s, name", f"""id, {_SSN.format('"c"."ssn"')} s, name"""),
        (
            "c.* -- all",
            f"""\"c"."id" AS "id", "c"."name" AS "name", {_SSN.format('"c"."ssn"')} AS "ssn", """
            """(NULL::numeric(10,2)) AS "salary" -- all""",
        ),
    ],
)
def test_returning_gives_plain_columns_of_the_written_row_masked(said: str, sent: str) -> None:
    for write in ("update customers c set name = 'x' where id = 1", "insert into customers as c (id) values (1)"):
        found = inspect(f"{write} returning {said}", CATALOGUE, FIELDS)
        assert found.rewritten == f"{write} returning {sent}"
        masked = {"public.customers.ssn"} | ({"public.customers.salary"} if "*" in said else set())
        assert found.statements[0].facts.masked == masked
        assert found.scrub
        assert inspect(f"{write} returning {said}", CATALOGUE, {}).rewritten == f"{write} returning {said}"


@pytest.mark.parametrize(
    "said",
    [
        "upper(ssn)",
        "c",
        "c::text",
        "(c).ssn",
        "(select ssn)",
        "old.ssn",
        "ssn, new.*",
        "customers.ssn",
        "*, ctid",
        "c.nope, *",
    ],
)
def test_what_else_returning_could_tell_of_masked_fields_is_refused(said: str) -> None:
    assert refused(f"update customers c set name = 'x' where id = 1 returning {said}").rule == "write-reads-masked"


@pytest.mark.parametrize(
    ("sql", "missing"),
    [
        ("delete from orders", {"public.orders"}),
        ("update orders set note = ''", {"public.orders"}),
        ("update orders set note = 'id' where true", {"public.orders"}),
        ("delete from orders where 1 = 1 and now() > '2020-01-01'", {"public.orders"}),
        ("delete from orders where exists (select 1)", {"public.orders"}),
        ("delete from orders where $1", {"public.orders"}),
        ("with a as (delete from orders returning 1) select * from a where 1 = 1", {"public.orders"}),
        ("with a as (with b as (update archive.orders set id = 1) select 1) select 1", {"archive.orders"}),
        ("explain analyze delete from orders", {"public.orders"}),
        ("copy (delete from orders returning id) to stdout", {"public.orders"}),
        ("prepare p as delete from orders", {"public.orders"}),
        ("merge into orders using typed on true when matched then delete", {"public.orders"}),
        ("delete from orders where id = 1", set()),
        ("delete from orders o where o.id in (select id from customers)", set()),
        ("update orders set note = '' from customers c where c.id = orders.id", set()),
        ("merge into orders using typed on orders.id = typed.total_of when matched then delete", set()),
        ("insert into orders values (1)", set()),
        ("select 1", set()),
    ],
)
def test_a_change_without_a_where_that_names_a_column_is_a_fact(sql: str, missing: set[str]) -> None:
    (statement,) = inspect(sql, CATALOGUE, FIELDS).statements
    assert statement.facts.missing_where == missing


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
    ("sql", "copying"),
    [
        ("copy orders to stdout", "out"),
        ("copy customers to stdout", "out"),
        ("copy (select 1) to stdout", "out"),
        ("copy orders from stdin", "in"),
        ("select 1", ""),
    ],
)
def test_which_way_a_copy_goes_is_a_fact(sql: str, copying: str) -> None:
    (statement,) = inspect(sql, CATALOGUE, FIELDS).statements
    assert statement.facts.copying == copying


@pytest.mark.parametrize(
    ("sql", "verb"),
    [
        ("create or replace temp view v as select 1", "CREATE VIEW"),
        ("create unique index on orders (id)", "CREATE INDEX"),
        ("drop table orders", "DROP TABLE"),
        ("table orders", "SELECT"),
        ("vacuum", "VACUUM"),
    ],
)
def test_a_verb_is_the_first_word_and_for_schema_changes_what_they_are_about(sql: str, verb: str) -> None:
    (statement,) = inspect(sql, CATALOGUE, FIELDS).statements
    assert statement.facts.verb == verb


@pytest.mark.parametrize(
    ("sql", "control", "name"),
    [
        ("begin", Control.BEGIN, ""),
        ("commit", Control.COMMIT, ""),
        ("savepoint a", Control.SAVEPOINT, "a"),
        ("release a", Control.RELEASE, "a"),
        ("rollback to a", Control.ROLLBACK_TO, "a"),
        ("prepare p(int) as select $1", Control.PREPARE, "p"),
        ("execute p(1)", Control.EXECUTE, "p"),
        ("deallocate p", Control.DEALLOCATE, "p"),
        ("deallocate all", Control.DEALLOCATE, ""),
        ("copy orders to stdout", Control.COPY_OUT, ""),
        ("copy orders from stdin", Control.COPY_IN, ""),
    ],
)
def test_control_says_what_the_connection_must_remember(sql: str, control: Control, name: str) -> None:
    (statement,) = inspect(sql, CATALOGUE, FIELDS).statements
    assert (statement.control, statement.name) == (control, name)


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
    (statement,) = inspect(sql, CATALOGUE, {}, covers=("public.*", "archive.*")).statements
    assert statement.refusal is None
    assert statement.facts.through == behind


@pytest.mark.parametrize("fields", [FIELDS, {}], ids=["masked", "clear"])
def test_table_with_a_foreign_partition_is_no_more_open_than_that(fields: FieldView) -> None:
    foreign = replace(CATALOGUE.by_oid[16407], kind="f")
    known = replace(CATALOGUE, heirs={16406: (foreign,)}, version=f"foreign {len(fields)}")
    with pytest.raises(Refusal, match="foreign tables among its partitions"):
        inspect("select id from people", known, fields, covers=("public.*", "archive.*"))


def test_prepare_keeps_the_users_inner_text() -> None:
    (statement,) = inspect("prepare p(int) as select ssn from customers where id = $1", CATALOGUE, FIELDS).statements
    assert statement.body.strip() == "select ssn from customers where id = $1"


def test_estimates_over_masked_relations_are_hidden() -> None:
    rewritten = inspect("explain (analyze, costs on, format json) select * from customers", CATALOGUE, FIELDS).rewritten
    assert rewritten.startswith("explain (analyze, format json, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF)")
    assert inspect("explain verbose select 1", CATALOGUE, FIELDS).rewritten == "explain verbose select 1"


def test_functions_that_show_literals_keep_their_arguments_and_lose_their_answer() -> None:
    rewritten = inspect("select pg_get_expr(adbin, 0) from pg_attrdef", CATALOGUE, FIELDS).rewritten
    assert "pg_get_expr" not in rewritten
    assert "(SELECT '(hidden)'::pg_catalog.text FROM (SELECT adbin, 0) AS airlock(a1, a2))" in rewritten


def test_positions_map_back_to_the_users_text() -> None:
    sql = "select 'é', * from customers c where nothere = 1"
    inspection = inspect(sql, CATALOGUE, FIELDS)
    at = inspection.rewritten.index("nothere") + 1
    assert position_in_user_text(inspection.edits, at) == sql.index("nothere") + 1
    inside = inspection.rewritten.index("SELECT t.") + 3
    assert position_in_user_text(inspection.edits, inside) == sql.index("customers") + 1
    assert position_in_user_text(inspection.edits, len(inspection.rewritten) + 1) == len(sql) + 1


@pytest.mark.parametrize(
    "sql",
    [
        "select 'é\U0001f600', c.* from only customers c",
        "select 'é' from public.customers tablesample system (50)",
        "select 'é'; table customers",
        "select 'é' from only (customers)",
        "copy customers (id, ssn) to stdout",
    ],
)
def test_what_goes_wrong_inside_a_mask_is_said_to_be_at_the_relations_name(sql: str) -> None:
    inspection = inspect(sql, CATALOGUE, FIELDS)
    inside = (
        inspection.rewritten.index("pg_catalog.right") + 1 if "ssn" in sql else inspection.rewritten.index("(SELECT")
    )
    at = position_in_user_text(inspection.edits, inside + 3)
    assert at is not None
    assert sql[at - 1 :].startswith(("customers", "public.customers"))


PIECES = st.text("aé\U0001f600 \n", max_size=5)


@given(st.lists(st.tuples(PIECES, PIECES, st.none() | PIECES), max_size=6), PIECES)
def test_every_character_of_a_rewritten_text_maps_to_the_users_own(
    parts: list[tuple[str, str, str | None]], tail: str
) -> None:
    """Texts of unchanged and replaced pieces; a replaced one is found where its middle is."""
    own, new, expected = "", "", []
    edits: dict[tuple[int, int], tuple[str, int]] = {}
    for kept, old, put in parts:
        expected += range(len(own) + 1, len(own) + len(kept) + 1)
        own, new = own + kept, new + kept
        if put is None or not old:
            expected += range(len(own) + 1, len(own) + len(old) + 1)
            own, new = own + old, new + old
            continue
        start, middle = len(own.encode()), len(old) // 2
        edits[start, start + len(old.encode())] = put, start + len(old[:middle].encode())
        expected += [len(own) + middle + 1] * len(put)
        own, new = own + old, new + put
    expected += range(len(own) + 1, len(own) + len(tail) + 2)
    text, runs = edited((own + tail).encode(), edits)
    assert text == new + tail
    assert [position_in_user_text(runs, at) for at in range(1, len(text) + 2)] == expected
    assert position_in_user_text(runs, len(text) + 2) is None


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


@pytest.mark.parametrize(
    "sql",
    [
        "reset all",
        "reset search_path",
        "set statement_timeout to default",
        "discard all",
        "discard temp",
        "set constraints all immediate",
        "set standard_conforming_strings = on",
        "set time zone interval '+02:00' hour to minute",
        "set local default_transaction_read_only = on",
        "set transaction_read_only to true",
        "set transaction_isolation = 'repeatable read'",
        "set row_security = on",
    ],
)
def test_what_only_undoes_a_session_of_its_own_changes_the_session(sql: str) -> None:
    found = inspect(sql, CATALOGUE, FIELDS)
    (statement,) = found.statements
    assert (found.rewritten, statement.refusal, statement.facts.effects) == (sql, None, {Effect.SESSION})
    assert statement.control is (Control.DISCARD_ALL if sql == "discard all" else Control.NONE)


@pytest.mark.parametrize(
    "sql",
    [
        "set time zone interval '1 day'",
        "set time zone interval 'ssn' hour to minute",
        "set default_transaction_read_only = off",
        "set transaction_read_only = no",
        "set row_security = off",
        "set statement_timeout = '-1s'",
        "set transaction_isolation = 'x'",
    ],
)
def test_what_is_pinned_is_set_to_nothing_else(sql: str) -> None:
    (statement,) = inspect(sql, CATALOGUE, FIELDS).statements
    assert statement.refusal is not None
    assert statement.refusal.rule == "settings"


@pytest.mark.parametrize(
    ("sql", "sent", "lasting"),
    [
        ("set statement_timeout = 5000", "", 5000),
        ("set local idle_in_transaction_session_timeout to '2min'", "", 120_000),
        ("set session transaction_timeout = '1 h'", "", 3_600_000),
        ("begin; set local idle_session_timeout = '7d'", "", 604_800_000),
        ("set statement_timeout = 0", "SET statement_timeout TO DEFAULT", 0),
        ("set local statement_timeout to '0s'", "SET LOCAL statement_timeout TO DEFAULT", 0),
    ],
)
def test_a_timeout_says_how_long_it_is_to_last_and_is_never_without_an_end(sql: str, sent: str, lasting: int) -> None:
    found = inspect(sql, CATALOGUE, FIELDS)
    statement = found.statements[-1]
    assert (found.rewritten, statement.lasting) == (sent or sql, lasting)
    assert (statement.refusal, statement.facts.effects) == (None, {Effect.SESSION})


@pytest.mark.parametrize(
    "value", ["-1", "'-1s'", "'500us'", "1.5", "'1.5min'", "'5 parsecs'", "''", "on", "'5s', '6s'", "99999999999"]
)
def test_what_is_no_whole_time_sets_no_timeout(value: str) -> None:
    assert refused(f"set statement_timeout = {value}").rule == "settings"
    assert refused("select set_config('statement_timeout', '5s', false)").rule == "settings"


@pytest.mark.parametrize(
    ("sql", "writable"),
    [
        ("begin read write", True),
        ("start transaction isolation level serializable, read write", True),
        ("set transaction read write", True),
        ("set session characteristics as transaction read write", True),
        ("begin read only", False),
        ("set session characteristics as transaction isolation level serializable, read only", False),
        ("begin", False),
        ("set timezone to 'UTC'", False),
    ],
)
def test_what_asks_for_transactions_that_may_change_data_says_so(sql: str, writable: bool) -> None:
    (statement,) = inspect(sql, CATALOGUE, FIELDS).statements
    assert (statement.refusal, statement.writable) == (None, writable)


@pytest.mark.parametrize("sql", ["truncate orders, archive.orders restart identity", "lock orders, archive.orders"])
def test_what_is_about_whole_relations_names_them(sql: str) -> None:
    (statement,) = inspect(sql, CATALOGUE, FIELDS).statements
    truncates = sql.startswith("truncate")
    assert statement.refusal is None
    assert statement.facts.writes == {"public.orders", "archive.orders"}
    assert statement.facts.effects == {Effect.WRITE if truncates else Effect.ADMIN}
    assert statement.facts.missing_where == (statement.facts.writes if truncates else set())
    with pytest.raises(Refusal):
        inspect(sql.replace("archive.orders", "nothing"), CATALOGUE, FIELDS)


def with_sequences() -> Catalogue:
    made = [
        Relation(16409, "public", "orders_id_seq", "S", False, False, (), owner=16401),
        Relation(16410, "archive", "tally", "S", False, False, ()),
        Relation(16411, "public", "Tally", "S", False, False, ()),
    ]
    return replace(
        CATALOGUE,
        by_oid={**CATALOGUE.by_oid, **{one.oid: one for one in made}},
        relations={**CATALOGUE.relations, **{(one.schema, one.name): one for one in made}},
    )


@pytest.mark.parametrize(
    ("sql", "verbs"),
    [
        ("select 1", ""),
        ("select id from orders for update", ""),
        ("delete from orders where id = 1", "DELETE"),
        ("with a as (delete from orders where id = 1 returning id) select id from a", "DELETE"),
        ("with a as (update orders set note = '' where id = 1) insert into orders values (2)", "INSERT UPDATE"),
        ("explain analyze delete from orders where id = 1", "DELETE"),
        ("explain update orders set note = ''", "UPDATE"),
        ("copy (delete from orders where id = 1 returning id) to stdout", "DELETE"),
        ("prepare p as delete from orders where id = $1", "DELETE"),
        ("insert into orders values (1) on conflict (id) do update set note = ''", "INSERT UPDATE"),
        ("insert into orders values (1) on conflict (id) do nothing", "INSERT"),
        ("merge into orders o using typed t on o.id = t.total_of when matched then delete", "DELETE MERGE"),
        (
            "merge into orders o using typed t on o.id = t.total_of when matched then update set note = '' "
            "when not matched then insert values (1)",
            "INSERT MERGE UPDATE",
        ),
        ("copy orders from stdin", ""),
        ("truncate orders", ""),
    ],
)
def test_every_change_within_a_statement_is_a_fact(sql: str, verbs: str) -> None:
    (statement,) = inspect(sql, CATALOGUE, FIELDS).statements
    assert statement.facts.does == set(verbs.split())


_EVERY = {"public.orders", "archive.tally", "public.Tally"}


@pytest.mark.parametrize(
    ("sql", "counted"),
    [
        ("select nextval('orders_id_seq')", {"public.orders"}),
        ("select pg_catalog.setval(' Public . orders_ID_seq '::regclass, 7)", {"public.orders"}),
        ("select setval('archive.tally'::text, 7, true)", {"archive.tally"}),
        ("""select nextval('"Tally"')""", {"public.Tally"}),
        ("""select nextval('public."Tally"')""", {"public.Tally"}),
        ("select setval(pg_get_serial_sequence('orders', 'id'), max(id)) from orders", {"public.orders"}),
        ("select nextval('tally')", _EVERY),
        ("select nextval('16410')", _EVERY),
        ("select nextval($1)", _EVERY),
        ("select nextval(note) from orders", _EVERY),
        ("select nextval('orders_id_seq' || '')", _EVERY),
        ("insert into people (id) values (nextval('archive.tally'))", {"archive.tally", "public.people"}),
        ("select id from orders where id = nextval('archive.tally')", {"archive.tally"}),
    ],
)
def test_a_sequence_counts_as_the_table_that_it_numbers(sql: str, counted: set[str]) -> None:
    (statement,) = inspect(sql, with_sequences(), FIELDS).statements
    assert statement.facts.writes == counted


def test_where_nothing_is_masked_an_unknown_sequence_counts_by_every_name_that_it_could_have() -> None:
    covered = tuple({f"{relation.schema}.*" for relation in CATALOGUE.relations.values()})
    (statement,) = inspect("select nextval('made_before')", CATALOGUE, {}, covers=covered).statements
    assert statement.facts.writes == {"public.made_before"}


@pytest.mark.parametrize("sql", ["listen news", "do $$ begin end $$"])
def test_what_could_bring_anything_passes_only_where_nothing_is_masked(sql: str) -> None:
    assert refused(sql).rule == "statement-kind"
    covered = tuple({f"{relation.schema}.*" for relation in CATALOGUE.relations.values()})
    (statement,) = inspect(sql, CATALOGUE, {}, covers=covered).statements
    assert statement.refusal is None


def test_redaction_leaves_no_literal_and_no_comment() -> None:
    sql = "select 'a', E'b', U&'c', $$d$$, x'ff', b'1', 12, 1.5e3 /* e */ from t where a = $1 -- f"
    assert redact(sql) == "select ?, ?, ?, ?, ?, ?, ?, ? from t where a = $1"
    assert redact("select 'unterminated") == "(a statement that does not scan)"


@given(st.text(max_size=200))
def test_any_text_is_inspected_or_refused(sql: str) -> None:
    try:
        inspect(sql, CATALOGUE, FIELDS)
    except Refusal:
        return


_WORDS = """
    select from customers c ssn * ( ) , . only table as with union join using where = 1 'x' orders public explain copy
    to stdout lateral tablesample system for update set insert into values returning exists ::text
""".split()


@given(st.lists(st.sampled_from(_WORDS), max_size=14).map(" ".join))
def test_a_masked_relation_never_stands_bare_in_what_is_forwarded(sql: str) -> None:
    try:
        inspection = inspect(sql, CATALOGUE, FIELDS)
    except Refusal:
        return
    if any(statement.refusal or statement.facts.writes for statement in inspection.statements):
        return
    bare = inspection.rewritten
    for only in ("", "ONLY "):
        bare = bare.replace(f'FROM {only}"public"."customers" AS t', "")
    assert '"public"."customers"' not in bare


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
