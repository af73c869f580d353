"""Brings reviews of holds before the broker, at once and until the hold is over."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import timedelta

import structlog

from bot import holds
from bot.adapters.boxes import Queued
from bot.adapters.broker import HttpBroker
from bot.adapters.desks import Desks
from bot.adapters.orders import UNAUTHORISED_TRIES, ordered
from bot.adapters.sender import Done, Later, Outcome
from bot.model import Given, Hold
from bot.outgoing import AnswerHold
from bot.ports import BrokerAway, Refusal
from workflows.holds import HoldState
from workflows.orders import HoldAnswer

log = structlog.get_logger()

FIRST_WAIT, LONGEST_WAIT = 0.1, 3.0
GRACE = timedelta(seconds=2)
"""How long after its time a hold is still tried: the broker's clock is the one that counts."""


class AnswerDesk:
    """Talks to the broker about holds, for the outbox."""

    def __init__(self, broker: HttpBroker, desks: Desks) -> None:
        self._broker = broker
        self._desks = desks

    async def answer(self, row: Queued, item: AnswerHold) -> Outcome:
        """Send all reviews of a hold so far; the same reviews have the same id, so that sending them twice is once."""
        async with self._desks.open() as (desk, work):
            hold = await work.hold(item.hold)
            given = await work.hold_reviews(hold) if hold else ()
        if hold is None or not given:
            return Done({"nothing": True})
        if hold.state is not HoldState.WAITING or hold.answered or hold.expires_at + GRACE < desk.now:
            return await self._late(row, item, None, "the broker did not answer in time", sure=False)
        token = self._broker.signed_answer(answer_of(hold, given, desk.policy_hash))
        try:
            view = await self._broker.answer_hold(hold.id, token)
        except BrokerAway as error:
            await self._desks.settle(lambda desk, _: holds.broker_away(desk, item, row.key))
            return Later(str(error), min(FIRST_WAIT * 2 ** min(row.attempts, 10), LONGEST_WAIT))
        except Refusal as error:
            return await self._refused(row, item, error)
        state = HoldState(view.state)
        await self._desks.settle(lambda desk, _: holds.decided(desk, item.hold, state))
        return Done({"state": state.value})

    async def _refused(self, row: Queued, item: AnswerHold, error: Refusal) -> Outcome:
        code = error.problem.code
        if error.status == 429 or (error.status == 401 and row.attempts < UNAUTHORISED_TRIES):
            return Later(error.problem.message, LONGEST_WAIT)
        log.info("answer.refused", hold=item.hold, code=code)
        if code == "over":
            return await self._late(row, item, await self._state(item.hold), error.problem.message)
        if code == "more_reviews":
            await self._desks.settle(lambda desk, _: holds.more_reviews(desk, item, error, row.key))
        else:
            await self._desks.settle(lambda desk, _: holds.not_taken(desk, item, error, row.key))
        return Done({"refused": code})

    async def _late(
        self, row: Queued, item: AnswerHold, state: HoldState | None, message: str, *, sure: bool = True
    ) -> Outcome:
        await self._desks.settle(lambda desk, _: holds.too_late(desk, item, state, message, row.key, sure=sure))
        return Done({"over": True})

    async def _state(self, hold: str) -> HoldState | None:
        """Ask what became of a hold; its event may still be on the way."""
        try:
            return HoldState((await self._broker.hold(hold)).state)
        except (BrokerAway, Refusal, ValueError):
            return None


def answer_of(hold: Hold, given: Sequence[Given], policy_hash: str) -> HoldAnswer:
    """Write the answer to a hold, with everybody's evidence."""
    reviews = [ordered(one) for one in given]
    written = "\n".join([hold.id, hold.digest, *(review.model_dump_json() for review in reviews)])
    id = hashlib.sha256(written.encode("utf-8", "backslashreplace")).hexdigest()[:32]
    return HoldAnswer(id=id, hold=hold.id, digest=hold.digest, reviews=reviews, policy_hash=policy_hash)
