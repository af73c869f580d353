"""A fresh database for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from bot.adapters.desks import Desks
from bot.adapters.store import Store
from bot.adapters.tables import MIGRATIONS
from tests.unit.bot.memory import CountingIds
from tests.unit.bot.stored import Fixed, Still
from workflows.storage.engine import make_engine, sqlite_url
from workflows.storage.migrate import upgrade


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    made = make_engine(sqlite_url(tmp_path / "bot.db"))
    await upgrade(made, MIGRATIONS)
    yield made
    await made.dispose()


@pytest.fixture
def desks(engine: AsyncEngine) -> Desks:
    clock = Still()
    return Desks(
        Store(engine, clock), Fixed(), clock, CountingIds(), command="/access", channel="C0ACCESS01", pending_cap=5
    )
