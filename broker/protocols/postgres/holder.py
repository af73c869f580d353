"""Waits for a session's hold: opens it, tells the session while it waits and when it is answered, or lets it go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from broker.errors import RecordingFailed
from broker.protocols.postgres.events import (
    Event,
    Hold,
    HoldAnswered,
    HoldOpened,
    HoldUsed,
    HoldWaited,
    RecordingLost,
    Use,
)
from broker.sessions import holds
from broker.sessions.ports import Holds

TELL_SECONDS = 15.0
"""How often a client that waits is told whom it waits for."""


class Holder:
    """`feed` takes the events that come of it; a hold that cannot be recorded ends the session."""

    def __init__(self, desk: Holds, feed: Callable[[Event], None]) -> None:
        self._desk = desk
        self._feed = feed
        self._hold: holds.Hold | None = None
        self._waits = False
        self._task: asyncio.Task[None] | None = None

    def hold(self, command: Hold) -> None:
        """Open a hold and wait for it."""
        try:
            self._hold = self._desk.open(command.facts)
        except RecordingFailed:
            self._feed(RecordingLost(time.monotonic()))
            return
        self._waits = command.facts.waits
        self._task = asyncio.get_running_loop().create_task(self._wait(self._hold, command.token))

    def use(self, command: Use) -> None:
        """Use up the approval."""
        self._feed(HoldUsed(command.token, self._desk.use(command.hold, command.requirement), time.monotonic()))

    def drop(self, reason: str) -> None:
        """Let go of the hold, if it is still open and this session's own."""
        if self._task is not None:
            self._task.cancel()
        if self._hold is not None and self._waits:
            self._desk.drop(self._hold.id, reason)
        self._hold = self._task = None

    async def _wait(self, hold: holds.Hold, token: int) -> None:
        try:
            await asyncio.shield(asyncio.ensure_future(hold.opened))
        except RecordingFailed:
            self._feed(RecordingLost(time.monotonic()))
            return
        answered = asyncio.ensure_future(hold.answered)
        until = time.monotonic() + hold.seconds
        if not answered.done():
            self._feed(HoldOpened(token, hold.seconds, time.monotonic()))
        while not answered.done():
            await asyncio.wait({answered}, timeout=TELL_SECONDS)
            if not answered.done():
                now = time.monotonic()
                self._feed(HoldWaited(token, until - now, now))
        self._feed(HoldAnswered(token, answered.result(), time.monotonic()))
