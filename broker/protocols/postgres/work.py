"""What one session's machine is told, in order, and the doing of what it says.

A client can send thousands of messages at once, and a chunk of the upstream's can answer as many: what comes of that is
done five milliseconds at a time, so that no other session waits for all of it. What is told meanwhile waits in line.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

from broker.protocols.postgres.events import Command, Ended, Event, FromClient

TURN_SECONDS = 0.005
PIECE = 8 * 1024
"""Bytes of a client's that are told at a time; what waits can still be dropped."""


class Work:
    """One session's. `begins` is told before anything is done, and `ends` after, also where only a turn is over.

    `rests` hears that something waits for its turn, and that nothing does any more; `fails` that an error came of it:
    nothing that was told is done then.
    """

    __slots__ = (
        *("_began", "_begins", "_do", "_ends", "_events", "_fails", "_handle", "_hurried", "_next_turn", "_rests"),
        *("_under_way", "busy"),
    )

    def __init__(
        self,
        handle: Callable[[Event], Iterator[Command]],
        do: Callable[[Command], None],
        begins: Callable[[], None],
        ends: Callable[[], None],
        rests: Callable[[bool], None],
        fails: Callable[[], None],
    ) -> None:
        self._handle = handle
        self._do = do
        self._begins = begins
        self._ends = ends
        self._rests = rests
        self._fails = fails
        # A list, for few ever wait: a deque takes half a kilobyte for each session that idles.
        self._events: list[Event] = []
        self._under_way: Iterator[Command] | None = None
        self._next_turn: asyncio.Handle | None = None
        self._hurried = False
        self.busy = False
        """Something is under way: what comes is told, and goes no other way."""
        self._began = 0.0
        """When the turn that goes on now began."""

    def tell(self, event: Event) -> None:
        """Have the machine handle an event, now or in its turn; an end waits for none, nor for what its client sent."""
        match event:
            case FromClient(data, at) if len(data) > PIECE:
                pieces = range(0, len(data), PIECE)
                self._events += [FromClient(data[start : start + PIECE], at) for start in pieces]
            case Ended():
                self._events = [*(one for one in self._events if not isinstance(one, FromClient)), event]
                self._hurried = True
            case _:
                self._events.append(event)
        if not self.busy or (self._hurried and self._next_turn is not None):
            self._go_on()

    def clear(self) -> None:
        """Forget what is still to be done."""
        self._events.clear()
        self._under_way = None
        if self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None

    def _go_on(self) -> None:
        resumed, self._next_turn = self._next_turn, None
        if resumed is not None:
            resumed.cancel()
        self.busy = True
        self._began = time.monotonic()
        try:
            self._begins()
            over = self._turn()
        except Exception:  # noqa: BLE001  whoever is told ends the session
            self.clear()
            over = True
            self._fails()
        self.busy = not over
        if not over:
            self._next_turn = asyncio.get_running_loop().call_soon(self._go_on)
        if over == (resumed is not None):
            self._rests(not over)
        self._ends()

    def _turn(self) -> bool:
        """Do what waits; returns whether that is all."""
        while self._under_way is not None or self._events:
            if self._under_way is None:
                self._under_way = self._handle(self._events.pop(0))
            for command in self._under_way:
                self._do(command)
                if self._late():
                    return False
            self._under_way = None
            if self._events and self._late():
                return False
        return True

    def _late(self) -> bool:
        return not self._hurried and time.monotonic() - self._began > TURN_SECONDS
