"""The broker and its reaper as processes, on a state folder of a test's own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.integration.broker import POLICY, World

ROOT = Path(__file__).parents[2]
SECRET = "hunter2-credential"


class Running:
    """Processes on one state folder."""

    def __init__(self, root: Path) -> None:
        self.world = World(root)
        self.world.write_policy(POLICY.replace("protocol: pretend", "protocol: postgres"))
        self.state = self.world.settings.state
        self.ready = root / "ready.json"
        self.log = root / "broker.log"
        self.processes: list[subprocess.Popen[bytes]] = []
        (self.state / "secrets").mkdir(parents=True)
        for name in ("prod-read", "prod-write", "dev-read"):
            (self.state / "secrets" / name).write_text(f"someone:{SECRET}\n")

    def start(self, module: str = "broker", cwd: Path = ROOT, **environment: str) -> subprocess.Popen[bytes]:
        settings = {
            "AIRLOCK_STATE": str(self.state),
            "AIRLOCK_POLICIES": str(self.world.settings.policies),
            "AIRLOCK_API_PORT": "0",
            "AIRLOCK_PORT_POSTGRES": "0",
        }
        if module == "broker":
            settings["AIRLOCK_READY_FILE"] = str(self.ready)
        words = ["-m", module] if cwd == ROOT else [str(ROOT / "airlock.py"), module]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *words], cwd=cwd, env={**os.environ, **settings, **environment}, stderr=log
            )
        self.processes.append(process)
        return process

    def wait_ready(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            assert process.poll() is None, self.log.read_text()
            if self.ready.exists() and (facts := json.loads(self.ready.read_text()))["pid"] == process.pid:
                return facts
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def end(self) -> None:
        """End whatever still runs."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
