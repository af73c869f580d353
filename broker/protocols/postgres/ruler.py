"""Has one session's statements ruled on; what takes time is awaited beside it, and comes as an event."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog

from broker.core import new_moves
from broker.protocols.postgres.events import Event, Ruled
from broker.protocols.postgres.inspector import Inspector, Matter
from broker.protocols.postgres.ruling import Denied, Permitted, Ruling
from broker.sessions.holds import Estimate
from broker.sql.model import Altered, SearchPath

_log = structlog.get_logger("postgres")
_UNRULED = Denied("58000", "this statement could not be decided", ("failure",), text="(undecided)")


class Ruler:
    """`feed` takes the rulings; one that cannot be had is a denial (fail closed)."""

    def __init__(self, inspector: Inspector, matter: Matter, session: str, feed: Callable[[Event], None]) -> None:
        self._inspector = inspector
        self._matter = matter
        self._session = session
        self._feed = feed
        self._tasks: set[asyncio.Future[None]] = set()
        self.moves = new_moves()
        """Counts the search paths of the session."""

    def known(self, sql: str) -> Ruling | None:
        """Return what was ruled on a text already."""
        return self._inspector.known(self._matter, sql)

    def alike(self, sql: str, marked: str) -> Permitted | None:
        """Return what was ruled on a text's whole shape, where none of it is rewritten."""
        return self._inspector.alike(self._matter, sql, marked)

    def basis(self) -> tuple[object | None, float]:
        """Return what rulings rest on now, and until when that need not be asked again while nothing moves."""
        return self._inspector.basis(self._matter)

    def inspect(self, sql: str, token: int, *, altered: Altered = Altered.NOT, types: tuple[int, ...] = ()) -> None:
        """Rule on a text."""
        matter = replace(self._matter, altered=altered, types=types) if altered or types else self._matter
        answer = self._inspector.rule(matter, sql)
        if isinstance(answer, Awaitable):
            self._soon(token, answer)
        else:
            self._feed(Ruled(token, answer, time.monotonic()))

    async def ruled(self, sql: str) -> Ruling:
        """Rule on a text before the session has begun; where an estimate would decide there is none."""
        try:
            answer = self._inspector.rule(self._matter, sql)
            ruling = await answer if isinstance(answer, Awaitable) else answer
            if isinstance(ruling, Permitted) and ruling.estimating:
                return self._inspector.weigh(self._matter, ruling, None)
            return ruling
        except Exception:  # noqa: BLE001 - denied, whatever it is
            _log.exception("a statement could not be decided", session=self._session)
            return _UNRULED

    def weigh(self, ruling: Permitted, estimating: Awaitable[Estimate], token: int) -> None:
        """Rule again with what the upstream's planner expects."""
        self._soon(token, self._weighed(ruling, estimating))

    def move(self, path: SearchPath | None) -> None:
        """The session has another search path."""
        self._matter = replace(self._matter, path=path)
        self.moves.count += 1

    def forget(self, *, own: bool) -> None:
        """The schema has changed, or may have; where it is a session's `own` doing, others hear of it."""
        self._inspector.forget(self._matter.key, own=own)

    async def ready(self) -> None:
        """Have a catalogue at hand; raises UpstreamUnavailable."""
        await self._inspector.ready(self._matter)

    async def _weighed(self, ruling: Permitted, estimating: Awaitable[Estimate]) -> Ruling:
        return self._inspector.weigh(self._matter, ruling, (await estimating).touched)

    def _soon(self, token: int, answer: Awaitable[Ruling]) -> None:
        task = asyncio.ensure_future(self._ruled(token, answer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ruled(self, token: int, answer: Awaitable[Ruling]) -> None:
        ruling: Ruling = _UNRULED
        try:
            ruling = await answer
        except Exception:  # noqa: BLE001 - denied, whatever it is
            _log.exception("a statement could not be decided", session=self._session)
        self._feed(Ruled(token, ruling, time.monotonic()))
