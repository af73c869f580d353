"""The bot's database: one `SqlWork` is one transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, Table, Update, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from bot.adapters.rows import (
    columns_of,
    grant_from,
    hold_from,
    request_from,
    review_from,
    shape_from,
    shown_from,
    stored,
)
from bot.adapters.tables import (
    cursors,
    grants,
    hold_reviews,
    holds,
    homes,
    inbox,
    messages,
    outbox,
    requests,
    reviews,
    shapes,
)
from bot.model import Given, Grant, Hold, Request, Shape, Shown
from bot.outgoing import Outgoing, Show, to_row
from bot.ports import Clock
from workflows import grants as grant_table
from workflows import holds as hold_table
from workflows import requests as request_table
from workflows import shapes as shape_table
from workflows.grants import LIVE, GrantEvent
from workflows.holds import HoldEvent, HoldState
from workflows.requests import RequestEvent, RequestState
from workflows.shapes import ShapeEvent
from workflows.storage.boxes import RowMoved, guarded
from workflows.storage.engine import begin

COALESCED_BEFORE = timedelta(milliseconds=200)
"""A row that is due sooner may be on its way already."""
SEEN = {
    "requests": {"state", "requirement", "note", "expires_at"},
    "grants": {"state", "expires_at"},
    "holds": {"state", "requirement", "answered"},
    "shapes": {"state"},
}
"""What of each table the app's home shows."""
_LIVE = [state.value for state in LIVE]


class SqlWork:
    """Reads and changes inside one transaction; its guarded updates raise RowMoved when somebody was faster."""

    def __init__(self, connection: AsyncConnection, clock: Clock) -> None:
        self.connection = connection
        self._clock = clock
        self._now = clock.now()
        self._versions: dict[tuple[str, str], int] = {}
        self.changed: set[tuple[str, str]] = set()
        """What changed of that people see in the app's home, by table and id."""

    async def request(self, id: str) -> Request | None:
        return await self._request(select(requests).where(requests.c.id == id))

    async def request_by_token(self, token: str) -> Request | None:
        return await self._request(select(requests).where(requests.c.token == token))

    async def _request(self, query: Select[Any]) -> Request | None:
        row = (await self.connection.execute(query)).one_or_none()
        if row is None:
            return None
        self._versions["requests", row.id] = row.version
        return request_from(row)

    async def requests_of(self, person: str, pending: bool = True) -> Sequence[Request]:
        query = select(requests).where(requests.c.requester == person).order_by(requests.c.asked_at.desc()).limit(100)
        if pending:
            query = query.where(requests.c.state == RequestState.PENDING.value)
        return await self._requests(query)

    async def overdue(self, now: datetime) -> Sequence[Request]:
        late = (requests.c.state == RequestState.PENDING.value) & (requests.c.expires_at <= now)
        return await self._requests(select(requests).where(late).order_by(requests.c.expires_at).limit(100))

    async def extensions_of(self, grant: str) -> Sequence[Request]:
        return await self._requests(
            select(requests).where(requests.c.extends == grant).order_by(requests.c.asked_at.desc()).limit(100)
        )

    async def _requests(self, query: Select[Any]) -> list[Request]:
        rows = (await self.connection.execute(query)).all()
        self._versions |= {("requests", row.id): row.version for row in rows}
        return [request_from(row) for row in rows]

    async def add_request(self, request: Request) -> None:
        await self._add(requests, request)

    async def move_request(self, request: Request, event: RequestEvent, **changes: Any) -> Request:
        return await self.change_request(request, **changes, state=request_table.moved(request.state, event))

    async def change_request(self, request: Request, **changes: Any) -> Request:
        await self._change(requests, request.id, request.state.value, changes)
        return replace(request, **changes)

    async def reviews(self, request: str) -> Sequence[Given]:
        query = select(reviews).where(reviews.c.request == request).order_by(reviews.c.id)
        return [review_from(row) for row in (await self.connection.execute(query)).all()]

    async def add_review(self, request: str, review: Given) -> None:
        self.changed.add(("requests", request))
        values = {"request": request, **columns_of(review)}
        del values["shape"]  # only statements have one
        kept = {key: value for key, value in values.items() if key not in ("request", "person")}
        statement = self._insert(reviews).values(values)
        await self.connection.execute(statement.on_conflict_do_update(index_elements=["request", "person"], set_=kept))

    async def grant(self, id: str) -> Grant | None:
        return await self._grant(select(grants).where(grants.c.id == id))

    async def grant_by_token(self, token: str) -> Grant | None:
        return await self._grant(select(grants).where(grants.c.token == token))

    async def grant_of(self, request: str) -> Grant | None:
        newest = select(grants).where(grants.c.request == request).order_by(grants.c.opened_at.desc()).limit(1)
        return await self._grant(newest)

    async def _grant(self, query: Select[Any]) -> Grant | None:
        row = (await self.connection.execute(query)).one_or_none()
        if row is None:
            return None
        self._versions["grants", row.id] = row.version
        return grant_from(row)

    async def live_grants(self, person: str | None = None, resource: str | None = None) -> Sequence[Grant]:
        query = select(grants).where(grants.c.state.in_(_LIVE)).order_by(grants.c.opened_at)
        if person is not None:
            query = query.where(grants.c.person == person)
        if resource is not None:
            query = query.where(grants.c.resource == resource)
        return await self._grants(query)

    async def unsettled_grants(self) -> Sequence[Grant]:
        unsettled = grants.c.closed_at.is_(None) | (grants.c.expires_at > self._now)
        return await self._grants(select(grants).where(unsettled).order_by(grants.c.opened_at))

    async def ending_grants(self, before: datetime) -> Sequence[Grant]:
        live = grants.c.state.in_(_LIVE) & (grants.c.expires_at < before)
        return await self._grants(select(grants).where(live).order_by(grants.c.expires_at).limit(500))

    async def _grants(self, query: Select[Any]) -> list[Grant]:
        rows = (await self.connection.execute(query)).all()
        self._versions |= {("grants", row.id): row.version for row in rows}
        return [grant_from(row) for row in rows]

    async def add_grant(self, grant: Grant) -> None:
        await self._add(grants, grant)

    async def move_grant(self, grant: Grant, event: GrantEvent, **changes: Any) -> Grant:
        return await self.change_grant(grant, **changes, state=grant_table.moved(grant.state, event))

    async def change_grant(self, grant: Grant, **changes: Any) -> Grant:
        await self._change(grants, grant.id, grant.state.value, changes)
        return replace(grant, **changes)

    async def hold(self, id: str) -> Hold | None:
        return next(iter(await self._holds(select(holds).where(holds.c.id == id))), None)

    async def hold_by_token(self, token: str) -> Hold | None:
        return next(iter(await self._holds(select(holds).where(holds.c.token == token))), None)

    async def holds_of(self, grant: str) -> Sequence[Hold]:
        return await self._holds(select(holds).where(holds.c.grant == grant).order_by(holds.c.opened_at, holds.c.id))

    async def _holds(self, query: Select[Any]) -> list[Hold]:
        rows = (await self.connection.execute(query)).all()
        self._versions |= {("holds", row.id): row.version for row in rows}
        return [hold_from(row) for row in rows]

    async def add_hold(self, hold: Hold) -> None:
        await self._add(holds, hold)

    async def move_hold(self, hold: Hold, event: HoldEvent, **changes: Any) -> Hold:
        return await self.change_hold(hold, **changes, state=hold_table.moved(hold.state, event))

    async def change_hold(self, hold: Hold, **changes: Any) -> Hold:
        await self._change(holds, hold.id, hold.state.value, changes)
        return replace(hold, **changes)

    async def hold_reviews(self, hold: Hold) -> Sequence[Given]:
        bound = (hold_reviews.c.hold == hold.id) & (hold_reviews.c.digest == hold.digest)
        query = select(hold_reviews).where(bound).order_by(hold_reviews.c.id)
        return [review_from(row) for row in (await self.connection.execute(query)).all()]

    async def add_hold_review(self, hold: Hold, review: Given) -> None:
        self.changed.add(("holds", hold.id))
        # Nobody approves less of a statement, so there are no terms.
        values = {"hold": hold.id, "digest": hold.digest, **columns_of(review)}
        del values["terms"]
        kept = {key: value for key, value in values.items() if key not in ("hold", "person")}
        statement = self._insert(hold_reviews).values(values)
        await self.connection.execute(statement.on_conflict_do_update(index_elements=["hold", "person"], set_=kept))

    async def shape(self, id: str) -> Shape | None:
        return next(iter(await self._shapes(select(shapes).where(shapes.c.id == id))), None)

    async def shape_by_token(self, token: str) -> Shape | None:
        return next(iter(await self._shapes(select(shapes).where(shapes.c.token == token))), None)

    async def shapes_of(self, grant: str) -> Sequence[Shape]:
        return await self._shapes(select(shapes).where(shapes.c.grant == grant).order_by(shapes.c.approved_at))

    async def _shapes(self, query: Select[Any]) -> list[Shape]:
        rows = (await self.connection.execute(query)).all()
        self._versions |= {("shapes", row.id): row.version for row in rows}
        return [shape_from(row) for row in rows]

    async def add_shape(self, shape: Shape) -> None:
        await self._add(shapes, shape)

    async def move_shape(self, shape: Shape, event: ShapeEvent, **changes: Any) -> Shape:
        return await self.change_shape(shape, **changes, state=shape_table.moved(shape.state, event))

    async def change_shape(self, shape: Shape, **changes: Any) -> Shape:
        await self._change(shapes, shape.id, shape.state.value, changes)
        return replace(shape, **changes)

    async def _add(self, table: Table, value: Request | Grant | Hold | Shape) -> None:
        self._versions[table.name, value.id] = 0
        self.changed.add((table.name, value.id))
        await self.connection.execute(insert(table).values(columns_of(value)))

    async def _change(self, table: Table, id: str, state: str, changes: dict[str, Any]) -> None:
        """Change the row that was read, and no other version of it."""
        version = self._versions[table.name, id]
        change: Update = (
            update(table)
            .where(table.c.id == id, table.c.state == state, table.c.version == version)
            .values({**stored(changes), "version": version + 1})
        )
        await guarded(self.connection, change)
        self._versions[table.name, id] = version + 1
        if SEEN[table.name].intersection(changes):
            self.changed.add((table.name, id))

    async def pending(self, limit: int) -> Sequence[Request]:
        waits = requests.c.state == RequestState.PENDING.value
        return await self._requests(select(requests).where(waits).order_by(requests.c.asked_at).limit(limit))

    async def waiting(self, limit: int) -> Sequence[Hold]:
        waits = holds.c.state == HoldState.WAITING.value
        return await self._holds(select(holds).where(waits).order_by(holds.c.opened_at, holds.c.id).limit(limit))

    async def open_home(self, account: str) -> None:
        statement = self._insert(homes).values(account=account, opened_at=self._now)
        again = statement.on_conflict_do_update(index_elements=["account"], set_={"opened_at": self._now})
        await self.connection.execute(again)

    async def close_home(self, account: str) -> None:
        await self.connection.execute(delete(homes).where(homes.c.account == account))

    async def homes(self, since: datetime | None = None) -> set[str]:
        query = select(homes.c.account)
        if since is not None:
            query = query.where(homes.c.opened_at > since)
        return set((await self.connection.execute(query)).scalars())

    async def shown(self, message: str) -> Shown | None:
        row = (await self.connection.execute(select(messages).where(messages.c.key == message))).one_or_none()
        return None if row is None else shown_from(row)

    async def want(self, message: str, lane: str, not_before: datetime | None = None) -> None:
        statement = self._insert(messages).values(key=message, wanted=1, shown=0)
        raised = statement.on_conflict_do_update(index_elements=["key"], set_={"wanted": messages.c.wanted + 1})
        version = (await self.connection.execute(raised.returning(messages.c.wanted))).scalar_one()
        if not_before is not None and await self._waits(lane):
            return
        await self.send(f"show:{message}:{version}", lane, Show(message, version), not_before)

    async def show_rest(self, message: str, lane: str) -> None:
        """Queue a message once more where it was wanted anew while it was on its way."""
        shown = await self.shown(message)
        if shown is not None and shown.shown < shown.wanted:
            await self.send(f"show:{message}:{shown.wanted}", lane, Show(message, shown.wanted))

    async def _waits(self, lane: str) -> bool:
        """Say whether a lane has a row that is not under way yet: what it shows is read when it leaves.

        The time is read after the message's row is locked, so whoever delivers meanwhile sees that more is wanted.
        """
        later = (outbox.c.not_before > self._clock.now() + COALESCED_BEFORE) & (outbox.c.attempts == 0)
        query = select(outbox.c.id).where(outbox.c.lane == lane, outbox.c.sent_at.is_(None), later).limit(1)
        return (await self.connection.execute(query)).first() is not None

    async def send(self, key: str, lane: str, item: Outgoing, not_before: datetime | None = None) -> bool:
        statement = self._insert(outbox).values(
            key=key, lane=lane, kind=item.kind, payload=to_row(item), made_at=self._now, not_before=not_before
        )
        result = await self.connection.execute(statement.on_conflict_do_nothing(index_elements=["key"]))
        return bool(result.rowcount)

    async def count_sent(self, prefix: str) -> int:
        query = select(func.count()).where(outbox.c.key.startswith(prefix, autoescape=True))
        return int((await self.connection.execute(query)).scalar_one())

    async def message_is_at(self, message: str, channel: str, ts: str, version: int) -> None:
        """Note where a message is and which version people see there."""
        change = update(messages).where(messages.c.key == message)
        await self.connection.execute(change.values(channel=channel, ts=ts, shown=version))

    async def note_message(self, message: str, channel: str, ts: str) -> None:
        """Note where a message is that was never asked for by `want`."""
        statement = self._insert(messages).values(key=message, channel=channel, ts=ts, wanted=0, shown=0)
        place = {"channel": channel, "ts": ts}
        await self.connection.execute(statement.on_conflict_do_update(index_elements=["key"], set_=place))

    async def take(self, key: str) -> bool:
        """Mark a payload as worked on; False where it was before."""
        change = update(inbox).where(inbox.c.key == key, inbox.c.done_at.is_(None)).values(done_at=self._now)
        result = await self.connection.execute(change)
        return bool(result.rowcount == 1)

    async def cursor(self, name: str) -> str:
        query = select(cursors.c.value).where(cursors.c.name == name)
        return str((await self.connection.execute(query)).scalar_one_or_none() or "")

    async def move_cursor(self, name: str, old: str, new: str) -> None:
        """Move a cursor from where it was; raises RowMoved where somebody else moved it."""
        if old:
            place = (cursors.c.name == name) & (cursors.c.value == old)
            await guarded(self.connection, update(cursors).where(place).values(value=new))
            return
        statement = self._insert(cursors).values(name=name, value=new)
        result = await self.connection.execute(statement.on_conflict_do_nothing(index_elements=["name"]))
        if result.rowcount != 1:
            raise RowMoved("the cursor was moved")

    async def forget_cursor(self, name: str, old: str) -> None:
        """Begin at the beginning again; raises RowMoved where somebody else moved it."""
        await guarded(self.connection, delete(cursors).where(cursors.c.name == name, cursors.c.value == old))

    def _insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        if self.connection.dialect.name == "sqlite":
            return sqlite.insert(table)
        return postgresql.insert(table)


class Store:
    """Opens transactions."""

    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[SqlWork]:
        """Give one transaction: all of it or, where the block raises, nothing."""
        async with begin(self._engine) as connection:
            yield SqlWork(connection, self._clock)

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()
