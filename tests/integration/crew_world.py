"""A broker whose workers are ends of sockets that a test holds, over a protocol whose upstreams answer when told to."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from broker.adapters import burial
from broker.adapters.crew import Crew
from broker.adapters.leases import LeaseFile
from broker.adapters.process import Process
from broker.adapters.seats import Worker
from broker.adapters.verify import verify
from broker.sessions.holds import Asked, HoldFacts
from broker.sessions.model import Entry, GrantFacts, Killed, Lease, SessionFacts, Source
from broker.transport.channel import Channel
from policies.engine.decisions import Need, Requirement
from tests.integration.broker import Bot, PretendOffer, World, facts_of, until

SOURCE = Source("127.0.0.1", 5432, "shop", "disable", "someone:invented")


class Shared:
    """What a pretended protocol's processes share."""

    def __init__(self) -> None:
        self.left: set[str] = set()

    def heard(self, tell: Any) -> None:
        self.tell = tell

    def leave(self, sessions: frozenset[str]) -> None:
        self.left |= sessions


class KillingOffer(PretendOffer):
    """Whether upstreams answer is for tests to say."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.answers.set()
        self.shared = Shared()
        self.killed: list[str] = []

    def common(self) -> Shared:
        return self.shared

    async def kill(self, lease: Lease, endpoint: object) -> Killed:
        self.killed.append(lease.session)
        return Killed(verified=self.answers.is_set())


class End:
    """A worker's end, which keeps what it is told and does nothing of it."""

    def __init__(self, connection: socket.socket, over: socket.socket) -> None:
        self.told: list[tuple[str, tuple[Any, ...]]] = []
        self.does: dict[str, Any] = {}
        self.over = over
        self.socket = connection
        self.channel = Channel(connection, self._asked, lambda: None)

    def _asked(self, method: str, arguments: tuple[Any, ...]) -> Any:
        self.told.append((method, arguments))
        return self.does[method](*arguments) if method in self.does else True

    def heard(self, method: str) -> list[Any]:
        return [arguments[0] for name, arguments in self.told if name == method]

    def die(self) -> None:
        self.over.close()
        self.channel.close()


class Hands:
    """A crew of ends; each starts once `may_start` is set."""

    def __init__(self, world: World, process: Process, bot: Bot, offer: KillingOffer) -> None:
        self.world, self.process, self.bot, self.offer = world, process, bot, offer
        self.crew = Crew(process, 2)
        self.ends: list[End] = []
        self.may_start = asyncio.Event()
        self.may_start.set()
        self.leases = process.outside.leases

    async def start(self, worker: Worker) -> None:
        theirs, over = worker._given
        self.ends.append(End(theirs, over))
        worker.channel.cast("begin", self.process.policies.current, 0.0, 0.0)
        await self.may_start.wait()

    async def session(
        self, grant: GrantFacts, *, lease: bool = True, opened: bool = True, pid: int | None = 7
    ) -> SessionFacts:
        """A session of the first end's."""
        facts = SessionFacts(f"s{len(self.process.live.sessions(grant.id))}{grant.id[-4:]}", "t1", grant)
        assert await self.ends[0].channel.call("live.add", facts)
        if lease:
            values = (facts.id, grant.id, "pretend", grant.resource, grant.role, grant.expires_at, 1, 0, SOURCE)
            await self.ends[0].channel.call("leases.write", Lease(*values, pid, 1))
        if opened:
            await self.process.recorder.write(Entry("session.opened", grant.id, facts.id, {"person": "alice"}))
        return facts

    async def granted(self) -> GrantFacts:
        return facts_of(self.process, await self.bot.grant())

    def recorded(self, grant: GrantFacts) -> list[tuple[str, dict[str, Any]]]:
        text = (self.world.settings.home / "recordings" / f"{grant.id}.ndjson").read_text()
        return [(one["type"], one["data"]) for one in map(json.loads, text.splitlines())]

    async def said(self, session: SessionFacts) -> list[tuple[str, bool | None]]:
        events = [event for event in await self.bot.events() if event["session"] == session.id]
        return [(one["type"], one["data"].get("verified")) for one in events]


def held(session: SessionFacts, statement: str, *, waits: bool = True) -> HoldFacts:
    needed = Requirement((Need(1, ("dbas",)),))
    return HoldFacts(session, statement, Asked("delete from t"), needed, ("asked",), 600.0, 1, waits=waits)


@asynccontextmanager
async def hands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hands]:
    monkeypatch.setattr(burial, "RETRY_SECONDS", 0.02)
    world, offer = World(tmp_path), KillingOffer()
    leases: Any = LeaseFile(world.settings.home)
    world.leases = leases
    process = world.make()
    offers: Any = process.outside.offers
    offers["pretend"] = offer
    await process.start()
    try:
        async with world.serve(process) as bot:
            found = Hands(world, process, bot, offer)
            monkeypatch.setattr(Worker, "start", lambda worker: found.start(worker))
            await found.crew._start(1)
            yield found
            await found.process.end_sessions()
            await found.crew.stop()
    finally:
        await process.stop()
        leases.release()
    assert verify(world.settings.state).good


async def begun(found: Hands) -> asyncio.Task[None]:
    """A second worker's start, which waits for `may_start`."""
    found.may_start.clear()
    starting = asyncio.create_task(found.crew._start(2))
    await until(lambda: len(found.ends) == 2)
    return starting
