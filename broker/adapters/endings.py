"""How grants end: by people, the clock or policy; sessions are cut and verified, then the recording is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

import structlog

from broker.adapters.clock import SystemClock
from broker.adapters.live import Active, Live
from broker.adapters.policies import PolicyFiles
from broker.adapters.recorder import FileRecorder
from broker.adapters.store import GrantRow, Store, StoreUnavailable
from broker.adapters.stories import commitment
from broker.errors import RecordingFailed
from broker.sessions.model import CloseReason, Entry
from broker.sessions.services import EndedView, EndKind, Refusal
from policies.engine.decide import decide_access
from policies.engine.decisions import Deny
from workflows.grants import GrantEvent, GrantState, moved
from workflows.storage.boxes import RowMoved
from workflows.wire import GrantView

TICK_SECONDS = 0.5
STORE_PATIENCE = 0.1
END_PATIENCE = 5.0
DRAIN_PATIENCE = 30.0
_REASONS = {
    GrantState.ENDED: CloseReason.ENDED,
    GrantState.EXPIRED: CloseReason.EXPIRED,
    GrantState.REVOKED: CloseReason.REVOKED,
}
EVENTS = {
    GrantState.ENDED: "grant.ended",
    GrantState.EXPIRED: "grant.expired",
    GrantState.REVOKED: "grant.revoked",
}
_log = structlog.get_logger("grants")


@dataclass(frozen=True, slots=True)
class Ending:
    """Why an active grant ends."""

    event: GrantEvent
    by: str | None = None
    reason: str | None = None


@dataclass(slots=True)
class _Closing:
    """An ending under way; `killed` completes when the sessions are cut, the task when all of it is recorded."""

    killed: asyncio.Future[bool]
    task: asyncio.Task[None]


class GrantBook:
    """Implements Grants, and watches the clock and the policy for what must end.

    `left` hears of a grant that is over, and why, before its sessions are cut.
    """

    def __init__(
        self,
        store: Store,
        recorder: FileRecorder,
        clock: SystemClock,
        live: Live,
        policies: PolicyFiles,
        left: Callable[[str, str], None] = lambda _grant, _reason: None,
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._clock = clock
        self._live = live
        self._policies = policies
        self._left = left
        self._closings: dict[str, _Closing] = {}
        self._stopping = False

    async def get(self, grant: str) -> GrantView:
        """Return a grant; raises Refusal `not_found`."""
        return (await self._row(grant)).view

    async def of_request(self, request: str) -> GrantView:
        """Return the grant that a request gave; raises Refusal `not_found`."""
        row = await self._store.grant_of_request(request)
        if row is None:
            raise Refusal("not_found", "this request has no grant")
        return row.view

    async def end(self, grant: str, by: str, reason: str, kind: EndKind | None) -> EndedView:
        """End a grant and its sessions; one that is over already stays what it is. Raises Refusal."""
        row = await self._row(grant)
        if row.state in (GrantState.OPENING, GrantState.REFUSED):
            raise Refusal("over", f"this grant is {row.state}")
        if row.state is GrantState.ACTIVE:
            ends = kind == "end" or (kind is None and by == row.person)
            self.begin(row, Ending(GrantEvent.END if ends else GrantEvent.REVOKE, by, reason))
        verified = bool(row.verified)
        if (closing := self._closings.get(grant)) is not None:
            try:
                verified = await asyncio.wait_for(asyncio.shield(closing.killed), END_PATIENCE)
            except TimeoutError:
                verified = False
        return EndedView(**(await self._row(grant)).view.model_dump(), verified=verified)

    def begin(self, row: GrantRow, ending: Ending | None) -> None:
        """Let nothing more open under a grant and end what is open; `ending` is None where its row says it is over."""
        if row.id in self._closings:
            return
        self._live.dismiss(row.id)
        killed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._run(row, ending, killed), name=f"end {row.id}")
        self._closings[row.id] = _Closing(killed, task)

    async def watch(self) -> None:
        """End what is past its end, for ever."""
        while True:
            try:
                await self.tick()
            except Exception as error:  # noqa: BLE001  the watch outlives whatever happens to one look
                _log.error("the watch over grants stumbled", error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(min([TICK_SECONDS, *(active.left(self._clock) for active in self._live.grants())]))

    async def tick(self) -> None:
        """Look once at both clocks."""
        if (behind := self._clock.stepped_back()) is not None:
            await self._stepped(behind)
        self._clock.follow()
        for active in self._live.grants():
            if active.left(self._clock) <= 0:
                self.begin(active.row, Ending(GrantEvent.EXPIRE))

    async def reconsider(self) -> None:
        """Revoke what the policy as it is now would not give."""
        for active in self._live.grants():
            row = active.row
            seconds = timedelta(seconds=row.seconds)
            match decide_access(self._policies.current, row.person, row.resource, row.role, seconds):
                case Deny(message):
                    self.begin(row, Ending(GrantEvent.REVOKE, "policy", f"policy: {message}"))
                case _:
                    pass

    async def stop(self, patience: float) -> None:
        """Wait for endings under way, but not for ever."""
        self._stopping = True
        if tasks := [closing.task for closing in self._closings.values()]:
            _, late = await asyncio.wait(tasks, timeout=patience)
            for task in late:
                task.cancel()

    async def _run(self, row: GrantRow, ending: Ending | None, killed: asyncio.Future[bool]) -> None:
        state = row.state if ending is None else moved(row.state, ending.event)
        try:
            kill: asyncio.Task[bool] | None = None
            if ending is not None:
                move = asyncio.create_task(self._moved(row, ending))
                # The store gets a moment to say so first; a store that hangs must not keep a session alive.
                await asyncio.wait({move}, timeout=STORE_PATIENCE)
                if not move.done():
                    kill = asyncio.create_task(self._live.end(row.id, _REASONS[state]))
                actual = await move
                state = actual if actual in _REASONS else state
            self._announce(row, state, ending)
            self._left(row.id, _REASONS[state].value)
            kill = kill or asyncio.create_task(self._live.end(row.id, _REASONS[state]))
            verified = await kill
            if not killed.done():
                killed.set_result(verified)
            drained = await self._live.drained(row.id, DRAIN_PATIENCE)
            # Once more: a session may have had a statement held while it was being cut.
            self._left(row.id, _REASONS[state].value)
            await self._close(row, state, ending, verified and drained)
        finally:
            if not killed.done():
                killed.set_result(False)
            self._closings.pop(row.id, None)

    async def _moved(self, row: GrantRow, ending: Ending) -> GrantState | None:
        """Move the row and return its state; None where the store does not answer, which is put right later."""
        try:
            return await self._store.move(row, ending.event, ending.by, ending.reason)
        except RowMoved:
            found = await self._store.grant(row.id)
            return found.state if found else None
        except StoreUnavailable as error:
            _log.error("a grant's end is not stored yet", grant=row.id, error=str(error))
            return None

    def _announce(self, row: GrantRow, state: GrantState, ending: Ending | None) -> None:
        try:
            if EVENTS[state] in self._recorder.resume(row.id).types:
                return
            by = ending.by if ending else row.over_by
            reason = ending.reason if ending else row.over_reason
            facts = {"state": state.value, "by": by, "reason": reason, "request": row.request}
            self._recorder.write(Entry(EVENTS[state], row.id, None, {k: v for k, v in facts.items() if v is not None}))
        except RecordingFailed as error:
            _log.error("a grant's end is not recorded", grant=row.id, error=str(error))

    async def _close(self, row: GrantRow, state: GrantState, ending: Ending | None, verified: bool) -> None:
        """Record the end and the closing, however long the disk refuses, then say so in the store."""
        while not self._stopping:
            if not await self._recorded(row, state, ending, verified):
                await asyncio.sleep(TICK_SECONDS)
                continue
            try:
                if ending is not None:
                    await self._moved_at_last(row, ending)
                await self._store.close(row.id, self._clock.now(), verified)
            except StoreUnavailable:
                await asyncio.sleep(TICK_SECONDS)
                continue
            except RowMoved:
                pass
            break
        self._recorder.forget(row.id)

    async def _recorded(self, row: GrantRow, state: GrantState, ending: Ending | None, verified: bool) -> bool:
        try:
            story = self._recorder.resume(row.id)
            if EVENTS[state] not in story.types:
                self._announce(row, state, ending)
            if EVENTS[state] not in story.types:
                return False
            if not story.closed:
                totals = {**story.totals(), "verified": verified, "request": row.request}
                # The line itself is the recording's last: `recording` is the head that it closes.
                facts = {**totals, "recording": commitment(story.head)}
                await self._recorder.write(Entry("grant.closed", row.id, None, facts))
        except RecordingFailed as error:
            _log.error("a grant is not closed yet", grant=row.id, error=str(error))
            return False
        return True

    async def _moved_at_last(self, row: GrantRow, ending: Ending) -> None:
        found = await self._store.grant(row.id)
        if found is not None and found.state is GrantState.ACTIVE:
            await self._store.move(found, ending.event, ending.by, ending.reason)

    async def _stepped(self, behind: timedelta) -> None:
        """Give every grant the end, on the wall clock as it is now, that leaves what was left of it."""
        _log.warning("the wall clock was set back", seconds=round(behind.total_seconds(), 3))
        for active in self._live.grants():
            await self._shorten(active)
        self._clock.anchor()
        try:
            self._recorder.write(Entry("clock.stepped", None, None, {"seconds": -round(behind.total_seconds(), 3)}))
        except RecordingFailed as error:
            _log.error("a step of the clock is not recorded", error=str(error))

    async def _shorten(self, active: Active) -> None:
        end = self._clock.wall() + timedelta(seconds=max(active.left(self._clock), 0))
        if end >= active.facts.expires_at:
            return
        active.facts = replace(active.facts, expires_at=end)
        active.row = replace(active.row, expires_at=end)
        try:
            await self._store.shorten(active.row.id, end)
        except StoreUnavailable as error:
            _log.error("a grant's end is not moved in the store", grant=active.row.id, error=str(error))

    async def _row(self, grant: str) -> GrantRow:
        row = await self._store.grant(grant)
        if row is None:
            raise Refusal("not_found", "there is no such grant")
        return row
