"""Verification: whatever is done to the files of a broker's record is found and named."""

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.adapters.clock import SystemClock
from broker.adapters.eventlog import EventLog
from broker.adapters.metrics import Metrics
from broker.adapters.recorder import FileRecorder
from broker.adapters.verify import Report, verify
from broker.sessions.eventchain import EVENT, canonical
from broker.sessions.model import Entry
from tests.support.require import require_program


async def write_some(home: Path, times: int = 25, segment: int = 4000) -> None:
    clock = SystemClock()
    log = EventLog(home, "broker", clock, segment_bytes=segment)
    recorder = FileRecorder(home, log, clock, Metrics())
    for grant in ("gr00", "gr10"):
        recorder.resume(grant)
    for number in range(times):
        await recorder.write(
            Entry("statement.allowed", f"gr{number % 2}0", "s1", {"statement": str(number)}, {"sql": "select 'secret'"})
        )
    await log.write("policy.loaded", None, None, {"hash": "x"})
    log.close()
    reaper = EventLog(home, "reaper", clock)
    for _ in range(3):
        await asyncio.to_thread(reaper.append, "session.killed", "gr00", "s1", {})
    reaper.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("written")
    asyncio.run(write_some(home))
    return home


@pytest.fixture
def home(written: Path, tmp_path: Path) -> Path:
    shutil.copytree(written, tmp_path / "home")
    return tmp_path / "home"


def test_untouched_record_is_good(home: Path) -> None:
    report = verify(home)
    assert report.good, [str(finding) for finding in report.findings]
    assert report.events == 29
    assert report.records == 25
    assert report.unsigned == 0
    assert report.heads["broker"].seq == 26


def test_changed_public_key_is_found(home: Path) -> None:
    content = (home / "audit.pub").read_bytes()
    for index in range(len(content)):
        (home / "audit.pub").write_bytes(content[:index] + bytes([content[index] ^ 1]) + content[index + 1 :])
        assert not verify(home).good, index


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


CHANGES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "deleted": lambda lines: lines[:2] + lines[3:],
    "doubled": lambda lines: [*lines[:2], lines[1], *lines[2:]],
    "swapped": lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
    "cut back": lambda lines: lines[:-1],
    "begun later": lambda lines: lines[1:],
    "emptied": lambda _lines: [],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("file", ["events/broker.ndjson", "recordings/gr00.ndjson", "events/reaper.ndjson"])
def test_moved_lost_and_repeated_lines_are_found(home: Path, file: str, change: str) -> None:
    path = home / file
    path.write_bytes(b"".join(CHANGES[change](lines_of(path))))
    assert not verify(home).good


@pytest.mark.parametrize("file", ["events/broker.ndjson", "recordings/gr10.ndjson", "events/reaper.ndjson"])
def test_lost_file_is_found(home: Path, file: str) -> None:
    (home / file).unlink()
    assert not verify(home).good


def test_lost_checkpoints_are_found(home: Path) -> None:
    (home / "events" / "broker.checkpoints.ndjson").unlink()
    for path in (home / "events").glob("*.ndjson"):
        os.utime(path, (1, 1))
    assert any("is signed" in finding.problem for finding in verify(home).findings)


def test_lost_segment_is_found(home: Path) -> None:
    second = sorted((home / "events").glob("broker.0*.ndjson"))[0]
    second.unlink()
    assert any("begins at" in finding.problem for finding in verify(home).findings)


def test_record_signed_by_another_key_is_found(home: Path, tmp_path: Path) -> None:
    asyncio.run(write_some(tmp_path / "other", times=3))
    findings = verify(home, tmp_path / "other" / "audit.pub").findings
    assert any("signature" in finding.problem for finding in findings)
    shutil.copy(tmp_path / "other" / "audit.pub", home / "audit.pub")
    assert not verify(home).good


def test_recomputed_chain_is_found_by_the_checkpoint(home: Path, tmp_path: Path) -> None:
    forged = tmp_path / "forged"
    asyncio.run(write_some(forged))
    shutil.copytree(forged / "events", home / "events", dirs_exist_ok=True, ignore=lambda *_: ["broker.lock"])
    findings = verify(home).findings
    assert any("signature" in finding.problem for finding in findings)


def test_log_that_was_cut_back_with_its_checkpoints_is_found_by_a_copy_of_them_kept_elsewhere(
    home: Path, tmp_path: Path
) -> None:
    earlier, kept = tmp_path / "earlier", tmp_path / "kept"
    asyncio.run(write_some(earlier, times=3))
    later = shutil.copytree(earlier, tmp_path / "later")
    asyncio.run(write_some(later, times=4))
    shutil.copytree(later / "events", kept)
    assert verify(later, kept=kept).good
    assert verify(earlier).good
    cut = [str(one) for one in verify(earlier, kept=kept).findings]
    assert cut == [
        "events/broker.ndjson: ends at 4, but 11 was signed",
        "events/reaper.ndjson: ends at 3, but 6 was signed",
    ]
    (kept / "reaper.checkpoints.ndjson").rename(tmp_path / "copy")
    assert [one.file for one in verify(earlier, kept=tmp_path / "copy").findings] == ["events/reaper.ndjson"]
    for path in (earlier / "events").glob("reaper.*"):
        path.unlink()
    assert verify(earlier).good
    assert [one.file for one in verify(earlier, kept=tmp_path / "copy").findings] == ["events/reaper.ndjson"]
    assert only(verify(home, kept=tmp_path / "nowhere"))[0]


def test_copies_of_checkpoints_are_checked_like_the_logs_own(home: Path, tmp_path: Path) -> None:
    forged = tmp_path / "forged"
    asyncio.run(write_some(forged))
    copy = forged / "events" / "broker.checkpoints.ndjson"
    found = {one.problem for one in verify(home, kept=copy).findings if one.file == str(copy)}
    assert found == {"the checkpoint's signature does not fit"}


def sealed(home: Path, **change: object) -> Path:
    """Put another event behind the last one, with a hash that fits."""
    path = sorted((home / "events").glob("broker.0*.ndjson"))[-1]
    last = json.loads(lines_of(path)[-1])
    body = canonical({**last, "prev": last.pop("hash"), "seq": last["seq"] + 1, **change})
    digest = hashlib.sha256(EVENT + body).hexdigest().encode()
    with path.open("ab") as file:
        file.write(body[:-1] + b',"hash":"' + digest + b'"}\n')
    return path


@pytest.mark.parametrize(
    "change",
    [
        *({"seq": one} for one in ("x", None, [1], True, 1e300)),
        {"stream": ["broker"]},
        *({"grant": "gr00", "data": {"recorded": f"{one}:x"}} for one in ("9" * 5000, "\u0663", "\u00b2")),
        {"grant": ["x"], "data": {"recorded": "1:" + "0" * 64}},
    ],
    ids=str,
)
def test_event_that_nobody_writes_so_is_named_whatever_it_says(home: Path, change: dict[str, object]) -> None:
    number = len(lines_of(sealed(home, **change)))
    assert verify(home).findings[0].line in (number, None)


@pytest.mark.parametrize("what", ["folder", "gone", "pipe", "device"])
@pytest.mark.parametrize("place", ["events/broker.000000000999999.ndjson", "recordings/gr99.ndjson"])
def test_what_is_no_file_is_named_and_the_rest_is_checked(home: Path, place: str, what: str) -> None:
    path = home / place
    match what:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case _:
            path.symlink_to("/dev/zero" if what == "device" else "nowhere")
    report = verify(home)
    assert (place, "this is no file") in [(one.file, one.problem) for one in report.findings]
    assert (report.events, report.records) == (29, 25)


def test_unsigned_stream_of_a_time_to_come_is_no_new_one(home: Path) -> None:
    (home / "events" / "broker.checkpoints.ndjson").unlink()
    for path in (home / "events").glob("*.ndjson"):
        os.utime(path, (time.time() + 10**8,) * 2)
    assert any("is signed" in finding.problem for finding in verify(home).findings)


def only(report: Report) -> tuple[bool, str]:
    (finding,) = report.findings
    return finding.missing, str(finding)


def test_state_folder_without_a_log_is_said_to_be_missing_and_not_damaged(tmp_path: Path) -> None:
    assert only(verify(tmp_path)) == (
        True,
        f"{tmp_path}/events: there is no event log here; --state names a state folder",
    )
    nowhere = tmp_path / "nowhere"
    assert only(verify(nowhere)) == (True, f"{nowhere}: there is no such folder; --state names a state folder")


def test_log_without_any_event_is_not_whole(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    (tmp_path / "audit.pub").write_bytes(b"x")
    found = [str(finding) for finding in verify(tmp_path).findings if finding.missing]
    assert found == [f"{tmp_path}/events: the event log is empty: nothing was ever recorded here, or it is gone"]


def test_public_key_that_is_not_there_is_said_to_be_missing(home: Path, tmp_path: Path) -> None:
    (home / "audit.pub").rename(tmp_path / "kept.pub")
    assert verify(home, tmp_path / "kept.pub").good
    gone = "the public key is not there, so no signature was checked; --key names a copy of it"
    assert only(verify(home)) == (True, f"audit.pub: {gone}")
    assert only(verify(home, tmp_path / "x.pub")) == (True, f"{tmp_path}/x.pub: {gone}")
    assert only(verify(home, tmp_path)) == (
        True,
        f"{tmp_path}: `{tmp_path}` cannot be read: is a directory, {gone.partition(', ')[2]}",
    )


@pytest.mark.parametrize(
    "place", ["", "events", "events/broker.ndjson", "recordings", "recordings/gr00.ndjson", "audit.pub"]
)
def test_what_this_account_may_not_read_is_neither_damaged_nor_gone(home: Path, place: str) -> None:
    (home / place).chmod(0)
    script = "import sys; from pathlib import Path; from broker.adapters.verify import verify\n"
    script += "print(*[one.missing for one in verify(Path(sys.argv[1])).findings])"
    # As somebody who is not allowed everything, as root is.
    run = [sys.executable, "-c", script, str(home)]
    if os.geteuid() == 0:
        setpriv = require_program("setpriv", "apt-get install util-linux")
        none = "-dac_override,-dac_read_search"
        run = [setpriv, "--inh-caps", none, "--bounding-set", none, *run]
    done = subprocess.run(run, capture_output=True, text=True, timeout=30, check=False)
    (home / place).chmod(0o700)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_public_key_of_the_log_that_is_no_key_is_damage(home: Path) -> None:
    (home / "audit.pub").write_text("no key")
    missing, said = only(verify(home))
    assert not missing
    assert said.startswith(f"audit.pub: `{home}/audit.pub` is not a public key in PEM")


async def test_verification_is_fast(tmp_path: Path) -> None:
    clock = SystemClock()
    log = EventLog(tmp_path, "broker", clock)
    data = {"statement": "st1", "text": "select * from orders where id = $1", "rules": ["reads"], "masked": []}
    for _ in range(20_000):
        log.write("statement.allowed", "g1", "s1", data)
    await log.write("end", None, None, {})
    log.close()
    started = time.process_time()
    assert verify(tmp_path).good
    assert 20_000 / (time.process_time() - started) > 30_000
