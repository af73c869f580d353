"""Waits for a session's hold: opens it, tells the session while it waits and when it is answered, or lets it go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from broker.errors import RecordingFailed
from broker.protocols.postgres.events import (
    Event,
    Hold,
    HoldAnswered,
    HoldOpened,
    HoldUsed,
    HoldWaited,
    Match,
    Matched,
    RecordingLost,
    Use,
)
from broker.protocols.postgres.explaining import Question
from broker.sessions import holds
from broker.sessions.ports import Holds

TELL_SECONDS = 15.0
"""How often a client that waits is told whom it waits for."""

Ask = Callable[[str, Question], Awaitable[holds.Estimate]]


class Holder:
    """`feed` takes the events that come of it; a hold that cannot be recorded ends the session.

    `ask` asks the upstream about a held statement.
    """

    def __init__(self, desk: Holds, feed: Callable[[Event], None], ask: Ask) -> None:
        self._desk = desk
        self._feed = feed
        self._ask = ask
        self._hold: holds.Hold | None = None
        self._waits = False
        self._until = self._longest = 0.0
        """When what waits is given up, and when it would be if the grant never ended."""
        self._task: asyncio.Task[None] | None = None
        self._asking: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> bool:
        """Whether the client waits for reviewers."""
        return self._waits and self._task is not None and not self._task.done()

    def hold(self, command: Hold) -> None:
        """Open a hold and wait for it."""
        try:
            self._hold = self._desk.open(command.facts)
        except RecordingFailed:
            self._feed(RecordingLost(time.monotonic()))
            return
        self._waits = command.facts.waits
        self._longest = time.monotonic() + command.facts.seconds
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._wait(self._hold, command.token))
        if self._hold.fresh:
            # Whoever was refused at once may be gone before the answer: their reviewers still want it.
            asking = loop.create_task(self._estimate(self._hold, command.question))
            self._asking.add(asking)
            asking.add_done_callback(self._asking.discard)

    def extend(self, seconds: float) -> None:
        """Take note that the session's grant has so many seconds left: what waits may then wait longer."""
        self._until = max(self._until, min(self._longest, time.monotonic() + seconds))

    def use(self, command: Use) -> None:
        """Use up the approval."""
        self._feed(HoldUsed(command.token, self._desk.use(command.hold, command.requirement), time.monotonic()))

    def match(self, command: Match) -> None:
        """Look up an approved shape."""
        self._feed(Matched(command.token, self._desk.match(command.sought), time.monotonic()))

    def drop(self, reason: str) -> None:
        """Let go of the hold, if it is still open and this session's own."""
        if self._task is not None:
            self._task.cancel()
        if self._hold is not None and self._waits:
            self._desk.drop(self._hold.id, reason)
        self._hold = self._task = None

    async def _estimate(self, hold: holds.Hold, question: Question) -> None:
        """Ask about a hold that is recorded; its reviewers have it already, and see the answer when it comes."""
        try:
            await asyncio.shield(asyncio.ensure_future(hold.opened))
        except RecordingFailed:
            return
        self._desk.estimated(hold.id, await self._ask(hold.id, question))

    async def _wait(self, hold: holds.Hold, token: int) -> None:
        try:
            await asyncio.shield(asyncio.ensure_future(hold.opened))
        except RecordingFailed:
            self._feed(RecordingLost(time.monotonic()))
            return
        answered = asyncio.ensure_future(hold.answered)
        self._until = time.monotonic() + hold.seconds
        if not answered.done():
            self._feed(HoldOpened(token, hold.seconds, time.monotonic()))
        while not answered.done():
            await asyncio.wait({answered}, timeout=TELL_SECONDS)
            if not answered.done():
                now = time.monotonic()
                self._feed(HoldWaited(token, self._until - now, now))
        self._feed(HoldAnswered(token, answered.result(), time.monotonic()))
