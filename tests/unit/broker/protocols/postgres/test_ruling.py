"""The ruling on a text: what a denial tells a person to do next."""

from functools import cache
from typing import Any

import pytest

from broker.protocols.postgres.ruling import Denied, Subject, refused, rule
from broker.sql.building import build
from broker.sql.catalogue_queries import QUERIES
from broker.sql.inspect import inspect
from broker.sql.model import Refusal
from policies.engine.load import read_texts
from policies.engine.model import Policy

POLICY = """
groups: {devs: "", dbas: ""}
people:
  alice: {name: Alice, groups: [devs]}
  bob: {name: Bob, groups: [dbas]}
resources:
  prod-db:
    protocol: postgres
    upstream: {host: 127.0.0.1, port: 1, database: shop, tls: disable}
    roles:
      read: {credential: "file:x", relations: [public.orders]}
      write: {credential: "file:x", relations: [public.orders, public.wages]}
access:
  - {id: read, decision: allow, resources: [prod-db], roles: [read]}
  - {id: write, decision: ask, resources: [prod-db], roles: [write], groups: [devs], max_duration: 15m,
     reviewers: {count: 1, groups: [dbas]}}
statements:
  - {id: reads, decision: allow, effects: [read, session]}
  - {id: writes, decision: allow, roles: [write], effects: [write]}
"""
WRITE = "delete from orders"
LINE = "/access prod-db write 15m"
ELSE = "`/access` shows what you may ask for"


@cache
def policy(*changes: tuple[str, str]) -> Policy:
    text = POLICY
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return read_texts({"test.yaml": text})


def relation(oid: int, name: str) -> dict[str, Any]:
    kind = {"kind": "r", "rules": False, "row_security": False}
    return {"oid": oid, "schema": "public", "name": name, **kind}


ROWS: dict[str, list[dict[str, Any]]] = {
    **{name: [] for name in QUERIES},
    "relations": [relation(1, "orders"), relation(2, "wages")],
}
CATALOGUE = build(ROWS, ["public"], 150000)


def denial(given: Policy, sql: str, *, person: str = "alice", role: str = "read") -> Denied:
    ruling = rule(given, Subject(person, "prod-db", role), sql, inspect(sql, CATALOGUE, {}))
    assert isinstance(ruling, Denied)
    return ruling


@pytest.mark.parametrize("sql", [WRITE, "select 1; delete from orders", "select * from wages"])
def test_a_denial_names_the_line_for_a_role_under_which_all_of_the_text_could_run(sql: str) -> None:
    assert denial(policy(), sql).hint == LINE


def test_no_line_is_named_for_a_role_that_would_not_let_all_of_it_run() -> None:
    assert denial(policy(), "delete from orders; drop table orders").hint == ELSE
    assert "a role under which nothing is masked may do the rest" in (denial(policy(), "drop table wages").hint or "")
    asked = ("{id: writes, decision: allow, roles: [write], effects: [write]}",
             "{id: writes, decision: ask, roles: [write], effects: [write], reviewers: {groups: [dbas]}}")  # fmt: skip
    assert denial(policy(asked), WRITE).hint == LINE
    assert denial(policy(asked), "copy orders from stdin").hint == ELSE


@pytest.mark.parametrize(
    "sql",
    [
        "select pg_sleep(1)",
        "select 1 operator(public.+) 2",
        "select * from orders for update",
        "create table x (a int default random())",
        "vacuum",
        "explain (settings, wrong) select 1",
        "prepare transaction 'x'",
        "copy orders to stdout (wrong)",
        "copy orders to '/tmp/x'",
        "set role postgres",
        "set transaction read write",
        "select (((" + "(" * 200 + "1" + ")" * 200 + ")))",
        "delete from orders where current of c",
    ],
)
def test_every_denial_says_which_rule_why_and_what_would_work(sql: str) -> None:
    try:
        found = denial(policy(), sql)
    except Refusal as refusal:
        found = refused(refusal, "")
    assert found.rules
    assert found.message
    assert found.hint


def test_a_session_makes_its_transactions_writable_where_some_rule_lets_its_role_change_something() -> None:
    sql = "begin read write"
    assert "its role decides that" in denial(policy(), sql).message
    assert not isinstance(
        rule(policy(), Subject("alice", "prod-db", "write"), sql, inspect(sql, CATALOGUE, {})), Denied
    )


def test_no_line_is_named_for_a_role_that_this_person_cannot_get() -> None:
    assert denial(policy(), WRITE, person="bob").hint == ELSE
    nobody = policy(("  bob: {name: Bob, groups: [dbas]}\n", ""))
    assert denial(nobody, WRITE).hint == ELSE


def test_a_role_that_does_not_cover_a_table_says_what_it_covers_where_no_other_helps() -> None:
    found = denial(policy(), "select * from wages", person="bob")
    assert found.hint == "read covers: public.orders"


def test_what_a_rule_of_the_policy_says_to_do_next_stands() -> None:
    forbidden = "  - {id: frozen, decision: deny, roles: [read], effects: [write, ddl], message: frozen, hint: wait}\n"
    spoken = read_texts({"test.yaml": POLICY + forbidden})
    for sql in (WRITE, "drop table orders"):
        found = denial(spoken, sql)
        assert (found.message, found.hint, found.rules) == ("frozen", "wait", ("frozen",))
