"""The client of a run: it connects with the ticket, works, has a write held, and comes again where it was cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import psycopg

from tests.chaos.stage import LONG, Effect, NeverCame, Stage
from tests.support.bot_world import shown

Connection = psycopg.AsyncConnection[Any]


class Client(Stage):
    """What the engineer's own program does; `answer_hold` is how a reviewer lets a held write go on."""

    async def answer_hold(self, effect: Effect, running: asyncio.Task[None]) -> None:
        """Answer a held write for as long as its client waits."""
        raise NotImplementedError

    async def ticket(self) -> dict[str, str]:
        async def look() -> dict[str, str] | None:
            for message in reversed(await self.rig.people.seen("alice", "@Airlock", since=self.since)):
                text = shown(message)
                if "PGPASSWORD=" in text and f"on {self.resource}" in text:
                    return _words(next(line for line in text.split("\n") if line.startswith("PGPASSWORD=")))
            return None

        found: dict[str, str] = await self.eventually("the ticket of an approved request", look)
        return found

    async def _connected(self, ticket: dict[str, str]) -> Connection:
        async def look() -> Connection | None:
            nonlocal ticket
            kind = psycopg.AsyncClientCursor if self.plan.simple else psycopg.AsyncCursor
            try:
                return await psycopg.AsyncConnection.connect(
                    host="127.0.0.1", port=self.rig.postgres_port, user=ticket["user"], dbname=ticket["dbname"],
                    password=ticket["PGPASSWORD"], sslmode="require", autocommit=True, connect_timeout=12,
                    cursor_factory=kind, application_name="chaos",
                )  # fmt: skip
            except (psycopg.Error, OSError) as error:
                self.say(f"not connected: {_first_line(error)}")
                if "was ended" in str(error) or "is over" in str(error) or "expired" in str(error):
                    raise NeverCame(f"access ended by itself: {_first_line(error)}") from None
                with suppress(NeverCame):
                    ticket = await asyncio.wait_for(self.ticket(), 3)
                await asyncio.sleep(0.2)
                return None

        found: Connection = await self.eventually("a session under an open grant", look)
        self.deeds.sessions += 1
        return found

    async def work(self, ticket: dict[str, str]) -> Connection:
        async with self.step("connect"):
            connection = await self._connected(ticket)
        for name, work in (("read", self._read), ("masked", self._masked), ("denied", self._denied)):
            async with self.step(name):
                connection = await self._insist(connection, ticket, work)
        if self.plan.role == "write":
            connection = await self._held(connection, ticket)
        return connection

    async def _insist(
        self,
        connection: Connection,
        ticket: dict[str, str],
        work: Callable[[Connection], Awaitable[bool]],
    ) -> Connection:
        for _ in range(12):
            try:
                if await asyncio.wait_for(work(connection), 20):
                    return connection
                self.say("refused for now")
                await asyncio.sleep(0.3)
            except (psycopg.OperationalError, psycopg.InterfaceError, TimeoutError) as error:
                self.say(f"connection lost: {_first_line(error)}")
                with suppress(psycopg.Error):
                    await connection.close()
                connection = await self._connected(ticket)
        raise NeverCame("a statement that the policy allows never ran")

    async def _read(self, connection: Connection) -> bool:
        marker = f"-- chaos {self.plan.seed}"
        rows = await self._rows(connection, f"select count(*) from notes where id > 0 {marker}")
        return rows is not None and rows[0][0] == 2000

    async def _masked(self, connection: Connection) -> bool:
        rows = await self._rows(connection, "select id, ssn from people where id < 4 order by id")
        if rows is None:
            return False
        self.deeds.clear += [ssn for _, ssn in rows if not str(ssn).startswith("***")]
        return len(rows) == 3

    async def _denied(self, connection: Connection) -> bool:
        try:
            await connection.execute(f"create table stolen_{self.plan.seed} (id int)".encode())
        except psycopg.errors.InsufficientPrivilege as error:
            if "the schema does not change here" in str(error):
                return True
            self.say(f"refused: {_first_line(error)}")
            return False
        except (psycopg.OperationalError, psycopg.InterfaceError):
            raise
        except psycopg.Error as error:
            self.say(f"refused otherwise: {_first_line(error)}")
            return False
        self.deeds.passed.append("create table")
        return True

    async def _rows(self, connection: Connection, sql: str) -> list[Any] | None:
        try:
            return await (await connection.execute(sql.encode())).fetchall()
        except (psycopg.OperationalError, psycopg.InterfaceError):
            raise
        except psycopg.Error as error:
            self.say(f"refused: {type(error).__name__} {_first_line(error)}")
            return None

    async def _held(self, connection: Connection, ticket: dict[str, str]) -> Connection:
        """Write something that waits for a reviewer; where its fate is unknown, something else the next time."""
        for attempt in range(6):
            effect = Effect(f"{self.plan.seed}/{attempt}")
            self.deeds.effects.append(effect)
            async with self.step("hold"):
                running = asyncio.create_task(self._insert(connection, effect))
            await self.answer_hold(effect, running)
            await running
            self.say(f"held write {effect.marker}: {effect.outcome}")
            if effect.outcome != "unknown":
                return connection
            if connection.closed or connection.broken:
                connection = await self._connected(ticket)
        raise NeverCame("a held statement never came to its end")

    async def _insert(self, connection: Connection, effect: Effect) -> None:
        try:
            await connection.execute(f"insert into effects values ('{effect.marker}')".encode())
            effect.outcome = "done"
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            self.say(f"held statement lost: {_first_line(error)}")
        except psycopg.Error as error:
            self.say(f"held statement answered: {_first_line(error)}")
            if effect.denied:
                effect.outcome = "refused"

    async def run_long(self, connection: Connection) -> None:
        try:
            await connection.execute(LONG.encode())
        except psycopg.Error as error:
            self.say(f"running statement ended: {_first_line(error)}")


async def when(is_so: bool) -> bool | None:
    """Say that it is so, or nothing yet."""
    return True if is_so else None


def _words(line: str) -> dict[str, str]:
    found = dict(word.strip("'\"").split("=", 1) for word in line.replace('psql "', "").split() if "=" in word)
    return {key: value.strip("'\"") for key, value in found.items()}


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
