"""Writes a session's records, and tells the session when they are as safe as they must be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from broker.errors import RecordingFailed
from broker.protocols.postgres.events import Event, Record, Recorded, RecordingLost, Synced
from broker.sessions.model import Durability, Entry
from broker.sessions.ports import Recorder


class Scribe:
    """`feed` takes the events that come of it; a record that cannot be written ends the session."""

    def __init__(self, recorder: Recorder, feed: Callable[[Event], None]) -> None:
        self._recorder = recorder
        self._feed = feed
        self._waiting: set[asyncio.Future[None]] = set()

    def record(self, command: Record) -> None:
        """Write what a statement needs before it goes on."""
        token = command.token
        match command.durability:
            case Durability.SYNCED:
                self._write(command.entries, lambda: self._feed(Recorded(token, time.monotonic())))
            case Durability.RESULTS_WAIT:
                if self._write(command.entries, lambda: self._feed(Synced(token, time.monotonic()))):
                    self._feed(Recorded(token, time.monotonic()))
            case Durability.WRITTEN:
                if self._write(command.entries, lambda: None, lazy=True):
                    self._feed(Recorded(token, time.monotonic()))

    def note(self, entry: Entry) -> None:
        """Write what nothing waits for."""
        self._write((entry,), lambda: None, lazy=True)

    def _write(self, entries: Sequence[Entry], synced: Callable[[], None], *, lazy: bool = False) -> bool:
        try:
            pending = [self._recorder.write(entry, lazy=lazy) for entry in entries]
        except RecordingFailed:
            self._feed(RecordingLost(time.monotonic()))
            return False
        left = len(pending)

        def done(future: asyncio.Future[None]) -> None:
            nonlocal left
            self._waiting.discard(future)
            if future.cancelled():
                return
            if future.exception() is not None:
                self._feed(RecordingLost(time.monotonic()))
                return
            left -= 1
            if not left:
                synced()

        for awaitable in pending:
            future = _future(awaitable)
            self._waiting.add(future)
            future.add_done_callback(done)
        return True


def _future(awaitable: Awaitable[None]) -> asyncio.Future[None]:
    if isinstance(awaitable, asyncio.Future):
        return awaitable

    async def wait() -> None:
        await awaitable

    return asyncio.ensure_future(wait())
