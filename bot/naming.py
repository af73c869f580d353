"""Decides what follows `/access revoke`, `connect` or `extend`: a resource, an id, or nothing where there is one thing.

What could be several is never guessed: each is listed with the line that means it.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from datetime import timedelta

from bot.asking import tell
from bot.cards import Buttons, Card, Code, Moment, Note, Paragraph, Part, Words, plain, say
from bot.extending import extend as extend_grant
from bot.extensions import extend_button, steps_of
from bot.holding import SHOWN, end, may_end, new_line
from bot.intents import Connect, Extend, ExtendNamed, NewLine, Revoke
from bot.model import Grant, Request
from bot.ports import Desk, Member
from bot.request_words import name_of, subject_of
from bot.reviewing import withdraw
from bot.text import one_line
from policies.engine.decide import may_ask
from policies.engine.durations import DurationUnreadable, format_duration, parse_duration
from policies.engine.model import Policy
from workflows.words import counted

Ended = Grant | Request
"""What revoking ends: access, or a request that waits."""
USUAL_TIME = timedelta(minutes=30)
NOTHING = "You have no access and no request waiting, so there is nothing to revoke."


async def revoke(desk: Desk, intent: Revoke, member: Member, cause: str) -> None:
    """End the one thing that is meant."""
    found = await _endable(desk, intent, member)
    if len(found) == 1:
        await _end(desk, intent, found[0], member, cause)
    elif found:
        because = f" because {intent.reason}" if intent.reason else ""
        await tell(desk, intent.source, cause, _which_card(desk, intent, found, member, "revoke", because))
    else:
        card = plain(NOTHING) if intent.name is None else await _nothing_card(desk, intent, member, "revoke")
        await tell(desk, intent.source, cause, card)


async def connect(desk: Desk, intent: Connect, member: Member, cause: str) -> None:
    """Send another line into the one access that is meant."""
    if (grant := await _own(desk, intent, member, cause, "connect")) is not None:
        await new_line(desk, NewLine(intent.source, grant.token), member, cause)


async def extend(desk: Desk, intent: ExtendNamed, member: Member, cause: str) -> None:
    """Ask for more time of the one access that is meant; without a duration, offer what there is to choose from."""
    more = f" {intent.duration}" if intent.duration else ""
    if (grant := await _own(desk, intent, member, cause, "extend", more)) is None:
        return
    if intent.duration is None:
        steps = steps_of(desk.policy, grant)
        what = f"{grant.role} on {grant.resource}"
        card = plain(f"{what} lasts as long as the policy gives already; ask for it anew when it is over.")
        if steps:
            card = plain(f"How much longer for {what}?", Buttons(tuple(extend_button(grant, step) for step in steps)))
        await tell(desk, intent.source, cause, card)
        return
    try:
        seconds = int(parse_duration(intent.duration).total_seconds())
    except DurationUnreadable as error:
        right = Code(f"{desk.command} extend {grant.id} {error.meant or '15m'}")
        await tell(desk, intent.source, cause, plain(f"{str(error)[:1].upper()}{str(error)[1:]}", right))
        return
    await extend_grant(desk, Extend(intent.source, grant.token, seconds), member, cause)


async def _own(
    desk: Desk, intent: Connect | ExtendNamed, member: Member, cause: str, verb: str, more: str = ""
) -> Grant | None:
    """Return the access that is meant; where it is not one, tell its owner."""
    if intent.name is not None and intent.role is None:
        named = await _by_id(desk, intent.name, member)
        if isinstance(named, Grant):
            return named
    resource = intent.name.lower() if intent.name else None
    on = await desk.work.live_grants(member.person, resource)
    found = [one for one in on if intent.role in (None, one.role)]
    if len(found) == 1:
        return found[0]
    if found:
        await tell(desk, intent.source, cause, _which_card(desk, intent, found, member, verb, more))
    else:
        await tell(desk, intent.source, cause, await _nothing_card(desk, intent, member, verb))
    return None


async def _endable(desk: Desk, intent: Revoke, member: Member) -> Sequence[Ended]:
    """Return what may be meant: the person's own first, then what they may end for others."""
    grants, pending = await desk.work.live_grants(member.person), await desk.work.requests_of(member.person)
    if intent.name is None:
        return [*grants, *pending]
    if intent.role is None and (named := await _by_id(desk, intent.name, member)) is not None:
        return [named]
    resource = intent.name.lower()
    person = None if resource in desk.policy.resources else _person(desk.policy, intent.name)
    found = await (desk.work.live_grants(person) if person else desk.work.live_grants(resource=resource))
    others = [one for one in found if one.person != member.person]
    endable = [one for one in others if await may_end(desk, one, member.person)]
    mine: list[Ended] = [*grants, *pending]
    on = [*(one for one in mine if resource == one.resource or person == member.person), *endable]
    return [one for one in on if intent.role in (None, one.role)]


def _person(policy: Policy, named: str) -> str | None:
    """Return who is mentioned, or called so by the policy."""
    handle = named.removeprefix("@").lower()
    return policy.person_by_slack(named.removeprefix("@")) or (handle if handle in policy.people else None)


async def _by_id(desk: Desk, named: str, member: Member) -> Ended | None:
    request = await desk.work.request(named)
    grant = await desk.work.grant(named) or (await desk.work.grant_of(request.id) if request else None)
    if grant is not None:
        return grant
    own = await desk.work.requests_of(member.person)
    return request if request is not None and request in own else None


async def _end(desk: Desk, intent: Revoke, found: Ended, member: Member, cause: str) -> None:
    if isinstance(found, Grant):
        await end(desk, intent.source, found, member, cause, intent.reason)
    else:
        await withdraw(desk, found, member.person, cause, reason=intent.reason)
        await tell(desk, intent.source, cause, plain(f"Your request for {subject_of(found)} is cancelled."))


def _which_card(
    desk: Desk,
    intent: Revoke | Connect | ExtendNamed,
    found: Sequence[Ended],
    member: Member,
    verb: str,
    more: str,
) -> Card:
    where = f" on {one_line(intent.name, 60)}" if intent.name else ""
    text = f"There are {len(found)}{where} that this could mean. Send the line of the one that you mean:"
    parts: list[Part] = [Paragraph(say(text))]
    for one in found[:SHOWN]:
        if isinstance(one, Request):
            what = Words(subject_of(one), bold=True)
            parts.append(Paragraph(say("Your request for ", what, ", unanswered until ", Moment(one.expires_at))))
        else:
            whose = "Your " if one.person == member.person else f"{name_of(desk.policy, one.person)}'s "
            what = Words(f"{one.role} on {one.resource}", bold=True)
            why = f", for: {one_line(one.reason, 100)}" if one.reason else ""
            parts.append(Paragraph(say(whose, what, ", open until ", Moment(one.expires_at), why)))
        parts.append(Code(one_line(f"{desk.command} {verb} {one.id}{more}", 600)))
    if len(found) > SHOWN:
        parts.append(Note(say(f"and {len(found) - SHOWN} more; {desk.command} status shows yours")))
    return Card(text, tuple(parts))


async def _nothing_card(desk: Desk, intent: Revoke | Connect | ExtendNamed, member: Member, verb: str) -> Card:
    """Say that nothing has this name; the nearest one is suggested, never taken."""
    grants, pending = await desk.work.live_grants(member.person), await desk.work.requests_of(member.person)
    waiting = f" {counted(len(pending), 'request')} of yours waits for an answer." if len(pending) == 1 else ""
    status = f"{waiting} `{desk.command} status` shows what you have."
    if intent.name is None:
        return plain(f"You have nothing open to {verb}.{status}")
    named, offered = one_line(intent.name, 60).replace("`", "'"), may_ask(desk.policy, member.person)
    if (person := _person(desk.policy, intent.name)) is not None and verb == "revoke":
        return plain(f"{name_of(desk.policy, person)} has nothing open that you may end.{status}")
    if named.lower() in desk.policy.resources:
        role = f" as {one_line(intent.role, 60)}" if intent.role else ""
        if verb == "revoke":
            return plain(f"Nothing that you may end is open on {named}{role}.{status}")
        there = [one for one in offered if one.resource == named.lower()]
        parts: list[Part] = [Paragraph(say("Ask for it:"))] if there else []
        for one in there[:SHOWN]:
            duration = format_duration(min(USUAL_TIME, one.max_duration))
            parts.append(Code(f"{desk.command} {one.resource} {one.role} {duration}"))
        return plain(f"Nothing of yours is open on {named}{role}.{status}", *parts)
    mine: list[Ended] = [*grants, *pending]
    names = dict.fromkeys([*(one.resource for one in mine), *(one.resource for one in offered)])
    near = difflib.get_close_matches(named.lower(), names, n=1)
    meant = f"; did you mean `{desk.command} {verb} {near[0]}`?" if near else "."
    return plain(f"You have nothing called `{named}`{meant}{status}")
