"""The recorder: feed and recording agree, whatever fails between them, and many recordings need few files."""

from __future__ import annotations

import errno
import json
import os
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from broker.adapters import recorder as module
from broker.adapters.clock import SystemClock
from broker.adapters.disk import Disk
from broker.adapters.eventlog import EventLog
from broker.adapters.metrics import Metrics
from broker.adapters.recorder import FileRecorder, recording_path
from broker.adapters.verify import verify
from broker.core import compiled, new_moves
from broker.errors import RecordingFailed
from broker.sessions.eventchain import timestamp
from broker.sessions.model import Entry
from tests.support.require import needs_core

if TYPE_CHECKING:
    from broker.core.lane import Lane, Line, Pen, Press


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


def line(number: int, kind: str = "statement.allowed", said: dict[str, object] | None = None) -> Line:
    assert compiled is not None
    at = timestamp(SystemClock().now()).encode()
    behind = f'"statement":"{number}","text":"select ?"'.encode()
    before = json.dumps(said)[1:-1].encode() + b"," if said else b""
    return compiled.Line(kind, "s1", str(number), said, at, before, behind, b'{"sql":"select 1"}')


def pen_of(recorder: FileRecorder) -> Pen:
    assert compiled is not None
    pen: Pen = compiled.Pen(recorder, recorder._log, recorder._metrics)
    return pen


def departing(press: Press, sent: list[str]) -> Lane:
    """A lane with `select 1` on its way."""
    assert compiled is not None
    ticket = SimpleNamespace(said=None, before=b"", between=b'"statement":', behind=b"", texts=b"{}", send=b"the query")
    quiet = ("I", 0, frozenset(), {}, {})
    booking: Any = SimpleNamespace(
        quiet=lambda: quiet, ticket=lambda *_: ticket, tripwire=frozenset(), alike=lambda *_: None, watch=lambda _: None
    )
    policies: Any = SimpleNamespace(hash="policy")
    end: Any = SimpleNamespace(is_closing=lambda: False, write=lambda data: sent.append(data.decode()))
    lane: Lane = compiled.Lane(
        booking,
        print,
        press,
        "grant1",
        "s1",
        lambda: "q1",
        SystemClock(),
        None,
        lambda: (1, 9e9),
        policies,
        (new_moves(), new_moves()),
        end,
        end,
        9e9,
    )
    assert lane.depart(b"Q\0\0\0\x0dselect 1\0")
    return lane


@needs_core
async def test_lines_of_the_compiled_core_go_into_the_same_chains_and_counts(tmp_path: Path) -> None:
    log, recorder = make(tmp_path)
    pen = pen_of(recorder)
    await recorder.write(allowed(1))
    pending = pen("grant1", [line(2), line(2, "statement.finished"), line(3, said={"masked": ["public.people.ssn"]})])
    assert pending is pen("grant1", [line(4)])
    await recorder.write(allowed(5))
    await pending
    story = recorder.resume("grant1")
    assert (story.statements, story.masked) == (5, {"public.people.ssn"})
    assert sorted(story.open_statements) == [("s1", one) for one in "1345"]
    assert b'airlock_events_total{type="statement.allowed"} 5.0' in recorder._metrics.render()
    log.close()
    assert verify(tmp_path).good
    read = FileRecorder(tmp_path, EventLog(tmp_path, "other", SystemClock()), SystemClock(), Metrics())
    assert read.load("grant1").story == story


@needs_core
@pytest.mark.parametrize("failing", ["events", "recordings"])
async def test_lines_of_the_compiled_core_are_there_all_or_none(tmp_path: Path, failing: str) -> None:
    full = False

    def write(fd: int, data: bytes | memoryview) -> int:
        if full and failing in os.readlink(f"/proc/self/fd/{fd}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.write(fd, data)

    log, recorder = make(tmp_path, Disk(write=write))
    pen = pen_of(recorder)
    await pen("grant1", [line(1)])
    full = True
    with pytest.raises(RecordingFailed):
        pen("grant1", [line(2)])
    with pytest.raises(RecordingFailed):
        pen("no-such-grant", [line(2)])
    full = False
    await recorder.write(allowed(3))
    assert recorder._metrics.failures._value.get() == 2
    log.close()
    lines = [json.loads(line) for line in recording_path(tmp_path, "grant1").read_bytes().splitlines()]
    assert [(line["seq"], line["data"]["statement"]) for line in lines] == [(1, "1"), (2, "3")]
    assert verify(tmp_path).good


@needs_core
async def test_what_departs_in_one_turn_is_written_before_what_is_written_otherwise(tmp_path: Path) -> None:
    log, recorder = make(tmp_path)
    sent: list[str] = []
    press = recorder.press()
    assert recorder.press() is press
    lane = departing(press, sent)
    recorder.write(allowed(2))
    assert sent == ["the query"]
    assert lane.armed
    log.close()
    lines = [json.loads(line) for line in recording_path(tmp_path, "grant1").read_bytes().splitlines()]
    assert [line["data"]["statement"] for line in lines] == ["q1", "2"]


@needs_core
async def test_what_was_written_at_once_takes_no_room_afterwards_however_much_it_was(tmp_path: Path) -> None:
    assert compiled is not None
    log, recorder = make(tmp_path)
    pen = pen_of(recorder)
    small = line(1)
    detail = b'{"sql":"' + b"x" * 8_000_000 + b'"}'
    large = compiled.Line(small.kind, small.session, "2", None, small.at, small.before, b'"statement":"2"', detail)
    await pen("grant1", [small])
    tracemalloc.start()
    try:
        await pen("grant1", [large])
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()
    log.close()
    assert verify(tmp_path).good
