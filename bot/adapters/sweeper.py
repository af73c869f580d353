"""Sweeps on a timer: requests that nobody answered, policy files that changed, old rows (APScheduler, in memory)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from bot import homes, reviewing
from bot.adapters.boxes import Inbox, Outbox
from bot.adapters.desks import Desks
from bot.adapters.policies import FolderPolicies
from bot.extensions import LEAD, offer_due
from workflows.storage.boxes import RowMoved

log = structlog.get_logger()


class Sweeper:
    """Runs the sweeps; the rows are the truth, so a sweep that is missed is only late."""

    def __init__(
        self, desks: Desks, inbox: Inbox, outbox: Outbox, policies: FolderPolicies, caused: Callable[[], None]
    ) -> None:
        self._desks = desks
        self._inbox = inbox
        self._outbox = outbox
        self._policies = policies
        self._caused = caused
        self._scheduler = AsyncIOScheduler(timezone="UTC")
        self._turn = asyncio.Lock()

    def start(self) -> None:
        """Start the timers."""
        once = {"coalesce": True, "max_instances": 1, "misfire_grace_time": 30}
        self._scheduler.add_job(self.expire, "interval", seconds=1, **once)
        self._scheduler.add_job(self.offer, "interval", seconds=1, **once)
        self._scheduler.add_job(self.reload, "interval", seconds=2, **once)
        self._scheduler.add_job(self.tick, "interval", minutes=1, **once)
        self._scheduler.add_job(self.forget, "interval", hours=1, **once)
        self._scheduler.start()

    async def stop(self) -> None:
        """Stop the timers, after the sweep under way: the scheduler would cut it off in its transaction."""
        self._scheduler.pause()
        async with self._turn:
            self._scheduler.shutdown(wait=False)

    async def expire(self) -> None:
        """Expire what nobody answered, each request in a transaction of its own."""
        async with self._turn:
            await self._expire()

    async def _expire(self) -> None:
        async with self._desks.open() as (desk, work):
            late = [request.id for request in await work.overdue(desk.now)]
        for id in late:
            try:
                async with self._desks.open() as (desk, work):
                    found = [request for request in await work.overdue(desk.now) if request.id == id]
                    for request in found:
                        await reviewing.expire(desk, request)
            except RowMoved:
                continue  # somebody answered in the last moment
            self._caused()

    async def offer(self) -> None:
        """Offer to extend what is about to end, each grant in a transaction of its own."""
        async with self._turn:
            async with self._desks.open() as (desk, work):
                ending = [grant.id for grant in await work.ending_grants(desk.now + LEAD)]
            for id in ending:
                async with self._desks.open() as (desk, work):
                    grant = await work.grant(id)
                    offered = grant is not None and grant.live and await offer_due(desk, grant)
                if offered:
                    self._caused()

    async def reload(self) -> None:
        """Read the policy files again if they changed."""
        await asyncio.to_thread(self._policies.refresh)

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
