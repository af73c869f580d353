"""Whatever fails around a held statement, it is answered once, and everybody hears what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bot.chat.slack.gateway import Gateway, SlackRefused
from bot.chat.slack.pacing import Pacer
from tests.integration.test_bot_holds import ANSWERS, held
from tests.support.bot_world import CARDS, Story, buttons, shown, story
from workflows.holds import HoldEvent


@pytest.fixture
async def told(tmp_path: Path) -> AsyncIterator[Story]:
    async with story(tmp_path) as running:
        yield running


async def test_broker_that_is_away_is_asked_again_until_it_answers(told: Story) -> None:
    card, message, _ = await held(told)
    told.broker.away = True
    await told.click("bob", "hold.approve", message)
    assert await told.whispers_in_thread("bob", "The broker does not answer. Your answer is kept")
    told.broker.away = False
    assert await told.thread(card, "Approved by Bob, ran once.")
    assert len(told.broker.answers) == 1
    assert len(told.broker.answered_at) > 1


async def test_broker_that_is_away_is_asked_no_longer_than_the_statement_waits(told: Story) -> None:
    _, message, _ = await held(told, expires_at=datetime.now(UTC) + timedelta(seconds=5))
    told.broker.away = True
    await told.click("bob", "hold.approve", message)
    assert await told.whispers_in_thread("bob", "the broker did not answer in time. The thread says what became")
    count = len(told.broker.answered_at)
    await asyncio.sleep(1)
    assert len(told.broker.answered_at) == count


async def test_answer_whose_acknowledgement_was_lost_counts_once_and_confuses_nobody(told: Story) -> None:
    card, message, _ = await held(told)
    told.broker.drop_after_answer = 1
    await told.click("bob", "hold.approve", message)
    assert await told.thread(card, "Approved by Bob, ran once.")
    await asyncio.sleep(0.5)
    assert len({answer.id for answer in told.broker.answers}) == 1
    texts = [shown(one) for one in await told.world.seen("bob", CARDS, thread_ts=card["ts"]) if one["ephemeral"]]
    assert not [text for text in texts if "changed nothing" in text]


async def test_click_delivered_twice_is_one_answer(told: Story) -> None:
    card, message, _ = await held(told)
    await told.world.post("faults", duplicate=1)
    await told.click("bob", "hold.approve", message)
    assert await told.thread(card, "Approved by Bob, ran once.")
    await asyncio.sleep(0.3)
    assert len(told.broker.answers) == 1


@pytest.mark.parametrize("drop", ["before", "after"])
@pytest.mark.parametrize("method", ["files.completeUploadExternal", "chat.postMessage", "chat.update"])
async def test_card_and_file_are_there_once_whatever_becomes_of_the_call(told: Story, method: str, drop: str) -> None:
    card, grant = await told.granted()
    await told.thread(card, "0 open sessions")
    await told.world.post("faults", drop=drop, method=method)
    hold = told.broker.hold(grant, "x" * 5000)
    message = await told.thread(card, "All of it is in the file")
    assert buttons(message) == ANSWERS
    replies = await told.replies(card)
    assert sum("to run this, once" in shown(one) for one in replies) == 1
    assert [f["name"] for one in replies for f in one["files"]] == [f"statement-{hold}.txt"]


async def test_answer_that_the_broker_does_not_take_can_be_given_again(told: Story) -> None:
    _, message, _ = await held(told)
    told.broker.refusals.append((403, {"code": "ineligible", "message": "`bob` is not in dbas here"}))
    await told.click("bob", "hold.approve", message)
    assert await told.whispers_in_thread("bob", "The broker did not take the answer")
    # Another click brings it before the broker again.
    await told.click("bob", "hold.approve", message)
    await told.eventually(lambda: _answers(told, 2))


async def _answers(told: Story, count: int) -> bool | None:
    return True if len(told.broker.answers) == count else None


async def test_hold_that_opened_while_the_bot_was_down_gets_its_card(told: Story) -> None:
    card, grant = await told.granted()
    await told.stop_bot()
    hold = told.broker.hold(grant)
    await told.start_bot()
    message = await told.thread(card, "to run this, once")
    await told.stop_bot()
    told.broker.over(hold, HoldEvent.TIME_OUT)
    await told.start_bot()
    assert buttons(await told.thread(card, "Nobody answered in time")) == []
    assert message["ts"] == (await told.thread(card, "to run this, once"))["ts"]


async def _asked(told: Story, count: int) -> bool | None:
    return True if len(told.broker.answered_at) >= count else None


async def test_click_reaches_the_broker_at_once(told: Story) -> None:
    card, grant = await told.granted()
    loop = asyncio.get_running_loop()
    took = []
    for number in range(8):
        told.broker.hold(grant, f"UPDATE orders SET total = {number}")
        message = await told.thread(card, f"total = {number}")
        for other in range(10):
            told.broker.happens("statement.denied", grant, text=f"DROP {number} {other}", rules=["r"], message="no")
        begun = loop.time()
        before = len(told.broker.answered_at)
        clicking = asyncio.create_task(told.click("bob", "hold.approve", message))
        await told.eventually(lambda asked=before + 1: _asked(told, asked))
        await clicking
        took.append(told.broker.answered_at[-1] - begun)
    # A sweep comes after whole seconds; how quick a click is, `make chaos` measures.
    assert sorted(took)[len(took) // 2] < 1, took


async def test_file_of_somebody_else_under_the_same_name_is_not_taken_for_ours(told: Story) -> None:
    card, _ = await told.granted()
    name, client = "statement-h00000001.txt", told.world.client
    ours, theirs = (Gateway(client, told.world.session, Pacer(0), own) for own in ("U0APPBOT01", "U0ALICE001"))
    await ours.upload(card["channel"], card["ts"], name, b"x", "x")
    assert await ours.find_file(card["channel"], card["ts"], name)
    assert not await theirs.find_file(card["channel"], card["ts"], name)


async def test_requester_hears_that_no_reviewer_sees_what_waits(told: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    _, grant = await told.granted()
    post = Gateway.post

    async def refused(self: Gateway, channel: str, payload: dict[str, Any], key: str, thread: str = "") -> str:
        if "to run a statement" in payload["text"]:
            raise SlackRefused("restricted_action")
        return await post(self, channel, payload, key, thread)

    monkeypatch.setattr(Gateway, "post", refused)
    told.broker.hold(grant)
    text = shown(await told.direct("alice", "No reviewer sees your statement that changes public.orders yet"))
    assert "cannot be posted: the workspace does not let the app post there (restricted_action)." in text


async def test_what_was_taken_back_before_anybody_saw_it_is_counted_alone(told: Story) -> None:
    card, grant = await told.granted()
    await told.stop_bot()
    for reason in ("cancelled", "client", "revoked"):
        told.broker.over(told.broker.hold(grant), HoldEvent.ABANDON, reason=reason)
    await told.start_bot()
    assert await told.thread(card, "3 held: 3 given up")
    assert await told.thread(card, "Given up: the access was revoked.")
    assert sum("to run this, once" in shown(one) for one in await told.replies(card)) == 1
