"""Statements that change data: what they change, and that they give nothing masked away."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.sql.catalogue import Catalogue, Relation
from broker.sql.inspect import inspect
from broker.sql.model import Refusal, Terms
from policies.engine.decisions import Effect
from tests.unit.broker.sql.shop import CATALOGUE, FIELDS, refused


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
        "upper(old.ssn)",
        "ssn, old",
        "customers.ssn",
        "*, ctid",
        "c.nope, *",
    ],
)
def test_what_else_returning_could_tell_of_masked_fields_is_refused(said: str) -> None:
    assert refused(f"update customers c set name = 'x' where id = 1 returning {said}").rule == "write-reads-masked"


@pytest.mark.parametrize(
    "said",
    [
        "ssn = ''",
        "customers is null",
        "customers::text ~ 'x'",
        "customers.to_jsonb ->> 'ssn' = ''",
        "(customers.*) is null",
    ],
)
def test_what_a_copy_takes_in_is_not_chosen_by_the_defaults_of_masked_fields(said: str) -> None:
    assert refused(f"copy customers (id, name) from stdin where {said}").rule == "write-reads-masked"
    inspect("copy customers (id, ssn) from stdin where customers.id > 1 and name is null", CATALOGUE, FIELDS)


_CAST = replace(CATALOGUE, relations=dict(CATALOGUE.relations))
_CAST.relations["public", "orders"] = replace(_CAST.relations["public", "orders"], row_casts=True)


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("update typed set total_of = 1 returning pair", "type of public.typed.pair"),
        ("update typed t set total_of = 1 where t.pair::text > 'a'", "type of public.typed.pair"),
        ("delete from typed returning typed", "type of public.typed.pair"),
        ("insert into typed (total_of) values (1) returning (typed).pair::text", "type of public.typed.pair"),
        ("delete from orders returning orders::text", "casts of public.orders"),
        ("update orders set note = orders", "casts of public.orders"),
        ("update orders o set note = '' where o::text > 'a' or (o)::text = ''", "casts of public.orders"),
        (
            "insert into orders values (1) on conflict (id) do update set note = excluded::text",
            "casts of public.orders",
        ),
        (
            "merge into orders o using people p on o.id = p.id when matched and o::text > '' then delete",
            "casts of public.orders",
        ),
        (
            "with gone as (delete from orders returning orders as row) select row::text from gone",
            "casts of public.orders",
        ),
        ("copy orders from stdin where orders::text > 'a'", "casts of public.orders"),
    ],
)
def test_a_write_gives_no_row_of_its_target_to_a_cast_of_users(sql: str, code: str) -> None:
    """In a query a sub-select stands for the relation, whose rows have no cast."""
    with pytest.raises(Refusal, match="run code of this database's own") as raised:
        inspect(sql, _CAST, FIELDS)
    assert raised.value.rule == "type"
    (statement,) = inspect(sql, _CAST, {}, terms=Terms(covers=("*.*",))).statements
    assert code in statement.facts.code


@pytest.mark.parametrize(
    "sql",
    [
        "update orders set note = note where id = 1 returning id, note, orders.note",
        "insert into orders select id from orders on conflict (id) do nothing",
        "insert into typed (total_of) values (1) on conflict do nothing",
        "update typed set pair = null, total_of = 2 where total_of = 1 returning checked",
    ],
)
def test_a_write_that_calls_no_cast_needs_no_rule_about_code(sql: str) -> None:
    inspect(sql, _CAST, FIELDS)
    (statement,) = inspect(sql, _CAST, {}, terms=Terms(covers=("*.*",))).statements
    assert not statement.facts.code


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
        ("delete from orders using customers c where c.id = 1", {"public.orders"}),
        ("update orders set note = c.name from customers c where c.name = 'Ann'", {"public.orders"}),
        ("update orders set note = '' where exists (select 1 from customers where id = 1)", {"public.orders"}),
        ("delete from orders using (select 1 as one) x where one = 1", {"public.orders"}),
        ("merge into orders o using customers c on c.id = 1 when matched then delete", {"public.orders"}),
        (
            "merge into orders o using customers c on c.id = o.id when not matched by source then delete",
            {"public.orders"},
        ),
        ("delete from orders where id = id", {"public.orders"}),
        ("delete from orders o where o.id  = o . id and true", {"public.orders"}),
        ("delete from orders where id = 1 or true", {"public.orders"}),
        ("delete from orders where not (id = 1 and 1 = 0)", {"public.orders"}),
        ("update orders set note = '' where note = 'x' or (id = 1 or 1 = 1)", {"public.orders"}),
        ("merge into orders o using typed t on o.id = t.total_of or true when matched then delete", {"public.orders"}),
        ("delete from orders where id = 1", set()),
        ("delete from orders where true and id = 1", set()),
        ("delete from orders where not (id = 1 or false)", set()),
        ("delete from orders where not not (id = 1 or note = 'x')", set()),
        ("delete from orders where ctid = '(0,1)'", set()),
        ("delete from orders where public.orders.id = 1", set()),
        ("delete from orders o where o is null", set()),
        ("delete from archive.orders where whatever = 1", set()),
        ("delete from orders where exists (select 1 from customers c where c.name = note)", set()),
        ("update orders o set note = '' where exists (select 1 from customers where id = o.id)", set()),
        (
            "merge into orders o using customers c on c.id = o.id when matched then delete "
            "when not matched by source and o.id < 9 then delete when not matched then insert values (1, 'x')",
            set(),
        ),
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
    "sql",
    ["update orders set id = null", "insert into orders values (1)", "copy orders from stdin", "select id from orders"],
)
def test_what_fails_in_what_may_be_changed_and_not_read_is_withheld(sql: str) -> None:
    """The server says which row it was, with its values."""
    changes = not sql.startswith("select")
    assert inspect(sql, CATALOGUE, {}, terms=Terms(covers=("*.*",), but=("public.orders",))).scrub == changes
    assert inspect(sql, CATALOGUE, {}, terms=Terms(covers=("public.people",))).scrub == changes
    assert not inspect(sql, CATALOGUE, {}, terms=Terms(covers=("*.*",), but=("public.people",))).scrub


@pytest.mark.parametrize(
    ("sql", "reads"),
    [
        ("delete from orders where id = 1", False),
        ("insert into orders values (1)", False),
        ("delete from orders where id = 1 returning note", True),
        ("update orders set note = '' where id = 1 returning *", True),
        ("insert into orders values (1) on conflict (id) do update set note = '' returning note", True),
        ("merge into orders o using typed t on o.id = t.total_of when matched then delete returning o.note", True),
    ],
)
def test_returning_reads_what_is_changed(sql: str, reads: bool) -> None:
    (statement,) = inspect(sql, CATALOGUE, FIELDS).statements
    assert statement.facts.effects == {Effect.WRITE, *([Effect.READ] if reads else [])}


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
    (statement,) = inspect("select nextval('made_before')", CATALOGUE, {}, terms=Terms(covers=covered)).statements
    assert statement.facts.writes == {"public.made_before"}
