"""Runs one act of a person and waits for what they would see of it."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from ..directory import Person
from ..feed import QUIET_SECONDS, Watch
from ..limits import ACK_SECONDS
from ..workspace import Workspace
from .wire import Refused, Wish

LONGEST_WAIT = 30.0


class Act:
    """One thing a person does: who, since when, and what they have seen since."""

    def __init__(self, space: Workspace, person: Person, wish: Wish) -> None:
        self.space = space
        self.person = person
        self._started = time.monotonic()
        self._wait = _seconds(wish, "wait_ms", ACK_SECONDS)
        self._quiet = _seconds(wish, "settle_ms", QUIET_SECONDS)

    async def run(self, work: Coroutine[Any, Any, "Outcome"]) -> dict[str, Any]:
        """Does the work, waits for its consequences, and words the answer."""
        with self.space.feed.watched_by(Watch(self.person.id)) as watch:
            outcome = await work
            if outcome.waits and outcome.error is None:
                await watch.settle(self._started + self._wait, self._quiet)
            elif outcome.error is None:
                await asyncio.sleep(0)
            top = self.space.views.top(self.person.id)
            view = top.body if top else None
            if view is not None and outcome.errors:
                view = {**view, "errors": outcome.errors}
            answer = {
                "ok": outcome.error is None,
                "error": outcome.error,
                "messages": watch.messages(),
                "view": view,
            }
        if outcome.errors:
            answer["errors"] = outcome.errors
        return {**answer, **outcome.more}


class Outcome:
    """How the delivery of an act went; `waits` says that the app may still be at work on it."""

    def __init__(
        self, error: str | None = None, *, waits: bool = True, errors: dict[str, str] | None = None, **more: Any
    ) -> None:
        self.error = error
        self.waits = waits
        self.errors = errors or {}
        self.more = more


def _seconds(wish: Wish, key: str, default: float) -> float:
    value = wish.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise Refused("invalid_arguments")
    return min(float(value) / 1000, LONGEST_WAIT)
