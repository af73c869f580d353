"""When access is about to end: what may be offered, and the messages that offer it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from bot import cards
from bot.cards import (
    Button,
    Buttons,
    Card,
    Mention,
    MessageLink,
    Moment,
    Note,
    Paragraph,
    Part,
    Spans,
    Words,
    clock,
    moments,
    say,
)
from bot.model import Grant, Request
from bot.outgoing import card_of, offer_of, reminder_of
from bot.ports import Desk
from bot.request_words import duration_of, requirement_words
from bot.text import clip
from policies.engine.decide import terms_of
from policies.engine.decisions import Deny
from policies.engine.durations import format_duration
from policies.engine.model import Policy
from workflows.requests import RequestState

LEAD = timedelta(minutes=5)
"""How long before its end access is offered again; of short access, the last third."""
STEPS = tuple(timedelta(minutes=minutes) for minutes in (15, 30, 60))
TOO_LATE = "The access ended before this was answered."


def lead_of(grant: Grant) -> timedelta:
    """Return how long before its end a grant is offered to be extended."""
    return min(LEAD, (grant.expires_at - grant.opened_at) / 3)


def room_of(policy: Policy, grant: Grant) -> timedelta:
    """Return by how much a grant may be extended, in whole minutes; nothing where the policy gives it no more."""
    terms = terms_of(policy, grant.person, grant.resource, grant.role)
    if isinstance(terms.decision, Deny):
        return timedelta()
    left = terms.max_duration - (grant.expires_at - grant.opened_at)
    # The ends of both processes differ by what a call takes, so half a second is forgiven.
    return max(timedelta(minutes=int((left.total_seconds() + 0.5) // 60)), timedelta())


def steps_of(policy: Policy, grant: Grant) -> list[timedelta]:
    """Return the extensions to choose from, up to the longest that the policy gives."""
    room = room_of(policy, grant)
    steps = [step for step in STEPS if step < room]
    return [*steps, room] if timedelta(minutes=1) <= room and len(steps) < len(STEPS) else steps


def open_extension(extensions: Sequence[Request]) -> Request | None:
    """Return the extension that is under way: waiting for reviewers, or for the broker."""
    under_way = (RequestState.PENDING, RequestState.APPROVED)
    return next((one for one in extensions if one.state in under_way and one.until is None), None)


async def offer_due(desk: Desk, grant: Grant) -> bool:
    """Offer to extend a grant that is about to end, once for each of its ends; say whether it was due."""
    left = grant.expires_at - desk.now
    if not timedelta() < left <= lead_of(grant) or not steps_of(desk.policy, grant):
        return False
    if await desk.work.shown(offer_of(grant.id, grant.expires_at)) is not None:
        return False
    await _want(desk, grant, grant.expires_at)
    return True


async def want_offers(desk: Desk, grant: Grant, end: datetime) -> None:
    """Bring what was offered before an end up to date, where something was."""
    if await desk.work.shown(offer_of(grant.id, end)) is not None:
        await _want(desk, grant, end)


async def refresh_offers(desk: Desk, request: Request) -> None:
    """Do so for the grant that a request is to extend."""
    if request.extends and (grant := await desk.work.grant(request.extends)) is not None:
        await want_offers(desk, grant, grant.expires_at)


async def _want(desk: Desk, grant: Grant, end: datetime) -> None:
    # A lane of their own: what is said in the thread must not wait for them, nor they for it.
    for message in (offer_of(grant.id, end), reminder_of(grant.id, end)):
        await desk.work.want(message, message)


@dataclass(frozen=True, slots=True)
class OfferFacts:
    """What an offer is made from; `end` is the end before which it is made."""

    grant: Grant
    end: datetime
    extensions: Sequence[Request]
    policy: Policy
    direct: bool


def offer_card(facts: OfferFacts) -> Card:
    """Make the message that offers to extend a grant, or what it becomes when there is nothing to choose any more."""
    grant, what = facts.grant, f"{facts.grant.role} on {facts.grant.resource}"
    if not grant.live:
        # How it ended is said where its line was, and on its card.
        text = f"More time was offered here for {what}, which is over."
        return Card(text, (Paragraph(say(text)),))
    if int(grant.expires_at.timestamp()) != int(facts.end.timestamp()):
        return _answered(facts, what)
    spans, text = _ends(facts, what)
    parts: list[Part] = [Paragraph(spans)]
    if (waiting := open_extension(facts.extensions)) is not None:
        text = f"{text} {_waiting_words(facts.policy, waiting)}."
        return Card(text, (*parts, Note(extension_spans(facts.policy, waiting))))
    if steps := steps_of(facts.policy, grant):
        parts.append(Buttons(tuple(extend_button(grant, step) for step in steps)))
        text = f"{text} It can be extended."
    return Card(text, tuple(parts))


def _answered(facts: OfferFacts, what: str) -> Card:
    """Say that more time was asked for; what came of it stands below, where it happened."""
    text = f"{what} was to end at {clock(facts.end, facts.grant.opened_at)}; more time was asked for, and given below."
    asked = next((one for one in facts.extensions if one.until is not None and one.until > facts.end), None)
    if asked is None:
        return Card(text, (Paragraph(moments(text, facts.end)),))
    begin = say(f"{what} was to end at ", Moment(facts.end), "; ")
    link = MessageLink(card_of(asked.id), f"{duration_of(asked)} more was asked for")
    return Card(text, (Paragraph((*begin, link, Words(", and given below."))),))


def _waiting_words(policy: Policy, extension: Request) -> str:
    words = requirement_words(policy, extension.requirement.needs, extension.requester)
    who = words if extension.state is RequestState.PENDING and words else "the broker"
    return f"{duration_of(extension)} more was asked for and waits for {who}"


def extension_spans(policy: Policy, extension: Request) -> Spans:
    """Say that an extension is under way, and whom it waits for; its card is one click away."""
    words = _waiting_words(policy, extension)
    asked, rest = words.split(" was asked for", 1)
    return say(MessageLink(card_of(extension.id), f"{asked} was asked for"), f"{rest}.")


def _ends(facts: OfferFacts, what: str) -> tuple[Spans, str]:
    at = Moment(facts.grant.expires_at)
    if facts.direct:
        return say(
            f"Your {what} ends at ", at, ". More time?"
        ), f"Your {what} ends at {clock(facts.end, facts.grant.opened_at)}."
    spans = say(Mention(facts.grant.account), f" {what} ends at ", at, ". More time?")
    return spans, f"{what} ends at {clock(facts.end, facts.grant.opened_at)}."


def extend_button(grant: Grant, step: timedelta) -> Button:
    text = f"+{format_duration(step)}"
    return Button(
        f"{cards.EXTEND}.{int(step.total_seconds())}",
        text,
        grant.token,
        label=clip(f"Ask for {format_duration(step)} more of {grant.role} on {grant.resource}", 75),
    )
