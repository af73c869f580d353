"""Upstream connections that are authenticated ahead of need, where a role's `spares` allows it and sessions share it.

A spare is logged in with exactly what its next session would log in with, under the id that this session will have. It
has run the login's own queries and nothing else, and nobody can send to it before it is a session's: so it has no
lease, for a server ends an idle connection as its socket closes, whether the broker closes it or dies. From when it is
taken it is a session like every other, whose lease names its process and is synced before the client is let in.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from broker.errors import AirlockError, Misconfigured
from broker.protocols.postgres import pins
from broker.protocols.postgres.identity import session_id
from broker.protocols.postgres.login import LoggedIn
from broker.protocols.postgres.upstream import Upstream
from broker.sessions.ports import Broker, Endpoint

MAX_AGE = 60.0
"""How long a spare waits: that late a change of the role at its upstream (its login, its settings) may count."""
WAITS_MS = "75000"
IDLE_SECONDS = 300.0
"""How long after the last session of their kind spares are still replaced."""
QUIET_SECONDS = 5.0
"""How long nothing is tried after a login that failed."""
SWEEP_SECONDS = 0.5
MOST = 50
_log = structlog.get_logger("spares")


@dataclass(frozen=True, slots=True)
class Kind:
    """Everything that a session's login depends on, but the moment; `until` is the latest end that its grant can have.

    One grant's alone: what is armed at the login counts again after a RESET ALL, later by a spare's age at most.
    """

    grant: str
    resource: str
    role: str
    endpoint: Endpoint
    settings: tuple[tuple[str, str], ...]
    search_path: tuple[str, ...]
    path: tuple[str, ...] | None
    """The search path that it begins with, where that is not the one that is pinned."""
    read_only: bool
    clear: bool
    until: datetime

    @property
    def home(self) -> tuple[str, ...]:
        """The search path that a session begins with, and that RESET goes back to."""
        return self.search_path if self.path is None else self.path


@dataclass(slots=True)
class Spare:
    """One connection; `policy` is the hash under which it was made."""

    session: str
    upstream: Upstream
    logged_in: LoggedIn
    policy: str
    made_at: float

    def sound(self, policy: str) -> bool:
        """Say whether it is as it was made: open, young, and told nothing since."""
        stream = self.upstream.stream
        young = time.monotonic() - self.made_at < MAX_AGE
        return young and self.policy == policy and stream is not None and not stream.gone and not stream.waiting


@dataclass(slots=True)
class _Shelf:
    pinned: dict[str, str]
    policy: str
    """The hash of the policy under which a session last needed it: another one may give no such session."""
    needed_at: float
    ready: list[Spare] = field(default_factory=list)
    making: set[asyncio.Task[None]] = field(default_factory=set)
    quiet_until: float = 0.0


class Crowding:
    """Has every process of a broker close what waits at a server that has no connection left."""

    def __init__(self) -> None:
        self.tell: Callable[[str, int], None] | None = None

    def note(self, host: str, port: int) -> bool:
        """Say whether there are others, who do so as they hear of it."""
        if self.tell is None:
            return False
        self.tell(host, port)
        return True


class Spares:
    """All that wait; that there is none is never an error, a session then opens a connection of its own."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._shelves: dict[Kind, _Shelf] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def take(self, kind: Kind) -> Spare | None:
        """Give a spare of a kind away, the oldest first, where there is a sound one."""
        shelf = self._shelves.get(kind)
        while shelf is not None and shelf.ready:
            spare = shelf.ready.pop(0)
            if spare.sound(self._broker.policies.hash):
                return spare
            spare.upstream.abort()
        return None

    def need(self, kind: Kind, pinned: dict[str, str]) -> None:
        """Have spares ready for the next session of a kind; `pinned` is what this one logged in with."""
        most = self._wanted(kind)
        if not most:
            return
        shelf = self._shelves.get(kind)
        if shelf is None:
            shelf = self._shelves[kind] = _Shelf(pinned, "", 0.0)
        shelf.pinned, shelf.policy, shelf.needed_at = pinned, self._broker.policies.hash, time.monotonic()
        self._fill(kind, shelf, most)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def make_room(self, host: str, port: int) -> bool:
        """Close what waits at a server that has no connection left; returns whether anything did."""
        found = False
        for kind, shelf in self._shelves.items():
            if (kind.endpoint.host, kind.endpoint.port) == (host, port):
                found = found or bool(shelf.ready)
                _empty(shelf)
                shelf.quiet_until = time.monotonic() + QUIET_SECONDS
        return found

    def close(self) -> None:
        """Close all of them, for good."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for shelf in self._shelves.values():
            _empty(shelf)
            for task in shelf.making:
                task.cancel()
        self._shelves.clear()

    def _wanted(self, kind: Kind) -> int:
        """Say how many the policy has of a kind whose grant is open."""
        resource = self._broker.policies.current.resources.get(kind.resource)
        role = resource.roles.get(kind.role) if resource is not None else None
        if self._closed or role is None or kind.endpoint.provisioner is not None or kind.path is not None:
            # Whether a path may be begun with is asked for each session.
            return 0
        return role.spares if role.spares and self._broker.live.granted(kind.grant) else 0

    def _most(self, kind: Kind) -> int:
        """Say how many there may be of a kind now: none with another credential than the role's is by now."""
        most = self._wanted(kind)
        try:
            return most if most and self._broker.endpoints.of(kind.resource, kind.role) == kind.endpoint else 0
        except (Misconfigured, KeyError):
            return 0

    def _fill(self, kind: Kind, shelf: _Shelf, most: int) -> None:
        if time.monotonic() < shelf.quiet_until:
            return
        wanted = most - len(shelf.ready) - len(shelf.making)
        room = MOST - sum(len(one.ready) + len(one.making) for one in self._shelves.values())
        for _ in range(min(wanted, room)):
            task = asyncio.get_running_loop().create_task(self._make(kind, shelf), name="spare")
            shelf.making.add(task)
            task.add_done_callback(shelf.making.discard)

    async def _make(self, kind: Kind, shelf: _Shelf) -> None:
        policy, session, upstream = self._broker.policies.hash, session_id(), Upstream(kind.endpoint)
        kept = False
        try:
            left = pins.remaining(kind.until, self._broker.clock.now())
            pinned = {name: pins.armed(left) if name in pins.ARMED else each for name, each in shelf.pinned.items()}
            pinned["application_name"] = f"airlock:{session}"
            asked = dict(kind.settings)
            pinned = pins.narrowed(pinned, asked)
            # Should this process stand still, the server ends what waits for too long by itself (from 14 on).
            waits = {name: WAITS_MS for name in ("idle_session_timeout",) if name in pinned}
            logged_in = await upstream.open(asked, pinned, waits=waits)
            still = self._shelves.get(kind) is shelf and shelf.policy == policy
            if kept := still and bool(self._most(kind)):
                shelf.ready.append(Spare(session, upstream, logged_in, policy, time.monotonic()))
        except AirlockError as error:
            shelf.quiet_until = time.monotonic() + QUIET_SECONDS
            _log.info("no spare connection", resource=kind.resource, error=str(error))
        finally:
            if not kept:
                upstream.abort()

    def _sweep(self) -> None:
        """Throw away what must not wait any more, and replace it while there is need."""
        for kind, shelf in list(self._shelves.items()):
            policy = self._broker.policies.hash
            needed = shelf.policy == policy and time.monotonic() - shelf.needed_at < IDLE_SECONDS
            most = self._most(kind) if needed else 0
            for spare in [one for one in shelf.ready if not one.sound(policy)] + shelf.ready[most:]:
                spare.upstream.abort()
            shelf.ready = [one for one in shelf.ready[:most] if one.sound(policy)]
            if most:
                self._fill(kind, shelf, most)
            elif not shelf.making:
                del self._shelves[kind]
        again = bool(self._shelves) and not self._closed
        self._timer = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep) if again else None


def _empty(shelf: _Shelf) -> None:
    for spare in shelf.ready:
        spare.upstream.abort()
    shelf.ready.clear()
