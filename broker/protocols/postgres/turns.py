"""A client's turns: what it sends at once is looked at piece by piece, so that no other session waits for all of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

TURN_SECONDS = 0.005
PIECE = 8 * 1024
"""Bytes that are looked at before time is: at the least message's length, some ten milliseconds' work."""


class Turns:
    """One session's; `take` is given a piece, and says whether more is wanted, `waits` hears that something does.

    `gone` is called once the client has left, behind what it sent before.
    """

    __slots__ = ("_gone", "_left", "_rest", "_take", "_waits")

    def __init__(self, take: Callable[[bytes], bool], waits: Callable[[bool], None], gone: Callable[[], None]) -> None:
        self._take = take
        self._waits = waits
        self._gone = gone
        # A list, for it is nearly always empty: a deque takes half a kilobyte then.
        self._rest: list[bytes] = []
        self._left = False

    def arrived(self, data: bytes) -> bool:
        """Take over what is much, or comes behind what waits; False where it is neither, and changes nothing."""
        if self._rest:
            self._rest.append(data)
        elif len(data) > PIECE:
            self._rest.extend(data[at : at + PIECE] for at in range(0, len(data), PIECE))
            self._go_on()
        else:
            return False
        return True

    def lost(self) -> bool:
        """Learn that the client has left; False where nothing waits, and `gone` is not called."""
        self._left = bool(self._rest)
        return self._left

    def _go_on(self) -> None:
        until = time.monotonic() + TURN_SECONDS
        while self._rest:
            if time.monotonic() >= until:
                self._waits(True)
                asyncio.get_running_loop().call_soon(self._go_on)
                return
            # It stays the first until it is looked at: what comes meanwhile is behind it.
            if not self._take(self._rest[0]):
                self._rest.clear()
                break
            del self._rest[0]
        self._waits(False)
        if self._left:
            self._gone()
