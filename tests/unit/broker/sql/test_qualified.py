"""Names that say their database too: as its client calls it, and as the server does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.sql.inspect import inspect
from broker.sql.model import Inspection, Refusal, Terms
from broker.sql.rewrite import position_in_user_text
from policies.engine.decisions import FieldView
from tests.unit.broker.sql.ddl_shop import EVERY
from tests.unit.broker.sql.shop import CATALOGUE, FIELDS


def inspected(sql: str, fields: FieldView, *covers: str) -> Inspection:
    return inspect(sql, replace(CATALOGUE, database="shop"), fields, terms=Terms(covers=covers, called="prod-db"))


# A statement and what it is sent as stand in one line each, however long.
IN_CLEAR = """
    select * from "prod-db"."public"."orders" as o where o.id = 1 -> select * from "public"."orders" as o where o.id = 1
    select Shop . public.orders.id from shop.public.orders -> select public.orders.id from public.orders
    update shop.public.orders set note = 'x' where shop.public.orders.id = 1 -> update public.orders set note = 'x' where public.orders.id = 1
    create table "prod-db".public."t" as (select id from shop.public.orders) -> create table public."t" as (select id from public.orders)
    drop table if exists "prod-db".public."orders" cascade -> drop table if exists public."orders" cascade
    comment on table "prod-db".public."orders" is 'x' -> comment on table public."orders" is 'x'
    comment on column shop.public.orders.id is 'x' -> comment on column public.orders.id is 'x'
    create index on "prod-db".public."orders" (id) -> create index on public."orders" (id)
    alter table "prod-db".public."orders" rename to "x" -> alter table public."orders" rename to "x"
    truncate table "prod-db".public."orders" -> truncate table public."orders"
    merge into shop.public.orders o using shop.public.orders p on o.id = p.id when matched then do nothing -> merge into public.orders o using public.orders p on o.id = p.id when matched then do nothing
    select shop.orders.id from orders as shop -> select shop.orders.id from orders as shop
""".strip().split("\n")  # noqa: E501


@pytest.mark.parametrize("line", IN_CLEAR)
def test_the_sessions_own_database_is_left_out_of_a_name(line: str) -> None:
    sql, expected = line.strip().split(" -> ")
    found = inspected(sql, {}, *EVERY)
    assert found.rewritten == expected
    facts = found.statements[0].facts
    assert "public.orders" in facts.reads | facts.writes
    assert found.statements[0].refusal is None


def test_what_is_masked_is_so_under_a_name_that_says_its_database() -> None:
    named, plain = (f"select c.ssn, c.* from {name}customers c" for name in ('"prod-db".public.', "public."))
    found = inspected(named, FIELDS)
    assert found.rewritten == inspected(plain, FIELDS).rewritten
    assert "public.customers.ssn" in found.statements[0].facts.masked
    for sql in (
        "insert into shop.public.orders select id from shop.public.customers",
        "copy shop.public.customers to stdout",
    ):
        assert inspected(sql, FIELDS).rewritten == inspected(sql.replace("shop.", ""), FIELDS).rewritten


def test_an_error_is_said_to_be_at_the_name_that_the_client_wrote() -> None:
    sql = 'select * from "prod-db".public.orders where 1 / 0 = 1'
    found = inspected(sql, {}, *EVERY)
    for word in ("public", "where"):
        assert position_in_user_text(found.edits, found.rewritten.index(word) + 1) == sql.index(word) + 1


@pytest.mark.parametrize(
    "sql",
    [
        "select * from other.public.orders",
        "select orders.id from orders where other.public.orders.id = 1",
        "drop table shop.public.orders, other.public.orders",
        "table shop.public.orders.id",
        "select shop.public.orders.id.x from orders",
    ],
)
def test_another_database_is_left_where_it_is_and_refused(sql: str) -> None:
    try:
        refusals = [one.refusal for one in inspected(sql, {}, *EVERY).statements]
    except Refusal as refusal:
        refusals = [refusal]
    assert all(refusals), sql
