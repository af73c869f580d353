"""Wrong words, wrong people and late clicks are each answered privately, and change nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.bot_world import CARDS, Story, buttons, shown, story

ASK = "/access prod-db read 30m because INC-42"


@pytest.fixture
async def told(tmp_path: Path) -> AsyncIterator[Story]:
    async with story(tmp_path) as running:
        yield running


RIGHT = {
    "/access prod_db read 30m": "did you mean `prod-db`?",
    "/access prod‑db read 30m because x": "/access prod-db read 30m because x",
    "/access prod-db reed 30m": "did you mean `read`?",
    "/access read prod-db 30m because x": "/access prod-db read 30m because x",
    "/access prod-db read 30": "did you mean `30m`?",
    "/access prod-db read 0m": "at least a minute",
    "/access prod-db read -5m": "a duration cannot be negative: did you mean `5m`?",
    "/access prod-db read 90s": "/access prod-db read 2m",
    "/access prod-db read 1 week": "/access prod-db read 4h",
    "/access prod-db reader1 30m": "there is no role `reader1` on prod-db",
    "/access prod-db read 9999h": "given for at most 4h",
    "/access help": "/access <resource> <role> [for] <duration> [because <reason>]",
    "/access prod-db read 30m INC-42": "/access prod-db read 30m because INC-42",
    "/access nothing-like-it read 30m": "there is no resource `nothing-like-it`",
    "/access revoke a b c": "takes a resource, or an id; a reason comes after",
    "/access list": "prod-db read, at most 4h, after review by 1 of dbas: Bob or Dana",
    "/access status": "You have no access and no request waiting.",
    "/access revoke": "nothing to revoke",
    "/access revoke rq-nothing": "You have nothing called `rq-nothing`",
}


async def test_words_that_do_not_fit_are_answered_with_what_would_be_right(
    told: Story, subtests: pytest.Subtests
) -> None:
    for text, right in RIGHT.items():
        with subtests.test(text):
            assert right.lower() in (await told.whispers("alice", text)).lower()
            assert [one for one in await told.world.seen("bob", CARDS) if one["from_app"]] == []


async def test_where_the_bot_is_not_it_answers_all_the_same(told: Story) -> None:
    assert "waits for" in await told.whispers("alice", ASK, "general")
    assert await told.card()


@pytest.mark.parametrize(("user", "why"), [("gus", "guests"), ("sam", "not a member of this workspace")])
async def test_guest_and_stranger_are_refused_privately(told: Story, user: str, why: str) -> None:
    assert why in await told.whispers(user, ASK, "partners")
    assert [one for one in await told.world.seen("bob", CARDS) if one["from_app"]] == []


async def test_security_cannot_ask_for_what_no_rule_gives(told: Story) -> None:
    assert "you may ask for `read`" in await told.whispers("erin", "/access prod-db write 30m because x")


async def test_deactivated_person_is_refused_at_the_click(told: Story) -> None:
    await told.command("alice", ASK)
    card = await told.card()
    await told.world.post("people", user="bob", deleted=True)
    token = next(e["value"] for b in card["blocks"] if b["type"] == "actions" for e in b["elements"])
    answer = await told.click("bob", "request.approve", card, value=token, force=True)
    assert told.broker.orders == []
    assert answer["error"] == "account_inactive" or "deactivated" in await told.private(answer)


async def test_requester_cannot_approve_and_outsiders_cannot_answer(told: Story) -> None:
    await told.command("alice", ASK)
    card = await told.card()
    own = await told.click("alice", "request.approve", card)
    assert "nobody reviews their own request" in await told.private(own)
    other = await told.click("erin", "request.approve", card)
    assert "you are not in dbas; Bob or Dana may answer" in await told.private(other)
    denial = await told.click("erin", "request.deny", card)
    assert denial["view"] is None
    assert "you are not in dbas" in await told.private(denial)
    cancel = await told.click("bob", "request.cancel", card)
    assert "Only Alice can cancel this request." in await told.private(cancel)
    assert set(buttons(await told.card())) == {"request.approve", "request.changes", "request.deny", "request.cancel"}
    assert told.broker.orders == []


async def test_second_click_hears_who_was_faster(told: Story) -> None:
    await told.command("alice", ASK)
    card = await told.card()
    await told.click("bob", "request.approve", card)
    await told.card("open until")
    token = next(e["value"] for b in card["blocks"] if b["type"] == "actions" for e in b["elements"])
    late = await told.click("dana", "request.approve", card, value=token, force=True)
    assert "This request was already approved by Bob." in await told.private(late)
    assert len(told.broker.orders) == 1


async def test_forged_value_and_unknown_action_do_nothing(told: Story) -> None:
    await told.command("alice", ASK)
    card = await told.card()
    forged = await told.click("bob", "request.approve", card, value="0" * 32)
    assert "belongs to no request" in await told.private(forged)
    unknown = await told.click("bob", "something.else", card, value="x", force=True)
    assert "Nothing here answers to this button" in await told.private(unknown)
    assert told.broker.orders == []


async def test_cancel_and_what_is_left_of_the_card(told: Story) -> None:
    await told.command("alice", ASK)
    card = await told.card()
    await told.click("alice", "request.cancel", card)
    assert buttons(await told.card("Cancelled by Alice.")) == ["request.again"]


async def test_hostile_reason_is_shown_whole_and_kept(told: Story) -> None:
    reason = "<!channel> <@U0BOB00001> ``` *bold* \u202e evil \u200b \x07 😀 &lt; " + "x" * 900
    await told.command("alice", f"/access prod-db read 30m because {reason}")
    card = await told.card()
    text = shown(card)
    assert "\\u202e evil \\u200b \\u0007 😀" in text
    assert "x" * 900 in text
    assert "in all" not in text
    assert "<!channel>" not in json.dumps([card["text"]])
    await told.click("bob", "request.approve", card)
    await told.card("open until")
    assert len(told.broker.orders[0].reason) > 900


@pytest.mark.parametrize(
    ("reason", "has"),
    [
        ("x" * 1_001, "1,001 characters and 1 line."),
        ("\u200b" * 167 + "x", "1,003 characters and 1 line."),
        ("x\n" * 15 + "x", "31 characters and 16 lines."),
    ],
)
async def test_reason_that_no_card_shows_whole_is_refused_with_its_length(told: Story, reason: str, has: str) -> None:
    answer = await told.whispers("alice", f"/access prod-db read 30m because {reason}")
    assert "a card shows 1,000 characters and 15 lines of it" in answer
    assert has in answer
    assert [one for one in await told.world.seen("bob", CARDS) if one["from_app"]] == []


async def test_same_request_twice_points_at_the_first(told: Story) -> None:
    await told.command("alice", ASK)
    await told.card()
    assert "You already have a request for read on prod-db waiting." in await told.whispers("alice", ASK)
    assert len([one for one in await told.world.seen("bob", CARDS) if one["from_app"] and not one["ephemeral"]]) == 1


async def test_status_offers_what_can_be_done_and_revoke_does_it(told: Story) -> None:
    await told.command("alice", "/access staging-db read 1h")
    await told.direct("alice", "PGPASSWORD=secret-0001")
    [status] = [one for one in await told.command("alice", "/access status") if one["ephemeral"]]
    assert {"ticket.new", "grant.end"} <= set(buttons(status))
    ticket = await told.direct("alice", "PGPASSWORD=secret-0001")
    await told.click("alice", "ticket.new", ticket)
    assert await told.direct("alice", "PGPASSWORD=secret-0002")
    assert await told.direct("alice", "replaced by a newer one")
    assert "secret-0001" not in json.dumps(await told.world.seen("alice", "@Airlock"))
    assert "is cut" in await told.whispers("alice", "/access revoke")
    await told.card("Ended by Alice")


async def test_reviewer_may_revoke_by_id_and_others_may_not(told: Story) -> None:
    await told.command("alice", ASK)
    card = await told.card()
    await told.click("bob", "request.approve", card)
    await told.direct("alice", "PGPASSWORD")
    [grant] = told.broker.grants
    assert "Only Alice and those who may review" in await told.whispers("erin", f"/access revoke {grant}")
    await told.whispers("dana", f"/access revoke {grant}")
    await told.card("Revoked by Dana")
    assert told.broker.ended == [(grant, "dana", "revoke")]


async def test_who_leaves_loses_what_they_had(told: Story) -> None:
    await told.command("alice", "/access staging-db read 1h")
    await told.direct("alice", "PGPASSWORD")
    await told.command("alice", ASK)
    await told.card("Waiting for")
    await told.world.post("people", user="alice", deleted=True)
    await told.card("deactivated")
    await told.eventually(lambda: _ended(told))


async def _ended(told: Story) -> bool | None:
    return True if [kind for _, _, kind in told.broker.ended] == ["revoke"] else None


async def test_sixth_pending_request_is_too_many(tmp_path: Path) -> None:
    async with story(tmp_path, pending_cap=1) as told:
        await told.command("alice", ASK)
        await told.card()
        answer = await told.whispers("alice", "/access prod-db write 30m")
        assert "You have 1 request waiting" in answer
