"""The event log: what is written is whole, synced, chained, signed and found again."""

import asyncio
import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from broker.adapters.clock import SystemClock
from broker.adapters.disk import Disk
from broker.adapters.eventlog import EventLog, LogDamaged, cut_torn
from broker.adapters.verify import verify
from broker.errors import Misconfigured, RecordingFailed


class BadDisk:
    """A disk whose writes stop after some bytes, and whose syncs fail when told."""

    def __init__(self) -> None:
        self.room: int | None = None
        self.failing = False
        self.syncs = 0
        self.turns = threading.Event()
        self.turns.set()

    def write(self, fd: int, data: memoryview) -> int:
        if self.room is None:
            return os.write(fd, data)
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = os.write(fd, data[: self.room])
        self.room -= written
        return written

    def fsync(self, fd: int) -> None:
        self.syncs += 1
        self.turns.wait(10)
        if self.failing:
            raise OSError(errno.EIO, "Input/output error")
        os.fsync(fd)

    @property
    def disk(self) -> Disk:
        return Disk(self.write, self.fsync)


def make(home: Path, stream: str = "broker", **options: Any) -> EventLog:
    return EventLog(home, stream, SystemClock(), **options)


def lines(home: Path, stream: str = "broker") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (home / "events" / f"{stream}.ndjson").read_bytes().splitlines()]


async def test_written_event_is_in_the_file_at_once_and_synced_when_its_future_completes(tmp_path: Path) -> None:
    bad = BadDisk()
    log = make(tmp_path, disk=bad.disk)
    future = log.write("a.happened", "g1", "s1", {"x": 1})
    assert lines(tmp_path)[0]["type"] == "a.happened"
    await future
    assert bad.syncs >= 1
    assert log.synced_position == (tmp_path / "events" / "broker.ndjson").stat().st_size
    log.close()


async def test_events_of_one_moment_share_a_sync(tmp_path: Path) -> None:
    bad = BadDisk()
    log = make(tmp_path, disk=bad.disk)
    bad.turns.clear()
    written = [log.write("a.happened", None, None, {"n": n}) for n in range(500)]
    bad.turns.set()
    await asyncio.gather(*written)
    assert bad.syncs <= 3
    log.close()


async def test_lazy_events_of_one_group_share_their_future_and_others_have_their_own(tmp_path: Path) -> None:
    log = make(tmp_path)
    lazy = [log.write("a.happened", None, None, {}, lazy=True) for _ in range(3)]
    own = log.write("a.happened", None, None, {})
    assert lazy[0] is lazy[1] is lazy[2]
    assert own is not lazy[0]
    await asyncio.gather(*lazy, own)
    later = log.write("a.happened", None, None, {}, lazy=True)
    assert later is not lazy[0]
    await later
    log.close()


def test_append_without_a_loop_returns_when_synced(tmp_path: Path) -> None:
    log = make(tmp_path, "reaper")
    assert [log.append("a.happened", None, None, {}) for _ in range(3)] == [1, 2, 3]
    log.close()
    assert verify(tmp_path).good


async def test_chain_goes_on_over_restarts_and_segments(tmp_path: Path) -> None:
    for _ in range(4):
        log = make(tmp_path, segment_bytes=1000)
        await asyncio.gather(*(log.write("a.happened", None, None, {"n": n}) for n in range(10)))
        log.close()
    assert len(list((tmp_path / "events").glob("broker*.ndjson"))) > 5
    report = verify(tmp_path)
    assert report.good, report.findings
    assert (report.events, report.unsigned) == (40, 0)


async def test_torn_last_line_is_cut_into_a_side_file_and_an_event_says_so(tmp_path: Path) -> None:
    log = make(tmp_path)
    await log.write("a.happened", None, None, {})
    log.close()
    path = tmp_path / "events" / "broker.ndjson"
    with path.open("ab") as file:
        file.write(b'{"half":')
    make(tmp_path).close()
    assert [line["type"] for line in lines(tmp_path)] == ["a.happened", "log.torn"]
    assert [side.read_bytes() for side in path.parent.glob("*.torn")] == [b'{"half":']
    assert verify(tmp_path).good


async def test_zeros_at_the_end_after_a_power_cut_are_cut_off(tmp_path: Path) -> None:
    log = make(tmp_path)
    await log.write("a.happened", None, None, {})
    log.close()
    with (tmp_path / "events" / "broker.ndjson").open("ab") as file:
        file.write(b"\0" * 64 + b'"}\n')
    make(tmp_path).close()
    assert verify(tmp_path).good


@pytest.mark.parametrize("size", [1, 3, 7, 1024])
def test_what_is_torn_is_found_in_pieces_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr("broker.adapters.eventlog._CHUNK", size)
    path = tmp_path / "a"
    for content in (
        b"",
        b"\n",
        b"one\ntwo\n",
        b"one\ntw",
        b"o",
        b"one\n\0\0\0",
        b"\0",
        b"one\nt\0o\nthree\n",
        b"one\n\0\n",
    ):
        path.write_bytes(content)
        whole = content.partition(b"\0")[0].rpartition(b"\n")
        kept = whole[0] + whole[1]
        assert cut_torn(path) == len(content) - len(kept), content
        assert path.read_bytes() == kept
        torn = b"".join(side.read_bytes() for side in tmp_path.glob("a.*.torn"))
        assert torn == content[len(kept) :]
        for side in tmp_path.glob("a.*.torn"):
            side.unlink()


async def test_a_segment_is_on_disk_before_the_next_one_begins(tmp_path: Path) -> None:
    bad = BadDisk()
    log = make(tmp_path, disk=bad.disk, segment_bytes=100)
    log.write("a.happened", None, None, {}, lazy=True)
    bad.failing = True
    with pytest.raises(RecordingFailed, match="failed to sync"):
        log.write("b.happened", None, None, {}, lazy=True)
    assert [path.name for path in (tmp_path / "events").glob("broker.0*")] == []
    with pytest.raises(RecordingFailed, match="failed to sync"):
        log.write("c.happened", None, None, {})
    log.close()


async def test_log_cut_back_behind_its_checkpoint_does_not_start(tmp_path: Path) -> None:
    log = make(tmp_path)
    await asyncio.gather(*(log.write("a.happened", None, None, {}) for _ in range(3)))
    log.close()
    path = tmp_path / "events" / "broker.ndjson"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    with pytest.raises(LogDamaged, match="signed up to 3 and ends at 2"):
        make(tmp_path)
    path.unlink()
    with pytest.raises(LogDamaged, match="has no file"):
        make(tmp_path)


async def test_changed_log_does_not_start(tmp_path: Path) -> None:
    log = make(tmp_path)
    await log.write("a.happened", None, None, {"who": "alice"})
    log.close()
    path = tmp_path / "events" / "broker.ndjson"
    path.write_bytes(path.read_bytes().replace(b"alice", b"mallo"))
    with pytest.raises(LogDamaged):
        make(tmp_path)


async def test_full_disk_refuses_leaves_no_partial_line_and_recovers_without_a_gap(tmp_path: Path) -> None:
    bad = BadDisk()
    log = make(tmp_path, disk=bad.disk)
    await log.write("a.happened", None, None, {})
    bad.room = 40
    with pytest.raises(RecordingFailed, match="No space left"):
        log.write("b.happened", None, None, {})
    assert (tmp_path / "events" / "broker.ndjson").read_bytes().endswith(b"\n")
    bad.room = None
    await log.write("c.happened", None, None, {})
    log.close()
    assert [(line["seq"], line["type"]) for line in lines(tmp_path)] == [(1, "a.happened"), (2, "c.happened")]
    assert verify(tmp_path).good


async def test_failed_sync_is_final(tmp_path: Path) -> None:
    bad = BadDisk()
    log = make(tmp_path, disk=bad.disk)
    bad.failing = True
    with pytest.raises(RecordingFailed, match="failed to sync"):
        await log.write("a.happened", None, None, {})
    bad.failing = False
    with pytest.raises(RecordingFailed):
        log.write("b.happened", None, None, {})
    assert log.failure is not None
    log.close()


async def test_what_is_not_json_or_too_long_is_refused(tmp_path: Path) -> None:
    log = make(tmp_path)
    for data in ({"x": object()}, {"x": float("nan")}, {"x": "y" * (17 << 20)}):
        with pytest.raises(RecordingFailed):
            log.write("a.happened", None, None, data)
    await log.write("a.happened", None, None, {})
    log.close()
    with pytest.raises(RecordingFailed):
        log.write("a.happened", None, None, {})


async def test_hostile_text_stays_one_parseable_ascii_line(tmp_path: Path) -> None:
    text = 'a\r\n\x1b[2J"}\u2028\u202e%s\x00\ud800😀'
    log = make(tmp_path)
    await log.write("a.happened", None, None, {"text": text})
    log.close()
    raw = (tmp_path / "events" / "broker.ndjson").read_bytes()
    assert raw.isascii()
    assert raw.count(b"\n") == 1
    assert json.loads(raw)["data"]["text"] == text


async def test_one_writer_at_a_time(tmp_path: Path) -> None:
    log = make(tmp_path)
    with pytest.raises(Misconfigured, match="another broker runs on this state folder"):
        make(tmp_path)
    log.close()
    make(tmp_path).close()


async def test_checkpoints_come_by_time_and_by_number(tmp_path: Path) -> None:
    log = make(tmp_path, checkpoint_seconds=0.1)
    await log.write("a.happened", None, None, {})
    path = tmp_path / "events" / "broker.checkpoints.ndjson"

    async def checkpoints(count: int) -> None:
        async with asyncio.timeout(20):
            while not path.exists() or len(path.read_bytes().splitlines()) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    await checkpoints(1)
    await asyncio.gather(*(log.write("a.happened", None, None, {}) for _ in range(1500)))
    await checkpoints(2)
    log.close()
    assert verify(tmp_path).checkpoints == len(path.read_bytes().splitlines())
