"""The database itself moves states as the tables say, whatever asks it to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product

import pytest
from sqlalchemy import Table, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from bot.adapters.desks import Desks
from bot.adapters.tables import grants, holds, requests
from bot.ordering import Opened, opened
from tests.unit.bot.memory import LATER, NOW
from tests.unit.bot.stored import filed, held
from workflows import grants as grant_table
from workflows import holds as hold_table
from workflows import requests as request_table
from workflows.grants import GrantState
from workflows.holds import HoldState
from workflows.requests import RequestState

State = RequestState | GrantState | HoldState


async def moves_only_as(
    allowed: set[tuple[State, State]], engine: AsyncEngine, table: Table, tried: Iterable[tuple[Sequence[State], State]]
) -> None:
    """Try moves of the one row there is, each after the moves that lead to it; nothing stays."""
    for way, new in tried:
        old = way[-1]
        async with engine.connect() as connection, connection.begin() as transaction:
            for state in way[1:]:
                await connection.execute(update(table).values(state=state.value))
            if old is new or (old, new) in allowed:
                await connection.execute(update(table).values(state=new.value))
            else:
                with pytest.raises(DBAPIError, match="cannot move so"):
                    await connection.execute(update(table).values(state=new.value))
            await transaction.rollback()


async def test_database_moves_requests_as_the_table_says(engine: AsyncEngine, desks: Desks) -> None:
    await filed(desks)
    async with engine.begin() as connection:
        await connection.execute(text("drop trigger requests_birth"))
    first = RequestState.PENDING
    ways = [[first] if old is first else [first, old] for old in RequestState]
    allowed = {(state, to) for (state, _), to in request_table.TABLE.items()}
    await moves_only_as(allowed, engine, requests, product(ways, RequestState))


async def test_database_moves_grants_as_the_table_says(engine: AsyncEngine, desks: Desks) -> None:
    request = await filed(desks)
    async with desks.open() as (at, _):
        await opened(at, Opened("g1", request.id, "o", NOW, LATER))
    ways = [[GrantState.ACTIVE], [GrantState.ACTIVE, GrantState.ENDED]]
    allowed = {(state, to) for (state, _), to in grant_table.TABLE.items()}
    await moves_only_as(allowed, engine, grants, product(ways, GrantState))


async def test_database_moves_holds_as_the_table_says(engine: AsyncEngine, desks: Desks) -> None:
    await held(desks)
    first, last = HoldState.WAITING, HoldState.CONSUMED
    ways = {old: [first, old] for old in HoldState} | {first: [first], last: [first, HoldState.RELEASED, last]}
    allowed = {(state, to) for (state, _), to in hold_table.TABLE.items()}
    await moves_only_as(allowed, engine, holds, product(ways.values(), HoldState))


async def test_request_is_born_pending(engine: AsyncEngine, desks: Desks) -> None:
    request = await filed(desks)
    with pytest.raises(DBAPIError, match="cannot begin so"):
        async with desks.open() as (_, work):
            await work.add_request(replace(request, id="rq-9", token="t9", state=RequestState.APPROVED))


async def test_hold_is_born_waiting(desks: Desks) -> None:
    hold = await held(desks)
    with pytest.raises(DBAPIError, match="cannot begin so"):
        async with desks.open() as (_, work):
            await work.add_hold(replace(hold, id="h0002", token="t2", state=HoldState.RELEASED))
