"""A broker's record killed at any moment: whatever took effect was written first, and the log goes on."""

import asyncio
import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from broker.adapters.journal import journal_path, left_in
from broker.adapters.verify import verify
from tests.support.require import needs_core
from tests.unit.broker.adapters.recording import make

OPENED = """
import asyncio, sys
from pathlib import Path
from broker.adapters.clock import SystemClock
from broker.adapters.eventlog import EventLog
from broker.adapters.metrics import Metrics
from broker.adapters.recorder import FileRecorder
from broker.sessions.model import Entry

def opened():
    home = Path(sys.argv[1])
    log = EventLog(home, "broker", SystemClock(), segment_bytes=20000, checkpoint_seconds=0.02)
    recorder = FileRecorder(home, log, SystemClock(), Metrics())
    for grant in range(3):
        recorder.resume(f"grant{grant}")
    return recorder
"""

WRITER = (
    OPENED
    + """
async def main():
    recorder = opened()
    number = 0
    while True:
        number += 1
        data, detail = {"statement": str(number)}, {"sql": "x" * (number % 700)}
        future = recorder.write(Entry("statement.allowed", f"grant{number % 3}", "s", data, detail))
        # The effect: what the other side has seen must be in the log, whenever this process dies.
        sys.stdout.write(f"{number} ")
        sys.stdout.flush()
        if number % 5 == 0:
            await future

asyncio.run(main())
"""
)

# The same by the compiled core's lanes, whose records stand in the journal for a moment.
LANES = (
    OPENED
    + """
from tests.unit.broker.adapters.recording import lane_of, ride

class Effects(list):
    def __init__(self, grant):
        self.grant, self.number = grant, 0

    def append(self, text):
        if text.startswith("select"):
            self.number += 1
            sys.stdout.write(f"grant{self.grant}:q{self.number:016x} ")
            sys.stdout.flush()

async def main():
    recorder = opened()
    lanes = [lane_of(recorder, Effects(grant), grant=f"grant{grant}") for grant in range(3)]
    number = 0
    while True:
        number += 1
        ride(lanes[number % 3])
        if number % 40 == 0:
            await asyncio.sleep(0.003)
        if number % 77 == 0:
            recorder.write(Entry("statement.denied", "grant1", "s1", {"statement": f"d{number}"}))

asyncio.run(main())
"""
)


@needs_core
@pytest.mark.parametrize("seed", range(0, 6, 2))
def test_killed_with_records_in_the_journal_the_next_one_seals_them(tmp_path: Path, seed: int) -> None:
    process = subprocess.Popen([sys.executable, "-c", LANES, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read(1000 + seed * 331)
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read()
    process.wait()
    content = journal_path(tmp_path, "broker").read_bytes().rstrip(b"\0") + bytes(16)
    whole, dice = left_in(content), random.Random(seed)
    assert not whole.torn
    for _ in range(20):
        changed = bytearray(content)
        changed[dice.randrange(len(content) - 8)] ^= dice.randrange(1, 256)
        found = left_in(bytes(changed))
        assert found.lines == whole.lines[: len(found.lines)]
        assert found.torn or found.lines == whole.lines

    async def again() -> None:
        log, recorder = make(tmp_path)
        for grant in ("grant0", "grant1", "grant2"):
            recorder.resume(grant)
        recorder.journal()
        log.close()

    asyncio.run(again())
    assert not list((tmp_path / "recordings").glob("*.torn"))
    assert verify(tmp_path).good
    effects = rest.decode().rpartition(" ")[0].split()[1:]
    for folder in ("recordings", "events"):
        recorded = [
            f"{line['grant']}:{line['data']['statement']}"
            for path in (tmp_path / folder).glob("*.ndjson")
            for line in map(json.loads, path.read_bytes().splitlines())
            if line.get("type") == "statement.allowed"
        ]
        assert set(effects) <= set(recorded)
        assert len(recorded) == len(set(recorded))


@pytest.mark.parametrize("seed", range(0, 12, 2))
def test_killed_at_any_moment_every_effect_has_its_record_and_the_log_goes_on(tmp_path: Path, seed: int) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    rest = b""
    for _ in range(2):
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.read(1 + seed * 37)
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
        process.wait()
    effects = [int(number) for number in rest.decode().rpartition(" ")[0].split()]
    report = verify(tmp_path)
    # The very last line may be half there; the next start cuts it off, or speaks of it.
    assert all("no event speaks" in one.problem or "no end" in one.problem for one in report.findings), report.findings

    async def again() -> None:
        log, recorder = make(tmp_path)
        for grant in ("grant0", "grant1", "grant2"):
            recorder.resume(grant)
        await log.write("end", None, None, {})
        log.close()

    asyncio.run(again())
    assert verify(tmp_path).good
    recorded = {
        json.loads(line)["data"].get("statement")
        for path in (tmp_path / "events").glob("broker*.ndjson")
        if "checkpoints" not in path.name
        for line in path.read_bytes().splitlines()
    }
    assert {str(number) for number in effects} <= recorded
