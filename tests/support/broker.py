"""A broker in memory around the real PostgreSQL protocol: grants and tickets by hand, records in a list."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.adapters import journal
from broker.adapters.holds import HoldDesk
from broker.adapters.shapes import ShapeBook
from broker.adapters.store import ShapeRow, StoreUnavailable
from broker.core import compiled
from broker.errors import Misconfigured, RecordingFailed
from broker.protocols.postgres import OFFER
from broker.protocols.postgres.offer import PostgresListener
from broker.protocols.postgres.scram import make_verifier
from broker.sessions.model import CloseReason, Entry, GrantFacts, Lease, ScramVerifier, TicketFacts
from broker.sessions.ports import Broker, Endpoint, LiveSession
from broker.sessions.services import Refusal
from policies.engine.load import read_texts
from policies.engine.model import Policy
from workflows.orders import Evidence, HoldAnswer, OrderedReview, OrderInvalid, sign_hold_answer, verify_hold_answer
from workflows.reviews import Answer
from workflows.wire import HoldView

if TYPE_CHECKING:
    from broker.core.lane import Journal

POLICY = """
groups: {engineers: "", dbas: ""}
people:
  alice: {name: Alice, groups: [engineers]}
  bob: {name: Bob, groups: [dbas]}
  dana: {name: Dana, groups: [dbas]}
resources:
  prod-db:
    protocol: postgres
    upstream: {host: 127.0.0.1, port: 1, database: shop, tls: disable}
    roles:
      read: {credential: "file:x", relations: ["public.*"]}
      write: {credential: "file:x", relations: ["public.*"]}
      ask: {credential: "file:x", relations: ["public.*"]}
      ask_first: {credential: "file:x", relations: ["public.*"], hold: refuse}
      sized: {credential: "file:x", relations: ["public.*"], hold: refuse}
      few: {credential: "file:x", relations: ["public.*"]}
access:
  - {id: give, decision: allow, groups: [engineers], max_duration: 4h}
statements:
  - {id: reads, decision: allow, effects: [read, session]}
  - {id: writes, decision: allow, roles: [write], effects: [write, ddl]}
  - {id: loads, decision: allow, roles: [write], effects: [write], copies: [in]}
  - {id: few-out, decision: allow, roles: [few], effects: [read], copies: [out], copy_limit: {rows: 100}}
  - {id: few-in, decision: allow, roles: [few], effects: [write], copies: [in], copy_limit: {rows: 100, bytes: 1kB}}
  - {id: own, decision: allow, roles: [few], functions: ["public.spent(integer)", "public.spent(text)", public.told]}
  - {id: notes, decision: allow, roles: [few], effects: [write], functions: [public.noted]}
  - {id: sized, decision: allow, roles: [sized], effects: [write], max_estimated_rows: 100, above: deny}
  - {id: sized-reads, decision: allow, roles: [sized], effects: [read], max_estimated_rows: 500, above: ask,
     reviewers: {count: 1, groups: [dbas]}}
  - {id: asked, decision: ask, roles: [ask, ask_first], effects: [write], reviewers: {count: 1, groups: [dbas]}}
fields:
  - {id: people-fields, resource: prod-db, relation: public.people, clear: [id, name], masks: {ssn: hide}}
"""


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


@dataclass
class TestBroker:
    """The protocol served on a free port; `ticket()` gives what a client needs."""

    __test__ = False

    broker: Broker
    clock: Clock
    policies: FixedPolicies
    tickets: Tickets
    recorder: Recorder
    live: Live
    leases: Any
    endpoints: FixedEndpoints
    listener: PostgresListener
    holds: HoldDesk
    key: AnswerKey
    shapes: ShapeBook

    async def held(self, count: int = 1) -> HoldView:
        """Wait until so many holds were opened, and return the last."""
        await self.until(lambda: len(self.recorder.of("hold.opened")) >= count)
        return await self.holds.get(self.recorder.of("hold.opened")[count - 1]["hold"])

    async def answer(
        self,
        held: HoldView,
        answer: Answer = Answer.APPROVE,
        person: str = "bob",
        reason: str = "",
        shape: str | None = None,
        **change: Any,
    ) -> HoldView:
        """Answer a hold as the bot would, or approve its shape too."""
        evidence = Evidence(platform="slack", team="T1", user="U1")
        now = datetime.now(UTC)
        review = OrderedReview(person=person, answer=answer, at=now, reason=reason, shape=shape, evidence=evidence)
        values = {
            "id": "a" + secrets.token_hex(6),
            "hold": held.id,
            "digest": held.digest,
            "reviews": [review],
            "policy_hash": self.policies.hash,
        }
        signed = sign_hold_answer(HoldAnswer(**{**values, **change}), self.key.private, datetime.now(UTC))
        return await self.holds.answer(held.id, signed)

    async def approve_shape(self, held: HoldView, **change: Any) -> str:
        """Approve a held statement and its shape, once that is offered; the id of the rule that this makes."""
        await self.until(lambda: any(one["hold"] == held.id for one in self.recorder.of("hold.estimated")), 10)
        held = await self.holds.get(held.id)
        assert held.shape is not None
        await self.answer(held, shape=held.shape.digest, **change)
        return str(self.recorder.of("shape.approved")[-1]["shape"])

    @property
    def port(self) -> int:
        return self.listener.port

    def ticket(
        self, *, role: str = "read", lasts: float = 600.0, refusal: str | None = None, resource: str = "prod-db"
    ) -> Shown:
        number = secrets.token_hex(2)
        expires = self.clock.now() + timedelta(seconds=lasts)
        grant = GrantFacts(f"g{number}", f"r{number}", "alice", resource, role, expires, self.clock.now())
        password = secrets.token_urlsafe(16)
        user = f"alice.{number}"
        verifier: ScramVerifier = make_verifier(password, secrets.token_bytes(16), 4096)
        self.tickets.known[user] = TicketFacts(f"t{number}", user, grant, verifier, refusal)
        return Shown(user, password, resource, self.port, grant)

    async def until(self, condition: Callable[[], bool], seconds: float = 15.0) -> None:
        """Wait for something to become true."""
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@dataclass(frozen=True)
class Line:
    """What a client connects with."""

    user: str
    password: str
    database: str
    port: int

    def dsn(self, **more: str) -> str:
        words = {
            "host": "127.0.0.1",
            "port": str(self.port),
            "dbname": self.database,
            "user": self.user,
            "password": self.password,
            "sslmode": "require",
            **more,
        }
        return " ".join(f"{name}={value}" for name, value in words.items())

    def asyncpg(self) -> dict[str, Any]:
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "database": self.database,
            "ssl": "require",
        }


@dataclass(frozen=True)
class Shown(Line):
    """A line with the grant that it is for."""

    grant: GrantFacts


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


@asynccontextmanager
async def serving(
    home: Path, endpoint: Endpoint, *, policy: str = POLICY, leases: Any = None, **by_role: Endpoint
) -> AsyncIterator[TestBroker]:
    """Serve PostgreSQL's protocol in front of an endpoint."""
    clock, tickets, recorder, live = Clock(), Tickets(), Recorder(), Live()
    policies = FixedPolicies(read_texts({"test.yaml": policy}))
    leases = leases if leases is not None else MemoryLeases()
    endpoints = FixedEndpoints(endpoint, by_role)
    key = AnswerKey()
    shapes = ShapeBook(ShapeRows(), recorder, clock, policies)
    holds = HoldDesk(key, recorder, clock, policies, shapes)
    broker = Broker(clock, policies, tickets, recorder, live, leases, endpoints, holds, home)
    listener = await OFFER.listen(broker, "127.0.0.1", 0)
    made = TestBroker(broker, clock, policies, tickets, recorder, live, leases, endpoints, listener, holds, key, shapes)
    try:
        yield made
    finally:
        await asyncio.gather(*(session.end(CloseReason.SHUTDOWN) for session in list(live.sessions)))
        await listener.close()


__all__ = ["POLICY", "Recorder", "Shown", "TestBroker", "replace", "serving"]
