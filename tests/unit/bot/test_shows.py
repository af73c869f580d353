"""Messages that are kept up to date in place, with a workspace that takes its time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, cast

from sqlalchemy.ext.asyncio import AsyncEngine

from bot.adapters.boxes import Outbox, Queued
from bot.adapters.clock import SystemClock
from bot.adapters.desks import Desks
from bot.adapters.sender import Done, Later
from bot.cards import plain
from bot.chat.slack.gateway import Gateway
from bot.chat.slack.shows import Found, Shows
from bot.outgoing import Show
from bot.ports import Broker


class SlowGateway:
    """Posts when it is let."""

    def __init__(self) -> None:
        self.posted: list[str] = []
        self.edited: list[str] = []
        self.asked = asyncio.Event()
        self.let = asyncio.Event()

    async def post(self, _channel: str, _payload: Any, key: str, _thread: str = "") -> str:
        self.asked.set()
        await self.let.wait()
        self.posted.append(key)
        return f"{len(self.posted)}.0"

    async def update(self, _channel: str, ts: str, _payload: Any) -> None:
        self.edited.append(ts)

    async def is_shared_outside(self, _channel: str) -> bool:
        return False


async def test_message_with_two_lanes_is_posted_by_its_first_row_alone(engine: AsyncEngine, desks: Desks) -> None:
    gateway, outbox = SlowGateway(), Outbox(engine, SystemClock())
    shows = Shows(cast(Gateway, gateway), desks, outbox, cast(Broker, None))
    async with desks.open() as (_, work):
        await work.want("counter:g1", "thread:r1")
        await work.want("counter:g1", "counter:g1")
    first, second = await outbox.heads()

    async def put(row: Queued) -> Any:
        async with desks.open() as (_, work):
            shown = await work.shown("counter:g1")
        assert shown is not None
        version = int(row.key.rpartition(":")[2])
        return await shows.put(row, Show("counter:g1", version), shown, Found(plain("1 session")))

    posting = asyncio.create_task(put(first))
    await gateway.asked.wait()
    assert isinstance(await put(second), Later)
    gateway.let.set()
    outcome = await posting
    assert isinstance(outcome, Done)
    await outbox.sent(first, outcome.receipt)
    async with desks.open() as (_, work):
        late = await work.shown("counter:g1")
    assert late is not None
    # Read before the first was posted, checked after: what is known by then counts.
    assert isinstance(await shows.put(second, Show("counter:g1", 2), replace(late, ts=None), Found(plain("x"))), Later)
    assert isinstance(await put(second), Done)
    assert (len(gateway.posted), len(gateway.edited)) == (1, 1)
