"""Holds: opened by sessions, answered by signed answers, used once; each lives as long as the broker does.

A move is made in memory at once, so that exactly one of those who come together wins; it takes effect when its event is
on disk.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Coroutine, Iterator
from datetime import datetime, timedelta
from typing import Any, Protocol

import structlog

from broker.adapters.held import Held, entry_of, opened_entry, said
from broker.adapters.shapes import ShapeBook
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
    Sought,
    TimedOut,
    digest,
    likeness,
)
from broker.sessions.model import Entry
from broker.sessions.ports import Clock, Recorder
from broker.sessions.services import Refusal
from broker.sessions.shapes import ShapeRule
from policies.engine.decisions import Requirement
from policies.engine.model import Policy
from workflows.holds import HoldEvent, HoldMoveIllegal, HoldState, moved
from workflows.orders import HoldAnswer
from workflows.reviews import Met, Missing, Review, Tally, tally
from workflows.reviews import Refused as Denied
from workflows.wire import HoldView

RUN_AGAIN = timedelta(minutes=10)
"""How long an approval is good for where the client did not wait for it."""
TO_RUN = timedelta(seconds=10)
"""How long at least where it does: the statement is looked up once more, and one in the last moment counts too."""
MOST_PER_GRANT = 20
"""Holds of one grant that no client waits for; one more gives the oldest up, of those that nobody has approved."""
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


class HoldDesk:
    """Implements Holds for protocols, and the hold desk of the API."""

    def __init__(
        self, key: AnswerKey, recorder: Recorder, clock: Clock, policies: LoadedPolicies, shapes: ShapeBook
    ) -> None:
        self._key = key
        self._recorder = recorder
        self._clock = clock
        self._policies = policies
        self._shapes = shapes
        self._live: dict[str, Held] = {}
        self._over: OrderedDict[str, Held] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, facts: HoldFacts) -> Hold:
        """Have a statement reviewed; raises RecordingFailed, as may what the hold's futures complete with."""
        if not facts.waits and (same := self._same(likeness(facts.session.grant, facts.asked))) is not None:
            return self._at_once(same, _done(None), fresh=False)
        now = self._clock.now()
        loop = asyncio.get_running_loop()
        held = Held(
            "h" + secrets.token_hex(8),
            facts,
            digest(facts, self._policies.hash),
            likeness(facts.session.grant, facts.asked),
            now,
            now + timedelta(seconds=facts.seconds),
            facts.session.grant.expires_at,
            loop.create_future(),
        )
        opened = asyncio.ensure_future(self._recorder.write(opened_entry(held)))
        self._live[held.id] = held
        self._arm(held)
        if not facts.waits:
            self._make_room(held)
            return self._at_once(held, opened, fresh=True)
        # As it was opened: a slow machine must not say `up to 9m` of ten.
        return Hold(held.id, (held.expires_at - now).total_seconds(), True, opened, held.answered)

    def estimated(self, hold: str, estimate: Estimate) -> None:
        """Add what the upstream says of a held statement to what its reviewers see, once it is written down."""
        held = self._live.get(hold)
        if held is None or held.state is not HoldState.WAITING:
            return
        try:
            written = self._recorder.write(entry_of(held, "hold.estimated", **said(estimate)))
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

    def match(self, sought: Sought) -> ShapeRule | None:
        """Return the rule of an approved shape; None where the approval of this very statement is to be used first."""
        same = None if sought.waits else self._same(likeness(sought.grant, sought.asked))
        return None if same is not None and same.state is HoldState.RELEASED else self._shapes.match(sought)

    def drop(self, hold: str, reason: str) -> None:
        """Abandon a hold; one that is over already stays what it is."""
        if (held := self._live.get(hold)) is None:
            return
        self._go(held, HoldEvent.ABANDON)
        self._later(held, entry_of(held, "hold.abandoned", reason=reason), Abandoned(hold, reason))

    def alive(self, hold: str) -> bool:
        """Say whether a hold can still be answered, or its approval used."""
        return hold in self._live

    def leave(self, session: str, reason: str) -> None:
        """Abandon every hold that a session which is over waits for."""
        for held in list(self._live.values()):
            if held.facts.session.id == session and held.facts.waits:
                self.drop(held.id, reason)

    def extend(self, grant: str, until: datetime) -> None:
        """Let the holds of a grant wait, or be good, as long as they would have if it had always ended then."""
        for held in list(self._of(grant)):
            before, held.grant_ends = held.expires_at, max(until, held.grant_ends)
            if held.expires_at == before:
                continue
            try:
                written = self._recorder.write(entry_of(held, "hold.prolonged", expires_at=held.expires_at))
            except RecordingFailed as error:
                # Fail closed: what is not recorded ends when it would have.
                held.wanted = before
                _log.error("a hold is not prolonged", hold=held.id, error=str(error))
                continue
            self._arm(held)
            self._keep(_seen(written))

    def end(self, grant: str, reason: str) -> None:
        """Abandon every hold of a grant that is over."""
        for held in list(self._of(grant)):
            self.drop(held.id, reason)
        self._shapes.end(grant)

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

    async def _refuse(self, held: Held, answer: HoldAnswer, by: str) -> None:
        reason = next((review.reason for review in reversed(answer.reviews) if review.person == by), "")
        # Looked up before it is written: the policy may be another one, without them, after that.
        refused = Refused(held.id, self._policies.current.people[by].name, reason)
        self._go(held, HoldEvent.REFUSE)
        held.answer = answer.id
        await self._now(held, entry_of(held, "hold.refused", answer, by=by, reason=reason))
        _settle(held, refused)

    async def _release(self, held: Held, answer: HoldAnswer, by: tuple[str, ...], reviews: list[Review]) -> None:
        self._go(held, HoldEvent.RELEASE)
        held.answer, held.reviews, held.counted, held.most = answer.id, reviews, by, held.shown_most
        good = self._clock.now() + (TO_RUN if held.facts.waits else RUN_AGAIN)
        if not held.facts.waits or good > held.expires_at:
            held.wanted = good
            self._arm(held)
        until = {"waits": held.facts.waits, "expires_at": held.expires_at}
        if held.most is not None:
            until["most"] = held.most
        await self._now(held, entry_of(held, "hold.released", answer, by=list(by), **until))
        if held.state not in (HoldState.RELEASED, HoldState.CONSUMED):
            raise Refusal("over", _OVER[held.state])
        try:
            # In force before who waits hears: the next statement of a script is of the same shape, and comes at once.
            await self._shapes.approve(held, answer)
        finally:
            if held.state in (HoldState.RELEASED, HoldState.CONSUMED):
                _settle(held, self._released(held))

    def _released(self, held: Held) -> Released:
        people = self._policies.current.people
        return Released(held.id, held.most, tuple(people[one].name for one in held.counted if one in people))

    def _time_out(self, held: Held) -> None:
        if held.state not in _LIVE:
            return
        if held.expires_at > self._clock.now():
            self._arm(held)
            return
        self._go(held, HoldEvent.TIME_OUT)
        self._later(held, entry_of(held, "hold.timed_out"), TimedOut(held.id))

    def _go(self, held: Held, event: HoldEvent) -> None:
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

    async def _now(self, held: Held, entry: Entry) -> None:
        """Record a move that a caller waits for; one that cannot be recorded lets nothing run."""
        try:
            await self._recorder.write(entry)
        except RecordingFailed as error:
            self._fail(held, error)
            raise

    def _later(self, held: Held, entry: Entry, answer: Answer) -> None:
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

    def _fail(self, held: Held, error: RecordingFailed) -> None:
        _log.error("what became of a hold is not recorded", hold=held.id, error=str(error))
        if held.state in _LIVE:
            self._go(held, HoldEvent.ABANDON)
        _settle(held, Abandoned(held.id, "recording"))

    def _arm(self, held: Held) -> None:
        if held.timer is not None:
            held.timer.cancel()
        held.timer = asyncio.get_running_loop().call_later(self._left(held), self._time_out, held)

    def _left(self, held: Held) -> float:
        return max((held.expires_at - self._clock.now()).total_seconds(), 0.0)

    def _find(self, hold: str) -> Held:
        held = self._live.get(hold) or self._over.get(hold)
        if held is None:
            raise Refusal("not_found", "there is no such hold")
        return held

    def _of(self, grant: str) -> Iterator[Held]:
        return (held for held in self._live.values() if held.facts.session.grant.id == grant)

    def _same(self, same: str) -> Held | None:
        return next((held for held in self._live.values() if not held.facts.waits and held.likeness == same), None)

    def _at_once(self, held: Held, opened: asyncio.Future[None], fresh: bool) -> Hold:
        answer = self._released(held) if held.state is HoldState.RELEASED else Pending(held.id)
        return Hold(held.id, self._left(held), fresh, opened, _done(answer))

    def _make_room(self, new: Held) -> None:
        grant = new.facts.session.grant.id
        others = [held for held in self._of(grant) if not held.facts.waits and held is not new]
        others.sort(key=lambda held: held.state is HoldState.RELEASED)
        for held in others[: max(len(others) + 1 - MOST_PER_GRANT, 0)]:
            self.drop(held.id, "crowded")

    def _tally(self, held: Held, requirement: Requirement, reviews: list[Review]) -> Tally:
        return tally(self._policies.current, requirement, held.facts.session.grant.person, reviews)


def _settle(held: Held, answer: Answer) -> None:
    if not held.answered.done():
        held.answered.set_result(answer)


def _done(value: Any) -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future


async def _seen(written: Awaitable[None]) -> None:
    try:
        await written
    except RecordingFailed as error:
        _log.error("what is known of a hold is not recorded", error=str(error))
