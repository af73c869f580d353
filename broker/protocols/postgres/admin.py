"""The broker's own connections to an upstream, kept warm: to read the catalogue, and to end sessions' work for sure."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import asyncpg

from broker.errors import Misconfigured, UpstreamUnavailable
from broker.protocols.postgres import identities
from broker.protocols.postgres.kill import Killer
from broker.protocols.postgres.outage import unavailable
from broker.protocols.postgres.pins import NEWEST, OLDEST
from broker.sessions.model import Killed, Lease
from broker.sessions.ports import Endpoint
from broker.transport.listener import keep_alive
from broker.transport.tls import client_context

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
LEFT_SECONDS = 5.0
"""After which the upstream ends a transaction that this process, stopped in its middle, leaves open with its locks."""
STANDBY = "it is a standby, where no session can have a role of its own"
LOOK_SECONDS = 1.0
"""How long a kill waits for the answer at first; an upstream that is only slow is given twice as long each time."""

T = TypeVar("T")
Fetch = Callable[..., Awaitable[list[Any]]]
"""Runs a query with its arguments, and returns its rows as they come."""
_PARTED = asyncpg.InternalClientError
"""What the library says of a connection that has had its farewell and is not closed yet."""
_FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, _PARTED, TimeoutError)
_LOST = (ConnectionError, asyncpg.AdminShutdownError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError, _PARTED)
"""What the library says of a connection that ends while it is used."""
_AGAIN = (*_LOST, asyncpg.SerializationError)
"""After which another try may do better: a standby cuts short what is in the way of what it has to follow."""


class Admin:
    """Connections of one endpoint's credential; made on first use, at most a few, one of them always warm."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._pool: asyncpg.Pool | None = None
        self._making = asyncio.Lock()
        self._killer = Killer(self._look)
        self._patience = LOOK_SECONDS
        self._turn = asyncio.Semaphore(1)
        self._version = 0

    async def fetch(self, sql: str, *arguments: object) -> list[dict[str, Any]]:
        """Return the rows of a query; raises UpstreamUnavailable."""

        async def run(connection: asyncpg.Connection) -> list[dict[str, Any]]:
            return [dict(row) for row in await connection.fetch(sql, *arguments, timeout=ANSWER_SECONDS)]

        return await self._reading(run)

    async def _look(self, sql: str, *arguments: object) -> list[dict[str, Any]]:
        """Fetch for a kill, which cannot wait for a connection that the network has lost without a word."""

        async def run(connection: asyncpg.Connection) -> list[dict[str, Any]]:
            try:
                found = await connection.fetch(sql, *arguments, timeout=self._patience)
            except TimeoutError:
                self._patience = min(self._patience * 2, ANSWER_SECONDS)
                connection.terminate()
                if self._pool is not None:
                    # Whatever lost this one has lost the others.
                    await self._pool.expire_connections()
                raise
            self._patience = LOOK_SECONDS
            return [dict(row) for row in found]

        return await self._with(run)

    async def snapshot(self, look: Callable[[Fetch], Awaitable[T]]) -> T:
        """Have queries run that all see one moment; raises UpstreamUnavailable."""

        async def run(connection: asyncpg.Connection) -> T:
            async def fetch(sql: str, *arguments: object) -> list[Any]:
                found: list[Any] = await connection.fetch(sql, *arguments, timeout=ANSWER_SECONDS)
                return found

            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return await look(fetch)

        return await self._reading(run)

    async def version(self) -> int:
        """Return server_version_num and have a connection; raises UpstreamUnavailable, also where it is not served."""
        if self._pool is None or not self._pool.get_size():

            async def nothing(_: asyncpg.Connection) -> None: ...

            await self._with(nothing)
        # Another server would have cut the connections to the one before it.
        number = self._version
        if not OLDEST <= number // 10000 <= NEWEST:
            words = f"PostgreSQL {number // 10000} is not served: {OLDEST} to {NEWEST} are"
            raise UpstreamUnavailable(words, words)
        return number

    async def aside(self, run: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """Do what may wait, one at a time, so that connections are left for kills; raises UpstreamUnavailable."""

        async def resetting(connection: asyncpg.Connection) -> T:
            try:
                return await run(connection)
            finally:
                await self._tidied(connection)

        async with self._turn:
            return await self._with(resetting)

    async def change(self, statements: Sequence[str]) -> asyncpg.PostgresError | None:
        """Run statements in one transaction that may write; raises UpstreamUnavailable.

        Returns why they were refused where something is missing, or is still needed; nothing has changed then.
        """

        async def run(connection: asyncpg.Connection) -> asyncpg.PostgresError | None:
            try:
                async with connection.transaction():
                    await self._writing(connection)
                    for statement in statements:
                        await connection.execute(statement, timeout=ANSWER_SECONDS)
            except (asyncpg.UndefinedObjectError, asyncpg.DependentObjectsStillExistError) as refusal:
                return refusal
            return None

        return await self._with(run)

    @staticmethod
    async def _writing(connection: asyncpg.Connection) -> None:
        try:
            await connection.execute("set transaction read write", timeout=ANSWER_SECONDS)
        except asyncpg.FeatureNotSupportedError as error:
            raise UpstreamUnavailable(f"{STANDBY}: {error}", STANDBY) from error

    @property
    def user(self) -> str:
        """As whom the upstream knows these connections."""
        return self._endpoint.user

    async def kill(self, lease: Lease, grace: float = 0.0) -> Killed:
        """End a session's upstream processes, and its role where it had one of its own; see Killer and identities."""
        if not await self._killer.kill(lease, grace):
            return Killed(verified=False)
        return Killed(verified=True) if lease.identity is None else await identities.end(self, lease)

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                await asyncio.wait_for(pool.close(), 1)
            except _FAILURES:
                pool.terminate()

    async def _made(self, connection: asyncpg.Connection) -> None:
        # The library has no way to ask for this: a connection that waits would never notice that its peer is gone.
        keep_alive(connection._transport.get_extra_info("socket"))
        found = connection.get_server_version()
        self._version = int(found.major * 10000 + found.minor)

    @staticmethod
    async def _tidied(connection: asyncpg.Connection) -> None:
        """Reset what a person's statement was prepared on; where that fails, nobody has the connection again."""
        try:
            await connection.reset(timeout=CONNECT_SECONDS)
        except BaseException:
            connection.terminate()
            raise

    async def _reading(self, run: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """Do what only reads, once more where it was cut short on the way."""
        try:
            return await self._with(run)
        except UpstreamUnavailable as error:
            if not isinstance(error.__cause__, _AGAIN):
                raise
        return await self._with(run)

    async def _with(self, run: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        try:
            pool = await self._ready()
            async with pool.acquire(timeout=CONNECT_SECONDS) as connection:
                try:
                    return await run(connection)
                except _PARTED:
                    connection.terminate()
                    raise
        except _FAILURES as error:
            raise unavailable(error) from error

    async def _ready(self) -> asyncpg.Pool:
        async with self._making:
            if self._pool is None:
                end = self._endpoint
                context = client_context(end.tls, end.ca, [])
                try:
                    self._pool = await asyncpg.create_pool(
                        host=end.host,
                        port=end.port,
                        user=end.user,
                        password=end.password,
                        database=end.database,
                        ssl=context if context is not None else False,
                        min_size=1,
                        max_size=4,
                        timeout=CONNECT_SECONDS,
                        max_inactive_connection_lifetime=0,
                        init=self._made,
                        # Queries of our own leave nothing behind but a transaction that was cut off, which is ended.
                        reset=_unchanged,
                        # Names of users' types come qualified, and nothing of theirs is called by an unqualified name.
                        server_settings={
                            "application_name": "airlock:broker",
                            "search_path": "pg_catalog, pg_temp",
                            "default_transaction_read_only": "on",
                            "idle_in_transaction_session_timeout": str(int(LEFT_SECONDS * 1000)),
                            "lock_timeout": str(int(ANSWER_SECONDS * 1000)),
                            # The catalogue's queries are large and done before they would be compiled.
                            "jit": "off",
                            # An inspected text means the same here, and a value that is written out stays one.
                            "standard_conforming_strings": "on",
                            "backslash_quote": "safe_encoding",
                        },
                    )
                except (ValueError, Misconfigured) as error:
                    raise UpstreamUnavailable(str(error)) from None
            return self._pool


async def _unchanged(_: asyncpg.Connection) -> None: ...


class Admins:
    """The admin connections of every endpoint in use."""

    def __init__(self) -> None:
        self._by_endpoint: dict[Endpoint, Admin] = {}

    def of(self, endpoint: Endpoint) -> Admin:
        found = self._by_endpoint.get(endpoint)
        if found is None:
            found = self._by_endpoint[endpoint] = Admin(endpoint)
        return found

    async def close(self) -> None:
        admins, self._by_endpoint = list(self._by_endpoint.values()), {}
        await asyncio.gather(*(admin.close() for admin in admins))
