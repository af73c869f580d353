"""Works on kept payloads: each exactly once, its row marked in the same transaction as what it changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError

from bot.adapters.boxes import Inbox, Kept, Reserved
from bot.adapters.desks import Desks
from bot.adapters.rounds import IDLE_SECONDS, Rounds
from bot.adapters.store import SqlWork
from bot.asking import tell
from bot.cards import plain
from bot.handlers import handle
from bot.intents import DECISIONS, AccountChanged, Ignored, Intent, Unknown
from bot.ports import Desk, Directory, Outsider, Standing

log = structlog.get_logger()

AT_ONCE = 8
ATTEMPTS = 5
SORRY = "Something went wrong here, so nothing was done. It is logged; please try again."


class InboxWorker(Rounds):
    """Takes payloads from the inbox until it is told to stop; those that are `reserved` wait."""

    def __init__(
        self,
        inbox: Inbox,
        desks: Desks,
        directory: Directory,
        read: Callable[[dict[str, Any], str], Intent],
        caused: Callable[[], None],
        reserved: Reserved,
    ) -> None:
        super().__init__()
        self._inbox = inbox
        self._desks = desks
        self._directory = directory
        self._read = read
        self._caused = caused
        self._reserved = reserved

    async def look(self) -> float:
        """Begin on the oldest payloads, a few at a time."""
        for row in await self._inbox.waiting():
            if row.id not in self.busy and len(self.busy) < AT_ONCE and not self._reserved.has(row.key):
                self.begin(row.id, self._work(row))
        return IDLE_SECONDS

    async def _work(self, row: Kept) -> None:
        try:
            await self._once(row)
        except (OperationalError, InterfaceError, OSError) as error:
            # Not this payload's fault: it is not counted against it, and not given up.
            log.error("payload.waits", key=row.key, error=type(error).__name__)
            await asyncio.sleep(IDLE_SECONDS)
        except Exception as error:  # nothing was changed: the transaction is undone, and the row counts its attempts
            log.exception("payload.failed", key=row.key, attempts=row.attempts + 1)
            await self._failed(row, error)

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
        if isinstance(intent, AccountChanged):
            self._directory.forget(source.account)
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
        except Exception:  # the apology is a courtesy: the row must be marked as failed all the same
            log.exception("payload.lost", key=row.key)
