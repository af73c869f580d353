"""Takes every grant up where the last broker left it: half-opened, half-ended, or with sessions nobody closed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import structlog

from broker.adapters.clock import SystemClock
from broker.adapters.endings import EVENTS, Ending, GrantBook
from broker.adapters.leases import LeaseBook, reaped_sessions
from broker.adapters.live import Live
from broker.adapters.orders import OrderDesk
from broker.adapters.recorder import FileRecorder
from broker.adapters.segments import closed_sessions
from broker.adapters.shapes import ShapeBook
from broker.adapters.store import GrantRow, Store
from broker.adapters.stories import Story
from broker.errors import RecordingFailed
from broker.sessions.model import CloseReason, Entry
from workflows.grants import GrantEvent, GrantState

_EVENT_OF = {"grant.ended": GrantEvent.END, "grant.expired": GrantEvent.EXPIRE, "grant.revoked": GrantEvent.REVOKE}
_log = structlog.get_logger("recovery")


@dataclass(frozen=True, slots=True)
class Survivors:
    """Sessions of dead brokers: whose end the reaper has recorded, and whose end it has not come to yet.

    Of the `closed` the feed says the end, whatever a lost host has kept of their leases and recordings.
    """

    reaped: frozenset[str] = frozenset()
    open: frozenset[str] = frozenset()
    closed: frozenset[str] = frozenset()


async def survivors(home: Path, patience: float) -> Survivors:
    """Give the reaper a moment to end what a dead broker left; nothing new opens before."""
    folder = home / "leases"
    deadline = time.monotonic() + patience
    while True:
        reaped = reaped_sessions(folder)
        left = frozenset(LeaseBook.read(folder / "leases.ndjson").leases) - reaped
        if not left or time.monotonic() > deadline:
            return Survivors(reaped, left, await asyncio.to_thread(closed_sessions, home / "events"))
        await asyncio.sleep(0.05)


async def recover(
    store: Store,
    recorder: FileRecorder,
    clock: SystemClock,
    live: Live,
    desk: OrderDesk,
    book: GrantBook,
    left: Survivors,
    shapes: ShapeBook,
) -> None:
    """Settle what is not settled; what is recorded of it is on disk then, all of it at once."""
    pending: set[asyncio.Future[None]] = set()
    for row in await store.unsettled():
        try:
            loaded = await asyncio.to_thread(recorder.load, row.id)
            story = recorder.adopt(row.id, loaded)
            if ends := list(_orphans(clock, row, story, left)):
                pending.add(recorder.write_all(ends, lazy=True))
            if row.state is GrantState.ACTIVE:
                await shapes.take_up(row.id, story.shapes)
            await _take_up(row, story, live, desk, book)
        except RecordingFailed as error:
            # Without its recording a grant opens nothing: it is not admitted.
            _log.error("a grant could not be taken up", grant=row.id, error=str(error))
    if pending:
        # What does not sync is final for all of the log, which says so itself.
        await asyncio.wait(pending)
    await book.tick()


async def _take_up(row: GrantRow, story: Story, live: Live, desk: OrderDesk, book: GrantBook) -> None:
    if row.state is GrantState.OPENING:
        await desk.finish(row)
    elif row.state is GrantState.ACTIVE:
        announced = next((event for kind, event in _EVENT_OF.items() if kind in story.types), None)
        if announced is not None:
            book.begin(row, Ending(announced, "broker", "recorded before the broker stopped"))
        else:
            await desk.extensions.recover(row)
            live.admit(row)
    elif row.state in EVENTS:
        book.begin(row, None)


def _orphans(clock: SystemClock, row: GrantRow, story: Story, left: Survivors) -> Iterator[Entry]:
    """Yield the ends of what a dead broker left open under a grant."""
    for session, statement in story.open_statements:
        yield Entry("statement.finished", row.id, session, {"statement": statement, "outcome": "unknown"})
    for hold, session_of in story.open_holds.items():
        yield Entry("hold.abandoned", row.id, session_of, {"hold": hold, "reason": CloseReason.SHUTDOWN.value})
    for session, opened in story.open_sessions.items():
        seconds = round((clock.now() - datetime.fromisoformat(opened)).total_seconds(), 3)
        verified = session not in left.open
        facts = {"reason": CloseReason.ERROR.value, "verified": verified, "seconds": seconds, "outcome": "unknown"}
        # Of a session that still has its lease the reaper says the end in the feed; the recording needs one too.
        kind = "session.settled" if session in left.reaped | left.open | left.closed else "session.closed"
        yield Entry(kind, row.id, session, facts)
