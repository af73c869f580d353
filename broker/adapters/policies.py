"""The policy files as the broker obeys them: read at the start and when they change; the last good ones are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from broker.errors import RecordingFailed
from broker.sessions.model import Entry
from broker.sessions.ports import Recorder
from policies.engine.load import PolicyUnreadable, load, stamp
from policies.engine.model import Policy

POLL_SECONDS = 1.0
_log = structlog.get_logger("policies")


class PolicyFiles:
    """Implements the Policies port; the first load raises PolicyUnreadable, a later one keeps what is there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stamp = stamp(folder)
        self._policy = load(folder)
        self.hash = self._policy.hash
        """Looked at for each statement."""
        self._rejected: list[str] | None = None
        self._reloading = asyncio.Lock()
        self._recorder: Recorder | None = None
        self._changed: Callable[[], Awaitable[None]] | None = None
        self.heard: list[Callable[[Policy], None]] = []
        """Who is told of another policy at once, before anything is decided again."""

    @property
    def current(self) -> Policy:
        return self._policy

    @property
    def rejected(self) -> list[str] | None:
        """What is wrong with the files as they are now, where the last good ones are obeyed instead."""
        return self._rejected

    async def attach(self, recorder: Recorder, changed: Callable[[], Awaitable[None]]) -> None:
        """Record what is loaded, now and from now on, and tell who must decide again."""
        self._recorder, self._changed = recorder, changed
        await self._record("policy.loaded", {"hash": self.hash})

    async def poll(self) -> None:
        """Look at the files every second, for ever."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            if await asyncio.to_thread(stamp, self._folder) != self._stamp:
                await self.reload()

    async def reload(self) -> None:
        """Read the files again; what does not load is recorded once and not obeyed."""
        async with self._reloading:
            found = await asyncio.to_thread(stamp, self._folder)
            try:
                policy = await asyncio.to_thread(load, self._folder)
            except PolicyUnreadable as error:
                self._stamp = found
                if error.findings != self._rejected:
                    self._rejected = error.findings
                    await self._record("policy.rejected", {"findings": error.findings[:50]})
                    _log.error("policy rejected, the last good one is kept", findings=error.findings[:50])
                return
            self._stamp = found
            recovered, self._rejected = self._rejected is not None, None
            changed = policy.hash != self.hash
            if changed or recovered:
                self._policy, self.hash = policy, policy.hash
                for hear in self.heard:
                    hear(policy)
                await self._record("policy.loaded", {"hash": self.hash})
                _log.info("policy loaded", hash=self.hash)
        if changed and self._changed is not None:
            await self._changed()

    async def _record(self, kind: str, data: dict[str, object]) -> None:
        if self._recorder is None:
            return
        try:
            await self._recorder.write(Entry(kind, None, None, data))
        except RecordingFailed as error:
            # The policy counts all the same: keeping a wider one because a disk is full would not be safer.
            _log.error("not recorded", type=kind, error=str(error))
