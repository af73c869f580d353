"""The reaper's clocks: a session is late when either says so, and a clock that was set back gives nobody more."""

import asyncio
import io
import json
import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker import reaper as module
from broker.adapters.clock import SystemClock
from broker.adapters.eventlog import EventLog
from broker.adapters.leases import LeaseFile, boot_time, line, reaped_sessions, written
from broker.config import Settings
from broker.protocols import offers
from broker.reaper import BROKER_GRACE, Reaper, Tail
from broker.sessions.model import IdentityEnd, Killed, Lease, Source
from broker.sessions.ports import Endpoint


class World:
    """A broker's leases, a reaper that looks when it is told to, and what it has ended."""

    def __init__(self, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings = Settings(state=state)
        (state / "secrets").mkdir(exist_ok=True)
        (state / "secrets" / "x").write_text("u:p")
        self.leases = LeaseFile(self.settings.home)
        self.reaper = Reaper(self.settings)
        self.ended: list[str] = []
        self.killed = Killed(verified=True)
        self._patch = monkeypatch
        monkeypatch.setattr(offers()["postgres"], "kill", self._kill, raising=False)

    async def _kill(self, lease: Lease, endpoint: Endpoint) -> Killed:
        self.ended.append(lease.session)
        return self.killed

    def lease(self, lasts: float) -> Lease:
        expires = datetime.now(UTC) + timedelta(seconds=lasts)
        source = Source("127.0.0.1", 5432, "shop", "disable", "file:x")
        return Lease("s1", "g1", "postgres", "prod-db", "read", expires, 1, 2, source)

    def step(self, *, wall: float = 0.0, boot: float = 0.0) -> None:
        real, since = time.time, boot_time
        self._patch.setattr(module.time, "time", lambda: real() + wall)
        self._patch.setattr(module, "boot_time", lambda: since() + boot)

    async def look(self) -> list[str]:
        self.reaper._look()
        for watched in list(self.reaper._watched.values()):
            if watched.killing is not None:
                await watched.killing
        return self.ended


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    made = World(tmp_path, monkeypatch)
    yield made
    made.reaper.close()
    made.leases.release()


@pytest.mark.parametrize("steps", [{"wall": 61.0}, {"boot": 61.0}, {"wall": -3600.0, "boot": 61.0}])
async def test_a_session_is_late_when_either_clock_says_so(world: World, steps: dict[str, float]) -> None:
    await world.leases.write(world.lease(60 - BROKER_GRACE))
    assert await world.look() == []
    world.step(**steps)
    assert await world.look() == ["s1"]


async def test_a_clock_that_is_set_back_gives_a_session_no_more_time(world: World) -> None:
    lease = world.lease(60 - BROKER_GRACE)
    await world.leases.write(lease)
    assert await world.look() == []
    world.step(wall=-3600)
    # The broker says more of the session: its end is what it was.
    await world.leases.write(replace(lease, pid=7, backend_start=8))
    assert await world.look() == []
    world.step(wall=-3600, boot=61)
    assert await world.look() == ["s1"]


async def test_a_role_that_could_not_be_dropped_is_told_before_the_end(world: World) -> None:
    world.killed = Killed(verified=True, identity=IdentityEnd.DISABLED, owns="owner of table public.mine")
    await world.leases.write(replace(world.lease(-1), identity="airlock_s_x"))
    assert await world.look() == ["s1"]
    stream = world.settings.home / "events" / "reaper.ndjson"
    lines = [json.loads(line) for line in stream.read_text().splitlines()]
    told = [(line["type"], line["data"]) for line in lines if line["session"] == "s1"]
    assert told == [
        ("identity.left", {"identity": "airlock_s_x", "resource": "prod-db", "owns": "owner of table public.mine"}),
        ("session.closed", {"reason": "expired", "verified": True, "identity": "disabled", "by": "reaper"}),
    ]


@pytest.mark.parametrize("verified", [True, False])
async def test_the_end_that_a_lost_host_kept_in_the_feed_alone_is_not_said_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verified: bool
) -> None:
    first = World(tmp_path, monkeypatch)
    home = first.settings.home
    lease = first.lease(60)
    await first.leases.write(lease)
    path = home / "leases" / "leases.ndjson"
    synced = path.stat().st_size
    assert await first.leases.close("s1")
    log = EventLog(home, "broker", SystemClock())
    await log.write("session.closed", "g1", "s1", {"reason": "client", "verified": verified})
    log.close()
    first.reaper.close()
    first.leases.release()
    os.truncate(path, synced)

    again = World(tmp_path, monkeypatch)
    assert await again.look() == ["s1"]
    assert await again.look() == ["s1"]
    again.reaper.close()
    again.leases.release()
    feed = b"".join((home / "events" / f"{stream}.ndjson").read_bytes() for stream in ("broker", "reaper"))
    # One that was not verified gone is told once it is.
    assert feed.count(b'"session.closed"') == (1 if verified else 2)
    assert reaped_sessions(home / "leases") == {"s1"}


async def test_leases_that_two_threads_look_at_together_are_all_known(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, lease = tmp_path / "leases.ndjson", world.lease(60)
    lines = [line({"op": "lease", **written(replace(lease, session=f"s{number}"))}) for number in range(3)]
    tail = Tail(path)

    class Slow(io.FileIO):
        def read(self, size: int = -1) -> bytes:
            data = super().read(size) or b""
            time.sleep(0.05)
            return data

    path.write_bytes(lines[0])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda self, how: Slow(self, how))
        books = await asyncio.gather(asyncio.to_thread(tail.look), asyncio.to_thread(tail.look))
    path.write_bytes(b"".join(lines))
    assert set(tail.look().leases) == {"s0", "s1", "s2"}
    assert [set(book.leases) for book in books] == [{"s0"}, {"s0"}]
