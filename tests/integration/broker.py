"""A broker in this process, with a real API, database and log, and a protocol that only pretends."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.adapters.auditkey import public_pem
from broker.adapters.clock import SystemClock
from broker.adapters.disk import Disk
from broker.adapters.eventlog import SEGMENT_BYTES
from broker.adapters.process import Outside, Process
from broker.api.routes import Services, make_app
from broker.config import Settings
from broker.errors import Misconfigured
from broker.sessions.model import CloseReason, Entry, GrantFacts, SessionFacts, Source
from broker.sessions.ports import Endpoint, TicketLine
from workflows.orders import Evidence, Order, OrderedReview, sign_call, sign_order
from workflows.reviews import Answer

POLICY = """
groups: {engineers: Engineers, dbas: Database people}
people:
  alice: {name: Alice, slack: U1, groups: [engineers]}
  bob: {name: Bob, slack: U2, groups: [engineers, dbas]}
  dana: {name: Dana, slack: U3, groups: [dbas]}
resources:
  prod-db:
    protocol: pretend
    upstream: {host: 127.0.0.1, port: 5432, database: shop, tls: disable}
    roles:
      read: {credential: "file:prod-read", relations: [public.*]}
      write: {credential: "file:prod-write", relations: [public.*]}
  dev-db:
    protocol: pretend
    upstream: {host: 127.0.0.1, port: 5432, database: dev, tls: disable}
    roles:
      read: {credential: "file:dev-read", relations: [public.*]}
access:
  - {id: prod-read, decision: ask, resources: [prod-db], roles: [read], groups: [engineers],
     reviewers: {count: 1, groups: [dbas]}, max_duration: 1h}
  - {id: prod-write, decision: ask, resources: [prod-db], roles: [write], groups: [engineers],
     reviewers: {count: 2, groups: [dbas]}, max_duration: 1h}
  - {id: dev, decision: allow, resources: [dev-db], groups: [engineers]}
statements:
  - {id: reads, decision: allow, effects: [read, session]}
"""
SOURCE = Source("127.0.0.1", 5432, "shop", "disable", "file:prod-read")
EVIDENCE = Evidence(platform="slack", team="T1", user="U1")


class PretendOffer:
    name = "pretend"
    default_port = 7000

    def ticket_line(self, resource: str, user: str, password: str, host: str, port: int) -> TicketLine:
        return TicketLine(f"open {user}:{password}@{host}:{port}/{resource}", {"user": user, "password": password})


class PretendEndpoints:
    def __init__(self) -> None:
        self.missing: set[tuple[str, str]] = set()

    def of(self, resource: str, role: str) -> Endpoint:
        if (resource, role) in self.missing:
            raise Misconfigured("`file:prod-read`: there is no such file")
        return Endpoint("127.0.0.1", 5432, "shop", "u", "hunter2-credential", "disable", None, SOURCE)


class PretendLeases:
    alive = True

    def reaper_alive(self) -> bool:
        return self.alive


class PretendSession:
    """A live session whose upstream takes a while to be gone."""

    def __init__(self, process: Process, grant: GrantFacts, lag: float = 0.0, verified: bool = True) -> None:
        self.facts = SessionFacts("s" + uuid.uuid4().hex[:8], "t1", grant)
        self.ended: list[CloseReason] = []
        self.extended: list[datetime] = []
        self._process, self._lag, self._verified = process, lag, verified

    def open(self) -> bool:
        if not self._process.live.add(self):
            return False
        self._process.recorder.write(Entry("session.opened", self.facts.grant.id, self.facts.id, {"person": "alice"}))
        return True

    async def extend(self, until: datetime) -> None:
        self.extended.append(until)

    async def end(self, reason: CloseReason) -> bool:
        self.ended.append(reason)
        await asyncio.sleep(self._lag)
        data = {"reason": reason.value, "verified": self._verified, "seconds": 1.0}
        self._process.recorder.write(Entry("session.closed", self.facts.grant.id, self.facts.id, data))
        self._process.live.remove(self)
        return self._verified


class Bot:
    """What the bot does: signs orders and calls."""

    def __init__(self, key: Ed25519PrivateKey, url: str, http: aiohttp.ClientSession) -> None:
        self.key, self.url, self.http = key, url, http

    def order(self, **change: Any) -> Order:
        suffix = uuid.uuid4().hex[:12]
        values: dict[str, Any] = {
            "id": f"o{suffix}",
            "request": f"r{suffix}",
            "requester": "alice",
            "requester_evidence": EVIDENCE,
            "resource": "prod-db",
            "role": "read",
            "seconds": 1800,
            "reason": "INC-42 a customer cannot log in",
            "asked_at": datetime.now(UTC),
            "reviews": [self.review("dana")],
            "policy_hash": "0" * 64,
        }
        return Order(**{**values, **change})

    def review(self, person: str, answer: Answer = Answer.APPROVE) -> OrderedReview:
        return OrderedReview(person=person, answer=answer, at=datetime.now(UTC), evidence=EVIDENCE)

    async def post(
        self, order: Order, key: Ed25519PrivateKey | None = None, now: datetime | None = None
    ) -> tuple[int, dict[str, Any]]:
        token = sign_order(order, key or self.key, now or datetime.now(UTC))
        async with self.http.post(f"{self.url}/v1/grants", json={"order": token}) as answer:
            return answer.status, await answer.json()

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, str]:
        token = sign_call(method, path, self.key, datetime.now(UTC), "alice")
        headers = {"Authorization": f"Bearer {token}"}
        async with self.http.request(method, self.url + path, headers=headers, **options) as answer:
            return answer.status, await answer.text()

    async def json(self, method: str, path: str, **options: Any) -> tuple[int, dict[str, Any]]:
        status, text = await self.call(method, path, **options)
        return status, json.loads(text)

    async def events(self, after: str = "", **params: Any) -> list[dict[str, Any]]:
        status, text = await self.call("GET", "/v1/events", params={"after": after, "wait": 0, **params})
        assert status == 200, text
        return [json.loads(line) for line in text.splitlines()]

    async def grant(self, **change: Any) -> dict[str, Any]:
        status, body = await self.post(self.order(**change))
        assert status == 201, body
        return body


class World:
    """A state folder that brokers may be started on, one after another."""

    def __init__(self, root: Path, database: str | None = None) -> None:
        self.settings = Settings(
            state=root / "state", policies=root / "policies", database=database, public_host="airlock.test"
        )
        self.settings.policies.mkdir()
        self.write_policy(POLICY)
        self.key = Ed25519PrivateKey.generate()
        self.settings.order_key_path.parent.mkdir(parents=True)
        self.settings.order_key_path.write_bytes(public_pem(self.key.public_key()))
        self.endpoints = PretendEndpoints()
        self.leases = PretendLeases()

    def write_policy(self, text: str) -> None:
        (self.settings.policies / "all.yaml").write_text(text)

    def make(self, clock: SystemClock | None = None, disk: Disk | None = None, segment: int = SEGMENT_BYTES) -> Process:
        offer: Any = PretendOffer()
        leases: Any = self.leases
        outside = Outside({"pretend": offer}, {"pretend": 7001}, leases, self.endpoints)
        return Process(self.settings, lambda _p, _c: outside, clock=clock, disk=disk, segment_bytes=segment)

    @asynccontextmanager
    async def serve(self, process: Process) -> AsyncIterator[Bot]:
        """Serve a broker's API while the block runs."""
        services = Services(
            process.key,
            process.desk,
            process.book,
            process.tickets,
            process.feed,
            process.recordings,
            process.monitor,
            process.holds,
            process.shapes,
        )
        runner = web.AppRunner(make_app(services), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        try:
            async with aiohttp.ClientSession() as http:
                yield Bot(self.key, f"http://{host}:{port}", http)
        finally:
            process.feed.close()
            await runner.cleanup()

    @asynccontextmanager
    async def broker(self, **options: Any) -> AsyncIterator[tuple[Process, Bot]]:
        """Run a broker while the block runs."""
        process = self.make(**options)
        await process.start()
        try:
            async with self.serve(process) as bot:
                yield process, bot
        finally:
            await process.stop()


def facts_of(process: Process, grant: dict[str, Any]) -> GrantFacts:
    """What sessions of an active grant know of it."""
    active = process.live.active(grant["id"])
    assert active is not None
    return active.facts


class Times:
    """Clocks that tests set: the wall may be stepped, the boot clock only goes on."""

    def __init__(self) -> None:
        self.wall = datetime.now(UTC).timestamp()
        self.boot = 1000.0

    def clock(self) -> SystemClock:
        return SystemClock(lambda: self.wall, lambda: self.boot)

    def passed(self, span: timedelta) -> None:
        self.wall += span.total_seconds()
        self.boot += span.total_seconds()

    def step(self, span: timedelta) -> None:
        self.wall += span.total_seconds()


async def until(condition: Any, patience: float = 20.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(patience):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
