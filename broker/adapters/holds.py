"""Holds: opened by sessions, answered by signed answers, used once; each lives as long as the broker does.

A move is made in memory at once, so that exactly one of those who come together wins; it takes effect when its event is
on disk.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

import structlog

from broker.errors import RecordingFailed
from broker.sessions.holds import (
    Abandoned,
    Answer,
    Estimate,
    Hold,
    HoldFacts,
    Pending,
    Refused,
    Released,
    TimedOut,
    digest,
    likeness,
)
from broker.sessions.model import Entry
from broker.sessions.ports import Clock, Recorder
from broker.sessions.services import Refusal
from policies.engine.decisions import Requirement
from policies.engine.model import Policy
from workflows.holds import HoldEvent, HoldMoveIllegal, HoldState, moved
from workflows.orders import HoldAnswer
from workflows.reviews import Met, Missing, Review, Tally, tally
from workflows.reviews import Refused as Denied
from workflows.wire import EstimateView, HoldView, SizedRelation

RUN_AGAIN = timedelta(minutes=10)
"""How long an approval is good for where the client did not wait for it."""
MOST_PER_GRANT = 20
"""Holds of one grant that no client waits for; one more gives the oldest up."""
KEPT = 200
"""Holds that are over and can still be shown."""
_LIVE = frozenset({HoldState.WAITING, HoldState.RELEASED})
_OVER = {
    HoldState.RELEASED: "this statement was approved already",
    HoldState.CONSUMED: "this statement was approved already, and its approval is used",
    HoldState.REFUSED: "this statement was refused already",
    HoldState.TIMED_OUT: "nobody answered in time",
    HoldState.ABANDONED: "nobody waits for this statement any more",
}
_log = structlog.get_logger("holds")


class AnswerKey(Protocol):
    def hold_answer(self, token: str) -> HoldAnswer:
        """Return the answer inside a token; raises Refusal."""
        ...


class LoadedPolicies(Protocol):
    @property
    def current(self) -> Policy: ...

    @property
    def hash(self) -> str: ...

    async def reload(self) -> None: ...


@dataclass(slots=True)
class _Held:
    id: str
    facts: HoldFacts
    digest: str
    likeness: str
    opened_at: datetime
    expires_at: datetime
    answered: asyncio.Future[Answer]
    state: HoldState = HoldState.WAITING
    timer: asyncio.TimerHandle | None = None
    reviews: list[Review] = field(default_factory=list)
    answer: str = ""
    """The id of the answer that won."""
    estimate: Estimate | None = None
    most: int | None = None
    """How many rows the statement may touch, as it was shown when it was approved."""

    @property
    def shown_most(self) -> int | None:
        """How many rows an approval is good for, with what is known now."""
        bound = self.facts.bound
        return bound.rows(self.estimate.rows if self.estimate is not None else None) if bound is not None else None

    def view(self) -> HoldView:
        facts, grant = self.facts, self.facts.session.grant
        return HoldView(
            id=self.id,
            grant=grant.id,
            session=facts.session.id,
            statement=facts.statement,
            person=grant.person,
            resource=grant.resource,
            role=grant.role,
            state=self.state.value,
            digest=self.digest,
            text=facts.asked.text,
            parameters=list(facts.shown),
            effects=list(facts.effects),
            relations=list(facts.relations),
            reveals=list(facts.reveals),
            rules=list(facts.rules),
            needs=_needs(facts.requirement),
            in_transaction=facts.in_transaction,
            waits=facts.waits,
            redacted=facts.redacted,
            estimate=_estimate(self.estimate) if self.estimate is not None else None,
            most=self.shown_most if self.state is HoldState.WAITING else self.most,
            opened_at=self.opened_at,
            expires_at=self.expires_at,
        )


class HoldDesk:
    """Implements Holds for protocols, and the hold desk of the API."""

    def __init__(self, key: AnswerKey, recorder: Recorder, clock: Clock, policies: LoadedPolicies) -> None:
        self._key = key
        self._recorder = recorder
        self._clock = clock
        self._policies = policies
        self._live: dict[str, _Held] = {}
        self._over: OrderedDict[str, _Held] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, facts: HoldFacts) -> Hold:
        """Have a statement reviewed; raises RecordingFailed, as may what the hold's futures complete with."""
        if not facts.waits and (same := self._same(facts)) is not None:
            return self._at_once(same, _done(None), fresh=False)
        now = self._clock.now()
        ends = min(now + timedelta(seconds=facts.seconds), facts.session.grant.expires_at)
        loop = asyncio.get_running_loop()
        held = _Held(
            "h" + secrets.token_hex(8),
            facts,
            digest(facts, self._policies.hash),
            likeness(facts),
            now,
            ends,
            loop.create_future(),
        )
        opened = asyncio.ensure_future(self._recorder.write(_opened(held)))
        self._live[held.id] = held
        self._arm(held)
        if not facts.waits:
            self._make_room(facts.session.grant.id)
            return self._at_once(held, opened, fresh=True)
        # As it was opened: a slow machine must not say `up to 9m` of ten.
        return Hold(held.id, (ends - now).total_seconds(), True, opened, held.answered)

    def estimated(self, hold: str, estimate: Estimate) -> None:
        """Add what the upstream says of a held statement to what its reviewers see, once it is written down."""
        held = self._live.get(hold)
        if held is None or held.state is not HoldState.WAITING:
            return
        try:
            written = self._recorder.write(_entry(held, "hold.estimated", **_said(estimate)))
        except RecordingFailed as error:
            _log.error("an estimate is not recorded, so it is not shown", hold=hold, error=str(error))
            return
        held.estimate = estimate
        self._keep(_seen(written))

    def use(self, hold: str, requirement: Requirement | None) -> bool:
        """Use up an approval, once; False where it is over, or does not meet what policy demands by now.

        The caller records `hold.consumed`, together with the statement that it lets pass.
        """
        held = self._live.get(hold)
        if held is None or held.state is not HoldState.RELEASED or held.expires_at <= self._clock.now():
            return False
        if requirement is not None and not isinstance(self._tally(held, requirement, held.reviews), Met):
            self.drop(hold, "policy")
            return False
        self._go(held, HoldEvent.CONSUME)
        return True

    def drop(self, hold: str, reason: str) -> None:
        """Abandon a hold; one that is over already stays what it is."""
        if (held := self._live.get(hold)) is None:
            return
        self._go(held, HoldEvent.ABANDON)
        self._later(held, _entry(held, "hold.abandoned", reason=reason), Abandoned(hold, reason))

    def leave(self, session: str, reason: str) -> None:
        """Abandon every hold that a session which is over waits for."""
        for held in list(self._live.values()):
            if held.facts.session.id == session and held.facts.waits:
                self.drop(held.id, reason)

    def end(self, grant: str, reason: str) -> None:
        """Abandon every hold of a grant that is over."""
        for held in list(self._of(grant)):
            self.drop(held.id, reason)

    async def stop(self) -> None:
        """Abandon every hold because the broker stops."""
        for hold in list(self._live):
            self.drop(hold, "shutdown")
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def get(self, hold: str) -> HoldView:
        """Return a hold with all of its statement; raises Refusal `not_found`."""
        return self._find(hold).view()

    async def answer(self, hold: str, token: str) -> HoldView:
        """Answer a hold by a signed answer; raises Refusal, of which `over` and `more_reviews` are usual."""
        answer = self._key.hold_answer(token)
        held = self._find(hold)
        if answer.hold != hold or not secrets.compare_digest(answer.digest, held.digest):
            raise Refusal("order_invalid", "the answer is for another statement than this one")
        if answer.id == held.answer:
            return held.view()
        reviews = [review.review() for review in answer.reviews]
        found = self._tally(held, held.facts.requirement, reviews)
        if not isinstance(found, Met) and answer.policy_hash != self._policies.hash:
            # The bot may have read files that this process has not read yet.
            await self._policies.reload()
            found = self._tally(held, held.facts.requirement, reviews)
        if held.state is not HoldState.WAITING or held.expires_at <= self._clock.now():
            raise Refusal("over", _OVER.get(held.state, _OVER[HoldState.TIMED_OUT]))
        match found:
            case Missing(needs):
                raise Refusal("more_reviews", f"this still needs {found}", "ask for the reviews", needs)
            case Denied(by):
                await self._refuse(held, answer, by)
            case Met(by):
                await self._release(held, answer, by, reviews)
        return held.view()

    async def _refuse(self, held: _Held, answer: HoldAnswer, by: str) -> None:
        reason = next((review.reason for review in reversed(answer.reviews) if review.person == by), "")
        self._go(held, HoldEvent.REFUSE)
        held.answer = answer.id
        await self._now(held, _entry(held, "hold.refused", answer, by=by, reason=reason))
        _settle(held, Refused(held.id, self._policies.current.people[by].name, reason))

    async def _release(self, held: _Held, answer: HoldAnswer, by: tuple[str, ...], reviews: list[Review]) -> None:
        self._go(held, HoldEvent.RELEASE)
        held.answer, held.reviews, held.most = answer.id, reviews, held.shown_most
        if not held.facts.waits:
            held.expires_at = min(self._clock.now() + RUN_AGAIN, held.facts.session.grant.expires_at)
            self._arm(held)
        until = {"waits": held.facts.waits, "expires_at": held.expires_at}
        if held.most is not None:
            until["most"] = held.most
        await self._now(held, _entry(held, "hold.released", answer, by=list(by), **until))
        if held.state not in (HoldState.RELEASED, HoldState.CONSUMED):
            raise Refusal("over", _OVER[held.state])
        _settle(held, self._released(held))

    def _released(self, held: _Held) -> Released:
        people = self._policies.current.people
        by = (people[one.person].name for one in held.reviews if one.person in people)
        return Released(held.id, held.most, tuple(dict.fromkeys(by)))

    def _time_out(self, held: _Held) -> None:
        if held.state not in _LIVE:
            return
        if held.expires_at > self._clock.now():
            self._arm(held)
            return
        self._go(held, HoldEvent.TIME_OUT)
        self._later(held, _entry(held, "hold.timed_out"), TimedOut(held.id))

    def _go(self, held: _Held, event: HoldEvent) -> None:
        """Move a hold; raises Refusal `over` where somebody else was first."""
        try:
            held.state = moved(held.state, event)
        except HoldMoveIllegal:
            raise Refusal("over", _OVER[held.state]) from None
        if held.state in _LIVE:
            return
        if held.timer is not None:
            held.timer.cancel()
        del self._live[held.id]
        self._over[held.id] = held
        if len(self._over) > KEPT:
            self._over.popitem(last=False)

    async def _now(self, held: _Held, entry: Entry) -> None:
        """Record a move that a caller waits for; one that cannot be recorded lets nothing run."""
        try:
            await self._recorder.write(entry)
        except RecordingFailed as error:
            self._fail(held, error)
            raise

    def _later(self, held: _Held, entry: Entry, answer: Answer) -> None:
        """Record a move that nobody calls for, then say so to who waits."""

        async def record() -> None:
            try:
                await written
                _settle(held, answer)
            except RecordingFailed as error:
                self._fail(held, error)

        try:
            # Written before this returns, so that what comes after it is recorded after it.
            written = self._recorder.write(entry)
        except RecordingFailed as error:
            self._fail(held, error)
            return
        self._keep(record())

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _fail(self, held: _Held, error: RecordingFailed) -> None:
        _log.error("what became of a hold is not recorded", hold=held.id, error=str(error))
        if held.state in _LIVE:
            self._go(held, HoldEvent.ABANDON)
        _settle(held, Abandoned(held.id, "recording"))

    def _arm(self, held: _Held) -> None:
        if held.timer is not None:
            held.timer.cancel()
        held.timer = asyncio.get_running_loop().call_later(self._left(held), self._time_out, held)

    def _left(self, held: _Held) -> float:
        return max((held.expires_at - self._clock.now()).total_seconds(), 0.0)

    def _find(self, hold: str) -> _Held:
        held = self._live.get(hold) or self._over.get(hold)
        if held is None:
            raise Refusal("not_found", "there is no such hold")
        return held

    def _of(self, grant: str) -> Iterator[_Held]:
        return (held for held in self._live.values() if held.facts.session.grant.id == grant)

    def _same(self, facts: HoldFacts) -> _Held | None:
        same = likeness(facts)
        return next((held for held in self._live.values() if not held.facts.waits and held.likeness == same), None)

    def _at_once(self, held: _Held, opened: asyncio.Future[None], fresh: bool) -> Hold:
        answer = self._released(held) if held.state is HoldState.RELEASED else Pending(held.id)
        return Hold(held.id, self._left(held), fresh, opened, _done(answer))

    def _make_room(self, grant: str) -> None:
        nobody_waits = [held for held in self._of(grant) if not held.facts.waits]
        for held in nobody_waits[:-MOST_PER_GRANT]:
            self.drop(held.id, "client")

    def _tally(self, held: _Held, requirement: Requirement, reviews: list[Review]) -> Tally:
        return tally(self._policies.current, requirement, held.facts.session.grant.person, reviews)


def _settle(held: _Held, answer: Answer) -> None:
    if not held.answered.done():
        held.answered.set_result(answer)


def _done(value: Any) -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future


def _needs(requirement: Requirement) -> list[dict[str, Any]]:
    return [{"count": need.count, "groups": list(need.groups)} for need in requirement.needs]


def _opened(held: _Held) -> Entry:
    facts = held.facts
    data = {
        "hold": held.id,
        "statement": facts.statement,
        "digest": held.digest,
        "text": facts.redacted,
        "verb": facts.verb,
        "rules": list(facts.rules),
        "needs": _needs(facts.requirement),
        "relations": list(facts.relations),
        "effects": list(facts.effects),
        "reveals": list(facts.reveals),
        "waits": facts.waits,
        "expires_at": held.expires_at,
    }
    detail: dict[str, Any] = {"sql": facts.asked.text}
    if facts.shown:
        detail["parameters"] = list(facts.shown)
    return Entry("hold.opened", facts.session.grant.id, facts.session.id, data, detail)


def _entry(held: _Held, kind: str, answer: HoldAnswer | None = None, **data: Any) -> Entry:
    detail = {"answer": answer.model_dump(mode="json")} if answer is not None else {}
    session = held.facts.session
    return Entry(kind, session.grant.id, session.id, {"hold": held.id, **data}, detail)


def _said(estimate: Estimate) -> dict[str, Any]:
    view = _estimate(estimate).model_dump()
    return {key: value for key, value in view.items() if value not in (None, "", [])}


def _estimate(estimate: Estimate) -> EstimateView:
    sized = [SizedRelation(name=one.name, rows=one.rows, bytes=one.bytes) for one in estimate.relations]
    return EstimateView(
        relations=sized,
        rows=estimate.rows,
        why=estimate.why,
        locks=list(estimate.locks),
        cascades=list(estimate.cascades),
        triggers=list(estimate.triggers),
    )


async def _seen(written: Awaitable[None]) -> None:
    try:
        await written
    except RecordingFailed as error:
        _log.error("an estimate is not recorded", error=str(error))
