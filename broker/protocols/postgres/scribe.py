"""Writes a session's records, and tells the session when they are as safe as they must be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from broker.errors import RecordingFailed
from broker.protocols.postgres.events import Event, Record, Recorded, RecordingLost, Synced
from broker.protocols.postgres.fares import Ride
from broker.sessions.model import Durability, Entry
from broker.sessions.ports import Recorder

NOTE_SECONDS = 0.02
"""How long the end of a statement may wait for the record of the next one, to be written together with it."""


class Notes:
    """The scribes of a process that have a note to write, which they do in time whatever comes."""

    def __init__(self) -> None:
        self._scribes: set[Scribe] = set()

    def add(self, scribe: Scribe) -> None:
        if not self._scribes:
            asyncio.get_running_loop().call_later(NOTE_SECONDS, self._write)
        self._scribes.add(scribe)

    def _write(self) -> None:
        scribes, self._scribes = self._scribes, set()
        for scribe in scribes:
            scribe.settle()


class Scribe:
    """`feed` takes the events that come of it; a record that cannot be written ends the session."""

    def __init__(self, recorder: Recorder, feed: Callable[[Event], None], notes: Notes) -> None:
        self._recorder = recorder
        self._feed = feed
        self._notes = notes
        self._noted: Entry | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self._watched: Awaitable[None] | None = None

    def record(self, command: Record) -> None:
        """Write what a statement needs before it goes on."""
        token = command.token
        match command.durability:
            case Durability.SYNCED:
                self._write(command.entries, lambda: self._feed(Recorded(token, time.monotonic())))
            case Durability.RESULTS_WAIT:
                if self._write(command.entries, self._synced(token)):
                    self._feed(Recorded(token, time.monotonic()))
            case Durability.WRITTEN:
                if self._lazily(command.entries):
                    self._feed(Recorded(token, time.monotonic()))

    def note(self, entry: Entry) -> None:
        """Write what nothing waits for."""
        self._lazily((entry,))

    def board(self, ride: Ride, token: int) -> bool:
        """Write what a ride needs before it departs, and say whether it may."""
        noted, self._noted = self._noted, None
        entries = (ride.entry,) if noted is None else (noted, ride.entry)
        if ride.ruling.durability is Durability.WRITTEN:
            return self._lazily(entries)
        return self._write(entries, self._synced(token))

    def land(self, entry: Entry) -> None:
        """Keep the note of a ride's end for the next record of this session, or for a moment."""
        self.settle()
        self._noted = entry
        self._notes.add(self)

    def lost(self) -> None:
        """What was written is not on disk."""
        self._feed(RecordingLost(time.monotonic()))

    def watch(self, pending: Awaitable[None]) -> None:
        """Learn whether what is synced soon was; many records learn together."""
        if pending is not self._watched:
            self._watched = pending
            self._watch(pending, lambda: None)

    def awaits(self, pending: Awaitable[None], token: int) -> None:
        """Say when what results wait for is synced."""
        self._watch(pending, self._synced(token))

    def settle(self) -> None:
        """Write the note that is kept, before whatever comes after it."""
        if self._noted is not None:
            noted, self._noted = self._noted, None
            self._lazily((noted,))

    def _synced(self, token: int) -> Callable[[], None]:
        return lambda: self._feed(Synced(token, time.monotonic()))

    def _lazily(self, entries: Sequence[Entry]) -> bool:
        """Write what is synced soon; whether it was, many records learn together."""
        try:
            pending = self._recorder.write_all(entries, lazy=True)
        except RecordingFailed:
            self.lost()
            return False
        self.watch(pending)
        return True

    def _write(self, entries: Sequence[Entry], synced: Callable[[], None]) -> bool:
        try:
            pending = self._recorder.write_all(entries)
        except RecordingFailed:
            self.lost()
            return False
        self._watch(pending, synced)
        return True

    def _watch(self, pending: Awaitable[None], synced: Callable[[], None]) -> None:
        def done(future: asyncio.Future[None]) -> None:
            self._waiting.discard(future)
            if future.cancelled():
                return
            if future.exception() is not None:
                self.lost()
                return
            synced()

        future = _future(pending)
        self._waiting.add(future)
        future.add_done_callback(done)


def _future(awaitable: Awaitable[None]) -> asyncio.Future[None]:
    if isinstance(awaitable, asyncio.Future):
        return awaitable

    async def wait() -> None:
        await awaitable

    return asyncio.ensure_future(wait())
