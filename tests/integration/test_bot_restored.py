"""A broker that has started again, or whose records were put back to an earlier moment, and what people see of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bot.chat.slack import delivery, shows
from tests.support.bot_world import Story, shown, story
from workflows.holds import HoldEvent


@pytest.fixture
async def told(tmp_path: Path) -> AsyncIterator[Story]:
    async with story(tmp_path) as made:
        yield made


async def test_card_of_what_an_earlier_broker_held_still_shows_the_statement(told: Story) -> None:
    card, grant = await told.granted()
    hold = told.broker.hold(grant)
    assert await told.thread(card, "UPDATE orders SET total = 0 WHERE id = 7")
    told.broker.over(hold, HoldEvent.ABANDON, reason="shutdown")
    told.broker.recorded[grant, hold] = told.broker.holds.pop(hold)
    reply = await told.thread(card, "Given up: the broker stopped.")
    assert "UPDATE orders SET total = 0 WHERE id = 7" in shown(reply)


def texts(messages: list[dict[str, Any]]) -> list[str]:
    return sorted(one["text"] for one in messages)


async def test_bot_whose_place_the_broker_does_not_know_reads_all_again_and_says_nothing_twice(told: Story) -> None:
    card, grant = await told.granted()
    for number in range(3):
        text = f"DROP TABLE t{number}"
        told.broker.happens("statement.denied", grant, text=text, rules=["r"], message=f"no {number}")
    assert await told.thread(card, "Blocked: no 2.")
    assert await told.thread(card, "3 statements, 3 blocked")
    await told.stop_bot()
    before = texts(await told.replies(card))
    # Put back to before the second; another one was blocked since.
    del told.broker.events[-2:]
    await told.start_bot()
    told.broker.happens("statement.denied", grant, text="DROP TABLE t9", rules=["r"], message="no 9")
    assert await told.thread(card, "Blocked: no 9.")
    after = texts(await told.replies(card))
    assert [text for text in after if "no 9" not in text and "statements" not in text] == [
        text for text in before if "statements" not in text
    ]
    assert (await told.card("open until"))["ts"] == card["ts"]


async def test_access_that_the_broker_has_forgotten_is_closed_and_its_owner_is_told_to_ask_again(told: Story) -> None:
    card, grant = await told.granted()
    await told.stop_bot()
    told.broker.events.clear()
    told.broker.grants.clear()
    await told.start_bot()
    assert await told.thread(card, "The broker could not verify that its sessions are gone.")
    text = shown(await told.direct("alice", "revoked your access"))
    assert "records were put back to a time before this access" in text
    assert grant not in told.broker.grants


async def test_transcript_that_cannot_be_sent_to_a_person_is_said_to_in_the_thread_and_to_them(
    told: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "TRANSCRIPT_TRIES", 1)
    monkeypatch.setattr(shows, "TRANSCRIPT_TRIES", 1)
    monkeypatch.setattr(delivery.Delivery, "_sees_cards", _nobody)
    card, grant = await told.granted("read")
    told.broker.unreadable = 503
    told.broker.close(grant, "ended")
    reply = await told.thread(card, "The transcript could not be sent to Alice: the broker does not answer.")
    assert "whoever sees it here may pass it on" in shown(reply)
    text = shown(await told.direct("alice", "The transcript could not be sent: the broker does not answer."))
    assert "where its reviewers can pass it on to you" in text


async def _nobody(_delivery: delivery.Delivery, _account: str) -> bool:
    return False
