"""Catalogues of upstreams, read over the role's own credential, kept for as long as the schema stays what it was.

A small probe says whether it did. A statement is decided under a catalogue that was found to hold within the last
`TRUSTED_SECONDS`; one that is getting old is probed again behind the statements, so that few of them wait.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from broker.core import new_moves
from broker.protocols.postgres.admin import Admins
from broker.protocols.postgres.naming import Changes, KnownNames, Place
from broker.protocols.postgres.rereading import Reading, read
from broker.sessions.ports import Endpoint, Policies
from broker.sql.building import Builder
from broker.sql.catalogue import Catalogue
from broker.sql.drift import names_in

PROBE_SECONDS = 0.35
TRUSTED_SECONDS = 0.75
STALE_SECONDS = 60.0
"""Everything is read again, whatever the probe says: rights to schemas are not among what it watches."""


class Key(tuple[Endpoint, tuple[str, ...]]):
    """An upstream and the path that names are looked up in; hashed once, for each statement looks its shelf up."""

    def __hash__(self) -> int:
        found: int | None = self.__dict__.get("hash")
        if found is None:
            found = self.__dict__["hash"] = super().__hash__()
        return found


@dataclass(slots=True)
class _Held:
    reading: Reading
    catalogue: Catalogue
    read_at: float
    """When all of it was read."""
    checked_at: float
    """When the read or the probe began that last found it to hold."""


@dataclass(slots=True)
class _Shelf:
    held: _Held | None = None
    reading: asyncio.Task[None] | None = None
    changed_at: float = 0.0
    """What was found before this moment is to be looked at again."""
    outdated: bool = False
    """What is held was built under other field rules."""
    builder: Builder = field(default_factory=Builder)


class Catalogues:
    """Catalogues by endpoint and search path; `rules` tells which field rules hold at the moment.

    `names` are those that things had before, and `changes` tells others of changes: a broker of several processes has
    both in one of them.
    """

    def __init__(self, admins: Admins, rules: Callable[[], str], names: KnownNames, changes: Changes) -> None:
        self._admins = admins
        self._rules = rules
        self._names = names
        self._changes = changes
        self._mark = secrets.token_hex(4)
        self._shelves: dict[Key, _Shelf] = {}
        self._built_under: dict[Place, str] = {}
        """The field rules."""
        self.moves = new_moves()
        """Counts each catalogue that comes or goes."""

    def held(self, key: Key) -> Catalogue | None:
        """Return the catalogue that may be used without waiting."""
        shelf = self._shelves.get(key)
        if shelf is None or shelf.held is None or shelf.held.checked_at < shelf.changed_at:
            return None
        age = time.monotonic() - shelf.held.checked_at
        if age > PROBE_SECONDS and shelf.reading is None:
            self._read(key, shelf)
        return shelf.held.catalogue if age <= TRUSTED_SECONDS else None

    def until(self, key: Key) -> float:
        """Return from when on (monotonic seconds) `held` is to be asked again."""
        held = self._shelves[key].held
        return held.checked_at + PROBE_SECONDS if held is not None else 0.0

    def drop(self, key: Key, *, own: bool = True) -> None:
        """Let nobody use what is held of a database without looking again, whatever their role and path.

        What a session has changed by its `own` doing, other processes hear of.
        """
        place = _place_of(key[0])
        self._outdate(place)
        if own:
            self._changes.note(place, self._mark)

    def hear(self, place: Place, by: str) -> None:
        """Look again at a database whose schema another process has seen changed."""
        if by != self._mark:
            self._outdate(place)

    def _outdate(self, place: Place) -> None:
        self.moves.count += 1
        for (endpoint, _), shelf in self._shelves.items():
            if _place_of(endpoint) == place:
                shelf.changed_at = time.monotonic()

    async def fresh(self, key: Key, *, since: float | None = None) -> Catalogue:
        """Return a catalogue found to hold since a moment (monotonic seconds), or just now.

        Raises UpstreamUnavailable.
        """
        shelf = self._shelves.setdefault(key, _Shelf())
        oldest = time.monotonic() - PROBE_SECONDS if since is None else since
        while shelf.held is None or shelf.held.checked_at < max(oldest, shelf.changed_at):
            # A look that began too early does not count; the next one does.
            await asyncio.shield(shelf.reading or self._read(key, shelf))
        return shelf.held.catalogue

    def _read(self, key: Key, shelf: _Shelf) -> asyncio.Task[None]:
        shelf.reading = asyncio.get_running_loop().create_task(self._load(key, shelf), name="catalogue")
        shelf.reading.add_done_callback(_seen)
        return shelf.reading

    async def _load(self, key: Key, shelf: _Shelf) -> None:
        endpoint, path = key
        at = time.monotonic()
        place = _place_of(endpoint)
        if self._built_under.get(place) != (rules := self._rules()):
            self._built_under[place] = rules
            self.moves.count += 1
            shelf.changed_at, shelf.outdated = max(shelf.changed_at, at), True
        try:
            admin, held = self._admins.of(endpoint), shelf.held
            whole = held is None or shelf.outdated or at - held.read_at > STALE_SECONDS
            known = held.reading if held is not None and not whole else None
            version = await admin.version()
            found = await admin.snapshot(lambda fetch: read(fetch, known))
            if held is not None and found is known:
                held.checked_at = at
                return
            before = held.reading.rows if held is not None and not shelf.outdated else None
            names = await asyncio.to_thread(names_in, found.rows, before)
            former = self._names.see(place, rules, names)
            catalogue = await asyncio.to_thread(shelf.builder.build, found.rows, list(path), version, former)
            if held is not None and held.catalogue.version == catalogue.version:
                catalogue = held.catalogue
            self.moves.count += 1
            read_at = held.read_at if held is not None and not whole else at
            shelf.held, shelf.outdated = _Held(found, catalogue, read_at, at), False
        finally:
            shelf.reading = None


def _place_of(endpoint: Endpoint) -> Place:
    return endpoint.host, endpoint.port, endpoint.database


def field_rules_of(policies: Policies) -> Callable[[], str]:
    """Return what tells the field rules that hold apart from others."""
    known = {"hash": "", "rules": ""}

    def rules() -> str:
        if known["hash"] != policies.hash:
            known["hash"] = policies.hash
            said = json.dumps([each.model_dump(mode="json") for each in policies.current.fields])
            known["rules"] = hashlib.sha256(said.encode()).hexdigest()
        return known["rules"]

    return rules


def _seen(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        # Who waits for it gets the error; behind a catalogue that still serves nobody does.
        task.exception()
