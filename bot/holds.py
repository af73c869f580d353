"""Decides what a click on a held statement's card does, and what the broker's word on an answer means."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from bot.asking import tell, tell_at
from bot.cards import (
    Card,
    Paragraph,
    clock,
    moments,
    plain,
)
from bot.hold_card import hold_words, is_redacted
from bot.intents import ApproveHold, ApproveShape, OpenDenyHold, OpenReview, OpenShape, RefuseHold, ReviewHold, Source
from bot.model import Exhibit, Given, Grant, Hold
from bot.ordering import needs_from, raised
from bot.outgoing import AnswerHold, Privately, hold_of
from bot.ports import Desk, Member, Refusal
from bot.request_words import name_of, names_of, requirement_words
from bot.reviewing import NO_FORM, misplaced, not_known
from bot.text import one_line
from policies.engine.model import Policy
from workflows.holds import HoldState
from workflows.reviews import Answer, Met, Missing, Refused, Tally, may_review, tally

NOT_SHOWN = (
    "This statement has not been shown whole, so it cannot be approved: wait for the file in its thread, or deny it."
)
NOT_SHOWABLE = "This statement cannot be shown whole here, so it cannot be approved; it can be denied."
ONLY_IN_FORM = "This statement is shown, and approved, only behind Review on its card."
OTHER_STATEMENT = "This form showed another statement, so nothing was done."
AWAY = "The broker does not answer; it is asked again."
TAKEN = (HoldState.RELEASED, HoldState.CONSUMED)


async def approve(desk: Desk, intent: ApproveHold, member: Member, cause: str) -> None:
    """Count an approval and bring it before the broker, which decides whether it is enough."""
    found = await _open(desk, intent.source, intent.token, member, cause)
    if found is None:
        return
    hold, grant = found
    if is_redacted(desk.policy, grant.resource):
        await tell(desk, intent.source, cause, plain(ONLY_IN_FORM))
    else:
        await _approve(desk, hold, grant, intent.source, member, cause)


async def approve_shape(desk: Desk, intent: ApproveShape, member: Member, cause: str) -> None:
    """Count an approval of a statement and of its shape; of whoever sent the form, whoever opened it."""
    found = await _open(desk, intent.source, intent.token, member, cause, on_card=False)
    if found is None:
        return
    if intent.digest != found[0].digest:
        await tell(desk, intent.source, cause, plain(OTHER_STATEMENT))
    else:
        await _approve(desk, *found, intent.source, member, cause, intent.shape)


async def _approve(
    desk: Desk, hold: Hold, grant: Grant, source: Source, member: Member, cause: str, shape: str | None = None
) -> None:
    reviews = await desk.work.hold_reviews(hold)
    count = _count(desk.policy, hold, grant, reviews)
    same = (member.person, Answer.APPROVE, shape)
    approved = any((one.person, one.answer, one.shape) == same for one in reviews)
    problem = _answered_words(desk.policy, count) if hold.note is None else None
    if not hold.readable:
        problem = NOT_SHOWABLE if hold.exhibit is Exhibit.IMPOSSIBLE else NOT_SHOWN
    elif problem is None and approved and hold.note is None and isinstance(count, Missing):
        words = requirement_words(desk.policy, count.needs, grant.person, count.by)
        problem = f"You have approved this already; it still needs {words}."
    if problem:
        await tell(desk, source, cause, plain(problem))
    else:
        given = Given(member.person, member.account, Answer.APPROVE, "", desk.now, source.evidence(), shape=shape)
        await _give(desk, hold, given, source, cause)


async def open_form(desk: Desk, intent: OpenDenyHold | OpenReview | OpenShape, member: Member, cause: str) -> None:
    """Tell somebody why they got no form."""
    if await _open(desk, intent.source, intent.token, member, cause) is not None:
        await tell(desk, intent.source, cause, plain(NO_FORM))


async def refuse(desk: Desk, intent: RefuseHold, member: Member, cause: str) -> None:
    """Deny a statement; also where it was approved a moment ago, as long as the broker has not let it go."""
    found = await _open(desk, intent.source, intent.token, member, cause, on_card=False)
    if found is not None:
        await _refuse(desk, *found, intent, member, cause)


async def _refuse(
    desk: Desk, hold: Hold, grant: Grant, intent: RefuseHold | ReviewHold, member: Member, cause: str
) -> None:
    count = _count(desk.policy, hold, grant, await desk.work.hold_reviews(hold))
    if isinstance(count, Refused) and hold.note is None:
        await tell(desk, intent.source, cause, plain(_answered_words(desk.policy, count) or ""))
    else:
        evidence = intent.source.evidence()
        given = Given(member.person, member.account, Answer.DENY, intent.reason, desk.now, evidence)
        await _give(desk, hold, given, intent.source, cause)


async def review(desk: Desk, intent: ReviewHold, member: Member, cause: str) -> None:
    """Count the answer of a form that showed a statement whole; of whoever sent it, whoever opened it."""
    found = await _open(desk, intent.source, intent.token, member, cause, on_card=False)
    if found is None:
        return
    hold, grant = found
    if intent.digest != hold.digest:
        await tell(desk, intent.source, cause, plain(OTHER_STATEMENT))
    elif intent.answer is Answer.DENY:
        await _refuse(desk, hold, grant, intent, member, cause)
    else:
        await _approve(desk, hold, grant, intent.source, member, cause)


async def _give(desk: Desk, hold: Hold, given: Given, source: Source, cause: str) -> None:
    await desk.work.add_hold_review(hold, given)
    # A guarded change, so that of two clicks at once the later sees the earlier one's review.
    await desk.work.change_hold(hold, note=None)
    place = Privately(source.account, source.channel, source.thread, source.reply_url)
    await desk.work.send(f"{cause}:answer", f"answer:{hold.id}", AnswerHold(hold.id, given.answer, place))


async def _open(
    desk: Desk, source: Source, token: str, member: Member, cause: str, on_card: bool = True
) -> tuple[Hold, Grant] | None:
    """Return the waiting hold behind a button, and its grant; everybody else is told why not."""
    hold = await desk.work.hold_by_token(token)
    grant = await desk.work.grant(hold.grant) if hold else None
    problem: str | None = not_known("statement")
    if hold is not None and grant is not None:
        problem = await misplaced(desk, source, hold_of(hold.id), "statement") if on_card else None
        problem = problem or why_not(desk.policy, hold, grant, member.person, desk.now)
        if problem is None:
            return hold, grant
    await tell(desk, source, cause, plain(problem or ""))
    return None


def why_not(policy: Policy, hold: Hold, grant: Grant, person: str, now: datetime) -> str | None:
    """Say why a person may not answer a hold now, in words for them; None where they may."""
    if late := lateness(policy, hold, grant):
        return late
    if hold.expires_at <= now:
        return "The time of this statement is over: nobody answered it, so it does not run."
    if not grant.live:
        return f"The access is over ({grant.state.value}), so this statement does not run."
    if ineligible := may_review(policy, hold.requirement, grant.person, person):
        return f"You cannot answer this: {ineligible.reason}."
    return None


def lateness(policy: Policy, hold: Hold, grant: Grant) -> str | None:
    """Say what has become of a hold that does not wait any more."""
    by = f" by {names_of(policy, hold.people, 'and')}" if hold.people else ""
    match hold.answered if hold.state is HoldState.WAITING else hold.state:
        case HoldState.RELEASED:
            return f"This statement was already approved{by}."
        case HoldState.CONSUMED:
            return f"This statement was already approved{by}, and ran."
        case HoldState.REFUSED:
            return f"This statement was already denied{by}."
        case HoldState.TIMED_OUT | HoldState.ABANDONED as over:
            words = hold_words(policy, hold, grant.person, ()) if hold.state is over else "Nobody waits for it."
            return f"This statement is over. {words}"
        case _:
            return None


def _count(policy: Policy, hold: Hold, grant: Grant, reviews: Sequence[Given]) -> Tally:
    return tally(policy, hold.requirement, grant.person, [given.review() for given in reviews])


def _answered_words(policy: Policy, count: Tally) -> str | None:
    match count:
        case Met(by=people):
            return f"This statement was already approved by {names_of(policy, people, 'and')}."
        case Refused(by=person):
            return f"This statement was already denied by {name_of(policy, person)}."
        case Missing():
            return None


async def broker_away(desk: Desk, item: AnswerHold, cause: str) -> None:
    """Tell whoever answered, once, that the broker is asked again; the card cannot say it, its text is the broker's."""
    hold = await desk.work.hold(item.hold)
    if hold is not None and hold.state is HoldState.WAITING and hold.note is None:
        await desk.work.change_hold(hold, note=AWAY)
        text = f"The broker does not answer. Your answer is kept, and sent again until {clock(hold.expires_at)}."
        card = Card(text, (Paragraph(moments(text, hold.expires_at)),))
        await tell_at(desk, item.place, f"{cause}:away", card)


async def decided(desk: Desk, id: str, state: HoldState) -> None:
    """Take note of what the broker made of the reviews; its event moves the hold."""
    hold = await desk.work.hold(id)
    if hold is not None and state is not HoldState.WAITING and hold.answered is None:
        await desk.work.change_hold(hold, answered=state, note=None)


async def more_reviews(desk: Desk, item: AnswerHold, refusal: Refusal, cause: str) -> None:
    """Keep waiting for what the broker's policy still wants, and tell whoever answered whether they count."""
    hold = await desk.work.hold(item.hold)
    grant = await desk.work.grant(hold.grant) if hold else None
    if hold is None or grant is None or hold.state is not HoldState.WAITING:
        return
    reviews = [given.review() for given in await desk.work.hold_reviews(hold)]
    wanted = needs_from(refusal.problem.needs or ())
    requirement = raised(desk.policy, hold.requirement, grant.person, reviews, wanted)
    await desk.work.change_hold(hold, requirement=requirement, note=None)
    await desk.work.want(hold_of(hold.id), f"hold:{hold.id}")
    count = tally(desk.policy, requirement, grant.person, reviews)
    needs, approved = (count.needs, count.by) if isinstance(count, Missing) else (wanted, ())
    words = requirement_words(desk.policy, needs, grant.person, approved)
    said = (
        "Your approval counts" if item.answer is Answer.APPROVE else "By the broker's policy your denial does not count"
    )
    await tell_at(desk, item.place, cause, plain(f"{said}; it still needs {words}."))


async def not_taken(desk: Desk, item: AnswerHold, refusal: Refusal, cause: str) -> None:
    """Say that the broker did not take an answer, and why; the hold waits for another."""
    message = f"The broker did not take the answer: {one_line(refusal.problem.message, 300).rstrip('.')}."
    hold = await desk.work.hold(item.hold)
    if hold is not None and hold.state is HoldState.WAITING:
        await desk.work.change_hold(hold, note=message)
        await desk.work.want(hold_of(hold.id), f"hold:{hold.id}")
    await tell_at(desk, item.place, cause, plain(message))


async def too_late(
    desk: Desk, item: AnswerHold, now: HoldState | None, message: str, cause: str, *, sure: bool = True
) -> None:
    """Tell whoever answered what had become of the hold, unless it is what they wanted.

    It is not `sure` that the answer changed nothing where the broker's own answer may have been lost.
    """
    hold = await desk.work.hold(item.hold)
    grant = await desk.work.grant(hold.grant) if hold else None
    if hold is None or grant is None:
        return
    state = now or hold.answered or hold.state
    if hold.state is HoldState.WAITING and state is not HoldState.WAITING and hold.answered is None:
        hold = await desk.work.change_hold(hold, answered=state, note=None)
    if state is HoldState.REFUSED if item.answer is Answer.DENY else state in TAKEN:
        return
    late = lateness(desk.policy, hold, grant)
    words = late or f"This statement is over: {one_line(message, 300).rstrip('.')}."
    effect = "Your answer changed nothing." if sure or late else "The thread says what became of it when it does."
    await tell_at(desk, item.place, cause, plain(f"{words} {effect}"))
