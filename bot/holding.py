"""Decides what people do with access they have: see it, get a new line, end it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bot.asking import choices, tell
from bot.cards import Buttons, Card, Moment, Note, Paragraph, Part, Words, plain, prose, say
from bot.grant_cards import end_button, new_line_button
from bot.hold_card import held_spans
from bot.intents import EndNow, Help, List, NewLine, Source, Status
from bot.model import Grant, Hold, Request
from bot.outgoing import DeliverTicket, EndGrant
from bot.ports import Desk, Member
from bot.request_words import REASON_KEPT, duration_of, name_of, subject_of
from bot.text import clip, one_line
from workflows.holds import HoldState
from workflows.reviews import may_review

NOT_KNOWN = "This button belongs to no access that is known here, so nothing was done."
SHOWN = 10


async def show_list(desk: Desk, intent: List, member: Member, cause: str) -> None:
    """Say what a person may ask for."""
    rows = choices(desk.policy, member.person, intent.resource)
    parts: list[Part] = [Paragraph(say(row)) for row in rows]
    parts.append(Note(say(f"Ask like this: {usage(desk.command)}")))
    await tell(desk, intent.source, cause, Card(rows[0], tuple(parts)))


async def show_status(desk: Desk, intent: Status, member: Member, cause: str) -> None:
    """Say what a person has and what they wait for, on one resource or on all."""
    named = (intent.resource or "").lower()
    # What is no resource's name narrows nothing: whoever types `status all` sees all.
    resource = named if named in desk.policy.resources else None
    pending = await desk.work.requests_of(member.person)
    grants = await desk.work.live_grants(member.person, resource)
    pending = [one for one in pending if resource in (None, one.resource)]
    held = {one.id: await waiting_holds(desk, one) for one in grants}
    await tell(desk, intent.source, cause, _status_card(desk, pending, grants, resource, held))


def _status_card(
    desk: Desk,
    pending: Sequence[Request],
    grants: Sequence[Grant],
    resource: str | None,
    held: Mapping[str, Sequence[Hold]],
) -> Card:
    where = f" on {resource}" if resource else ""
    if not pending and not grants:
        return plain(f"You have no access and no request waiting{where}.")
    parts: list[Part] = []
    for grant in grants[:SHOWN]:
        what = Words(f"{grant.role} on {grant.resource}", bold=True)
        parts.append(Paragraph(say("Open: ", what, " until ", Moment(grant.expires_at), f" ({grant.id})")))
        parts += [Paragraph(held_spans(desk.policy, grant, hold)) for hold in held[grant.id][:SHOWN]]
        parts.append(Buttons((new_line_button(grant), end_button(desk.policy, grant))))
    for request in pending[:SHOWN]:
        what = Words(subject_of(request), bold=True)
        for_how_long = f" for {duration_of(request)}" if request.extends is None else ""
        until = Moment(request.expires_at)
        parts.append(Paragraph(say("Waiting: ", what, f"{for_how_long}, until ", until, f" ({request.id})")))
        parts.append(Note(say(Words(f"{desk.command} revoke {request.id}", code=True), " takes it back.")))
    if hidden := sum(max(len(kind) - SHOWN, 0) for kind in (grants, pending)):
        parts.append(Note(say(f"and {hidden} more")))
    return Card(f"You have {len(grants)} open and {len(pending)} waiting{where}.", tuple(parts))


async def waiting_holds(desk: Desk, grant: Grant) -> list[Hold]:
    """Return the statements under a grant that wait for their reviewers."""
    holds = [hold for hold in await desk.work.holds_of(grant.id) if hold.state is HoldState.WAITING]
    return [hold for hold in holds if hold.answered is None and hold.expires_at > desk.now]


async def show_help(desk: Desk, intent: Help, member: Member, cause: str) -> None:
    """Say how the command is used."""
    problem = f"{one_line(intent.problem)[:1].upper()}{one_line(intent.problem)[1:]}." if intent.problem else ""
    command = desk.command
    rows = (
        (command, "opens a form to ask with"),
        (usage(command), "asks for access"),
        (f"{command} list [<resource>]", "says what you may ask for"),
        (f"{command} status [<resource>]", "says what you have and what waits"),
        (f"{command} connect [<resource>]", "sends you another line into what you have"),
        (f"{command} extend [<resource>] [<duration>]", "asks for more time of what you have"),
        (f"{command} revoke [<resource>] [because <reason>]", "ends what you have, or takes a request back"),
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
        await end(desk, intent.source, grant, member, cause)


async def end(desk: Desk, source: Source, grant: Grant, member: Member, cause: str, reason: str = "") -> None:
    """End a grant, where this person may, and tell them."""
    who = name_of(desk.policy, grant.person)
    if not await may_end(desk, grant, member.person):
        await tell(desk, source, cause, plain(f"Only {who} and those who may review the request can end it."))
    elif not grant.live:
        await tell(desk, source, cause, plain(f"This access is over already ({grant.state.value})."))
    else:
        # Cut, not refused: what has to end now must not wait for a shorter reason.
        why = clip(reason, REASON_KEPT)
        item = EndGrant(grant.id, member.person, member.account, grant.person != member.person, why)
        await desk.work.send(f"{cause}:end", f"end:{grant.id}", item)
        whose = "" if grant.person == member.person else f" of {who}"
        text = f"Ending {grant.role} on {grant.resource}{whose}; every session under it is cut."
        await tell(desk, source, cause, plain(text))


async def may_end(desk: Desk, grant: Grant, person: str) -> bool:
    """Say whether somebody may end a grant: its owner, and those who may review its request."""
    if grant.person == person:
        return True
    request = await desk.work.request(grant.request)
    if request is None or not request.requirement.needs:
        return False
    return may_review(desk.policy, request.requirement, request.requester, person) is None
