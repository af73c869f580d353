"""When more time is offered, how much, and what becomes of a request for it in every state of its grant."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot import ordering, relay
from bot.cards import MessageLink
from bot.extensions import LEAD, STEPS, OfferFacts, lead_of, offer_card, offer_due, steps_of
from bot.handlers import handle
from bot.intents import Approve, AskAgain, Extend
from bot.model import Grant, Request
from bot.ordering import Extended, Opened
from bot.outgoing import PostOrder, Say, card_of, offer_of, reminder_of
from bot.ports import Outsider, Refusal
from bot.reviewing import expire
from policies.engine.decide import terms_of
from tests.unit.bot.memory import NOW, POLICY, MemoryWork, desk, member, policy, source
from tests.unit.bot.test_cards import valid
from tests.unit.bot.test_handlers import does, filed
from tests.unit.bot.test_relay import event
from workflows.grants import TABLE, GrantEvent, GrantState
from workflows.requests import RequestState
from workflows.wire import Problem

HALF_HOUR = timedelta(minutes=30)


async def granted(work: MemoryWork, lasts: timedelta = HALF_HOUR) -> Grant:
    """Bring Alice to access that began a while ago, so that it ends in four minutes."""
    request = await filed(work)
    await does(work, Approve(source("bob"), request.token), "bob", "approve")
    order = str(work.requests[request.id].order)
    end = NOW + timedelta(minutes=4)
    await ordering.opened(desk(work), Opened("g0001", request.id, order, end - lasts, end))
    return work.grants["g0001"]


async def extended(work: MemoryWork, grant: Grant, seconds: int = 900) -> Request:
    await does(work, Extend(source("alice"), grant.token, seconds), "alice", "extend")
    return next(one for one in work.requests.values() if one.extends == grant.id)


def grant_of(minutes: float, ends: timedelta = timedelta(minutes=4)) -> Grant:
    lasts = timedelta(minutes=minutes)
    end = NOW + ends
    return Grant("g0001", "t", "rq", "alice", "U0ALICE001", "prod-db", "read", GrantState.ACTIVE, end - lasts, end)


@given(st.floats(min_value=1, max_value=240))
def test_offer_leaves_time_to_answer_and_choices_stay_within_the_policy(minutes: float) -> None:
    grant = grant_of(minutes)
    assert timedelta() < lead_of(grant) <= min(LEAD, grant.expires_at - grant.opened_at)
    longest = terms_of(policy(), "alice", "prod-db", "read").max_duration
    steps = steps_of(policy(), grant)
    assert steps == sorted(set(steps))
    for step in steps:
        assert step >= timedelta(minutes=1)
        assert grant.expires_at - grant.opened_at + step <= longest + timedelta(seconds=1)
    if longest - (grant.expires_at - grant.opened_at) >= timedelta(minutes=1):
        assert steps


@pytest.mark.parametrize(
    ("minutes", "steps"),
    [(30, [15, 30, 60]), (180, [15, 30, 60]), (200, [15, 30, 40]), (225, [15]), (235, [5]), (240, [])],
)
def test_choices_go_up_to_the_longest_that_the_policy_gives(minutes: int, steps: list[int]) -> None:
    assert steps_of(policy(), grant_of(minutes)) == [timedelta(minutes=one) for one in steps]
    assert len(STEPS) == 3


@pytest.mark.parametrize(
    ("minutes", "left", "due"),
    [
        (30, 4.9, True),
        (30, 5.1, False),
        (30, 0, False),
        (9, 3.1, False),
        (9, 2.9, True),
        (1, 0.3, True),
        (240, 4, False),
    ],
)
async def test_offer_is_made_once_shortly_before_the_end(minutes: float, left: float, due: bool) -> None:
    work = MemoryWork()
    grant = grant_of(minutes, timedelta(minutes=left))
    work.grants[grant.id] = grant
    assert await offer_due(desk(work), grant) is due
    assert not await offer_due(desk(work), grant)
    wanted = {offer_of(grant.id, grant.expires_at), reminder_of(grant.id, grant.expires_at)}
    assert set(work.places) == (wanted if due else set())


@pytest.mark.parametrize("kind", ["grant.expired", "grant.ended", "grant.revoked"])
async def test_offer_follows_the_end(kind: str) -> None:
    work = MemoryWork()
    grant = await granted(work)
    assert await offer_due(desk(work), grant)
    messages = offer_of(grant.id, grant.expires_at), reminder_of(grant.id, grant.expires_at)
    for number, each in enumerate((event(1, kind, by="bob"), event(2, "grant.closed", sessions=1, verified=True)), 2):
        await relay.apply(desk(work), [each])
        assert [work.places[message].wanted for message in messages] == [number, number]
    facts = OfferFacts(work.grants[grant.id], grant.expires_at, (), policy(), True)
    assert offer_card(facts).text == "More time was offered here for read on prod-db, which is over."


@pytest.mark.parametrize("state", GrantState)
@pytest.mark.parametrize("direct", [True, False])
def test_offer_is_a_valid_message_in_every_state(state: GrantState, direct: bool) -> None:
    grant = replace(grant_of(30), state=state)
    for end in (grant.expires_at, grant.expires_at - timedelta(minutes=15)):
        card = offer_card(OfferFacts(grant, end, (), policy(), direct))
        valid(card)
        has_buttons = any(part.kind == "buttons" for part in card.parts)
        assert has_buttons is (grant.live and end == grant.expires_at)


async def test_card_of_an_extension_follows_the_end_of_the_access() -> None:
    work = MemoryWork()
    grant = await granted(work)
    extension = await extended(work, grant)
    until = grant.expires_at + HALF_HOUR
    work.requests[extension.id] = replace(extension, state=RequestState.APPROVED, until=until)
    for number, kind in enumerate(("grant.revoked", "grant.closed"), 1):
        before = work.places[card_of(extension.id)].wanted
        await relay.apply(desk(work), [event(number, kind, by="bob")])
        assert work.places[card_of(extension.id)].wanted == before + 1


async def test_offer_that_was_taken_up_leads_down_to_what_was_asked_and_tells_no_outcome_above_it() -> None:
    work = MemoryWork()
    grant = await granted(work)
    extension = replace(await extended(work, grant), state=RequestState.APPROVED, until=grant.expires_at + HALF_HOUR)
    later = replace(grant, expires_at=grant.expires_at + HALF_HOUR)
    card = offer_card(OfferFacts(later, grant.expires_at, (extension,), policy(), False))
    valid(card)
    assert card.text == "read on prod-db was to end at 12:04 UTC; more time was asked for, and given below."
    assert MessageLink(card_of(extension.id), "15m more was asked for") in card.parts[0].spans  # type: ignore[union-attr]


async def test_extension_is_a_new_request_with_the_grants_terms() -> None:
    work = MemoryWork()
    grant = await granted(work)
    request = await extended(work, grant)
    assert (request.extends, request.role, request.seconds, request.reason) == (grant.id, "read", 900, "INC-42")
    assert request.state is RequestState.PENDING
    assert request.expires_at == grant.expires_at
    assert request.id != grant.request


@pytest.mark.parametrize("state", [state for state in GrantState if state is not GrantState.OPENING])
async def test_click_asks_for_more_only_while_the_grant_is_active(state: GrantState) -> None:
    work = MemoryWork()
    grant = await granted(work)
    work.grants[grant.id] = grant = replace(grant, state=state)
    await does(work, Extend(source("alice"), grant.token, 900), "alice", "extend")
    filed_now = [one for one in work.requests.values() if one.extends]
    assert bool(filed_now) is ((state, GrantEvent.EXTEND) in TABLE)
    if not filed_now:
        assert "This access is over" in work.told("extend")


async def test_click_after_the_end_is_too_late_though_its_event_is_not_here_yet() -> None:
    work = MemoryWork()
    grant = await granted(work)
    await does(work, Extend(source("alice"), grant.token, 900), "alice", "late", now=grant.expires_at)
    assert "This access is over" in work.told("late")


async def test_approval_after_the_end_of_the_access_expires_the_extension() -> None:
    work = MemoryWork()
    grant = await granted(work)
    request = await extended(work, grant)
    await does(work, Approve(source("bob"), request.token), "bob", "late", now=grant.expires_at)
    assert work.requests[request.id].state is RequestState.EXPIRED
    assert len([item for _, item in work.sent.values() if isinstance(item, PostOrder)]) == 1


@pytest.mark.parametrize(
    ("state", "code"), list(itertools.product(RequestState, ["over", "denied", "not_found", "already"]))
)
async def test_refused_extension_is_closed_and_reopens_nothing(state: RequestState, code: str) -> None:
    work = MemoryWork()
    grant = await granted(work)
    request = replace(await extended(work, grant), state=state, order="o-1")
    work.requests[request.id] = request
    root = work.requests[grant.request]
    refusal = Refusal(409, Problem(code=code, message="this access is over"))
    await ordering.refused(desk(work), request.id, "o-1", refusal)
    expected = RequestState.CANCELLED if state is RequestState.APPROVED else state
    assert work.requests[request.id].state is expected
    assert work.requests[grant.request] == root
    assert work.grants[grant.id] == grant


@pytest.mark.parametrize("state", GrantState)
async def test_new_end_is_noted_once_and_only_of_a_grant_that_is_open(state: GrantState) -> None:
    work = MemoryWork()
    grant = await granted(work)
    request = await extended(work, grant)
    work.grants[grant.id] = grant = replace(grant, state=state)
    facts = Extended(grant.id, request.id, grant.expires_at + timedelta(minutes=15))
    await ordering.extended(desk(work), facts)
    assert work.grants[grant.id].expires_at == (facts.expires_at if grant.live else grant.expires_at)
    assert work.requests[request.id].until == facts.expires_at
    before = dict(work.sent)
    await ordering.extended(desk(work), facts)
    await ordering.extended(desk(work), Extended(grant.id, request.id, grant.expires_at))
    assert work.sent == before
    assert work.grants[grant.id].expires_at == (facts.expires_at if grant.live else grant.expires_at)


async def test_refusal_after_the_event_said_that_it_worked_changes_nothing() -> None:
    work = MemoryWork()
    grant = await granted(work)
    request = await extended(work, grant)
    await does(work, Approve(source("bob"), request.token), "bob", "approve-2")
    order = str(work.requests[request.id].order)
    await ordering.extended(desk(work), Extended(grant.id, request.id, grant.expires_at + timedelta(minutes=15)))
    await ordering.refused(desk(work), request.id, order, Refusal(409, Problem(code="over", message="over")))
    assert work.requests[request.id].state is RequestState.APPROVED


async def test_reviewer_of_an_extension_is_held_to_the_policy_for_the_whole_time() -> None:
    work = MemoryWork()
    grant = await granted(work)
    request = await extended(work, grant)
    stricter = policy(POLICY.replace("max_duration: 4h", "max_duration: 40m"))
    await does(work, Approve(source("bob"), request.token), "bob", "approve-2", given=stricter)
    assert "at most 40m" in work.told("approve-2")
    assert work.requests[request.id].state is RequestState.PENDING


async def test_outsider_does_nothing_with_the_new_buttons() -> None:
    work = MemoryWork()
    grant = await granted(work)
    request = await extended(work, grant)
    await expire(desk(work), request)
    before = dict(work.requests)
    outsider = Outsider("U0GUEST001", "guests may not")
    intents = (Extend(source("alice"), grant.token, 900), AskAgain(source("alice"), request.token))
    for number, intent in enumerate(intents):
        await handle(desk(work), intent, outsider, f"o{number}")
        assert work.told(f"o{number}") == "You cannot use this: guests may not."
    assert work.requests == before


async def test_extension_that_nobody_answered_is_asked_for_again_while_the_access_is_open() -> None:
    work = MemoryWork()
    grant = await granted(work)
    request = await extended(work, grant)
    await expire(desk(work), request)
    _, said = work.sent[f"expired:{request.id}:thread"]
    why = "nobody answered in time. Alice may ask again."
    assert isinstance(said, Say)
    assert said.card.text == f"The request for 15m more has expired: {why}"
    await does(work, AskAgain(source("alice"), request.token), "alice", "again")
    again = [one for one in work.requests.values() if one.extends and one.state is RequestState.PENDING]
    assert [(one.seconds, one.role) for one in again] == [(900, "read")]
    await expire(desk(work), again[0])
    work.grants[grant.id] = replace(grant, state=GrantState.EXPIRED)
    await does(work, AskAgain(source(member("alice").person), request.token), "alice", "too-late")
    assert "is over; ask for it anew" in work.told("too-late")
