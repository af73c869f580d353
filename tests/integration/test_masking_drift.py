"""Schema drift while sessions live: what is renamed, swapped, attached or redefined is not shown in clear."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from broker.sql.guard import FAILS
from broker.sql.inspect import inspect
from broker.sql.model import Terms
from policies.engine.decisions import FieldView, RelationFields
from policies.engine.load import read_texts
from tests.integration.postgres_world import endpoint, make_world
from tests.support.broker import POLICY, TestBroker, serving
from tests.support.catalogue import load_catalogue
from tests.support.postgres import Server

LOOSE = POLICY.replace("clear: [id, name]", "clear: [id, name, note]")
STRICT = LOOSE.replace("hold: refuse", "hold: refuse, strict: true").replace("read: {", "read: {strict: true, ")
SECRET = "123-45-6789"
FIELDS: FieldView = {"public.people": RelationFields(clear=frozenset({"id", "name", "note"}))}
SWAP = """
    alter table people rename column note to spare;
    alter table people rename column ssn to note;
    alter table people add column ssn text default 'nothing'
"""
REDEFINED = "create or replace view shown as select id, name, ssn as note from people"
REPLACED = "create or replace view plain as select id, ssn as body from people"
TAKEN = """
    alter table notes rename to papers;
    alter table people rename to notes;
    alter table notes rename column ssn to body
"""
SHIFT = "alter table people drop column name cascade; alter table people add column name text default 'nobody'"


@pytest.fixture
def shop(postgres: Server) -> Server:
    make_world(postgres)
    postgres.execute("alter table people add column note text default 'a note'", "shop")
    postgres.execute("create view shown as select id, name, note from people", "shop")
    postgres.execute("create view twice as select id, note from shown", "shop")
    postgres.execute("create view plain as select id, body from notes", "shop")
    postgres.execute("grant select on shown, twice, plain to app", "shop")
    return postgres


@pytest.fixture
async def served(shop: Server, tmp_path: Path) -> AsyncIterator[TestBroker]:
    async with serving(tmp_path, endpoint(shop, "app"), policy=LOOSE) as broker:
        yield broker


@pytest.fixture
async def strict(shop: Server, tmp_path: Path) -> AsyncIterator[TestBroker]:
    async with serving(tmp_path, endpoint(shop, "app"), policy=STRICT) as broker:
        yield broker


async def answers(broker: TestBroker, sql: str, wanted: str) -> list[str]:
    """Every answer to a statement asked every 10 ms, until one is as wanted; a session that was ended is begun anew."""
    found: list[str] = []
    options: Any = {"autocommit": True, "prepare_threshold": None}
    connection = await psycopg.AsyncConnection.connect(broker.ticket().dsn(), **options)
    for _ in range(1000):
        if connection.closed:
            connection = await psycopg.AsyncConnection.connect(broker.ticket().dsn(), **options)
        try:
            rows = await connection.execute(sql.encode())
            found.append(repr(await rows.fetchall()))
        except psycopg.Error as error:
            found.append(str(error.sqlstate))
        if wanted in found[-1]:
            await connection.close()
            return found
        await asyncio.sleep(0.01)
    raise AssertionError(f"never {wanted}: {found[-1]}")


async def test_swapped_column_stays_masked_under_its_new_name(shop: Server, served: TestBroker) -> None:
    sql = "select note from people where id = 1"
    assert "a note" in (await answers(served, sql, "a note"))[-1]
    shop.execute(SWAP, "shop")
    await answers(served, sql, "***")
    # What is once known to be it stays masked, and so does what took its name.
    assert (await answers(served, "select note, ssn, id from people where id = 1", "1)"))[-1] == "[('***', '***', 1)]"


async def test_strict_role_shows_no_swapped_column_even_for_a_moment(shop: Server, strict: TestBroker) -> None:
    sql = "select note from people where id = 1"
    assert "a note" in (await answers(strict, sql, "a note"))[-1]
    polling = asyncio.create_task(answers(strict, sql, "***"))
    await asyncio.to_thread(shop.execute, SWAP, "shop")
    assert [answer for answer in await polling if SECRET in answer] == []


def fetched(connection: psycopg.Connection, sql: bytes) -> list[object]:
    cursor = connection.cursor()
    if sql.startswith(b"copy"):
        with cursor.copy(sql) as copy:
            return list(copy)
    return [*cursor.execute(sql).fetchall()]


@pytest.mark.parametrize(
    ("sql", "change", "isolation"),
    [
        ("select note from people", SWAP, "repeatable read"),
        ("table people", SHIFT, "repeatable read"),
        ("copy people to stdout", SWAP, "read committed"),
        ("select * from twice", REDEFINED, "read committed"),
        # What has nothing masked now could have by then.
        ("select body from plain where id < 3", REPLACED, "read committed"),
        ("select upper(body) from notes where id < 3", TAKEN, "repeatable read"),
    ],
)
def test_statement_decided_before_a_change_fails_after_it(shop: Server, sql: str, change: str, isolation: str) -> None:
    rewritten = inspect(sql, load_catalogue(shop, "shop"), FIELDS, terms=Terms(strict=True)).rewritten.encode()
    with shop.connect("shop", "app", autocommit=False) as connection:
        connection.execute("set search_path = public")
        assert len(fetched(connection, rewritten)) == 2
        connection.commit()
        connection.execute(f"set transaction isolation level {isolation}".encode())
        connection.execute("select 1")
        shop.execute(change, "shop")
        with pytest.raises(psycopg.Error) as raised:
            fetched(connection, rewritten)
    assert raised.value.sqlstate == FAILS


@pytest.mark.parametrize(
    "sql",
    [
        "update people set name = name where id = 1 returning upper(note)",
        "update only (people) as p set name = case when p.note = 'where' then p.name end returning p.id as where",
        "update notes set body = body from people p where p.id = notes.id or p.id = 0",
        "update people p set (name, note) = (select p.note, p.name) from (values (1)) v (id) where v.id = p.id",
        "delete from people",
        # Not even that no row is found may be known.
        "delete from people where note = 'nobody' or false -- or anything",
        "delete from public.people using notes n where n.id = people.id and n.body <> '' returning note || ''",
        "insert into people (id) values (1) on conflict (id) do update set note = 'was ' || people.note",
        "insert into people (id) select id from notes where id = 1 on conflict (id) where true "
        "do update set name = 'x' where people.note = 'nobody' or people.id = 0 returning id",
        "with gone as (delete from people where id = 1 or false returning note) select upper(note) from gone",
        "copy (delete from people returning name || note) to stdout",
        "merge into people p using (values (1)) v (id) on p.id = v.id or p.note = 'x' when matched then do nothing",
        "merge into people p using (values (1)) v join notes n on true on p.id = n.id "
        "and case when p.id = 1 then true end when matched and p.note = 'nobody' or false then delete "
        "when not matched and id = 1 then insert values (9)",
    ],
)
def test_change_decided_before_a_change_of_the_schema_fails_after_it(shop: Server, sql: str) -> None:
    if sql.startswith("merge") and shop.major < 15:
        pytest.skip("MERGE came with version 15")
    catalogue = load_catalogue(shop, "shop")
    texts = [inspect(sql, catalogue, FIELDS, terms=Terms(strict=strict)).rewritten.encode() for strict in (True, False)]
    with shop.connect("shop", autocommit=False) as connection:
        connection.execute("set search_path = public")
        answers = [changed(connection, text) for text in texts]
        assert answers[0] == answers[1]
        shop.execute(SWAP, "shop")
        with pytest.raises(psycopg.Error) as raised:
            changed(connection, texts[0])
    assert raised.value.sqlstate == FAILS


def changed(connection: psycopg.Connection, sql: bytes) -> object:
    """What a change answers, of which nothing stays."""
    try:
        if sql.startswith(b"copy"):
            return fetched(connection, sql)
        cursor = connection.execute(sql)
        return cursor.statusmessage, cursor.fetchall() if cursor.description else None
    finally:
        connection.rollback()
        connection.execute("set search_path = public")
        connection.commit()


async def test_strict_role_changes_no_swapped_column_even_for_a_moment(shop: Server, tmp_path: Path) -> None:
    shop.execute("grant update on people to app", "shop")
    policy = STRICT.replace("effects: [read, session]", "effects: [read, session, write]")
    async with serving(tmp_path, endpoint(shop, "app"), policy=policy) as broker:
        sql = "update people set name = name where id = 1 returning upper(note)"
        assert "A NOTE" in (await answers(broker, sql, "A NOTE"))[-1]
        polling = asyncio.create_task(answers(broker, sql, "42501"))
        await asyncio.to_thread(shop.execute, SWAP, "shop")
        assert [answer for answer in await polling if SECRET in answer] == []


async def test_prepared_statement_does_not_outlive_what_it_was_decided_on(shop: Server, served: TestBroker) -> None:
    sql = "select note || '' from people where id = 1"
    async with await psycopg.AsyncConnection.connect(served.ticket().dsn(), autocommit=True) as connection:
        assert await (await connection.execute(sql, prepare=True)).fetchall() == [("a note",)]
        shop.execute(SWAP, "shop")
        await answers(served, "select note from people where id = 1", "***")
        with pytest.raises(psycopg.Error):
            await connection.execute(sql, prepare=True)


async def test_renamed_table_keeps_its_masks(shop: Server, served: TestBroker) -> None:
    await answers(served, "select ssn from people where id = 1", "***")
    shop.execute("alter table people rename to persons", "shop")
    shop.execute("create table people (id int, ssn text)", "shop")
    assert "***" in (await answers(served, "select ssn from persons where id = 1", "("))[-1]


async def test_table_is_masked_once_it_is_attached_and_not_once_it_is_detached(
    shop: Server, served: TestBroker
) -> None:
    shop.execute("create table former (id int not null, name text, ssn text, note text, spouse text)", "shop")
    shop.execute("insert into former values (1, 'Cy', '000-11-2222', 'n', 'Di')", "shop")
    shop.execute("grant select on former to app", "shop")
    sql = "select ssn, spouse from former"
    await answers(served, sql, "000-11-2222")
    shop.execute("alter table former inherit people", "shop")
    await answers(served, sql, "('***', '***')")
    shop.execute("alter table former no inherit people", "shop")
    await answers(served, sql, "000-11-2222")


async def test_name_means_the_masked_table_once_a_membership_hides_the_one_before_it(
    shop: Server, tmp_path: Path
) -> None:
    """A schema that the role may not use is passed over when the server looks a name up."""
    for statement in ("drop role if exists pickers", "create role pickers", "grant pickers to app"):
        shop.execute(statement)
    shop.execute("create schema front; grant usage on schema front to pickers", "shop")
    shop.execute("create table front.people as select 1 as id, 'in front' as ssn", "shop")
    shop.execute("grant select on front.people to app", "shop")
    policy = LOOSE.replace('relations: ["public.*"]', 'relations: ["public.*", "front.*"]')
    policy = policy.replace("tls: disable}", "tls: disable}\n    search_path: [front, public]", 1)
    async with serving(tmp_path, endpoint(shop, "app"), policy=policy) as broker:
        sql = "select ssn || '' from people where id = 1"
        assert await answers(broker, sql, "(") == ["[('in front',)]"]
        shop.execute("revoke pickers from app")
        await answers(broker, sql, "***")
    shop.execute("drop schema front cascade", "shop")
    shop.execute("drop role pickers")


async def test_view_that_is_made_or_redefined_is_masked_by_what_it_is_now(shop: Server, served: TestBroker) -> None:
    await answers(served, "select note from twice where id = 1", "a note")
    shop.execute("create view fresh as select id, ssn as title from people; grant select on fresh to app", "shop")
    assert await answers(served, "select title from fresh where id = 1", "(") == ["[('***',)]"]
    shop.execute(REDEFINED, "shop")
    await answers(served, "select note from twice where id = 1", "***")


async def test_field_rules_that_are_written_after_a_rename_speak_of_the_new_names(
    shop: Server, served: TestBroker
) -> None:
    await answers(served, "select name from people where id = 1", "Ann")
    shop.execute("alter table people rename column name to full_name", "shop")
    await answers(served, "select full_name from people where id = 1", "***")
    served.policies.current = read_texts({"test.yaml": LOOSE.replace("[id, name, note]", "[id, full_name, note]")})
    await answers(served, "select full_name from people where id = 1", "Ann")
