"""What the broker's ports lead to in tests: a clock, policies, tickets and leases by hand, records in a list."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.adapters import journal
from broker.adapters.store import ShapeRow, StoreUnavailable
from broker.core import compiled
from broker.errors import Misconfigured, RecordingFailed
from broker.sessions.model import Entry, GrantFacts, Lease, TicketFacts
from broker.sessions.ports import Endpoint, LiveSession
from broker.sessions.services import Refusal
from policies.engine.model import Policy
from workflows.orders import HoldAnswer, OrderInvalid, verify_hold_answer

if TYPE_CHECKING:
    from broker.core.lane import Journal


@dataclass
class Clock:
    offset: timedelta = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def seconds(self) -> float:
        return self.now().timestamp()


class FixedPolicies:
    """A policy that a test may replace."""

    def __init__(self, policy: Policy) -> None:
        self.current = policy

    @property
    def current(self) -> Policy:
        return self._policy

    @current.setter
    def current(self, policy: Policy) -> None:
        self._policy, self._hash = policy, policy.hash

    @property
    def hash(self) -> str:
        return self._hash

    async def reload(self) -> None:
        """There is nothing else to read."""


def read_line(line: journal.Line) -> Entry:
    """Read what stands in a journal as the entry that Python would make of it."""
    data = json.loads(f"{{{line.before}{line.behind}}}")
    return Entry(line.kind, line.grant, line.session, data, json.loads(line.detail))


@dataclass
class Recorder:
    """Keeps entries; `delay` is how long a sync takes, `broken` makes the next write fail."""

    entries: list[Entry] = field(default_factory=list)
    delay: float = 0.0
    broken: bool = False
    unsyncable: bool = False
    pending: int = 0
    slow_by: Callable[[], None] = lambda: None
    """What happens while an entry is written."""
    pressed: int = 0
    """How many came from the compiled core's lanes."""
    _journal: Journal | None = None

    def write(self, entry: Entry, *, lazy: bool = False) -> Awaitable[None]:
        return self.write_all((entry,), lazy=lazy)

    def journal(self) -> Journal:
        """Return one that keeps nothing back."""
        if self._journal is None:
            assert compiled is not None
            memory = bytearray(journal.SIZE)

            def keep(_: Journal) -> Awaitable[None]:
                return self._pressed(map(read_line, journal.unpacked(memory)))

            self._journal = compiled.Journal(memory, keep, None, None)
        return self._journal

    def write_all(self, entries: Sequence[Entry], *, lazy: bool = False) -> Awaitable[None]:
        return self._keep(entries)

    def _pressed(self, entries: Iterable[Entry]) -> Awaitable[None]:
        found = list(entries)
        self.pressed += len(found)
        return self._keep(found)

    def _keep(self, entries: Sequence[Entry]) -> Awaitable[None]:
        self.slow_by()
        if self.broken:
            raise RecordingFailed("the disk is full")
        self.entries.extend(entries)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self.pending += 1

        def done() -> None:
            self.pending -= 1
            if future.done():
                return
            if self.unsyncable:
                future.set_exception(RecordingFailed("the disk does not sync"))
            else:
                future.set_result(None)

        loop.call_later(self.delay, done)
        return future

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [entry.data for entry in self.entries if entry.type == kind]


class AnswerKey:
    """Checks answers with a key of the test's own."""

    def __init__(self) -> None:
        self.private = Ed25519PrivateKey.generate()

    def hold_answer(self, token: str) -> HoldAnswer:
        try:
            return verify_hold_answer(token, self.private.public_key(), datetime.now(UTC))
        except OrderInvalid as error:
            raise Refusal("order_invalid", str(error)) from None


@dataclass
class Tickets:
    known: dict[str, TicketFacts] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)

    async def find(self, user: str) -> TicketFacts | None:
        return self.known.get(user)

    async def used(self, ticket: TicketFacts) -> GrantFacts | None:
        return None if ticket.grant.id in self.ended else ticket.grant

    async def over(self, ticket: TicketFacts) -> str:
        return "this access is over"


@dataclass
class Live:
    sessions: list[LiveSession] = field(default_factory=list)
    full: bool = False
    over: set[str] = field(default_factory=set)
    """Grants that are not active any more."""

    def granted(self, grant: str) -> bool:
        return grant not in self.over

    def add(self, session: LiveSession) -> bool:
        if self.full:
            return False
        self.sessions.append(session)
        return True

    def remove(self, session: LiveSession) -> None:
        if session in self.sessions:
            self.sessions.remove(session)

    async def cancel(self, session: str) -> None:
        for one in self.sessions:
            if one.facts.id == session:
                await one.cancel()


@dataclass
class MemoryLeases:
    alive: bool = True
    written: list[Lease] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    def reaper_alive(self) -> bool:
        return self.alive

    async def write(self, lease: Lease) -> None:
        self.written.append(lease)

    async def close(self, session: str) -> bool:
        self.closed.append(session)
        return True

    def sessions(self) -> frozenset[str]:
        return frozenset(lease.session for lease in self.written) - frozenset(self.closed)


@dataclass
class FixedEndpoints:
    endpoint: Endpoint
    by_role: dict[str, Endpoint] = field(default_factory=dict)

    def of(self, resource: str, role: str) -> Endpoint:
        if resource == "broken-db":
            raise Misconfigured("no such reference")
        return self.by_role.get(role, self.endpoint)


class ShapeRows:
    """Approved shapes, kept in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, ShapeRow] = {}
        self.away = False

    async def add_shape(self, row: ShapeRow) -> None:
        if self.away:
            raise StoreUnavailable
        self.rows[row.id] = row

    async def withdraw_shape(self, shape: str, by: str, at: datetime) -> None:
        if self.away:
            raise StoreUnavailable
        self.rows[shape] = replace(self.rows[shape], withdrawn_at=at, withdrawn_by=by)

    async def shape(self, shape: str) -> ShapeRow | None:
        return self.rows.get(shape)

    async def shapes_of(self, grant: str) -> list[ShapeRow]:
        return [row for row in self.rows.values() if row.grant == grant]
