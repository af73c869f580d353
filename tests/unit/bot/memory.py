"""The bot's ports in memory, for tests of what decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from bot.intents import Source
from bot.model import Given, Grant, Hold, Request, Shape, Shown
from bot.outgoing import Outgoing, Say, Show
from bot.ports import Desk, Member
from policies.engine.load import read_texts
from policies.engine.model import Policy
from workflows import grants as grant_table
from workflows import holds as hold_table
from workflows import requests as request_table
from workflows import shapes as shape_table
from workflows.grants import GrantEvent
from workflows.holds import HoldEvent, HoldState
from workflows.requests import RequestEvent, RequestState
from workflows.shapes import ShapeEvent
from workflows.storage.boxes import RowMoved

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
CHANNEL = "C0ACCESS01"
POLICY = """
groups: {engineers: Build, dbas: Own the databases, security: Look after data}
people:
  alice: {name: Alice, slack: U0ALICE001, groups: [engineers]}
  bob: {name: Bob, slack: U0BOB00001, groups: [engineers, dbas]}
  dana: {name: Dana, slack: U0DANA0001, groups: [engineers, dbas]}
  erin: {name: Erin, slack: U0ERIN0001, groups: [security]}
resources:
  prod-db:
    protocol: postgres
    upstream: {host: h, port: 1, database: d}
    roles:
      read: {credential: "file:a", relations: [public.customers]}
      write: {credential: "file:b", relations: [public.customers]}
  staging-db:
    protocol: postgres
    upstream: {host: h, port: 1, database: d}
    roles: {read: {credential: "file:c", relations: [public.customers]}}
access:
  - {id: r, decision: ask, resources: [prod-db], roles: [read], groups: [engineers],
     reviewers: {groups: [dbas]}, max_duration: 4h}
  - {id: w, decision: ask, resources: [prod-db], roles: [write], groups: [engineers],
     reviewers: [{groups: [dbas]}, {groups: [security]}], max_duration: 1h}
  - {id: s, decision: allow, resources: [staging-db], groups: [engineers]}
fields:
  - {id: f, resource: prod-db, relation: public.customers, clear: [id], masks: {ssn: {mask: partial, tail: 4}}}
"""


@cache  # reading one takes twenty milliseconds, and most tests read several
def policy(text: str = POLICY) -> Policy:
    """Return the policy of these tests."""
    return read_texts({"p.yaml": text})


class CountingIds:
    """Ids in a row."""

    def __init__(self) -> None:
        self._count = 0

    def short(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}-{self._count:04d}"

    def token(self) -> str:
        self._count += 1
        return f"token-{self._count:04d}"


@dataclass
class MemoryWork:
    """Rows in dictionaries; a second change of a value that was read before is a RowMoved, as in the database."""

    now: datetime = NOW
    requests: dict[str, Request] = field(default_factory=dict)
    given: dict[str, dict[str, Given]] = field(default_factory=dict)
    grants: dict[str, Grant] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    held_given: dict[tuple[str, str], dict[str, Given]] = field(default_factory=dict)
    places: dict[str, Shown] = field(default_factory=dict)
    opened: dict[str, datetime] = field(default_factory=dict)
    sent: dict[str, tuple[str, Outgoing]] = field(default_factory=dict)
    ids: CountingIds = field(default_factory=CountingIds)

    async def request(self, id: str) -> Request | None:
        return self.requests.get(id)

    async def request_by_token(self, token: str) -> Request | None:
        return next((one for one in self.requests.values() if one.token == token), None)

    async def requests_of(self, person: str, pending: bool = True) -> Sequence[Request]:
        mine = [one for one in self.requests.values() if one.requester == person]
        return [one for one in mine if one.state is RequestState.PENDING or not pending]

    async def overdue(self, now: datetime) -> Sequence[Request]:
        return [o for o in self.requests.values() if o.state is RequestState.PENDING and o.expires_at <= now]

    async def extensions_of(self, grant: str) -> Sequence[Request]:
        return [one for one in reversed(self.requests.values()) if one.extends == grant]

    async def add_request(self, request: Request) -> None:
        self.requests[request.id] = request

    async def move_request(self, request: Request, event: RequestEvent, **changes: Any) -> Request:
        return await self.change_request(request, **changes, state=request_table.moved(request.state, event))

    async def change_request(self, request: Request, **changes: Any) -> Request:
        if self.requests[request.id] != request:
            raise RowMoved
        self.requests[request.id] = replace(request, **changes)
        return self.requests[request.id]

    async def reviews(self, request: str) -> Sequence[Given]:
        return list(self.given.get(request, {}).values())

    async def add_review(self, request: str, review: Given) -> None:
        self.given.setdefault(request, {})[review.person] = review

    async def grant(self, id: str) -> Grant | None:
        return self.grants.get(id)

    async def grant_by_token(self, token: str) -> Grant | None:
        return next((one for one in self.grants.values() if one.token == token), None)

    async def grant_of(self, request: str) -> Grant | None:
        return next((one for one in self.grants.values() if one.request == request), None)

    async def live_grants(self, person: str | None = None, resource: str | None = None) -> Sequence[Grant]:
        live = [one for one in self.grants.values() if one.live]
        return [o for o in live if person in (None, o.person) and resource in (None, o.resource)]

    async def unsettled_grants(self) -> Sequence[Grant]:
        return [one for one in self.grants.values() if one.closed_at is None or one.expires_at > self.now]

    async def ending_grants(self, before: datetime) -> Sequence[Grant]:
        return [one for one in self.grants.values() if one.live and one.expires_at < before]

    async def add_grant(self, grant: Grant) -> None:
        self.grants[grant.id] = grant

    async def move_grant(self, grant: Grant, event: GrantEvent, **changes: Any) -> Grant:
        return await self.change_grant(grant, **changes, state=grant_table.moved(grant.state, event))

    async def change_grant(self, grant: Grant, **changes: Any) -> Grant:
        if self.grants[grant.id] != grant:
            raise RowMoved
        self.grants[grant.id] = replace(grant, **changes)
        return self.grants[grant.id]

    async def hold(self, id: str) -> Hold | None:
        return self.holds.get(id)

    async def hold_by_token(self, token: str) -> Hold | None:
        return next((one for one in self.holds.values() if one.token == token), None)

    async def holds_of(self, grant: str) -> Sequence[Hold]:
        return [one for one in self.holds.values() if one.grant == grant]

    async def add_hold(self, hold: Hold) -> None:
        self.holds[hold.id] = hold

    async def move_hold(self, hold: Hold, event: HoldEvent, **changes: Any) -> Hold:
        return await self.change_hold(hold, **changes, state=hold_table.moved(hold.state, event))

    async def change_hold(self, hold: Hold, **changes: Any) -> Hold:
        if self.holds[hold.id] != hold:
            raise RowMoved
        self.holds[hold.id] = replace(hold, **changes)
        return self.holds[hold.id]

    async def shape(self, id: str) -> Shape | None:
        return self.shapes.get(id)

    async def shape_by_token(self, token: str) -> Shape | None:
        return next((one for one in self.shapes.values() if one.token == token), None)

    async def shapes_of(self, grant: str) -> Sequence[Shape]:
        return [one for one in self.shapes.values() if one.grant == grant]

    async def add_shape(self, shape: Shape) -> None:
        self.shapes[shape.id] = shape

    async def move_shape(self, shape: Shape, event: ShapeEvent, **changes: Any) -> Shape:
        return await self.change_shape(shape, **changes, state=shape_table.moved(shape.state, event))

    async def change_shape(self, shape: Shape, **changes: Any) -> Shape:
        if self.shapes[shape.id] != shape:
            raise RowMoved
        self.shapes[shape.id] = replace(shape, **changes)
        return self.shapes[shape.id]

    async def hold_reviews(self, hold: Hold) -> Sequence[Given]:
        return list(self.held_given.get((hold.id, hold.digest), {}).values())

    async def add_hold_review(self, hold: Hold, review: Given) -> None:
        self.held_given.setdefault((hold.id, hold.digest), {})[review.person] = review

    async def shown(self, message: str) -> Shown | None:
        return self.places.get(message)

    async def want(self, message: str, lane: str, not_before: datetime | None = None) -> None:
        now = self.places.get(message, Shown(message))
        self.places[message] = replace(now, wanted=now.wanted + 1)
        await self.send(f"show:{message}:{now.wanted + 1}", lane, Show(message, now.wanted + 1), not_before)

    async def send(self, key: str, lane: str, item: Outgoing, not_before: datetime | None = None) -> bool:
        if key in self.sent:
            return False
        self.sent[key] = (lane, item)
        return True

    async def count_sent(self, prefix: str) -> int:
        return sum(key.startswith(prefix) for key in self.sent)

    async def pending(self, limit: int) -> Sequence[Request]:
        return [one for one in self.requests.values() if one.state is RequestState.PENDING][:limit]

    async def waiting(self, limit: int) -> Sequence[Hold]:
        return [one for one in self.holds.values() if one.state is HoldState.WAITING][:limit]

    async def open_home(self, account: str) -> None:
        self.opened[account] = self.now

    async def close_home(self, account: str) -> None:
        self.opened.pop(account, None)

    async def homes(self, since: datetime | None = None) -> set[str]:
        return {account for account, at in self.opened.items() if since is None or at > since}

    def kinds(self) -> list[str]:
        """Return what was queued, by kind."""
        return [item.kind for _, item in self.sent.values()]

    def told(self, cause: str) -> str:
        """Return the private answer to one payload."""
        item = self.sent[f"{cause}:tell"][1]
        assert isinstance(item, Say)
        return item.card.text


def desk(work: Any, now: datetime = NOW, given: Policy | None = None, **more: Any) -> Desk:
    """Return a desk over some work."""
    held = given or policy()
    return Desk(
        work,
        held,
        held.hash,
        now,
        more.pop("ids", None) or getattr(work, "ids", None) or CountingIds(),
        channel=CHANNEL,
        **more,
    )


def member(person: str) -> Member:
    """Return somebody of the policy."""
    account = policy().people[person].slack
    assert account
    return Member(person, account)


def source(person: str, message: str = "", channel: str = CHANNEL) -> Source:
    """Return where somebody did something."""
    return Source("slack", "T0LOCAL001", member(person).account, channel, message, action="1.2")


LATER = NOW + timedelta(minutes=5)
