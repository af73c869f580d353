"""Decides what becomes of an ask: a request for reviewers, access at once, or an answer with what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from bot.cards import Buttons, Card, Code, MessageLink, Note, Paragraph, Spans, prose, say
from bot.drafts import draft_of, form_button, too_long
from bot.grant_cards import holding_card
from bot.intents import Ask, OpenAsk, Source
from bot.model import Grant, Request
from bot.outgoing import InThread, Mirror, PostOrder, Privately, Say, card_of, counter_of
from bot.ports import Desk, Member
from bot.request_words import duration_of, requirement_words, subject_of
from bot.text import one_line, reveal
from policies.engine.decide import decide_access, may_ask, terms_of
from policies.engine.decisions import Allow, Decision, Deny, Requirement
from policies.engine.decisions import Ask as AskDecision
from policies.engine.durations import DurationUnreadable, format_duration, parse_duration
from policies.engine.model import Policy
from workflows.requests import RequestEvent, RequestState
from workflows.words import counted

COUNTER_PACE = timedelta(seconds=2)
MEANT = {
    **dict.fromkeys(("abort", "cancel", "close", "end", "kill", "stop", "withdraw"), "revoke"),
    **dict.fromkeys(("line", "login", "open", "psql", "ticket"), "connect"),
    **dict.fromkeys(("more", "prolong", "renew"), "extend"),
}
"""What people type for a command, and which it is; a resource of such a name goes first."""


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
        await tell(desk, intent.source, cause, _with_form(desk.policy, member.person, intent, wish))
        return
    decision = decide_access(desk.policy, member.person, wish.resource, wish.role, wish.duration)
    if isinstance(decision, Deny):
        card = _with_form(desk.policy, member.person, intent, denied_card(decision, intent.reason))
        await tell(desk, intent.source, cause, card)
        return
    pending = await desk.work.requests_of(member.person)
    asked = (wish.resource, wish.role, int(wish.duration.total_seconds()), wish.reason)
    if same := [r for r in pending if (r.resource, r.role, r.seconds, r.reason) == asked and r.extends is None]:
        await tell(desk, intent.source, cause, _duplicate_card(same[0], desk.command))
        return
    if len(pending) >= desk.pending_cap:
        await tell(desk, intent.source, cause, cap_card(pending, desk.command))
        return
    await file(desk, intent.source, member, wish, decision, cause)
    held = [g for g in await desk.work.live_grants(member.person, wish.resource) if g.role == wish.role]
    if held:
        again = holding_card(desk.policy, held[0], isinstance(decision, AskDecision))
        place = Privately(member.account, intent.source.channel, intent.source.thread, intent.source.reply_url)
        await desk.work.send(f"{cause}:held", f"tell:{member.account}", Say(place, again))


async def open_form(desk: Desk, intent: OpenAsk, member: Member, cause: str) -> None:
    """Answer a click whose form did not open: say what it would have asked, with the button to try again."""
    card = understood(desk.policy, member.person, intent.ask, desk.command)
    if not isinstance(card, Card):
        card = Card("The form did not open; press the button again.", (Paragraph(say("The form did not open.")),))
    await tell(desk, intent.source, cause, _with_form(desk.policy, member.person, intent.ask, card))


def _with_form(policy: Policy, person: str, intent: Ask, card: Card) -> Card:
    if not may_ask(policy, person):
        return card
    return Card(card.text, (*card.parts, Buttons((form_button(draft_of(policy, person, intent)),))))


async def file(
    desk: Desk,
    source: Source,
    member: Member,
    wish: Wish,
    decision: Allow | AskDecision,
    cause: str,
    grant: Grant | None = None,
) -> None:
    """File a request, for a grant of its own or to move the end of one, and tell who asked how it stands."""
    pending_for = terms_of(desk.policy, member.person, wish.resource, wish.role).pending_for
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
        expires_at=min(desk.now + pending_for, grant.expires_at) if grant else desk.now + pending_for,
        asked_in=source.channel,
        evidence=source.evidence(),
        extends=grant.id if grant else None,
    )
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
            card = _waiting_card(desk.policy, request, desk.command)
    await desk.work.want(card_of(request.id), f"card:{request.id}")
    place = Privately(member.account, source.channel, source.thread, source.reply_url)
    # In the card's lane, so that the link has something to point at.
    await desk.work.send(f"{cause}:tell", f"card:{request.id}", Say(place, card))


def understood(policy: Policy, person: str, intent: Ask, command: str) -> Wish | Card:
    """Return what the words mean, or what would be right; the nearest name is suggested, never taken."""
    terms = may_ask(policy, person)
    resources = list(dict.fromkeys(term.resource for term in terms))
    if intent.resource is None:
        return wrong_card(policy, person, "what would you like?", command, None)
    if intent.resource not in resources:
        return _wrong_resource(policy, person, intent.resource, intent, resources, command)
    roles = [term.role for term in terms if term.resource == intent.resource]
    if intent.role is None or intent.role not in roles:
        return _wrong_role(policy, person, intent.resource, intent, roles, command)
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
    if problem := too_long(intent.reason):
        return wrong_card(policy, person, problem, command, None)
    return Wish(intent.resource, intent.role, duration, intent.reason)


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith("?") else f"{sentence}."


def _wrong_resource(policy: Policy, person: str, wanted: str, intent: Ask, resources: list[str], command: str) -> Card:
    typed = one_line(wanted, 60).replace("`", "'")
    if wanted in policy.resources:
        problem = f"you may not ask for `{typed}`: no rule of the policy gives it to you."
        return wrong_card(policy, person, problem, command, None)
    if meant := MEANT.get(wanted.lower()):
        words = [command, meant, intent.role, intent.duration if meant == "extend" else None]
        right = one_line(" ".join(filter(None, words)), 300)
        return wrong_card(policy, person, f"there is no resource `{typed}`; did you mean to {meant}?", command, right)
    if intent.role in resources:
        problem = f"there is no resource `{typed}`; the resource comes first, then the role."
        right = _line(policy, person, command, intent, resource=intent.role or "", role=wanted)
        return wrong_card(policy, person, problem, command, right)
    near = difflib.get_close_matches(wanted[:63].lower(), resources, n=1)
    if not near:
        return wrong_card(policy, person, f"there is no resource `{typed}`.", command, None)
    problem = f"there is no resource `{typed}`; did you mean `{near[0]}`?"
    return wrong_card(policy, person, problem, command, _line(policy, person, command, intent, resource=near[0]))


def _wrong_role(policy: Policy, person: str, resource: str, intent: Ask, roles: list[str], command: str) -> Card:
    listed = " or ".join(f"`{role}`" for role in roles)
    if intent.role is None:
        problem = f"as what? On {resource} you may ask for {listed}."
        return wrong_card(policy, person, problem, command, _line(policy, person, command, intent, role=roles[0]))
    typed = one_line(intent.role, 60).replace("`", "'")
    if intent.role in policy.resources[resource].roles:
        problem = f"you may not ask for `{typed}` on {resource}; you may ask for {listed}."
        return wrong_card(policy, person, problem, command, None)
    near = difflib.get_close_matches(intent.role[:63].lower(), roles, n=1)
    ending = f"; did you mean `{near[0]}`?" if near else "."
    problem = f"there is no role `{typed}` on {resource}{ending} You may ask for {listed}."
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
    resource = right.get("resource", intent.resource or "")
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


def choices(policy: Policy, person: str, resource: str | None = None) -> list[str]:
    """Return what a person may ask for, a row each; of one resource, or of all where it has none of theirs."""
    terms = may_ask(policy, person)
    if resource is not None and (on := [term for term in terms if term.resource == resource.lower()]):
        terms = on
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


def denied_card(decision: Decision, reason: str = "") -> Card:
    """Say a policy's refusal in its own words; a line that would do instead keeps the reason."""
    if not isinstance(decision, Deny):
        raise TypeError("only a refusal is worded so")
    message = reveal(decision.message)
    sentence = f"The policy does not allow this: {message}."
    parts: list[Paragraph | Code | Note] = [Paragraph(prose(sentence))]
    if decision.hint:
        hint = reveal(decision.hint)
        line = one_line(f"{hint} because {reason}" if reason else hint, 300)
        parts.append(Code(line) if hint.startswith("/") else Paragraph(say(hint)))
    parts.append(Note(say(f"Rule {', '.join(decision.rules)}.")))
    return Card(sentence, tuple(parts))


def _duplicate_card(request: Request, command: str) -> Card:
    text = f"You already have a request for {subject_of(request)} waiting."
    link = MessageLink(card_of(request.id), "Its card")
    return Card(text, (Paragraph(say(text, " ", link, " has a button to cancel it.")), _back_note(request, command)))


def cap_card(pending: Iterable[Request], command: str) -> Card:
    rows = [f"• {subject_of(r)}, {duration_of(r)} ({r.id})" for r in pending]
    text = f"You have {counted(len(rows), 'request')} waiting, which is as many as one person may have."
    return Card(text, (Paragraph(say(f"{text}\n" + "\n".join(rows))), Note(say(f"{command} revoke ID cancels one."))))


def _waiting_card(policy: Policy, request: Request, command: str) -> Card:
    who = requirement_words(policy, request.requirement.needs, request.requester)
    text = f"Your request for {subject_of(request)} waits for {who}."
    link = MessageLink(card_of(request.id), "Its card")
    stands = Paragraph(say(text, " ", link, " shows how it stands; you will get a direct message."))
    return Card(text, (stands, _back_note(request, command)))


def _back_note(request: Request, command: str) -> Note:
    """Say how to take a request back, which who does not see the channel of its card could not guess."""
    return Note(say(f"{command} revoke {request.id} takes it back."))


def _given_card(request: Request) -> Card:
    text = f"The policy gives you {subject_of(request)} at once; your line comes as a direct message."
    if request.extends is not None:
        text = f"The policy gives you {subject_of(request)} at once."
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
    """Say something in a request's thread, and to a requester who does not see it if it is `mirrored`.

    `spans` say the same as the text, better.
    """
    card = Card(text, (Paragraph(spans or say(text)), *parts))
    thread = await thread_of(desk, request)
    await desk.work.send(key, f"thread:{thread}", Say(InThread(thread), card))
    if mirrored:
        await mirror(desk, request.account, key, f"{subject_of(request)}: {text}", *parts)


async def thread_of(desk: Desk, request: Request) -> str:
    """Return the request whose card heads the thread: an extension's story goes on where its grant's is told."""
    grant = await desk.work.grant(request.extends) if request.extends else None
    return grant.request if grant else request.id


async def mirror(
    desk: Desk, account: str, key: str, text: str, *parts: Paragraph | Code | Note, spans: Spans = ()
) -> None:
    """Tell a requester who does not see the reviewers' channel; `spans` say the same as the text, better."""
    card = Card(text, (Paragraph(spans or say(text)), *parts))
    await desk.work.send(f"{key}:told", f"person:{account}", Say(Mirror(account), card))


async def count_soon(desk: Desk, grant: Grant) -> None:
    """Bring a grant's counter up to date soon: edits that come close together become one."""
    await desk.work.want(counter_of(grant.id), f"counter:{grant.id}", desk.now + COUNTER_PACE)
