"""A busy channel under Slack's limits: what people wait for is there first, nothing is lost and nothing comes twice.

The bot posts one message in 200 ms to a channel, and the workspace refuses what comes faster than one in 170 ms: five
times Slack's pace, so that this takes seconds and the proportions stay Slack's.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bot_world import Story, shown, story

PER_MS, REFUSED_MS = 200, 170
POST, UPDATE = "chat.postMessage", "chat.update"


@pytest.fixture
async def told(tmp_path: Path) -> AsyncIterator[Story]:
    async with story(tmp_path, slack_pace=PER_MS / 1000) as running:
        yield running


async def entries(told: Story, kind: str, since: int = 0) -> list[dict[str, Any]]:
    """Return calls of a method, without those that were refused."""
    found = (await told.world.get("journal", since=str(since)))["entries"]
    return [one for one in found if one["kind"] == kind and one.get("answer", {}).get("ok")]


async def refused(told: Story) -> int:
    found = (await told.world.get("journal"))["entries"]
    return sum(one.get("answer", {}).get("fault") == 429 for one in found)


async def now(told: Story) -> int:
    found = (await told.world.get("journal"))["entries"]
    return int(found[-1]["seq"])


def flood(told: Story, grant: str, count: int) -> None:
    for number in range(count):
        told.broker.happens(
            "statement.denied",
            grant,
            rules=["no-writes"],
            message=f"blocked number {number:03d}",
            text="DELETE FROM t",
        )


async def all_lines(told: Story, card: dict[str, Any], count: int, seconds: float) -> list[str]:
    async def find() -> list[str] | None:
        texts = [shown(one) for one in await told.replies(card)]
        lines = [text for text in texts if "blocked number" in text]
        return lines if len(lines) >= count else None

    found: list[str] = await told.eventually(find, seconds)
    return found


async def test_held_statement_is_shown_before_the_story_and_the_counters_that_wait(told: Story) -> None:
    card, grant = await told.granted("read")
    await told.world.post("faults", rate=1, per_ms=REFUSED_MS, method=POST)
    flood(told, grant, 20)
    await told.thread(card, "blocked number 000")
    since = await now(told)
    told.broker.hold(grant)
    await told.thread(card, "UPDATE orders")
    posted = await entries(told, POST, since)
    before = [one for one in posted if "blocked number" in str(one["body"])]
    assert len(before) <= 3, len(before)
    lines = await all_lines(told, card, 20, 20)
    assert [line.split("blocked number ")[1][:3] for line in lines] == [f"{number:03d}" for number in range(20)]
    assert await refused(told) <= 3


async def test_counter_of_a_busy_session_is_few_edits_and_ends_right(told: Story) -> None:
    card, grant = await told.granted("read")
    told.broker.happens("session.opened", grant, application="psql")
    await told.thread(card, "Session opened")
    since = await now(told)
    for number in range(60):
        told.broker.happens("statement.allowed", grant, masked=[f"public.t.c{number % 3}"])
        await asyncio.sleep(0.02)
    await told.thread(card, "60 statements")
    edits = await entries(told, UPDATE, since)
    assert len(edits) <= 5, len(edits)


async def test_refusals_for_a_while_lose_nothing_and_double_nothing(told: Story) -> None:
    card, grant = await told.granted("read")
    await told.world.post("faults", status=429, retry_after=1, method=POST, count=4)
    await told.world.post("faults", status=429, retry_after=1, method=UPDATE, count=2)
    flood(told, grant, 8)
    lines = await all_lines(told, card, 8, 25)
    assert len(set(lines)) == len(lines) == 8
    await told.thread(card, "8 statements")


async def test_restart_in_the_middle_loses_nothing_and_doubles_nothing(told: Story) -> None:
    card, grant = await told.granted("read")
    flood(told, grant, 15)
    for place in (3, 8):
        await told.thread(card, f"blocked number {place:03d}")
        await told.world.post("faults", drop="after", method=POST)
        await told.stop_bot()
        await told.start_bot()
    lines = await all_lines(told, card, 15, 25)
    await asyncio.sleep(0.5)
    lines = await all_lines(told, card, 15, 5)
    assert max(Counter(lines).values()) == 1
    assert [line.split("blocked number ")[1][:3] for line in lines] == [f"{number:03d}" for number in range(15)]


async def test_stopping_waits_for_no_turn(told: Story) -> None:
    _, grant = await told.granted("read")
    flood(told, grant, 24)
    await asyncio.sleep(0.3)
    start = asyncio.get_running_loop().time()
    await told.stop_bot()
    assert asyncio.get_running_loop().time() - start < 3
    await told.start_bot()
