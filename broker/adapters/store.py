"""The broker's rows: grants and tickets. Every move of a grant is one guarded UPDATE whose row count is checked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import LABEL_STYLE_TABLENAME_PLUS_COL, Row, RowMapping, func, insert, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.adapters.tables import extensions, grants, shapes, tickets
from broker.errors import AirlockError
from broker.sessions.model import REPLACED, GrantFacts, ScramVerifier, TicketFacts
from workflows.grants import GrantEvent, GrantState, moved
from workflows.storage.boxes import guarded
from workflows.wire import GrantView


class StoreUnavailable(AirlockError):
    """the broker's database does not answer"""


@dataclass(frozen=True, slots=True)
class GrantRow:
    """A grant as stored; `boot_deadline` is its end on the boot clock of `boot_id`."""

    id: str
    request: str
    order_id: str
    order_digest: str
    order: dict[str, Any]
    person: str
    resource: str
    role: str
    seconds: int
    state: GrantState
    opened_at: datetime
    expires_at: datetime
    boot_id: str
    boot_deadline: float
    policy: str
    over_by: str | None = None
    over_reason: str | None = None
    closed_at: datetime | None = None
    verified: bool | None = None

    @property
    def facts(self) -> GrantFacts:
        return GrantFacts(self.id, self.request, self.person, self.resource, self.role, self.expires_at, self.opened_at)

    @property
    def view(self) -> GrantView:
        return GrantView(
            id=self.id,
            request=self.request,
            person=self.person,
            resource=self.resource,
            role=self.role,
            state=self.state,
            opened_at=self.opened_at,
            expires_at=self.expires_at,
        )


@dataclass(frozen=True, slots=True)
class ExtensionRow:
    """An order that moved a grant's end, from `before` to `until`; `counted` and `rules` are what it rests on."""

    order_id: str
    order_digest: str
    order: dict[str, Any]
    request: str
    grant: str
    seconds: int
    before: datetime
    until: datetime
    counted: list[str]
    rules: list[str]
    accepted_at: datetime
    recorded: bool = False


@dataclass(frozen=True, slots=True)
class ShapeRow:
    """An approved shape as stored; `answer` is the evidence, `counted` whose approvals it rests on."""

    id: str
    grant: str
    hold: str
    digest: str
    text: str
    redacted: str
    values: list[str]
    rules: list[str]
    counted: list[str]
    most: int | None
    answer: dict[str, Any]
    approved_at: datetime
    withdrawn_at: datetime | None = None
    withdrawn_by: str | None = None


@dataclass(frozen=True, slots=True)
class TicketRow:
    """A ticket as stored: its verifier, never its secret."""

    id: str
    grant: str
    user: str
    verifier: ScramVerifier
    minted_at: datetime
    minted_by: str


class UserTaken(Exception):
    """another ticket has this user name"""


class TicketsSpent(Exception):
    """this grant has had as many tickets as it may"""


class Store:
    """All the SQL of the broker; a database that does not answer is StoreUnavailable."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def ping(self) -> None:
        """Raise StoreUnavailable where the database does not answer."""
        async with _Guarded(self._engine) as connection:
            await connection.execute(select(1))

    async def grant(self, grant: str) -> GrantRow | None:
        """Return a grant by its id."""
        return await self._one(grants.c.id == grant)

    async def grant_of_order(self, order: str) -> GrantRow | None:
        """Return the grant that an order made."""
        return await self._one(grants.c.order_id == order)

    async def grant_of_request(self, request: str) -> GrantRow | None:
        """Return the grant that a request gave; a refused one only where there is no other."""
        return await self._one(grants.c.request == request)

    async def unsettled(self) -> list[GrantRow]:
        """Return every grant that is not closed."""
        unfinished = grants.c.closed_at.is_(None) & (grants.c.state != GrantState.REFUSED.value)
        async with _Guarded(self._engine) as connection:
            rows = await connection.execute(select(grants).where(unfinished).order_by(grants.c.opened_at))
            return [_grant(row) for row in rows]

    async def insert(self, row: GrantRow) -> bool:
        """Insert a grant that is opening; False where its order or its request has one already."""
        values = {field: getattr(row, field) for field in GrantRow.__slots__} | {"state": row.state.value}
        try:
            async with _Guarded(self._engine) as connection:
                await connection.execute(insert(grants).values(values))
        except IntegrityError:
            return False
        return True

    async def move(
        self, row: GrantRow, event: GrantEvent, by: str | None = None, reason: str | None = None
    ) -> GrantState:
        """Move a grant from the state it was read in; raises RowMoved where somebody else was first."""
        state = moved(row.state, event)
        change = (
            update(grants)
            .where(grants.c.id == row.id, grants.c.state == row.state.value)
            .values(state=state.value, over_by=by, over_reason=reason)
        )
        async with _Guarded(self._engine) as connection:
            await guarded(connection, change)
        return state

    async def close(self, grant: str, at: datetime, verified: bool) -> None:
        """Say that everything of a grant that is over is recorded."""
        over = [state.value for state in (GrantState.ENDED, GrantState.EXPIRED, GrantState.REVOKED)]
        change = update(grants).where(grants.c.id == grant, grants.c.state.in_(over), grants.c.closed_at.is_(None))
        async with _Guarded(self._engine) as connection:
            await guarded(connection, change.values(closed_at=at, verified=verified))

    async def shorten(self, grant: str, expires_at: datetime) -> None:
        """Move a grant's end to an earlier time."""
        change = update(grants).where(grants.c.id == grant, grants.c.expires_at > expires_at)
        async with _Guarded(self._engine) as connection:
            await connection.execute(change.values(expires_at=expires_at))

    async def extend(self, row: GrantRow, extension: ExtensionRow, boot_id: str, boot_deadline: float) -> bool:
        """Move an active grant's end from where it was read; raises RowMoved. False where its request has done so."""
        moved(row.state, GrantEvent.EXTEND)
        still = (grants.c.id == row.id) & (grants.c.state == row.state.value) & (grants.c.expires_at == row.expires_at)
        change = update(grants).where(still)
        ends = {"expires_at": extension.until, "seconds": row.seconds + extension.seconds}
        try:
            async with _Guarded(self._engine) as connection:
                await guarded(connection, change.values(**ends, boot_id=boot_id, boot_deadline=boot_deadline))
                values = {field: getattr(extension, field) for field in ExtensionRow.__slots__}
                await connection.execute(insert(extensions).values(values))
        except IntegrityError:
            return False
        return True

    async def extension_recorded(self, order: str) -> None:
        """Note that an extension's event is on disk."""
        async with _Guarded(self._engine) as connection:
            change = update(extensions).where(extensions.c.order_id == order)
            await connection.execute(change.values(recorded=True))

    async def extension(self, order: str) -> ExtensionRow | None:
        """Return the extension that an order made."""
        return next(iter(await self._extensions(extensions.c.order_id == order)), None)

    async def extension_of_request(self, request: str) -> ExtensionRow | None:
        """Return the extension that a request gave."""
        return next(iter(await self._extensions(extensions.c.request == request)), None)

    async def extensions_of(self, grant: str) -> list[ExtensionRow]:
        """Return a grant's extensions, oldest first."""
        return await self._extensions(extensions.c.grant == grant)

    async def _extensions(self, condition: Any) -> list[ExtensionRow]:
        query = select(extensions).where(condition).order_by(extensions.c.accepted_at)
        async with _Guarded(self._engine) as connection:
            return [ExtensionRow(**row._mapping) for row in await connection.execute(query)]

    async def add_shape(self, row: ShapeRow) -> None:
        """Store an approved shape; raises RowMoved where its grant is not active."""
        active = update(grants).where(grants.c.id == row.grant, grants.c.state == GrantState.ACTIVE.value)
        async with _Guarded(self._engine) as connection:
            await guarded(connection, active.values(state=GrantState.ACTIVE.value))
            values = {field: getattr(row, field) for field in ShapeRow.__slots__}
            await connection.execute(insert(shapes).values(values))

    async def withdraw_shape(self, shape: str, by: str, at: datetime) -> None:
        """Withdraw a shape; one that is withdrawn stays what it is."""
        still = (shapes.c.id == shape) & shapes.c.withdrawn_at.is_(None)
        async with _Guarded(self._engine) as connection:
            await connection.execute(update(shapes).where(still).values(withdrawn_at=at, withdrawn_by=by))

    async def shape(self, shape: str) -> ShapeRow | None:
        """Return an approved shape by its id."""
        return next(iter(await self._shapes(shapes.c.id == shape)), None)

    async def shapes_of(self, grant: str) -> list[ShapeRow]:
        """Return a grant's approved shapes, oldest first."""
        return await self._shapes(shapes.c.grant == grant)

    async def _shapes(self, condition: Any) -> list[ShapeRow]:
        query = select(shapes).where(condition).order_by(shapes.c.approved_at, shapes.c.id)
        async with _Guarded(self._engine) as connection:
            return [ShapeRow(**row._mapping) for row in await connection.execute(query)]

    async def mint(self, row: TicketRow, most: int, most_a_minute: int) -> None:
        """Store a ticket and void the unused ones of its grant; raises RowMoved, TicketsSpent or UserTaken."""
        mine = tickets.c.grant == row.grant
        recent = tickets.c.minted_at > row.minted_at - timedelta(minutes=1)
        async with _Guarded(self._engine) as connection:
            active = update(grants).where(grants.c.id == row.grant, grants.c.state == GrantState.ACTIVE.value)
            await guarded(connection, active.values(state=GrantState.ACTIVE.value))
            total = await connection.scalar(select(func.count()).select_from(tickets).where(mine)) or 0
            lately = await connection.scalar(select(func.count()).select_from(tickets).where(mine, recent)) or 0
            if total >= most or lately >= most_a_minute:
                raise TicketsSpent
            unused = update(tickets).where(mine, tickets.c.used_at.is_(None), tickets.c.voided_at.is_(None))
            await connection.execute(unused.values(voided_at=row.minted_at))
            try:
                await connection.execute(insert(tickets).values(_ticket_values(row)))
            except IntegrityError:
                raise UserTaken from None

    async def tickets(self, latest: int) -> list[tuple[TicketFacts, bool]]:
        """Return the tickets of active grants, and so many others, oldest first; with each whether it was used."""
        joined = select(tickets, grants).join(grants, grants.c.id == tickets.c.grant)
        query = joined.set_label_style(LABEL_STYLE_TABLENAME_PLUS_COL).order_by(tickets.c.minted_at.desc())
        active = grants.c.state == GrantState.ACTIVE.value
        async with _Guarded(self._engine) as connection:
            found = [
                row
                for part in (query.where(active), query.where(~active).limit(latest))
                for row in (await connection.execute(part)).mappings()
            ]
        found.sort(key=lambda row: row["tickets_minted_at"])
        return [(_ticket(row), row["tickets_used_at"] is not None) for row in found]

    async def use(self, ticket: str, at: datetime) -> bool:
        """Mark a ticket as used; False where it was voided meanwhile."""
        held = (tickets.c.id == ticket) & tickets.c.voided_at.is_(None)
        first = update(tickets).where(held, tickets.c.used_at.is_(None)).values(used_at=at)
        async with _Guarded(self._engine) as connection:
            if (await connection.execute(first)).rowcount == 1:
                return True
            return await connection.scalar(select(tickets.c.id).where(held)) is not None

    async def _one(self, condition: Any) -> GrantRow | None:
        refused_last = (grants.c.state == GrantState.REFUSED.value).asc()
        query = select(grants).where(condition).order_by(refused_last, grants.c.opened_at.desc()).limit(1)
        async with _Guarded(self._engine) as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else _grant(row)


class _Guarded:
    """A transaction whose failures of the database, but no others, are StoreUnavailable."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._begin = engine.begin()

    async def __aenter__(self) -> AsyncConnection:
        try:
            return await self._begin.__aenter__()
        except (DBAPIError, OSError, TimeoutError) as error:
            raise StoreUnavailable(type(error).__name__) from None

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            await self._begin.__aexit__(kind, error, trace)
        except (DBAPIError, OSError, TimeoutError) as failure:
            raise StoreUnavailable(type(failure).__name__) from None
        if isinstance(error, DBAPIError | OSError | TimeoutError) and not isinstance(error, IntegrityError):
            raise StoreUnavailable(type(error).__name__) from None


def _grant(row: Row[Any]) -> GrantRow:
    values = dict(row._mapping)
    return GrantRow(**{**values, "state": GrantState(values["state"])})


def _ticket(row: RowMapping) -> TicketFacts:
    """Read a ticket with its grant; `refusal` says where it was voided."""
    fields = ("id", "request", "person", "resource", "role", "expires_at", "opened_at")
    grant = GrantFacts(*(row[f"grants_{field}"] for field in fields))
    kept = ("salt", "iterations", "stored_key", "server_key")
    verifier = ScramVerifier(*(row[f"tickets_{field}"] for field in kept))
    refusal = None if row["tickets_voided_at"] is None else REPLACED
    return TicketFacts(row["tickets_id"], row["tickets_user"], grant, verifier, refusal)


def _ticket_values(row: TicketRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "grant": row.grant,
        "user": row.user,
        "salt": row.verifier.salt,
        "iterations": row.verifier.iterations,
        "stored_key": row.verifier.stored_key,
        "server_key": row.verifier.server_key,
        "minted_at": row.minted_at,
        "minted_by": row.minted_by,
    }
