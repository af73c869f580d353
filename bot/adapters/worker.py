"""Works on kept payloads: each exactly once, its row marked in the same transaction as what it changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from bot.adapters.boxes import Inbox, Kept
from bot.adapters.desks import Desks
from bot.adapters.store import SqlWork
from bot.asking import tell
from bot.cards import plain
from bot.handlers import handle
from bot.intents import DECISIONS, AccountChanged, Ignored, Intent, Unknown
from bot.ports import Desk, Directory, Outsider, Standing

log = structlog.get_logger()

AT_ONCE = 8
ATTEMPTS = 5
IDLE_SECONDS = 1.0
SORRY = "Something went wrong here, so nothing was done. It is logged; please try again."


class InboxWorker:
    """Takes payloads from the inbox until it is told to stop."""

    def __init__(
        self,
        inbox: Inbox,
        desks: Desks,
        directory: Directory,
        read: Callable[[dict[str, Any], str], Intent],
        caused: Callable[[], None],
    ) -> None:
        self._inbox = inbox
        self._desks = desks
        self._directory = directory
        self._read = read
        self._caused = caused
        self._wake = asyncio.Event()
        self._stopped = False
        self._busy: dict[int, asyncio.Task[None]] = {}

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
                for row in await self._inbox.waiting():
                    if row.id not in self._busy and len(self._busy) < AT_ONCE:
                        self._busy[row.id] = asyncio.create_task(self._work(row))
                try:
                    await asyncio.wait_for(self._wake.wait(), IDLE_SECONDS)
                except TimeoutError:
                    continue
        finally:
            await asyncio.gather(*self._busy.values(), return_exceptions=True)

    async def _work(self, row: Kept) -> None:
        try:
            await self._once(row)
        except Exception as error:
            log.exception("payload.failed", key=row.key, attempts=row.attempts + 1)
            await self._failed(row, error)
        finally:
            self._busy.pop(row.id, None)
            self._wake.set()

    async def _once(self, row: Kept) -> None:
        intent = self._read(row.payload, self._desks.command)
        standing = await self._standing(intent)

        async def do(desk: Desk, work: SqlWork) -> None:
            if await work.take(row.key):
                await handle(desk, intent, standing, row.key)

        await self._desks.settle(do)
        self._caused()

    async def _standing(self, intent: Intent) -> Standing:
        source = intent.source
        if isinstance(intent, AccountChanged | Ignored | Unknown):
            return Outsider(source.account, "nothing was asked")
        return await self._directory.standing(source.team, source.account, isinstance(intent, DECISIONS))

    async def _failed(self, row: Kept, error: Exception) -> None:
        give_up = row.attempts + 1 >= ATTEMPTS
        if give_up:
            await self._apologise(row)
        else:
            await asyncio.sleep(0.2 * 2**row.attempts)
        await self._inbox.failed(row.id, f"{type(error).__name__}: {error}", give_up)

    async def _apologise(self, row: Kept) -> None:
        try:
            source = self._read(row.payload, self._desks.command).source
            async with self._desks.open() as (desk, _):
                await tell(desk, source, row.key, plain(SORRY))
        except Exception:
            log.exception("payload.lost", key=row.key)
