"""The journal's file: what the compiled core has recorded and not sealed yet, in memory that outlives the process.

A record there is its size, kind and lengths as `_HEAD` has them (native order), its time, then grant, session, id of
the statement, and the JSON of its data before `recorded`, of that behind it, and of its detail. A size of zero ends
them.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import struct
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

SIZE = 1024 * 1024
DELAY_SECONDS = 0.01
"""How long a record may stand in the journal before it is sealed: with what it then waits to be synced, 50 ms."""
KINDS = ("statement.allowed", "statement.finished")
_HEAD = struct.Struct("=IBBBBIII27s")
_SIZE = struct.Struct("=I")
_AT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_ID = re.compile(r"[A-Za-z0-9_-]+")


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

    @property
    def data(self) -> dict[str, Any]:
        """What its JSON says; raises ValueError."""
        found: dict[str, Any] = json.loads(f"{{{self.before}{self.behind}}}")
        return found

    @property
    def sound(self) -> bool:
        """Whether it is what a writer writes."""
        try:
            same = self.data.get("statement") == self.id and isinstance(json.loads(self.detail), dict)
        except ValueError:
            return False
        return same and bool(_AT.fullmatch(self.at) and all(map(_ID.fullmatch, (self.grant, self.session, self.id))))


class Left(NamedTuple):
    """What a writer left in its journal; `torn` where something behind `lines` does not read."""

    lines: list[Line]
    torn: bool


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
        try:
            for length in lengths:
                texts.append(bytes(whole[place : place + length]).decode("ascii"))
                place += length
            line = Line(KINDS[kind], time.decode("ascii"), *texts)
        except UnicodeDecodeError:
            return
        yield line
        at += size


def left_behind(path: Path) -> Left:
    """Return what a writer left in its journal; raises OSError.

    A process that is killed leaves whole records and a size of zero; only a host that is lost may leave anything else.
    """
    if not path.exists():
        return Left([], False)
    content = path.read_bytes()
    lines = list(takewhile(lambda line: line.sound, unpacked(content)))
    end = sum(len(packed(line)) for line in lines)
    return Left(lines, any(content[end : end + _SIZE.size]))


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
