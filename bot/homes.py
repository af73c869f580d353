"""The app's home: what waits for somebody, what they have, what they asked for; and whose home a change concerns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from bot import cards
from bot.cards import Button, Buttons, Card, Heading, MessageLink, Moment, Note, Paragraph, Part, Words, plain, say
from bot.drafts import new_button
from bot.extensions import extend_button, extension_spans, open_extension, steps_of
from bot.grant_cards import end_button, new_line_button
from bot.hold_card import does, held_spans
from bot.holding import waiting_holds
from bot.intents import HomeOpened
from bot.model import Grant, Hold, Request
from bot.outgoing import card_of, hold_of, home_of
from bot.ports import Desk
from bot.request_card import RequestFacts, standing_words
from bot.request_words import name_of, wish_words
from bot.text import clip, one_line
from policies.engine.model import Policy
from workflows.requests import RequestState
from workflows.reviews import may_review, reviewers
from workflows.shapes import ShapeState
from workflows.words import counted

SHOWN = 10
"""Of each kind; the rest is counted, so that a home stays far below Slack's 100 blocks."""
RECENT_SHOWN = 5
EXTENSIONS_SHOWN = HELD_SHOWN = 2
RECENT = timedelta(days=1)
LOOKED_AT = 200
"""How many open requests, and holds, are searched for those that wait for one person."""
PACE = timedelta(seconds=1)
WATCHED_FOR = timedelta(minutes=30)
"""How long after somebody opened it a home's remaining times are kept up to date."""


@dataclass(frozen=True, slots=True)
class Home:
    """Everything a home is made from."""

    requests: Sequence[Request]
    """To be reviewed, as the holds are."""
    holds: Sequence[tuple[Hold, Grant]]
    grants: Sequence[Grant]
    own: Sequence[RequestFacts]
    now: datetime
    asked: Mapping[str, Request] = field(default_factory=dict)
    """Of grants, the extension that is under way."""
    shapes: Mapping[str, int] = field(default_factory=dict)
    """Of grants, how many approved shapes are in force."""
    held: Mapping[str, Sequence[Hold]] = field(default_factory=dict)
    """Of grants, the statements that wait for their reviewers."""


async def opened(desk: Desk, intent: HomeOpened) -> None:
    """Show somebody their home, and keep it up to date from now on."""
    account = intent.source.account
    await desk.work.open_home(account)
    await desk.work.want(home_of(account), home_of(account))


async def concern(desk: Desk, changed: Iterable[tuple[str, str]]) -> None:
    """Bring the homes up to date that show what has changed; those that nobody ever opened are left alone."""
    things = sorted(changed)
    if not things or not (accounts := await desk.work.homes()):
        return
    people: set[str] = set()
    for kind, id in things:
        people |= await _concerned(desk, kind, id)
    for person in sorted(people & desk.policy.people.keys()):
        account = desk.policy.people[person].slack
        if account in accounts:
            await soon(desk, account)


async def soon(desk: Desk, account: str) -> None:
    """Bring a home up to date soon: changes that come close together are shown at once."""
    await desk.work.want(home_of(account), home_of(account), desk.now + PACE)


async def tick(desk: Desk) -> None:
    """Bring remaining times up to date where somebody may be looking."""
    watched = await desk.work.homes(desk.now - WATCHED_FOR)
    people = {grant.person for grant in await desk.work.live_grants()}
    for account in sorted(watched):
        if desk.policy.person_by_slack(account) in people:
            await soon(desk, account)


async def _concerned(desk: Desk, kind: str, id: str) -> set[str]:
    if kind == "requests":
        request = await desk.work.request(id)
        return _request_people(desk, request) if request else set()
    if kind == "grants":
        grant = await desk.work.grant(id)
        return {grant.person} if grant else set()
    if kind == "shapes":
        shape = await desk.work.shape(id)
        grant = await desk.work.grant(shape.grant) if shape else None
        return {grant.person} if grant else set()
    hold = await desk.work.hold(id)
    grant = await desk.work.grant(hold.grant) if hold else None
    return {grant.person, *reviewers(desk.policy, hold.requirement, grant.person)} if hold and grant else set()


def _request_people(desk: Desk, request: Request) -> set[str]:
    return {request.requester, *reviewers(desk.policy, request.requirement, request.requester)}


async def home_for(desk: Desk, person: str) -> Card:
    """Make somebody's home from the database."""
    grants = await desk.work.live_grants(person)
    own = [
        RequestFacts(one, await desk.work.reviews(one.id), await grant_behind(desk, one), desk.policy, desk.now)
        for one in _shown_requests(await desk.work.requests_of(person, pending=False), desk.now)
    ]
    requests = [one for one in await desk.work.pending(LOOKED_AT) if await _waits_for(desk, one, person)]
    holds = [found for one in await desk.work.waiting(LOOKED_AT) if (found := await _held_for(desk, one, person))]
    asked = {one.id: more for one in grants if (more := open_extension(await desk.work.extensions_of(one.id)))}
    shapes = {one.id: await _in_force(desk, one) for one in grants}
    held = {one.id: await waiting_holds(desk, one) for one in grants}
    return home_card(desk, Home(requests, holds, grants, own, desk.now, asked, shapes, held))


async def _in_force(desk: Desk, grant: Grant) -> int:
    return sum(shape.state is ShapeState.ACTIVE for shape in await desk.work.shapes_of(grant.id))


async def grant_behind(desk: Desk, request: Request) -> Grant | None:
    """Return the grant that a request gave, or is to extend."""
    return await (desk.work.grant(request.extends) if request.extends else desk.work.grant_of(request.id))


def _shown_requests(requests: Sequence[Request], now: datetime) -> list[Request]:
    pending = [one for one in requests if one.state is RequestState.PENDING]
    decided = [one for one in requests if one.state is not RequestState.PENDING]
    recent = [one for one in decided if now - (one.decided_at or one.asked_at) <= RECENT]
    return [*pending[:SHOWN], *recent[:RECENT_SHOWN]]


async def _waits_for(desk: Desk, request: Request, person: str) -> bool:
    needs = request.requirement
    if not needs.needs or request.expires_at <= desk.now:
        return False
    if may_review(desk.policy, needs, request.requester, person) is not None:
        return False
    return all(given.person != person for given in await desk.work.reviews(request.id))


async def _held_for(desk: Desk, hold: Hold, person: str) -> tuple[Hold, Grant] | None:
    grant = await desk.work.grant(hold.grant)
    if grant is None or not grant.live or hold.answered is not None or hold.expires_at <= desk.now:
        return None
    if may_review(desk.policy, hold.requirement, grant.person, person) is not None:
        return None
    given = await desk.work.hold_reviews(hold)
    return None if any(one.person == person for one in given) else (hold, grant)


def home_card(desk: Desk, home: Home) -> Card:
    """Lay a home out: what waits for this person first."""
    waiting = len(home.requests) + len(home.holds)
    parts: list[Part] = [Heading("Waits for you"), *_to_review(desk, home)]
    parts += [Heading("Your access"), *_access(desk.policy, home)]
    parts += [Heading("Your requests"), *_own(home)]
    parts.append(Note(say("As of ", Moment(home.now), f". {desk.command} help says what else there is.")))
    return Card(f"{waiting} waiting for you, {len(home.grants)} open.", tuple(parts))


def outsider_card(reason: str) -> Card:
    """Say why there is nothing to see."""
    return plain(f"You cannot use this: {reason}.")


def _to_review(desk: Desk, home: Home) -> list[Part]:
    if not home.requests and not home.holds:
        return [Paragraph(say("Nothing."))]
    parts: list[Part] = []
    for hold, grant in home.holds[:SHOWN]:
        who = name_of(desk.policy, grant.person)
        what = Words(f"{who} asks to run a statement that {does(hold)}", bold=True)
        where = f", under {grant.role} on {grant.resource}, until "
        parts.append(Paragraph(say(what, where, Moment(hold.expires_at))))
        parts.append(_card_button(hold_of(hold.id), f"Review the statement of {who}"))
    for request in home.requests[:SHOWN]:
        who = name_of(desk.policy, request.requester)
        scope = wish_words(request)
        why = f": {one_line(request.reason, 150)}" if request.reason else ""
        parts.append(Paragraph(say(Words(f"{who} asks for {scope}", bold=True), why)))
        parts.append(_card_button(card_of(request.id), f"Review {scope} for {who}"))
    hidden = sum(max(len(kind) - SHOWN, 0) for kind in (home.holds, home.requests))
    if hidden:
        parts.append(Note(say(f"and {hidden} more, in the reviewers' channel")))
    return parts


def _card_button(message: str, label: str) -> Buttons:
    return Buttons((Button(cards.GO, "Open the card", "go", label=clip(label, 75), message=message),))


def _access(policy: Policy, home: Home) -> list[Part]:
    if not home.grants:
        return [Paragraph(say("None open."))]
    parts: list[Part] = []
    for grant in home.grants[:SHOWN]:
        what = Words(f"{grant.role} on {grant.resource}", bold=True)
        left = left_words(grant.expires_at - home.now)
        parts.append(Paragraph(say(what, f": {left}, until ", Moment(grant.expires_at), f" ({grant.id})")))
        if count := home.shapes.get(grant.id, 0):
            parts.append(Note(say(f"{counted(count, 'approved shape')}: such statements are not reviewed again.")))
        parts += [Paragraph(held_spans(policy, grant, hold)) for hold in home.held.get(grant.id, ())[:HELD_SHOWN]]
        asked = home.asked.get(grant.id)
        steps = [] if asked else steps_of(policy, grant)[:EXTENSIONS_SHOWN]
        if asked:
            parts.append(Paragraph(extension_spans(policy, asked)))
        more = [extend_button(grant, step) for step in steps]
        parts.append(Buttons((new_line_button(grant), *more, end_button(policy, grant))))
    if len(home.grants) > SHOWN:
        parts.append(Note(say(f"and {len(home.grants) - SHOWN} more")))
    return parts


def _own(home: Home) -> list[Part]:
    parts: list[Part] = [Buttons((new_button(),))]
    if not home.own:
        return [Paragraph(say("None waiting, and none decided since yesterday.")), *parts]
    for facts in home.own:
        request = facts.request
        what = wish_words(request)
        parts.append(Paragraph(say(MessageLink(card_of(request.id), what), ": ", *standing_words(facts, 400))))
    return parts


def left_words(left: timedelta) -> str:
    """Return how much time is left, as people say it; rounded up to minutes."""
    minutes = max(-int(-left.total_seconds() // 60), 0)
    if minutes <= 1:
        return "less than a minute left" if minutes < 1 else "1 minute left"
    hours, rest = divmod(minutes, 60)
    if not hours:
        return f"{minutes} minutes left"
    return f"{hours} h {rest} min left" if rest else f"{hours} h left"
