"""The journal's file: what the compiled core has recorded and not sealed yet, in memory that outlives the process.

A record there is its size, kind and lengths as `_HEAD` has them (native order), its time, then grant, session, id of
the statement, and the JSON of its data before `recorded`, of that behind it, and of its detail. A size of zero ends
them.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SIZE = 1024 * 1024
DELAY_SECONDS = 0.01
"""How long a record may stand in the journal before it is sealed: with what it then waits to be synced, 50 ms."""
KINDS = ("statement.allowed", "statement.finished")
_HEAD = struct.Struct("=IBBBBIII27s")


class Line(NamedTuple):
    """One record as it stands in a journal."""

    kind: str
    at: str
    grant: str
    session: str
    id: str
    """Of its statement."""
    before: str
    behind: str
    detail: str


def journal_path(home: Path, stream: str) -> Path:
    """Return where the journal of a stream's writer is."""
    return home / "recordings" / f"{stream}.journal"


def packed(line: Line) -> bytes:
    """Write a record as it stands in a journal."""
    texts = [one.encode("ascii") for one in line[2:]]
    kind, at = KINDS.index(line.kind), line.at.encode("ascii")
    size = _HEAD.size + sum(map(len, texts))
    return _HEAD.pack(size, kind, *map(len, texts), at) + b"".join(texts)


def unpacked(memory: bytes | memoryview) -> Iterator[Line]:
    """Yield the records that stand in a journal, as far as they are whole."""
    at, whole = 0, memoryview(memory)
    while at + _HEAD.size <= len(whole):
        size, kind, *lengths, time = _HEAD.unpack_from(whole, at)
        if size < _HEAD.size or size != _HEAD.size + sum(lengths) or at + size > len(whole) or kind >= len(KINDS):
            return
        texts, place = [], at + _HEAD.size
        for length in lengths:
            texts.append(bytes(whole[place : place + length]).decode("ascii"))
            place += length
        yield Line(KINDS[kind], time.decode("ascii"), *texts)
        at += size


def left_behind(path: Path) -> list[Line]:
    """Return what a writer left in its journal; raises OSError and ValueError."""
    return list(unpacked(path.read_bytes())) if path.exists() else []


def mapped(path: Path) -> mmap.mmap:
    """Map an empty journal, all of whose room is there already; raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        written = 0
        while written < SIZE:
            # Room that is only promised would be missing once it is written to: that ends the process.
            written += os.pwrite(fd, bytes(SIZE - written), written)
        os.ftruncate(fd, SIZE)
        os.fsync(fd)
        return mmap.mmap(fd, SIZE)
    finally:
        os.close(fd)
