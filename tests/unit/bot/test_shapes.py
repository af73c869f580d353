"""Shapes with ports in memory: who approves one, what the broker's events make of it, who may withdraw it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bot import relay
from bot.adapters.answers import answer_of
from bot.chat.slack.blocks import render
from bot.chat.slack.check import check_payload
from bot.chat.slack.payloads import intent_of, kept_of
from bot.hold_card import HoldFacts, hold_card, hold_words
from bot.intents import ApproveHold, ApproveShape, OpenShape, Unknown, Withdraw
from bot.model import Hold, Shape
from bot.outgoing import AnswerHold, Say, Show, WithdrawShape, shape_of
from bot.policy_words import effect_words
from bot.shape_card import shape_card, shape_form_parts, shapes_words
from policies.engine.load import load
from tests.unit.bot.memory import NOW, MemoryWork, desk, policy, source
from tests.unit.bot.test_hold_card import actions, facts, redacting, view
from tests.unit.bot.test_holds import BOTH, DIGEST, answers, does_, held
from tests.unit.bot.test_relay import event
from workflows.grants import GrantState
from workflows.shapes import ShapeState
from workflows.wire import FOLDED, ShapeOffer, ShapeView

REPOSITORY = Path(__file__).resolve().parents[3]
SHAPE = "e" * 64
OFFER = ShapeOffer(
    digest=SHAPE, text="UPDATE orders SET total = $1 WHERE id = $2", values=["$1: any number", "$2: any"]
)


def approval(hold: Hold, person: str = "bob", **change: Any) -> ApproveShape:
    return ApproveShape(source(person), **{"token": hold.token, "digest": DIGEST, "shape": SHAPE, **change})


async def shaped(work: MemoryWork, **more: Any) -> Shape:
    """Bring Alice to a shape that Bob approved."""
    hold = await held(work)
    data = {
        "shape": "shape-0001",
        "hold": hold.id,
        "by": ["bob"],
        "text": "UPDATE ?",
        "rules": ["prod-writes"],
        "most": 10,
    }
    await relay.apply(desk(work), [event(70, "shape.approved", **{**data, **more})])
    return work.shapes["shape-0001"]


def said(work: MemoryWork) -> str:
    return "\n".join(item.card.text for _, item in work.sent.values() if isinstance(item, Say))


async def test_an_approval_of_the_shape_is_a_review_that_names_it_and_goes_to_the_broker() -> None:
    work = MemoryWork()
    hold = await held(work)
    await does_(work, approval(hold), "bob")
    (given,) = await work.hold_reviews(hold)
    assert (given.person, given.shape) == ("bob", SHAPE)
    assert [item.hold for item in answers(work)] == [hold.id]
    answer = answer_of(hold, [given], "p" * 64)
    assert [one.shape for one in answer.reviews] == [SHAPE]
    assert answer.of_shape(SHAPE)
    assert answer.of_shape("f" * 64) == []


@pytest.mark.parametrize(
    ("person", "change", "why"),
    [
        ("alice", {}, "nobody reviews their own request"),
        ("erin", {}, "you are not in dbas"),
        ("bob", {"digest": "0" * 64}, "showed another statement"),
        ("bob", {"token": "nothing"}, "no statement that is known here"),
    ],
)
async def test_whoever_may_not_answer_approves_no_shape(person: str, change: dict[str, Any], why: str) -> None:
    work = MemoryWork()
    await does_(work, approval(await held(work), person, **change), person)
    assert answers(work) == []
    assert why in said(work)


async def test_of_two_reviewers_the_second_is_told_what_the_first_approved_who_may_change_their_mind() -> None:
    work = MemoryWork()
    hold = await held(work, BOTH)
    await does_(work, approval(hold), "bob", "one")
    reviews = await work.hold_reviews(hold)
    assert "Bob approved its shape too." in hold_words(policy(), hold, "alice", reviews)
    await does_(work, approval(hold), "bob", "two")
    assert "You have approved this already" in said(work)
    work.holds[hold.id] = hold = replace(work.holds[hold.id], note=None)
    await does_(work, ApproveHold(source("bob"), hold.token), "bob", "three")
    (given,) = await work.hold_reviews(hold)
    assert given.shape is None


def test_the_button_is_on_cards_whose_statement_has_a_shape_to_approve() -> None:
    assert actions(hold_card(facts(view()))) == ["hold.approve", "hold.deny"]
    assert actions(hold_card(facts(view(shape=OFFER)))) == ["hold.approve", "hold.shape", "hold.deny"]
    hidden = replace(facts(view(shape=OFFER)), policy=redacting())
    assert actions(hold_card(hidden)) == ["hold.review", "hold.shape"]
    other = view(shape=OFFER).model_copy(update={"digest": "0" * 64})
    assert actions(hold_card(facts(other))) == ["hold.deny"]


def test_the_form_says_all_of_what_is_approved() -> None:
    found: HoldFacts = facts(view(shape=OFFER, most=10, effects=["write"]))
    assert found.view is not None
    parts = shape_form_parts(found.policy, found.hold, found.grant, found.view)
    assert parts is not None
    text = repr(parts)
    for words in (
        OFFER.text,
        *OFFER.values,
        "with any other values",
        "at most 10 rows",
        f"{found.grant.role} on prod-db",
    ):
        assert words in text
    assert repr(found.grant.expires_at) in text
    assert shape_form_parts(found.policy, found.hold, found.grant, view()) is None


def test_the_card_of_a_request_says_that_shapes_may_be_approved() -> None:
    _, asked = effect_words(load(REPOSITORY / "policies"), "alice", "prod-db", "write")
    assert asked == "changing data (1 of dbas, or once for statements of one shape)"


def submission(metadata: str) -> dict[str, Any]:
    body = {"callback_id": "hold.shape", "private_metadata": metadata, "blocks": [{"text": "UPDATE"}]}
    return {"type": "view_submission", "view": body, "user": {"id": "U0BOB00001"}}


def test_the_form_carries_what_it_showed_and_nothing_of_it_is_kept() -> None:
    sent = submission(f"token:{DIGEST}:{SHAPE}")
    found = intent_of(sent, "/access")
    assert isinstance(found, ApproveShape)
    assert (found.token, found.digest, found.shape) == ("token", DIGEST, SHAPE)
    assert "UPDATE" not in repr(kept_of(sent))
    for metadata in ("", "token", f"token:{DIGEST}", f"token:{DIGEST}:{'g' * 64}", f":{DIGEST}:{SHAPE}"):
        assert isinstance(intent_of(submission(metadata), "/access"), Unknown)


async def test_an_approved_shape_is_a_message_of_the_thread_and_the_requester_hears_of_it() -> None:
    work = MemoryWork()
    shape = await shaped(work)
    assert (shape.state, shape.people, shape.most) == (ShapeState.ACTIVE, ("bob",), 10)
    assert Show(shape_of(shape.id), 1) in [item for _, item in work.sent.values()]
    assert "Bob approved the shape of your statement: until" in said(work)
    await relay.apply(desk(work), [event(71, "shape.approved", shape="shape-0002", hold="h9999", by=["bob"])])
    await relay.apply(desk(work), [event(72, "shape.approved", shape="../x", hold="h0001", by=["bob"])])
    assert list(work.shapes) == ["shape-0001"]


async def test_a_shape_that_made_no_rule_is_said_with_its_reason() -> None:
    work = MemoryWork()
    await held(work)
    await relay.apply(desk(work), [event(70, "shape.refused", hold="h0001", reason="not enough of its reviewers")])
    assert "The shape of the statement of Alice was not approved, only this one run: not enough of its" in said(work)


async def test_statements_that_pass_by_a_shape_are_counted_for_the_summary() -> None:
    work = MemoryWork()
    shape = await shaped(work)
    run = {"rules": ["prod-writes", shape.id], "masked": []}
    await relay.apply(desk(work), [event(80 + at, "statement.allowed", **run) for at in range(3)])
    await relay.apply(desk(work), [event(90, "statement.allowed", rules=["prod-writes", "shape-9999"], masked=[])])
    assert work.shapes[shape.id].runs == 3
    together = {"g0001": {"statements": 5, "masked": [], "rules": {"prod-writes": 5, shape.id: 2, "shape-9999": 3}}}
    await relay.apply(desk(work), [event(91, FOLDED, None, grants=together)])
    assert work.shapes[shape.id].runs == 5
    await relay.apply(desk(work), [event(95, "grant.closed", sessions=1, statements=4, denied=0, verified=True)])
    assert "1 shape approved by Bob, 5 statements passed by it" in said(work)
    assert shapes_words(policy(), []) == ""


async def presses(work: MemoryWork, shape: Shape, person: str, cause: str = "press") -> list[WithdrawShape]:
    await desk(work).work.want(shape_of(shape.id), "shape")
    await does_(work, Withdraw(source(person), shape.token), person, cause)
    return [item for _, item in work.sent.values() if isinstance(item, WithdrawShape)]


@pytest.mark.parametrize(("person", "may"), [("alice", True), ("dana", True), ("erin", False)])
async def test_the_requester_and_reviewers_withdraw_a_shape(person: str, may: bool) -> None:
    work = MemoryWork()
    shape = await shaped(work)
    found = await presses(work, shape, person)
    assert [(one.shape, one.actor) for one in found] == ([(shape.id, person)] if may else [])
    assert may or "Only Alice and those who may review such statements can withdraw it." in said(work)


async def test_a_withdrawn_shape_is_said_in_the_thread_and_cannot_be_withdrawn_again() -> None:
    work = MemoryWork()
    shape = await shaped(work)
    await relay.apply(desk(work), [event(71 + at, "shape.withdrawn", shape=shape.id, by="dana") for at in range(2)])
    assert work.shapes[shape.id].state is ShapeState.WITHDRAWN
    assert "Dana withdrew the shape shape-0001: such statements of Alice are reviewed again." in said(work)
    assert await presses(work, work.shapes[shape.id], "bob") == []
    assert "already withdrawn by Dana" in said(work)


async def test_the_message_of_a_shape_offers_to_withdraw_it_while_it_is_in_force() -> None:
    work = MemoryWork()
    shape = await shaped(work)
    grant = work.grants[shape.grant]
    text = "UPDATE orders SET total = $1 WHERE status = 'new'"
    shown = ShapeView(
        id=shape.id,
        grant=grant.id,
        hold="h0001",
        digest=SHAPE,
        text=text,
        redacted="UPDATE ?",
        values=["$1: any number"],
        approved_at=NOW,
    )
    card = shape_card(policy(), shape, grant, shown)
    check_payload(render(card))
    assert actions(card) == ["shape.withdraw"]
    assert text in repr(card)
    assert "at most 10 rows" in repr(card)
    hidden = shape_card(redacting(), shape, replace(grant, resource="prod-db"), shown)
    assert "'new'" not in repr(hidden)
    assert (
        actions(shape_card(policy(), replace(shape, state=ShapeState.WITHDRAWN, withdrawn_by="dana"), grant, None))
        == []
    )
    over = replace(grant, state=GrantState.EXPIRED, expires_at=NOW - timedelta(minutes=1))
    assert actions(shape_card(policy(), shape, over, shown)) == []
    assert "over with the access" in shape_card(policy(), shape, over, shown).text


async def test_end_of_the_access_brings_the_message_up_to_date() -> None:
    work = MemoryWork()
    shape = await shaped(work)
    await relay.apply(desk(work), [event(90, "grant.expired")])
    assert Show(shape_of(shape.id), 2) in [item for _, item in work.sent.values()]


async def test_extension_of_the_access_brings_the_message_up_to_date() -> None:
    work = MemoryWork()
    shape = await shaped(work)
    until = work.grants[shape.grant].expires_at + timedelta(minutes=15)
    await relay.apply(desk(work), [event(90, "grant.extended", request="r-2", expires_at=until.isoformat())])
    assert Show(shape_of(shape.id), 2) in [item for _, item in work.sent.values()]
    assert f"until {until:%H:%M} UTC." in shape_card(policy(), shape, work.grants[shape.grant], None).text


async def test_a_click_whose_form_did_not_open_is_told_so() -> None:
    work = MemoryWork()
    hold = await held(work)
    await does_(work, OpenShape(source("bob"), hold.token), "bob")
    assert "form" in said(work)
    assert not [item for _, item in work.sent.values() if isinstance(item, AnswerHold)]
