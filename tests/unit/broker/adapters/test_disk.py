"""Files that grow by whole appends, and the thread that syncs them."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from broker.adapters import disk
from broker.adapters.disk import LAZY_SECONDS, LEFT_BEHIND, AppendFile, Disk, GroupCommit, sync_all
from broker.core import compiled
from broker.errors import RecordingFailed

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
    # A page is let go whole or not at all.
    assert not any((start + size) % 65536 for start, size in told)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The ranges that the system's cache is told to let go."""
    ranges: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, start, size, advice: ranges.append((start, size)))
    return ranges


@needs_fadvise
def test_what_is_appended_during_a_sync_is_not_let_go_by_it(tmp_path: Path, told: list[tuple[int, int]]) -> None:
    # The system would begin to write it, and whether it could nobody would learn.
    late = [bytes(8 * LEFT_BEHIND)]

    def fsync(fd: int) -> None:
        if late:
            file.append(late.pop())

    file = AppendFile(tmp_path / "a", Disk(fsync=fsync))
    file.append(bytes(3 * LEFT_BEHIND))
    sync_all([file])
    assert told == [(0, 2 * LEFT_BEHIND)]
    sync_all([file])
    assert told[1:] == [(2 * LEFT_BEHIND, 8 * LEFT_BEHIND)]


@needs_fadvise
@ways
def test_what_is_written_again_behind_a_cut_is_let_go_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[tuple[int, int]], core: object
) -> None:
    monkeypatch.setattr(disk, "compiled", core)
    (file,) = made(tmp_path, "a")
    file.append(bytes(8 * LEFT_BEHIND))
    sync_all([file])
    file.cut(10)
    sync_all([file])
    assert told == [(0, 7 * LEFT_BEHIND)]
    file.append(bytes(4 * LEFT_BEHIND))
    sync_all([file])
    assert told[1:] == [(10, 3 * LEFT_BEHIND - 10)]


@ways
def test_a_system_that_takes_no_advice_is_given_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, core: object
) -> None:
    monkeypatch.setattr(disk, "compiled", core)
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    files = made(tmp_path, "a", "b")
    for file in files:
        file.append(bytes(4 * LEFT_BEHIND))
    sync_all(files)


REFUSED = """
import ctypes, os, struct, sys
from broker.core import compiled

refused, error, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
steps = (0x20, 0, 0, 0), (0x15, 0, 1, refused), (0x06, 0, 0, 0x00050000 | error), (0x06, 0, 0, 0x7FFF0000)
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)))
prctl = ctypes.CDLL(None).prctl
if prctl(38, 1, 0, 0, 0) or prctl(22, 2, head, 0, 0):
    sys.exit("no filter")
files = [os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT) for name in "ab"]
try:
    compiled.sync(files)
except OSError as failed:
    print(failed.errno)
else:
    print(0)
"""


@pytest.mark.skipif(sys.platform != "linux" or os.uname().machine != "x86_64", reason="it knows one system's numbers")
@pytest.mark.skipif(compiled is None, reason="python -m broker.core")
@pytest.mark.parametrize(
    ("error", "found"), [(errno.EIO, errno.EIO), (errno.ENOSPC, errno.ENOSPC), (errno.ENOSYS, 0), (errno.EPERM, 0)]
)
def test_what_fails_while_files_are_on_their_way_is_said_as_well(tmp_path: Path, error: int, found: int) -> None:
    # 277 is sync_file_range. A file system may tell whoever has it write, and nobody who waits for it afterwards.
    command = [sys.executable, "-c", REFUSED, "277", str(error), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if "no filter" in done.stderr:
        pytest.skip("this system lets nobody filter calls")
    assert done.stdout.split() == [str(found)], done.stderr


class Syncs:
    """A group commit of one file, whose syncs are noted."""

    def __init__(self, folder: Path, interval: float = 60.0) -> None:
        self.at: list[float] = []
        self.begun = threading.Event()
        self.seconds: list[float] = []
        """How long the next ones take."""
        self.file = AppendFile(folder / "a", Disk(fsync=self._fsync))
        self.commit = GroupCommit("test", lambda: lambda: None, lambda: None, interval)

    def _fsync(self, fd: int) -> None:
        self.at.append(time.monotonic())
        self.begun.set()
        if self.seconds:
            time.sleep(self.seconds.pop(0))
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


async def test_lazy_records_that_come_during_a_sync_have_waited_for_it_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "LAZY_SECONDS", 1.0)
    syncs = Syncs(tmp_path)
    syncs.seconds.append(1.2)
    urgent = syncs.write(lazy=False)
    assert await asyncio.to_thread(syncs.begun.wait, 30)
    came, lazy = time.monotonic(), syncs.write(lazy=True)
    await asyncio.wait_for(urgent, 30)
    await asyncio.wait_for(lazy, 30)
    assert syncs.at[1] - came < 1.9
    syncs.commit.close()


async def test_lazy_records_put_no_idle_moment_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "LAZY_SECONDS", 30.0)
    syncs = Syncs(tmp_path, interval=0.2)
    for _ in range(3):
        await asyncio.wait_for(syncs.write(lazy=True), 10)
        await asyncio.sleep(0.1)
    syncs.commit.close()


async def test_no_record_waits_forever_whatever_comes_in_between(tmp_path: Path) -> None:
    # Two writers, one of them without a loop, against a thread that looks every few milliseconds.
    syncs, pause = Syncs(tmp_path, interval=0.003), [0.0, 0.001, 0.002, 0.0035]

    def append() -> None:
        for turn in range(300):
            with syncs.commit.lock:
                syncs.file.append(b"x")
                syncs.commit.mark(syncs.file)
                ticket = syncs.commit.ticket()
            assert ticket.wait(30)
            time.sleep(pause[turn % 4])

    other = threading.Thread(target=append)
    other.start()
    for turn in range(300):
        await asyncio.wait_for(syncs.write(lazy=bool(turn % 3)), 30)
        await asyncio.sleep(pause[turn * 7 % 4])
    await asyncio.to_thread(other.join)
    syncs.commit.close()


async def test_a_retired_file_that_does_not_close_is_a_failure_and_no_end_of_the_thread(tmp_path: Path) -> None:
    syncs = Syncs(tmp_path)
    lost = AppendFile(tmp_path / "lost", Disk(fsync=lambda fd: None))
    os.close(lost.fd)
    with syncs.commit.lock:
        syncs.commit.retire(lost)
    for _ in range(2):
        with pytest.raises(RecordingFailed, match="Bad file descriptor"):
            await asyncio.wait_for(syncs.write(lazy=False), 10)
    syncs.commit.close()


async def test_what_is_marked_is_synced_at_the_close(tmp_path: Path) -> None:
    syncs = Syncs(tmp_path)
    future = syncs.write(lazy=True)
    syncs.commit.close()
    await future
    assert len(syncs.at) == 1
