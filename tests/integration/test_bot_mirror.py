"""Whoever is not in the reviewers' channel hears by direct message what the thread says; others hear it once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.bot_world import Story, shown, story
from tests.unit.bot.workspace.world import ALICE, REQUESTS

ASK = "/access prod-db write 30m because INC-42"


@pytest.fixture
async def told(tmp_path: Path) -> AsyncIterator[Story]:
    async with story(tmp_path) as running:
        yield running


async def direct(told: Story) -> list[str]:
    return [shown(one) for one in await told.world.seen("alice", "@Airlock")]


async def live(told: Story, channel: str) -> None:
    """Ask, have it approved, hold a statement and approve it, then end it."""
    await told.command("alice", ASK, channel)
    card = await told.card()
    await told.click("bob", "request.approve", card)
    await told.card("so far. Still waiting for")
    await told.click("erin", "request.approve", card)
    card = await told.card("open until")
    [grant] = told.broker.grants
    told.broker.hold(grant)
    message = await told.thread(card, "UPDATE orders")
    await told.click("bob", "hold.approve", message)
    await told.thread(card, "ran once.")
    told.broker.close(grant)
    await told.thread(card, "Alice had write on prod-db")


async def test_requester_outside_the_channel_hears_status_holds_and_summary(told: Story) -> None:
    told.world.leave(ALICE, REQUESTS)
    await live(told, "#incidents")
    for words in (
        "write on prod-db: Bob approved",
        "write on prod-db: Erin approved",
        "Your statement that changes public.orders waits for 1 of dbas",
        "Your statement that changes public.orders: Approved by Bob",
        "Alice had write on prod-db",
    ):
        await told.direct("alice", words)
    texts = [text for text in await direct(told) if "opens nothing any more" not in text]
    assert len(texts) == len(set(texts))


async def test_requester_in_the_channel_is_told_nothing_twice(told: Story) -> None:
    await live(told, "#incidents")
    await told.direct("alice", "The line that was here opens nothing any more.")
    assert [text for text in await direct(told) if "opens nothing any more" not in text] == []


async def test_refused_order_is_told_once(told: Story) -> None:
    told.world.leave(ALICE, REQUESTS)
    await told.command("alice", "/access prod-db read 30m", "#incidents")
    card = await told.card()
    told.broker.refusals.append((403, {"code": "denied", "message": "prod-db is frozen"}))
    await told.click("bob", "request.approve", card)
    await told.thread(card, "prod-db is frozen")
    await told.direct("alice", "prod-db is frozen")
    assert sum("prod-db is frozen" in text for text in await direct(told)) == 1


async def test_where_slack_does_not_say_who_is_in_the_channel_the_requester_is_told(told: Story) -> None:
    await told.world.post("faults", status=500, method="conversations.members", count=2)
    await told.command("alice", "/access prod-db write 30m")
    card = await told.card()
    told.world.leave(ALICE, REQUESTS)
    await told.click("bob", "request.approve", card)
    await told.direct("alice", "Bob approved")
