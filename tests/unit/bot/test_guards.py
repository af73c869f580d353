"""The database itself moves states as the tables say, whatever asks it to."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from sqlalchemy import text, update
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


@pytest.mark.parametrize(("old", "new"), list(itertools.product(RequestState, RequestState)))
async def test_database_moves_requests_as_the_table_says(
    engine: AsyncEngine, desks: Desks, old: RequestState, new: RequestState
) -> None:
    request = await filed(desks)
    allowed = {(state, to) for (state, _), to in request_table.TABLE.items()}
    async with engine.begin() as connection:
        await connection.execute(text("drop trigger requests_birth"))
    path = {
        RequestState.PENDING: [],
        RequestState.APPROVED: ["approved"],
        RequestState.DENIED: ["denied"],
        RequestState.EXPIRED: ["expired"],
        RequestState.CANCELLED: ["cancelled"],
    }[old]
    async with engine.begin() as connection:
        for state in path:
            await connection.execute(update(requests).where(requests.c.id == request.id).values(state=state))
    move = update(requests).where(requests.c.id == request.id).values(state=new.value)
    if old is new or (old, new) in allowed:
        async with engine.begin() as connection:
            await connection.execute(move)
    else:
        with pytest.raises(DBAPIError, match="cannot move so"):
            async with engine.begin() as connection:
                await connection.execute(move)


@pytest.mark.parametrize(("old", "new"), list(itertools.product([GrantState.ACTIVE, GrantState.ENDED], GrantState)))
async def test_database_moves_grants_as_the_table_says(
    engine: AsyncEngine, desks: Desks, old: GrantState, new: GrantState
) -> None:
    request = await filed(desks)
    async with desks.open() as (at, _):
        await opened(at, Opened("g1", request.id, "o", NOW, LATER))
    async with engine.begin() as connection:
        await connection.execute(update(grants).values(state=old.value))
    allowed = {(state, to) for (state, _), to in grant_table.TABLE.items()}
    if old is new or (old, new) in allowed:
        async with engine.begin() as connection:
            await connection.execute(update(grants).values(state=new.value))
    else:
        with pytest.raises(DBAPIError, match="cannot move so"):
            async with engine.begin() as connection:
                await connection.execute(update(grants).values(state=new.value))


@pytest.mark.parametrize(("old", "new"), list(itertools.product(HoldState, HoldState)))
async def test_database_moves_holds_as_the_table_says(
    engine: AsyncEngine, desks: Desks, old: HoldState, new: HoldState
) -> None:
    await held(desks)
    ways = {HoldState.WAITING: (), HoldState.CONSUMED: (HoldState.RELEASED, HoldState.CONSUMED)}
    async with engine.begin() as connection:
        for state in ways.get(old, (old,)):
            await connection.execute(update(holds).values(state=state.value))
    allowed = {(state, to) for (state, _), to in hold_table.TABLE.items()}
    if old is new or (old, new) in allowed:
        async with engine.begin() as connection:
            await connection.execute(update(holds).values(state=new.value))
    else:
        with pytest.raises(DBAPIError, match="cannot move so"):
            async with engine.begin() as connection:
                await connection.execute(update(holds).values(state=new.value))


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
