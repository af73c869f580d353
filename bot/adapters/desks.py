"""Opens a desk: one transaction with the policy, the time and the settings that a handler works with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from bot import homes
from bot.adapters.store import SqlWork, Store
from bot.ports import Clock, Desk, Ids, Policies
from workflows.storage.boxes import RowMoved

TRIES = 20


class Desks:
    """Everything a desk needs but the transaction."""

    def __init__(
        self,
        store: Store,
        policies: Policies,
        clock: Clock,
        ids: Ids,
        *,
        command: str,
        channel: str,
        pending_cap: int,
    ) -> None:
        self.channel = channel
        self.command = command
        self.clock = clock
        self.policies = policies
        self._store = store
        self._ids = ids
        self._pending_cap = pending_cap

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[Desk, SqlWork]]:
        """Give one desk and its transaction."""
        async with self._store.begin() as work:
            desk = Desk(
                work=work,
                policy=self.policies.current,
                policy_hash=self.policies.hash,
                now=self.clock.now(),
                ids=self._ids,
                command=self.command,
                channel=self.channel,
                pending_cap=self._pending_cap,
            )
            yield desk, work
            await homes.concern(desk, work.changed)

    async def settle(self, do: Callable[[Desk, SqlWork], Awaitable[None]]) -> None:
        """Do something in a transaction, again from the start where a row moved meanwhile."""
        for left in range(TRIES, 0, -1):
            try:
                async with self.open() as (desk, work):
                    await do(desk, work)
                return
            except RowMoved:
                if left == 1:
                    raise
