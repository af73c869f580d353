"""A fresh database for each test."""

from __future__ import annotations

import asyncio
import selectors
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

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


class Hasty(asyncio.SelectorEventLoop):
    """A loop that waits for no time to pass: where nothing else is to be done, it is later at once."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_NoWait(self))

    def time(self) -> float:
        return self._now

    def later(self, seconds: float) -> None:
        self._now += seconds


class _NoWait(selectors.DefaultSelector):
    def __init__(self, loop: Hasty) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0 if timeout is not None else None)
        if not found and timeout is not None and timeout > 0:
            self._loop.later(timeout)
        return found


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop of a module that says that its tests are HASTY depends on no clock."""
    module = item.getparent(pytest.Module)
    hasty = module is not None and getattr(module.obj, "HASTY", False)
    return {"hasty": Hasty} if hasty else {"asyncio": asyncio.new_event_loop}
