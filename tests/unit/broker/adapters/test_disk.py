"""Files that grow by whole appends, and the thread that syncs them."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from broker.adapters import disk
from broker.adapters.disk import LAZY_SECONDS, LEFT_BEHIND, AppendFile, Disk, GroupCommit, sync_all
from broker.core import compiled

needs_fadvise = pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system's cache takes no advice")
ways = pytest.mark.parametrize(
    "core",
    [None, pytest.param(compiled, marks=pytest.mark.skipif(compiled is None, reason="python -m broker.core"))],
    ids=["python", "compiled"],
)


def made(folder: Path, *names: str) -> list[AppendFile]:
    return [AppendFile(folder / name, Disk()) for name in names]


def test_the_defaults_are_the_systems_own_calls(tmp_path: Path) -> None:
    (file,) = made(tmp_path, "a")
    assert file.plain
    assert Disk().write is os.write
    assert not AppendFile(tmp_path / "b", Disk(fsync=lambda fd: None)).plain


@ways
def test_a_file_that_cannot_be_synced_is_said_to_whoever_syncs_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, core: object
) -> None:
    monkeypatch.setattr(disk, "compiled", core)
    files = made(tmp_path, *(f"f{number}" for number in range(70)))
    for file in files:
        file.append(b"x")
    sync_all(files)
    for lost in (0, 69):
        os.close(files[lost].fd)
        with pytest.raises(OSError, match="Bad file descriptor"):
            sync_all(files)
        files[lost] = AppendFile(tmp_path / "again", Disk())
    sync_all([])


@needs_fadvise
@ways
def test_what_is_old_and_on_disk_is_let_go_by_the_systems_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, core: object
) -> None:
    monkeypatch.setattr(disk, "compiled", core)
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, start, size, advice: told.append((start, size)))
    (tmp_path / "a").write_bytes(b"before")
    (file,) = made(tmp_path, "a")
    for _ in range(12):
        file.append(bytes(LEFT_BEHIND // 2))
        sync_all([file])
        assert not told or sum(told[-1]) <= file.size - LEFT_BEHIND
    assert len(told) >= 4
    # One range behind the other, from where this file was taken up.
    assert [start for start, _ in told] == [6, *(start + size for start, size in told[:-1])]
    assert file.size - sum(told[-1]) < 3 * LEFT_BEHIND


class Syncs:
    """A group commit of one file, whose syncs are noted."""

    def __init__(self, folder: Path, interval: float = 60.0) -> None:
        self.at: list[float] = []
        self.file = AppendFile(folder / "a", Disk(fsync=self._fsync))
        self.commit = GroupCommit("test", lambda: lambda: None, lambda: None, interval)

    def _fsync(self, fd: int) -> None:
        self.at.append(time.monotonic())
        os.fsync(fd)

    def write(self, *, lazy: bool) -> asyncio.Future[None]:
        with self.commit.lock:
            self.file.append(b"x")
            self.commit.mark(self.file)
            return self.commit.future(lazy=lazy)


@pytest.mark.parametrize("pause", [0.0, 2 * LAZY_SECONDS, 5 * LAZY_SECONDS])
async def test_lazy_records_are_synced_within_a_moment_however_long_none_came(tmp_path: Path, pause: float) -> None:
    syncs = Syncs(tmp_path)
    for _ in range(5):
        await asyncio.sleep(pause)
        # The thread would look again in a minute.
        await asyncio.wait_for(syncs.write(lazy=True), 30)
    assert len(syncs.at) == 5
    syncs.commit.close()


async def test_an_urgent_record_takes_the_lazy_ones_with_it_and_waits_for_none(tmp_path: Path) -> None:
    syncs = Syncs(tmp_path)
    for _ in range(5):
        lazy, urgent = syncs.write(lazy=True), syncs.write(lazy=False)
        await asyncio.wait_for(urgent, 30)
        await asyncio.wait_for(lazy, 30)
    assert len(syncs.at) == 5
    syncs.commit.close()


async def test_what_is_marked_is_synced_at_the_close(tmp_path: Path) -> None:
    syncs = Syncs(tmp_path)
    future = syncs.write(lazy=True)
    syncs.commit.close()
    await future
    assert len(syncs.at) == 1
