"""Sweeps: what is due goes by the wall clock, and when to look by a clock that nobody sets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from unittest.mock import Mock

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from bot import reviewing
from bot.adapters import sweeper
from bot.adapters.boxes import Inbox, Outbox
from bot.adapters.desks import Desks
from bot.adapters.policies import FolderPolicies
from bot.adapters.sweeper import Sweeper
from tests.unit.bot.memory import NOW
from tests.unit.bot.stored import Still, filed
from workflows.requests import RequestState


@pytest.fixture
async def sweeping(engine: AsyncEngine, desks: Desks, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sweeper]:
    for name in ("EXPIRE_SECONDS", "OFFER_SECONDS", "RELOAD_SECONDS"):
        monkeypatch.setattr(sweeper, name, 0.01)
    clock = desks.clock
    made = Sweeper(desks, Inbox(engine, clock), Outbox(engine, clock), Mock(spec=FolderPolicies), lambda: None)
    yield made
    await made.stop()


async def state_becomes(desks: Desks, id: str, wanted: RequestState) -> None:
    async with asyncio.timeout(20):
        while True:
            async with desks.open() as (_, work):
                found = await work.request(id)
            if found is not None and found.state is wanted:
                return
            await asyncio.sleep(0.01)


async def test_request_expires_after_the_wall_clock_was_set_back(
    desks: Desks, sweeping: Sweeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = await filed(desks)
    clock = desks.clock
    assert isinstance(clock, Still)
    sweeping.start()
    await asyncio.sleep(0.05)
    # Every clock that can be set goes back by a day, and later the request is due by that clock.
    set_back = NOW.timestamp() - 86_400
    monkeypatch.setattr("time.time", lambda: set_back)
    clock.at = NOW - timedelta(days=1)
    await asyncio.sleep(0.05)
    await state_becomes(desks, request.id, RequestState.PENDING)
    clock.at = request.expires_at
    await state_becomes(desks, request.id, RequestState.EXPIRED)


async def test_sweep_that_fails_is_tried_again(
    desks: Desks, sweeping: Sweeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = await filed(desks)
    clock = desks.clock
    assert isinstance(clock, Still)
    real, failed, enough = desks.open, 0, asyncio.Event()

    def fails_at_first() -> Any:
        nonlocal failed
        failed += 1
        if failed <= 3:
            raise OSError("the disk is away")
        enough.set()
        return real()

    monkeypatch.setattr(desks, "open", fails_at_first)
    clock.at = request.expires_at
    sweeping.start()
    await asyncio.wait_for(enough.wait(), 20)
    await state_becomes(desks, request.id, RequestState.EXPIRED)


async def test_one_request_that_cannot_be_expired_keeps_no_other_waiting(
    desks: Desks, sweeping: Sweeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await filed(desks), await filed(desks, "write")
    clock, real = desks.clock, reviewing.expire
    assert isinstance(clock, Still)

    async def stumbles(desk: Any, request: Any) -> None:
        if request.id == first.id:
            raise ValueError("a row that nobody understands")
        await real(desk, request)

    monkeypatch.setattr(reviewing, "expire", stumbles)
    clock.at = max(first.expires_at, second.expires_at)
    sweeping.start()
    await state_becomes(desks, second.id, RequestState.EXPIRED)
    await state_becomes(desks, first.id, RequestState.PENDING)


async def test_stopping_waits_for_the_sweep_under_way(sweeping: Sweeper, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        begun.set()
        await asyncio.sleep(0.1)
        ended.set()

    monkeypatch.setattr(sweeping, "expire", slow)
    sweeping.start()
    await asyncio.wait_for(begun.wait(), 20)
    await sweeping.stop()
    assert ended.is_set()
