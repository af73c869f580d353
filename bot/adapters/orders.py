"""Sends orders to the broker and asks it to end grants; what it answers moves the request."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import structlog

from bot import ordering, shapes
from bot.adapters.boxes import Queued
from bot.adapters.broker import HttpBroker
from bot.adapters.desks import Desks
from bot.adapters.sender import Done, Later, Never, Outcome
from bot.cards import plain
from bot.model import Given, Request
from bot.ordering import Extended, Opened
from bot.outgoing import EndGrant, PostOrder, Say, ToPerson, WithdrawShape
from bot.ports import BrokerAway, Refusal
from workflows.orders import Order, OrderedReview, OrderedTerms
from workflows.requests import RequestState
from workflows.reviews import Answer
from workflows.terms import Terms
from workflows.wire import Problem

log = structlog.get_logger()

ORDER_PATIENCE = timedelta(hours=1)
"""How long an approved order is tried: what was approved for now must not open in the night."""
UNAUTHORISED_TRIES = 10
QUIET_TRIES = 2
"""Tries of which nobody hears: a broker that starts again is back after them."""


class OrderDesk:
    """Talks to the broker for the outbox."""

    def __init__(self, broker: HttpBroker, desks: Desks) -> None:
        self._broker = broker
        self._desks = desks

    async def post(self, row: Queued, item: PostOrder) -> Outcome:
        """Send an order; the same id again where the answer did not come."""
        async with self._desks.open() as (_, work):
            request = await work.request(item.request)
            given = await work.reviews(item.request)
        if request is None or request.state is not RequestState.APPROVED or request.order != item.order:
            return Done({"stale": True})
        if row.made_at + ORDER_PATIENCE < self._desks.clock.now():
            late = Problem(code="broker_away", message="it did not answer for an hour")
            return await self._refused(item, Refusal(0, late))
        try:
            view = await self._broker.post_order(self._broker.signed(order_of(request, item.order, given)))
        except BrokerAway as error:
            await self._desks.settle(lambda desk, _: ordering.waiting(desk, item.request, item.order))
            return Later(str(error), uncertain=True)
        except Refusal as error:
            if error.status == 429 or (error.status == 401 and row.attempts < UNAUTHORISED_TRIES):
                return Later(error.problem.message)
            return await self._refused(item, error)
        if request.extends is not None:
            moved = Extended(view.id, item.request, view.expires_at)
            await self._desks.settle(lambda desk, _: ordering.extended(desk, moved))
            return Done({"extended": view.id})
        facts = Opened(view.id, item.request, item.order, view.opened_at, view.expires_at)
        await self._desks.settle(lambda desk, _: ordering.opened(desk, facts))
        return Done({"grant": view.id})

    async def _refused(self, item: PostOrder, error: Refusal) -> Outcome:
        log.warning("order.refused", request=item.request, code=error.problem.code)
        await self._desks.settle(lambda desk, _: ordering.refused(desk, item.request, item.order, error))
        return Done({"refused": error.problem.code})

    async def end(self, row: Queued, item: EndGrant) -> Outcome:
        """Ask the broker to end a grant; what comes of it arrives as events."""
        try:
            await self._broker.end(item.grant, item.actor, "revoke" if item.revoke else "end", item.reason)
        except BrokerAway as error:
            if row.attempts >= QUIET_TRIES and item.actor != ordering.BOT:
                await self._say_not_yet(row, item)
            return Later(str(error), 1.0)
        except Refusal as error:
            if error.status == 429:
                return Later(error.problem.message)
            if error.status in (404, 409, 410):
                return Done({"over": True})
            await self._say_not_ended(row, item, error)
            return Never(f"{error.status} {error.problem.code}")
        return Done({})

    async def withdraw(self, row: Queued, item: WithdrawShape) -> Outcome:
        """Ask the broker to withdraw an approved shape; what comes of it arrives as an event."""
        try:
            await self._broker.withdraw_shape(item.shape, item.actor)
        except BrokerAway as error:
            return Later(str(error), 1.0)
        except Refusal as error:
            if error.status == 429:
                return Later(error.problem.message)
            return await self._not_withdrawn(row, item, error)
        return Done({})

    async def _not_withdrawn(self, row: Queued, item: WithdrawShape, error: Refusal) -> Outcome:
        await self._desks.settle(lambda desk, _: shapes.not_withdrawn(desk, item, error, row.key))
        return Done({"refused": error.problem.code})

    async def _say_not_yet(self, row: Queued, item: EndGrant) -> None:
        """Tell whoever ends access, once, that it goes on: they were told that it is being ended."""
        async with self._desks.open() as (desk, work):
            if (grant := await work.grant(item.grant)) is not None and grant.live:
                what = f"{grant.role} on {grant.resource}"
                text = f"The broker does not answer, so {what} is not ended yet. It is asked again every second."
                card = plain(f"{text} Tell whoever runs Airlock here.")
                await desk.work.send(f"{row.key}:away", f"person:{item.account}", Say(ToPerson(item.account), card))

    async def _say_not_ended(self, row: Queued, item: EndGrant, error: Refusal) -> None:
        card = plain(f"The broker did not end the access: {error.problem.message}.")
        async with self._desks.open() as (desk, _):
            await desk.work.send(f"{row.key}:failed", f"person:{item.account}", Say(ToPerson(item.account), card))


def order_of(request: Request, order: str, given: Sequence[Given]) -> Order:
    """Write the order of an approved request, with everybody's evidence."""
    return Order(
        id=order,
        kind="grant" if request.extends is None else "extension",
        extends=request.extends,
        request=request.id,
        requester=request.requester,
        requester_evidence=request.evidence,
        resource=request.resource,
        role=request.terms.role,
        seconds=request.terms.seconds,
        asked=_terms(request.asked) if request.narrowed else None,
        reason=request.reason,
        asked_at=request.asked_at,
        reviews=[ordered(one) for one in given],
        policy_hash=request.policy_hash,
    )


def ordered(given: Given) -> OrderedReview:
    """Write a review as orders carry it."""
    return OrderedReview(
        person=given.person,
        answer=Answer(given.answer),
        at=given.at,
        reason=given.reason,
        terms=_terms(given.terms) if given.terms else None,
        shape=given.shape,
        evidence=given.evidence,
    )


def _terms(terms: Terms) -> OrderedTerms:
    return OrderedTerms(role=terms.role, seconds=terms.seconds)
