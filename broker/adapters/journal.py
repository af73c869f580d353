"""The journal's file: what the compiled core has recorded and not sealed yet, in memory that outlives the process.

A record there is its check, generation, kind and lengths as `_HEAD` has them (native order), its time, then grant,
session, id of the statement, and the JSON of its data before `recorded`, of that behind it, and of its detail. A check
of zero ends them. The generation is another each time that the journal is emptied: a lost host may leave some of its
pages as they are and others as they were.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

SIZE = 1024 * 1024
DELAY_SECONDS = 0.01
"""How long a record may stand in the journal before it is sealed: with what it then waits to be synced, 50 ms."""
KINDS = ("statement.allowed", "statement.finished")
_HEAD = struct.Struct("=QQBBBBIII27s")
_CHECK = struct.Struct("=Q")
_COPYING = (0x9123683E, 0x2FC12FC1, 0xCA451A4E)
"""File systems that copy on write: btrfs, zfs, bcachefs."""
_MIXER, _MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1


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


class Left(NamedTuple):
    """What a writer left in its journal; `torn` where something behind `lines` does not read."""

    lines: list[Line]
    torn: bool
    records: bytes = b""
    """The lines as they stand there."""


def journal_path(home: Path, stream: str) -> Path:
    """Return where the journal of a stream's writer is."""
    return home / "recordings" / f"{stream}.journal"


def worker_journal(home: Path, number: int) -> Path:
    """Return where a worker keeps what it has recorded and not had sealed."""
    return journal_path(home, f"worker-{number}")


def stranded_path(home: Path, stream: str) -> Path:
    """Return where records are kept that their grants' recordings did not take."""
    return home / "recordings" / f"{stream}.stranded.journal"


def check(record: bytes) -> int:
    """Return what a record makes behind its check, never zero; as the compiled core does."""
    words = memoryview(record + bytes(-len(record) % 16)).cast("Q")
    first, second = len(record), len(record) ^ _MASK
    for one, other in zip(words[::2], words[1::2], strict=True):
        # Each step can be undone: of two records that differ in one word, no later one makes the same.
        first, second = (first ^ one) * _MIXER & _MASK, (second ^ other) * _MIXER & _MASK
        first, second = first ^ first >> 32, second ^ second >> 32
    first = first + second * _MIXER & _MASK
    return first ^ first >> 32 or 1


def packed(line: Line, generation: int = 0) -> bytes:
    """Write a record as it stands in a journal."""
    texts = [one.encode("ascii") for one in line[2:]]
    head = _HEAD.pack(0, generation, KINDS.index(line.kind), *map(len, texts), line.at.encode("ascii"))
    record = head[_CHECK.size :] + b"".join(texts)
    return _CHECK.pack(check(record)) + record


def unpacked(memory: bytes | bytearray | memoryview) -> Iterator[Line]:
    """Yield the records that stand in a journal, as far as they are whole and of one generation."""
    at, whole, first = 0, memoryview(memory), None
    while at + _HEAD.size <= len(whole):
        said, generation, kind, *lengths, time = _HEAD.unpack_from(whole, at)
        place, end = at + _HEAD.size, at + _HEAD.size + sum(lengths)
        if end > len(whole) or kind >= len(KINDS) or first not in (None, generation):
            return
        if said != check(bytes(whole[at + _CHECK.size : end])):
            return
        texts = []
        for length in lengths:
            texts.append(str(whole[place : place + length], "ascii"))
            place += length
        yield Line(KINDS[kind], time.decode("ascii"), *texts)
        at, first = end, generation


def left_behind(path: Path) -> Left:
    """Return what a writer left in its journal; raises OSError."""
    return left_in(path.read_bytes()) if path.exists() else Left([], False)


def left_in(content: bytes) -> Left:
    """Return what a journal holds.

    A process that is killed leaves whole records and a check of zero; only a host that is lost may leave anything else.
    """
    lines = list(unpacked(content))
    end = sum(len(packed(line)) for line in lines)
    return Left(lines, any(content[end : end + _CHECK.size]), content[:end])


def file_system(path: Path) -> int:
    """Return the number that Linux has for the kind of file system that a path is on; zero where nobody says."""
    # `f_type` is the first field of `struct statfs`.
    found = ctypes.create_string_buffer(512)
    if not sys.platform.startswith("linux") or ctypes.CDLL(None).statfs(os.fsencode(path), found):
        return 0
    return int.from_bytes(found.raw[:4], sys.byteorder)


def mapped(path: Path) -> mmap.mmap:
    """Map an empty journal, all of whose room is there already; raises OSError."""
    if file_system(path.parent) in _COPYING:
        raise OSError(
            errno.ENOTSUP, "its file system writes elsewhere what changes, so its room may be gone when it does"
        )
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
