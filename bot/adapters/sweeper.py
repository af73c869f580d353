"""Sweeps now and then: requests that nobody answered, policy files that changed, old rows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from bot import homes, reviewing
from bot.adapters.boxes import Inbox, Outbox
from bot.adapters.desks import Desks
from bot.adapters.policies import FolderPolicies
from bot.extensions import LEAD, offer_due
from bot.outgoing import card_of, hold_of
from workflows.storage.boxes import RowMoved

log = structlog.get_logger()


EXPIRE_SECONDS = OFFER_SECONDS = 1.0
RELOAD_SECONDS = 2.0
TICK_SECONDS = 60.0
FORGET_SECONDS = 3600.0


class Sweeper:
    """Runs the sweeps; the rows are the truth, so a sweep that is missed is only late.

    What is due is read from the rows by the wall clock; when to look goes by the loop's own clock, which nobody sets.
    """

    def __init__(
        self, desks: Desks, inbox: Inbox, outbox: Outbox, policies: FolderPolicies, caused: Callable[[], None]
    ) -> None:
        self._desks = desks
        self._inbox = inbox
        self._outbox = outbox
        self._policies = policies
        self._caused = caused
        self._tasks: list[asyncio.Task[None]] = []
        self._stopped = asyncio.Event()
        self._turn = asyncio.Lock()

    def start(self) -> None:
        """Begin to sweep."""
        sweeps = (
            (self.expire, EXPIRE_SECONDS),
            (self.offer, OFFER_SECONDS),
            (self.reload, RELOAD_SECONDS),
            (self.tick, TICK_SECONDS),
            (self.forget, FORGET_SECONDS),
        )
        self._tasks = [asyncio.create_task(self._every(seconds, sweep)) for sweep, seconds in sweeps]

    async def stop(self) -> None:
        """Sweep no more, after the sweep under way: cut off in its transaction, it may keep the database locked."""
        self._stopped.set()
        await asyncio.gather(*self._tasks)

    async def _every(self, seconds: float, sweep: Callable[[], Awaitable[None]]) -> None:
        while not self._stopped.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), seconds)
                return
            try:
                await sweep()
            except Exception:  # the rows are as they were, so the next sweep finds them; sweeping goes on
                log.exception("sweep.failed", sweep=getattr(sweep, "__name__", "unknown"))

    async def expire(self) -> None:
        """Expire what nobody answered, each request in a transaction of its own."""
        async with self._turn:
            await self._expire()

    async def _expire(self) -> None:
        async with self._desks.open() as (desk, work):
            late = [request.id for request in await work.overdue(desk.now)]
        await self._each("expire", late, self._expire_one)

    async def _expire_one(self, id: str) -> bool:
        try:
            async with self._desks.open() as (desk, work):
                found = [request for request in await work.overdue(desk.now) if request.id == id]
                for request in found:
                    await reviewing.expire(desk, request)
        except RowMoved:
            return False  # somebody answered in the last moment
        return True

    async def offer(self) -> None:
        """Offer to extend what is about to end, each grant in a transaction of its own."""
        async with self._turn:
            async with self._desks.open() as (desk, work):
                ending = [grant.id for grant in await work.ending_grants(desk.now + LEAD)]
            await self._each("offer", ending, self._offer_one)

    async def _offer_one(self, id: str) -> bool:
        async with self._desks.open() as (desk, work):
            grant = await work.grant(id)
            return grant is not None and grant.live and await offer_due(desk, grant)

    async def _each(self, sweep: str, ids: list[str], work: Callable[[str], Awaitable[bool]]) -> None:
        """Do what is due for each; `work` says whether something came of it that is to be sent."""
        for id in ids:
            try:
                caused = await work(id)
            except Exception:  # the others do not wait for one that stumbles, and the next sweep finds it
                log.exception("sweep.failed", sweep=sweep, id=id)
                continue
            if caused:
                self._caused()

    async def reload(self) -> None:
        """Read the policy files again if they changed, and show who may answer now what waits."""
        if not await asyncio.to_thread(self._policies.refresh):
            return
        async with self._turn, self._desks.open() as (desk, work):
            for request in await work.pending(homes.LOOKED_AT):
                await work.want(card_of(request.id), f"card:{request.id}")
            for hold in await work.waiting(homes.LOOKED_AT):
                await work.want(hold_of(hold.id), f"hold:{hold.id}")
            for account in await work.homes():
                await homes.soon(desk, account)
        self._caused()

    async def tick(self) -> None:
        """Bring the times in homes up to date that somebody may be looking at."""
        async with self._turn, self._desks.open() as (desk, _):
            await homes.tick(desk)
        self._caused()

    async def forget(self) -> None:
        """Forget rows that nobody will ask about."""
        async with self._turn:
            await self._inbox.forget_old()
            await self._outbox.forget_old()
