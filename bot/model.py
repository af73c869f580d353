"""What the bot knows of requests, reviews and grants; frozen values, read from rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from policies.engine.decisions import Requirement
from workflows.grants import LIVE, GrantState
from workflows.holds import HoldState
from workflows.orders import Evidence
from workflows.requests import RequestState
from workflows.reviews import Answer, Review
from workflows.shapes import ShapeState
from workflows.terms import Terms


@dataclass(frozen=True, slots=True)
class Request:
    """An access request; `token` is what its buttons carry, `id` is what people see.

    `role` and `seconds` are what was asked for; an extension's seconds come on top of what its grant has.
    """

    id: str
    token: str
    state: RequestState
    requester: str
    account: str
    """The requester's id on the chat platform."""
    resource: str
    role: str
    seconds: int
    reason: str
    requirement: Requirement
    rules: tuple[str, ...]
    policy_hash: str
    asked_at: datetime
    expires_at: datetime
    asked_in: str
    evidence: Evidence
    order: str | None = None
    decided_at: datetime | None = None
    decided_by: str | None = None
    answer: str | None = None
    """The reason of a denial, or of taking it back."""
    note: str | None = None
    """What the broker said, where it keeps the request waiting."""
    narrowed: Terms | None = None
    """What its reviewers have agreed on so far, where that is less than what was asked for."""
    extends: str | None = None
    """The grant whose end is to move."""
    until: datetime | None = None
    """The end that an extension has brought."""

    @property
    def asked(self) -> Terms:
        return Terms(self.role, self.seconds)

    @property
    def terms(self) -> Terms:
        """What is given, by the reviews so far."""
        return self.narrowed or self.asked


@dataclass(frozen=True, slots=True)
class Given:
    """A review as it was given."""

    person: str
    account: str
    answer: Answer
    reason: str
    at: datetime
    evidence: Evidence
    terms: Terms | None = None
    """What was approved, where it is less than what was asked for."""
    shape: str | None = None
    """Of a held statement: the digest of the shape that was approved with it."""

    def review(self) -> Review:
        return Review(self.person, self.answer, self.terms)


def approvers(given: Sequence[Given]) -> list[str]:
    """Return who approved."""
    return [one.person for one in given if one.answer is Answer.APPROVE]


@dataclass(frozen=True, slots=True)
class Grant:
    """A projection of the broker's grant, moved by its events only."""

    id: str
    token: str
    request: str
    person: str
    account: str
    resource: str
    role: str
    state: GrantState
    opened_at: datetime
    expires_at: datetime
    reason: str = ""
    """What it was asked for."""
    ended_by: str | None = None
    ended_because: str | None = None
    """The reason that whoever ended it gave."""
    closed_at: datetime | None = None
    sessions: int = 0
    open_sessions: int = 0
    statements: int = 0
    denied: int = 0
    """Everything that was not passed on, mistyped statements among it."""
    mistyped: int = 0
    """What the resource itself would have refused."""
    refused: int = 0
    refusal: str = ""
    """Why a connection was refused last, and where it came from."""
    refused_at: datetime | None = None
    masked: tuple[str, ...] = ()
    verified: bool | None = None
    recording: str | None = None
    """The hash of the recording's last line."""
    down_since: datetime | None = None
    """When the resource was first heard not to answer; None once a session has opened again."""

    @property
    def live(self) -> bool:
        return self.state in LIVE

    @property
    def blocked(self) -> int:
        return max(self.denied - self.mistyped, 0)


class Exhibit(StrEnum):
    """Where all of a held statement can be read; what is nowhere shown whole cannot be approved."""

    NOWHERE = "nowhere"
    """Not yet."""
    CARD = "card"
    FILE = "file"
    FORM = "form"
    """Behind Review, for those who may answer."""
    IMPOSSIBLE = "impossible"


@dataclass(frozen=True, slots=True)
class Hold:
    """A projection of the broker's hold, moved by its events only; the statement itself is not kept here."""

    id: str
    token: str
    grant: str
    session: str
    digest: str
    state: HoldState
    requirement: Requirement
    rules: tuple[str, ...]
    effects: tuple[str, ...]
    relations: tuple[str, ...]
    opened_at: datetime
    expires_at: datetime
    exhibit: Exhibit = Exhibit.NOWHERE
    people: tuple[str, ...] = ()
    """Who approved or denied it, as the broker says."""
    reason: str | None = None
    """Of a denial; or why nobody waits any more; or why what ran is not kept."""
    answered: HoldState | None = None
    """What the broker made of the reviews, before its event says so."""
    note: str | None = None
    """What the broker said, where it took no answer."""

    @property
    def readable(self) -> bool:
        return self.exhibit in (Exhibit.CARD, Exhibit.FILE, Exhibit.FORM)


@dataclass(frozen=True, slots=True)
class Shape:
    """A projection of an approved shape, a rule of its grant until that ends; its text is not kept here."""

    id: str
    token: str
    grant: str
    hold: str
    state: ShapeState
    people: tuple[str, ...]
    approved_at: datetime
    most: int | None = None
    withdrawn_by: str | None = None
    runs: int = 0
    """Statements that passed by it."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A message that is edited in place: where it is, which version is wanted and which one people see."""

    key: str
    channel: str | None = None
    ts: str | None = None
    wanted: int = 0
    shown: int = 0
