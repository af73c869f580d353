"""Transactions on SQLite: one after another, in turn, the urgent ones first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from workflows.storage.engine import Turns, begin, make_engine, sqlite_url


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    made = make_engine(sqlite_url(tmp_path / "a.db"))
    yield made
    await made.dispose()


async def test_urgent_transaction_is_next_and_the_others_keep_their_order(engine: AsyncEngine) -> None:
    order: list[str] = []
    inside, leave = asyncio.Event(), asyncio.Event()

    async def work(name: str, urgent: bool = False) -> None:
        async with begin(engine, urgent=urgent) as connection:
            await connection.execute(text("select 1"))
            order.append(name)
            if name == "first":
                inside.set()
                await leave.wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(work("first"))
        await inside.wait()
        for number in range(5):
            group.create_task(work(f"other {number}"))
        await asyncio.sleep(0)
        group.create_task(work("urgent", urgent=True))
        await asyncio.sleep(0)
        leave.set()
    assert order == ["first", "urgent", *(f"other {number}" for number in range(5))]


async def test_whoever_gives_up_waiting_holds_nobody_up() -> None:
    turns = Turns()
    order: list[int] = []

    async def work(number: int) -> None:
        async with turns.turn(urgent=False):
            order.append(number)
            await asyncio.sleep(0)

    async with turns.turn(urgent=False):
        tasks = [asyncio.create_task(work(number)) for number in range(4)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.sleep(0)
    # Its turn has come, and it gives up in that very moment.
    tasks[0].cancel()
    await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
    assert order == [2, 3]
    await asyncio.wait_for(work(9), 5)
    assert order[-1] == 9
