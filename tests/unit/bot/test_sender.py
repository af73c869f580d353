"""The outbox worker: lanes in order, side by side, and what is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from bot.adapters.boxes import Outbox, Queued
from bot.adapters.clock import SystemClock
from bot.adapters.desks import Desks
from bot.adapters.sender import Deliverer, Done, Later, Never, Outcome, Sender
from bot.outgoing import PostOrder


class Scripted:
    """Delivers as a test says: outcomes by key, in turn."""

    def __init__(self, script: dict[str, list[Outcome | Exception]]) -> None:
        self.script = script
        self.calls: list[tuple[str, bool]] = []
        self._more = asyncio.Condition()

    async def called(self, times: int) -> None:
        """Wait until it was called so often."""
        async with self._more:
            await self._more.wait_for(lambda: len(self.calls) >= times)

    async def deliver(self, row: Queued) -> Outcome:
        async with self._more:
            self.calls.append((row.key, row.uncertain))
            self._more.notify_all()
        await asyncio.sleep(0)
        outcome = self.script.get(row.key, [Done({})]).pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@asynccontextmanager
async def sending(engine: AsyncEngine, script: Deliverer) -> AsyncIterator[Outbox]:
    outbox = Outbox(engine, SystemClock())
    sender = Sender(outbox, script, SystemClock())
    task = asyncio.create_task(sender.run())
    try:
        yield outbox
        for _ in range(500):
            if not await outbox.heads():
                break
            await asyncio.sleep(0.01)
        assert await outbox.heads() == []
    finally:
        sender.stop()
        await task


async def queue(desks: Desks, *rows: tuple[str, str]) -> None:
    async with desks.open() as (_, work):
        for key, lane in rows:
            await work.send(key, lane, PostOrder("r", key))


async def test_lane_keeps_its_order_while_its_head_is_tried_again(engine: AsyncEngine, desks: Desks) -> None:
    await queue(desks, ("a1", "a"), ("a2", "a"), ("b1", "b"))
    script = Scripted({"a1": [Later("busy", 0.05), Later("lost", 0.05, uncertain=True), Done({})]})
    async with sending(engine, script):
        pass
    keys = [key for key, _ in script.calls]
    assert keys.index("b1") < keys.index("a2")
    assert [call for call in script.calls if call[0] != "b1"] == [
        ("a1", False),
        ("a1", False),
        ("a1", True),
        ("a2", False),
    ]


async def test_what_never_leaves_does_not_hold_up_its_lane(engine: AsyncEngine, desks: Desks) -> None:
    await queue(desks, ("a1", "a"), ("a2", "a"))
    script = Scripted({"a1": [Never("channel_not_found")]})
    async with sending(engine, script):
        pass
    assert [key for key, _ in script.calls] == ["a1", "a2"]


async def test_delivery_that_raises_is_tried_again_as_uncertain(engine: AsyncEngine, desks: Desks) -> None:
    await queue(desks, ("a1", "a"))
    script = Scripted({"a1": [RuntimeError("bug"), Done({})]})
    async with sending(engine, script):
        pass
    assert script.calls == [("a1", False), ("a1", True)]


class Stuck:
    """Delivers answers, and posts nothing until it is let."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.answered = asyncio.Event()

    async def deliver(self, row: Queued) -> Outcome:
        if row.lane.startswith("answer:"):
            self.answered.set()
        else:
            await self.open.wait()
        return Done({})


async def test_answer_to_the_broker_waits_for_no_message(engine: AsyncEngine, desks: Desks) -> None:
    stuck = Stuck()
    async with sending(engine, stuck):
        await queue(desks, *((f"m{number}", f"thread:{number}") for number in range(40)))
        await asyncio.sleep(0.1)
        await queue(desks, ("a", "answer:h1"))
        await asyncio.wait_for(stuck.answered.wait(), 20)
        stuck.open.set()


async def test_card_of_a_hold_waits_for_no_counter(engine: AsyncEngine, desks: Desks) -> None:
    class Crowded(Stuck):
        async def deliver(self, row: Queued) -> Outcome:
            if row.lane.startswith("hold:"):
                self.answered.set()
            else:
                await self.open.wait()
            return Done({})

    stuck = Crowded()
    async with sending(engine, stuck):
        await queue(desks, *((f"c{number}", f"counter:{number}") for number in range(40)))
        await queue(desks, *((f"m{number}", f"thread:{number}") for number in range(40)))
        await asyncio.sleep(0.1)
        await queue(desks, ("h", "hold:h1"))
        await asyncio.wait_for(stuck.answered.wait(), 20)
        stuck.open.set()


class SteppedClock:
    """A wall clock that a test sets back."""

    def __init__(self) -> None:
        self.step = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.step


async def test_wall_clock_that_is_set_back_makes_nothing_wait_longer(engine: AsyncEngine, desks: Desks) -> None:
    await queue(desks, ("a1", "a"))
    clock = SteppedClock()
    script = Scripted({"a1": [Later("busy", 0.3), Done({})]})
    outbox = Outbox(engine, clock)
    sender = Sender(outbox, script, clock)
    task = asyncio.create_task(sender.run())
    try:
        async with asyncio.timeout(20):
            await script.called(1)
            while (await outbox.heads())[0].not_before is None:  # noqa: ASYNC110
                await asyncio.sleep(0)
            # Before the sender has looked at it again, or right behind.
            clock.step = timedelta(hours=-1)
            await script.called(2)
    finally:
        sender.stop()
        await task


async def test_wall_clock_that_was_set_back_before_anybody_looked_makes_nothing_wait_longer(
    engine: AsyncEngine, desks: Desks
) -> None:
    clock = SteppedClock()
    async with desks.open() as (desk, work):
        await work.send("a1", "a", PostOrder("r", "a1"), desk.now + timedelta(seconds=0.2))
    clock.step = desk.now - datetime.now(UTC) - timedelta(hours=1)
    script = Scripted({})
    sender = Sender(Outbox(engine, clock), script, clock)
    task = asyncio.create_task(sender.run())
    async with asyncio.timeout(10):
        await script.called(1)
    sender.stop()
    await task


class Moody(Outbox):
    """An outbox whose database is away at first."""

    away = 2

    async def heads(self) -> Sequence[Queued]:
        if self.away:
            self.away -= 1
            raise OperationalError("select", {}, OSError("disk I/O error"))
        return await super().heads()


async def test_sender_outlives_a_database_that_is_away(engine: AsyncEngine, desks: Desks) -> None:
    await queue(desks, ("a1", "a"))
    script = Scripted({})
    sender = Sender(Moody(engine, SystemClock()), script, SystemClock())
    task = asyncio.create_task(sender.run())
    async with asyncio.timeout(10):
        await script.called(1)
    sender.stop()
    await task
