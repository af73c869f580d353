"""A broker's record killed at any moment: whatever took effect was written first, and the log goes on."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from broker.adapters.verify import verify
from tests.unit.broker.adapters.test_recorder import make

WRITER = """
import asyncio, sys
from pathlib import Path
from broker.adapters.clock import SystemClock
from broker.adapters.eventlog import EventLog
from broker.adapters.metrics import Metrics
from broker.adapters.recorder import FileRecorder
from broker.sessions.model import Entry

async def main():
    home = Path(sys.argv[1])
    log = EventLog(home, "broker", SystemClock(), segment_bytes=20000, checkpoint_seconds=0.02)
    recorder = FileRecorder(home, log, SystemClock(), Metrics())
    for grant in range(3):
        recorder.resume(f"grant{grant}")
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


@pytest.mark.parametrize("seed", range(12))
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
