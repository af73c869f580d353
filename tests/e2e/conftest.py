"""The whole demo, started once as a person starts it, for tests that talk to it from outside."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.places import in_memory

REPOSITORY = Path(__file__).resolve().parents[2]
_PATIENCE = 90.0


@dataclass(frozen=True, slots=True)
class RunningDemo:
    """A demo in processes of its own; `summary` reads the ready file anew, since a restart changes the pids in it."""

    state: Path
    ready_file: Path
    process: subprocess.Popen[bytes]

    @property
    def summary(self) -> dict[str, Any]:
        """What the ready file says now."""
        read: dict[str, Any] = json.loads(self.ready_file.read_text())
        return read

    def stop(self) -> int:
        """Ends it as Ctrl-C in a service manager would; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def start_demo(folder: Path, policies: Path | None = None) -> RunningDemo:
    """Starts the demo on `folder/state`, also a second time, and waits until everything answers."""
    environment = {**os.environ, **({"AIRLOCK_POLICIES": str(policies)} if policies else {})}
    state, ready_file, output = folder / "state", folder / "ready.json", folder / "output"
    ready_file.unlink(missing_ok=True)
    with output.open("ab") as file:
        process = subprocess.Popen(
            [
                *(sys.executable, "airlock.py", "demo", "--headless"),
                *("--state", str(state), "--ready", str(ready_file)),
            ],
            cwd=REPOSITORY,
            env=environment,
            stdout=file,
            stderr=file,
        )
    demo = RunningDemo(state, ready_file, process)
    deadline = time.monotonic() + _PATIENCE
    while not ready_file.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            demo.stop()
            pytest.fail(f"the demo did not start:\n{output.read_text(errors='replace')}")
        time.sleep(0.05)
    return demo


@pytest.fixture(scope="session")
def demo_folder() -> Iterator[Path]:
    """A folder that the database server's user can pass through, which pytest's own is not."""
    folder = Path(tempfile.mkdtemp(prefix="airlock-test-demo-", dir=in_memory()))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def running_demo(demo_folder: Path) -> Iterator[RunningDemo]:
    """The demo, one for the whole run."""
    running = start_demo(demo_folder)
    yield running
    assert running.stop() == 0, (demo_folder / "output").read_text(errors="replace")


@pytest.fixture
def demo(running_demo: RunningDemo) -> dict[str, Any]:
    """What the demo's ready file says: addresses, ids, pids."""
    return running_demo.summary
