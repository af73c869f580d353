"""What people see happen, told to whoever watches on their behalf."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

QUIET_SECONDS = 0.15


@dataclass(frozen=True, slots=True)
class Effect:
    """One visible change; `readers` of None means everybody, `counts` says that the app caused it."""

    kind: str
    body: dict[str, Any]
    readers: frozenset[str] | None = None
    counts: bool = True

    def reaches(self, user: str) -> bool:
        """Says whether this person may see it."""
        return self.readers is None or user in self.readers


@dataclass(slots=True, eq=False)
class Watch:
    """The changes one person has seen since the watch began."""

    user: str
    effects: list[Effect] = field(default_factory=list)
    latest: float | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def see(self, effect: Effect) -> None:
        """Notes a change."""
        self.effects.append(effect)
        if effect.counts:
            self.latest = time.monotonic()
        self.changed.set()

    async def settle(self, deadline: float, quiet: float = QUIET_SECONDS) -> None:
        """Waits for the first change the app causes, then until nothing more comes for a moment."""
        while (now := time.monotonic()) < deadline:
            until = deadline if self.latest is None else min(deadline, self.latest + quiet)
            if now >= until:
                return
            self.changed.clear()
            try:
                await asyncio.wait_for(self.changed.wait(), until - now)
            except TimeoutError:
                continue

    def messages(self) -> list[dict[str, Any]]:
        """Gives the new and changed messages, each once, in its latest form, oldest first."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for effect in self.effects:
            if effect.kind == "message":
                found[effect.body["channel"], effect.body["ts"]] = effect.body
            elif effect.kind == "message_deleted":
                found.pop((effect.body["channel"], effect.body["ts"]), None)
        return sorted(found.values(), key=lambda message: str(message["ts"]))


class Watcher(Protocol):
    """Someone's eyes: told of every change that reaches them."""

    user: str

    def see(self, effect: Effect) -> None:
        """Takes note of a change."""


W = TypeVar("W", bound=Watcher)


class Feed:
    """Passes each change to those who watch for the people it reaches."""

    def __init__(self) -> None:
        self._watchers: list[Watcher] = []
        self._witnesses: list[Callable[[Effect], None]] = []

    def publish(self, effect: Effect) -> None:
        """Tells everyone concerned."""
        for witness in self._witnesses:
            witness(effect)
        for watcher in list(self._watchers):
            if effect.reaches(watcher.user):
                watcher.see(effect)

    def witnessed_by(self, witness: Callable[[Effect], None]) -> None:
        """Tells someone every change from now on, whomever it reaches."""
        self._witnesses.append(witness)

    @contextmanager
    def watched_by(self, watcher: W) -> Iterator[W]:
        """Tells a watcher everything until the block ends."""
        self._watchers.append(watcher)
        try:
            yield watcher
        finally:
            self._watchers.remove(watcher)
