"""The feed: every stream's events after a cursor, merged; a cursor is a position in each stream, so it is a seek."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker.adapters.eventlog import EventLog
from broker.adapters.folding import Run
from broker.adapters.segments import read_lines, segments, streams
from broker.sessions.services import Refusal
from workflows.wire import FOLDED, EventView

POLL_SECONDS = 0.25
FOLD_SECONDS = 0.1
"""How long statements that merely ran may wait for others of their kind to be told with."""
MOST_FOLDED = 10_000
_CURSOR = re.compile(r"[A-Za-z0-9_-]{0,400}")
_STREAM = re.compile(r"[a-z][a-z0-9_-]{0,30}")

Positions = dict[str, int]


def write_cursor(positions: Positions) -> str:
    """Write positions as an opaque text."""
    text = json.dumps(positions, sort_keys=True, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> Positions:
    """Read what write_cursor wrote, and nothing else; nothing at all is the beginning."""
    if not cursor:
        return {}
    try:
        if not _CURSOR.fullmatch(cursor):
            raise ValueError
        positions = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if not isinstance(positions, dict) or write_cursor(positions) != cursor:
            raise ValueError
        for stream, position in positions.items():
            if type(position) is not int or position < 0 or not _STREAM.fullmatch(stream):
                raise ValueError
    except (ValueError, TypeError, binascii.Error):
        raise _bad_cursor() from None
    return positions


def _bad_cursor() -> Refusal:
    return Refusal("bad_cursor", "the cursor is not one that this broker gave", "start without one, from the beginning")


@dataclass(frozen=True, slots=True)
class _Found:
    stream: str
    position: int
    """The stream's position behind the event."""
    content: dict[str, Any]


class Feed:
    """Reads the broker's own stream up to what is on disk, and other processes' streams as they grow."""

    def __init__(self, log: EventLog) -> None:
        self._folder = log.folder
        self._log = log
        self._news = asyncio.Event()
        self._closed = False
        self._loop = asyncio.get_running_loop()
        log.on_synced = self._synced

    async def read(self, after: str, limit: int, wait: float, *, fold: bool = False) -> list[EventView]:
        """Return events after a cursor, waiting for the first at most so long; raises Refusal for a bad cursor.

        `fold` has statements that merely ran told together, and lets a moment pass for more of them.
        """
        positions = read_cursor(after)
        deadline = asyncio.get_running_loop().time() + wait
        while True:
            news = self._news
            found = await asyncio.to_thread(self._read, positions, limit, fold)
            if fold and found and wait and all(one.content["type"] == FOLDED for one in found):
                await asyncio.sleep(FOLD_SECONDS)
                found = await asyncio.to_thread(self._read, positions, limit, fold)
            left = deadline - asyncio.get_running_loop().time()
            if found or left <= 0 or self._closed:
                return _views(found, positions)
            try:
                # Other processes' streams say nothing when they grow, so they are looked at now and then.
                await asyncio.wait_for(news.wait(), min(left, POLL_SECONDS))
            except TimeoutError:
                continue

    def close(self) -> None:
        """Let everybody who waits go."""
        self._closed = True
        self._wake()

    def _synced(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads any more
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _read(self, positions: Positions, limit: int, fold: bool) -> list[_Found]:
        known = streams(self._folder)
        if any(position for stream, position in positions.items() if stream not in known):
            raise _bad_cursor()
        found: list[_Found] = []
        for stream in known:
            found += self._stream(stream, positions.get(stream, 0), limit, fold)
        # By time of writing; the sort is stable, so a stream's own order stays even where its clock went back.
        return _merged(found)[:limit]

    def _stream(self, stream: str, position: int, limit: int, fold: bool) -> list[_Found]:
        parts = segments(self._folder, stream)
        if parts and position < parts[0].base:
            if position:
                raise _bad_cursor()
            position = parts[0].base  # the beginning is the earliest line that is still there
        end = self._log.synced_position if stream == self._log.stream else None
        found: list[_Found] = []
        for index, part in enumerate(parts):
            following = parts[index + 1].base if index + 1 < len(parts) else part.base + part.size
            stop = following if end is None else min(following, end)
            if position >= following and index + 1 < len(parts):
                continue
            if position > stop and index + 1 == len(parts):
                raise _bad_cursor()
            if position >= stop:
                continue
            if end is None and index + 1 == len(parts):
                _sync(part.path)
            # A lost host may have kept this one, and not the end of the one before.
            position = max(position, part.base)
            offset = position - part.base
            _check_boundary(part.path, offset)
            for one in _events(read_lines(part.path, offset, stop - part.base), stream, position, fold):
                position = one.position
                found.append(one)
                if len(found) >= limit:
                    return found
        return found


def _events(lines: Iterator[bytes], stream: str, position: int, fold: bool) -> Iterator[_Found]:
    """Yield what lines from a position on are told as."""
    run = Run()
    for line in lines:
        if run.lines >= MOST_FOLDED:
            yield _Found(stream, position, run.event())
            run = Run()
        if fold and run.add(line):
            position += len(line)
            continue
        if run.lines:
            yield _Found(stream, position, run.event())
            run = Run()
        position += len(line)
        yield _Found(stream, position, _content(line))
    if run.lines:
        yield _Found(stream, position, run.event())


def _merged(found: list[_Found]) -> list[_Found]:
    latest: dict[str, str] = {}
    keys: list[tuple[str, str]] = []
    for event in found:
        at = max(event.content["at"], latest.get(event.stream, ""))
        latest[event.stream] = at
        keys.append((at, event.stream))
    order = sorted(range(len(found)), key=lambda index: keys[index])
    return [found[index] for index in order]


def _views(found: list[_Found], positions: Positions) -> list[EventView]:
    at = dict(positions)
    views: list[EventView] = []
    for event in found:
        at[event.stream] = event.position
        content = event.content
        views.append(
            EventView(
                cursor=write_cursor(at),
                stream=event.stream,
                seq=content["seq"],
                at=content["at"],
                type=content["type"],
                grant=content["grant"],
                session=content["session"],
                data=content["data"],
            )
        )
    return views


def _content(line: bytes) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(line)
    return content


def _check_boundary(path: Path, offset: int) -> None:
    if offset == 0:
        return
    with path.open("rb") as file:
        file.seek(offset - 1)
        if file.read(1) != b"\n":
            raise _bad_cursor()


def _sync(path: Path) -> None:
    # What a reader acts on must not be gone after a power cut, or its cursor would point behind the end.
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
