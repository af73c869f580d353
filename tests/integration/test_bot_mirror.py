"""Whoever is not in the reviewers' channel hears by direct message what the thread says; others hear it once."""

from __future__ import annotations

import html
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


async def files(told: Story, count: int) -> list[str]:
    """Return how the files begin that Alice was sent, once there are so many."""

    async def find() -> list[str] | None:
        names = [file["name"] for one in await told.world.seen("alice", "@Airlock") for file in one["files"]]
        return names if len(names) >= count else None

    return [name[: name.index("-") + 1] for name in await told.eventually(find) if name.endswith(".txt")]


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
    told.broker.happens("statement.denied", grant, text="DROP TABLE orders", rules=["ddl"], message="not here")
    await told.thread(card, "Blocked: not here. Rule ddl.")
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
        "write on prod-db: Blocked: not here. Rule ddl.",
        "DROP TABLE orders",
        "Alice had write on prod-db",
    ):
        await told.direct("alice", words)
    assert await files(told, 1) == ["transcript-"]
    texts = [text for text in await direct(told) if "opens nothing any more" not in text]
    assert len(texts) == len(set(texts))


async def test_requester_in_the_channel_is_told_nothing_twice(told: Story) -> None:
    await live(told, "#incidents")
    await told.direct("alice", "The line that was here opens nothing any more.")
    assert [text for text in await direct(told) if "opens nothing any more" not in text] == []
    assert await files(told, 0) == []


async def test_reason_of_a_revocation_is_on_the_card_and_told_to_whoever_lost_the_access(told: Story) -> None:
    _, grant = await told.granted("read")
    await told.command("bob", f"/access revoke {grant} because it is `prod`, not <staging> 数据")
    why = "it is `prod`, not <staging> 数据"
    card = await told.card("Revoked by Bob")
    assert f"Revoked by Bob: {why}." in html.unescape(card["text"])
    assert await told.direct("alice", "Bob revoked your access, read on prod-db")
    lost = next(text for text in await direct(told) if "revoked your access" in text)
    assert lost.endswith(why)
    await told.direct("alice", "The line that was here opens nothing any more.")


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
