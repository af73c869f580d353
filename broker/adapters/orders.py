"""Orders become grants: checked, tallied again under the broker's own policy, recorded, then opened."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from broker.adapters.callers import OrderKey
from broker.adapters.clock import SystemClock, boot_id
from broker.adapters.extensions import Extensions
from broker.adapters.judging import Granted, Judge
from broker.adapters.live import Live
from broker.adapters.metrics import Metrics
from broker.adapters.policies import PolicyFiles
from broker.adapters.recorder import FileRecorder
from broker.adapters.store import GrantRow, Store
from broker.errors import AirlockError, Misconfigured, RecordingFailed
from broker.sessions.eventchain import canonical
from broker.sessions.model import Entry
from broker.sessions.ports import Endpoints, Offer
from broker.sessions.services import Accepted, Refusal
from workflows.grants import GrantEvent, GrantState
from workflows.orders import Order
from workflows.storage.boxes import RowMoved

_log = structlog.get_logger("orders")


class OrderDesk:
    """Implements Orders: the same order gives the same grant, one request gives one grant."""

    def __init__(
        self,
        key: OrderKey,
        store: Store,
        recorder: FileRecorder,
        clock: SystemClock,
        live: Live,
        policies: PolicyFiles,
        endpoints: Endpoints,
        offers: Mapping[str, Offer],
        metrics: Metrics,
        extend_holds: Callable[[str, datetime], None],
    ) -> None:
        self._key = key
        self._store = store
        self._recorder = recorder
        self._clock = clock
        self._live = live
        self._policies = policies
        self._endpoints = endpoints
        self._offers = offers
        self._metrics = metrics
        self._judge = Judge(policies, recorder)
        self.extensions = Extensions(store, recorder, clock, live, self._judge, extend_holds)
        self._turns: dict[str, tuple[asyncio.Lock, int]] = {}

    async def accept(self, token: str) -> Accepted:
        """Open a grant by a signed order, or move the end of one; raises Refusal."""
        try:
            order = self._key.order(token)
            accepted = await self._accept(order)
        except Refusal as refusal:
            self._metrics.orders.labels(refusal.code).inc()
            raise
        except RecordingFailed as error:
            self._metrics.orders.labels("recording").inc()
            raise Refusal("recording", f"nothing can be recorded: {error}", "look at the broker's disk") from None
        self._metrics.orders.labels(("extended" if order.extends else "opened") if accepted.made else "repeated").inc()
        return accepted

    async def finish(self, row: GrantRow) -> GrantRow:
        """Open a grant that a crash left opening, or refuse it where it cannot be opened any more."""
        story = self._recorder.resume(row.id)
        if "grant.refused" in story.types:
            return await self._refuse(row, "the broker refused it before it stopped")
        if row.expires_at <= self._clock.now():
            return await self._refuse(row, "the broker was away for the whole of its time")
        return await self._open(row, Granted(tuple(row.order.get("counted", ())), ()))

    async def _accept(self, order: Order) -> Accepted:
        digest = hashlib.sha256(canonical(order.model_dump(mode="json"))).hexdigest()
        if order.extends is not None:
            # One grant at a time, so that two extensions of it see each other.
            async with self._turn(order.extends):
                return await self.extensions.accept(order, digest)
        async with self._turn(order.request):
            if (row := await self._store.grant_of_order(order.id)) is not None:
                if row.order_digest != digest:
                    raise Refusal("already", "another order of this id was accepted before")
                if row.state is GrantState.OPENING:
                    row = await self.finish(row)
                return self._answer(row, made=False)
            held = await self._store.grant_of_request(order.request)
            if held is not None and held.state is not GrantState.REFUSED:
                raise Refusal("already", f"this request has a grant, {held.id}", "ask again with a new request")
            if await self._store.extension_of_request(order.request) is not None:
                raise Refusal("already", "this request has extended a grant", "ask again with a new request")
            granted = await self._judge.granted(order)
            row = self._row(order, digest, granted)
            if not await self._store.insert(row):
                raise Refusal("already", "this request has a grant")
            return self._answer(await self._open(row, granted), made=True)

    def _answer(self, row: GrantRow, made: bool) -> Accepted:
        if row.state is GrantState.REFUSED:
            raise Refusal("refused", row.over_reason or "the broker refused this order")
        return Accepted(row.view, made)

    def _row(self, order: Order, digest: str, granted: Granted) -> GrantRow:
        now = self._clock.now()
        return GrantRow(
            id="g" + secrets.token_hex(8),
            request=order.request,
            order_id=order.id,
            order_digest=digest,
            order={**order.model_dump(mode="json"), "counted": list(granted.by)},
            person=order.requester,
            resource=order.resource,
            role=order.role,
            seconds=order.seconds,
            state=GrantState.OPENING,
            opened_at=now,
            expires_at=now + timedelta(seconds=order.seconds),
            boot_id=boot_id(),
            boot_deadline=self._clock.boot() + order.seconds,
            policy=self._policies.hash,
        )

    async def _open(self, row: GrantRow, granted: Granted) -> GrantRow:
        try:
            self._resolve(row)
        except AirlockError as error:
            return await self._refuse(row, str(error))
        if "grant.opened" not in self._recorder.resume(row.id).types:
            await self._recorder.write(_opened(row, granted))
        try:
            state = await self._store.move(row, GrantEvent.OPEN)
        except RowMoved:
            return await self._store.grant(row.id) or row
        row = replace(row, state=state)
        self._live.admit(row)
        _log.info("grant opened", grant=row.id, person=row.person, resource=row.resource, role=row.role)
        return row

    async def _refuse(self, row: GrantRow, reason: str) -> GrantRow:
        data = {"request": row.request, "order": row.order_id, "reason": reason}
        if "grant.refused" not in self._recorder.resume(row.id).types:
            await self._recorder.write(Entry("grant.refused", row.id, None, data))
        try:
            state = await self._store.move(row, GrantEvent.REFUSE, "broker", reason)
        except RowMoved:
            return await self._store.grant(row.id) or row
        self._recorder.forget(row.id)
        return replace(row, state=state, over_by="broker", over_reason=reason)

    def _resolve(self, row: GrantRow) -> None:
        """Raise Misconfigured where the resource cannot be reached as this role; its message has no secret."""
        resource = self._policies.current.resources.get(row.resource)
        if resource is None or row.role not in resource.roles:
            raise Misconfigured(f"{row.role} on {row.resource} is not in the policy any more")
        if resource.protocol not in self._offers:
            raise Misconfigured(f"this broker does not speak `{resource.protocol}`")
        self._endpoints.of(row.resource, row.role)

    @asynccontextmanager
    async def _turn(self, request: str) -> AsyncIterator[None]:
        lock, waiting = self._turns.get(request, (asyncio.Lock(), 0))
        self._turns[request] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._turns[request]
            if waiting == 1:
                del self._turns[request]
            else:
                self._turns[request] = (lock, waiting - 1)


def _opened(row: GrantRow, granted: Granted) -> Entry:
    data = {
        "request": row.request,
        "order": row.order_id,
        "person": row.person,
        "resource": row.resource,
        "role": row.role,
        "opened_at": row.opened_at,
        "expires_at": row.expires_at,
        "policy": row.policy,
        "by": list(granted.by),
        "rules": list(granted.rules),
    }
    return Entry("grant.opened", row.id, None, data, {"order": row.order})
