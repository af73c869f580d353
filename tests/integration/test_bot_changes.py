"""Approving less than was asked for: what the form offers, what several reviewers come to, what the order carries."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bot_world import Story, buttons, initial, options, shown, story
from workflows.orders import OrderedTerms


@pytest.fixture
async def told(tmp_path: Path) -> AsyncIterator[Story]:
    async with story(tmp_path) as running:
        yield running


async def form(told: Story, card: dict[str, Any], user: str = "bob") -> dict[str, Any]:
    """Open the form to approve less with."""
    view: dict[str, Any] = (await told.click(user, "request.changes", card))["view"]
    assert view["callback_id"] == "request.changes"
    return view


async def asked(told: Story, role: str = "write", duration: str = "1h") -> dict[str, Any]:
    """Let Alice ask."""
    await told.command("alice", f"/access prod-db {role} {duration} because INC-42", "incidents")
    return await told.card()


async def test_form_offers_lower_roles_and_shorter_times(told: Story) -> None:
    view = await form(told, await asked(told))
    assert (options(view, "As"), initial(view, "As")) == (["write", "read"], "write")
    assert (options(view, "For how long"), initial(view, "For how long")) == (["15m", "30m", "1h"], "1h")
    assert "Alice asks for write on prod-db for 1h" in str(view["blocks"])


async def test_less_is_given_and_the_card_the_order_and_the_requester_say_so(told: Story) -> None:
    card = await asked(told)
    sent = await told.submit("bob", await form(told, card), **{"As": "read", "For how long": "15m"})
    assert sent["ok"], sent
    card = await told.card("open until")
    assert "Approved by Bob, read for 15m" in card["text"]
    assert "Bob: read for 15m" in shown(card)
    assert await told.thread(card, "Bob approved read for 15m.")
    assert await told.direct(
        "alice", "Bob approved your request for write on prod-db with changes: read for 15m on prod-db"
    )
    assert "read on prod-db" in (await told.direct("alice", "PGPASSWORD"))["text"]
    [order] = told.broker.orders
    assert (order.role, order.seconds) == ("read", 900)
    assert order.asked == OrderedTerms(role="write", seconds=3600)
    assert [review.terms for review in order.reviews] == [OrderedTerms(role="read", seconds=900)]
    [grant] = told.broker.grants.values()
    assert grant["role"] == "read"


async def test_two_reviewers_who_differ_come_to_the_narrowest(told: Story) -> None:
    card = await asked(told)
    await told.submit("bob", await form(told, card), **{"For how long": "30m"})
    assert await told.direct("bob", "Your approval counts; it still needs 1 of security: Erin.")
    card = await told.card("Approved by Bob so far")
    assert "It would give write for 30m" in card["text"]
    assert "Bob: write for 30m" in shown(card)
    view = await form(told, card, "erin")
    assert options(view, "For how long") == ["15m", "30m"]
    assert "Bob approved write for 30m." in str(view["blocks"])
    await told.submit("erin", view, **{"Or another time": "20m"})
    card = await told.card("open until")
    assert "Approved by Bob and Erin, write for 20m" in card["text"]
    assert "Bob: write for 30m\nErin: write for 20m" in shown(card)
    [order] = told.broker.orders
    assert (order.role, order.seconds) == ("write", 1200)
    assert [review.terms and review.terms.seconds for review in order.reviews] == [1800, 1200]


async def test_plain_approval_after_a_narrower_one_gives_the_narrower(told: Story) -> None:
    card = await asked(told)
    await told.submit("erin", await form(told, card, "erin"), **{"For how long": "15m"})
    card = await told.card("Approved by Erin so far")
    await told.click("bob", "request.approve", card)
    assert "Bob: as asked" in shown(await told.card("open until"))
    [order] = told.broker.orders
    assert (order.role, order.seconds, len(order.reviews)) == ("write", 900, 2)


async def test_lower_role_needs_what_the_policy_asks_for_it(told: Story) -> None:
    text = (told.policies / "access.yaml").read_text()
    stricter = text.replace("reviewers: {count: 1, groups: [dbas]}", "reviewers: {count: 2, groups: [dbas]}")
    (told.policies / "access.yaml").write_text(stricter)

    async def reloaded() -> bool | None:
        return "2 of dbas" in await told.whispers("alice", "/access list") or None

    await told.eventually(reloaded)
    card = await asked(told)
    await told.submit("bob", await form(told, card), **{"As": "read", "For how long": "15m"})
    pending = await told.card("It would give read for 15m")
    assert "Approved by Bob so far. Still waiting for 1 of dbas: Dana." in pending["text"]
    await told.click("dana", "request.approve", pending)
    await told.card("Approved by Bob and Dana, read for 15m")
    [order] = told.broker.orders
    assert (order.role, order.seconds) == ("read", 900)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"Or another time": "2h"}, "at most 1h"),
        ({"Or another time": "soon"}, "A duration is a number of days, hours or minutes"),
        ({"As": "admin"}, "Choose one of: write, read."),
    ],
)
async def test_what_is_wrong_is_said_in_the_form(told: Story, values: dict[str, Any], says: str) -> None:
    card = await asked(told)
    view = await form(told, card)
    answer = await told.submit("bob", view, **values)
    assert answer["error"] == "view_errors"
    assert says in str(answer["errors"])
    assert told.broker.orders == []
    assert "request.changes" in buttons(await told.card())


async def test_who_may_not_answer_gets_no_form(told: Story) -> None:
    card = await asked(told, "read")
    for user, why in (("alice", "nobody reviews their own request"), ("erin", "you are not in dbas")):
        answer = await told.click(user, "request.changes", card)
        assert answer["view"] is None
        assert why in await told.private(answer)


@pytest.mark.parametrize("change", [{"restricted": True}, {"deleted": True}])
async def test_reviewer_who_became_a_guest_or_left_cannot_send_the_form(told: Story, change: dict[str, bool]) -> None:
    card = await asked(told, "read")
    view = await form(told, card)
    await told.world.post("people", user="bob", **change)
    await told.submit("bob", view, **{"For how long": "15m"})
    if "restricted" in change:
        await told.direct("bob", "guests may not")
        again = await told.click("bob", "request.changes", card)
        assert again["view"] is None
        assert "guests may not" in await told.private(again)
    assert told.broker.orders == []
    assert "Waiting for 1 of dbas" in (await told.card())["text"]


async def test_form_that_is_sent_when_somebody_was_faster_says_so(told: Story) -> None:
    card = await asked(told, "read")
    view = await form(told, card)
    await told.click("dana", "request.approve", card)
    await told.card("open until")
    await told.submit("bob", view, **{"For how long": "15m"})
    assert await told.direct("bob", "already approved by Dana")
    [order] = told.broker.orders
    assert order.seconds == 3600


async def test_broker_that_wants_more_for_less_keeps_what_was_approved(told: Story) -> None:
    needs = [{"count": 1, "groups": ["security"]}]
    told.broker.refusals.append((409, {"code": "more_reviews", "message": "more", "needs": needs}))
    card = await asked(told, "read", "1h")
    await told.submit("bob", await form(told, card), **{"For how long": "15m"})
    card = await told.card("The broker's policy asks for more reviews.")
    assert "It would give read for 15m" in card["text"]
    await told.click("erin", "request.approve", card)
    await told.card("open until")
    assert [(order.role, order.seconds) for order in told.broker.orders] == [("read", 900)] * 2


async def test_card_that_waits_follows_who_may_answer(told: Story) -> None:
    await told.command("alice", "/access prod-db read 30m because x")
    await told.card("Waiting for 1 of dbas: Bob or Dana.")
    people = told.policies / "people.yaml"
    text = people.read_text()
    people.write_text(
        text.replace("slack: U0BOB00001, groups: [engineers, dbas]", "slack: U0BOB00001, groups: [engineers]")
    )
    card = await told.card("Waiting for 1 of dbas: Dana.")
    assert "Dana may answer" in await told.private(await told.click("bob", "request.approve", card))
