"""Follows the broker's events: what a batch causes and the cursor move in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress

import structlog

from bot import relay, rereading
from bot.adapters.broker import HttpBroker
from bot.adapters.desks import Desks
from bot.ports import BrokerAway, Refusal
from workflows.storage.boxes import RowMoved
from workflows.wire import EventView

log = structlog.get_logger()

CURSOR = "broker"
BAD_CURSOR, NOT_FOUND = "bad_cursor", 404
SHORTEST_WAIT = 0.1
LONGEST_WAIT = 5.0


class Follower:
    """Reads events until it is told to stop."""

    def __init__(self, broker: HttpBroker, desks: Desks, caused: Callable[[], None]) -> None:
        self._broker = broker
        self._desks = desks
        self._caused = caused
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Finish what is being applied, and follow no further."""
        self._stop.set()

    async def run(self) -> None:
        """Follow the feed; where the broker is away, wait a little longer each time."""
        wait = SHORTEST_WAIT
        while not self._stop.is_set():
            try:
                if await self._follow():
                    wait = SHORTEST_WAIT
                await self._pause(0.01)  # an answer without events, at once, must not spin
                continue
            except (BrokerAway, RowMoved) as error:
                log.info("feed.waiting", error=str(error), seconds=wait)
            except Refusal as error:
                if error.problem.code == BAD_CURSOR and await self._begin_again():
                    continue
                # It passes where the broker reads a new key; else nobody hears of anything until somebody mends it.
                log.error("feed.refused", code=error.problem.code, error=error.problem.message, seconds=wait)
            except Exception:  # the cursor has not moved, so the same events are read again; following goes on
                log.exception("feed.failed")
            await self._pause(wait)
            wait = min(wait * 2, LONGEST_WAIT)

    async def _begin_again(self) -> bool:
        """Read the feed from its beginning, as the broker does not know how far it was read; False where it was not.

        Nothing has changed where the broker goes away meanwhile: then it says the same again.
        """
        try:
            async with self._desks.open() as (_, work):
                cursor = await work.cursor(CURSOR)
                live = [grant.id for grant in await work.live_grants()]
            if not cursor:
                return False
            unknown = [grant for grant in live if not await self._knows(grant)]
            async with self._desks.open() as (desk, work):
                await rereading.begin_again(desk, unknown)
                await work.forget_cursor(CURSOR, cursor)
        except (BrokerAway, RowMoved, Refusal) as error:
            log.info("feed.waiting", error=str(error))
            return False
        log.error(
            "feed.begun_again",
            error="the broker does not know how far its feed was read: its state was put back, or it is another one. "
            "All of it is read again, what was said is not said twice, and access that it does not know is closed.",
            unknown_grants=unknown,
        )
        self._caused()
        return True

    async def _knows(self, grant: str) -> bool:
        try:
            await self._broker.grant(grant)
        except Refusal as error:
            if error.status == NOT_FOUND:
                return False
            raise
        return True

    async def _follow(self) -> bool:
        """Read one answer to its end; say whether there was anything in it."""
        async with self._desks.open() as (_, work):
            cursor = await work.cursor(CURSOR)
        found = False
        async with aclosing(self._broker.events(cursor)) as batches:
            while (events := await self._next(batches)) is not None:
                await self._apply(events, cursor)
                cursor, found = events[-1].cursor, True
        return found

    async def _next(self, batches: AsyncGenerator[list[EventView], None]) -> list[EventView] | None:
        """Return the next events; None at the end, or when it is time to stop. Only waiting is ever cut off."""
        read = asyncio.ensure_future(anext(batches, None))
        stop = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({read, stop}, return_when=asyncio.FIRST_COMPLETED)
            if read.done():
                return read.result()
            read.cancel()
            with suppress(asyncio.CancelledError, BrokerAway):
                await read
            return None
        finally:
            stop.cancel()

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    async def _apply(self, events: list[EventView], cursor: str) -> None:
        async with self._desks.open() as (desk, work):
            await relay.apply(desk, events)
            await work.move_cursor(CURSOR, cursor, events[-1].cursor)
        self._caused()
