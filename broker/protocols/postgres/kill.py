"""Ends upstream processes and watches until they are gone: all that are to end on one endpoint, in one look each time.

Closing a socket is not a kill: PostgreSQL may go on and commit. So the process is terminated by (pid, start), which no
later process can share, and a session counts as ended only when the upstream does not list it any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from broker.errors import UpstreamUnavailable
from broker.protocols.postgres.identity import session_of
from broker.protocols.postgres.pins import STARTED
from broker.sessions.model import Lease

KILL_SECONDS = 5.0
POLL_SECONDS = 0.008
POLITE_SECONDS = 0.025
"""After which one that was told to end by itself is looked for: together with others, and hardly ever twice."""
REPEAT_SECONDS = 0.2

# Before the upstream has said who it is, the client has no hold of the session: its name is still the broker's.
_LOOK = """
    select pid, STARTED as start, application_name as name, usename::text as identity from pg_stat_activity
    where pid = any($1::int4[]) or (application_name = any($2::text[]) and usename = current_user)
          or usename::text = any($3::text[])""".replace("STARTED", STARTED)
_TERMINATE = """
    select pg_terminate_backend(a.pid) from pg_stat_activity a
    join unnest($1::int4[], $2::int8[]) as due(pid, start) on due.pid = a.pid and due.start = STARTED""".replace(
    "STARTED", STARTED
)

_log = structlog.get_logger("kill")

Fetch = Callable[..., Awaitable[list[dict[str, Any]]]]


@dataclass(slots=True, eq=False)
class _Due:
    lease: Lease
    look_at: float
    terminate_at: float
    give_up_at: float
    gone: asyncio.Future[bool]

    @property
    def name(self) -> str:
        return f"airlock:{self.lease.session}"

    @property
    def identity(self) -> str | None:
        """The role that is this session's alone; a name that was not made for it ends nobody."""
        name = self.lease.identity
        return name if session_of(name) == self.lease.session else None

    def is_row(self, row: dict[str, Any]) -> bool:
        if self.identity is not None:
            return bool(row["identity"] == self.identity)
        if self.lease.pid is not None and self.lease.backend_start is not None:
            return bool(row["pid"] == self.lease.pid and row["start"] == self.lease.backend_start)
        return bool(row["name"] == self.name)


class Killer:
    """Kills for one endpoint; `fetch` runs a query over an admin connection, raising UpstreamUnavailable."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._due: set[_Due] = set()
        self._task: asyncio.Task[None] | None = None
        self._sooner = asyncio.Event()

    async def kill(self, lease: Lease, grace: float = 0.0) -> bool:
        """Return whether a session's process is verified gone; one told to end by itself gets `grace` seconds."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        look_at = now + min(grace, POLITE_SECONDS)
        due = _Due(lease, look_at, now + grace, now + KILL_SECONDS, loop.create_future())
        self._due.add(due)
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run(), name="kill")
        elif not grace:
            self._sooner.set()
        try:
            return await due.gone
        finally:
            self._due.discard(due)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._due:
            await self._until(min(one.look_at for one in self._due))
            try:
                await self._look(list(self._due), loop.time())
            except UpstreamUnavailable:
                await asyncio.sleep(0.1)
            except Exception as error:  # noqa: BLE001  one lease that no query takes must not keep the others alive
                _log.error("sessions could not be looked for together", error=str(error), type=type(error).__name__)
                await self._look_at_each(loop.time())
            self._give_up(loop.time())

    async def _until(self, moment: float) -> None:
        """Wait until there is somebody to look for."""
        self._sooner.clear()
        left = moment - asyncio.get_running_loop().time()
        if left > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._sooner.wait()

    async def _look_at_each(self, now: float) -> None:
        for one in list(self._due):
            try:
                await self._look([one], now)
            except Exception as error:  # noqa: BLE001  as above; this one is given up when its time is over
                _log.error("a session could not be looked for", session=one.lease.session, error=str(error))
        await asyncio.sleep(0.1)

    async def _look(self, due: list[_Due], now: float) -> None:
        rows = await self._fetch(
            _LOOK,
            [one.lease.pid for one in due if one.lease.pid is not None],
            [one.name for one in due],
            [one.identity for one in due if one.identity is not None],
        )
        wanted: list[dict[str, Any]] = []
        again = asyncio.get_running_loop().time() + POLL_SECONDS
        for one in due:
            one.look_at = again
            found = [row for row in rows if one.is_row(row)]
            if not found and not one.gone.done():
                one.gone.set_result(True)
                self._due.discard(one)
            elif found and now >= one.terminate_at:
                one.terminate_at = now + REPEAT_SECONDS
                wanted += found
        if wanted:
            await self._fetch(_TERMINATE, [row["pid"] for row in wanted], [row["start"] for row in wanted])

    def _give_up(self, now: float) -> None:
        for one in [one for one in self._due if now >= one.give_up_at]:
            self._due.discard(one)
            if not one.gone.done():
                one.gone.set_result(False)
