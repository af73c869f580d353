"""The recorder: feed and recording agree, whatever fails between them, and many recordings need few files."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.adapters import journal as journal_module
from broker.adapters import recorder as module
from broker.adapters.clock import SystemClock
from broker.adapters.disk import Disk
from broker.adapters.eventlog import EventLog
from broker.adapters.journal import (
    Line,
    file_system,
    journal_path,
    left_behind,
    left_in,
    packed,
    stranded_path,
    unpacked,
)
from broker.adapters.metrics import Metrics
from broker.adapters.recorder import OPEN_FILES, FileRecorder, recording_path
from broker.adapters.recordings import FileRecordings
from broker.adapters.verify import verify
from broker.core import compiled, new_moves
from broker.errors import RecordingFailed
from broker.protocols.postgres import codec
from broker.sessions.model import Entry
from tests.support.require import needs_core

if TYPE_CHECKING:
    from broker.core.lane import Lane


def make(home: Path, disk: Disk | None = None) -> tuple[EventLog, FileRecorder]:
    log = EventLog(home, "broker", SystemClock(), disk=disk)
    recorder = FileRecorder(home, log, SystemClock(), Metrics(), disk)
    recorder.resume("grant1")
    return log, recorder


def allowed(number: int, grant: str = "grant1") -> Entry:
    return Entry(
        "statement.allowed", grant, "s1", {"statement": str(number), "text": "select ?"}, {"sql": "select 'x'"}
    )


async def test_detail_is_in_the_recording_only_and_the_feed_commits_to_it(tmp_path: Path) -> None:
    log, recorder = make(tmp_path)
    await recorder.write(allowed(1))
    log.close()
    feed = json.loads((tmp_path / "events" / "broker.ndjson").read_bytes())
    line = json.loads(recording_path(tmp_path, "grant1").read_bytes())
    assert "select 'x'" not in json.dumps(feed)
    assert line["detail"] == {"sql": "select 'x'"}
    assert feed["data"]["recorded"] == f"1:{line['hash']}"
    assert verify(tmp_path).good


@pytest.mark.parametrize("failing", ["events", "recordings"])
async def test_disk_that_is_full_for_one_of_the_two_leaves_neither(tmp_path: Path, failing: str) -> None:
    full = False

    def write(fd: int, data: memoryview) -> int:
        if full and failing in os.readlink(f"/proc/self/fd/{fd}"):
            if len(data) <= 40:
                raise OSError(errno.ENOSPC, "No space left on device")
            return os.write(fd, data[:40])
        return os.write(fd, data)

    log, recorder = make(tmp_path, Disk(write=write))
    await recorder.write(allowed(1))
    full = True
    with pytest.raises(RecordingFailed):
        recorder.write(allowed(2))
    full = False
    await recorder.write(allowed(3))
    log.close()
    lines = [json.loads(line) for line in recording_path(tmp_path, "grant1").read_bytes().splitlines()]
    assert [(line["seq"], line["data"]["statement"]) for line in lines] == [(1, "1"), (2, "3")]
    assert verify(tmp_path).good


async def test_records_written_together_are_there_all_or_none(tmp_path: Path) -> None:
    log, recorder = make(tmp_path)
    with pytest.raises(RecordingFailed, match="cannot be recorded"):
        recorder.write_all((allowed(1), Entry("statement.finished", "grant1", "s1", {"rows": object()})))
    with pytest.raises(RecordingFailed, match="two grants"):
        recorder.write_all((allowed(1), allowed(2, "grant2")))
    await recorder.write_all((allowed(1), allowed(2)))
    log.close()
    lines = [json.loads(line) for line in recording_path(tmp_path, "grant1").read_bytes().splitlines()]
    feed = [json.loads(line) for line in (tmp_path / "events" / "broker.ndjson").read_bytes().splitlines()]
    assert [line["data"]["statement"] for line in lines] == ["1", "2"]
    assert [line["data"]["recorded"] for line in feed] == [f"{line['seq']}:{line['hash']}" for line in lines]
    assert verify(tmp_path).good


def open_files(folder: Path) -> int:
    """How many files of a folder this process has open."""
    links = [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return sum(str(folder) in str(path.readlink()) for path in links if path.is_symlink())


async def test_many_recordings_share_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPEN_FILES", 4)
    log, recorder = make(tmp_path)
    for number in range(300):
        recorder.resume(f"grant{number * 7 % 30}")
        future = recorder.write(allowed(number, f"grant{number * 7 % 30}"))
    await future
    await log.write("end", None, None, {})
    assert open_files(tmp_path / "recordings") <= 5
    log.close()
    report = verify(tmp_path)
    assert report.good, report.findings
    assert report.records == 300


async def test_recording_goes_on_after_a_restart_and_counts_all_of_it(tmp_path: Path) -> None:
    log, recorder = make(tmp_path)
    await recorder.write(Entry("session.opened", "grant1", "s1", {}))
    await recorder.write(allowed(1))
    log.close()
    with recording_path(tmp_path, "grant1").open("ab") as file:
        file.write(b'{"torn')
    log, recorder = make(tmp_path)
    story = recorder.resume("grant1")
    assert (story.statements, list(story.open_sessions), list(story.open_statements)) == (1, ["s1"], [("s1", "1")])
    await recorder.write(Entry("session.closed", "grant1", "s1", {}))
    assert story.open_sessions == {}
    log.close()
    report = verify(tmp_path)
    assert report.good, report.findings


async def test_changed_recording_is_not_written_on(tmp_path: Path) -> None:
    log, recorder = make(tmp_path)
    await recorder.write(allowed(1))
    log.close()
    path = recording_path(tmp_path, "grant1")
    path.write_bytes(path.read_bytes().replace(b"select 'x'", b"select 'y'"))
    with pytest.raises(RecordingFailed, match="does not read"):
        make(tmp_path)


async def test_closed_recording_stays_closed_and_late_facts_go_to_the_feed_only(tmp_path: Path) -> None:
    log, recorder = make(tmp_path)
    await recorder.write(Entry("grant.closed", "grant1", None, {}))
    recorder.forget("grant1")
    await recorder.write(Entry("session.refused", "grant1", "s2", {"reason": "this access was ended"}))
    with pytest.raises(RecordingFailed, match="none open"):
        recorder.write(allowed(1))
    log.close()
    assert len(recording_path(tmp_path, "grant1").read_bytes().splitlines()) == 1
    assert len((tmp_path / "events" / "broker.ndjson").read_bytes().splitlines()) == 2
    assert verify(tmp_path).good


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


def test_recordings_are_found_by_ids_only() -> None:
    for bad in ("../etc", "a/b", "", "x" * 100, "a.b"):
        with pytest.raises(ValueError):
            recording_path(Path("/x"), bad)


async def test_what_was_masked_revealed_and_searched_is_summed_up_also_after_a_restart(tmp_path: Path) -> None:
    log, recorder = make(tmp_path)
    for number, key in enumerate(("masked", "revealed", "searched", "searched")):
        data = {"statement": str(number), key: [f"public.customers.{key}"]}
        await recorder.write(Entry("statement.allowed", "grant1", "s1", data, {"sql": "select 1"}))
    totals = recorder.resume("grant1").totals()
    log.close()
    log, recorder = make(tmp_path)
    assert recorder.resume("grant1").totals() == totals
    assert all(totals[key] == [f"public.customers.{key}"] for key in ("masked", "revealed", "searched"))
    log.close()


def lane_of(
    recorder: FileRecorder,
    sent: list[str],
    said: dict[str, Any] | None = None,
    grant: str = "grant1",
    *,
    waits: bool = False,
    begun: int = 1,
) -> Lane:
    """A lane on which `select 1` and `select 2` are known."""
    assert compiled is not None
    before = json.dumps(said)[1:-1].encode() + b"," if said else b""
    known = {
        "said": said,
        "waits": waits,
        "before": before,
        "between": b'"statement":',
        "behind": b"",
        "scrub": False,
        "ruling": None,
    }
    quiet = ("I", 0, frozenset(), {}, {})
    booking: Any = SimpleNamespace(
        quiet=lambda: quiet,
        ticket=lambda text, _: SimpleNamespace(**known, texts=b'{"sql":"%b"}' % text, send=text),
        tripwire=frozenset(),
        alike=lambda *_: None,
        watch=lambda _: None,
        landed=lambda *_: None,
        shows=lambda *_: True,
    )
    policies: Any = SimpleNamespace(hash="policy")
    end: Any = SimpleNamespace(is_closing=lambda: False, write=lambda data: sent.append(data.decode()))
    lane: Lane = compiled.Lane(
        booking,
        lambda error: sent.append(str(error)),
        recorder.journal(),
        grant,
        "s1",
        compiled.Ids(begun),
        SystemClock(),
        None,
        lambda: (1, 9e9),
        policies,
        (new_moves(), new_moves()),
        end,
        end,
        9e9,
    )
    return lane


ANSWER = codec.message(b"T", b"\0\0") + codec.message(b"C", b"SELECT 0\0") + codec.ready_for_query("I")


def ride(lane: Lane, *, land: bool = True) -> None:
    assert lane.depart(codec.query("select 1"))
    if land:
        assert lane.land(ANSWER)


def lines_of(home: Path, grant: str = "grant1") -> list[tuple[str, str]]:
    lines = [json.loads(line) for line in recording_path(home, grant).read_bytes().splitlines()]
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    return [(line["type"], line["data"].get("statement", "")) for line in lines]


Q = [f"q{number:016x}" for number in range(10)]
ALLOWED, FINISHED = "statement.allowed", "statement.finished"


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
@pytest.mark.parametrize("sealed", [0, 1, 2, 3])
async def test_what_a_broker_recorded_and_did_not_come_to_seal_the_next_one_seals(tmp_path: Path, sealed: int) -> None:
    """However far it came: what has a line already gets no second one."""
    log, recorder = make(tmp_path)
    await recorder.write(allowed(7))
    lane = lane_of(recorder, [])
    ride(lane)
    ride(lane, land=False)
    journal = journal_path(tmp_path, log.stream)
    left = journal.read_bytes()
    before = recording_path(tmp_path, "grant1").read_bytes()
    recorder.seal()
    log.close()
    assert not any(journal.read_bytes()), "what is sealed, literals and all, stands there no more"
    # As a crash leaves it: the journal full, the recording perhaps written in part.
    journal.write_bytes(left)
    path = recording_path(tmp_path, "grant1")
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(before + b"".join(whole[1 : 1 + sealed]))
    times = [json.loads(line)["at"] for line in whole]

    log, recorder = make(tmp_path)
    story = recorder.resume("grant1")
    assert lines_of(tmp_path) == [(ALLOWED, "7"), (ALLOWED, Q[1]), (FINISHED, Q[1]), (ALLOWED, Q[2])]
    assert [json.loads(line)["at"] for line in path.read_bytes().splitlines()] == times
    assert sorted(story.open_statements) == [("s1", "7"), ("s1", Q[2])]
    recorder.journal()
    assert not left_behind(journal).lines
    log.close()


@needs_core
@pytest.mark.parametrize(("sealed", "fed"), [(0, 0), (2, 0), (3, 0), (3, 1), (3, 3)])
async def test_what_a_broker_sealed_in_part_is_in_the_feed_too_and_once(tmp_path: Path, sealed: int, fed: int) -> None:
    """Killed between the recording's lines and the feed's: what they speak of has gone to the upstream long ago."""
    home, killed = tmp_path / "home", tmp_path / "killed"
    log, recorder = make(home)
    await recorder.write(allowed(7))
    lane = lane_of(recorder, [])
    ride(lane)
    ride(lane, land=False)
    shutil.copytree(home, killed)
    assert verify(killed).unsealed == 3
    recorder.seal()
    log.close()
    for file, count in (("recordings/grant1.ndjson", sealed), ("events/broker.ndjson", fed)):
        whole = (home / file).read_bytes().splitlines(keepends=True)
        (killed / file).write_bytes(b"".join(whole[: 1 + count]))

    assert verify(killed).unsealed == 3 - sealed
    log, recorder = make(killed)
    await recorder.write(Entry("session.closed", "grant1", "s1", {}))
    log.close()
    made = [(ALLOWED, "7"), (ALLOWED, Q[1]), (FINISHED, Q[1]), (ALLOWED, Q[2])]
    assert lines_of(killed)[:-1] == made
    feed = [json.loads(line) for line in (killed / "events" / "broker.ndjson").read_bytes().splitlines()]
    assert [(one["type"], one["data"]["statement"]) for one in feed if "statement" in one["data"]] == made
    assert verify(killed).good


async def test_what_an_event_speaks_of_gets_no_second_one_however_much_is_written_behind_it(tmp_path: Path) -> None:
    leave(tmp_path, packed(left_line(1)) + bytes(8))
    for _ in range(2):
        log = EventLog(tmp_path, "broker", SystemClock(), segment_bytes=300)
        recorder = FileRecorder(tmp_path, log, SystemClock(), Metrics())
        recorder.resume("grant1")
        for number in range(5):
            await recorder.write(Entry("statement.denied", "grant1", "s1", {"statement": f"d{number}"}))
        log.close()
    feed = b"".join(path.read_bytes() for path in (tmp_path / "events").glob("broker*.ndjson"))
    assert feed.count(f'"statement":"{Q[1]}"'.encode()) == 1
    assert verify(tmp_path).good


@needs_core
async def test_what_no_grant_takes_up_from_the_journal_is_put_aside(tmp_path: Path) -> None:
    path = journal_path(tmp_path, "broker")
    path.parent.mkdir(parents=True)
    line = Line(ALLOWED, "2026-01-01T00:00:00.000000Z", "gone", "s1", Q[1], "", f'"statement":"{Q[1]}"', "{}")
    path.write_bytes(packed(line) + bytes(100))
    log, recorder = make(tmp_path)
    recorder.journal()
    assert [left_behind(one).lines for one in path.parent.glob("*.torn")] == [[line]]
    assert not left_behind(path).lines
    log.close()


def left_line(number: int, grant: str = "grant1", data: str = "") -> Line:
    """An invented record, as a killed broker leaves it."""
    behind = data or f'"statement":"{Q[number]}","text":"x"'
    return Line(ALLOWED, "2026-01-01T00:00:00.000000Z", grant, "s1", Q[number], "", behind, "{}")


def leave(home: Path, content: bytes) -> Path:
    path = journal_path(home, "broker")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


async def test_what_could_not_be_taken_up_from_the_journal_is_taken_up_when_there_is_room(tmp_path: Path) -> None:
    full = True
    leave(tmp_path, packed(left_line(1)) + packed(left_line(2)) + bytes(8))

    def write(fd: int, data: bytes | memoryview) -> int:
        if full and "recordings" in os.readlink(f"/proc/self/fd/{fd}") and Q[2].encode() in bytes(data):
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.write(fd, data)

    log = EventLog(tmp_path, "broker", SystemClock())
    recorder = FileRecorder(tmp_path, log, SystemClock(), Metrics(), Disk(write=write))
    with pytest.raises(RecordingFailed):
        recorder.resume("grant1")
    # Others go on meanwhile.
    recorder.resume("grant2")
    if compiled is not None:
        recorder.journal()
    full = False
    assert recorder.resume("grant1").statements == 2
    assert lines_of(tmp_path) == [(ALLOWED, Q[1]), (ALLOWED, Q[2])]
    log.close()
    assert verify(tmp_path).good


async def test_what_is_kept_aside_and_stands_in_the_journal_too_is_sealed_once(tmp_path: Path) -> None:
    """Killed before the journal was emptied."""
    leave(tmp_path, packed(left_line(1)) + packed(left_line(2)) + bytes(8))
    stranded_path(tmp_path, "broker").write_bytes(packed(left_line(1)))
    log, _ = make(tmp_path)
    log.close()
    assert lines_of(tmp_path) == [(ALLOWED, Q[1]), (ALLOWED, Q[2])]
    assert verify(tmp_path).good


@needs_core
async def test_what_is_left_in_the_journal_and_has_its_lines_is_not_put_aside(tmp_path: Path) -> None:
    """A broker that ended the grant without a journal of its own left it there."""
    path = leave(tmp_path, packed(left_line(1)) + bytes(8))
    log, recorder = make(tmp_path)
    await recorder.write(Entry("grant.closed", "grant1", None, {}))
    recorder.forget("grant1")
    log.close()
    log = EventLog(tmp_path, "broker", SystemClock())
    FileRecorder(tmp_path, log, SystemClock(), Metrics()).journal()
    assert not list(path.parent.glob("*.torn"))
    log.close()


@needs_core
@pytest.mark.parametrize(
    "spoilt",
    [
        b"\xff" * 100,
        packed(left_line(2))[:-20],
        packed(left_line(2)).replace(b"text", b"test"),
        packed(left_line(2), generation=7),
        bytes(3) + b"\1",
    ],
)
async def test_a_journal_that_a_crash_of_the_host_spoilt_is_put_aside_and_what_is_whole_is_sealed(
    tmp_path: Path, spoilt: bytes
) -> None:
    content = packed(left_line(1)) + spoilt
    path = leave(tmp_path, content)
    log, recorder = make(tmp_path)
    assert lines_of(tmp_path) == [(ALLOWED, Q[1])]
    recorder.journal()
    assert [one.read_bytes() for one in path.parent.glob("*.torn")] == [content]
    log.close()


@needs_core
async def test_no_byte_of_a_journal_changes_unseen(tmp_path: Path) -> None:
    log, recorder = make(tmp_path)
    for _ in range(2):
        ride(lane_of(recorder, []))
        recorder.seal()
    lane = lane_of(recorder, [])
    ride(lane)
    ride(lane, land=False)
    content = journal_path(tmp_path, "broker").read_bytes()[:4096]
    log.close()
    whole = left_in(content)
    assert ([line.kind for line in whole.lines], whole.torn) == ([ALLOWED, FINISHED, ALLOWED], False)
    dice = random.Random(1)
    for place in range(len(content.rstrip(b"\0")) + 16):
        changed = bytearray(content)
        changed[place] ^= dice.randrange(1, 256)
        found = left_in(bytes(changed))
        assert found.lines == whole.lines[: len(found.lines)]
        assert found.torn or found.lines == whole.lines, f"byte {place}"


@needs_core
@given(st.lists(st.integers(0, 5), min_size=8, max_size=8))
@settings(deadline=None)
def test_pages_of_several_moments_make_no_record_that_was_not_written(moments: list[int]) -> None:
    """A lost host has written each page of the journal as it was at some moment."""
    assert compiled is not None
    memory, shown = bytearray(4096), []
    journal = compiled.Journal(memory, lambda _: SimpleNamespace(), lambda _: None, lambda _: None)
    recorder: Any = SimpleNamespace(journal=lambda: journal)
    for count in (8, 4, 6):
        for _ in range(count):
            ride(lane_of(recorder, []), land=False)
        shown.append(bytes(memory))
        journal.flush()
        shown.append(bytes(memory))
    # As long as a record, so that what stands behind each could be one.
    size = len(packed(next(unpacked(shown[0]))))
    mixed = b"".join(shown[moment][size * page : size * (page + 1)] for page, moment in enumerate(moments))
    found = left_in(mixed).lines
    assert any(found == list(unpacked(one))[: len(found)] for one in shown)


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


@pytest.mark.parametrize("failing", ["", "events", "recordings"])
async def test_both_files_of_a_record_are_synced_at_once_and_it_is_safe_when_both_are(
    tmp_path: Path, failing: str
) -> None:
    both, over = threading.Barrier(2), threading.Event()

    def fsync(fd: int) -> None:
        # Passes only where two are in here.
        if not over.is_set():
            both.wait(30)
        if failing and f"/{failing}/" in os.readlink(f"/proc/self/fd/{fd}"):
            raise OSError(errno.EIO, "Input/output error")
        os.fsync(fd)

    log, recorder = make(tmp_path, Disk(fsync=fsync))
    pending = recorder.write(allowed(1))
    if failing:
        with pytest.raises(RecordingFailed, match="Input/output error"):
            await pending
        with pytest.raises(RecordingFailed):
            recorder.write(allowed(2))
    else:
        await pending
    over.set()
    log.close()
    # What may not be on disk is not signed.
    assert verify(tmp_path).checkpoints == (0 if failing else 1)


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
