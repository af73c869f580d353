"""A slice of the fault matrix: six seeds, what the matrix covers, and that a seed says everything."""

from __future__ import annotations

import asyncio
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.chaos.faults import CELLS, KINDS, STEPS, plan
from tests.chaos.rig import clock_shim
from tests.chaos.runner import Runner
from tests.support.require import missing

SLICE = 6

pytestmark = pytest.mark.e2e


@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.platform != "linux", reason="faults are set by Linux's own means: prlimit, /proc, LD_PRELOAD")
def test_whatever_goes_wrong_everything_is_decided_once_recorded_first_and_ended_in_time() -> None:
    lines: list[str] = []
    first = int(os.environ.get("CHAOS_SEED", "1001"))
    report = asyncio.run(Runner(lines.append, short=True).run(first, SLICE))
    assert len(report.results) == SLICE
    assert not report.failed, "\n".join(lines)
    assert not report.rig_problems, "\n".join(lines)


def test_consecutive_seeds_cover_the_matrix_and_a_seed_gives_the_same_plan() -> None:
    plans = [plan(seed) for seed in range(CELLS)]
    cells = {(fault.step, fault.kind, fault.target) for made in plans for fault in made.faults}
    wanted = {(step, *kind) for step in STEPS for kind in KINDS if kind[0] != "none"}
    assert wanted <= cells
    assert plans == [plan(seed) for seed in range(CELLS)]


def test_broker_and_reaper_are_never_both_gone() -> None:
    for seed in range(2000):
        assert sum(fault.target in ("broker", "reaper") for fault in plan(seed).faults) <= 1


def test_step_of_the_clock_moves_the_wall_clock_of_a_process_and_no_other_clock(tmp_path: Path) -> None:
    if (shim := clock_shim()) is None:
        missing("no C compiler", "apt-get install gcc libc6-dev")
    shift = tmp_path / "shift"
    shift.write_bytes(struct.pack("q", -3600 * 1_000_000_000))
    clocks = "time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME)"
    script = f"import time; print({clocks}); time.sleep(0.1)"
    environment = {**os.environ, "LD_PRELOAD": str(shim), "CHAOS_WALL_SHIFT": str(shift)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    wall, monotonic, boot = map(float, done.stdout.split())
    assert abs(time.time() - 3600 - wall) < 60
    assert abs(time.monotonic() - monotonic) < 60
    assert abs(time.clock_gettime(time.CLOCK_BOOTTIME) - boot) < 60
