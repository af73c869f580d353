"""TRUNCATE ... CASCADE: every table that it empties has to be allowed, and is on the card."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.postgres_world import endpoint, make_world, psql
from tests.support.broker import POLICY, TestBroker, serving
from tests.support.postgres import Server

RULES = """
  - {id: empties, decision: allow, roles: [write], effects: [write], verbs: [TRUNCATE]}
  - {id: asks, decision: ask, roles: [ask], effects: [write], verbs: [TRUNCATE], reviewers: {count: 1, groups: [dbas]}}
  - {id: kept, decision: deny, effects: [write], relations: [public.kept], message: this is kept}
"""
TABLES = (
    "create schema hidden",
    "create table lines (id int primary key, note int references notes on delete set null)",
    "create table parts (line int references lines, at int) partition by list (at)",
    "create table parts_1 partition of parts for values in (1)",
    "create table facts (of int references people)",
    "create table hidden.audit (of int references facts_of)",
    "create table kept (of int references keeps)",
    "insert into lines values (1, 1), (2, 2)",
    "insert into parts values (1, 1)",
    "grant select, insert, truncate on all tables in schema public to app_write",
)
MORE = ("create table facts_of (id int primary key)", "create table keeps (id int primary key)", *TABLES)


@pytest.fixture
async def served(postgres: Server, tmp_path: Path) -> AsyncIterator[TestBroker]:
    write = endpoint(postgres, "app_write")
    policy = POLICY.replace("fields:\n", f"{RULES}fields:\n")
    async with serving(tmp_path, make_world(postgres, *MORE), policy=policy, write=write, ask=write) as broker:
        yield broker


def counted(postgres: Server) -> list[int]:
    return [postgres.execute(f"select count(*) from {name}", "shop")[0][0] for name in ("notes", "lines", "parts")]


async def test_what_a_truncate_cascades_to_is_emptied_where_all_of_it_may_be(
    served: TestBroker, postgres: Server
) -> None:
    status, output, _ = await psql(served.ticket(role="write"), "truncate only notes restart identity cascade")
    assert (status, output) == (0, "TRUNCATE TABLE\n")
    assert counted(postgres) == [0, 0, 0]


async def test_reviewers_see_every_table_that_a_truncate_cascades_to(served: TestBroker, postgres: Server) -> None:
    running = asyncio.create_task(psql(served.ticket(role="ask"), "truncate notes cascade"))
    hold = await served.held()
    assert set(hold.relations) == {"public.notes", "public.lines", "public.parts", "public.parts_1"}
    await served.answer(hold)
    assert (await running)[0] == 0
    assert counted(postgres) == [0, 0, 0]


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("truncate facts_of cascade", "hidden.audit is not covered by write"),
        ("truncate keeps cascade", "this is kept"),
        ("truncate keeps, notes cascade", "this is kept"),
        ("begin; truncate notes, facts_of cascade; commit", "hidden.audit is not covered by write"),
    ],
)
async def test_a_truncate_does_not_cascade_to_what_no_rule_lets_be_emptied(
    served: TestBroker, postgres: Server, sql: str, why: str
) -> None:
    before = counted(postgres)
    assert why in (await psql(served.ticket(role="write"), sql))[2]
    assert counted(postgres) == before


async def test_without_a_rule_that_names_it_a_truncate_is_refused_as_ever(served: TestBroker) -> None:
    assert "TRUNCATE empties whole tables at once" in (await psql(served.ticket(), "truncate notes cascade"))[2]


async def test_a_masked_table_may_be_emptied_and_tells_nothing(served: TestBroker, postgres: Server) -> None:
    status, output, errors = await psql(served.ticket(role="write"), "truncate people cascade")
    assert (status, output) == (0, "TRUNCATE TABLE\n")
    assert "123-45" not in errors
    assert postgres.execute("select count(*) from people", "shop") == [(0,)]


async def test_nothing_cascades_behind_a_change_of_the_schema(postgres: Server, tmp_path: Path) -> None:
    """Where nothing is masked, other statements follow a change in its transaction; keys made in it are not known."""
    write = endpoint(postgres, "app_write")
    policy = POLICY.split("fields:", maxsplit=1)[0].replace('"public.*"', '"*.*"') + RULES
    async with serving(tmp_path, make_world(postgres, *MORE), policy=policy, write=write) as broker:
        ticket = broker.ticket(role="write")
        made = "create table late (of int references notes)"
        _, _, errors = await psql(ticket, "begin", made, "truncate notes cascade", "rollback")
        assert "what refers to these tables is not known yet" in errors
        assert "COMMIT first" in errors
        status, _, errors = await psql(broker.ticket(role="write"), "truncate notes cascade")
        assert status == 0, errors
    assert counted(postgres) == [0, 0, 0]
