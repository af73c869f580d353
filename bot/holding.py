"""Decides what people do with access they have: see it, get a new line, end it."""

from __future__ import annotations

from collections.abc import Sequence

from bot.asking import choices, tell
from bot.cards import Buttons, Card, Moment, Note, Paragraph, Part, Words, plain, prose, say
from bot.grant_cards import end_button, new_line_button
from bot.intents import EndNow, Help, List, NewLine, Revoke, Source, Status
from bot.model import Grant, Request
from bot.outgoing import DeliverTicket, EndGrant
from bot.ports import Desk, Member
from bot.request_words import REASON_KEPT, duration_of, name_of, subject_of
from bot.reviewing import withdraw
from bot.text import clip, one_line
from policies.engine.model import Policy
from workflows.reviews import may_review

NOT_KNOWN = "This button belongs to no access that is known here, so nothing was done."
SHOWN = 10


async def show_list(desk: Desk, intent: List, member: Member, cause: str) -> None:
    """Say what a person may ask for."""
    rows = choices(desk.policy, member.person)
    parts: list[Part] = [Paragraph(say(row)) for row in rows]
    parts.append(Note(say(f"Ask like this: {usage(desk.command)}")))
    await tell(desk, intent.source, cause, Card(rows[0], tuple(parts)))


async def show_status(desk: Desk, intent: Status, member: Member, cause: str) -> None:
    """Say what a person has and what they wait for."""
    pending = await desk.work.requests_of(member.person)
    grants = await desk.work.live_grants(member.person)
    card = _status_card(desk.policy, pending, grants)
    back = (Note(say(f"{desk.command} revoke ID takes a request back.")),) if pending else ()
    await tell(desk, intent.source, cause, Card(card.text, (*card.parts, *back)))


def _status_card(policy: Policy, pending: Sequence[Request], grants: Sequence[Grant]) -> Card:
    if not pending and not grants:
        return plain("You have no access and no request waiting.")
    parts: list[Part] = []
    for grant in grants[:SHOWN]:
        what = Words(f"{grant.role} on {grant.resource}", bold=True)
        parts.append(Paragraph(say("Open: ", what, " until ", Moment(grant.expires_at), f" ({grant.id})")))
        parts.append(Buttons((new_line_button(grant), end_button(policy, grant))))
    for request in pending[:SHOWN]:
        what = Words(subject_of(request), bold=True)
        for_how_long = f" for {duration_of(request)}" if request.extends is None else ""
        until = Moment(request.expires_at)
        parts.append(Paragraph(say("Waiting: ", what, f"{for_how_long}, until ", until, f" ({request.id})")))
    return Card(f"You have {len(grants)} open and {len(pending)} waiting.", tuple(parts))


async def show_help(desk: Desk, intent: Help, member: Member, cause: str) -> None:
    """Say how the command is used."""
    problem = f"{one_line(intent.problem)[:1].upper()}{one_line(intent.problem)[1:]}." if intent.problem else ""
    command = desk.command
    rows = (
        (command, "opens a form to ask with"),
        (usage(command), "asks for access"),
        (f"{command} list", "says what you may ask for"),
        (f"{command} status", "says what you have and what waits"),
        (f"{command} revoke [ID] [because <reason>]", "ends what you have, or takes a request back"),
        (f"{command} help", "says this"),
    )
    parts: list[Part] = [Paragraph(prose(problem))] if problem else []
    parts += [Paragraph(say(Words(left, code=True), f" {right}")) for left, right in rows]
    parts += [Paragraph(say(row)) for row in choices(desk.policy, member.person)]
    text = f"{problem} Ask like this: {usage(command)}".strip()
    await tell(desk, intent.source, cause, Card(text, tuple(parts)))


def usage(command: str) -> str:
    """Return the form of the command."""
    return f"{command} <resource> <role> [for] <duration> [because <reason>]"


async def new_line(desk: Desk, intent: NewLine, member: Member, cause: str) -> None:
    """Send another ticket to a grant's owner."""
    grant = await desk.work.grant_by_token(intent.token)
    if grant is None:
        await tell(desk, intent.source, cause, plain(NOT_KNOWN))
    elif grant.person != member.person:
        who = name_of(desk.policy, grant.person)
        await tell(desk, intent.source, cause, plain(f"This access is {who}'s; only they get a line for it."))
    elif not grant.live:
        await tell(desk, intent.source, cause, plain(f"This access is over ({grant.state.value}); ask again."))
    else:
        await deliver(desk, grant)
        if intent.source.channel and not intent.source.channel.startswith("D"):
            await tell(desk, intent.source, cause, plain("A new line is on its way as a direct message."))


async def deliver(desk: Desk, grant: Grant) -> None:
    """Queue the delivery of one more ticket."""
    number = await desk.work.count_sent(f"ticket:{grant.id}:") + 1
    item = DeliverTicket(grant.id, grant.account, number)
    await desk.work.send(f"ticket:{grant.id}:{number}", f"ticket:{grant.id}", item)


async def end_now(desk: Desk, intent: EndNow, member: Member, cause: str) -> None:
    """End a grant; its owner may, and those who may review its request."""
    grant = await desk.work.grant_by_token(intent.token)
    if grant is None:
        await tell(desk, intent.source, cause, plain(NOT_KNOWN))
    else:
        await _end(desk, intent.source, grant, member, cause)


async def revoke(desk: Desk, intent: Revoke, member: Member, cause: str) -> None:
    """End what an id names; without one, what the person has if that is one thing."""
    grants = await desk.work.live_grants(member.person)
    pending = await desk.work.requests_of(member.person)
    if intent.id is not None:
        await _revoke_named(desk, intent, member, cause)
    elif len(grants) + len(pending) == 0:
        await tell(
            desk,
            intent.source,
            cause,
            plain("You have no access and no request waiting, so there is nothing to revoke."),
        )
    elif len(grants) == 1 and not pending:
        await _end(desk, intent.source, grants[0], member, cause, intent.reason)
    elif len(pending) == 1 and not grants:
        await withdraw(desk, pending[0], member.person, cause, reason=intent.reason)
        await tell(
            desk,
            intent.source,
            cause,
            plain(f"Your request for {subject_of(pending[0])} is cancelled."),
        )
    else:
        card = _status_card(desk.policy, pending, grants)
        hint = Note(say(f"Say which: {desk.command} revoke ID"))
        await tell(desk, intent.source, cause, Card(f"Say which one to revoke. {card.text}", (*card.parts, hint)))


async def _revoke_named(desk: Desk, intent: Revoke, member: Member, cause: str) -> None:
    named = intent.id or ""
    request = await desk.work.request(named)
    grant = await desk.work.grant(named) or (await desk.work.grant_of(request.id) if request else None)
    if grant is not None:
        await _end(desk, intent.source, grant, member, cause, intent.reason)
    elif (
        request is not None
        and request.requester == member.person
        and request in await desk.work.requests_of(member.person)
    ):
        await withdraw(desk, request, member.person, cause, reason=intent.reason)
        await tell(desk, intent.source, cause, plain(f"Your request for {subject_of(request)} is cancelled."))
    else:
        await tell(
            desk,
            intent.source,
            cause,
            plain(f"You have nothing called {one_line(named, 60)}; {desk.command} status shows what you have."),
        )


async def _end(desk: Desk, source: Source, grant: Grant, member: Member, cause: str, reason: str = "") -> None:
    request = await desk.work.request(grant.request)
    reviewer = (
        request is not None
        and bool(request.requirement.needs)
        and (may_review(desk.policy, request.requirement, request.requester, member.person) is None)
    )
    who = name_of(desk.policy, grant.person)
    if grant.person != member.person and not reviewer:
        await tell(desk, source, cause, plain(f"Only {who} and those who may review the request can end it."))
    elif not grant.live:
        await tell(desk, source, cause, plain(f"This access is over already ({grant.state.value})."))
    else:
        # Cut, not refused: what has to end now must not wait for a shorter reason.
        why = clip(reason, REASON_KEPT)
        item = EndGrant(grant.id, member.person, member.account, grant.person != member.person, why)
        await desk.work.send(f"{cause}:end", f"end:{grant.id}", item)
        await tell(
            desk, source, cause, plain(f"Ending {grant.role} on {grant.resource}; every session under it is cut.")
        )
