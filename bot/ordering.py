"""Decides what the broker's answer to an order means: access is open, more reviews are needed, or it is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from bot.asking import to_thread
from bot.cards import Card, Moment, Paragraph, clock, plain, say
from bot.extensions import refresh_offers, want_offers
from bot.holding import deliver
from bot.lines import line
from bot.model import Grant, Request
from bot.outgoing import EndGrant, Say, ToPerson, card_of, counter_of, ticket_of
from bot.ports import Desk, Refusal
from bot.request_words import name_of, requirement_words, subject_of, which_words
from bot.shapes import want_shapes
from bot.text import one_line, sentence
from policies.engine.decisions import Need, Requirement
from policies.engine.model import Policy
from workflows.grants import GrantState
from workflows.requests import RequestEvent, RequestState
from workflows.reviews import Answer, Missing, Review, tally

BOT = "airlock"
"""Who ends a grant that nobody ended."""
STALE = "its order had been given up"
ANSWER_TIME = timedelta(minutes=15)
"""What a reopened request is given at least."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A grant that the broker says is open."""

    grant: str
    request: str
    order: str
    opened_at: datetime
    expires_at: datetime


async def opened(desk: Desk, facts: Opened) -> None:
    """Take note of an open grant, once; one that nobody waits for any more is ended at once."""
    if await desk.work.grant(facts.grant) is not None:
        return
    request = await desk.work.request(facts.request)
    if request is None:
        return
    grant = Grant(
        id=facts.grant,
        token=desk.ids.token(),
        request=request.id,
        person=request.requester,
        account=request.account,
        resource=request.resource,
        role=request.terms.role,
        state=GrantState.ACTIVE,
        opened_at=facts.opened_at,
        expires_at=facts.expires_at,
        reason=request.reason,
    )
    await desk.work.add_grant(grant)
    if request.state is not RequestState.APPROVED or request.order != facts.order:
        # An order that was given up was obeyed after all: nobody waits for it, so it does not stay open.
        await desk.work.send(
            f"stale:{grant.id}", f"end:{grant.id}", EndGrant(grant.id, BOT, request.account, True, STALE)
        )
        return
    await desk.work.change_request(request, note=None)
    await desk.work.want(card_of(request.id), f"card:{request.id}")
    who = name_of(desk.policy, grant.person)
    text = line("grant_opened", person=who, until=grant.expires_at, since=grant.opened_at)
    spans = say(f"{who} has access until ", Moment(grant.expires_at), ".")
    await to_thread(desk, request, f"opened:{grant.id}", text, spans=spans)
    await desk.work.want(counter_of(grant.id), f"thread:{request.id}")
    await deliver(desk, grant)


@dataclass(frozen=True, slots=True)
class Extended:
    """A grant whose end the broker has moved."""

    grant: str
    request: str
    expires_at: datetime


async def extended(desk: Desk, facts: Extended) -> None:
    """Take note of a grant's new end, once, and show it wherever the old one stood."""
    grant = await desk.work.grant(facts.grant)
    request = await desk.work.request(facts.request)
    if grant is not None and grant.live and facts.expires_at > grant.expires_at:
        before = grant.expires_at
        grant = await desk.work.change_grant(grant, expires_at=facts.expires_at)
        await desk.work.want(card_of(grant.request), f"card:{grant.request}")
        await desk.work.want(counter_of(grant.id), f"counter:{grant.id}")
        await desk.work.want(ticket_of(grant.id), f"ticket:{grant.id}")
        await want_offers(desk, grant, before)
        await want_shapes(desk, grant)
        await _say_extended(desk, grant)
    if request is not None and request.until is None:
        await desk.work.change_request(request, until=facts.expires_at, note=None)
        await desk.work.want(card_of(request.id), f"card:{request.id}")


async def _say_extended(desk: Desk, grant: Grant) -> None:
    root = await desk.work.request(grant.request)
    key = f"extended:{grant.id}:{int(grant.expires_at.timestamp())}"
    who, until = name_of(desk.policy, grant.person), Moment(grant.expires_at)
    if root is not None:
        text = line("grant_extended", person=who, until=grant.expires_at, since=grant.opened_at)
        await to_thread(desk, root, key, text, spans=say(f"{who} has access until ", until, " now."))
    what = f"{grant.role} on {grant.resource}"
    spans = say(f"Your {what} was extended: it is open until ", until, ". The line that you have goes on working.")
    card = Card(
        f"Your {what} was extended: it is open until {clock(grant.expires_at, grant.opened_at)}.", (Paragraph(spans),)
    )
    await desk.work.send(f"{key}:told", f"person:{grant.account}", Say(ToPerson(grant.account), card))


async def waiting(desk: Desk, request_id: str, order: str) -> None:
    """Say on the card that the broker does not answer; the order is sent again."""
    request = await desk.work.request(request_id)
    if request is None or request.order != order or request.state is not RequestState.APPROVED or request.note:
        return
    await desk.work.change_request(request, note="Waiting for the broker, which does not answer; it is asked again.")
    await desk.work.want(card_of(request.id), f"card:{request.id}")


async def refused(desk: Desk, request_id: str, order: str, refusal: Refusal) -> None:
    """Reopen a request whose order the broker did not obey; the reviews are kept."""
    request = await desk.work.request(request_id)
    if request is None or request.order != order or request.state is not RequestState.APPROVED:
        return
    if await desk.work.grant_of(request.id) is not None:
        return
    problem = refusal.problem
    needs = needs_from(problem.needs or ())
    if problem.code == "more_reviews" and needs:
        await _more_reviews(desk, request, needs)
        return
    if request.extends is not None and request.until is not None:
        return  # its event was here before this answer
    hint = f" {sentence(problem.hint)}" if problem.hint else ""
    note = f"The broker refused: {one_line(problem.message, 300)}.{hint}"
    facts = {"message": problem.message, "hint": problem.hint}
    request = await _reopen(desk, request, request.requirement, note)
    if request.requirement.needs and request.extends is None:
        text = line(
            "reopened",
            message=f"The broker refused: {one_line(problem.message, 300)}.",
            hint=problem.hint,
            which="the request",
        )
        await to_thread(desk, request, f"refused:{order}", text)
    else:
        # Nobody reviews what the policy allows at once, so there is nobody to try again; and what an extension was to
        # move is over, or may not move.
        await desk.work.move_request(request, RequestEvent.CANCEL, decided_at=desk.now, note=note)
        await to_thread(desk, request, f"refused:{order}", line("order_refused", **facts))
    subject = subject_of(request)
    told = plain(f"{subject[:1].upper()}{subject[1:]}: {note}" if request.extends else f"{subject}: {note}")
    await desk.work.send(f"refused:{order}:told", f"person:{request.account}", Say(ToPerson(request.account), told))
    await refresh_offers(desk, request)


async def _more_reviews(desk: Desk, request: Request, wanted: tuple[Need, ...]) -> None:
    given = [one.review() for one in await desk.work.reviews(request.id)]
    requirement = raised(desk.policy, request.requirement, request.requester, given, wanted)
    count = tally(desk.policy, requirement, request.requester, given)
    needs, approved = (count.needs, count.by) if isinstance(count, Missing) else (requirement.needs, ())
    words = requirement_words(desk.policy, needs, request.requester, approved)
    note = "The broker's policy asks for more reviews."
    await _reopen(desk, request, requirement, note)
    text = line("reopened", message=f"{note} Still needed: {words}.", hint=None, which=which_words(request))
    await to_thread(desk, request, f"refused:{request.order}", text, mirrored=True)


def raised(
    policy: Policy, requirement: Requirement, requester: str, given: Sequence[Review], wanted: tuple[Need, ...]
) -> Requirement:
    """Return a requirement that also demands what the broker's policy wants beyond the reviews given."""
    merged = requirement.merged(Requirement(wanted))
    if isinstance(tally(policy, merged, requester, given), Missing):
        return merged
    # What the broker names may be what is missing, not all that is needed: then it comes on top of what is here.
    return Requirement(tuple(_on_top(policy, need, given) for need in wanted))


def _on_top(policy: Policy, need: Need, given: Sequence[Review]) -> Need:
    approved = [one for one in given if one.answer is Answer.APPROVE]
    people = {one.person for one in approved if policy.groups_of(one.person) & set(need.groups)}
    return Need(need.count + len(people), need.groups)


async def _reopen(desk: Desk, request: Request, requirement: Requirement, note: str) -> Request:
    expires_at = max(request.expires_at, desk.now + ANSWER_TIME)
    if request.extends is not None and (grant := await desk.work.grant(request.extends)) is not None:
        expires_at = min(expires_at, grant.expires_at)
    await desk.work.want(card_of(request.id), f"card:{request.id}")
    return await desk.work.move_request(
        request,
        RequestEvent.REOPEN,
        requirement=requirement,
        note=note,
        order=None,
        decided_at=None,
        decided_by=None,
        expires_at=expires_at,
    )


def needs_from(needs: Sequence[Any]) -> tuple[Need, ...]:
    """Read needs as the broker writes them; what does not read is left out."""
    found = []
    for need in needs:
        if not isinstance(need, dict):
            continue
        count, groups = need.get("count"), need.get("groups")
        if isinstance(count, int) and count > 0 and isinstance(groups, list) and groups:
            found.append(Need(count, tuple(str(group) for group in groups)))
    return tuple(found)
