"""What the sessions of this protocol share, and the words with which they open and end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from broker.protocols.postgres import codec, pins
from broker.protocols.postgres.admin import Admins
from broker.protocols.postgres.cancel import CancelKeys
from broker.protocols.postgres.identities import Swept
from broker.protocols.postgres.inspector import Inspector
from broker.protocols.postgres.login import LoggedIn
from broker.protocols.postgres.memory import Memory
from broker.protocols.postgres.naming import Changes, KnownNames
from broker.protocols.postgres.rationing import Rations
from broker.protocols.postgres.replies import Problem, passes_status
from broker.protocols.postgres.ruling import access_line
from broker.protocols.postgres.scribe import Notes
from broker.protocols.postgres.spares import Crowding, Kind, Spares
from broker.protocols.postgres.startup import CancelKey, Startup
from broker.sessions.model import CloseReason, GrantFacts
from broker.sessions.ports import Broker, Endpoint
from broker.sql.paths import settable
from policies.engine.decide import field_view, terms_of
from policies.engine.decisions import all_clear

if TYPE_CHECKING:
    from broker.protocols.postgres.proxy import Session


class SessionRefused(Exception):
    """no session opens; `problem` is what the client is told"""

    def __init__(self, problem: Problem, reason: str) -> None:
        super().__init__(reason)
        self.problem = problem
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Terms:
    """What policy says of a person's role, as sessions need it: `again` is the line that asks for another."""

    again: str
    longest: timedelta
    read_only: bool
    clear: bool
    """Nothing is masked for the person."""


@dataclass(frozen=True, slots=True)
class Common:
    """What every process of a broker shares of this protocol; one of them has it, and the others call it."""

    keys: CancelKeys = field(default_factory=CancelKeys)
    rations: Rations = field(default_factory=Rations)
    swept: Swept = field(default_factory=Swept)
    names: KnownNames = field(default_factory=KnownNames)
    changes: Changes = field(default_factory=Changes)
    crowding: Crowding = field(default_factory=Crowding)

    def heard(self, tell: Callable[..., None]) -> None:
        """Have what one process says reach the others."""
        self.changes.tell, self.crowding.tell = partial(tell, "changed"), partial(tell, "full")

    def leave(self, sessions: frozenset[str]) -> None:
        """Let go of what is kept of sessions whose process has died."""
        self.keys.leave(sessions)


@dataclass(slots=True)
class House:
    """What every session of this protocol shares; admin connections stay until the last session is verified gone."""

    broker: Broker
    admins: Admins
    inspector: Inspector
    common: Common
    name: str
    """What tells this broker's roles at an upstream from those of others."""
    notes: Notes = field(default_factory=Notes)
    memory: Memory = field(default_factory=Memory)
    spares: Spares = field(init=False)
    sessions: set[Session] = field(default_factory=set)
    empty: asyncio.Event = field(default_factory=asyncio.Event)
    _terms: dict[tuple[str, str, str], Terms] = field(default_factory=dict)
    _terms_of: str = ""
    """The hash of the policy that they are of."""

    def __post_init__(self) -> None:
        self.spares = Spares(self.broker)

    def kind(self, grant: GrantFacts, endpoint: Endpoint, startup: Startup) -> Kind:
        """Say what a session's login depends on."""
        terms = self.terms(grant)
        path = tuple(self.broker.policies.current.resources[grant.resource].search_path)
        settings = tuple(sorted(startup.settings))
        until = max(grant.expires_at, grant.opened_at + terms.longest)
        own = settable(startup.path) if startup.path is not None else None
        own = own if own != path else None
        whose = (grant.id, grant.resource, grant.role)
        return Kind(*whose, endpoint, settings, path, own, terms.read_only, terms.clear, until)

    def enter(self, session: Session) -> None:
        self.sessions.add(session)
        self.empty.clear()

    def terms(self, grant: GrantFacts) -> Terms:
        """Return what the current policy says."""
        policies = self.broker.policies
        if self._terms_of != policies.hash:
            self._terms_of, self._terms = policies.hash, {}
        who = (grant.person, grant.resource, grant.role)
        found = self._terms.get(who)
        if found is None:
            policy = policies.current
            found = self._terms[who] = Terms(
                access_line(policy, *who),
                terms_of(policy, *who).max_duration,
                pins.never_changes(policy, *who),
                all_clear(field_view(policy, grant.person, grant.resource)),
            )
        return found

    def make_room(self, endpoint: Endpoint) -> bool:
        """Have what waits at a server closed, for it has no connection left; says whether there may be one now."""
        place, resources = (endpoint.host, endpoint.port), self.broker.policies.current.resources.values()
        found = self.spares.make_room(*place)
        if any(role.spares for resource in resources for role in resource.roles.values()):
            found = self.common.crowding.note(*place) or found
        return found

    def leave(self, session: Session) -> None:
        self.sessions.discard(session)
        if not self.sessions:
            self.empty.set()


_AT_FIRST = frozenset({"scram_iterations"})
"""What is told before any statement could have put a value of its own into it, and not again."""


def greeting(key: CancelKey, logged_in: LoggedIn, startup: Startup) -> bytes:
    """Write what a client hears when it is in: the settings it needs, a cancel key of the broker's, readiness."""
    told = logged_in.statuses.items()
    statuses = {name: value for name, value in told if passes_status(name, value) or name in _AT_FIRST}
    statuses |= {
        "application_name": startup.application,
        "is_superuser": "off",
        "session_authorization": startup.user,
    }
    parts = [codec.parameter_status(name, value) for name, value in statuses.items()]
    parts.append(codec.backend_key_data(key.pid, key.secret))
    parts.append(codec.ready_for_query("I"))
    return b"".join(parts)


def words(reason: CloseReason, again: str) -> Problem | None:
    """Word the end of a session; `again` is the line that asks for another."""
    hint = f"ask again: {again}"
    match reason:
        case CloseReason.EXPIRED:
            return Problem("57P01", "the time of this access is over", hint=hint, fatal=True)
        case CloseReason.REVOKED:
            return Problem("57P01", "this access was revoked", hint=hint, fatal=True)
        case CloseReason.ENDED:
            return Problem("57P01", "this access was ended", hint=hint, fatal=True)
        case CloseReason.SHUTDOWN:
            return Problem("57P01", "the broker is stopping", hint="connect again in a moment", fatal=True)
        case CloseReason.CLIENT:
            return None
        case _:
            return Problem("57P01", f"this session was ended ({reason.value})", fatal=True)


def ended_early(again: str) -> Problem:
    return Problem("57P01", "this access was ended", hint=f"ask again: {again}", fatal=True)


def no_reaper() -> Problem:
    hint = "ask an operator of the broker to start its reaper"
    return Problem("57P03", "no session opens, for nothing would end it if the broker died", hint=hint, fatal=True)
