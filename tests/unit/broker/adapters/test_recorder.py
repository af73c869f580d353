"""The recorder: feed and recording agree, whatever fails between them, and many recordings need few files."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from broker.adapters import recorder as module
from broker.adapters.disk import Disk
from broker.adapters.stories import recording_path
from broker.adapters.verify import verify
from broker.errors import RecordingFailed
from broker.sessions.model import Entry
from tests.unit.broker.adapters.recording import (
    allowed,
    make,
)

if TYPE_CHECKING:
    pass


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


@pytest.mark.parametrize("forgotten", [True, False])
async def test_closed_recording_stays_closed_and_late_facts_go_to_the_feed_only(
    tmp_path: Path, forgotten: bool
) -> None:
    log, recorder = make(tmp_path)
    await recorder.write(Entry("grant.closed", "grant1", None, {}))
    if forgotten:
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


@pytest.mark.parametrize("failing", ["", "events", "recordings"])
async def test_a_record_is_safe_when_both_of_its_files_are_on_disk(tmp_path: Path, failing: str) -> None:
    synced: list[str] = []

    def fsync(fd: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{fd}")).parent.name)
        if synced[-1] == failing:
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
        assert set(synced) == {"events", "recordings"}
    log.close()
    # What may not be on disk is not signed.
    assert verify(tmp_path).checkpoints == (0 if failing else 1)


async def test_what_waits_for_its_review_is_no_denial_of_the_summary(tmp_path: Path) -> None:
    log, recorder = make(tmp_path)
    await recorder.write(Entry("statement.denied", "grant1", "s1", {"statement": "q1"}))
    await recorder.write(Entry("statement.denied", "grant1", "s1", {"statement": "q2", "hold": "h1"}))
    totals = recorder.resume("grant1").totals()
    assert (totals["statements"], totals["denied"]) == (2, 1)
    await recorder.write(Entry("hold.refused", "grant1", "s1", {"hold": "h1"}))
    assert recorder.resume("grant1").totals()["denied"] == 2
    log.close()
