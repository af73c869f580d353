"""Which changes of the schema may pass where nothing is masked, and what rules say of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.sql.catalogue import Referrer, Relation
from broker.sql.inspect import inspect
from broker.sql.model import Altered, Refusal, Terms
from policies.engine.decide import decide_statement
from policies.engine.decisions import Allow, Ask, Deny, Effect
from policies.engine.load import read_texts
from tests.unit.broker.sql.ddl_shop import ADMIN, EVERY, IN_CLEAR, parts, statement
from tests.unit.broker.sql.shop import CATALOGUE, FIELDS

CODE = """
    create function f(a int) returns int language sql as 'select 1'
    create or replace function f() returns trigger language plpgsql set search_path = public as $$begin end$$
    create procedure p() language plpgsql as $$begin end$$
    alter function spent(int) immutable
    alter function spent(int) rename to spent2
    create trigger tr after insert on orders for each row when (new.id > 1) execute function f('x')
    drop trigger tr on orders
    alter table orders disable trigger all
    create rule r as on insert to orders do also insert into archive.orders values (1)
    create policy p on orders using (id = 1)
    drop policy p on orders
    create aggregate total(int) (sfunc = int4pl, stype = int)
    create operator <+> (leftarg = int, rightarg = int, function = f)
    create cast (int as mood) with function f(int)
    create type r as range (subtype = int, subtype_diff = f)
    create table t (c checked)
    create index on orders (spent2(id))
    select 1 <+> 2
    select id from secrets
    copy secrets to stdout
    copy secrets (id) to stdout
    copy typed to stdout
    select app.f(1)
    select f2(1)
    select 'x'::checked
    insert into typed select pair from typed
""".strip().split("\n")
NEVER = """
    alter system set work_mem = '1GB'
    create role x
    alter role x password 'x'
    drop role x
    grant admins to alice
    set role postgres
    set session authorization postgres
    create function f() returns int language sql security definer as 'select 1'
    alter function spent(int) security definer
    create function f() returns int language plpython3u as 'return 1'
    create function f() returns int language c as 'x', 'y'
    create function f() returns int as 'select 1'
    create function f() returns int language sql set role = postgres as 'select 1'
    create event trigger e on ddl_command_start execute function f()
    create server s foreign data wrapper postgres_fdw
    create user mapping for x server s
    create foreign table f (a int) server s
    create foreign data wrapper w
    import foreign schema s from server x into public
    create extension dblink
    create extension file_fdw
    create extension plpython3u
    create language plperl
    load 'x'
    copy orders to program 'x'
    copy orders from '/etc/passwd'
    create publication p for all tables
    create subscription s connection 'x' publication p
    create tablespace t location '/tmp'
    create database d
    drop database d
    alter database d set search_path = x
    comment on database d is 'x'
    comment on role r is 'x'
    grant connect on database d to x
    grant usage on foreign server s to x
    reassign owned by a to b
    drop owned by a
    reindex database d
    reindex system d
    create access method m type index handler h
    create operator class c for type int using btree as operator 1 <
    create text search dictionary d (template = simple)
    create type b (input = f, output = f)
    create table pg_catalog.t (id int)
    create table information_schema.t (id int)
    create table pg_temp_3.t (id int)
    create schema pg_x
    drop schema pg_catalog cascade
    alter table pg_class add x int
    drop table pg_catalog.pg_class
    create table "a.b".t (id int)
    create table t (x text default pg_read_file('/etc/passwd'))
    create view v as select pg_read_file('x')
    create view v as select * from pg_statistic
    create index on orders (pg_read_file(note))
    create table t as select lo_import('x')
    create table t as execute p
    create policy p on orders using (current_setting('app.tenant') = note)
    create schema app create table t (id int)
    alter default privileges grant select on tables to x
    security label on table orders is 'x'
    alter type pair alter attribute a type text, drop attribute b; alter system reset all
""".strip().split("\n")


@pytest.mark.parametrize("line", IN_CLEAR)
def test_where_nothing_is_masked_the_schema_is_changed_under_its_names(line: str) -> None:
    sql, writes, reads = parts(line)
    facts = statement(sql).facts
    assert facts.writes == writes - {"archive.spent"}
    assert facts.reads == reads
    assert facts.effects == {Effect.DDL} | ({Effect.READ} if reads else set())
    assert not facts.code


@pytest.mark.parametrize(
    ("sql", "writes"),
    [
        ("drop index orders_note", {"public.orders"}),
        ("drop index concurrently if exists public.orders_note", {"public.orders"}),
        ("drop index orders_note, none_known", {"public.orders", "public.none_known"}),
        ("alter index orders_note rename to customers_note", {"public.orders"}),
        ("alter index orders_note set (fillfactor = 50)", {"public.orders"}),
        ("comment on index orders_note is 'x'", {"public.orders"}),
        ("reindex index orders_note", {"public.orders"}),
        ("cluster orders using orders_note", {"public.orders"}),
        # What is no index for certain counts by its name, too.
        ("alter table orders_note rename to x", {"public.orders", "public.orders_note", "public.x"}),
        ("drop type orders_note", {"public.orders", "public.orders_note"}),
    ],
)
def test_an_index_counts_as_the_table_that_it_is_of(sql: str, writes: set[str]) -> None:
    catalogue = replace(CATALOGUE, indexed={"public.orders_note": "public.orders"})
    (found,) = inspect(sql, catalogue, {}, terms=Terms(covers=EVERY)).statements
    assert found.facts.writes == writes
    (later,) = inspect(sql, catalogue, {}, terms=Terms(covers=EVERY, altered=Altered.SCHEMA)).statements
    assert later.facts.writes >= writes
    assert "public.orders_note" in later.facts.writes or sql.startswith("cluster")


@pytest.mark.parametrize("sql", ["alter sequence orders_seq restart", "drop sequence orders_seq cascade"])
def test_a_sequence_counts_as_the_table_that_it_numbers_too(sql: str) -> None:
    made = Relation(16410, "public", "orders_seq", "S", False, False, (), owner=16401)
    catalogue = replace(
        CATALOGUE,
        by_oid={**CATALOGUE.by_oid, 16410: made},
        by_name={**CATALOGUE.by_name, made.qualified: made},
        relations={**CATALOGUE.relations, ("public", made.name): made},
    )
    (found,) = inspect(sql, catalogue, {}, terms=Terms(covers=EVERY)).statements
    assert found.facts.writes == {"public.orders_seq", "public.orders"}


@pytest.mark.parametrize(
    ("sql", "through"),
    [
        ("drop table orders cascade", {"public.people"}),
        ("alter table orders drop column id cascade", {"public.people"}),
        ("drop table orders", set()),
    ],
)
def test_what_loses_a_key_to_a_cascade_is_touched(sql: str, through: set[str]) -> None:
    parent = CATALOGUE.relations["public", "orders"]
    key = Referrer(16406, "a", "a", frozenset({1}), frozenset({1}))
    made = replace(parent, referrers=(key,))
    catalogue = replace(
        CATALOGUE,
        by_oid={**CATALOGUE.by_oid, parent.oid: made},
        relations={**CATALOGUE.relations, ("public", "orders"): made},
    )
    (found,) = inspect(sql, catalogue, {}, terms=Terms(covers=EVERY)).statements
    assert {name for name in found.facts.through if name != "public.order_totals"} == through


@pytest.mark.parametrize(
    ("sql", "coded"),
    [
        ("create index on orders (id, note public.loud_ops desc)", True),
        ("create table t (a int) partition by range (a loud_ops)", True),
        ("alter table orders add exclude using gist (note loud_ops with =)", True),
        ("create index on orders (note text_pattern_ops)", False),
    ],
)
def test_an_operator_class_of_users_is_code(sql: str, coded: bool) -> None:
    catalogue = replace(CATALOGUE, operators=CATALOGUE.operators | {("public", "loud_ops")})
    (found,) = inspect(sql, catalogue, {}, terms=Terms(covers=EVERY)).statements
    assert found.facts.code == ({"operator class loud_ops"} if coded else set())


@pytest.mark.parametrize("line", ADMIN)
def test_rights_and_upkeep_are_administration(line: str) -> None:
    sql, writes, _ = parts(line)
    facts = statement(sql).facts
    assert facts.writes == writes - {"archive.spent"}
    assert Effect.ADMIN in facts.effects


@pytest.mark.parametrize("sql", [line.strip() for line in CODE])
def test_code_of_users_is_said_to_be_code(sql: str) -> None:
    assert statement(sql).facts.code
    try:
        assert statement(sql, FIELDS).facts.code, "it passed where something is masked"
    except Refusal:
        return
    raise AssertionError(sql)


@pytest.mark.parametrize("sql", [line.strip() for line in NEVER])
def test_what_reaches_beyond_the_database_is_refused_whatever_is_masked(sql: str) -> None:
    for fields in ({}, FIELDS):
        try:
            found = inspect(sql, CATALOGUE, fields, terms=Terms(covers=EVERY))
        except Refusal:
            continue
        assert any(one.refusal for one in found.statements), sql


MADE = """
    create view v as select id from archive.orders; delete from v -> held
    alter view order_totals rename to v; delete from v -> held
    alter table order_totals set schema archive; update orders set id = 1 -> held
    alter view order_totals rename to v; alter table orders rename to o; delete from orders -> held
    create table t (id int); create view v as select id from t; insert into t values (1) -> held
    create view v as select id from archive.orders; update orders set id = 1 where id = 2 -> passed
    create table t (id int); insert into t values (1) -> passed
    alter table orders rename to o; insert into o values (1) -> passed
""".strip().split("\n")


@pytest.mark.parametrize("line", MADE)
def test_a_view_made_in_a_transaction_leads_around_no_rule(line: str) -> None:
    """A rule asks about changes of archive.orders; the catalogue does not know yet what is in front of it."""
    sql, _, wanted = line.strip().partition(" -> ")
    *_, last = inspect(sql, CATALOGUE, {}, terms=Terms(covers=EVERY)).statements
    rules = """
groups: {devs: "", dbas: ""}
people: {ann: {name: Ann, groups: [devs]}, bob: {name: Bob, groups: [dbas]}}
resources:
  db: {protocol: postgres, upstream: {host: h, port: 1, database: d, tls: disable},
       roles: {write: {credential: "file:x", relations: ["*.*"]}}}
statements:
  - {id: all, decision: allow, effects: [read, write, ddl]}
  - {id: orders, decision: ask, effects: [write], relations: [archive.orders], reviewers: {count: 1, groups: [dbas]}}
"""
    decided = decide_statement(read_texts({"test.yaml": rules}), "ann", "db", "write", last.facts)
    assert isinstance(decided, Ask if wanted == "held" else Allow)


@pytest.mark.parametrize(
    "sql",
    [
        "create temp view v as select id from archive.orders",
        "create view pg_temp.v as select id from archive.orders",
        "create view v as select id from archive.orders where exists (select from held_here)",
        "create view v as select o.id from archive.orders o, pg_temp.held_here",
    ],
)
def test_a_view_of_the_sessions_own_is_code(sql: str) -> None:
    assert statement(sql).facts.code


def test_what_a_new_table_is_made_from_has_its_own_effects() -> None:
    facts = statement("create table t as with x as (delete from archive.orders returning id) select * from x").facts
    assert facts.effects == {Effect.DDL, Effect.READ, Effect.WRITE}
    assert facts.writes == facts.missing_where | {"public.t"} == {"public.t", "archive.orders"}
    with pytest.raises(Refusal) as raised:
        statement("create table t as with x as (delete from customers returning ssn) select * from x", FIELDS)
    assert raised.value.rule == "write-reads-masked"
    (call,) = statement("create table t as select nextval('s') as n").facts.calls
    assert (str(call), call.acting) == ("nextval", True)


def test_where_nothing_is_masked_names_that_are_not_known_yet_pass_under_every_name_that_they_could_have() -> None:
    facts = statement("insert into new_one select id from other.newer").facts
    assert (facts.writes, facts.reads) == ({"public.new_one"}, {"other.newer"})
    two = replace(CATALOGUE, path=("pg_catalog", "public", "archive"), version="two schemas")
    (one,) = inspect("select * from new_one", two, {}, terms=Terms(covers=EVERY)).statements
    assert one.facts.reads == {"public.new_one", "archive.new_one"}
    (one,) = inspect("select * from orders", two, {}, terms=Terms(covers=EVERY)).statements
    assert one.facts.reads == {"public.orders"}
    (one,) = inspect("select * from orders", two, {}, terms=Terms(covers=EVERY, altered=Altered.SCHEMA)).statements
    assert one.facts.reads == {"public.orders", "archive.orders"}
    assert statement("insert into pg_temp.t values (1)").facts.writes == set()


@pytest.mark.parametrize(
    "sql", ["select * from pg_temp_7.t", "select * from pg_catalog.nothing", 'select * from "a.b".c']
)
def test_names_of_the_servers_own_are_not_guessed(sql: str) -> None:
    with pytest.raises(Refusal):
        statement(sql)


def test_after_code_was_defined_everything_in_its_transaction_counts_as_code() -> None:
    assert not statement("select lower('x')", altered=Altered.SCHEMA).facts.code
    assert statement("select lower('x')", altered=Altered.CODE).facts.code
    assert not statement("commit", altered=Altered.CODE).facts.code
    text = "create function f() returns int language sql as 'select 1'; select lower('x'); create table t (id int)"
    found = inspect(text, CATALOGUE, {}, terms=Terms(covers=EVERY)).statements
    assert all(one.facts.code for one in found)


@pytest.mark.parametrize("sql", ["vacuum", "vacuum full", "analyze", "cluster"])
def test_upkeep_of_everything_is_under_rules_about_each_relation(sql: str) -> None:
    every = {one.qualified for one in CATALOGUE.by_oid.values() if not one.system}
    assert statement(sql, covers=EVERY).facts.writes == every


def test_upkeep_of_the_servers_own_tables_is_under_rules_about_them() -> None:
    known = next(one for one in CATALOGUE.by_oid.values() if one.system)
    assert statement(f"vacuum (analyze) {known.qualified}", covers=EVERY).facts.writes == {known.qualified}
    with pytest.raises(Refusal, match="is not changed by hand"):
        statement(f"reindex table {known.qualified}", covers=EVERY)


POLICY = """
groups: {engineers: "", dbas: ""}
people: {alice: {name: Alice, groups: [engineers]}, bob: {name: Bob, groups: [dbas]}}
resources:
  db:
    protocol: postgres
    upstream: {host: h, port: 1, database: d}
    roles: {admin: {credential: "file:x", relations: ["*.*"]}, some: {credential: "file:x", relations: ["public.*"]}}
access: []
statements:
  - {id: reads, decision: allow, effects: [read, session]}
  - {id: writes, decision: allow, effects: [write]}
  - {id: schema, decision: ask, effects: [ddl], reviewers: {groups: [dbas]}}
  - {id: no-drop, decision: deny, verbs: [DROP TABLE], relations: [public.orders], message: never}
"""
CODED = POLICY + "  - {id: code, decision: allow, effects: [read, write, ddl], functions: ['*.*']}\n"
FIELDED = CODED + "fields:\n  - {id: f, resource: db, relation: public.customers, clear: [id]}\n"


def decided(sql: str, policy: str = POLICY, role: str = "admin") -> str:
    decision = decide_statement(read_texts({"x.yaml": policy}), "alice", "db", role, statement(sql).facts)
    match decision:
        case Allow():
            return "allow"
        case Ask():
            return "ask"
        case Deny(rules=rules):
            return rules[0]


def test_rules_decide_about_the_schema_like_about_anything() -> None:
    assert decided("create table t (id int)") == "ask"
    assert decided("create table t as select 1") == "ask"
    assert decided("drop table orders") == "no-drop"
    assert decided("drop schema public cascade") == "ask"
    assert decided("vacuum orders") == "default-admin"
    assert decided("create table archive.t (id int)", role="some") == "resources.db.some"
    assert decided("create schema app", role="some") == "resources.db.some"
    assert decided("create schema app") == "ask"


def test_code_needs_a_rule_about_all_of_it() -> None:
    define = "create function f() returns int language sql as 'select 1'"
    assert decided(define) == "default-code"
    assert decided(define, CODED) == "ask"
    assert decided("select 1 <+> 2") == "default-code"
    assert decided("select 1 <+> 2", CODED) == "allow"
    assert decided("select public.spent('x')") == "default-function"
    assert decided("select public.spent('x')", CODED) == "allow"


def test_a_name_that_was_mistyped_is_told_from_a_right_that_is_missing() -> None:
    facts = statement("select cuont(*) from orders").facts
    denied = decide_statement(read_texts({"x.yaml": POLICY}), "alice", "db", "admin", facts)
    assert isinstance(denied, Deny)
    assert denied.message == "this is about code of this database's own (cuont), and no rule lets it"
    assert (denied.hint or "").startswith("a name that was mistyped counts as such code too; a rule")


def test_a_rule_about_all_code_says_nothing_where_fields_are_masked() -> None:
    assert decided("select public.spent('x')", FIELDED) == "default-function"
    assert decided("select 1 <+> 2", FIELDED) == "default-code"


def test_what_is_written_in_c_is_named_all_the_same() -> None:
    overloads = tuple(
        replace(one, function=replace(one.function, native=True)) for one in CATALOGUE.overloads["public", "spent"]
    )
    catalogue = replace(CATALOGUE, overloads={**CATALOGUE.overloads, ("public", "spent"): overloads}, version="in c")
    (one,) = inspect("select spent(1)", catalogue, {}, terms=Terms(covers=EVERY)).statements
    decision = decide_statement(read_texts({"x.yaml": CODED}), "alice", "db", "admin", one.facts)
    assert isinstance(decision, Deny)
    assert decision.rules == ("default-function",)


def test_constraints_may_be_deferred_where_nothing_is_masked() -> None:
    assert statement("set constraints all deferred").facts.effects == {Effect.SESSION}
