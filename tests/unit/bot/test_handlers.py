"""What decides, with ports in memory: who may do what in which state, and what is queued for it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from bot import ordering
from bot.cards import Buttons, Paragraph, say
from bot.handlers import handle
from bot.intents import Approve, Ask, Cancel, EndNow, Intent, NewLine, OpenDeny, Refuse, Revoke, Status, Unknown
from bot.model import Grant, Request
from bot.ordering import Opened
from bot.outgoing import DeliverTicket, EndGrant, PostOrder, Say
from bot.ports import Outsider, Refusal
from bot.request_card import RequestFacts, request_card
from bot.request_words import REASON_KEPT, ending_words
from bot.reviewing import expire
from bot.text import length
from policies.engine.decisions import Need, Requirement
from tests.unit.bot.memory import CHANNEL, LATER, NOW, POLICY, MemoryWork, desk, member, policy, source
from workflows.grants import GrantState
from workflows.requests import FINAL, TABLE, RequestEvent, RequestState
from workflows.wire import Problem


async def filed(work: MemoryWork, role: str = "read", resource: str = "prod-db") -> Request:
    """File Alice's request."""
    await handle(desk(work), Ask(source("alice"), resource, role, "30m", "INC-42"), member("alice"), f"ask-{role}")
    return next(reversed(work.requests.values()))


async def does(work: MemoryWork, intent: Intent, person: str, cause: str = "do", **more: Any) -> None:
    """Let somebody do something."""
    await handle(desk(work, **more), intent, member(person), cause)


async def granted(work: MemoryWork) -> Grant:
    """Bring Alice's request to an open grant."""
    request = await filed(work)
    await does(work, Approve(source("bob"), request.token), "bob", "approve")
    order = work.requests[request.id].order
    assert order
    await ordering.opened(desk(work), Opened("g0001", request.id, order, NOW, NOW + timedelta(minutes=30)))
    return work.grants["g0001"]


async def test_ask_files_a_request_and_shows_a_card() -> None:
    work = MemoryWork()
    request = await filed(work)
    assert (request.state, request.requester, request.seconds) == (RequestState.PENDING, "alice", 1800)
    assert request.requirement == Requirement((Need(1, ("dbas",)),))
    assert work.kinds() == ["show", "say"]
    assert "waits for 1 of dbas: Bob or Dana" in work.told("ask-read")
    _, told = work.sent["ask-read:tell"]
    assert f"/access revoke {request.id} takes it back." in str(told)
    await does(work, Status(source("alice")), "alice", "status")
    assert f"/access revoke {request.id}" in str(work.sent["status:tell"])


async def test_asking_again_says_that_access_is_open_and_how_to_get_in_or_more_time() -> None:
    work = MemoryWork()
    grant = await granted(work)
    await does(work, Ask(source("alice"), "prod-db", "read", "1h", "more"), "alice", "again")
    _, item = work.sent["again:held"]
    assert isinstance(item, Say)
    assert item.card.text == "Your access to read on prod-db is open until 12:30 UTC."
    [buttons] = [part for part in item.card.parts if isinstance(part, Buttons)]
    assert [(one.text, one.value) for one in buttons.buttons] == [("New line", grant.token), ("End now", grant.token)]
    assert all(one.label.startswith(one.text) and "read on prod-db" in one.label for one in buttons.buttons)
    assert "for more time" in str(item.card.parts)
    assert "waits for" in work.told("again")


async def test_what_policy_allows_is_ordered_at_once() -> None:
    work = MemoryWork()
    request = await filed(work, resource="staging-db")
    assert request.state is RequestState.APPROVED
    assert work.kinds() == ["order", "show", "say"]


async def test_approval_orders_the_grant_with_an_id_of_its_own() -> None:
    work = MemoryWork()
    request = await filed(work)
    await does(work, Approve(source("bob"), request.token), "bob")
    moved = work.requests[request.id]
    assert (moved.state, moved.decided_by) == (RequestState.APPROVED, "bob")
    [order] = [item for _, item in work.sent.values() if isinstance(item, PostOrder)]
    assert order == PostOrder(request.id, str(moved.order))


@pytest.mark.parametrize(("state", "event"), list(itertools.product(RequestState, RequestEvent)))
async def test_every_state_and_event_moves_as_the_table_says_or_is_refused_with_a_reason(
    state: RequestState, event: RequestEvent
) -> None:
    work = MemoryWork()
    request = await filed(work)
    order = "order-1" if state is RequestState.APPROVED else None
    request = replace(request, state=state, order=order, decided_by=None if state is RequestState.PENDING else "dana")
    work.requests[request.id] = request
    allowed = TABLE.get((state, event))
    match event:
        case RequestEvent.APPROVE:
            await does(work, Approve(source("bob"), request.token), "bob")
        case RequestEvent.DENY:
            await does(work, Refuse(source("bob"), request.token, "no"), "bob")
        case RequestEvent.CANCEL:
            await does(work, Cancel(source("alice"), request.token), "alice")
        case RequestEvent.EXPIRE:
            late = desk(work, request.expires_at)
            for one in await work.overdue(late.now):
                await expire(late, one)
        case RequestEvent.REOPEN:
            refusal = Refusal(403, Problem(code="denied", message="frozen"))
            await ordering.refused(desk(work), request.id, "order-1", refusal)
    assert work.requests[request.id].state is (allowed or state)
    if allowed is None and event in (RequestEvent.APPROVE, RequestEvent.DENY, RequestEvent.CANCEL):
        assert work.told("do").startswith("This request")


@pytest.mark.parametrize("state", sorted(FINAL))
async def test_final_request_says_what_became_of_it(state: RequestState) -> None:
    work = MemoryWork()
    request = await filed(work)
    work.requests[request.id] = replace(request, state=state, decided_by="dana")
    await does(work, Approve(source("bob"), request.token), "bob")
    assert state.value in work.told("do")


@pytest.mark.parametrize(
    ("person", "why"), [("alice", "nobody reviews their own request"), ("erin", "you are not in dbas")]
)
@pytest.mark.parametrize("kind", [Approve, OpenDeny])
async def test_who_may_not_answer_is_told_why(person: str, why: str, kind: type[Approve] | type[OpenDeny]) -> None:
    work = MemoryWork()
    request = await filed(work)
    await does(work, kind(source(person), request.token), person)
    assert why in work.told("do")
    assert work.requests[request.id].state is RequestState.PENDING
    assert await work.reviews(request.id) == []


async def test_form_sent_by_somebody_else_counts_for_whoever_sent_it() -> None:
    work = MemoryWork()
    request = await filed(work)
    await does(work, Refuse(source("erin"), request.token, "no"), "erin")
    assert work.requests[request.id].state is RequestState.PENDING


async def test_a_reviewers_reason_reaches_the_requester_letter_for_letter() -> None:
    work = MemoryWork()
    request = await filed(work)
    await does(work, Refuse(source("bob"), request.token, "use `staging` and *wait*"), "bob")
    _, item = work.sent["do:requester"]
    assert isinstance(item, Say)
    [told] = item.card.parts
    assert isinstance(told, Paragraph)
    assert told.spans == say("Your request for read on prod-db was denied by Bob: use `staging` and *wait*")


async def test_outsider_is_refused_whatever_they_do() -> None:
    work = MemoryWork()
    request = await filed(work)
    outsider = Outsider("U0GUEST001", "guests may not")
    every: tuple[Intent, ...] = (
        Ask(source("alice"), "prod-db", "read", "30m"),
        Approve(source("bob"), request.token),
        Refuse(source("bob"), request.token, "no"),
        Cancel(source("alice"), request.token),
        NewLine(source("alice"), "x"),
        EndNow(source("alice"), "x"),
        Revoke(source("alice")),
        Status(source("alice")),
    )
    for number, intent in enumerate(every):
        await handle(desk(work), intent, outsider, f"o{number}")
        assert work.told(f"o{number}") == "You cannot use this: guests may not."
    assert list(work.requests) == [request.id]
    assert work.requests[request.id] == request


async def test_click_from_another_channel_or_an_older_card_does_nothing() -> None:
    work = MemoryWork()
    request = await filed(work)
    place = f"card:{request.id}"
    work.places[place] = replace(work.places[place], channel=CHANNEL, ts="2.0")
    await does(work, Approve(source("bob", "2.0", "C0GENERAL1"), request.token), "bob", "elsewhere")
    await does(work, Approve(source("bob", "1.0"), request.token), "bob", "older")
    assert "no request that is known" in work.told("elsewhere")
    assert "not the newest card" in work.told("older")
    assert work.requests[request.id].state is RequestState.PENDING


async def test_click_after_the_end_of_its_time_expires_the_request() -> None:
    work = MemoryWork()
    request = await filed(work)
    late = desk(work, request.expires_at)
    await handle(late, Approve(source("bob"), request.token), member("bob"), "late")
    assert work.requests[request.id].state is RequestState.EXPIRED
    assert "expired before anybody answered" in work.told("late")


async def test_policy_that_forbids_the_request_by_now_stops_the_approval() -> None:
    work = MemoryWork()
    request = await filed(work)
    stricter = policy(POLICY.replace("max_duration: 4h", "max_duration: 5m"))
    await does(work, Approve(source("bob"), request.token), "bob", given=stricter)
    assert "at most 5m" in work.told("do")
    assert work.requests[request.id].state is RequestState.PENDING


async def test_policy_that_asks_for_more_by_now_counts() -> None:
    work = MemoryWork()
    request = await filed(work)
    stricter = policy(POLICY.replace("reviewers: {groups: [dbas]}", "reviewers: {count: 2, groups: [dbas]}"))
    await does(work, Approve(source("bob"), request.token), "bob", given=stricter)
    assert work.requests[request.id].state is RequestState.PENDING
    assert work.told(
        "do"
    ) == "Your approval counts; it still needs 1 of dbas: Dana or Bob." or "1 of dbas" in work.told("do")


async def test_one_person_fills_one_place_of_two() -> None:
    work = MemoryWork()
    request = await filed(work, "write")
    await does(work, Approve(source("bob"), request.token), "bob", "one")
    await does(work, Approve(source("bob"), request.token), "bob", "two")
    await does(work, Approve(source("dana"), request.token), "dana", "three")
    assert work.requests[request.id].state is RequestState.PENDING
    await does(work, Approve(source("erin"), request.token), "erin", "four")
    assert work.requests[request.id].state is RequestState.APPROVED


async def test_grant_opens_once_however_often_it_is_heard_of() -> None:
    work = MemoryWork()
    grant = await granted(work)
    before = dict(work.sent)
    facts = Opened(grant.id, grant.request, str(work.requests[grant.request].order), NOW, grant.expires_at)
    await ordering.opened(desk(work), facts)
    assert work.sent == before
    assert [item for _, item in work.sent.values() if isinstance(item, DeliverTicket)] == [
        DeliverTicket(grant.id, "U0ALICE001", 1)
    ]


async def test_grant_of_an_order_that_was_given_up_is_ended() -> None:
    work = MemoryWork()
    request = await filed(work)
    await does(work, Approve(source("bob"), request.token), "bob")
    await ordering.opened(desk(work), Opened("g0009", request.id, "an-old-order", NOW, LATER))
    [end] = [item for _, item in work.sent.values() if isinstance(item, EndGrant)]
    assert (end.grant, end.revoke) == ("g0009", True)
    assert not [item for _, item in work.sent.values() if isinstance(item, DeliverTicket)]


async def test_reason_of_ending_goes_to_the_broker_and_one_of_taking_back_onto_the_card() -> None:
    work = MemoryWork()
    grant = await granted(work)
    await does(work, Revoke(source("bob"), grant.id, "wrong database" * 100), "bob", "bob")
    [end] = [item for _, item in work.sent.values() if isinstance(item, EndGrant)]
    assert (end.grant, end.actor, end.revoke) == (grant.id, "bob", True)
    assert end.reason.startswith("wrong database")
    assert length(end.reason) == REASON_KEPT
    over = replace(grant, state=GrantState.REVOKED, ended_by="bob", ended_because=end.reason)
    assert end.reason in ending_words(policy(), over)
    request = await filed(work, "write")
    await does(work, Revoke(source("alice"), request.id, "*not* needed"), "alice", "alice")
    facts = RequestFacts(work.requests[request.id], (), None, policy(), NOW)
    assert request_card(facts).text.endswith("Cancelled by Alice: *not* needed.")
    [said] = [item.card.text for key, (_, item) in work.sent.items() if "cancelled" in key and isinstance(item, Say)]
    assert said == "Alice cancelled the request: *not* needed"


async def test_only_the_owner_gets_another_line() -> None:
    work = MemoryWork()
    grant = await granted(work)
    await does(work, NewLine(source("bob"), grant.token), "bob", "bob")
    assert "only they get a line" in work.told("bob")
    await does(work, NewLine(source("alice"), grant.token), "alice", "alice")
    rounds = [item.round for _, item in work.sent.values() if isinstance(item, DeliverTicket)]
    assert rounds == [1, 2]


@pytest.mark.parametrize(("person", "revoke"), [("alice", False), ("bob", True), ("erin", None)])
async def test_owner_ends_and_reviewer_revokes(person: str, revoke: bool | None) -> None:
    work = MemoryWork()
    grant = await granted(work)
    await does(work, EndNow(source(person), grant.token), person)
    ends = [item.revoke for _, item in work.sent.values() if isinstance(item, EndGrant)]
    assert ends == ([] if revoke is None else [revoke])


async def test_unknown_payload_is_answered() -> None:
    work = MemoryWork()
    await does(work, Unknown(source("bob"), "this button"), "bob")
    assert "Nothing here answers to this button" in work.told("do")


async def test_late_reviewer_hears_of_everybody_who_approved() -> None:
    work = MemoryWork()
    request = await filed(work, "write")
    await does(work, Approve(source("bob"), request.token), "bob", "bob")
    await does(work, Approve(source("erin"), request.token), "erin", "erin")
    await does(work, Approve(source("dana"), request.token), "dana", "dana")
    assert work.told("dana") == "This request was already approved by Bob and Erin."
