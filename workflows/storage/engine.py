"""SQLAlchemy engines as both processes need them: SQLite in WAL with immediate transactions, or PostgreSQL."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import DateTime, Dialect, Engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.types import TypeDecorator


class DatabaseUnusable(Exception):
    """the database cannot be used"""


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time; SQLite drops zones, so they are put back, and naive times are refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store UTC; raises ValueError for a naive time."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive time cannot be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Return an aware time."""
        return None if value is None else value.replace(tzinfo=value.tzinfo or UTC)


def sqlite_url(path: Path) -> str:
    """Return the URL of a SQLite file, whose folder is made; raises DatabaseUnusable."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatabaseUnusable(f"{DatabaseUnusable.__doc__}: {error}") from None
    return f"sqlite+aiosqlite:///{path}"


def make_engine(url: str) -> AsyncEngine:
    """Make an engine; on SQLite every transaction is BEGIN IMMEDIATE, synced, with a bounded wait for the lock.

    Raises DatabaseUnusable for a URL that leads nowhere.
    """
    try:
        return _engine(url)
    except (ArgumentError, InvalidRequestError, ImportError, ValueError) as error:
        # Without its words: they may have the URL, and so a password.
        example = "AIRLOCK_DATABASE should be like postgresql+asyncpg://user:password@host/name"
        raise DatabaseUnusable(f"{DatabaseUnusable.__doc__}: {example} ({type(error).__name__})") from None


def _engine(url: str) -> AsyncEngine:
    if make_url(url).get_backend_name() != "sqlite":
        return create_async_engine(url)
    # SQLite has one writer: several connections wait for it by trying again, and who waits longest is not next.
    engine = create_async_engine(url, pool_size=1, max_overflow=0)
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


class Turns:
    """Lets one in at a time, those in a hurry first, the others in the order in which they came."""

    def __init__(self) -> None:
        self._busy = False
        self._hurried: deque[asyncio.Future[None]] = deque()
        self._waiting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def turn(self, *, urgent: bool) -> AsyncIterator[None]:
        """Give a turn, once it comes."""
        if self._busy:
            line = self._hurried if urgent else self._waiting
            mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            line.append(mine)
            try:
                await mine
            except asyncio.CancelledError:
                if mine in line:
                    line.remove(mine)
                elif mine.done() and not mine.cancelled():
                    self._next()  # it was let in as it gave up
                raise
        self._busy = True
        try:
            yield
        finally:
            self._next()

    def _next(self) -> None:
        """Let the next one in; the place stays taken in between, so that nobody slips past."""
        for line in (self._hurried, self._waiting):
            while line:
                first = line.popleft()
                if not first.done():
                    first.set_result(None)
                    return
        self._busy = False


def _prepare_sqlite(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # pysqlite's own BEGIN comes too late and is deferred
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


_turns: WeakKeyDictionary[Engine, Turns] = WeakKeyDictionary()


@asynccontextmanager
async def begin(engine: AsyncEngine, *, urgent: bool = False) -> AsyncIterator[AsyncConnection]:
    """Open a transaction: all of it or, where the block raises, nothing.

    On SQLite, where they come one after another, an urgent one is next: Slack waits three seconds for a payload to be
    kept, and whatever else is going on may wait for that.
    """
    if engine.dialect.name != "sqlite":
        async with engine.begin() as connection:
            yield connection
        return
    turns = _turns.setdefault(engine.sync_engine, Turns())
    async with turns.turn(urgent=urgent), engine.begin() as connection:
        yield connection
