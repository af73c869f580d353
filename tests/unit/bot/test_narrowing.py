"""Approvals of less: nobody gives more than anybody approved, whatever the order of clicks."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.adapters.orders import order_of
from bot.handlers import handle
from bot.intents import Approve, ApproveChanged, Intent, OpenChanges
from bot.model import Request
from bot.ports import Outsider
from broker.adapters.judging import Forbidden, Granted, Insufficient, judge
from policies.engine.load import PolicyUnreadable
from tests.unit.bot.memory import POLICY, MemoryWork, desk, policy, source
from tests.unit.bot.test_handlers import does, filed
from workflows.requests import RequestState
from workflows.terms import Terms, narrowest, no_wider

LEVELS = POLICY.replace('write: {credential: "file:b",', 'write: {above: [read], credential: "file:b",')
ASKED = Terms("write", 3600)
ROLES = st.sampled_from(["read", "write"])
TERMS = st.builds(Terms, ROLES, st.integers(1, 60).map(lambda minutes: minutes * 60))


async def asked(work: MemoryWork) -> Request:
    """File Alice's request to write for half an hour."""
    return await filed(work, "write")


async def review(work: MemoryWork, person: str, intent: Intent, cause: str, text: str = LEVELS) -> None:
    await does(work, intent, person, cause, given=policy(text))


@given(st.lists(TERMS, max_size=5))
def test_what_is_agreed_is_no_wider_than_anything_that_was_approved(approved: list[Terms]) -> None:
    held = policy(LEVELS)
    agreed = narrowest(held, "prod-db", ASKED, approved)
    assert agreed is not None
    assert all(no_wider(held, "prod-db", agreed, one) for one in (ASKED, *approved))
    orders = {narrowest(held, "prod-db", ASKED, some) for some in itertools.permutations(approved[:3])}
    assert len(orders) == 1


def test_roles_that_no_order_is_said_of_have_none() -> None:
    held = policy(POLICY)
    assert narrowest(held, "prod-db", ASKED, [Terms("read", 60)]) is None
    assert not no_wider(held, "prod-db", Terms("read", 60), ASKED)
    assert narrowest(held, "nowhere", ASKED, [Terms("write", 60)]) == Terms("write", 60)


def test_lower_is_transitive_and_no_role_is_below_itself() -> None:
    three = POLICY.replace(
        'write: {credential: "file:b",',
        'admin: {above: [write], credential: "file:b", relations: [public.customers]}\n'
        '      write: {above: [read], credential: "file:b",',
    )
    assert policy(three).resources["prod-db"].below("admin") == {"read", "write"}
    for broken in ("above: [nothing]", "above: [write]"):
        with pytest.raises(PolicyUnreadable):
            policy(LEVELS.replace("above: [read]", broken))


async def test_less_by_both_stages_gives_the_least_and_the_broker_agrees() -> None:
    work = MemoryWork()
    request = await asked(work)
    await review(work, "bob", ApproveChanged(source("bob"), request.token, "write", "20m"), "one")
    pending = work.requests[request.id]
    assert (pending.state, pending.narrowed) == (RequestState.PENDING, Terms("write", 1200))
    await review(work, "erin", ApproveChanged(source("erin"), request.token, "write", "10m"), "two")
    done = work.requests[request.id]
    assert (done.state, done.terms) == (RequestState.APPROVED, Terms("write", 600))
    order = order_of(done, str(done.order), await work.reviews(request.id))
    assert (order.role, order.seconds, order.asked_terms) == ("write", 600, Terms("write", 1800))
    assert isinstance(judge(policy(LEVELS), order), Granted)
    for more in ({"seconds": 1200}, {"role": "read", "seconds": 1800}):
        assert isinstance(judge(policy(LEVELS), order.model_copy(update=more)), Forbidden)


async def test_lower_role_that_one_reviewer_may_give_is_given_by_one() -> None:
    work = MemoryWork()
    request = await asked(work)
    await review(work, "bob", ApproveChanged(source("bob"), request.token, "read", "30m"), "one")
    done = work.requests[request.id]
    assert (done.state, done.terms) == (RequestState.APPROVED, Terms("read", 1800))
    order = order_of(done, str(done.order), await work.reviews(request.id))
    assert isinstance(judge(policy(LEVELS), order), Granted)


async def test_lower_role_that_needs_others_waits_for_them_and_both_may_answer() -> None:
    work = MemoryWork()
    text = LEVELS.replace("reviewers: {groups: [dbas]}, max", "reviewers: {groups: [security]}, max")
    request = await asked(work)
    await review(work, "bob", ApproveChanged(source("bob"), request.token, "read", "30m"), "one", text)
    pending = work.requests[request.id]
    assert pending.state is RequestState.PENDING
    assert "it still needs 1 of security: Erin" in work.told("one")
    await review(work, "dana", Approve(source("dana"), request.token), "two", text)
    assert work.requests[request.id].state is RequestState.PENDING
    await review(work, "erin", Approve(source("erin"), request.token), "three", text)
    done = work.requests[request.id]
    assert (done.state, done.terms) == (RequestState.APPROVED, Terms("read", 1800))
    assert isinstance(judge(policy(text), order_of(done, str(done.order), await work.reviews(request.id))), Granted)


async def test_lower_role_that_policy_gives_at_once_is_given_by_who_approved_it() -> None:
    work = MemoryWork()
    text = LEVELS.replace("decision: ask, resources: [prod-db], roles: [read], groups: [engineers],\n"
                          "     reviewers: {groups: [dbas]},",
                          "decision: allow, resources: [prod-db], roles: [read], groups: [engineers],")  # fmt: skip
    assert text != LEVELS
    request = await asked(work)
    await review(work, "erin", ApproveChanged(source("erin"), request.token, "read", "30m"), "one", text)
    done = work.requests[request.id]
    assert (done.state, done.terms) == (RequestState.APPROVED, Terms("read", 1800))
    assert isinstance(judge(policy(text), order_of(done, str(done.order), await work.reviews(request.id))), Granted)


async def test_reviewer_may_change_their_mind_while_it_waits() -> None:
    work = MemoryWork()
    request = await asked(work)
    await review(work, "bob", ApproveChanged(source("bob"), request.token, "write", "10m"), "one")
    await review(work, "bob", ApproveChanged(source("bob"), request.token, "write", "10m"), "same")
    assert "You have approved this already" in work.told("same")
    await review(work, "bob", Approve(source("bob"), request.token), "wider")
    assert work.requests[request.id].narrowed is None
    await review(work, "erin", Approve(source("erin"), request.token), "two")
    assert work.requests[request.id].terms == Terms("write", 1800)


@pytest.mark.parametrize(
    ("role", "duration", "says"),
    [
        ("read", "31m", "at most 30m"),
        ("admin", "10m", "Choose one of: write, read."),
        ("", "10m", "Choose one of"),
        ("write", "", "a duration needs a unit"),
        ("write", "0m", "at least a minute"),
        ("write", "x" * 100, "a duration is a number of"),
    ],
)
async def test_terms_that_are_no_less_approve_nothing(role: str, duration: str, says: str) -> None:
    work = MemoryWork()
    request = await asked(work)
    await review(work, "bob", ApproveChanged(source("bob"), request.token, role, duration), "do")
    assert says.lower() in work.told("do").lower()
    assert await work.reviews(request.id) == []


async def test_roles_without_an_order_cannot_be_lowered() -> None:
    work = MemoryWork()
    request = await asked(work)
    await review(work, "bob", ApproveChanged(source("bob"), request.token, "read", "10m"), "do", POLICY)
    assert "Choose one of: write." in work.told("do")


@pytest.mark.parametrize("kind", ["changed", "open"])
@pytest.mark.parametrize("person", ["alice", "gus"])
async def test_who_may_not_answer_approves_nothing_with_changes(kind: str, person: str) -> None:
    work = MemoryWork()
    request = await asked(work)
    intent: Any = OpenChanges(source("alice"), request.token)
    if kind == "changed":
        intent = ApproveChanged(source("alice"), request.token, "read", "10m")
    if person == "gus":
        await handle(desk(work), intent, Outsider("U0GUEST001", "guests may not"), "do")
        assert work.told("do") == "You cannot use this: guests may not."
    else:
        await review(work, "alice", intent, "do")
        assert "nobody reviews their own request" in work.told("do")
    assert await work.reviews(request.id) == []


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["alice", "bob", "dana", "erin"]), st.none() | TERMS), max_size=6))
async def test_whatever_is_clicked_the_broker_never_finds_more_than_was_approved(
    clicks: list[tuple[str, Terms | None]],
) -> None:
    work = MemoryWork()
    request = await asked(work)
    for number, (person, terms) in enumerate(clicks):
        intent: Intent = Approve(source(person), request.token)
        if terms is not None:
            intent = ApproveChanged(source(person), request.token, terms.role, f"{terms.seconds // 60}m")
        await review(work, person, intent, f"c{number}")
    now = work.requests[request.id]
    given_so_far = await work.reviews(request.id)
    assert all(no_wider(policy(LEVELS), "prod-db", now.terms, one.terms or now.asked) for one in given_so_far)
    verdict = judge(policy(LEVELS), order_of(now, "order-1", given_so_far))
    assert isinstance(verdict, Granted if now.state is RequestState.APPROVED else Insufficient)
