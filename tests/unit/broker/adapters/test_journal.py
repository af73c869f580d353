"""The journal: what stands there is sealed soon and in order, or ends the sessions that it is of."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from broker.adapters import journal as journal_module
from broker.adapters.clock import SystemClock
from broker.adapters.disk import Disk
from broker.adapters.eventlog import EventLog
from broker.adapters.journal import (
    file_system,
    left_behind,
)
from broker.adapters.metrics import Metrics
from broker.adapters.recorder import OPEN_FILES, FileRecorder
from broker.adapters.recordings import FileRecordings
from broker.adapters.stories import recording_path
from broker.adapters.verify import verify
from broker.errors import RecordingFailed
from broker.protocols.postgres import codec
from broker.sessions.model import Entry
from tests.support.require import needs_core
from tests.unit.broker.adapters.recording import (
    ALLOWED,
    ANSWER,
    FINISHED,
    Q,
    allowed,
    lane_of,
    lines_of,
    make,
    ride,
)


@needs_core
async def test_what_is_forgotten_while_the_disk_is_full_leaves_no_story_behind(tmp_path: Path) -> None:
    full = False

    def write(fd: int, data: bytes | memoryview) -> int:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.write(fd, data)

    log, recorder = make(tmp_path, Disk(write=write))
    recorder.resume("grant2")
    ride(lane_of(recorder, []))
    full = True
    recorder.forget("grant2")
    recorder.forget("grant1")
    assert (recorder.stories, dict(recorder.files)) == ({}, {})
    full = False
    log.close()


@needs_core
async def test_records_of_the_compiled_core_go_into_the_same_chains_and_counts(tmp_path: Path) -> None:
    log, recorder = make(tmp_path)
    sent: list[str] = []
    recorder.resume("grant2")
    first, second = lane_of(recorder, sent, {"masked": ["public.people.ssn"]}), lane_of(recorder, sent, grant="grant2")
    await recorder.write(allowed(7))
    ride(first)
    ride(second, land=False)
    ride(first, land=False)
    assert not recording_path(tmp_path, "grant2").exists()
    await recorder.write(allowed(8))
    story = recorder.resume("grant1")
    assert (story.statements, story.masked) == (4, {"public.people.ssn"})
    assert sorted(story.open_statements) == [("s1", one) for one in ("7", "8", Q[2])]
    assert sorted(recorder.resume("grant2").open_statements) == [("s1", Q[1])]
    assert b'airlock_events_total{type="statement.allowed"} 5.0' in recorder._metrics.render()
    assert lines_of(tmp_path) == [(ALLOWED, "7"), (ALLOWED, Q[1]), (FINISHED, Q[1]), (ALLOWED, Q[2]), (ALLOWED, "8")]
    log.close()
    assert verify(tmp_path).good
    read = FileRecorder(tmp_path, EventLog(tmp_path, "other", SystemClock()), SystemClock(), Metrics())
    assert read.load("grant1").story == story


@needs_core
async def test_what_stands_in_the_journal_is_sealed_in_a_moment_whatever_comes(tmp_path: Path) -> None:
    log, recorder = make(tmp_path)
    ride(lane_of(recorder, []))
    async with asyncio.timeout(30):
        while not recording_path(tmp_path, "grant1").exists():  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(0.001)
    assert lines_of(tmp_path) == [(ALLOWED, Q[1]), (FINISHED, Q[1])]
    log.close()


@needs_core
@pytest.mark.parametrize("failing", ["events", "recordings"])
async def test_records_of_the_compiled_core_are_there_all_or_none_and_none_is_lost(
    tmp_path: Path, failing: str
) -> None:
    full = False

    def write(fd: int, data: bytes | memoryview) -> int:
        if full and failing in os.readlink(f"/proc/self/fd/{fd}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.write(fd, data)

    log, recorder = make(tmp_path, Disk(write=write))
    sent: list[str] = []
    lane = lane_of(recorder, sent)
    ride(lane)
    recorder.seal()
    full = True
    ride(lane, land=False)
    with pytest.raises(RecordingFailed):
        recorder.write(allowed(3))
    assert len(sent) == 4
    assert "No space left" in sent[-1]
    assert not lane.depart(codec.query("select 1"))
    with pytest.raises(RecordingFailed):
        lane_of(recorder, sent).depart(codec.query("select 1"))
    assert lines_of(tmp_path) == [(ALLOWED, Q[1]), (FINISHED, Q[1])]
    full = False
    await recorder.write(allowed(4))
    assert recorder._metrics.failures._value.get() == 2
    log.close()
    assert lines_of(tmp_path)[2:] == [(ALLOWED, Q[2]), (ALLOWED, "4")]
    assert verify(tmp_path).good


@needs_core
@pytest.mark.parametrize("fails", ["opened", "written", "written in part"])
@pytest.mark.parametrize("killed", [False, True])
async def test_a_recording_that_takes_nothing_ends_the_sessions_of_its_grant_alone_and_no_record_is_lost(
    tmp_path: Path, fails: str, killed: bool
) -> None:
    spoilt = recording_path(tmp_path, "grant2")
    good = True

    def write(fd: int, data: bytes | memoryview) -> int:
        if not good and os.readlink(f"/proc/self/fd/{fd}") == str(spoilt):
            if fails == "written" or len(data) <= 40:
                raise OSError(errno.EIO, "Input/output error")
            return os.write(fd, data[:40])
        return os.write(fd, data)

    log, recorder = make(tmp_path, Disk(write=write))
    recorder.resume("grant2")
    first: list[str] = []
    second: list[str] = []
    lane = lane_of(recorder, first)
    broken, later = (lane_of(recorder, second, grant="grant2", begun=begun) for begun in (1, 3))
    if fails == "opened":
        spoilt.mkdir()
    elif fails == "written in part":
        # What is there before stays as it is.
        await recorder.write(allowed(8, "grant2"))
    good = False
    for one in (broken, lane, broken, lane):
        ride(one)
    ride(lane, land=False)
    await recorder.write(allowed(7))
    assert lines_of(tmp_path)[-2:] == [(ALLOWED, Q[3]), (ALLOWED, "7")]
    assert len(first) == 5
    assert len(second) == 5
    assert not broken.depart(codec.query("select 1"))
    # Nothing else of the grant is recorded before what it lacks.
    with pytest.raises(RecordingFailed):
        recorder.write(Entry("session.closed", "grant2", "s1", {}))
    ride(later)
    recorder.seal()
    assert not later.depart(codec.query("select 1"))
    assert recorder._metrics.failures._value.get() == 3
    before = [(ALLOWED, "8")] if fails == "written in part" else []
    missing = [(kind, one) for one in (Q[1], Q[2], Q[3]) for kind in (ALLOWED, FINISHED)]
    if fails == "opened":
        spoilt.rmdir()
    good = True
    if killed:
        log.close()
        assert verify(tmp_path).unsealed == 6
        log, recorder = make(tmp_path)
    story = recorder.resume("grant2")
    await recorder.write(allowed(9, "grant2"))
    recorder.journal()
    log.close()
    assert lines_of(tmp_path, "grant2") == [*before, *missing, (ALLOWED, "9")]
    assert story.statements == len(before) + 4
    assert not list((tmp_path / "recordings").glob("*stranded*"))
    report = verify(tmp_path)
    assert (report.good, report.unsealed) == (True, 0)


@needs_core
async def test_a_recording_that_could_not_even_be_cut_back_gets_its_records_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = True

    def write(fd: int, data: bytes | memoryview) -> int:
        if not good and "grant1" in os.readlink(f"/proc/self/fd/{fd}"):
            if len(data) <= 40:
                raise OSError(errno.EIO, "Input/output error")
            return os.write(fd, data[:40])
        return os.write(fd, data)

    def truncate(fd: int, size: int) -> None:
        if "grant1" in os.readlink(f"/proc/self/fd/{fd}"):
            raise OSError(errno.EIO, "Input/output error")
        os.truncate(fd, size)

    monkeypatch.setattr("broker.adapters.disk.os.ftruncate", truncate)
    log, recorder = make(tmp_path, Disk(write=write))
    first, second = lane_of(recorder, []), lane_of(recorder, [], begun=2)
    good = False
    ride(first)
    recorder.seal()
    good = True
    ride(second)
    recorder.seal()
    log.close()
    # The first line is there, the second one in part.
    first_two = [(ALLOWED, Q[1]), ("recording.torn", ""), (FINISHED, Q[1])]
    assert lines_of(tmp_path) == [*first_two, (ALLOWED, Q[2]), (FINISHED, Q[2])]
    assert verify(tmp_path).good


@needs_core
@pytest.mark.parametrize("meanwhile", ["another event", "another segment", "another file"])
async def test_lines_that_are_made_ahead_are_made_anew_where_something_else_comes_first(
    tmp_path: Path, meanwhile: str
) -> None:
    log = EventLog(tmp_path, "broker", SystemClock(), segment_bytes=2000 if meanwhile == "another segment" else 1 << 20)
    recorder = FileRecorder(tmp_path, log, SystemClock(), Metrics())
    sent: list[str] = []
    for grant in ("grant1", "grant2"):
        recorder.resume(grant)
        await recorder.write(allowed(7, grant))
    first, second = lane_of(recorder, sent), lane_of(recorder, sent, grant="grant2")
    for _ in range(3):
        ride(first)
        ride(second)
        if meanwhile == "another event":
            log.write("broker.started", None, None, {})
        elif meanwhile == "another file":
            log.retire(recorder.files.pop("grant1"))
        ride(first)
        recorder.seal()
    log.close()
    report = verify(tmp_path)
    assert (report.findings, report.unsealed) == ([], 0)


@needs_core
async def test_a_closed_recording_takes_nothing_more_and_what_comes_late_is_put_aside(tmp_path: Path) -> None:
    log, recorder = make(tmp_path)
    recorder.resume("grant2")
    late = lane_of(recorder, [], grant="grant2")
    await recorder.write(Entry("grant.closed", "grant2", None, {}))
    recorder.forget("grant2")
    ride(late, land=False)
    ride(lane_of(recorder, []))
    recorder.seal()
    await recorder.write(Entry("session.refused", "grant2", "s2", {}))
    assert lines_of(tmp_path, "grant2") == [("grant.closed", "")]
    assert lines_of(tmp_path) == [(ALLOWED, Q[1]), (FINISHED, Q[1])]
    log.close()
    log, recorder = make(tmp_path)
    recorder.journal()
    (aside,) = [one for one in (tmp_path / "recordings").glob("*.torn") if left_behind(one).lines]
    assert [(line.grant, line.id) for line in left_behind(aside).lines] == [("grant2", Q[1])]
    log.close()
    assert verify(tmp_path).good


@needs_core
async def test_what_a_recording_says_so_far_has_what_stands_in_the_journal(tmp_path: Path) -> None:
    log, recorder = make(tmp_path)
    ride(lane_of(recorder, []))
    story = recorder.resume("grant1")
    assert (story.statements, story.head.seq) == (1, 2)
    ride(lane_of(recorder, []))
    shown = [line async for line in FileRecordings(tmp_path, recorder).lines("grant1", full=False, by="somebody")]
    assert b"".join(shown).count(b"\n") == 4
    log.close()


@needs_core
async def test_where_a_file_cannot_be_mapped_safely_each_record_is_sealed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on one that copies on write, where a full disk would end the process."""
    monkeypatch.setattr(journal_module, "_COPYING", (file_system(tmp_path),))
    log, recorder = make(tmp_path)
    sent: list[str] = []
    lane = lane_of(recorder, sent)
    ride(lane, land=False)
    assert lines_of(tmp_path) == [(ALLOWED, Q[1])]
    assert sent == ["select 1"]
    log.close()


@needs_core
@pytest.mark.parametrize("departs", [False, True])
async def test_what_its_recording_does_not_take_neither_departs_nor_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, departs: bool
) -> None:
    good = departs

    def write(fd: int, data: bytes | memoryview) -> int:
        if not good and "grant1" in os.readlink(f"/proc/self/fd/{fd}"):
            raise OSError(errno.EIO, "Input/output error")
        return os.write(fd, data)

    monkeypatch.setattr(journal_module, "_COPYING", (file_system(tmp_path),))
    log, recorder = make(tmp_path, Disk(write=write))
    sent: list[str] = []
    lane = lane_of(recorder, sent)
    ride(lane, land=False)
    if departs:
        good = False
        assert lane.land(ANSWER)
    assert sent == ["select 1"] * departs + ["`grant1.ndjson` cannot be written: Input/output error"]
    assert not lane.depart(codec.query("select 1"))
    good = True
    recorder.resume("grant1")
    assert lines_of(tmp_path) == [(ALLOWED, Q[1]), (FINISHED, Q[1])][: 1 + departs]
    log.close()


@pytest.mark.skipif(sys.platform != "linux", reason="nobody says what file system it is")
def test_the_file_system_is_the_one_that_the_system_says(tmp_path: Path) -> None:
    said = subprocess.run(["stat", "-f", "-c", "%t", tmp_path], capture_output=True, text=True, check=True).stdout
    assert file_system(tmp_path) == int(said, 16)


@needs_core
@pytest.mark.parametrize("fails", [False, True])
async def test_results_that_wait_for_the_disk_come_when_their_record_is_on_it(tmp_path: Path, fails: bool) -> None:
    syncing, go = threading.Event(), threading.Event()

    def fsync(fd: int) -> None:
        syncing.set()
        assert go.wait(30)
        if fails:
            raise OSError(errno.EIO, "Input/output error")
        os.fsync(fd)

    log, recorder = make(tmp_path, Disk(fsync=fsync))
    sent: list[str] = []
    lane = lane_of(recorder, sent, waits=True)
    ride(lane)
    assert sent == ["select 1"]
    assert not lane.depart(codec.query("select 1"))
    await asyncio.to_thread(syncing.wait, 30)
    assert sent == ["select 1"]
    go.set()
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        while log.failure is None and len(sent) < 2:  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    assert len(sent) == (1 if fails else 2)
    assert lane.depart(codec.query("select 1")) is not fails
    log.close()


@needs_core
async def test_many_grants_at_once_keep_their_files(tmp_path: Path) -> None:
    log, recorder = make(tmp_path)
    for number in range(2 * OPEN_FILES):
        recorder.resume(f"many{number}")
    for number in range(2 * OPEN_FILES):
        ride(lane_of(recorder, [], grant=f"many{number}"))
    # All files that are written at once are open at once.
    waiting = [number for number in range(2 * OPEN_FILES) if not recording_path(tmp_path, f"many{number}").exists()]
    assert len(waiting) < OPEN_FILES
    recorder.seal()
    log.close()
    for number in range(2 * OPEN_FILES):
        assert lines_of(tmp_path, f"many{number}") == [(ALLOWED, Q[1]), (FINISHED, Q[1])]
    assert verify(tmp_path).good
