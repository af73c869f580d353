"""Takes every grant up where the last broker left it: half-opened, half-ended, or with sessions nobody closed."""

from __future__ import annotations

import asyncio
from datetime import datetime

import structlog

from broker.adapters.clock import SystemClock
from broker.adapters.endings import EVENTS, Ending, GrantBook
from broker.adapters.live import Live
from broker.adapters.orders import OrderDesk
from broker.adapters.recorder import FileRecorder, Story
from broker.adapters.store import GrantRow, Store
from broker.errors import RecordingFailed
from broker.sessions.model import CloseReason, Entry
from workflows.grants import GrantEvent, GrantState

_EVENT_OF = {"grant.ended": GrantEvent.END, "grant.expired": GrantEvent.EXPIRE, "grant.revoked": GrantEvent.REVOKE}
_log = structlog.get_logger("recovery")


async def recover(
    store: Store,
    recorder: FileRecorder,
    clock: SystemClock,
    live: Live,
    desk: OrderDesk,
    book: GrantBook,
    gone: frozenset[str] | None = None,
) -> None:
    """Settle what is not settled; `gone` are sessions known to be verified gone, None where that is all of them."""
    for row in await store.unsettled():
        try:
            loaded = await asyncio.to_thread(recorder.load, row.id)
            story = recorder.adopt(row.id, loaded)
            _close_orphans(recorder, clock, row, story, gone)
            await _take_up(row, story, clock, live, desk, book)
        except RecordingFailed as error:
            # Without its recording a grant opens nothing: it is not admitted.
            _log.error("a grant could not be taken up", grant=row.id, error=str(error))
    await book.tick()


async def _take_up(
    row: GrantRow, story: Story, clock: SystemClock, live: Live, desk: OrderDesk, book: GrantBook
) -> None:
    if row.state is GrantState.OPENING:
        await desk.finish(row)
    elif row.state is GrantState.ACTIVE:
        announced = next((event for kind, event in _EVENT_OF.items() if kind in story.types), None)
        if announced is not None:
            book.begin(row, Ending(announced, "broker", "recorded before the broker stopped"))
        else:
            live.admit(row)
    elif row.state in EVENTS:
        book.begin(row, None)


def _close_orphans(
    recorder: FileRecorder, clock: SystemClock, row: GrantRow, story: Story, gone: frozenset[str] | None
) -> None:
    for session, statement in list(story.open_statements):
        data = {"statement": statement, "outcome": "unknown"}
        recorder.write(Entry("statement.finished", row.id, session, data))
    for session, opened in list(story.open_sessions.items()):
        seconds = round((clock.now() - datetime.fromisoformat(opened)).total_seconds(), 3)
        verified = gone is None or session in gone
        facts = {"reason": CloseReason.ERROR.value, "verified": verified, "seconds": seconds, "outcome": "unknown"}
        recorder.write(Entry("session.closed", row.id, session, facts))
