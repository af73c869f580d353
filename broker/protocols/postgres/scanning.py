"""Finding messages in what arrives, in any chunking: the client's one by one, the upstream's rows as runs.

Nothing here allocates what a length field merely claims: a frame's length is judged before its body is buffered.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from broker.core import compiled
from broker.protocols.postgres.codec import (
    MAX_BACKEND,
    MAX_BACKEND_BUFFERED,
    MAX_FRONTEND,
    Frame,
    ProtocolViolation,
)
from broker.protocols.postgres.memory import Memory, Room, Share

_UINT32 = struct.Struct(">I")
_EMPTY_ONLY = frozenset(b"HSX")
_TERMINATE = ord("X")
_FRONTEND = frozenset(b"QPBDECHSXdcfpF")
# Rows and copy data: forwarded as they come, never read.
_STREAMED = frozenset(b"Dd")
_PIECE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive rows or copy data, or a piece of one; `whole` is False where a message is still under way."""

    data: bytes | memoryview
    rows: int
    whole: bool


class FrontendScanner:
    """Finds the client's messages; unknown types and lying lengths are refused before their bodies arrive.

    A long one that there is no room for is let pass by (fail closed: it is handed out as lost).
    """

    __slots__ = ("_buffer", "_looked", "_lost", "_position", "_room", "_share", "_skipped")

    def __init__(self, share: Share | None = None) -> None:
        self._buffer = bytearray()
        self._position = 0
        self._looked = 0
        self._share = share or Share(Memory())
        self._room: Room | None = None
        self._lost: Frame | None = None
        self._skipped = 0

    @property
    def buffered(self) -> int:
        """How many bytes wait, or are still to come of a message that is let pass by; 0 is between two messages."""
        return len(self._buffer) - self._position + self._skipped + (self._lost is not None)

    def feed(self, data: bytes) -> None:
        if self._skipped:
            passed = min(self._skipped, len(data))
            self._skipped -= passed
            data = data[passed:]
        if self._position and self._position == len(self._buffer):
            self._buffer.clear()
            self._position = self._looked = 0
        elif self._position > _PIECE:
            del self._buffer[: self._position]
            self._looked = max(0, self._looked - self._position)
            self._position = 0
        self._buffer += data

    @property
    def leaving(self) -> bool:
        """Whether a Terminate is among what waits; what has been looked at is not looked at again."""
        at = max(self._looked, self._position)
        while len(self._buffer) - at >= 5:
            (length,) = _UINT32.unpack_from(self._buffer, at + 1)
            if self._buffer[at] == _TERMINATE and length == 4:
                return True
            if length < 4 or at + 1 + length > len(self._buffer):
                break
            at += 1 + length
        self._looked = at
        return False

    def next(self) -> Frame | None:
        """Return the next whole message, or None; raises ProtocolViolation."""
        if self._skipped:
            return None
        if self._lost is not None:
            frame, self._lost = self._lost, None
            return frame
        start = self._position
        available = len(self._buffer) - start
        if available < 1:
            return None
        kind = self._buffer[start]
        if kind not in _FRONTEND:
            raise ProtocolViolation(f"unknown message type {kind:#04x}")
        if available < 5:
            return None
        (length,) = _UINT32.unpack_from(self._buffer, start + 1)
        if length < 4 or length > MAX_FRONTEND or (kind in _EMPTY_ONLY and length != 4):
            raise ProtocolViolation(f"message `{chr(kind)}` claims a length of {length}")
        if available < length + 1:
            if available > (self._room.size if self._room is not None else _PIECE):
                self._reserve(kind, length, available)
            return None
        self._position = start + 1 + length
        room, self._room = self._room, None
        return Frame(kind, bytes(self._buffer[start + 5 : self._position]), room)

    def _reserve(self, kind: int, length: int, available: int) -> None:
        """Take room for what has arrived of a message, or let it pass by."""
        size = min(length + 1, available + _PIECE)
        if self._room is None:
            self._room = self._share.take(size)
        elif not self._room.grow(size):
            self._room = None
        if self._room is None:
            self._lost, self._skipped = Frame(kind, b"", lost=length), length + 1 - available
            self._buffer.clear()
            self._position = self._looked = 0


class BackendScanner:
    """Finds the upstream's messages; rows and copy data come as runs, in slices of what arrived."""

    __slots__ = ("_left", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._left = 0

    @property
    def amid(self) -> bool:
        """Whether a piece of a message was handed out whose end has not come."""
        return self._left > 0

    @property
    def idle(self) -> bool:
        """Whether the next byte begins a message."""
        return not self._left and not self._rest

    def feed(self, data: bytes) -> list[Frame | Run]:
        """Return what is complete now; raises ProtocolViolation."""
        found: list[Frame | Run] = []
        start = 0
        if self._rest:
            start = self._finish_row(data, found)
            if not start:
                data = self._rest + data
        view = memoryview(data)
        total = len(data)
        position = start or self._finish_piece(view, found)
        run_start, rows = position, 0
        while total - position >= 5:
            kind = data[position]
            (length,) = _UINT32.unpack_from(data, position + 1)
            if length < 4 or length > MAX_BACKEND:
                raise ProtocolViolation(f"upstream message {kind:#04x} claims a length of {length}")
            end = position + 1 + length
            if kind in _STREAMED:
                # Rows in a row: most of all bytes, so their ends are found with as little as possible.
                count, end = whole_rows(data, position, total)
                if count:
                    rows += count
                    position = end
                    continue
                if end > total:
                    if end - position <= _PIECE:
                        break
                    found.append(Run(view[run_start:], rows + 1, whole=False))
                    self._left = end - total
                    self._rest = b""
                    return found
            if position > run_start:
                found.append(Run(view[run_start:position], rows, whole=True))
            run_start, rows = position, 0
            if end > total:
                if length > MAX_BACKEND_BUFFERED:
                    raise ProtocolViolation(f"upstream message {kind:#04x} is longer than this broker reads")
                break
            found.append(Frame(kind, data[position + 5 : end]))
            position = run_start = end
        if position > run_start:
            found.append(Run(view[run_start:position] if run_start or position < total else data, rows, whole=True))
        self._rest = data[position:] if position < total else b""
        return found

    def _finish_row(self, data: bytes, found: list[Frame | Run]) -> int:
        """Hand out a row that has come in part, without copying what follows; return where that begins, or 0."""
        rest = self._rest
        if len(rest) < 5 or rest[0] not in _STREAMED:
            return 0
        needed = 1 + int(_UINT32.unpack_from(rest, 1)[0]) - len(rest)
        if not 0 < needed <= len(data):
            return 0
        found.append(Run(rest + data[:needed], 1, whole=True))
        return needed

    def _finish_piece(self, view: memoryview, found: list[Frame | Run]) -> int:
        if not self._left:
            return 0
        taken = min(self._left, len(view))
        self._left -= taken
        found.append(Run(view[:taken], 0, whole=self._left == 0))
        return taken


_FEW_ALIKE, _MOST_ALIKE, _PAUSE = 8, 1024, 16


def _whole_rows(data: bytes, position: int, total: int) -> tuple[int, int]:
    """Count the whole messages of one type that follow each other; return with it where the next one begins.

    Where there is none, the end of the first is returned, which is not here yet; an impossible length ends the count.
    """
    kind, unpack = data[position], _UINT32.unpack_from
    last, count, size, alike, pause = total - 5, 0, 0, _FEW_ALIKE, 0
    while position <= last and data[position] == kind:
        length = unpack(data, position + 1)[0]
        end = position + 1 + length
        if length < 4 or end > total:
            return count, position if count else end
        if pause:
            pause -= 1
        elif length + 1 == size:
            # Rows of one length often come in numbers.
            alike = min(alike, (total - position) // size)
            if alike >= _FEW_ALIKE and _alike(data, position, size, alike):
                count += alike
                position += size * alike
                alike = min(2 * alike, _MOST_ALIKE)
                continue
            alike, pause = _FEW_ALIKE, _PAUSE
        size = length + 1
        count += 1
        position = end
    return count, position


whole_rows: Callable[[bytes, int, int], tuple[int, int]] = _whole_rows if compiled is None else compiled.whole_rows


def _alike(data: bytes, position: int, size: int, count: int) -> bool:
    """Say whether so many messages of one size follow each other: type and length stand at each of their places."""
    end = position + size * count
    return all(data[at:end:size] == data[at : at + 1] * count for at in range(position, position + 5))


def bodies(data: bytes, position: int, found: list[bytes | bytearray]) -> int:
    """Add what is in the messages from a position on; return how much of the last one's body has not come yet."""
    unpack, total, size, alike, pause = _UINT32.unpack_from, len(data), 0, _FEW_ALIKE, 0
    while position < total:
        if total - position < 5:
            raise ProtocolViolation("upstream sent a message in pieces of no size")
        end = position + 1 + unpack(data, position + 1)[0]
        if end > total:
            found.append(data[position + 5 :])
            return int(end - total)
        if pause:
            pause -= 1
        elif end - position == size:
            alike = min(alike, (total - position) // size)
            if alike >= _FEW_ALIKE and _alike(data, position, size, alike):
                found.append(_without_headers(data[position : position + size * alike], size))
                position += size * alike
                alike = min(2 * alike, _MOST_ALIKE)
                continue
            alike, pause = _FEW_ALIKE, _PAUSE
        size = end - position
        found.append(data[position + 5 : end])
        position = end
    return 0


def _without_headers(data: bytes, size: int) -> bytearray:
    """Take the type and the length out of messages of one size."""
    rest = bytearray(data)
    for taken in range(5):
        del rest[:: size - taken]
    return rest
