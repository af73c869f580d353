"""What a broker that was killed, or lost with its host, has left in its journal."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.adapters.clock import SystemClock
from broker.adapters.disk import Disk
from broker.adapters.eventlog import EventLog
from broker.adapters.journal import (
    Line,
    journal_path,
    left_behind,
    left_in,
    packed,
    stranded_path,
    unpacked,
)
from broker.adapters.metrics import Metrics
from broker.adapters.recorder import FileRecorder
from broker.adapters.stories import recording_path
from broker.adapters.verify import verify
from broker.core import compiled
from broker.errors import RecordingFailed
from broker.sessions.model import Entry
from tests.support.require import needs_core
from tests.unit.broker.adapters.recording import (
    ALLOWED,
    FINISHED,
    Q,
    allowed,
    lane_of,
    leave,
    left_line,
    lines_of,
    make,
    ride,
)


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
