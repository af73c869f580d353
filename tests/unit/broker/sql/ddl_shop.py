"""Changes of the schema of the invented shop."""

from __future__ import annotations

from dataclasses import replace

from broker.sql.catalogue import Catalogue
from broker.sql.inspect import inspect
from broker.sql.model import Altered, Statement, Terms
from policies.engine.decisions import FieldView
from tests.unit.broker.sql.shop import CATALOGUE

EVERY = ("public.*", "archive.*")

IN_CLEAR = """
    create table t (id int primary key) -> public.t
    create table archive.t (id int references orders(id), x text default 'x' check (x <> '')) -> archive.t public.orders
    create unlogged table if not exists t (like orders including all) -> public.t public.orders
    create table t (g int generated always as (id + 1) stored) inherits (orders) -> public.t public.orders
    create table t (g int) partition by list (g) -> public.t
    create table t partition of orders for values in (1) -> public.t public.orders
    create temp table t (id int) on commit drop ->
    alter table orders add x int, drop note cascade, alter id type bigint using id::bigint -> public.orders
    alter table archive.orders rename to b -> archive.orders archive.b
    alter table orders rename column note to n -> public.orders
    alter table orders set schema archive -> public.orders archive.orders
    alter table orders attach partition orders_2024 for values in (1) -> public.orders public.orders_2024
    alter index i rename to j -> public.i
    drop table if exists orders, archive.orders cascade -> public.orders archive.orders
    drop index concurrently i -> public.i
    drop view order_totals -> public.order_totals
    drop schema archive cascade -> archive.* archive.orders archive.spent
    drop type mood -> public.mood
    drop function spent(int) -> public.spent
    create unique index concurrently on orders (lower(note), id) where id > 0 -> public.orders
    create or replace view v as select id from orders -> public.v < public.orders
    create materialized view m as select * from archive.orders with no data -> public.m < archive.orders
    refresh materialized view concurrently m -> public.m
    create sequence s owned by orders.id -> public.s public.orders
    alter sequence s restart with 7 -> public.s
    create type feeling as enum ('x') -> public.feeling
    create type pair as (a int, b text) -> public.pair
    alter type mood add value 'z' -> public.mood
    alter type mood rename to m2 -> public.mood public.m2
    create domain d as text check (value <> '') -> public.d
    alter domain d add constraint c check (value <> 'x') -> public.d
    create schema app -> app.*
    comment on table orders is 'x' -> public.orders
    comment on column archive.orders.id is 'x' -> archive.orders
    comment on function spent(int) is 'x' -> public.spent
    create statistics st on id, note from orders -> public.st public.orders
    create statistics on id, note from orders -> public.orders
    create collation c (locale = 'C') -> public.c
    create table t as select id from orders -> public.t < public.orders
    select id into t from archive.orders -> public.t < archive.orders
""".strip().split("\n")
ADMIN = """
    vacuum full analyze orders (id), archive.orders -> public.orders archive.orders
    cluster orders using i -> public.orders
    reindex table concurrently orders -> public.orders
    grant select (id), update on orders to somebody with grant option -> public.orders
    grant usage on schema archive to somebody -> archive.* archive.orders archive.spent
    revoke all on all tables in schema archive from somebody -> archive.* archive.orders archive.spent
    alter default privileges in schema archive grant select on tables to x -> archive.* archive.orders archive.spent
    create extension if not exists hstore schema public -> public.hstore
    create extension if not exists plpgsql ->
    drop extension hstore ->
    alter table orders owner to somebody -> public.orders
    alter table orders enable row level security -> public.orders
    create schema app authorization somebody -> app.*
    alter function spent(int) owner to somebody -> public.spent
""".strip().split("\n")


def statement(
    sql: str,
    fields: FieldView | None = None,
    *,
    covers: tuple[str, ...] = EVERY,
    altered: Altered = Altered.NOT,
) -> Statement:
    """The one statement of a text, where nothing refuses it."""
    found = inspect(sql, CATALOGUE, {} if fields is None else fields, terms=Terms(covers=covers, altered=altered))
    (one,) = found.statements
    if one.refusal is not None:
        raise one.refusal
    return one


def parts(line: str) -> tuple[str, set[str], set[str]]:
    """A line's statement, and what it writes and reads."""
    sql, _, names = line.strip().partition("->")
    writes, _, reads = names.partition("<")
    return sql.strip(), set(writes.split()), set(reads.split())


def with_table(name: str, path: tuple[str, ...] = ("pg_catalog", "public")) -> Catalogue:
    """The catalogue with one more table."""
    schema, _, called = name.partition(".")
    like = CATALOGUE.relations["public", "orders"]
    made = replace(like, oid=17000, schema=schema, name=called)
    return replace(
        CATALOGUE,
        relations={**CATALOGUE.relations, (schema, called): made},
        by_oid={**CATALOGUE.by_oid, made.oid: made},
        path=path,
        version=f"{name} {path}",
    )
