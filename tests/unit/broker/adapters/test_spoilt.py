"""Files that others change while they are written to, or that cannot be cut back: nothing is recorded into nowhere."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from broker.adapters.clock import SystemClock
from broker.adapters.disk import AppendFile, Disk
from broker.adapters.eventlog import EventLog
from broker.adapters.stories import recording_path
from broker.adapters.verify import verify
from broker.errors import RecordingFailed
from tests.support.require import needs_core
from tests.unit.broker.adapters.recording import allowed, lane_of, make, ride


def replace(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


def lengthen(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


MEDDLING: dict[str, tuple[Callable[[Path], object], str]] = {
    "removed": (Path.unlink, "is not there any more"),
    "moved": (lambda path: path.rename(path.with_suffix(".old")), "is not there any more"),
    "replaced": (replace, "is another file"),
    "emptied": (lambda path: os.truncate(path, 0), "by somebody else"),
    "lengthened": (lengthen, "by somebody else"),
}
meddled = pytest.mark.parametrize(("meddle", "said"), MEDDLING.values(), ids=MEDDLING)


@meddled
def test_nothing_is_appended_to_a_file_that_somebody_else_had_a_hand_in(
    tmp_path: Path, meddle: Callable[[Path], object], said: str
) -> None:
    file = AppendFile(tmp_path / "a", Disk())
    for _ in range(2):
        file.append(b"one\n")
    meddle(file.path)
    left = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for _ in range(2):
        with pytest.raises(RecordingFailed, match=said):
            file.append(b"two\n")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == left


@needs_core
@meddled
async def test_the_feed_that_somebody_meddles_with_takes_nothing_more_and_says_why(
    tmp_path: Path, meddle: Callable[[Path], object], said: str
) -> None:
    log, recorder = make(tmp_path)
    sent: list[str] = []
    lane = lane_of(recorder, sent)
    await recorder.write(allowed(1))
    assert log.failure is None
    meddle(tmp_path / "events" / "broker.ndjson")
    ride(lane)
    with pytest.raises(RecordingFailed, match=said):
        recorder.write(allowed(2))
    assert not lane.depart(b"")
    assert said in sent[-1]
    assert log.failure is not None
    assert said in log.failure
    log.close()


@needs_core
@meddled
@pytest.mark.parametrize("lanes", [False, True])
async def test_a_recording_that_somebody_meddles_with_ends_its_sessions_and_is_read_anew(
    tmp_path: Path, meddle: Callable[[Path], object], said: str, lanes: bool
) -> None:
    log, recorder = make(tmp_path)
    recorder.resume("grant2")
    sent: list[str] = []
    for grant in ("grant1", "grant2"):
        await recorder.write(allowed(1, grant))
    meddle(recording_path(tmp_path, "grant1"))
    if lanes:
        ride(lane_of(recorder, sent))
        recorder.seal()
        assert said in sent[-1]
    else:
        with pytest.raises(RecordingFailed, match=said):
            recorder.write(allowed(2))
    await recorder.write(allowed(2, "grant2"))
    await recorder.write(allowed(3))
    log.close()
    last = json.loads(recording_path(tmp_path, "grant1").read_bytes().splitlines()[-1])
    assert last["data"]["statement"] == "3"
    # What is lost is named, and by nobody else's recording.
    findings = [one for one in verify(tmp_path).findings if "grant2" in str(one)]
    assert findings == []
    assert verify(tmp_path).good == (meddle in (replace, lengthen))


async def test_a_log_whose_checkpoints_somebody_removes_takes_nothing_more(tmp_path: Path) -> None:
    log = EventLog(tmp_path, "broker", SystemClock(), checkpoint_seconds=0.02)
    await log.write("a.happened", None, None, {})
    (tmp_path / "events" / "broker.checkpoints.ndjson").unlink()
    async with asyncio.timeout(10):
        while log.failure is None:
            with suppress(RecordingFailed):
                await log.write("a.happened", None, None, {})
    assert "is not there any more" in log.failure
    with pytest.raises(RecordingFailed):
        log.write("a.happened", None, None, {})
    log.close()


@pytest.mark.parametrize("room", [0, 50])
@pytest.mark.parametrize("failing", ["events", "recordings"])
async def test_what_cannot_be_cut_back_is_in_nobodys_way_once_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, room: int
) -> None:
    left: int | None = None

    def write(fd: int, data: bytes | memoryview) -> int:
        nonlocal left
        if left is not None and f"{failing}/" in os.readlink(f"/proc/self/fd/{fd}"):
            if left == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            data, left = data[:left], 0
        return os.write(fd, data)

    def truncate(_fd: int, _size: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    log, recorder = make(tmp_path, Disk(write=write))
    await recorder.write(allowed(1))
    left = room
    with monkeypatch.context() as patched:
        patched.setattr("broker.adapters.disk.os.ftruncate", truncate)
        for number in (2, 3):
            with pytest.raises(RecordingFailed):
                recorder.write(allowed(number))
    left = None
    if failing == "recordings":
        await recorder.write(allowed(4))
    else:
        # Half a line in the feed is cut by the next start alone.
        with pytest.raises(RecordingFailed, match="cut back"):
            recorder.write(allowed(4))
        assert log.failure is not None
    log.close()
    log, recorder = make(tmp_path)
    await recorder.write(allowed(5))
    log.close()
    assert verify(tmp_path).good
