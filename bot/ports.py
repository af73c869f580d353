"""Ports: what the deciding code is given. Everything it changes goes through `Work`, one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from bot.model import Given, Grant, Hold, Request, Shape, Shown
from bot.outgoing import Outgoing
from policies.engine.model import Policy
from workflows.grants import GrantEvent
from workflows.holds import HoldEvent
from workflows.requests import RequestEvent
from workflows.shapes import ShapeEvent
from workflows.wire import GrantView, HoldView, Problem, ShapeView, TicketView


class Clock(Protocol):
    def now(self) -> datetime:
        """Return the time in UTC."""
        ...


class Ids(Protocol):
    def short(self, prefix: str) -> str:
        """Make an id that people can read out."""
        ...

    def token(self) -> str:
        """Make 128 random bits for a button to carry."""
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


@dataclass(frozen=True, slots=True)
class Member:
    """An account in good standing that the policy binds to a person."""

    person: str
    account: str


@dataclass(frozen=True, slots=True)
class Outsider:
    """An account that may do nothing here, and why, in words for its owner."""

    account: str
    reason: str


Standing = Member | Outsider


class Directory(Protocol):
    async def standing(self, team: str, account: str, fresh: bool) -> Standing:
        """Say who an account is; what cannot be found out is an outsider (fail closed)."""
        ...

    def forget(self, account: str) -> None:
        """Forget what was remembered of an account."""
        ...


class Work(Protocol):
    """One transaction: reads see what it changed; nothing is changed unless all of it is."""

    async def request(self, id: str) -> Request | None: ...

    async def request_by_token(self, token: str) -> Request | None: ...

    async def requests_of(self, person: str, pending: bool = True) -> Sequence[Request]:
        """Return a person's requests, newest first; only those pending, or all."""
        ...

    async def overdue(self, now: datetime) -> Sequence[Request]:
        """Return the requests that nobody answered in time."""
        ...

    async def extensions_of(self, grant: str) -> Sequence[Request]:
        """Return the requests to move a grant's end, newest first."""
        ...

    async def add_request(self, request: Request) -> None: ...

    async def move_request(self, request: Request, event: RequestEvent, **changes: Any) -> Request:
        """Move a request by the state table and return it; raises RowMoved where somebody was faster."""
        ...

    async def change_request(self, request: Request, **changes: Any) -> Request:
        """Change what is not the state, in the state it was read in; raises RowMoved."""
        ...

    async def reviews(self, request: str) -> Sequence[Given]:
        """Return a request's reviews, oldest first."""
        ...

    async def add_review(self, request: str, review: Given) -> None:
        """Keep a review; a person's second one replaces the first."""
        ...

    async def grant(self, id: str) -> Grant | None: ...

    async def grant_by_token(self, token: str) -> Grant | None: ...

    async def grant_of(self, request: str) -> Grant | None: ...

    async def live_grants(self, person: str | None = None, resource: str | None = None) -> Sequence[Grant]: ...

    async def unsettled_grants(self) -> Sequence[Grant]:
        """Return the grants that are not closed, or whose time is not over yet."""
        ...

    async def ending_grants(self, before: datetime) -> Sequence[Grant]:
        """Return the live grants that end before a time, the first to end first."""
        ...

    async def add_grant(self, grant: Grant) -> None: ...

    async def move_grant(self, grant: Grant, event: GrantEvent, **changes: Any) -> Grant:
        """Move a projection by the grant's state table and return it; raises RowMoved."""
        ...

    async def change_grant(self, grant: Grant, **changes: Any) -> Grant: ...

    async def hold(self, id: str) -> Hold | None: ...

    async def hold_by_token(self, token: str) -> Hold | None: ...

    async def holds_of(self, grant: str) -> Sequence[Hold]:
        """Return the holds under a grant, oldest first."""
        ...

    async def add_hold(self, hold: Hold) -> None: ...

    async def move_hold(self, hold: Hold, event: HoldEvent, **changes: Any) -> Hold:
        """Move a projection by the hold's state table and return it; raises RowMoved."""
        ...

    async def change_hold(self, hold: Hold, **changes: Any) -> Hold: ...

    async def hold_reviews(self, hold: Hold) -> Sequence[Given]:
        """Return the reviews of exactly this hold's digest, oldest first."""
        ...

    async def add_hold_review(self, hold: Hold, review: Given) -> None:
        """Keep a review, bound to the hold's digest; a person's second one replaces the first."""
        ...

    async def shape(self, id: str) -> Shape | None: ...

    async def shape_by_token(self, token: str) -> Shape | None: ...

    async def shapes_of(self, grant: str) -> Sequence[Shape]:
        """Return the shapes that were approved under a grant, oldest first."""
        ...

    async def add_shape(self, shape: Shape) -> None: ...

    async def move_shape(self, shape: Shape, event: ShapeEvent, **changes: Any) -> Shape:
        """Move a projection by the shape's state table and return it; raises RowMoved."""
        ...

    async def change_shape(self, shape: Shape, **changes: Any) -> Shape: ...

    async def shown(self, message: str) -> Shown | None: ...

    async def want(self, message: str, lane: str, not_before: datetime | None = None) -> None:
        """Ask that a message that is edited in place be brought up to date."""
        ...

    async def send(self, key: str, lane: str, item: Outgoing, not_before: datetime | None = None) -> bool:
        """Queue something to leave; a key that was queued before changes nothing and returns False."""
        ...

    async def pending(self, limit: int) -> Sequence[Request]:
        """Return what everybody waits for, oldest first."""
        ...

    async def waiting(self, limit: int) -> Sequence[Hold]:
        """Return the holds that wait for an answer, oldest first."""
        ...

    async def open_home(self, account: str) -> None:
        """Note that somebody looks at the app's home."""
        ...

    async def close_home(self, account: str) -> None:
        """Forget that somebody ever did."""
        ...

    async def homes(self, since: datetime | None = None) -> set[str]:
        """Return the accounts that opened the app's home, ever or since some time."""
        ...

    async def count_sent(self, prefix: str) -> int:
        """Return how many rows were ever queued under keys with a prefix."""
        ...


@dataclass(frozen=True, slots=True)
class Desk:
    """What a handler works with, for one intent."""

    work: Work
    policy: Policy
    policy_hash: str
    now: datetime
    ids: Ids
    command: str = "/access"
    channel: str = ""
    """The reviewers' channel, by id."""
    pending_cap: int = 5


class Refusal(Exception):
    """the broker says no"""

    def __init__(self, status: int, problem: Problem) -> None:
        super().__init__(problem.message)
        self.status = status
        self.problem = problem


class BrokerAway(Exception):
    """the broker does not answer"""


class Broker(Protocol):
    async def post_order(self, token: str) -> GrantView:
        """Send a signed order; raises Refusal or BrokerAway. The same order twice gives the same grant."""
        ...

    async def mint(self, grant: str, actor: str) -> TicketView:
        """Mint a ticket, voiding an undelivered one; raises Refusal or BrokerAway."""
        ...

    async def end(self, grant: str, actor: str, kind: str, reason: str) -> None:
        """End (its owner) or revoke (anybody else) a grant; raises Refusal or BrokerAway."""
        ...

    async def recording(self, grant: str, format: str) -> bytes:
        """Return a grant's transcript as `text` or `json` lines; raises Refusal or BrokerAway."""
        ...

    async def hold(self, id: str, grant: str = "") -> HoldView:
        """Return all of what a reviewer must see of a hold; raises Refusal or BrokerAway.

        With its grant also of one that only the record knows any more.
        """
        ...

    async def shape(self, id: str) -> ShapeView:
        """Return an approved shape; raises Refusal or BrokerAway."""
        ...

    async def withdraw_shape(self, id: str, actor: str) -> ShapeView:
        """Withdraw an approved shape; raises Refusal (409 `over`) or BrokerAway."""
        ...

    async def answer_hold(self, id: str, token: str) -> HoldView:
        """Send a signed answer to a hold; raises Refusal (409 `more_reviews`, `over`) or BrokerAway."""
        ...
