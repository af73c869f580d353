"""Decides what a click on a card does: approve, deny, cancel; who may, and what those hear who may not."""

from __future__ import annotations

from datetime import timedelta

from bot.asking import tell, to_thread
from bot.cards import Card, Paragraph, plain, say
from bot.intents import Approve, Cancel, OpenDeny, Refuse, Source
from bot.lines import line
from bot.model import Given, Request
from bot.outgoing import PostOrder, Say, ToPerson, card_of
from bot.ports import Desk, Member
from bot.request_card import name_of, requirement_words
from bot.text import clip, reveal
from policies.engine.decide import decide_access
from policies.engine.decisions import Ask, Deny, Requirement
from policies.engine.model import Policy
from workflows.requests import RequestEvent, RequestState
from workflows.reviews import Answer, Met, Missing, Refused, may_review, tally


def not_known(what: str = "request") -> str:
    """Answer a button that carries nothing known."""
    return f"This button belongs to no {what} that is known here, so nothing was done."


async def approve(desk: Desk, intent: Approve, member: Member, cause: str) -> None:
    """Count an approval; where it completes the requirement, order the grant."""
    request = await _open(desk, intent.source, intent.token, member, cause)
    if request is None:
        return
    requirement, problem = _current_requirement(desk.policy, request)
    if problem:
        await tell(desk, intent.source, cause, plain(problem))
        return
    earlier = await desk.work.reviews(request.id)
    before = tally(desk.policy, requirement, request.requester, [given.review() for given in earlier])
    approved_before = any(given.person == member.person and given.answer is Answer.APPROVE for given in earlier)
    if approved_before and isinstance(before, Missing):
        words = requirement_words(desk.policy, before.needs, request.requester)
        await tell(desk, intent.source, cause, plain(f"You have approved this already; it still needs {words}."))
        return
    given = Given(member.person, member.account, Answer.APPROVE, "", desk.now, intent.source.evidence())
    if not approved_before:
        await desk.work.add_review(request.id, given)
        earlier = (*earlier, given)
    count = tally(desk.policy, requirement, request.requester, [one.review() for one in earlier])
    who = name_of(desk.policy, member.person)
    match count:
        case Met():
            order = desk.ids.token()
            changes = {"requirement": requirement, "order": order, "decided_at": desk.now, "decided_by": member.person}
            await desk.work.move_request(
                request, RequestEvent.APPROVE, **changes, note=None, policy_hash=desk.policy_hash
            )
            await desk.work.send(f"order:{order}", f"order:{request.id}", PostOrder(request.id, order))
            text = line("approved", person=who, missing="")
            await to_thread(desk, request, f"{cause}:thread", text, mirrored=True)
        case Missing():
            await desk.work.change_request(request, requirement=requirement)
            missing = requirement_words(desk.policy, count.needs, request.requester)
            text = line("approved", person=who, missing=missing)
            await to_thread(desk, request, f"{cause}:thread", text, mirrored=True)
            await tell(desk, intent.source, cause, plain(f"Your approval counts; it still needs {missing}."))
        case Refused():
            await tell(desk, intent.source, cause, plain("This request was denied by somebody else."))
    await desk.work.want(card_of(request.id), f"card:{request.id}")


async def open_deny(desk: Desk, intent: OpenDeny, member: Member, cause: str) -> None:
    """Tell those who may not deny; for the others the form is already open."""
    await _open(desk, intent.source, intent.token, member, cause)


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
        desk, request, f"{cause}:thread", line("denied", person=who, reason=clip(reveal(intent.reason), 1500))
    )
    asked = f"Your request for {request.role} on {request.resource}"
    text = f"{asked} was denied by {who}: {clip(reveal(intent.reason), 2000)}"
    told = Card(text, (Paragraph(say(text)),))  # no prose: backticks of the reviewer's stay what they are
    await desk.work.send(f"{cause}:requester", f"person:{request.account}", Say(ToPerson(request.account), told))


async def cancel(desk: Desk, intent: Cancel, member: Member, cause: str) -> None:
    """Take a request back; only its requester can."""
    request = await desk.work.request_by_token(intent.token)
    problem = not_known() if request is None else await misplaced(desk, intent.source, card_of(request.id))
    if problem or request is None:
        await tell(desk, intent.source, cause, plain(problem or not_known()))
    elif request.requester != member.person:
        who = name_of(desk.policy, request.requester)
        await tell(desk, intent.source, cause, plain(f"Only {who} can cancel this request."))
    elif late := lateness(desk.policy, request):
        await tell(desk, intent.source, cause, plain(late))
    else:
        await withdraw(desk, request, member.person, cause)


async def withdraw(desk: Desk, request: Request, person: str | None, cause: str, note: str | None = None) -> None:
    """Move a pending request to cancelled and say so."""
    await desk.work.move_request(request, RequestEvent.CANCEL, decided_at=desk.now, decided_by=person, note=note)
    await desk.work.want(card_of(request.id), f"card:{request.id}")
    text = note or line("cancelled", person=name_of(desk.policy, person or request.requester))
    await to_thread(desk, request, f"{cause}:{request.id}:cancelled", text)


async def expire(desk: Desk, request: Request) -> None:
    """Close a request that nobody answered in time, and tell whoever asked."""
    await desk.work.move_request(request, RequestEvent.EXPIRE, decided_at=desk.now)
    await desk.work.want(card_of(request.id), f"card:{request.id}")
    key = f"expired:{request.id}"
    who = name_of(desk.policy, request.requester)
    await to_thread(desk, request, f"{key}:thread", line("request_expired", person=who))
    text = f"Nobody answered your request for {request.role} on {request.resource} in time, so it has expired."
    await desk.work.send(f"{key}:requester", f"person:{request.account}", Say(ToPerson(request.account), plain(text)))


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
            problem = why_not(desk.policy, request, member.person)
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


def why_not(policy: Policy, request: Request, person: str) -> str | None:
    """Say why a person may not answer a request now, in words for them; None where they may."""
    if late := lateness(policy, request):
        return late
    if not request.requirement.needs:
        return "This request needs no review."
    if ineligible := may_review(policy, request.requirement, request.requester, person):
        return f"You cannot answer this request: {ineligible.reason}."
    return None


def lateness(policy: Policy, request: Request) -> str | None:
    """Say what has become of a request that is not pending any more."""
    who = name_of(policy, request.decided_by) if request.decided_by else ""
    by = f" by {who}" if who else ""
    match request.state:
        case RequestState.PENDING:
            return None
        case RequestState.APPROVED:
            return f"This request was already approved{by or ' by the policy'}."
        case RequestState.DENIED:
            return f"This request was already denied{by}."
        case RequestState.CANCELLED:
            return f"This request was cancelled{by}."
        case RequestState.EXPIRED:
            return "This request expired before anybody answered it."


def _current_requirement(policy: Policy, request: Request) -> tuple[Requirement, str | None]:
    """Return what is needed now: what was asked for at first, and what the policy has added since."""
    decision = decide_access(
        policy, request.requester, request.resource, request.role, timedelta(seconds=request.seconds)
    )
    match decision:
        case Deny(message=message):
            return request.requirement, f"The policy does not allow this request any more: {message}."
        case Ask(requirement=requirement):
            return request.requirement.merged(requirement), None
        case _:
            return request.requirement, None
