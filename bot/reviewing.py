"""Decides what a click on a card does: approve, deny, cancel; who may, and what those hear who may not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from bot.asking import tell, to_thread
from bot.cards import Buttons, Card, Paragraph, plain, say
from bot.extensions import refresh_offers
from bot.intents import Approve, ApproveChanged, Cancel, OpenChanges, OpenDeny, Refuse, Source
from bot.lines import line
from bot.model import Given, Request, approvers
from bot.narrowing import Problem, Scene, answerable
from bot.outgoing import PostOrder, Say, ToPerson, card_of
from bot.ports import Desk, Member
from bot.request_card import again_button, may_ask_again
from bot.request_words import (
    given_words,
    name_of,
    names_of,
    requirement_words,
    subject_of,
    unanswered_words,
    which_words,
)
from bot.text import clip, reveal
from policies.engine.decisions import Deny, Requirement
from policies.engine.model import Policy
from workflows.requests import RequestEvent, RequestState
from workflows.reviews import Answer, Met, Missing, Refused, Tally, may_review, tally
from workflows.terms import Terms

NO_FORM = "The form did not open; press the button again."


def not_known(what: str = "request") -> str:
    """Answer a button that carries nothing known."""
    return f"This button belongs to no {what} that is known here, so nothing was done."


async def approve(desk: Desk, intent: Approve | ApproveChanged, member: Member, cause: str) -> None:
    """Count an approval of what was asked for, or of less; where it completes the requirement, order the grant."""
    changed = isinstance(intent, ApproveChanged)
    request = await _open(desk, intent.source, intent.token, member, cause, on_card=not changed)
    if request is None:
        return
    scene = await scene_of(desk, request, member.person)
    terms = scene.read(intent.role, intent.duration) if isinstance(intent, ApproveChanged) else request.asked
    if isinstance(terms, Problem):
        await tell(desk, intent.source, cause, plain(f"Nothing was approved. {terms.text}"))
        return
    less = terms if terms != request.asked else None
    given = Given(member.person, member.account, Answer.APPROVE, "", desk.now, intent.source.evidence(), less)
    agreed = scene.agreed((given,))
    if agreed is None:
        text = f"Nothing was approved: {scene.narrowed_by()} That is neither more nor less than {terms.role}."
        await tell(desk, intent.source, cause, plain(text))
        return
    needed = scene.needed(agreed)
    if isinstance(needed, Deny):
        text = f"The policy does not allow this request any more: {needed.message}."
        await tell(desk, intent.source, cause, plain(text))
        return
    await _count(desk, intent.source, _Approval(request, scene, given, agreed, needed), cause)


@dataclass(frozen=True, slots=True)
class _Approval:
    """An approval with what it comes to: what all agree on, and what policy needs for that."""

    request: Request
    scene: Scene
    given: Given
    agreed: Terms
    needed: Requirement

    @property
    def count(self) -> Tally:
        request = self.request
        if not self.needed.needs:
            return Met((self.given.person,))
        reviews = [one.review() for one in (*self.scene.others, self.given)]
        return tally(self.scene.policy, self.needed, request.requester, reviews)


async def _count(desk: Desk, source: Source, approval: _Approval, cause: str) -> None:
    request, given, count = approval.request, approval.given, approval.count
    who = name_of(desk.policy, given.person)
    earlier = next((one for one in await desk.work.reviews(request.id) if one.person == given.person), None)
    repeated = earlier is not None and (earlier.answer, earlier.terms) == (Answer.APPROVE, given.terms)
    if repeated and isinstance(count, Missing):
        words = requirement_words(desk.policy, count.needs, request.requester, count.by)
        await tell(desk, source, cause, plain(f"You have approved this already; it still needs {words}."))
        return
    if not repeated:
        await desk.work.add_review(request.id, given)
    narrowed = approval.agreed if approval.agreed != request.asked else None
    changes: dict[str, Any] = {"requirement": approval.needed, "narrowed": narrowed}
    terms = given.terms or request.asked
    facts: dict[str, Any] = {
        "person": who,
        "terms": given_words(request, terms) if given.terms or request.extends else "",
    }
    match count:
        case Met():
            order = desk.ids.token()
            changes |= {"order": order, "decided_at": desk.now, "decided_by": given.person, "note": None}
            request = await desk.work.move_request(
                request, RequestEvent.APPROVE, **changes, policy_hash=desk.policy_hash
            )
            await desk.work.send(f"order:{order}", f"order:{request.id}", PostOrder(request.id, order))
            text = line("approved", **facts, missing="")
            await to_thread(desk, request, f"{cause}:thread", text, mirrored=True)
            await _tell_of_less(desk, request, cause)
        case Missing():
            await desk.work.change_request(request, **changes)
            missing = requirement_words(desk.policy, count.needs, request.requester, count.by)
            text = line("approved", **facts, missing=missing)
            await to_thread(desk, request, f"{cause}:thread", text, mirrored=True)
            await tell(desk, source, cause, plain(f"Your approval counts; it still needs {missing}."))
        case Refused():
            await tell(desk, source, cause, plain("This request was denied by somebody else."))
    await desk.work.want(card_of(request.id), f"card:{request.id}")


async def _tell_of_less(desk: Desk, request: Request, cause: str) -> None:
    """Tell the requester what they get, where it is less than they asked for."""
    if request.narrowed is None:
        return
    by = [one.person for one in await desk.work.reviews(request.id) if one.answer is Answer.APPROVE and one.terms]
    who, given = names_of(desk.policy, by, "and") or "A reviewer", given_words(request, request.narrowed)
    where = "" if request.extends else f" on {request.resource}"
    text = f"{who} approved your request for {subject_of(request)} with changes: {given}{where}."
    await desk.work.send(f"{cause}:less", f"person:{request.account}", Say(ToPerson(request.account), plain(text)))


async def scene_of(desk: Desk, request: Request, person: str) -> Scene:
    """Return a request with what everybody but one person has answered."""
    others = tuple(given for given in await desk.work.reviews(request.id) if given.person != person)
    grant = await desk.work.grant(request.extends) if request.extends else None
    held = round((grant.expires_at - grant.opened_at).total_seconds()) if grant else 0
    return Scene(desk.policy, request, others, timedelta(seconds=held))


async def open_form(desk: Desk, intent: OpenDeny | OpenChanges, member: Member, cause: str) -> None:
    """Tell somebody why they got no form."""
    if await _open(desk, intent.source, intent.token, member, cause) is not None:
        await tell(desk, intent.source, cause, plain(NO_FORM))


async def refuse(desk: Desk, intent: Refuse, member: Member, cause: str) -> None:
    """Deny a request, with the reason that the form asked for."""
    request = await _open(desk, intent.source, intent.token, member, cause, on_card=False)
    if request is None:
        return
    given = Given(member.person, member.account, Answer.DENY, intent.reason, desk.now, intent.source.evidence())
    await desk.work.add_review(request.id, given)
    await desk.work.move_request(
        request, RequestEvent.DENY, decided_at=desk.now, decided_by=member.person, answer=intent.reason, note=None
    )
    who = name_of(desk.policy, member.person)
    await desk.work.want(card_of(request.id), f"card:{request.id}")
    await to_thread(
        desk, request, f"{cause}:thread", line("denied", person=who, which=which_words(request), reason=intent.reason)
    )
    asked = f"Your request for {subject_of(request)}"
    text = f"{asked} was denied by {who}: {clip(reveal(intent.reason), 2000)}"
    told = Card(text, (Paragraph(say(text)),))  # no prose: backticks of the reviewer's stay what they are
    await desk.work.send(f"{cause}:requester", f"person:{request.account}", Say(ToPerson(request.account), told))
    await refresh_offers(desk, request)


async def cancel(desk: Desk, intent: Cancel, member: Member, cause: str) -> None:
    """Take a request back; only its requester can."""
    request = await desk.work.request_by_token(intent.token)
    problem = not_known() if request is None else await misplaced(desk, intent.source, card_of(request.id))
    if problem or request is None:
        await tell(desk, intent.source, cause, plain(problem or not_known()))
    elif request.requester != member.person:
        who = name_of(desk.policy, request.requester)
        await tell(desk, intent.source, cause, plain(f"Only {who} can cancel this request."))
    elif late := lateness(desk.policy, request, approvers(await desk.work.reviews(request.id))):
        await tell(desk, intent.source, cause, plain(late))
    else:
        await withdraw(desk, request, member.person, cause)


async def withdraw(
    desk: Desk, request: Request, person: str | None, cause: str, note: str | None = None, reason: str = ""
) -> None:
    """Move a pending request to cancelled and say so; the reason is a person's, a note is ours."""
    await desk.work.move_request(
        request, RequestEvent.CANCEL, decided_at=desk.now, decided_by=person, note=note, answer=reason or None
    )
    await desk.work.want(card_of(request.id), f"card:{request.id}")
    who = name_of(desk.policy, person or request.requester)
    which = which_words(request)
    text = note or line("cancelled", person=who, which=which, reason=reason)
    if note and request.extends is not None:
        text = f"{which.capitalize()} is closed. {note}"
    await to_thread(desk, request, f"{cause}:{request.id}:cancelled", text)
    await refresh_offers(desk, request)


async def expire(desk: Desk, request: Request) -> None:
    """Close a request that nobody answered in time, and tell whoever asked."""
    request = await desk.work.move_request(request, RequestEvent.EXPIRE, decided_at=desk.now)
    await desk.work.want(card_of(request.id), f"card:{request.id}")
    key = f"expired:{request.id}"
    who = name_of(desk.policy, request.requester)
    reviews = await desk.work.reviews(request.id)
    why = unanswered_words(desk.policy, request.requirement, approvers(reviews))
    await to_thread(
        desk, request, f"{key}:thread", line("request_expired", person=who, which=which_words(request), why=why)
    )
    text = f"Your request for {subject_of(request)} has expired: {why}."
    grant = await desk.work.grant(request.extends) if request.extends else None
    buttons = (Buttons((again_button(request),)),) if may_ask_again(request, grant) else ()
    told = Say(ToPerson(request.account), plain(text, *buttons))
    await desk.work.send(f"{key}:requester", f"person:{request.account}", told)
    await refresh_offers(desk, request)


async def _open(
    desk: Desk, source: Source, token: str, member: Member, cause: str, on_card: bool = True
) -> Request | None:
    """Return the pending request behind a button; everybody else is told why not."""
    request = await desk.work.request_by_token(token)
    problem = await misplaced(desk, source, card_of(request.id)) if on_card and request is not None else None
    if request is not None and problem is None:
        if request.state is RequestState.PENDING and request.expires_at <= desk.now:
            await expire(desk, request)
            problem = "This request expired before anybody answered it, so nothing was done."
        else:
            problem = why_not(desk.policy, request, member.person, approvers(await desk.work.reviews(request.id)))
    if problem or request is None:
        await tell(desk, source, cause, plain(problem or not_known()))
        return None
    return request


async def misplaced(desk: Desk, source: Source, message: str, what: str = "request") -> str | None:
    """Say why a click does not come from the message that its button belongs to."""
    shown = await desk.work.shown(message)
    if shown is None or (shown.channel or desk.channel) != source.channel:
        return not_known(what)
    if shown.ts and shown.ts != source.message:
        return f"This is not the newest card of that {what}, so nothing was done."
    return None


def why_not(policy: Policy, request: Request, person: str, approved: Sequence[str] = ()) -> str | None:
    """Say why a person may not answer a request now, in words for them; None where they may.

    `approved` are those who have approved it.
    """
    if late := lateness(policy, request, approved):
        return late
    if not request.requirement.needs:
        return "This request needs no review."
    if ineligible := may_review(policy, answerable(policy, request), request.requester, person):
        return f"You cannot answer this request: {ineligible.reason}."
    return None


def lateness(policy: Policy, request: Request, approved: Sequence[str]) -> str | None:
    """Say what has become of a request that is not pending any more."""
    who = name_of(policy, request.decided_by) if request.decided_by else ""
    by = f" by {who}" if who else ""
    match request.state:
        case RequestState.PENDING:
            return None
        case RequestState.APPROVED:
            return f"This request was already approved by {names_of(policy, approved, 'and') or 'the policy'}."
        case RequestState.DENIED:
            return f"This request was already denied{by}."
        case RequestState.CANCELLED:
            return f"This request was cancelled{by}."
        case RequestState.EXPIRED:
            return "This request expired before anybody answered it."
