"""A stream's files: `<stream>.ndjson`, then `<stream>.<position of its first byte>.ndjson`; positions across them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"([a-z][a-z0-9_-]{0,30})(?:\.([0-9]{15}))?\.ndjson")
_CLOSED = re.compile(
    rb'"session":"([A-Za-z0-9_-]+)","stream":"[^"]+","type":"session\.closed","hash":"[0-9a-f]{64}"}\n'
)


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of a stream; `base` is the stream's position at its first byte."""

    base: int
    path: Path

    @property
    def size(self) -> int:
        return self.path.stat().st_size


def home_in(state: Path) -> Path:
    """Return the broker's own folder in a state folder; it may be that itself."""
    return state / "broker" if (state / "broker").is_dir() else state


def segment_path(folder: Path, stream: str, base: int) -> Path:
    """Return where the segment that begins at a position lives."""
    return folder / (f"{stream}.{base:015d}.ndjson" if base else f"{stream}.ndjson")


def streams(folder: Path) -> list[str]:
    """Return the names of the streams that have files here."""
    return sorted({found[1] for path in folder.glob("*.ndjson") if (found := _NAME.fullmatch(path.name))})


def segments(folder: Path, stream: str) -> list[Segment]:
    """Return a stream's segments in order."""
    found = [
        Segment(int(match[2] or 0), path)
        for path in folder.glob(f"{stream}.*ndjson")
        if (match := _NAME.fullmatch(path.name)) and match[1] == stream
    ]
    return sorted(found, key=lambda segment: segment.base)


def closed_sessions(folder: Path) -> frozenset[str]:
    """Return the sessions that the last two files of each stream say are verified gone.

    A start writes hardly anything behind what it finds. A file that does not read says nothing: it keeps nobody from
    ending a session, whose end is better said twice than never.
    """
    closed = set()
    for path in [one.path for stream in streams(folder) for one in segments(folder, stream)[-2:]]:
        with suppress(OSError):
            content = path.read_bytes()
            for found in _CLOSED.finditer(content):
                if b'"verified":true' in content[content.rfind(b"\n", 0, found.start()) + 1 : found.start()]:
                    closed.add(found[1].decode())
    return frozenset(closed)


def checkpoint_path(folder: Path, stream: str) -> Path:
    """Return where a stream's signed checkpoints are."""
    return folder / f"{stream}.checkpoints.ndjson"


def read_lines(path: Path, offset: int, end: int, chunk: int = 1 << 18) -> Iterator[bytes]:
    """Yield a file's whole lines between two offsets, newline included, without holding it all in memory."""
    with path.open("rb") as file:
        file.seek(offset)
        rest = b""
        while offset < end and (data := file.read(min(chunk, end - offset))):
            offset += len(data)
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                yield line + b"\n"
