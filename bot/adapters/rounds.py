"""The rounds of whoever works on rows: look for what is due, do it side by side, wait until there may be more."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Hashable
from contextlib import suppress

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError

log = structlog.get_logger()

IDLE_SECONDS = 1.0


class Rounds(ABC):
    """Goes round until it is told to stop; `busy` is what is being worked on, by key."""

    def __init__(self) -> None:
        self.busy: dict[Hashable, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._stopped = False

    @abstractmethod
    async def look(self) -> float:
        """Begin what is due and not busy; return for how many seconds nothing more is due."""

    def begin(self, key: Hashable, work: Coroutine[object, object, None]) -> None:
        """Start work on a row; when it is over, the next round comes at once."""
        self.busy[key] = asyncio.create_task(self._to_its_end(key, work))

    def wake(self) -> None:
        """Say that there is a new row."""
        self._wake.set()

    def stop(self) -> None:
        """Take nothing new. Nothing here is cancelled: a transaction that is cut off may keep the database locked."""
        self._stopped = True
        self._wake.set()

    async def run(self) -> None:
        """Work until told to stop; what is in flight is awaited, not cut."""
        try:
            while not self._stopped:
                self._wake.clear()
                pause = await self._looked()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), pause)
        finally:
            await asyncio.gather(*self.busy.values(), return_exceptions=True)

    async def _looked(self) -> float:
        try:
            return await self.look()
        except (OperationalError, InterfaceError, OSError):
            # A database that is away comes back; whoever works on its rows must still be there then.
            log.exception("rows.unreadable")
            return IDLE_SECONDS

    async def _to_its_end(self, key: Hashable, work: Coroutine[object, object, None]) -> None:
        try:
            await work
        finally:
            self.busy.pop(key, None)
            self._wake.set()
