"""Extensions: an order moves the end of an active grant, and nothing else of it.

First the row moves, then the event is recorded, then sessions are told, each after its lease: whatever stops this
half-way, a session never lives longer than what is stored, recorded and known to the reaper.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from broker.adapters.clock import SystemClock, boot_id
from broker.adapters.judging import Judge
from broker.adapters.live import Live
from broker.adapters.recorder import FileRecorder
from broker.adapters.store import ExtensionRow, GrantRow, Store
from broker.sessions.model import Entry
from broker.sessions.services import Accepted, Refusal
from workflows.grants import GrantState
from workflows.orders import Order
from workflows.storage.boxes import RowMoved

TRIES = 5
ONLY_THE_END = "an extension may move only the end of a grant"
_log = structlog.get_logger("extensions")


class Extensions:
    """Moves ends of grants by orders; the caller lets one order of a grant in at a time."""

    def __init__(
        self,
        store: Store,
        recorder: FileRecorder,
        clock: SystemClock,
        live: Live,
        judge: Judge,
        extend_holds: Callable[[str, datetime], None],
    ) -> None:
        self._extend_holds = extend_holds
        self._store = store
        self._recorder = recorder
        self._clock = clock
        self._live = live
        self._judge = judge

    async def accept(self, order: Order, digest: str) -> Accepted:
        """Move the end of the grant that an order names; the same order again changes nothing. Raises Refusal."""
        if (made := await self._store.extension(order.id)) is not None:
            if made.order_digest != digest:
                raise Refusal("already", "another order of this id was accepted before")
            return Accepted((await self._settled(made)).view, made=False)
        if await self._store.grant_of_request(order.request) is not None:
            raise Refusal("already", "this request has a grant of its own", "ask again with a new request")
        for _ in range(TRIES):
            row = await self._open(order)
            granted = await self._judge.granted(order, row.seconds)
            if (active := self._live.active(row.id)) is None:
                continue  # it ended while this was judged: look again
            extension = ExtensionRow(
                order_id=order.id,
                order_digest=digest,
                order=order.model_dump(mode="json"),
                request=order.request,
                grant=row.id,
                seconds=order.seconds,
                before=row.expires_at,
                until=row.expires_at + timedelta(seconds=order.seconds),
                counted=list(granted.by),
                rules=list(granted.rules),
                accepted_at=self._clock.now(),
            )
            deadline = self._clock.boot() + active.left(self._clock) + order.seconds
            try:
                if not await self._store.extend(row, extension, boot_id(), deadline):
                    raise Refusal("already", "this request has extended a grant")
            except RowMoved:
                continue  # it ended, or a step of the clock moved its end: look again
            return Accepted((await self._settled(extension)).view, made=True)
        raise Refusal("unavailable", "this grant's end moves too often", "try again")

    async def recover(self, row: GrantRow) -> None:
        """Record what a crash kept from being recorded, before the grant is admitted with the end that is stored."""
        story = self._recorder.resume(row.id)
        for extension in await self._store.extensions_of(row.id):
            if extension.order_id not in story.extended:
                await self._recorder.write(_extended(extension))
            if not extension.recorded:
                await self._store.extension_recorded(extension.order_id)

    async def _open(self, order: Order) -> GrantRow:
        """Return the active grant that an order may extend; raises Refusal."""
        row = await self._store.grant(str(order.extends))
        if row is None:
            raise Refusal("not_found", "there is no such grant")
        if (order.requester, order.resource, order.role) != (row.person, row.resource, row.role):
            # Fail closed: whatever else an order wants to change needs a grant of its own.
            await self._refused(order.request, order.id, row, ONLY_THE_END)
            raise Refusal("denied", ONLY_THE_END)
        if row.state is not GrantState.ACTIVE or self._live.active(row.id) is None:
            raise await self._over(order.request, order.id, row)
        return row

    async def _settled(self, extension: ExtensionRow) -> GrantRow:
        """Record an extension that is stored, and let what is live have it; raises Refusal where it came too late."""
        row = await self._store.grant(extension.grant)
        if row is None:
            raise Refusal("not_found", "there is no such grant")
        if extension.recorded:
            return row
        if row.state is not GrantState.ACTIVE or self._live.active(row.id) is None:
            raise await self._over(extension.request, extension.order_id, row)
        if extension.order_id not in self._recorder.resume(row.id).extended:
            written = self._recorder.write(_extended(extension))
            self._live.extend(row)
            await written
        await self._store.extension_recorded(extension.order_id)
        await asyncio.shield(self._live.prolong(row.id))
        self._extend_holds(row.id, row.expires_at)
        _log.info("grant extended", grant=row.id, person=row.person, until=row.expires_at.isoformat())
        return row

    async def _over(self, request: str, order: str, row: GrantRow) -> Refusal:
        state = GrantState.EXPIRED if row.state is GrantState.ACTIVE else row.state
        message = f"this access is over ({state}), so it was not extended"
        await self._refused(request, order, row, message)
        return Refusal("over", message, f"ask again: /access {row.resource} {row.role}")

    async def _refused(self, request: str, order: str, row: GrantRow, reason: str) -> None:
        data = {"request": request, "order": order, "reason": reason}
        await self._recorder.write(Entry("extension.refused", row.id, None, data))


def _extended(extension: ExtensionRow) -> Entry:
    data = {
        "request": extension.request,
        "order": extension.order_id,
        "seconds": extension.seconds,
        "before": extension.before,
        "expires_at": extension.until,
        "by": extension.counted,
        "rules": extension.rules,
    }
    return Entry("grant.extended", extension.grant, None, data, {"order": extension.order})
