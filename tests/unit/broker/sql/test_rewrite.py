"""The text that is forwarded: what stands in it, and where that stood in the user's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.sql.inspect import inspect
from broker.sql.model import Refusal
from broker.sql.redact import redact
from broker.sql.rewrite import edited, position_in_user_text
from tests.unit.broker.sql.shop import CATALOGUE, FIELDS


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


def test_a_path_that_is_named_behind_a_masked_relation_is_passed() -> None:
    paths = (
        "'$' as whole passing c.id as i columns (o for ordinality, nested path '$.ssn' as n columns (s text path '$'))"
    )
    sql = f"select j.* from customers c, json_table(to_jsonb(c), {paths}) j"
    assert inspect(sql, CATALOGUE, FIELDS).rewritten.endswith(f" c, json_table(to_jsonb(c), {paths}) j")


@pytest.mark.parametrize(
    "sql", ["select system_user from customers", "select id from customers where system_user = 'a'"]
)
def test_a_bare_system_user_is_a_column_to_servers_that_do_not_know_it_as_more(sql: str) -> None:
    customers = CATALOGUE.relations["public", "customers"]
    columns = tuple(replace(one, name="system_user") if one.name == "salary" else one for one in customers.columns)
    customers = replace(customers, columns=columns)
    relations = {**CATALOGUE.relations, ("public", "customers"): customers}
    shop = replace(
        CATALOGUE, version="other", relations=relations, by_oid={**CATALOGUE.by_oid, customers.oid: customers}
    )
    masked = 'NULL::numeric(10,2) AS "system_user"'
    assert masked in inspect(sql, replace(shop, server_version=150_000), FIELDS).rewritten
    assert masked not in inspect(sql, replace(shop, server_version=160_000), FIELDS).rewritten


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


def test_redaction_leaves_no_literal_and_no_comment() -> None:
    sql = "select 'a', E'b', U&'c', $$d$$, x'ff', b'1', 12, 1.5e3 /* e */ from t where a = $1 -- f"
    assert redact(sql) == "select ?, ?, ?, ?, ?, ?, ?, ? from t where a = $1"
    assert redact("select 'unterminated") == "(a statement that does not scan)"


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


@pytest.mark.parametrize(
    "made", ["alter role app", "CREATE USER app LOGIN", "create group app", "select 1; alter user app"]
)
@pytest.mark.parametrize("bare", ["hunter2", "hunter2!x", '"hunter2"', "login hunter2", "= 'a' hunter2"])
def test_a_roles_password_is_hidden_where_its_author_forgot_the_quotes(made: str, bare: str) -> None:
    shown = redact(f"{made} /* new */ password {bare} valid until 'infinity'")
    assert shown == f"{made.replace('1', '?')} password ?"


def test_what_is_no_password_of_a_role_is_shown() -> None:
    for sql in (
        "select password from users",
        "alter role app password null login",
        "alter role app with encrypted password ? login",
        "alter table t add password text",
        "create role password; select hunter2",
    ):
        assert redact(sql.replace("?", "'x'")) == sql
