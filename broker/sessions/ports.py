"""Ports: what a protocol is given by the broker, and what a protocol offers to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from broker.sessions.findings import Finding
from broker.sessions.holds import Estimate, Hold, HoldFacts, Sought
from broker.sessions.model import CloseReason, Entry, GrantFacts, Killed, Lease, SessionFacts, Source, TicketFacts
from broker.sessions.shapes import ShapeRule
from policies.engine.decisions import Requirement
from policies.engine.model import Policy

if TYPE_CHECKING:
    from broker.core.lane import Journal


class Clock(Protocol):
    def now(self) -> datetime:
        """Return the time in UTC."""
        ...

    def seconds(self) -> float:
        """Return the same moment in seconds of the epoch."""
        ...


class Policies(Protocol):
    @property
    def current(self) -> Policy:
        """The last policy that loaded."""
        ...

    @property
    def hash(self) -> str:
        """Its hash, computed once."""
        ...


class Tickets(Protocol):
    async def find(self, user: str) -> TicketFacts | None:
        """Return the ticket a user name belongs to, also where it opens nothing any more; None is unknown."""
        ...

    async def used(self, ticket: TicketFacts) -> GrantFacts | None:
        """Mark a ticket as delivered, after its holder proved it; the grant as it is now, or None if it is over."""
        ...

    async def over(self, ticket: TicketFacts) -> str:
        """Say why a ticket that was proved opens nothing any more."""
        ...


class Recorder(Protocol):
    def write(self, entry: Entry, *, lazy: bool = False) -> Awaitable[None]:
        """Write a record now; what it returns completes when it is synced. Both may raise RecordingFailed.

        A lazy record is synced within 50 ms, so that many share one sync, and what it returns; others at once.
        """
        ...

    def write_all(self, entries: Sequence[Entry], *, lazy: bool = False) -> Awaitable[None]:
        """Write records of one grant now, all or none."""
        ...

    def journal(self) -> Journal:
        """Return what takes the lazy records of the compiled core's lanes; raises RecordingFailed."""
        ...


class LiveSession(Protocol):
    """An open session as the rest of the broker sees it."""

    @property
    def facts(self) -> SessionFacts: ...

    async def extend(self, until: datetime) -> None:
        """Let the session live until a later time, once its lease says so; one that is ending goes on ending."""
        ...

    async def end(self, reason: CloseReason) -> bool:
        """Cut the session and return whether its upstream work is verified gone; ending twice awaits the first."""
        ...

    async def cancel(self) -> None:
        """Cancel what the session runs, or waits for, as its client asked."""
        ...


class LiveSessions(Protocol):
    def add(self, session: LiveSession) -> bool:
        """Register a session before its upstream is dialled; False where its grant is over or the broker is full."""
        ...

    def granted(self, grant: str) -> bool:
        """Say whether sessions may open under a grant."""
        ...

    def remove(self, session: LiveSession) -> None:
        """Forget a session whose end is recorded."""
        ...

    async def cancel(self, session: str) -> None:
        """Cancel what a session runs, wherever in the broker it is; nothing where it is over."""
        ...


class Leases(Protocol):
    def reaper_alive(self) -> bool:
        """Say whether a reaper watches these leases; no session opens without (fail closed)."""
        ...

    def write(self, lease: Lease) -> Awaitable[None]:
        """Write a lease, or what is newly known of it; what it returns completes when that is synced to disk."""
        ...

    async def close(self, session: str) -> bool:
        """Say that a session's upstream work is verified gone; False where the reaper has, and recorded the end."""
        ...

    def sessions(self) -> frozenset[str]:
        """Return the sessions that are not verified gone, also those that earlier brokers left behind."""
        ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and as whom a role's upstream is reached; `password` is never shown."""

    host: str
    port: int
    database: str
    user: str
    password: str
    tls: str
    ca: Path | None
    source: Source
    """What it was resolved from."""
    provisioner: Endpoint | None = None
    """The same upstream, as who makes a role for each session; None where sessions share this one."""

    def __repr__(self) -> str:
        return f"Endpoint({self.user}@{self.host}:{self.port}/{self.database})"


class Endpoints(Protocol):
    def of(self, resource: str, role: str) -> Endpoint:
        """Resolve a role's upstream and credential references; raises Misconfigured."""
        ...


class Holds(Protocol):
    def open(self, facts: HoldFacts) -> Hold:
        """Have a statement reviewed; raises RecordingFailed, as may what the hold's futures complete with."""
        ...

    def estimated(self, hold: str, estimate: Estimate) -> None:
        """Add what the upstream says of a held statement to what its reviewers see."""
        ...

    def use(self, hold: str, requirement: Requirement | None) -> bool:
        """Use up an approval, once; False where it is over, or does not meet what policy demands by now."""
        ...

    def match(self, sought: Sought) -> ShapeRule | None:
        """Return the rule that lets a statement pass because its shape was approved; None where it must be reviewed."""
        ...

    def drop(self, hold: str, reason: str) -> None:
        """Abandon a hold; one that is over already stays what it is."""
        ...

    def leave(self, session: str, reason: str) -> None:
        """Abandon every hold that a session which is over waits for."""
        ...


class Common(Protocol):
    """What all processes of a broker share of a protocol."""

    def heard(self, tell: Callable[..., None]) -> None:
        """Have what one process says reach the others: `tell` calls what each has under `Broker.told`."""
        ...

    def leave(self, sessions: frozenset[str]) -> None:
        """Let go of what is kept of sessions whose process has died."""
        ...


class Door(Protocol):
    """Where a protocol's connections come in, in place of a port of its own: another process listens."""

    def serve(self, name: str, handler: Callable[[Any, str, Any], Awaitable[None]]) -> None:
        """Have a protocol's connections served, each with its socket, its peer's address and its place (`Known`)."""
        ...

    async def close(self) -> None:
        """Take nothing more, and drop connections that are still being set up."""
        ...


@dataclass(frozen=True, slots=True)
class Broker:
    """Everything a protocol's listener is given."""

    clock: Clock
    policies: Policies
    tickets: Tickets
    recorder: Recorder
    live: LiveSessions
    leases: Leases
    endpoints: Endpoints
    holds: Holds
    home: Path
    """A folder of the broker's own, for certificates and the like."""
    common: Mapping[str, Any] = field(default_factory=dict)
    """By protocol what its processes share, where there are several (`Offer.common`)."""
    door: Door | None = None
    """Where connections come in, where this process does not listen itself."""
    told: dict[str, Callable[..., object]] = field(default_factory=dict)
    """By protocol what is called when another process has said something (`Common.heard`)."""


@dataclass(frozen=True, slots=True)
class TicketLine:
    """How a ticket is shown to an engineer: a line to paste, and the same as fields."""

    line: str
    fields: dict[str, str]


class Listener(Protocol):
    @property
    def port(self) -> int: ...

    async def close(self) -> None:
        """Stop accepting; live sessions are ended by their owner."""
        ...


class Offer(Protocol):
    """What a protocol's folder exports as `OFFER`."""

    name: str
    default_port: int

    async def listen(self, broker: Broker, host: str, port: int) -> Listener:
        """Serve clients; where the broker has a door, what comes in there."""
        ...

    def common(self) -> Common:
        """Make what all processes of a broker share of this protocol: each calls its methods, with plain values."""
        ...

    def ticket_line(self, resource: str, user: str, password: str, host: str, port: int) -> TicketLine:
        """Write a ticket as something to paste into a shell."""
        ...

    async def kill(self, lease: Lease, endpoint: Endpoint) -> Killed:
        """End a session's upstream work, and its role where it had one, and return whether it is verified gone."""
        ...

    async def preview(
        self,
        policy: Policy,
        person: str,
        resource: str,
        role: str,
        text: str,
        endpoint: Endpoint,
        now: datetime | None = None,
        rows: int | None = None,
    ) -> dict[str, Any]:
        """Say what would happen to a statement at a moment and why, without running it.

        `rows` stands for what the upstream's planner would expect, where a rule asks about that.
        """
        ...

    async def examine(self, policy: Policy, resource: str, role: str, endpoint: Endpoint) -> list[Finding]:
        """Say what is right and wrong with a role at its upstream, and what mends it."""
        ...

    def provision(self, policy: Policy, resource: str, users: Mapping[str, str], maker: str, version: int) -> list[str]:
        """Write what an administrator runs to make good roles, called as `users` says, on a server's major version.

        `maker` is called who makes a role for each session, where one of the roles wants that.
        """
        ...
