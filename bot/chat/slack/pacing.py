"""Keeps calls to Slack within its limits: what people wait for goes first, and a refusal holds back its kind."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field

from bot.adapters.boxes import Urgency

TURN: ContextVar[tuple[Urgency, int]] = ContextVar("turn", default=(Urgency.ASK, 0))
"""How urgent the row is that is being delivered, and its id: what was queued first goes first."""
MINUTE = 60.0
BUDGETS: Mapping[str, tuple[int, int]] = {"chat.update": (45, 30), "views.publish": (90, 90)}
"""Calls a minute of a method (Slack's tiers 3 and 4, with some air), and how many of those mere counting may use."""
POSTS = frozenset({"chat.postMessage", "files.completeUploadExternal"})
"""What puts a message into a channel, which Slack allows about once a second."""
PATIENCE = 2.0
"""Seconds that a call waits through a refusal; a longer one gives its place to others."""


class SlackBusy(Exception):
    """Slack said not now"""

    def __init__(self, error: str, after: float) -> None:
        super().__init__(error)
        self.after = after


@dataclass(order=True, slots=True)
class _Waiter:
    place: tuple[Urgency, int]
    number: int
    turn: asyncio.Future[None] = field(compare=False)


@dataclass(slots=True)
class _Line:
    """Those who wait to make one kind of call; `budget` is in calls a minute, its second number for counting alone."""

    interval: float
    budget: tuple[int, int] | None
    next_at: float = 0.0
    held_until: float = 0.0
    made: deque[float] = field(default_factory=deque)
    waiting: list[_Waiter] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    pump: asyncio.Task[None] | None = None

    def pause(self, now: float, urgency: Urgency) -> float:
        """Say how long from now the next call must wait."""
        at = max(self.next_at, self.held_until)
        if self.budget is not None:
            while self.made and self.made[0] <= now - MINUTE:
                self.made.popleft()
            most = self.budget[1 if urgency is Urgency.COUNT else 0]
            if len(self.made) >= most:
                at = max(at, self.made[len(self.made) - most] + MINUTE)
        return at - now

    def take(self, now: float) -> None:
        """Note that a call is made."""
        self.next_at = now + self.interval
        if self.budget is not None:
            self.made.append(now)


class Pacer:
    """Gives turns; without seconds between messages (a workspace on this machine) only refusals hold anything back."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lines: dict[str, _Line] = {}
        self._count = 0
        self._closed = False

    async def turn(self, method: str, channel: str = "") -> None:
        """Wait until a call may be made; raises SlackBusy where that is long."""
        if self._closed:
            raise SlackBusy("stopping", 0.0)
        line, place, now = self._line(method, channel), TURN.get(), _now()
        if (held := line.held_until - now) > PATIENCE:
            raise SlackBusy("ratelimited", held)
        if not line.waiting and line.pause(now, place[0]) <= 0:
            line.take(now)
            return
        self._count += 1
        waiter = _Waiter(place, self._count, asyncio.get_running_loop().create_future())
        heapq.heappush(line.waiting, waiter)
        line.changed.set()
        if line.pump is None:
            line.pump = asyncio.create_task(_serve(line))
        await waiter.turn

    def hold_off(self, method: str, channel: str, seconds: float) -> None:
        """Make no such call for a while: Slack has refused one."""
        line = self._line(method, channel)
        line.held_until = max(line.held_until, _now() + seconds)
        if seconds > PATIENCE:
            _send_away(line, SlackBusy("ratelimited", seconds))
        line.changed.set()

    def close(self) -> None:
        """Send everybody away who waits, so that stopping is quick; their rows are kept."""
        self._closed = True
        for line in self._lines.values():
            _send_away(line, SlackBusy("stopping", 0.0))
            line.changed.set()

    def _line(self, method: str, channel: str) -> _Line:
        name = f"post {channel}" if method in POSTS else method
        if name not in self._lines:
            interval = self._seconds if method in POSTS else 0.0
            self._lines[name] = _Line(interval, BUDGETS.get(method) if self._seconds else None)
        return self._lines[name]


async def _serve(line: _Line) -> None:
    """Give turns in order of urgency until nobody waits."""
    while line.waiting:
        first = line.waiting[0]
        now = _now()
        pause = line.pause(now, first.place[0])
        if first.turn.done():
            heapq.heappop(line.waiting)
        elif pause <= 0:
            heapq.heappop(line.waiting)
            line.take(now)
            first.turn.set_result(None)
        else:
            line.changed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(line.changed.wait(), pause)
    line.pump = None


def _send_away(line: _Line, busy: SlackBusy) -> None:
    for waiter in line.waiting:
        if not waiter.turn.done():
            waiter.turn.set_exception(SlackBusy(str(busy), busy.after))


def _now() -> float:
    return asyncio.get_running_loop().time()
