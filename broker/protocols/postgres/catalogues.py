"""Catalogues of upstreams, read over the role's own credential, kept for a few seconds, one read at a time for each."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from broker.protocols.postgres.admin import Admin, Admins
from broker.sessions.ports import Endpoint
from broker.sql.catalogue import QUERIES, Catalogue, build

FRESH_SECONDS = 5.0
STALE_SECONDS = 60.0


class Key(tuple[Endpoint, tuple[str, ...]]):
    """An upstream and the path that names are looked up in; hashed once, for each statement looks its shelf up."""

    def __hash__(self) -> int:
        found: int | None = self.__dict__.get("hash")
        if found is None:
            found = self.__dict__["hash"] = super().__hash__()
        return found


@dataclass(slots=True)
class _Held:
    rows: dict[str, list[dict[str, Any]]]
    catalogue: Catalogue
    at: float


@dataclass(slots=True)
class _Shelf:
    held: _Held | None = None
    reading: asyncio.Task[Catalogue] | None = None
    changed_at: float = 0.0
    """What was read before this moment is of another schema."""


class Catalogues:
    def __init__(self, admins: Admins) -> None:
        self._admins = admins
        self._shelves: dict[Key, _Shelf] = {}

    def held(self, key: Key) -> Catalogue | None:
        """Return the catalogue that may be used without waiting; one that is getting old is read again behind it."""
        shelf = self._shelves.get(key)
        if shelf is None or shelf.held is None or shelf.held.at < shelf.changed_at:
            return None
        age = time.monotonic() - shelf.held.at
        if age > STALE_SECONDS:
            return None
        if age > FRESH_SECONDS and shelf.reading is None:
            self._read(key, shelf)
        return shelf.held.catalogue

    def drop(self, key: Key) -> None:
        """Let nobody use what is held without reading again."""
        if (shelf := self._shelves.get(key)) is not None:
            shelf.changed_at = time.monotonic()

    async def fresh(self, key: Key, *, since: float | None = None) -> Catalogue:
        """Return a catalogue read since a moment (monotonic seconds), or one of the last few seconds.

        Raises UpstreamUnavailable.
        """
        shelf = self._shelves.setdefault(key, _Shelf())
        oldest = time.monotonic() - FRESH_SECONDS if since is None else since
        while shelf.held is None or shelf.held.at < max(oldest, shelf.changed_at):
            # A read that began too early does not count; the next one does.
            await asyncio.shield(shelf.reading or self._read(key, shelf))
        return shelf.held.catalogue

    def _read(self, key: Key, shelf: _Shelf) -> asyncio.Task[Catalogue]:
        shelf.reading = asyncio.get_running_loop().create_task(self._load(key, shelf), name="catalogue")
        shelf.reading.add_done_callback(_seen)
        return shelf.reading

    async def _load(self, key: Key, shelf: _Shelf) -> Catalogue:
        endpoint, path = key
        at = time.monotonic()
        try:
            rows, version = await read_rows(self._admins.of(endpoint))
            if shelf.held is not None and shelf.held.rows == rows:
                catalogue = shelf.held.catalogue
            else:
                catalogue = await asyncio.to_thread(build, rows, list(path), version)
            shelf.held = _Held(rows, catalogue, at)
            return catalogue
        finally:
            shelf.reading = None


async def read_rows(admin: Admin) -> tuple[dict[str, list[dict[str, Any]]], int]:
    """Read what a catalogue is built of, and the server's version; raises UpstreamUnavailable."""
    version = await admin.version()
    return {name: await admin.fetch(sql) for name, sql in QUERIES.items()}, version


def _seen(task: asyncio.Task[Catalogue]) -> None:
    if not task.cancelled():
        # Who waits for it gets the error; behind a catalogue that still serves nobody does.
        task.exception()
