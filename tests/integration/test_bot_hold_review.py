"""Held statements of a resource whose cards are redacted: read whole, and answered, only behind Review."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bot_world import Story, buttons, shown, story

SECRET = "078-05-1120"
STATEMENT = f"UPDATE customers SET ssn = '{SECRET}' WHERE id = 7"
REDACTED = "UPDATE customers SET ssn = $1 WHERE id = $2"


def redact(policies: Path) -> None:
    file = policies / "resources.yaml"
    text = file.read_text()
    file.write_text(text.replace("    protocol: postgres\n", "    protocol: postgres\n    show: redacted\n", 1))


@pytest.fixture
async def told(tmp_path: Path) -> AsyncIterator[Story]:
    async with story(tmp_path, redact) as running:
        yield running


async def held(told: Story, text: str = STATEMENT, **more: Any) -> tuple[dict[str, Any], dict[str, Any], str]:
    card, grant = await told.granted()
    hold = told.broker.hold(grant, text, redacted=REDACTED, **more)
    return card, await told.thread(card, "to run this, once"), hold


async def opened(told: Story, user: str, message: dict[str, Any]) -> dict[str, Any]:
    """Press Review; gives the form, once it is there."""
    # The answer to a click may speak of an edit that came first; the form may take a moment more.
    found: dict[str, Any] = (await told.click(user, "hold.review", message))["view"] or await told.eventually(
        lambda: told.view(user)
    )
    return found


async def send(told: Story, user: str, view: dict[str, Any], answer: str, reason: str = "") -> dict[str, Any]:
    values = {"answer": answer, **({"Reason": reason} if reason else {})}
    return await told.world.post("submit", user=user, view_id=view["id"], values=values)


async def test_card_hides_values_and_review_shows_them_to_a_reviewer_who_approves(told: Story) -> None:
    card, message, hold = await held(told, parameters=["secret-parameter"])
    assert buttons(message) == ["hold.review"]
    assert REDACTED in shown(message)
    assert SECRET not in json.dumps(message)
    assert "secret-parameter" not in json.dumps(message)
    told.broker.estimate(hold, rows=1, relations=[{"name": "public.customers", "rows": 5000, "bytes": 1_000_000}])
    assert "it would change about 1 row" in shown(await told.thread(card, "about 5,000 rows"))

    view = await opened(told, "bob", message)
    text = json.dumps(view)
    assert STATEMENT in text
    assert "$1 = 'secret-parameter'" in text
    assert "about 5,000 rows, 977 kB" in text
    assert (await send(told, "bob", view, "approve"))["ok"]
    done = await told.thread(card, "Approved by Bob, ran once.")
    assert buttons(done) == []
    assert SECRET not in json.dumps([await told.replies(card), done])
    [answer] = told.broker.answers
    assert (answer.hold, answer.digest) == (hold, told.broker.holds[hold].digest)
    stored = b"".join(file.read_bytes() for file in told.settings.home.glob("bot.db*"))
    assert b"hold.review" in stored
    assert SECRET.encode() not in stored
    assert b"secret-parameter" not in stored


async def test_denial_in_the_form_needs_a_reason(told: Story) -> None:
    card, message, _ = await held(told)
    view = await opened(told, "dana", message)
    assert (await send(told, "dana", view, "deny"))["error"] == "view_errors"
    assert (await send(told, "dana", view, "deny", "not on a Friday"))["ok"]
    assert await told.thread(card, "Denied by Dana: not on a Friday")


@pytest.mark.parametrize(("user", "why"), [("alice", "cannot answer"), ("erin", "cannot answer")])
async def test_form_opens_for_nobody_who_may_not_answer(told: Story, user: str, why: str) -> None:
    _, message, _ = await held(told)
    answer = await told.click(user, "hold.review", message)
    assert answer["view"] is None
    assert why in await told.private(answer)
    assert SECRET not in json.dumps(answer)


async def test_buttons_of_other_cards_do_not_get_around_the_form(told: Story) -> None:
    _, message, _ = await held(told)
    token = next(e["value"] for b in message["blocks"] if b["type"] == "actions" for e in b["elements"])
    forged = await told.click("bob", "hold.approve", message, value=token, force=True)
    assert "only behind Review" in await told.private(forged)
    assert told.broker.answers == []


async def test_review_of_a_card_that_shows_everything_opens_nothing(tmp_path: Path) -> None:
    async with story(tmp_path) as told:
        _, message, _ = await held(told)
        token = next(e["value"] for b in message["blocks"] if b["type"] == "actions" for e in b["elements"])
        answer = await told.click("bob", "hold.review", message, value=token, force=True)
        assert answer["view"] is None


async def test_statement_too_long_for_a_form_can_only_be_denied(told: Story) -> None:
    card, message, _ = await held(told, "INSERT INTO orders VALUES " + "(1),\n" * 60_000)
    view = await opened(told, "bob", message)
    assert "too long to be shown whole here" in json.dumps(view)
    offered = [option["value"] for block in view["blocks"] for option in block.get("element", {}).get("options", [])]
    assert offered == ["deny"]
    assert (await send(told, "bob", view, "deny", "split it"))["ok"]
    assert await told.thread(card, "Denied by Bob: split it")


async def test_long_statement_is_whole_in_the_form_and_in_no_file(told: Story) -> None:
    text = "INSERT INTO orders VALUES\n" + ",\n".join(f"({number})" for number in range(3000))
    card, message, _ = await held(told, text)
    view = await opened(told, "bob", message)
    pieces = [
        inner["text"]
        for block in view["blocks"]
        for element in block.get("elements", [])
        if element.get("type") == "rich_text_preformatted"
        for inner in element["elements"]
    ]
    assert "".join(pieces) == text
    assert (await send(told, "bob", view, "approve"))["ok"]
    assert await told.thread(card, "Approved by Bob, ran once.")
    assert [file for reply in await told.replies(card) for file in reply["files"]] == []


async def test_form_that_is_late_or_of_another_statement_changes_nothing(told: Story) -> None:
    card, message, hold = await held(told)
    late = await opened(told, "dana", message)
    view = await opened(told, "bob", message)
    await send(told, "bob", view, "approve")
    await told.thread(card, "Approved by Bob, ran once.")
    answer = await send(told, "dana", late, "deny", "no")
    assert answer["ok"]
    assert await told.direct("dana", "already approved by Bob")
    assert told.broker.holds[hold].state == "consumed"


async def test_broker_that_is_away_shows_nothing_and_says_so(told: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    _, message, _ = await held(told)
    told.broker.away = True
    view = await opened(told, "bob", message)
    assert "The broker does not answer" in json.dumps(view)
    assert not view.get("submit")
    told.broker.away = False
    assert STATEMENT in json.dumps(await opened(told, "bob", message))


async def test_kept_approval_says_until_when(tmp_path: Path) -> None:
    async with story(tmp_path) as told:
        told.broker.runs = False
        card, message, hold = await held(told, waits=False)
        assert "the same statement may run, once, within ten minutes" in shown(message)
        await told.click("bob", "hold.approve", message)
        until = f"{told.broker.holds[hold].expires_at:%H:%M} UTC"
        assert await told.thread(card, f"Approved by Bob; it has not run yet, it may run once until {until}.")
        assert await told.thread(card, f"it may run once, when it is sent again until {until}.")


SHAPE = {
    "digest": "e" * 64,
    "text": f"UPDATE customers SET ssn = $1 WHERE note LIKE '{SECRET}%'",
    "values": ["$1: any text"],
}


async def test_a_shape_is_approved_and_withdrawn_and_its_values_stay_out_of_the_channel(told: Story) -> None:
    card, message, hold = await held(told, shape=SHAPE, most=10)
    assert buttons(message) == ["hold.review", "hold.shape"]
    refused = await told.click("alice", "hold.shape", message)
    assert "You cannot answer this" in await told.private(refused)
    view = (await told.click("bob", "hold.shape", message))["view"] or await told.eventually(lambda: told.view("bob"))
    assert STATEMENT in json.dumps(view, ensure_ascii=False)
    assert SHAPE["text"] in json.dumps(view, ensure_ascii=False)
    assert (await told.world.post("submit", user="bob", view_id=view["id"], values={}))["ok"]
    approved = await told.thread(card, "Bob approved this shape for Alice")
    assert told.broker.answers[0].reviews[0].shape == SHAPE["digest"]
    assert told.broker.holds[hold].state == "consumed"
    assert SECRET not in json.dumps(approved)
    assert REDACTED in shown(approved)
    await told.click("bob", "shape.withdraw", approved)
    gone = await told.thread(card, "withdrawn by Bob")
    assert (gone["ts"], buttons(gone)) == (approved["ts"], [])
    assert told.broker.shapes["shape-0001"].withdrawn_by == "bob"


async def test_a_form_for_a_shape_that_is_not_offered_any_more_only_says_so(told: Story) -> None:
    _, message, hold = await held(told, shape=SHAPE, most=10)
    told.broker.holds[hold] = told.broker.holds[hold].model_copy(update={"shape": None})
    view = (await told.click("bob", "hold.shape", message))["view"] or await told.eventually(lambda: told.view("bob"))
    assert "does not let the shape of this statement be approved" in json.dumps(view)
    assert "submit" not in view or not view["submit"]
    assert told.broker.answers == []
