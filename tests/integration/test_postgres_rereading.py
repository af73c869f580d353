"""What is kept of a schema and read again in part is exactly what a reading of all of it gives, after any change."""

from __future__ import annotations

import asyncio
import gc
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import fields
from functools import partial
from random import Random

import psycopg
import pytest

from broker.protocols.postgres import rereading
from broker.protocols.postgres.admin import Admin
from broker.protocols.postgres.rereading import Reading, read, read_rows
from broker.sql.building import Builder, build
from broker.sql.catalogue import Catalogue
from broker.sql.catalogue_queries import QUERIES
from tests.integration.postgres_world import endpoint, make_world
from tests.support.postgres import Server, running_server

PATH = ["public"]
ROOM = (
    "create schema app",
    "create type pair as (a int, b text)",
    "create type mood as enum ('low', 'high')",
    "create domain small as int check (value < 100)",
    "create function fine(int) returns boolean immutable language plpgsql as 'begin return true; end'",
    "create function fired() returns trigger language plpgsql as 'begin return new; end'",
    *(f"create table t{n} (id int primary key, a text, b int, c timestamptz default now())" for n in range(6)),
    "create table parted (id int, k int) partition by range (id)",
    "create table _t0 (id int)",
    "create publication everything for all tables",
)
TABLES = [*(f"t{n}" for n in range(8)), "parted", "part1", "part2", "app.t1", "_t1", "kin", "copy", "__t2"]
VIEWS = ["v1", "v2", "app.v1", "m1"]
TYPES = ["int", "text", "bigint", "small", "mood", "pair", "pair[]", "t1", "t2[]", "numeric(9,2)", "bad", "spare", "t3"]
FORMS = """
create table {t} (id int primary key, a text, b {y}, k int)
create table {t} (id int generated always as identity, a text default current_schema(), b {y})
create table {t} () inherits ({t})
create table {t} (like {t} including all)
create table {t} as select * from {t}
create table {t} partition of parted for values from ({n}) to ({n}5)
create temp table {t} (id serial primary key, a text check (a <> ''), b {y})
drop table {t}
drop table {t} cascade
alter table {t} rename to {u}
alter table {t} rename column {c} to {d}
alter table {t} add column {c} {y}
alter table {t} add column {c} int generated always as (id * 2) stored
alter table {t} drop column {c} cascade
alter table {t} alter column {c} type {y} using null
alter table {t} alter column {c} set default {n}
alter table {t} alter column {c} set default chk({n})
alter table {t} alter column {c} drop default
alter table {t} alter column {c} set not null
alter table {t} add constraint k{n} check (fine(id))
alter table {t} add constraint k{n} check (b is not null)
alter table {t} add constraint f{n} foreign key (b) references {t} (id) on delete cascade
alter table {t} add constraint f{n} foreign key (b) references {t} (id)
alter table {t} drop constraint f{n}
alter table {t} drop constraint k{n}
alter table {t} rename constraint k{n} to k1{n}
alter table {t} inherit {t}
alter table {t} no inherit {t}
alter table parted attach partition {t} for values from ({n}) to ({n}7)
alter table parted detach partition {t}
alter table {t} set schema app
alter table app.t1 set schema public
alter table {t} owner to app
alter table {t} enable row level security
alter table {t} disable row level security
alter table {t} replica identity full
alter table {t} cluster on {t}_pkey
create publication p{n} for table {t}
alter publication p{n} add table {t}
drop publication p{n}
create index i{n} on {t} ({c})
create unique index i{n} on {t} ({c}, id)
create index i{n} on {t} (id) where id > {n}
create index i{n} on {t} (fine(id))
alter index i{n} rename to i1{n}
drop index i{n}
create trigger g{n} before insert on {t} for each row execute function fired()
alter table {t} disable trigger g{n}
drop trigger g{n} on {t}
create policy p{n} on {t} using (fine(id))
drop policy p{n} on {t}
create rule r{n} as on update to {t} do also select 1
drop rule r{n} on {t}
create or replace view {v} as select id, a from {t}
create or replace view {v} as select * from {v}
create view {v} as select x, current_schema() as s from {t} x
create materialized view {v} as select * from {t}
drop view {v} cascade
drop materialized view m1 cascade
alter view {v} rename to {w}
create sequence s{n} owned by {t}.id
alter sequence s{n} owned by none
alter sequence s{n} rename to s1{n}
create or replace function chk(int) returns int language plpgsql as 'begin return {n}; end'
create function of_row({t}) returns int language sql as 'select 1'
drop function of_row
drop function chk cascade
create or replace function fired() returns trigger set search_path = public language plpgsql as 'begin return new; end'
create or replace function fired() returns trigger language plpgsql as 'begin return null; end'
alter function fine(int) volatile
create domain bad as int check (fine(value))
drop domain bad cascade
create domain spare as pair
alter type pair add attribute z {y} cascade
alter type pair rename attribute a to y
alter type pair drop attribute y cascade
alter type mood add value '{n}'
alter type mood rename to temper
alter type temper rename to mood
create cast ({t} as text) with inout
drop cast ({t} as text)
create schema app
drop schema app cascade
alter schema app rename to other
alter schema other rename to app
revoke usage on schema app from public
grant usage on schema app to public
grant select on {t} to app
comment on table {t} is 'said {n}'
insert into {t} (id) values ({n})
truncate {t}
analyze {t}
vacuum {t}
begin; alter table {t} rename to {u}; rollback
begin; alter table {t} add column x{n} int; savepoint one; drop table {u} cascade; rollback to one; commit
begin; drop table {t} cascade; create table {t} (id int primary key, secret text, b {y}); commit
begin; alter table {t} rename to swapped; alter table {u} rename to {t}; alter table swapped rename to {u}; commit
""".strip().split("\n")


@pytest.fixture(scope="module", params=["wheel", "debian"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with running_server(request.param, {"wal_level": "logical"}) as one:
        yield one


@asynccontextmanager
async def reading(server: Server, *more: str) -> AsyncIterator[Admin]:
    make_world(server, *more)
    admin = Admin(endpoint(server, "app"))
    try:
        yield admin
    finally:
        await admin.close()


async def looked(admin: Admin, known: Reading | None) -> Reading:
    """What is known behind a look, of one moment, at what has changed."""
    return await admin.snapshot(partial(read, known=known))


def change(random: Random) -> str:
    """A random change of the schema, of which many fail."""
    one = random.choice(FORMS)
    for mark, choices in (("{u}", TABLES), ("{v}", VIEWS), ("{w}", VIEWS), ("{y}", TYPES)):
        one = one.replace(mark, random.choice(choices))
    for mark, choices in (("{t}", TABLES), ("{c}", ["a", "b", "d", "k"]), ("{d}", ["a", "b", "d", 'odd "\\\nname'])):
        while mark in one:
            one = one.replace(mark, random.choice(choices), 1)
    return one.replace('odd "\\\nname', '"odd \\\nname"').replace("{n}", str(random.randrange(1, 4)))


def differing(kept: Catalogue, whole: Catalogue) -> list[str]:
    return [
        one.name for one in fields(Catalogue) if one.compare and getattr(kept, one.name) != getattr(whole, one.name)
    ]


@pytest.mark.parametrize("seed", range(2))
async def test_what_is_read_again_in_part_is_what_a_whole_reading_gives(server: Server, seed: int) -> None:
    await play(server, seed, 60)


async def play(server: Server, seed: int, steps: int) -> int:
    """Change a schema step by step, from two sessions of which one may be in a transaction; how often in part."""
    random, partly, done = Random(seed), 0, list[str]()
    async with reading(server, *ROOM) as admin:
        kept, builder = await looked(admin, None), Builder()
        version = await admin.version()
        with server.connect("shop") as plain, server.connect("shop", autocommit=False) as open_:
            for connection in (plain, open_):
                connection.execute("set lock_timeout = '20ms'")
            open_.commit()
            for _ in range(steps):
                for _ in range(random.randrange(1, 4)):
                    connection, text = random.choice([plain, plain, open_]), change(random)
                    if connection is open_ and random.random() < 0.3:
                        text = random.choice(["commit", "rollback"])
                    try:
                        await asyncio.to_thread(connection.execute, text.encode())
                        done.append(text)
                    except psycopg.Error:
                        connection.rollback()
                before = kept
                kept = await looked(admin, before)
                partly += kept is not before and kept.rows["types"] is before.rows["types"]
                catalogue = builder.build(kept.rows, PATH, version)
                rows, _ = await read_rows(admin)
                assert differing(catalogue, build(rows, PATH, version)) == [], done[-8:]
    assert partly
    return partly


APART = """
create table _mood (id int)
create table _pair (id int)
alter table t5 rename to __mood
create domain bad as int check (fine(value))
create table held (x bad[], y bad)
create table _bad (id int)
create table p0 (id int, k int, secret text) partition by list (k)
create table p1 (id int, k int, secret text) partition by range (id)
create table p2 (id int, k int, secret text)
alter table p1 attach partition p2 for values from (1) to (10)
alter table p0 attach partition p1 for values in (1)
alter table p1 set schema app
alter extension hstore drop operator -> (hstore, text)
alter extension hstore drop cast (text[] as hstore)
alter extension hstore add operator -> (hstore, text)
alter extension citext drop function citext_eq(citext, citext)
alter extension citext drop type citext
create function ordered(point, point) returns int immutable language plpgsql as 'begin return 0; end'
create function same(point, point) returns bool immutable language plpgsql as 'begin return false; end'
create operator <<<< (leftarg = point, rightarg = point, function = same)
create operator ==== (leftarg = point, rightarg = point, function = same)
create operator class points default for type point using btree as operator 1 <<<<, function 1 ordered(point, point)
create function sorting(internal) returns void language internal as 'btint4sortsupport'
alter operator family points using btree add operator 3 ==== (point, point)
alter operator family points using btree add function 2 (point, point) sorting(internal)
create language spoken handler plpgsql_call_handler
create function say() returns int language spoken as 'begin return 1; end'
create or replace trusted language spoken handler plpgsql_call_handler
""".strip().split("\n")
"""Changes of which some change no row of what they are about."""


async def test_what_changes_beside_its_own_rows_is_noticed(server: Server) -> None:
    more = ("create extension citext", "create extension hstore", "create table loose (x citext, y hstore)")
    view = "create view seen as select x = 'a' as e, y -> 'a' as h from loose"
    async with reading(server, *ROOM, *more, view) as admin:
        kept, builder = await looked(admin, None), Builder()
        version = await admin.version()
        for statement in APART:
            server.execute(statement, "shop")
            kept = await looked(admin, kept)
            rows, _ = await read_rows(admin)
            assert differing(builder.build(kept.rows, PATH, version), build(rows, PATH, version)) == [], statement


async def test_memory_of_what_is_kept_is_bounded(server: Server) -> None:
    async with reading(server, *ROOM) as admin:
        kept, builder = await looked(admin, None), Builder()
        version = await admin.version()
        counts = []
        for turn in range(9):
            names = range(turn * 20, turn * 20 + 20)
            for statement in (*(f"create table made{n} (id int, a{n} text)" for n in names), "select 1"):
                server.execute(statement, "shop")
            kept = await looked(admin, kept)
            builder.build(kept.rows, PATH, version)
            for n in names:
                server.execute(f"drop table made{n}", "shop")
            kept = await looked(admin, kept)
            builder.build(kept.rows, PATH, version)
            gc.collect()
            counts.append(builder.size + sum(map(len, kept.rows.values())))
        assert len({*counts}) == 1, counts


async def test_little_is_read_where_little_has_changed_and_nothing_where_nothing_has(server: Server) -> None:
    async with reading(server, *ROOM) as admin:
        whole = await looked(admin, None)
        asked: list[str] = []

        async def look(known: Reading) -> Reading:
            async def run(fetch: rereading.Fetch) -> Reading:
                async def noting(sql: str, *arguments: object) -> list[object]:
                    asked.extend(name for name, text in QUERIES.items() if text == sql)
                    return await fetch(sql, *arguments)

                return await read(noting, known)

            return await admin.snapshot(run)

        server.execute("create temp table made (id serial primary key, a text default 'x' check (a <> ''))", "shop")
        server.execute("analyze", "shop")
        assert await look(whole) is whole
        server.execute("alter table t1 add column more text", "shop")
        partly = await look(whole)
        assert partly is not whole
        assert asked == ["overloads"]
        same = [row for row in partly.rows["columns"] if any(row is other for other in whole.rows["columns"])]
        assert len(same) == len(whole.rows["columns"]) - 1
        server.execute("create function more() returns int language sql as 'select 1'", "shop")
        await look(partly)
        assert "columns" in asked


async def test_another_history_with_the_same_numbers_of_transactions_is_read_as_a_whole(server: Server) -> None:
    """A server that took over without the last transactions of the one before it gives their numbers out again."""
    make_world(server, *ROOM)
    cluster, before = server.cluster, server.cluster.data.with_name("before")
    found = None
    for name in ("one", "other"):
        cluster.stop()
        if found is None:
            await asyncio.to_thread(subprocess.run, ["cp", "-a", cluster.data, before], check=True)
        else:
            shutil.rmtree(cluster.data)
            before.rename(cluster.data)
        cluster.start(cluster.port)
        server.execute(f"alter table t1 rename column a to {name}", "shop")
        admin = Admin(endpoint(server, "app"))
        known = found
        found = await looked(admin, known)
        await admin.close()
        assert any(f" {name}\n" in row["columns"] for row in found.rows["columns"])
