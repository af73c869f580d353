"""Held statements: reviewers see all of them in the thread, answer there, and everybody hears what came of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bot.chat.slack.gateway import Gateway, SlackRefused
from tests.support.bot_world import Story, buttons, private, shown, story
from tests.unit.bot.workspace.world import ALICE, REQUESTS
from workflows.holds import HoldEvent
from workflows.reviews import Answer

STATEMENT = "UPDATE orders SET total = 0 WHERE id = 7"
BOTH = [{"count": 1, "groups": ["dbas"]}, {"count": 1, "groups": ["security"]}]
ANSWERS = ["hold.approve", "hold.deny"]


@pytest.fixture
async def told(tmp_path: Path) -> AsyncIterator[Story]:
    async with story(tmp_path) as running:
        yield running


async def held(told: Story, text: str = STATEMENT, **more: Any) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Hold a statement of Alice's; gives the request's card, the hold's card and the hold's id."""
    card, grant = await told.granted()
    hold = told.broker.hold(grant, text, **more)
    return card, await told.thread(card, "to run this, once"), hold


async def deny(told: Story, user: str, message: dict[str, Any], reason: str) -> dict[str, Any]:
    view = (await told.click(user, "hold.deny", message))["view"]
    assert view["callback_id"] == "hold.deny"
    return await told.world.post("submit", user=user, view_id=view["id"], values={"Reason": reason})


def token(message: dict[str, Any]) -> str:
    return next(e["value"] for b in message["blocks"] if b["type"] == "actions" for e in b["elements"])


async def test_reviewer_reads_all_of_it_and_approves(told: Story) -> None:
    card, message, hold = await held(told, parameters=["7", None, "a'b\n$9 = 'x'"], in_transaction=True)
    text = shown(message)
    for words in (
        "asks to run this, once, as",
        "changes public.orders",
        STATEMENT,
        "$1 = '7'\n$2 = NULL\n$3 = 'a''b\\u000a$9 = ''x'''",
        "locks are held",
        f"Digest {told.broker.holds[hold].digest[:12]}",
        "40 characters, 1 line",
        "Waiting for 1 of dbas: Bob or Dana",
    ):
        assert words in text
    assert {"U0BOB00001", "U0DANA0001"} <= {e["user_id"] for e in mentions(message)}
    assert buttons(message) == ANSWERS
    await told.click("bob", "hold.approve", message)
    done = await told.thread(card, "Approved by Bob, ran once.")
    assert done["ts"] == message["ts"]
    assert buttons(done) == []
    assert STATEMENT in shown(done)
    assert mentions(done) == []
    assert await told.thread(card, "Bob approved the statement of Alice; it may run once.")
    [answer] = told.broker.answers
    assert (answer.hold, answer.digest) == (hold, told.broker.holds[hold].digest)
    [review] = answer.reviews
    assert (review.person, review.answer, review.evidence.message) == ("bob", Answer.APPROVE, message["ts"])


def mentions(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the people whom the text of a message mentions."""
    found = []
    for block in message["blocks"]:
        for element in block.get("elements", []) if block["type"] == "rich_text" else []:
            found += [inner for inner in element["elements"] if inner["type"] == "user"]
    return found


async def test_nothing_of_the_statement_is_kept_by_the_bot(told: Story) -> None:
    secret = "UPDATE customers SET ssn = '078-05-1120'"
    card, message, _ = await held(told, secret, parameters=["078-05-1121"])
    await told.click("bob", "hold.approve", message)
    await told.thread(card, "ran once")
    stored = b"".join(file.read_bytes() for file in told.settings.home.glob("bot.db*"))
    assert b"hold.approve" in stored
    assert b"078-05" not in stored


async def test_denial_has_a_reason_that_everybody_reads(told: Story) -> None:
    card, message, _ = await held(told)
    assert (await deny(told, "dana", message, "\u200b"))["error"] == "view_errors"
    assert (await deny(told, "dana", message, "not on a Friday"))["ok"]
    assert buttons(await told.thread(card, "Denied by Dana: not on a Friday")) == []
    assert await told.thread(card, "Dana denied the statement of Alice: not on a Friday")


async def test_two_people_are_needed_and_the_card_says_how_far_it_is(told: Story) -> None:
    card, message, _ = await held(told, needs=BOTH)
    await told.click("bob", "hold.approve", message)
    message = await told.thread(card, "Approved by Bob so far. Still waiting for 1 of security: Erin.")
    assert await told.whispers_in_thread("bob", "Your approval counts; it still needs 1 of security: Erin.")
    again = await told.click("bob", "hold.approve", message)
    assert "You have approved this already; it still needs 1 of security: Erin." in await told.private(again)
    await told.click("erin", "hold.approve", message)
    assert await told.thread(card, "Approved by Bob and Erin, ran once.")
    assert [len(answer.reviews) for answer in told.broker.answers] == [1, 2]


async def test_broker_that_wants_more_is_believed(told: Story) -> None:
    card, message, hold = await held(told)
    view = told.broker.holds[hold]
    told.broker.holds[hold] = view.model_copy(update={"needs": BOTH})
    await told.click("bob", "hold.approve", message)
    await told.thread(card, "Approved by Bob so far")
    await told.click("erin", "hold.approve", message)
    assert await told.thread(card, "Approved by Bob and Erin, ran once.")


@pytest.mark.parametrize(
    ("user", "why"),
    [("alice", "nobody reviews their own request"), ("erin", "you are not in dbas; Bob or Dana may answer")],
)
async def test_who_may_not_answer_is_told_why(told: Story, user: str, why: str) -> None:
    _, message, _ = await held(told)
    assert why in await told.private(await told.click(user, "hold.approve", message))
    form = await told.click(user, "hold.deny", message)
    assert form["view"] is None
    assert why in await told.private(form)
    assert told.broker.answers == []


async def test_forged_and_stale_clicks_do_nothing(told: Story) -> None:
    card, message, _ = await held(told)
    forged = await told.click("bob", "hold.approve", message, value="0" * 32)
    assert "belongs to no statement that is known here" in await told.private(forged)
    of_a_request = await told.click("bob", "request.approve", message, value=token(message), force=True)
    assert "belongs to no request" in await told.private(of_a_request)
    elsewhere = await told.click("bob", "hold.approve", card, value=token(message), force=True)
    assert "not the newest card of that statement" in await told.private(elsewhere)
    assert told.broker.answers == []


async def test_late_click_hears_what_became_of_it(told: Story) -> None:
    card, message, hold = await held(told)
    told.broker.over(hold, HoldEvent.TIME_OUT)
    over = await told.thread(card, "Nobody answered in time, so it did not run.")
    assert buttons(over) == []
    late = await told.click("bob", "hold.approve", message, value=token(message), force=True)
    assert "Nobody answered in time, so it did not run." in await told.private(late)
    assert told.broker.answers == []


async def test_click_that_the_broker_finds_late_is_answered(told: Story) -> None:
    _, message, hold = await held(told)
    # It is over, and the event that says so has not come.
    told.broker.holds[hold] = told.broker.holds[hold].model_copy(update={"state": "abandoned"})
    await told.click("bob", "hold.approve", message)
    assert await told.whispers_in_thread("bob", "Your answer changed nothing.")


async def test_abandoned_is_not_denied_and_says_so(told: Story) -> None:
    card, message, hold = await held(told)
    told.broker.over(hold, HoldEvent.ABANDON, reason="cancelled")
    over = await told.thread(card, "Given up: Alice cancelled it. It did not run; nobody denied it.")
    assert over["ts"] == message["ts"]
    assert buttons(over) == []


async def test_released_and_then_given_up_says_both(told: Story) -> None:
    told.broker.runs = False
    card, message, hold = await held(told)
    await told.click("bob", "hold.approve", message)
    await told.thread(card, "Approved by Bob; it has not run yet, it may run once until")
    told.broker.over(hold, HoldEvent.ABANDON, reason="client")
    assert await told.thread(
        card, "Given up: Alice left. It did not run; nobody denied it. It had been approved by Bob."
    )


async def test_race_of_two_reviewers_has_one_winner_and_both_are_answered(told: Story) -> None:
    card, message, _ = await held(told)
    answers = await asyncio.gather(
        *(told.click(user, "hold.approve", message) for user in ("bob", "dana", "bob", "dana"))
    )
    await told.thread(card, "ran once.")
    await told.thread(card, "approved the statement of Alice")
    texts = [private(answer) for answer in answers]
    assert sum("This statement was already approved by" in text for text in texts) >= 1
    assert sum("approved the statement of Alice" in shown(one) for one in await told.replies(card)) == 1
    assert len({len(answer.reviews) for answer in told.broker.answers}) == 1


async def test_approval_and_denial_at_once_leave_one_outcome(told: Story) -> None:
    card, message, hold = await held(told)
    view = (await told.click("dana", "hold.deny", message))["view"]
    await asyncio.gather(
        told.click("bob", "hold.approve", message),
        told.world.post("submit", user="dana", view_id=view["id"], values={"Reason": "no"}),
    )
    state = told.broker.holds[hold].state
    assert state in ("consumed", "refused")
    words = "Approved by Bob, ran once." if state == "consumed" else "Denied by Dana: no"
    assert buttons(await told.thread(card, words)) == []


async def test_long_statement_is_approved_only_once_its_file_is_there(told: Story) -> None:
    await told.world.post("faults", status=500, method="files.getUploadURLExternal", count=2)
    text = "INSERT INTO orders VALUES\n" + ",\n".join(f"({number})" for number in range(3000)) + ";\u202e"
    card, message, hold = await held(told, text)
    assert buttons(message) == ["hold.deny"]
    assert "comes as a file in this thread" in shown(message)
    early = await told.click("bob", "hold.approve", message, value=token(message), force=True)
    assert "has not been shown whole" in await told.private(early)
    message = await told.thread(card, "All of it is in the file")
    assert buttons(message) == ANSWERS
    name = f"statement-{hold}.txt"
    [file] = [file for reply in await told.replies(card) for file in reply["files"] if file["name"] == name]
    async with told.world.session.get(f"{told.world.url}{file['url']}") as answer:
        content = await answer.read()
    assert hashlib.sha256(content).hexdigest() in shown(message)
    assert content.decode().endswith("(2999);\\u202e")
    assert "1 of its characters do not show" in shown(message)
    await told.click("bob", "hold.approve", message)
    assert await told.thread(card, "Approved by Bob, ran once.")


async def test_long_statement_where_no_file_is_taken_can_only_be_denied(
    told: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: Any) -> str:
        raise SlackRefused("file_uploads_disabled")

    monkeypatch.setattr(Gateway, "upload", refused)
    card, grant = await told.granted()
    told.broker.hold(grant, "SELECT 1 -- " + "x" * 9000)
    message = await told.thread(card, "what cannot be shown whole cannot be approved")
    assert buttons(message) == ["hold.deny"]
    forged = await told.click("bob", "hold.approve", message, value=token(message), force=True)
    assert "cannot be shown whole here" in await told.private(forged)
    assert told.broker.answers == []


async def test_statement_of_another_digest_than_announced_is_not_approvable(told: Story) -> None:
    card, grant = await told.granted()
    hold = told.broker.hold(grant)
    told.broker.holds[hold] = told.broker.holds[hold].model_copy(update={"digest": "0" * 64})
    message = await told.thread(card, "The broker does not show this statement")
    assert buttons(message) == ["hold.deny"]


async def test_counter_summary_and_direct_messages_speak_of_holds(told: Story) -> None:
    told.world.leave(ALICE, REQUESTS)
    await told.command("alice", "/access prod-db write 30m because INC-42", "incidents")
    card = await told.card()
    await told.click("bob", "request.approve", card)
    await told.card("so far. Still waiting for")
    await told.click("erin", "request.approve", card)
    await told.direct("alice", "PGPASSWORD")
    [grant] = told.broker.grants
    told.broker.hold(grant)
    first = await told.thread(card, "to run this, once")
    assert await told.direct("alice", "Your statement that changes public.orders waits for 1 of dbas: Bob or Dana")
    await told.click("bob", "hold.approve", first)
    await told.thread(card, "Approved by Bob, ran once.")
    gone = told.broker.hold(grant, "UPDATE products SET price = 1")
    await told.thread(card, "UPDATE products")
    told.broker.over(gone, HoldEvent.ABANDON, reason="client")
    assert await told.thread(card, "2 held: 1 approved by Bob, 1 given up")
    told.broker.close(grant)
    summary = await told.thread(card, "Alice had write on prod-db")
    assert "2 held: 1 approved by Bob, 1 given up" in shown(summary)


async def test_two_holds_of_one_grant_are_two_cards(told: Story) -> None:
    card, grant = await told.granted()
    told.broker.hold(grant, "UPDATE orders SET a = 1")
    told.broker.hold(grant, "UPDATE orders SET b = 1", session="s00000002")
    first = await told.thread(card, "SET a = 1")
    second = await told.thread(card, "SET b = 1")
    assert first["ts"] != second["ts"]
    await told.click("bob", "hold.approve", second)
    await told.thread(card, "Approved by Bob, ran once.")
    assert buttons(await told.thread(card, "SET a = 1")) == ANSWERS


async def test_hostile_statement_forges_nothing(told: Story) -> None:
    text = "<!channel> ``` *Approved by Bob* <@U0ERIN0001> \u202e\u200b\u00a0:tada: &lt; 'а' \r\x00"
    _, message, _ = await held(told, text)
    found = shown(message)
    assert "\\u202e\\u200b\\u00a0" in found
    assert "а (\\u0430)" in found
    assert "<!channel>" not in json.dumps([message["text"]])
    assert {e["user_id"] for e in mentions(message)} == {"U0ALICE001", "U0BOB00001", "U0DANA0001"}
