"""What is known of grants, tickets, sessions and statements; frozen values that cross every layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

REPLACED = "this ticket was replaced by a newer one"
"""The refusal of a ticket whose grant is still open: a newer line opens it."""


@dataclass(frozen=True, slots=True)
class GrantFacts:
    """An active grant: who may do what until when."""

    id: str
    request: str
    person: str
    resource: str
    role: str
    expires_at: datetime
    opened_at: datetime


@dataclass(frozen=True, slots=True)
class ScramVerifier:
    """What the broker keeps of a ticket (RFC 5802): enough to check it, not to use it."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes


@dataclass(frozen=True, slots=True)
class TicketFacts:
    """A ticket that could be shown: `user` is `person.shortid`; `refusal` says why it opens nothing any more."""

    id: str
    user: str
    grant: GrantFacts
    verifier: ScramVerifier
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """One client connection under a grant."""

    id: str
    ticket: str
    grant: GrantFacts
    application: str = ""
    address: str = ""


class Durability(StrEnum):
    """How safe a record is before its statement goes on (design: graded)."""

    SYNCED = "synced"
    """On disk before the statement is forwarded: writes, holds, approvals, denials."""
    RESULTS_WAIT = "results_wait"
    """Forwarded at once, results wait for the sync: reads that touch masked fields."""
    WRITTEN = "written"
    """Written before it is forwarded, synced within 50 ms: other reads."""


class Written(NamedTuple):
    """An entry as canonical JSON, by who knows its form: the fields of `data` before `recorded` and behind it."""

    before: str
    """Ends with a comma, where there is anything."""
    behind: str
    detail: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One record: `data` goes to the feed (redacted), `detail` only to the recording (full text, parameters).

    `written` says the same, where whoever made the entry has its JSON at hand.
    """

    type: str
    grant: str | None
    session: str | None
    data: dict[str, Any]
    detail: dict[str, Any] = field(default_factory=dict)
    written: Written | None = field(default=None, compare=False, repr=False)


class CloseReason(StrEnum):
    CLIENT = "client"
    ENDED = "ended"
    EXPIRED = "expired"
    REVOKED = "revoked"
    TRIPWIRE = "tripwire"
    UPSTREAM = "upstream"
    PROTOCOL = "protocol"
    RECORDING = "recording"
    SHUTDOWN = "shutdown"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Source:
    """What policy says of a role's upstream, its `env:` and `file:` references unresolved: there is no secret in it."""

    host: str
    port: int | str
    database: str
    tls: str
    credential: str
    ca: str | None = None


class IdentityEnd(StrEnum):
    """What became of a role that was made for one session."""

    DROPPED = "dropped"
    DISABLED = "disabled"
    """It owns something, so that it cannot be dropped; nobody logs in as it any more."""


@dataclass(frozen=True, slots=True)
class Killed:
    """How a session ended upstream: `verified` where nothing of it is left that works."""

    verified: bool
    identity: IdentityEnd | None = None
    owns: str = ""

    def facts(self) -> dict[str, Any]:
        """Return what an event says of it."""
        return {"verified": self.verified} | ({"identity": self.identity.value} if self.identity else {})


@dataclass(frozen=True, slots=True)
class Lease:
    """What the reaper must know to end a session without broker, database and policy; synced before the startup packet.

    `pid` and `backend_start` (microseconds since the epoch, the upstream's clock) are known only after the upstream has
    answered, as is `local_port`; until then its name does. `identity` is the upstream role that was made for this
    session alone: its processes are the session's, and it goes with them; `source` is then the credential that may end
    it.
    """

    session: str
    grant: str
    protocol: str
    resource: str
    role: str
    expires_at: datetime
    broker_pid: int
    local_port: int
    source: Source
    pid: int | None = None
    backend_start: int | None = None
    identity: str | None = None
