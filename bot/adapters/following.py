"""Follows the broker's events: what a batch causes and the cursor move in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from bot import relay
from bot.adapters.broker import HttpBroker
from bot.adapters.desks import Desks
from bot.ports import BrokerAway, Refusal
from workflows.storage.boxes import RowMoved
from workflows.wire import EventView

log = structlog.get_logger()

CURSOR = "broker"
LONGEST_WAIT = 5.0


class Follower:
    """Reads events until it is cancelled."""

    def __init__(self, broker: HttpBroker, desks: Desks, caused: Callable[[], None]) -> None:
        self._broker = broker
        self._desks = desks
        self._caused = caused

    async def run(self) -> None:
        """Follow the feed; where the broker is away, wait a little longer each time."""
        wait = 0.1
        while True:
            try:
                async with self._desks.open() as (_, work):
                    cursor = await work.cursor(CURSOR)
                async for events in self._broker.events(cursor):
                    await self._apply(events, cursor)
                    cursor, wait = events[-1].cursor, 0.1
                await asyncio.sleep(0.01)  # an answer without events, at once, must not spin
            except (BrokerAway, Refusal, RowMoved) as error:
                log.info("feed.waiting", error=str(error), seconds=wait)
                await asyncio.sleep(wait)
                wait = min(wait * 2, LONGEST_WAIT)
            except Exception:
                log.exception("feed.failed")
                await asyncio.sleep(LONGEST_WAIT)

    async def _apply(self, events: list[EventView], cursor: str) -> None:
        async with self._desks.open() as (desk, work):
            await relay.apply(desk, events)
            await work.move_cursor(CURSOR, cursor, events[-1].cursor)
        self._caused()
