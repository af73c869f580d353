"""Active grants and their live sessions, in memory: what is not here opens nothing; what ends is ended from here."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from broker.adapters.clock import SystemClock, boot_id
from broker.adapters.metrics import Metrics
from broker.adapters.store import GrantRow
from broker.sessions.model import CloseReason, GrantFacts
from broker.sessions.ports import LiveSession

END_SECONDS = 30.0
_log = structlog.get_logger("sessions")


@dataclass(slots=True)
class Active:
    """An active grant; it is over when either clock says so."""

    row: GrantRow
    facts: GrantFacts
    boot_deadline: float

    def left(self, clock: SystemClock) -> float:
        """Return the seconds that are left, by the clock that leaves fewer."""
        by_wall = (self.facts.expires_at - clock.now()).total_seconds()
        return min(by_wall, self.boot_deadline - clock.boot())


class Live:
    """Implements LiveSessions, and knows which grants are active."""

    def __init__(self, clock: SystemClock, metrics: Metrics, max_sessions: int) -> None:
        self._clock = clock
        self._metrics = metrics
        self._max = max_sessions
        self._boot = boot_id()
        self._grants: dict[str, Active] = {}
        self._sessions: dict[str, dict[LiveSession, None]] = {}
        self._count = 0
        self._gone = asyncio.Event()
        self._stopping = False

    def admit(self, row: GrantRow) -> None:
        """Let sessions of an active grant open."""
        left = (row.expires_at - self._clock.now()).total_seconds()
        deadline = self._clock.boot() + left
        if row.boot_id and row.boot_id == self._boot:
            deadline = min(deadline, row.boot_deadline)
        self._grants[row.id] = Active(row, row.facts, deadline)
        self._metrics.grants.set(len(self._grants))

    def extend(self, row: GrantRow) -> None:
        """Move an active grant's end to what its row says; one that is over stays over."""
        active = self.active(row.id)
        if active is None:
            return
        gained = (row.expires_at - active.facts.expires_at).total_seconds()
        if gained > 0:
            active.boot_deadline += gained
            active.facts = replace(active.facts, expires_at=row.expires_at)
            active.row = replace(active.row, expires_at=row.expires_at, seconds=row.seconds)

    async def prolong(self, grant: str) -> None:
        """Let a grant's sessions live until its end as it is now; one that cannot be told ends when it would have."""
        if (active := self._grants.get(grant)) is not None:
            until = active.facts.expires_at
            await asyncio.gather(*(self._prolong(session, until) for session in self.sessions(grant)))

    async def catch_up(self, session: LiveSession) -> None:
        """Let a session that has just been registered live as long as its grant does by now."""
        active = self._grants.get(session.facts.grant.id)
        if active is not None and active.facts.expires_at > session.facts.grant.expires_at:
            await self._prolong(session, active.facts.expires_at)

    async def _prolong(self, session: LiveSession, until: datetime) -> None:
        try:
            await session.extend(until)
        except Exception as error:  # noqa: BLE001  one session whose lease cannot be written must not hold the others
            _log.error("a session is not extended", session=session.facts.id, error=type(error).__name__)

    def dismiss(self, grant: str) -> None:
        """Let no further session of a grant open."""
        self._grants.pop(grant, None)
        self._metrics.grants.set(len(self._grants))

    def active(self, grant: str) -> Active | None:
        """Return a grant that is active and not past its end."""
        found = self._grants.get(grant)
        return found if found is not None and found.left(self._clock) > 0 else None

    def grants(self) -> list[Active]:
        """Return every grant that has not been dismissed, also where its end has come."""
        return list(self._grants.values())

    def granted(self, grant: str) -> bool:
        """Say whether sessions may open under a grant."""
        return not self._stopping and self.active(grant) is not None

    def add(self, session: LiveSession) -> bool:
        """Register a session; False where its grant is over, the broker full or stopping."""
        grant = session.facts.grant.id
        if self._stopping or self._count >= self._max or self.active(grant) is None:
            return False
        held = self._sessions.setdefault(grant, {})
        if session not in held:
            held[session] = None
            self._counted(1)
        return True

    def remove(self, session: LiveSession) -> None:
        """Forget a session whose end is recorded."""
        held = self._sessions.get(session.facts.grant.id, {})
        if session in held:
            del held[session]
            if not held:
                del self._sessions[session.facts.grant.id]
            self._counted(-1)
            self._gone.set()
            self._gone = asyncio.Event()

    async def cancel(self, session: str) -> None:
        """Cancel what a session runs; nothing where it is over."""
        held = (one for sessions in self._sessions.values() for one in sessions if one.facts.id == session)
        if (found := next(held, None)) is not None:
            await found.cancel()

    def sessions(self, grant: str) -> list[LiveSession]:
        """Return a grant's live sessions."""
        return list(self._sessions.get(grant, ()))

    async def end(self, grant: str, reason: CloseReason) -> bool:
        """End a grant's sessions and return whether all their upstream work is verified gone."""
        started = time.monotonic()
        ended = self.sessions(grant)
        verified = all(await asyncio.gather(*(self._end(session, reason) for session in ended)))
        for _ in ended:
            self._metrics.kills.observe(time.monotonic() - started)
        return verified

    async def drained(self, grant: str, patience: float) -> bool:
        """Wait until a grant's sessions have recorded their ends; False where one has not in time."""
        deadline = time.monotonic() + patience
        while self._sessions.get(grant):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            try:
                await asyncio.wait_for(self._gone.wait(), left)
            except TimeoutError:
                return False
        return True

    async def stop(self, patience: float) -> bool:
        """End every session because the broker stops; grants stay active."""
        self._stopping = True
        busy = list(self._sessions)
        try:
            async with asyncio.timeout(patience):
                verified = all(await asyncio.gather(*(self.end(grant, CloseReason.SHUTDOWN) for grant in busy)))
                drained = [await self.drained(grant, patience) for grant in busy]
                return verified and all(drained)
        except TimeoutError:
            return False

    async def _end(self, session: LiveSession, reason: CloseReason) -> bool:
        try:
            return await asyncio.wait_for(session.end(reason), END_SECONDS)
        except Exception as error:  # noqa: BLE001  one session that cannot end must not keep the others alive
            _log.error("a session could not be ended", session=session.facts.id, error=type(error).__name__)
            return False

    def _counted(self, change: int) -> None:
        self._count += change
        self._metrics.sessions.set(self._count)
