"""A fresh database for each test."""

from __future__ import annotations

import asyncio
import shutil
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


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with nothing in it, made once: migrations take longer than most tests."""
    path = tmp_path_factory.mktemp("empty") / "bot.db"

    async def make() -> None:
        made = make_engine(sqlite_url(path))
        await upgrade(made, MIGRATIONS)
        await made.dispose()

    asyncio.run(make())
    return path


@pytest.fixture
async def engine(empty: Path, tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    made = make_engine(sqlite_url(Path(shutil.copy(empty, tmp_path))))
    yield made
    await made.dispose()


@pytest.fixture
def desks(engine: AsyncEngine) -> Desks:
    clock = Still()
    return Desks(
        Store(engine, clock), Fixed(), clock, CountingIds(), command="/access", channel="C0ACCESS01", pending_cap=5
    )
