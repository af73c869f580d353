"""The demo's database as a process that tests start, stop and ask."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from broker.demo.cluster import free_port

CREDENTIALS = {
    "prod-db-read": ("shop", "airlock_read"),
    "prod-db-write": ("shop", "airlock_write"),
    "staging-db-read": ("shop_staging", "airlock_read"),
    "staging-db-write": ("shop_staging", "airlock_write"),
}
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to give the server to somebody else")


class Upstream:
    """One `python -m broker.demo.upstream` after another on the same state."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.secrets = state / "secrets"
        self.port = free_port()
        self.ready = state / "ready.json"
        self.process: subprocess.Popen[str] | None = None

    def launch(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts it and does not wait."""
        self.ready.unlink(missing_ok=True)
        self.state.mkdir(parents=True, exist_ok=True)
        with (self.state / "output").open("a") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "broker.demo.upstream", "--state", str(self.state)),
                    *("--port", str(self.port), "--ready", str(self.ready), *arguments),
                ],
                env={**os.environ, "AIRLOCK_SECRETS": str(self.secrets)},
                stdout=output,
                stderr=output,
                text=True,
            )
        return self.process

    def start(self, *arguments: str) -> int:
        """Starts it and returns the postmaster's pid once it is ready."""
        process = self.launch(*arguments)
        deadline = time.monotonic() + 60
        while not self.ready.exists():
            assert process.poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.02)
        pid: int = json.loads(self.ready.read_text())["pid"]
        return pid

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> int:
        """Signals it and waits for its end."""
        assert self.process is not None
        self.process.send_signal(signum)
        return self.process.wait(30)

    def output(self) -> str:
        """What it has printed so far."""
        return (self.state / "output").read_text()

    def query(self, statement: str, credential: str = "prod-db-read") -> list[tuple[Any, ...]]:
        """Runs a statement with one of the broker's credentials."""
        user, _, word = (self.secrets / credential).read_text().strip().partition(":")
        database = CREDENTIALS[credential][0]
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user=user, password=word, dbname=database, autocommit=True
        ) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []
