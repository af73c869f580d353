"""The outbox worker: lanes side by side, each in order, with retries, and never twice what may have happened once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

import structlog

from bot.adapters.boxes import Outbox, Queued, Urgency, urgency_of
from bot.adapters.rounds import IDLE_SECONDS, Rounds
from bot.ports import Clock

log = structlog.get_logger()

LANES_AT_ONCE = {Urgency.ASK: 32, Urgency.STORY: 24, Urgency.COUNT: 16}
"""How many lanes may be busy for one more to start; those to the broker wait for no message to be posted."""
LONGEST_WAIT = 60.0


@dataclass(frozen=True, slots=True)
class Done:
    """It left, or need not leave any more."""

    receipt: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Later:
    """It did not leave, or perhaps did (`uncertain`); `after` seconds where the other side named a time."""

    error: str
    after: float | None = None
    uncertain: bool = False


@dataclass(frozen=True, slots=True)
class Never:
    """It cannot leave; trying again would change nothing."""

    error: str


Outcome = Done | Later | Never


class Deliverer(Protocol):
    async def deliver(self, row: Queued) -> Outcome:
        """Do what a row says."""
        ...


class Sender(Rounds):
    """Sends what is queued until it is told to stop."""

    def __init__(self, outbox: Outbox, deliverer: Deliverer, clock: Clock) -> None:
        super().__init__()
        self._outbox = outbox
        self._deliverer = deliverer
        self._clock = clock
        self._due: dict[str, tuple[tuple[int, datetime], float]] = {}
        """Lane -> what its first row waits for, and when that is by the loop's clock."""

    async def look(self) -> float:
        """Start the first row of every idle lane that is due; return how long nothing more is due."""
        pause = IDLE_SECONDS
        for row in sorted(await self._outbox.heads(), key=lambda row: (row.urgency, row.id)):
            if row.lane in self.busy or not self._has_room(row.urgency):
                continue
            if (left := self._left(row)) > 0:
                pause = min(pause, left)
                continue
            self._due.pop(row.lane, None)
            self.begin(row.lane, self._send(row))
        return max(pause, 0.01)

    def _has_room(self, urgency: Urgency) -> bool:
        slow = sum(urgency_of(str(lane)) is not Urgency.BROKER for lane in self.busy)
        return urgency is Urgency.BROKER or slow < LANES_AT_ONCE[urgency]

    def _left(self, row: Queued) -> float:
        """Return the seconds until a row is due, by the clock that leaves fewer: the wall clock may be set back."""
        if row.not_before is None:
            return 0.0
        now, left = asyncio.get_running_loop().time(), (row.not_before - self._clock.now()).total_seconds()
        waits = (row.id, row.not_before)
        if (seen := self._due.get(row.lane)) is None or seen[0] != waits:
            # It was never meant to wait longer than from when it was made, however the wall clock stands by now.
            most = max((row.not_before - row.made_at).total_seconds(), 0.0)
            seen = self._due[row.lane] = waits, now + min(left, most)
        return min(left, seen[1] - now)

    async def _send(self, row: Queued) -> None:
        try:
            outcome = await self._outcome(row)
            await self._settle(row, outcome)
        except Exception:  # the row is as it was, so it is taken again; one lane's trouble must not end the others
            log.exception("outbox.unsettled", key=row.key)
            await asyncio.sleep(IDLE_SECONDS)

    async def _outcome(self, row: Queued) -> Outcome:
        try:
            return await self._deliverer.deliver(row)
        except Exception as error:  # whatever it was, it may have happened, so the row says that it is uncertain
            log.exception("outbox.failed", key=row.key)
            return Later(type(error).__name__, uncertain=True)

    async def _settle(self, row: Queued, outcome: Outcome) -> None:
        match outcome:
            case Done(receipt=receipt):
                await self._outbox.sent(row, receipt)
            case Never(error=error):
                log.error("outbox.gave_up", key=row.key, error=error)
                await self._outbox.gave_up(row, error)
            case Later(error=error, after=after, uncertain=uncertain):
                wait = after if after is not None else min(0.25 * 2 ** min(row.attempts, 10), LONGEST_WAIT)
                log.warning("outbox.later", key=row.key, error=error, seconds=wait, uncertain=uncertain)
                again = self._clock.now() + timedelta(seconds=wait)
                # Noted before it is written: the wall clock may be set back before anybody looks at the row again.
                self._due[row.lane] = (row.id, again), asyncio.get_running_loop().time() + wait
                await self._outbox.failed(row, error, again, uncertain)
