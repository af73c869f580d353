"""A broker in memory around the real PostgreSQL protocol: grants and tickets by hand, records in a list."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from broker.adapters.holds import HoldDesk
from broker.adapters.shapes import ShapeBook
from broker.protocols.postgres import OFFER
from broker.protocols.postgres.offer import PostgresListener
from broker.protocols.postgres.scram import make_verifier
from broker.sessions.model import CloseReason, GrantFacts, ScramVerifier, TicketFacts
from broker.sessions.ports import Broker, Endpoint
from policies.engine.load import read_texts
from tests.support.ports import (
    AnswerKey,
    Clock,
    FixedEndpoints,
    FixedPolicies,
    Live,
    MemoryLeases,
    Recorder,
    ShapeRows,
    Tickets,
)
from workflows.orders import Evidence, HoldAnswer, OrderedReview, sign_hold_answer
from workflows.reviews import Answer
from workflows.wire import HoldView

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
