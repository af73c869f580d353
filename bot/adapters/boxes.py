"""The bot's inbox and outbox: what is kept before an acknowledgement, what is taken to be sent, how it went."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any

from sqlalchemy import Row, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine

from bot.adapters.tables import inbox, outbox
from bot.ports import Clock
from workflows.storage.engine import begin

KEPT_FOR = timedelta(days=30)


class Urgency(IntEnum):
    """How soon something must leave, by who waits for it."""

    BROKER = 0
    """Somebody waits in a terminal."""
    ASK = 1
    """What somebody must answer, or has just done."""
    STORY = 2
    COUNT = 3
    """What is only brought up to date."""


_URGENCY = {
    **dict.fromkeys(("answer", "end", "order", "withdraw"), Urgency.BROKER),
    **dict.fromkeys(("card", "hold", "statement", "tell"), Urgency.ASK),
    **dict.fromkeys(("counter", "home"), Urgency.COUNT),
}
"""By the first word of a lane."""


def urgency_of(lane: str) -> Urgency:
    """Say how soon what is in a lane must leave."""
    return _URGENCY.get(lane.partition(":")[0], Urgency.STORY)


@dataclass(frozen=True, slots=True)
class Kept:
    """A payload that waits to be worked on."""

    id: int
    key: str
    kind: str
    payload: dict[str, Any]
    attempts: int


@dataclass(frozen=True, slots=True)
class Queued:
    """Something that waits to leave; `uncertain` where an earlier attempt may have succeeded."""

    id: int
    key: str
    lane: str
    payload: dict[str, Any]
    made_at: datetime
    not_before: datetime | None
    attempts: int
    uncertain: bool

    @property
    def urgency(self) -> Urgency:
        return urgency_of(self.lane)


class Reserved:
    """Payloads that are answered where they came in, for as long as that can take; no worker takes them meanwhile."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def reserve(self, key: str, seconds: float) -> None:
        """Keep workers off a payload; a second time changes nothing."""
        self._until.setdefault(key, time.monotonic() + seconds)

    def release(self, key: str) -> None:
        """Leave a payload to the workers."""
        self._until.pop(key, None)

    def has(self, key: str) -> bool:
        """Say whether a payload is not for workers yet."""
        for late in [one for one, until in self._until.items() if until <= time.monotonic()]:
            del self._until[late]
        return key in self._until


class Inbox:
    """Payloads by the key that their sender repeats."""

    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    async def keep(self, key: str, kind: str, payload: dict[str, Any]) -> bool:
        """Keep a payload; False where it was kept before."""
        make = sqlite.insert if self._engine.dialect.name == "sqlite" else postgresql.insert
        statement = make(inbox).values(key=key, kind=kind, payload=payload, received_at=self._clock.now())
        async with begin(self._engine, urgent=True) as connection:
            result = await connection.execute(statement.on_conflict_do_nothing(index_elements=["key"]))
            return bool(result.rowcount)

    async def waiting(self, limit: int = 50) -> Sequence[Kept]:
        """Return what is not worked on yet, oldest first."""
        query = select(inbox).where(inbox.c.done_at.is_(None)).order_by(inbox.c.id).limit(limit)
        async with begin(self._engine) as connection:
            rows = (await connection.execute(query)).all()
        return [Kept(row.id, row.key, row.kind, row.payload, row.attempts) for row in rows]

    async def done(self, key: str) -> None:
        """Note that a payload was answered where it came in, so that there is nothing left to do."""
        async with self._engine.begin() as connection:
            change = update(inbox).where(inbox.c.key == key, inbox.c.done_at.is_(None))
            await connection.execute(change.values(done_at=self._clock.now()))

    async def failed(self, id: int, error: str, give_up: bool) -> None:
        """Note that working on a payload raised; given up, it is not tried again."""
        values: dict[str, Any] = {"attempts": inbox.c.attempts + 1, "error": error[:2000]}
        if give_up:
            values["done_at"] = self._clock.now()
        async with begin(self._engine) as connection:
            await connection.execute(update(inbox).where(inbox.c.id == id, inbox.c.done_at.is_(None)).values(values))

    async def forget_old(self) -> None:
        """Forget payloads that were worked on long ago."""
        async with begin(self._engine) as connection:
            await connection.execute(delete(inbox).where(inbox.c.done_at < self._clock.now() - KEPT_FOR))


class Outbox:
    """Things to send; the first unsent row of each lane is what may leave next."""

    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    async def heads(self) -> Sequence[Queued]:
        """Return the first unsent row of every lane, due or not."""
        first = (
            select(func.min(outbox.c.id).label("id"))
            .where(outbox.c.sent_at.is_(None))
            .group_by(outbox.c.lane)
            .subquery()
        )
        query = select(outbox).join(first, outbox.c.id == first.c.id).order_by(outbox.c.id)
        async with begin(self._engine) as connection:
            return [_queued(row) for row in (await connection.execute(query)).all()]

    async def follows(self, row: Queued, prefix: str) -> bool:
        """Say whether an earlier row whose key begins so, in whatever lane, has not left yet."""
        earlier = (outbox.c.id < row.id) & outbox.c.sent_at.is_(None) & outbox.c.key.startswith(prefix, autoescape=True)
        async with begin(self._engine) as connection:
            return (await connection.execute(select(outbox.c.id).where(earlier).limit(1))).first() is not None

    async def begins(self, row: Queued) -> None:
        """Note, before something leaves, that from now on it may have happened."""
        await self._set(row, attempts=row.attempts + 1, receipt={"uncertain": True})

    async def sent(self, row: Queued, receipt: dict[str, Any]) -> None:
        """Note that it left."""
        await self._set(row, sent_at=self._clock.now(), receipt=receipt, error=None)

    async def failed(self, row: Queued, error: str, again: datetime, uncertain: bool) -> None:
        """Note that it did not leave, or perhaps did, and when to try again."""
        receipt = {"uncertain": True} if uncertain else None
        await self._set(row, attempts=row.attempts + 1, error=error[:2000], not_before=again, receipt=receipt)

    async def gave_up(self, row: Queued, error: str) -> None:
        """Note that it never will, and why."""
        await self._set(row, sent_at=self._clock.now(), error=error[:2000], receipt={"gave_up": True})

    async def forget_old(self) -> None:
        """Forget what left long ago."""
        async with begin(self._engine) as connection:
            await connection.execute(delete(outbox).where(outbox.c.sent_at < self._clock.now() - KEPT_FOR))

    async def _set(self, row: Queued, **values: Any) -> None:
        async with begin(self._engine) as connection:
            await connection.execute(update(outbox).where(outbox.c.id == row.id).values(**values))


def _queued(row: Row[Any]) -> Queued:
    uncertain = bool(row.receipt and row.receipt.get("uncertain"))
    return Queued(row.id, row.key, row.lane, row.payload, row.made_at, row.not_before, row.attempts, uncertain)
