"""What sessions keep of their clients' messages: bounded for each of them, and for the process.

Bytes count until nothing holds them any more: those that have arrived of a message, a prepared statement's texts, a
portal's values. What is small is not counted; registries bound how many.
"""

from __future__ import annotations

MOST = 512 * 1024 * 1024
"""Bytes for all sessions of a process."""
MOST_OF_ONE = 64 * 1024 * 1024
"""Bytes for one session, so that none takes the room of all others."""
SMALL = 1024


class Room:
    """Bytes that are taken for as long as this exists."""

    __slots__ = ("_share", "size")

    def __init__(self, share: Share, size: int) -> None:
        self._share = share
        self.size = size
        share.count(size)

    def grow(self, size: int) -> bool:
        """Take more, up to a size; say whether there was room."""
        more = size - self.size
        if not self._share.fits(more):
            return False
        self._share.count(more)
        self.size = size
        return True

    def __del__(self) -> None:
        self._share.count(-self.size)


class Memory:
    """Counts what all sessions have taken, in bytes."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self.used = 0


class Share:
    """One session's part of the memory."""

    def __init__(self, memory: Memory, most: int = MOST_OF_ONE) -> None:
        self._memory = memory
        self._most = most
        self._used = 0

    def take(self, size: int) -> Room | None:
        """Take so many bytes; None where there is no room for them (fail closed: the message goes no further)."""
        return Room(self, size) if self.fits(size) else None

    def fits(self, size: int) -> bool:
        return self._used + size <= self._most and self._memory.used + size <= self._memory.most

    def count(self, size: int) -> None:
        self._used += size
        self._memory.used += size
