"""Decides what becomes of an ask: a request for reviewers, access at once, or an answer with what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from bot.cards import Card, Code, MessageLink, Note, Paragraph, Spans, prose, say
from bot.grant_cards import counted, holding_card
from bot.intents import Ask, Source
from bot.model import Grant, Request
from bot.outgoing import InThread, Mirror, PostOrder, Privately, Say, card_of, counter_of
from bot.ports import Desk, Member
from bot.request_card import duration_of, requirement_words
from bot.text import LINES_SHOWN, REASON_SHOWN, excerpt, length, one_line, reveal
from policies.engine.decide import decide_access, may_ask, terms_of
from policies.engine.decisions import Allow, Decision, Deny, Requirement
from policies.engine.decisions import Ask as AskDecision
from policies.engine.durations import DurationUnreadable, format_duration, parse_duration
from policies.engine.model import Policy
from workflows.requests import RequestEvent, RequestState

COUNTER_PACE = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Wish:
    """An ask whose words all mean something."""

    resource: str
    role: str
    duration: timedelta
    reason: str


async def tell(desk: Desk, source: Source, cause: str, card: Card) -> None:
    """Answer somebody privately, where they are."""
    await tell_at(desk, Privately(source.account, source.channel, source.thread, source.reply_url), cause, card)


async def tell_at(desk: Desk, place: Privately, cause: str, card: Card) -> None:
    """Answer somebody privately, where they were."""
    await desk.work.send(f"{cause}:tell", f"tell:{place.account}", Say(place, card))


async def ask(desk: Desk, intent: Ask, member: Member, cause: str) -> None:
    """Answer an ask: deny, give at once, or put a card before the reviewers."""
    wish = understood(desk.policy, member.person, intent, desk.command)
    if isinstance(wish, Card):
        await tell(desk, intent.source, cause, wish)
        return
    decision = decide_access(desk.policy, member.person, wish.resource, wish.role, wish.duration)
    if isinstance(decision, Deny):
        await tell(desk, intent.source, cause, denied_card(decision))
        return
    pending = await desk.work.requests_of(member.person)
    asked = (wish.resource, wish.role, int(wish.duration.total_seconds()), wish.reason)
    if same := [r for r in pending if (r.resource, r.role, r.seconds, r.reason) == asked]:
        await tell(desk, intent.source, cause, _duplicate_card(same[0]))
        return
    if len(pending) >= desk.pending_cap:
        await tell(desk, intent.source, cause, _cap_card(pending, desk.command))
        return
    await _file(desk, intent, member, wish, decision, cause)


async def _file(desk: Desk, intent: Ask, member: Member, wish: Wish, decision: Allow | AskDecision, cause: str) -> None:
    terms = terms_of(desk.policy, member.person, wish.resource, wish.role)
    request = Request(
        id=desk.ids.short("rq"),
        token=desk.ids.token(),
        state=RequestState.PENDING,
        requester=member.person,
        account=member.account,
        resource=wish.resource,
        role=wish.role,
        seconds=int(wish.duration.total_seconds()),
        reason=wish.reason,
        requirement=decision.requirement if isinstance(decision, AskDecision) else Requirement(()),
        rules=decision.rules,
        policy_hash=desk.policy_hash,
        asked_at=desk.now,
        expires_at=desk.now + terms.pending_for,
        asked_in=intent.source.channel,
        evidence=intent.source.evidence(),
    )
    held = [g for g in await desk.work.live_grants(member.person, wish.resource) if g.role == wish.role]
    await desk.work.add_request(request)
    match decision:
        case Allow():
            order = desk.ids.token()
            request = await desk.work.move_request(
                request, RequestEvent.APPROVE, order=order, decided_at=desk.now, policy_hash=desk.policy_hash
            )
            await desk.work.send(f"order:{order}", f"order:{request.id}", PostOrder(request.id, order))
            card = _given_card(request)
        case AskDecision():
            card = _waiting_card(desk.policy, request)
    await desk.work.want(card_of(request.id), f"card:{request.id}")
    place = Privately(member.account, intent.source.channel, intent.source.thread, intent.source.reply_url)
    # In the card's lane, so that the link has something to point at.
    await desk.work.send(f"{cause}:tell", f"card:{request.id}", Say(place, card))
    if held:
        again = holding_card(held[0], isinstance(decision, AskDecision))
        await desk.work.send(f"{cause}:held", f"tell:{member.account}", Say(place, again))


def understood(policy: Policy, person: str, intent: Ask, command: str) -> Wish | Card:
    """Return what the words mean, or what would be right; the nearest name is suggested, never taken."""
    terms = may_ask(policy, person)
    resources = list(dict.fromkeys(term.resource for term in terms))
    if intent.resource not in resources:
        return _wrong_resource(policy, person, intent, resources, command)
    roles = [term.role for term in terms if term.resource == intent.resource]
    if intent.role is None or intent.role not in roles:
        return _wrong_role(policy, person, intent, roles, command)
    limit = format_duration(
        next(t.max_duration for t in terms if (t.resource, t.role) == (intent.resource, intent.role))
    )
    if intent.duration is None:
        problem = f"for how long? At most {limit}, like `30m` or `1h`."
        return wrong_card(policy, person, problem, command, _line(policy, person, command, intent, duration="30m"))
    try:
        duration = parse_duration(intent.duration)
    except DurationUnreadable as error:
        right = _line(policy, person, command, intent)
        return wrong_card(policy, person, _ended(reveal(str(error))), command, right)
    if intent.extra:
        problem = "a reason comes after the word `because`."
        return wrong_card(policy, person, problem, command, _line(policy, person, command, intent, reason=intent.extra))
    if excerpt(intent.reason)[1]:
        return wrong_card(policy, person, _too_long(intent.reason), command, None)
    return Wish(intent.resource, intent.role, duration, intent.reason)


def _too_long(reason: str) -> str:
    """Refuse a reason that the card would cut: reviewers approve what they see, so all of it must be there."""
    shown = reveal(reason)
    has = f"{counted(length(shown), 'character')} and {counted(shown.count(chr(10)) + 1, 'line')}"
    return (
        f"reviewers must see all of a reason, and a card shows {REASON_SHOWN:,} characters and {LINES_SHOWN} lines of "
        f"it; this one has {has}. Say it shorter, or say where the rest can be read."
    )


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith("?") else f"{sentence}."


def _wrong_resource(policy: Policy, person: str, intent: Ask, resources: list[str], command: str) -> Card:
    typed = one_line(intent.resource, 60).replace("`", "'")
    if intent.resource in policy.resources:
        problem = f"you may not ask for `{typed}`: no rule of the policy gives it to you."
        return wrong_card(policy, person, problem, command, None)
    near = difflib.get_close_matches(intent.resource[:63].lower(), resources, n=1)
    if not near:
        return wrong_card(policy, person, f"there is no resource `{typed}`.", command, None)
    problem = f"there is no resource `{typed}`; did you mean `{near[0]}`?"
    return wrong_card(policy, person, problem, command, _line(policy, person, command, intent, resource=near[0]))


def _wrong_role(policy: Policy, person: str, intent: Ask, roles: list[str], command: str) -> Card:
    listed = " or ".join(f"`{role}`" for role in roles)
    if intent.role is None:
        problem = f"as what? On {intent.resource} you may ask for {listed}."
        return wrong_card(policy, person, problem, command, _line(policy, person, command, intent, role=roles[0]))
    typed = one_line(intent.role, 60).replace("`", "'")
    if intent.role in policy.resources[intent.resource].roles:
        problem = f"you may not ask for `{typed}` on {intent.resource}; you may ask for {listed}."
        return wrong_card(policy, person, problem, command, None)
    near = difflib.get_close_matches(intent.role[:63].lower(), roles, n=1)
    ending = f"; did you mean `{near[0]}`?" if near else "."
    problem = f"there is no role `{typed}` on {intent.resource}{ending} You may ask for {listed}."
    return wrong_card(
        policy,
        person,
        problem,
        command,
        _line(policy, person, command, intent, role=near[0] if near else roles[0]),
    )


def _line(policy: Policy, person: str, command: str, intent: Ask, **right: str) -> str:
    """Return a command that would be right: what is wrong beside the first mistake is put right as well."""
    terms = may_ask(policy, person)
    resource = right.get("resource", intent.resource)
    roles = [term.role for term in terms if term.resource == resource]
    role = right.get("role", intent.role or "")
    if role not in roles:
        role = next(iter(difflib.get_close_matches(role[:63].lower(), roles, n=1)), roles[0])
    limit = next(term.max_duration for term in terms if (term.resource, term.role) == (resource, role))
    duration = _readable(right.get("duration", intent.duration or ""), limit)
    reason = right.get("reason", intent.reason or intent.extra)
    text = f"{command} {resource} {role} {duration}"
    return one_line(f"{text} because {reason}" if reason else text, 300)


def _readable(text: str, limit: timedelta) -> str:
    """Return a duration that is given: the one that is written, the one that was probably meant, or half an hour."""
    try:
        value = parse_duration(text)
    except DurationUnreadable as error:
        value = parse_duration(error.meant or "30m")
    return format_duration(min(value, limit))


def wrong_card(policy: Policy, person: str, problem: str, command: str, right: str | None) -> Card:
    """Say what is wrong, what would be right, and what this person may ask for."""
    sentence = problem[:1].upper() + problem[1:]
    parts: list[Paragraph | Code | Note] = [Paragraph(prose(sentence))]
    if right:
        parts += [Paragraph(say("Try:")), Code(right)]
    parts += [Paragraph(say(row)) for row in choices(policy, person)]
    parts.append(Note(say(f"{command} help says more.")))
    return Card(sentence, tuple(parts))


def choices(policy: Policy, person: str) -> list[str]:
    """Return what a person may ask for, a row each."""
    terms = may_ask(policy, person)
    if not terms:
        return ["There is nothing that you may ask for: no rule of the policy speaks of you."]
    rows = []
    for term in terms[:20]:
        who = "at once" if isinstance(term.decision, Allow) else "after review"
        if isinstance(term.decision, AskDecision):
            who = f"after review by {requirement_words(policy, term.decision.requirement.needs, person)}"
        rows.append(f"{term.resource} {term.role}, at most {format_duration(term.max_duration)}, {who}")
    if len(terms) > len(rows):
        rows.append(f"and {len(terms) - len(rows)} more")
    return ["You may ask for:\n" + "\n".join(f"• {row}" for row in rows)]


def denied_card(decision: Decision) -> Card:
    """Say a policy's refusal in its own words."""
    if not isinstance(decision, Deny):
        raise TypeError("only a refusal is worded so")
    message = reveal(decision.message)
    sentence = f"The policy does not allow this: {message}."
    parts: list[Paragraph | Code | Note] = [Paragraph(prose(sentence))]
    if decision.hint:
        hint = reveal(decision.hint)
        parts.append(Code(hint) if hint.startswith("/") else Paragraph(say(hint)))
    parts.append(Note(say(f"Rule {', '.join(decision.rules)}.")))
    return Card(sentence, tuple(parts))


def _duplicate_card(request: Request) -> Card:
    text = f"You already have a request for {request.role} on {request.resource} waiting."
    link = MessageLink(card_of(request.id), "Its card")
    return Card(text, (Paragraph(say(text, " ", link, " has a button to cancel it.")),))


def _cap_card(pending: Iterable[Request], command: str) -> Card:
    rows = [f"• {r.resource} {r.role}, {duration_of(r)} ({r.id})" for r in pending]
    text = f"You have {counted(len(rows), 'request')} waiting, which is as many as one person may have."
    return Card(text, (Paragraph(say(f"{text}\n" + "\n".join(rows))), Note(say(f"{command} revoke ID cancels one."))))


def _waiting_card(policy: Policy, request: Request) -> Card:
    who = requirement_words(policy, request.requirement.needs, request.requester)
    text = f"Your request for {request.role} on {request.resource} waits for {who}."
    link = MessageLink(card_of(request.id), "Its card")
    return Card(text, (Paragraph(say(text, " ", link, " shows how it stands; you will get a direct message.")),))


def _given_card(request: Request) -> Card:
    text = f"The policy gives you {request.role} on {request.resource} at once; your line comes as a direct message."
    link = MessageLink(card_of(request.id), "What happens is in this thread")
    return Card(text, (Paragraph(say(text, " ", link, ".")),))


async def to_thread(
    desk: Desk,
    request: Request,
    key: str,
    text: str,
    *parts: Paragraph | Code | Note,
    spans: Spans = (),
    mirrored: bool = False,
) -> None:
    """Say something under a request's card, and to a requester who does not see it if it is `mirrored`.

    `spans` say the same as the text, better.
    """
    card = Card(text, (Paragraph(spans or say(text)), *parts))
    await desk.work.send(key, f"thread:{request.id}", Say(InThread(request.id), card))
    if mirrored:
        await mirror(desk, request.account, key, f"{request.role} on {request.resource}: {text}")


async def mirror(desk: Desk, account: str, key: str, text: str) -> None:
    """Tell a requester who does not see the reviewers' channel."""
    await desk.work.send(f"{key}:told", f"person:{account}", Say(Mirror(account), Card(text, (Paragraph(say(text)),))))


async def count_soon(desk: Desk, grant: Grant) -> None:
    """Bring a grant's counter up to date soon: edits that come close together become one."""
    await desk.work.want(counter_of(grant.id), f"counter:{grant.id}", desk.now + COUNTER_PACE)
