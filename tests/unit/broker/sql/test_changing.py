"""Which changes of the schema may pass where something is masked or hidden, and what comes behind them."""

from __future__ import annotations

import re

import pytest

from broker.sql.catalogue import Catalogue
from broker.sql.inspect import inspect
from broker.sql.model import Altered, Refusal, Terms
from policies.engine.decisions import Effect, FieldView, RelationFields
from tests.unit.broker.sql.ddl_shop import ADMIN, EVERY, IN_CLEAR, parts, statement, with_table
from tests.unit.broker.sql.shop import CATALOGUE, FIELDS

HARMLESS = """
    create table t (id int primary key, name text not null default 'x', n numeric(10, 2) unique)
    create table if not exists archive.t (id bigint generated always as identity, at timestamptz[], unique (id))
    create unlogged table t (m mood)
    create table t (id text default gen_random_uuid()::text, at timestamptz default now(), d date default current_date)
    create table t (at timestamp default (now() at time zone 'utc'), j jsonb default '{}'::jsonb)
    create table t (tags text[] default '{}'::text[] not null, n numeric(5, 2) default 0::numeric(5, 2))
    alter table orders add column at timestamptz not null default current_timestamp
    drop table if exists none_such, archive.none_such
    alter table orders add column x int default 3
    alter table orders add if not exists x varchar(3), drop column if exists y
    drop table archive.orders_old
    create index on orders (id)
    create unique index concurrently i on public.orders using hash (id) include (note)
    comment on table orders is 'x'
    comment on column public.orders.note is 'it''s'
    create table t as select id, note from orders
    create table t as select * from customers
    select ssn into t from customers
""".strip().split("\n")
MASKED = """
    create table customers (id int)
    create table archive.customers (id int)
    create table archive.staff (id int)
    create table people2 (id int); select 1
    create temp table t (id int)
    create temp table t as select * from customers
    create table pg_temp.t (id int)
    create table t (like customers)
    create table t (like orders)
    create table t (id int) inherits (people)
    create table t partition of customers for values in (1)
    create table t (id int references customers)
    create table t (id int check (id > 0))
    create table t (x text default (select ssn from customers limit 1))
    create table t (x text default upper('x'))
    create table t (x text default upper(now()::text))
    create table t (x text default current_user)
    create table t (x text default archive.now())
    create table t (x text default now(1) filter (where true))
    create table t (x text default 'x'::checked)
    create table t (x text default gen_random_uuid()::uuid::text)
    create table t (x text default timezone('utc', (select now())))
    create table t (x text default array[now()])
    drop table if exists customers
    drop table if exists none_such, customers
    drop table if exists archive.staff
    create table t (x text generated always as (y || 'x') stored, y text)
    create table t (x checked)
    create table t (x customers.ssn%type)
    create table t of mood
    create table t (id int) with (fillfactor = 10)
    create table t (exclude using gist (id with =))
    create table customers as select 1 as id
    select 1 into customers
    create materialized view m as select id from orders
    create view v as select id from orders
    create view v as select * from customers
    create or replace view order_totals as select ssn from customers
    alter table customers add column x int
    alter table customers drop column salary
    alter table staff add column x int
    alter table people drop column ssn
    alter table orders rename to customers
    alter table orders rename to o2
    alter table customers rename to c2
    alter table orders rename column note to n
    alter table customers rename column ssn to id2
    alter table orders set schema archive
    alter table orders alter note type text using (select ssn from customers limit 1)
    alter table orders alter note type text
    alter table orders alter note set default 'x'
    alter table orders add check (note <> 'x')
    alter table orders add foreign key (id) references customers
    alter table orders attach partition customers for values in (1)
    alter table customers attach partition orders default
    alter table orders inherit customers
    alter table orders drop column note cascade
    alter table orders drop column total_of
    alter table orders add x int, rename to y
    alter table orders enable row level security
    alter table orders owner to x
    alter view order_totals set (security_invoker)
    alter view orders add x int
    drop table customers
    drop table orders cascade
    drop table people
    drop view order_totals
    drop schema archive cascade
    drop index i
    create index on customers (ssn)
    create unique index on customers (id)
    create index on orders (lower(note))
    create index on orders (id) where note > 'x'
    create index on orders (note text_pattern_ops)
    create index on orders using mine (note)
    create function f() returns text language sql as 'select ssn from customers'
    create trigger tr after insert on orders execute function f()
    create rule r as on insert to orders do also select * from customers
    create policy p on orders using (exists (select from customers where ssn = note))
    comment on table customers is 'x'
    comment on column customers.ssn is 'x'
    comment on function spent(int) is 'x'
    refresh materialized view m
    create statistics st on id, note from orders
    cluster customers using i
    vacuum
    vacuum customers
    analyze
    reindex table customers
    grant select on orders to x
    grant select on customers to public
    create extension hstore
    create type feeling as enum ('x')
    alter type mood add value 'x'
    create domain d as text
    create schema app
    create sequence s
    alter sequence s restart
    select id into temp t from orders
    create table t as select pg_get_viewdef(1), airlock.reveal(ssn) from customers
    with x as (select 1) select * into t from x union select ssn from customers into y
""".strip().split("\n")


@pytest.mark.parametrize("sql", [line.strip() for line in HARMLESS])
def test_what_can_tell_nothing_passes_where_something_is_masked(sql: str) -> None:
    catalogue = with_table("archive.orders_old")
    (one,) = inspect(sql, catalogue, FIELDS, terms=Terms(covers=EVERY)).statements
    assert one.refusal is None, one.refusal and one.refusal.message
    assert one.facts.effects - {Effect.READ} == ({Effect.WRITE} if sql.startswith("truncate") else {Effect.DDL})


@pytest.mark.parametrize("sql", [line.strip() for line in MASKED])
@pytest.mark.parametrize("covers", [EVERY, ("public.*",), ()])
def test_what_could_tell_is_refused_where_something_is_masked(sql: str, covers: tuple[str, ...]) -> None:
    try:
        found = inspect(sql, CATALOGUE, FIELDS, terms=Terms(covers=covers))
    except Refusal:
        return
    refusals = [one.refusal for one in found.statements if one.refusal]
    assert refusals, found.rewritten


@pytest.mark.parametrize("line", [*IN_CLEAR, *ADMIN])
def test_one_relation_that_is_hidden_leaves_only_what_is_harmless(line: str) -> None:
    sql, _, _ = parts(line)
    if sql.startswith(
        ("create table t as", "select id into", "comment on table orders", "create table t (id int prim")
    ):
        return
    with pytest.raises(Refusal):
        statement(sql, covers=("public.*",))


def test_what_a_rule_lets_nobody_read_closes_its_own_changes_and_not_all() -> None:
    def refused(sql: str, catalogue: Catalogue = CATALOGUE) -> bool:
        (one,) = inspect(sql, catalogue, {}, terms=Terms(covers=EVERY, but=("public.people",))).statements
        assert one.refusal is None or one.refusal.rule == "ddl-masked"
        return one.refusal is not None

    for sql in ("alter table orders add x int", "create table t (id int)", "create index on orders (note)"):
        assert not refused(sql)
    for name in ("people", "staff"):  # One is a child of the other.
        assert refused(f"alter table {name} add x int")
        assert refused(f"drop table {name}")
    assert refused("create table archive.people (id int)")
    assert refused("drop table archive.people", with_table("archive.people", ("pg_catalog", "archive", "public")))
    assert refused("create view v as select 1")
    assert (
        "pg_get_viewdef("
        not in inspect("select pg_get_viewdef(1)", CATALOGUE, {}, terms=Terms(covers=EVERY, but=("x.y",))).rewritten
    )


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("create table t as execute p", "CREATE TABLE AS EXECUTE is not passed"),
        ("create schema s create view v as select 1", "this form of CREATE SCHEMA is not passed"),
        ("create schema s grant select on orders to public", "this form of CREATE SCHEMA is not passed"),
        ("alter index orders_note set (fillfactor = 50)", "only tables are altered"),
        ("alter index none_known set (fillfactor = 50)", "only tables are altered"),
        ("do 'begin end'; select 1", "DO runs code that cannot be inspected"),
        ("listen news", "seen, so it passes only where nothing is masked or hidden"),
        ("do 'begin end'; do 'begin end'; commit; select * from customers", "DO runs code that cannot be inspected"),
    ],
)
def test_what_is_refused_as_a_whole_is_refused_in_its_own_words(sql: str, said: str) -> None:
    found = inspect(sql, CATALOGUE, FIELDS, terms=Terms(covers=EVERY))
    refusals = [one.refusal.message for one in found.statements if one.refusal]
    assert refusals
    assert all(said in one for one in refusals), refusals


def test_new_tables_hold_masked_values() -> None:
    for sql in ("create table t as select ssn from customers", "select ssn into t from customers"):
        found = inspect(sql, CATALOGUE, FIELDS, terms=Terms(covers=EVERY))
        assert "'***'" in found.rewritten
        assert found.scrub
        assert found.statements[0].facts.masked == {"public.customers.ssn"}


def test_a_table_is_not_taken_away_from_before_a_hidden_one() -> None:
    path = ("pg_catalog", "archive", "public")
    for catalogue, covers in (
        (with_table("archive.customers", path), EVERY),
        (with_table("archive.orders_2024", path), ("archive.*", "public.customers")),
    ):
        name = next(one.qualified for one in catalogue.by_oid.values() if one.oid == 17000)
        (one,) = inspect(f"drop table {name}", catalogue, FIELDS, terms=Terms(covers=covers)).statements
        assert one.refusal is not None
        assert one.refusal.rule == "ddl-masked"


AFTER = (
    "select 1",
    "select * from orders",
    "insert into orders values (1)",
    "fetch c",
    "execute p",
    "begin",
    "show work_mem",
    "alter table orders add x int",
    "declare c cursor for select 1",
    "copy orders to stdout",
)


@pytest.mark.parametrize("sql", AFTER)
def test_a_change_under_masks_is_committed_before_anything_else_is_decided(sql: str) -> None:
    for altered in (Altered.SCHEMA, Altered.CODE):
        with pytest.raises(Refusal) as raised:
            inspect(sql, CATALOGUE, FIELDS, terms=Terms(covers=EVERY, altered=altered))
        assert raised.value.rule == "ddl-transaction"
        assert "COMMIT" in (raised.value.hint or "")
    for control in ("commit", "rollback", "savepoint s", "rollback to s", "release s"):
        assert inspect(control, CATALOGUE, FIELDS, terms=Terms(covers=EVERY, altered=Altered.SCHEMA))


def test_a_rule_that_masks_for_others_only_leaves_the_schema_open() -> None:
    fields: FieldView = {"public.customers": RelationFields(clear=frozenset({"id"}), others=None)}
    assert statement("drop table customers", fields).facts.writes == {"public.customers"}


def test_nothing_of_a_statement_is_told_by_its_refusal() -> None:
    for sql in MASKED:
        try:
            found = inspect(sql.strip(), CATALOGUE, FIELDS, terms=Terms(covers=EVERY))
            refusals = [one.refusal for one in found.statements if one.refusal]
        except Refusal as refusal:
            refusals = [refusal]
        for refusal in refusals:
            assert not re.search(r"'x'|it's", refusal.message)
