"""Prepared statements and portals as the upstream knows them: one registry for protocol and SQL, confirmed by answers.

What was sent and not yet answered is kept apart, by segment (what lies between two Syncs). Within a segment an earlier
failure skips everything behind it, so what is pending there may be relied on; across segments it may not, and the
caller waits until it is known.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from broker.protocols.postgres.memory import Room
from broker.protocols.postgres.replies import Recheck
from broker.protocols.postgres.ruling import Permitted
from broker.sessions.holds import Asked, Settings
from broker.sql.model import SearchPath

MAX_ENTRIES = 5000
OWN_OIDS = 16384
"""The first oid of what users define."""


def own_types(types: Iterable[int]) -> tuple[int, ...]:
    """Return those of users' among the types that a Parse declares."""
    return tuple(sorted({oid for oid in types if oid >= OWN_OIDS}))


@dataclass(slots=True)
class Prepared:
    """A prepared statement: the user's text, and the text that the upstream parsed in its place."""

    ruling: Permitted
    types: tuple[int, ...] = ()
    """Of its parameters, as its Parse named them, or as the upstream described them."""
    own: tuple[int, ...] = ()
    """Those of users' among what its Parse named."""
    room: Room | None = field(default=None, compare=False, repr=False)
    """What its texts take of the memory."""
    settings: Settings | None = None
    """Those under which its text was read, where policy asks about it."""
    declared: str = ""
    """The types of its parameters, as SQL's PREPARE says them."""

    @property
    def sql(self) -> str:
        return self.ruling.sql

    @property
    def rewritten(self) -> str:
        return self.ruling.inspection.rewritten


@dataclass(slots=True)
class Portal:
    """A bound statement. `statements` are the ids it was recorded under, once it is; `rows` came of it so far.

    `hold` is what approved that, where policy asked.
    """

    prepared: Prepared
    asked: Asked
    parameters: tuple[dict[str, object], ...] = ()
    statements: tuple[str, ...] = ()
    hold: str = ""
    shape: str = ""
    """The rule of an approved shape that let it pass, where policy asked."""
    most: int | None = None
    """How many rows it may touch, where that is bounded."""
    altered: int = 0
    """How often its session had changed the schema when that was approved."""
    recheck: Recheck | None = field(default=None, compare=False, repr=False)
    """Says why what it has run is not what was approved."""
    again: bool = False
    """It was executed again under the ids of an execution before."""
    owed: int = 0
    """How many of its messages have no answer yet."""
    rows: int = 0
    since: float = 0.0
    level: int = 0
    """How many savepoints there were when it was made."""
    room: Room | None = field(default=None, compare=False, repr=False)
    """What its values take of the memory."""
    path: SearchPath | None = None
    """The search path that its session had set when it was made."""


@dataclass(slots=True)
class Cursor:
    """What a DECLARE made: to the upstream a portal like any other, with rows that are asked for by FETCH.

    `held` ones outlive the transaction that made them, once it is `settled`.
    """

    ruling: Permitted
    held: bool = False
    settled: bool = False
    level: int = 0
    """How many savepoints there were when it was made."""
    room: Room | None = field(default=None, compare=False, repr=False)
    """What its text takes of the memory."""


class Uncertain(Exception):
    """what a name stands for depends on answers that have not come"""


V = TypeVar("V")


@dataclass(frozen=True, slots=True, eq=False)
class Change(Generic[V]):
    """What a message does to a name if it succeeds: `value` None removes it; `name` None is every name."""

    segment: int
    name: str | None
    value: V | None


@dataclass(slots=True)
class Registry(Generic[V]):
    """What names stand for; however much is pending, what one name will stand for is found at once."""

    known: dict[str, V] = field(default_factory=dict)
    pending: dict[Change[V], None] = field(default_factory=dict)
    """In their order."""
    keeps_unnamed: bool = False
    """What drops every name leaves the one without: the server keeps that statement apart."""
    _named: dict[str | None, deque[tuple[int, Change[V]]]] = field(default_factory=dict, repr=False)
    """What is pending, by its name, with its number."""
    _last: int = field(default=0, repr=False)

    @property
    def full(self) -> bool:
        return not self.has_room(0)

    def has_room(self, more: int) -> bool:
        """Say whether one can be added to what there is, and to so many more that are planned."""
        return len(self.known) + len(self.pending) + more < MAX_ENTRIES

    def find(self, name: str, segment: int) -> V | None:
        """Return what a name will stand for when a message of this segment arrives; raises Uncertain."""
        names = (name, None) if name or not self.keeps_unnamed else (name,)
        touching = [self._named[each][-1] for each in names if each in self._named]
        if not touching:
            return self.known.get(name)
        # Segments follow each other: where the last is of another one, so is every one.
        _, last = max(touching)
        if last.segment != segment:
            raise Uncertain
        return last.value

    def expect(self, change: Change[V]) -> Change[V]:
        self._last += 1
        self.pending[change] = None
        self._named.setdefault(change.name, deque()).append((self._last, change))
        return change

    def confirm(self, change: Change[V]) -> None:
        """The upstream did it."""
        self.drop(change)
        if change.name is None:
            for name in [name for name in self.known if name or not self.keeps_unnamed]:
                del self.known[name]
        elif change.value is None:
            self.known.pop(change.name, None)
        else:
            self.known[change.name] = change.value

    def drop(self, change: Change[V]) -> None:
        """The upstream did not do it."""
        if change not in self.pending:
            return
        del self.pending[change]
        changes = self._named[change.name]
        # Answers come in order, so this is the first; but for what an error skips.
        at = next(at for at, (_, one) in enumerate(changes) if one is change)
        del changes[at]
        if not changes:
            del self._named[change.name]
