"""Real processes under a harness: each in a group of its own, started again when it dies, ended by pid."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from broker.demo.lifeline import die_with_parent

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE = 60.0

Say = Callable[[str], None]


class NotReady(Exception):
    """a process does not come up"""


class Member:
    """One process and its restarts; `pause` is how long the next restart waits."""

    def __init__(
        self, name: str, words: list[str], folder: Path, environment: Callable[[], Mapping[str, str]], say: Say
    ) -> None:
        self.name = name
        self.log = folder / "logs" / f"{name}.log"
        self.ready_file = folder / "run" / f"{name}.json"
        self.pause = 0.0
        self.down: list[tuple[float, float]] = []
        """When it was not at work, as wall times; an open end is infinity."""
        self.kills: list[float] = []
        self.deaths = 0
        self._words = words
        self._environment = environment
        self._say = say
        self._child: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._stopping = False
        self._stopped = False
        self._expected = False
        self.up = asyncio.Event()
        for made in (self.log.parent, self.ready_file.parent):
            made.mkdir(parents=True, exist_ok=True)

    @property
    def pid(self) -> int:
        """The pid of the process that runs now, or 0."""
        return self._child.pid if self._child is not None and self._child.returncode is None else 0

    async def start(self) -> None:
        """Start it and keep it running; returns once it is ready."""
        self._keeping = asyncio.create_task(self._keep(), name=f"keep {self.name}")
        waiting = asyncio.create_task(self.up.wait())
        await asyncio.wait({waiting, self._keeping}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not self.up.is_set():
            tail = self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""
            raise NotReady(f"`{self.name}` does not come up: {tail}") from None

    def kill(self, pause: float = 0.0) -> None:
        """End it as kill -9 does; it is started again after a pause."""
        self.pause, self._expected = pause, True
        if self.pid:
            self.kills.append(time.time())
        self._mark_down()
        self._signal(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop it where it is."""
        if self.pid:
            self._mark_down()
            self._stopped = True
            self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        if self._stopped:
            self._stopped = False
            self._signal(signal.SIGCONT)
            self._mark_up()

    def fill_disk(self) -> None:
        """Let no file of this process grow: what a full disk does, on one process and for as long as is wished."""
        if self.pid:
            self._mark_down()
            _, hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (1, hard))

    def empty_disk(self) -> None:
        """Let files grow again."""
        if self.pid:
            _, hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (hard, hard))
        self._mark_up()

    async def stop(self) -> None:
        """End it for good: asks, then forces."""
        self._stopping = True
        self.thaw()
        child = self._child
        if child is not None and child.returncode is None:
            self._signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(child.wait(), 20)
            except TimeoutError:
                self._say(f"{self.name} did not end within 20 s of SIGTERM")
                self._signal(signal.SIGKILL)
                await child.wait()
        if self._keeping is not None:
            self._keeping.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeping

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            if self.pid:
                os.kill(self.pid, number)

    def _mark_down(self) -> None:
        if not self.down or self.down[-1][1] != float("inf"):
            self.down.append((time.time(), float("inf")))

    def _mark_up(self) -> None:
        if self.down and self.down[-1][1] == float("inf"):
            self.down[-1] = (self.down[-1][0], time.time())

    async def _keep(self) -> None:
        while not self._stopping:
            self.ready_file.unlink(missing_ok=True)
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *self._words,
                cwd=REPOSITORY,
                env={**self._environment(), "PYTHONUNBUFFERED": "1", "AIRLOCK_READY_FILE": str(self.ready_file)},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGKILL),
            )
            self._child = child
            pump = asyncio.create_task(self._pump(child))
            ready = asyncio.create_task(self._until_ready(child))
            await child.wait()
            self.up.clear()
            self._mark_down()
            ready.cancel()
            await pump
            if not self._stopping:
                if not self._expected:
                    self.deaths += 1
                    self._say(f"{self.name} ended by itself with status {child.returncode}")
                self._expected = False
                await asyncio.sleep(self.pause if self.pause else 0.05)
                self.pause = 0.3 if self.deaths > 3 else 0.0

    async def _until_ready(self, child: asyncio.subprocess.Process) -> None:
        while not self._is_ready(child.pid):
            await asyncio.sleep(0.02)
        self._mark_up()
        self.up.set()

    def _is_ready(self, pid: int) -> bool:
        try:
            return bool(json.loads(self.ready_file.read_text())["pid"] == pid)
        except (OSError, ValueError, KeyError):
            return False

    async def _pump(self, child: asyncio.subprocess.Process) -> None:
        """Copy its output: a pipe, so that a disk that is full does not take its log along."""
        assert child.stdout is not None
        with self.log.open("ab", buffering=0) as file:
            while data := await child.stdout.read(65536):
                file.write(data)
