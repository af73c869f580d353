"""The broker's services made and joined: everything but the protocols, the API and the sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from broker.adapters.callers import OrderKey
from broker.adapters.clock import SystemClock
from broker.adapters.disk import Disk
from broker.adapters.endings import GrantBook
from broker.adapters.eventlog import SEGMENT_BYTES, EventLog
from broker.adapters.feed import Feed
from broker.adapters.holds import HoldDesk
from broker.adapters.live import Live
from broker.adapters.metrics import Metrics
from broker.adapters.orders import OrderDesk
from broker.adapters.policies import PolicyFiles
from broker.adapters.recorder import FileRecorder
from broker.adapters.recordings import FileRecordings
from broker.adapters.recovery import recover, survivors
from broker.adapters.shapes import ShapeBook
from broker.adapters.store import Store
from broker.adapters.tables import MIGRATIONS
from broker.adapters.tickets import Tickets
from broker.config import Settings
from broker.sessions.ports import Endpoints, Leases, Offer
from workflows.storage.engine import make_engine, sqlite_url
from workflows.storage.migrate import upgrade

STREAM = "broker"
SURVIVOR_PATIENCE = 3.0
_log = structlog.get_logger("broker")


@dataclass(frozen=True, slots=True)
class Outside:
    """What the services are given: protocols with the ports they listen on, leases, endpoints; tests give others."""

    offers: Mapping[str, Offer]
    ports: Mapping[str, int]
    leases: Leases
    endpoints: Endpoints


class Process:
    """Every service of a running broker; making it needs a running loop and raises what keeps it from starting."""

    def __init__(
        self,
        settings: Settings,
        outside: Callable[[PolicyFiles, SystemClock], Outside],
        *,
        clock: SystemClock | None = None,
        disk: Disk | None = None,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        home = settings.home
        home.mkdir(parents=True, exist_ok=True)
        home.chmod(0o700)
        self.settings = settings
        self.clock = clock or SystemClock()
        self.metrics = Metrics()
        self.policies = PolicyFiles(settings.policies)
        self.log = EventLog(home, STREAM, self.clock, disk=disk, segment_bytes=segment_bytes)
        self.outside = outside(self.policies, self.clock)
        self.recorder = FileRecorder(home, self.log, self.clock, self.metrics, disk)
        self.engine = make_engine(database_url(settings))
        self.store = Store(self.engine)
        self.live = Live(self.clock, self.metrics, settings.max_sessions)
        self.key = OrderKey(settings.order_key_path, self.clock)
        self.shapes = ShapeBook(self.store, self.recorder, self.clock, self.policies)
        self.holds = HoldDesk(self.key, self.recorder, self.clock, self.policies, self.shapes)
        self.desk = OrderDesk(
            self.key,
            self.store,
            self.recorder,
            self.clock,
            self.live,
            self.policies,
            self.outside.endpoints,
            self.outside.offers,
            self.metrics,
            self.holds.extend,
        )
        self.book = GrantBook(self.store, self.recorder, self.clock, self.live, self.policies, self.holds.end)
        self.tickets = Tickets(
            self.store,
            self.recorder,
            self.clock,
            self.live,
            self.policies,
            self.outside.offers,
            self.outside.ports,
            settings.public_host,
        )
        self.feed = Feed(self.log)
        self.recordings = FileRecordings(home, self.recorder)
        self.monitor = Health(self.log, self.outside.leases, self.metrics)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Bring the database up to date, settle what the last broker left, and begin to watch."""
        await upgrade(self.engine, MIGRATIONS)
        await self.tickets.load()
        await self.policies.attach(self.recorder, self.book.reconsider)
        left = await survivors(self.settings.home, SURVIVOR_PATIENCE)
        if left.open:
            _log.error("sessions of an earlier broker are not gone yet", sessions=sorted(left.open))
        await recover(self.store, self.recorder, self.clock, self.live, self.desk, self.book, left, self.shapes)
        await self.book.reconsider()
        self._tasks = [
            asyncio.create_task(_for_ever("grants", self.book.watch)),
            asyncio.create_task(_for_ever("policies", self.policies.poll)),
        ]

    async def end_sessions(self) -> None:
        """End live sessions, and let none open."""
        if not await self.live.stop(patience=5.0):
            _log.warning("not every session was verified gone; the reaper goes on with them")

    async def stop(self) -> None:
        """End live sessions, finish what is under way, and put everything on disk."""
        self.feed.close()
        await self.end_sessions()
        for task in self._tasks:
            task.cancel()
        await self.book.stop(patience=5.0)
        await self.holds.stop()
        await asyncio.to_thread(self.log.close)
        await self.engine.dispose()


class Health:
    """Implements Monitor."""

    def __init__(self, log: EventLog, leases: Leases, metrics: Metrics) -> None:
        self._log = log
        self._leases = leases
        self._metrics = metrics
        self._watched: list[Callable[[], list[str]]] = []

    def watch(self, unready: Callable[[], list[str]]) -> None:
        """Ask somebody else, too, what keeps the broker from doing its work."""
        self._watched.append(unready)

    def unready(self) -> list[str]:
        """Say what keeps the broker from doing its work; nothing is ready."""
        reasons = []
        if self._log.failure is not None:
            reasons.append(f"nothing can be recorded: {self._log.failure}")
        if not self._leases.reaper_alive():
            reasons.append("no reaper watches the sessions, so none opens")
        return reasons + [reason for ask in self._watched for reason in ask()]

    def metrics(self) -> bytes:
        """Return the metrics' text exposition."""
        return self._metrics.render()

    def called(self, route: str, status: int) -> None:
        """Count a call."""
        self._metrics.calls.labels(route, str(status)).inc()


def database_url(settings: Settings) -> str:
    """Return the URL of the broker's database, by default a SQLite file of its own."""
    return settings.database or sqlite_url(Path(settings.home / "broker.sqlite"))


async def _for_ever(name: str, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
        except Exception as error:  # noqa: BLE001  what watches must outlive what it stumbles over
            _log.error("a watch stumbled", watch=name, error=f"{type(error).__name__}: {error}")
        await asyncio.sleep(1)
