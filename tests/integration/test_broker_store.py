"""The store on both databases: what the database itself refuses, races, and that the migrations make the tables."""

import asyncio
import sqlite3
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.adapters.store import GrantRow, ShapeRow, Store, StoreUnavailable, TicketRow, TicketsSpent, UserTaken
from broker.adapters.tables import MIGRATIONS, metadata
from broker.sessions.model import ScramVerifier
from tests.integration.broker import World
from workflows.grants import TABLE, GrantEvent, GrantMoveIllegal, GrantState
from workflows.storage.boxes import RowMoved
from workflows.storage.engine import make_engine, sqlite_url
from workflows.storage.migrate import NotMigrated, migrate, upgrade

VERIFIER = ScramVerifier(b"salt", 4096, b"stored", b"server")
NOW = datetime(2026, 1, 2, 3, 4, 5, 600000, UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "broker.sqlite")
    server = request.getfixturevalue("wheel_postgres")
    name = f"broker_{uuid.uuid4().hex[:8]}"
    server.create_database(name)
    return str(server.url(name)).replace("postgresql://", "postgresql+asyncpg://")


@pytest.fixture
async def engine(url: str) -> AsyncIterator[AsyncEngine]:
    made = make_engine(url)
    await upgrade(made, MIGRATIONS)
    yield made
    await made.dispose()


@pytest.fixture
def store(engine: AsyncEngine) -> Store:
    return Store(engine)


def row(**change: Any) -> GrantRow:
    suffix = uuid.uuid4().hex[:8]
    values: dict[str, Any] = {
        "id": f"g{suffix}",
        "request": f"r{suffix}",
        "order_id": f"o{suffix}",
        "order_digest": "d",
        "order": {"reason": "why"},
        "person": "alice",
        "resource": "prod-db",
        "role": "read",
        "seconds": 600,
        "state": GrantState.OPENING,
        "opened_at": NOW,
        "expires_at": NOW + timedelta(seconds=600),
        "boot_id": "b",
        "boot_deadline": 12.5,
        "policy": "p",
    }
    return GrantRow(**{**values, **change})


async def active(store: Store) -> GrantRow:
    made = row()
    assert await store.insert(made)
    await store.move(made, GrantEvent.OPEN)
    found = await store.grant(made.id)
    assert found is not None
    return found


async def test_grant_comes_back_as_stored(store: Store) -> None:
    made = row()
    assert await store.insert(made)
    assert await store.grant(made.id) == made
    assert await store.grant_of_order(made.order_id) == made
    assert await store.grant_of_request(made.request) == made
    assert await store.unsettled() == [made]
    assert await store.grant("nothing") is None
    await store.ping()


async def test_order_and_request_give_one_grant(store: Store) -> None:
    made = row()
    assert await store.insert(made)
    assert not await store.insert(row(order_id=made.order_id))
    assert not await store.insert(row(request=made.request))
    await store.move(made, GrantEvent.REFUSE)
    again = row(request=made.request)
    assert await store.insert(again)
    assert await store.grant_of_request(made.request) == again


async def test_one_of_many_movers_wins(store: Store) -> None:
    made = await active(store)

    async def end(event: GrantEvent) -> bool:
        try:
            await store.move(made, event, "alice", "done")
        except RowMoved:
            return False
        return True

    events = [GrantEvent.END, GrantEvent.EXPIRE, GrantEvent.REVOKE] * 6
    assert sum(await asyncio.gather(*(end(event) for event in events))) == 1
    found = await store.grant(made.id)
    assert found is not None
    await store.close(made.id, NOW, True)
    with pytest.raises(RowMoved):
        await store.close(made.id, NOW, True)
    assert await store.unsettled() == []


async def test_database_repeats_the_state_table(engine: AsyncEngine) -> None:
    store = Store(engine)
    path = {
        GrantState.OPENING: [],
        GrantState.ACTIVE: ["active"],
        GrantState.REFUSED: ["refused"],
        GrantState.ENDED: ["active", "ended"],
        GrantState.EXPIRED: ["active", "expired"],
        GrantState.REVOKED: ["active", "revoked"],
    }

    async def put(grant: str, state: str) -> None:
        async with engine.begin() as connection:
            await connection.execute(text(f"update grants set state = '{state}' where id = '{grant}'"))

    for start, end in product(GrantState, GrantState):
        made = row()
        await store.insert(made)
        for state in path[start]:
            await put(made.id, state)
        legal = start is end or any(old is start and new is end for (old, _), new in TABLE.items())
        if legal:
            await put(made.id, end.value)
        else:
            with pytest.raises(DBAPIError):
                await put(made.id, end.value)


async def test_database_refuses_a_grant_born_active_and_a_state_nobody_knows(engine: AsyncEngine) -> None:
    store = Store(engine)
    with pytest.raises(StoreUnavailable):
        await _raw(store, row(state=GrantState.ACTIVE))
    assert await store.unsettled() == []
    with pytest.raises(GrantMoveIllegal):
        await store.move(row(), GrantEvent.END)


async def _raw(store: Store, made: GrantRow) -> None:
    if not await store.insert(made):
        raise StoreUnavailable


async def test_new_ticket_voids_unused_ones_and_bounds_hold(store: Store) -> None:
    made = await active(store)

    def ticket(number: int, user: str | None = None, at: datetime = NOW) -> TicketRow:
        return TicketRow(f"{made.id}{number}", made.id, user or f"{made.id}.{number}", VERIFIER, at, "alice")

    await store.mint(ticket(1), 5, 3)
    await store.mint(ticket(2), 5, 3)
    with pytest.raises(UserTaken):
        await store.mint(ticket(3, f"{made.id}.2"), 5, 3)
    first, second = [one for one in await store.tickets(10) if one[0].grant.id == made.id]
    assert (first[0].user, bool(first[0].refusal), first[1]) == (f"{made.id}.1", True, False)
    assert (second[0].refusal, second[0].verifier, second[0].grant.id) == (None, VERIFIER, made.id)
    assert not await store.use(first[0].id, NOW)
    assert await store.use(second[0].id, NOW)
    assert await store.use(second[0].id, NOW)
    assert [used for one, used in await store.tickets(10) if one.grant.id == made.id] == [False, True]
    await store.mint(ticket(4), 5, 3)
    with pytest.raises(TicketsSpent):
        await store.mint(ticket(5), 5, 3)
    await store.mint(ticket(6, at=NOW + timedelta(minutes=2)), 5, 3)
    await store.move(made, GrantEvent.END)
    with pytest.raises(RowMoved):
        await store.mint(ticket(7, at=NOW + timedelta(minutes=9)), 99, 99)


async def test_concurrent_mints_leave_one_usable_ticket(store: Store) -> None:
    made = await active(store)
    tickets = [TicketRow(f"t{i}{made.id}", made.id, f"{made.id}.{i}", VERIFIER, NOW, "alice") for i in range(12)]
    await asyncio.gather(*(store.mint(ticket, 100, 100) for ticket in tickets))
    found = [one for one, _ in await store.tickets(0) if one.grant.id == made.id]
    assert len(found) == 12
    assert sum(one.refusal is None for one in found) == 1


async def test_end_moves_only_to_an_earlier_time(store: Store) -> None:
    made = await active(store)
    await store.shorten(made.id, made.expires_at + timedelta(hours=1))
    await store.shorten(made.id, made.expires_at - timedelta(minutes=5))
    found = await store.grant(made.id)
    assert found is not None
    assert found.expires_at == made.expires_at - timedelta(minutes=5)


async def test_migrations_make_the_tables_that_the_code_uses_and_run_twice(engine: AsyncEngine) -> None:
    await upgrade(engine, MIGRATIONS)

    def columns(connection: Connection) -> dict[str, set[tuple[str, bool]]]:
        found = inspect(connection)
        return {
            name: {(column["name"], bool(column["nullable"])) for column in found.get_columns(name)}
            for name in metadata.tables
        }

    async with engine.connect() as connection:
        made = await connection.run_sync(columns)
    assert made == {
        name: {(column.name, bool(column.nullable)) for column in table.columns}
        for name, table in metadata.tables.items()
    }


def test_release_step_migrates(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "a" / "broker.sqlite")
    migrate(url, MIGRATIONS)
    migrate(url, MIGRATIONS)


def test_database_newer_than_the_program_stops_it(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "broker.sqlite")
    migrate(url, MIGRATIONS)
    with sqlite3.connect(tmp_path / "broker.sqlite") as connection:
        connection.execute("update alembic_version set version_num = '9999'")
    with pytest.raises(NotMigrated, match="9999"):
        migrate(url, MIGRATIONS)


async def test_database_that_is_gone_is_said(tmp_path: Path) -> None:
    store = Store(make_engine("postgresql+asyncpg://nobody:x@127.0.0.1:1/nothing"))
    with pytest.raises(StoreUnavailable):
        await store.grant("g1")


async def test_whole_story_on_either_database(url: str, tmp_path: Path) -> None:
    (tmp_path / "world").mkdir()
    world = World(tmp_path / "world", database=url)
    async with world.broker() as (_, bot):
        order = bot.order()
        answers = await asyncio.gather(*(bot.post(order) for _ in range(20)))
        assert len({body["id"] for _, body in answers}) == 1
        grant = answers[0][1]["id"]
        assert (await bot.json("POST", f"/v1/grants/{grant}/tickets"))[0] == 201
        assert (await bot.json("DELETE", f"/v1/grants/{grant}"))[1]["state"] == "ended"


async def test_a_shape_comes_back_as_stored_once_a_hold_under_an_active_grant_alone(store: Store) -> None:
    grant = row()
    await store.insert(grant)
    shape = ShapeRow(
        "shape-1", grant.id, "h1", "d" * 64, "x = $1", "x = ?", ["$1: any"], ["r"], ["bob"], 7, {"id": "a"}, NOW
    )
    with pytest.raises(RowMoved):
        await store.add_shape(shape)
    await store.move(grant, GrantEvent.OPEN)
    await store.add_shape(shape)
    assert await store.shapes_of(grant.id) == [shape] == [await store.shape("shape-1")]
    with pytest.raises(DBAPIError):
        await store.add_shape(replace(shape, id="shape-2"))
    await store.withdraw_shape("shape-1", "alice", NOW)
    await store.withdraw_shape("shape-1", "bob", NOW + timedelta(minutes=1))
    assert await store.shape("shape-1") == replace(shape, withdrawn_at=NOW, withdrawn_by="alice")
    assert await store.shape("shape-9") is None
