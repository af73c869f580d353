"""Keeps one process running: starts it, follows its output, starts it again when it dies, and ends it when asked."""

import asyncio
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from logging import makeLogRecord
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from broker.demo.lifeline import die_with_parent, watch

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_STEADY = 5.0  # seconds up after which a death is an accident, not part of a loop
_LOOP = 5  # deaths in a row
_UNUSABLE = 2  # the status that says: a setting or a file must be mended first
_MENDING = 2.0  # seconds between looks whether it was
_SETTLE = 0.05  # what it printed last may still be in the pipe
_LOG_BYTES = 2_000_000
_LINE_BYTES = 20_000

Say = Callable[[str, str], None]


class CrashLoop(Exception):
    """a process dies each time it is started"""

    def __init__(self, name: str, reason: str, log: Path, lines: list[str]) -> None:
        tail = "".join(f"\n    {line}" for line in lines) or "\n    (it printed nothing)"
        super().__init__(f"`{name}` does not stay up: {reason}; the last lines of {log}:{tail}")


async def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Process:
    """What to start; the process is ready when it has written `ready_file` (JSON) and `probe` agrees.

    `environment` is asked at every start, since it may depend on what the processes before it wrote.
    """

    name: str
    command: list[str]
    ready_file: Path
    environment: Callable[[], Mapping[str, str]] = field(default=lambda: os.environ)
    probe: Callable[[], Awaitable[bool]] = _always
    patience: float = 60.0
    grace: float = 10.0


class Keeper:
    """One process and its restarts; `say` gets (name, line) for people, `changed` is called when a pid is new."""

    def __init__(self, process: Process, folder: Path, logs: Path, say: Say, changed: Callable[[], None]) -> None:
        self.process = process
        self.name = process.name
        self.log = logs / f"{process.name}.log"
        self.ready: dict[str, Any] = {}
        self._folder = folder
        self._say = say
        self._changed = changed
        self._child: asyncio.subprocess.Process | None = None
        self._file = RotatingFileHandler(self.log, maxBytes=_LOG_BYTES, backupCount=1, errors="replace")
        self._last: deque[str] = deque(maxlen=15)
        self._rest = b""
        self._told = ""
        self._stopping = False
        self._keeping: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """The pid that matters: what the ready file names, or the child's own."""
        child = self._child.pid if self._child else 0
        return int(self.ready.get("pid") or child)

    async def start(self) -> None:
        """Returns when the process is ready; raises CrashLoop if it never gets there."""
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._keeping = asyncio.create_task(self._keep(first))
        await first

    async def stop(self) -> None:
        """Ends the process: asks, waits its grace, then forces it and whatever it started."""
        self._stopping = True
        child = self._child
        if child and child.returncode is None:
            with suppress(ProcessLookupError):
                child.terminate()
            try:
                await asyncio.wait_for(child.wait(), self.process.grace)
            except TimeoutError:
                self._say(self.name, f"did not end within {self.process.grace:.0f} s: forced")
                _force(child)
                await child.wait()
        if self._keeping:
            self._keeping.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeping
        self._file.close()

    async def _keep(self, first: asyncio.Future[None]) -> None:
        deaths = 0
        while not self._stopping:
            child = await self._spawn()
            problem = await self._until_ready(child)
            up = time.monotonic()
            if problem is None:
                if first.done():
                    self._told = ""
                    self._say(self.name, "is back")
                    self._changed()
                else:
                    first.set_result(None)
                problem = _ending(await child.wait())
            if self._stopping:
                return
            await asyncio.sleep(_SETTLE)
            if child.returncode == _UNUSABLE:
                if not first.done():
                    first.set_exception(
                        CrashLoop(self.name, "it cannot start as things are", self.log, list(self._last))
                    )
                    return
                await self._await_mending()
                continue
            deaths = 1 if time.monotonic() - up > _STEADY else deaths + 1
            pause = min(_FIRST_PAUSE * 2 ** (deaths - 1), _LONGEST_PAUSE)
            if deaths % _LOOP == 0:
                loop = CrashLoop(self.name, problem, self.log, list(self._last))
                if not first.done():
                    first.set_exception(loop)
                    return
                self._say(self.name, str(loop))
            self._say(self.name, f"{problem}: starting it again")
            await asyncio.sleep(pause)

    async def _await_mending(self) -> None:
        """Say why it cannot run, once, and look again a little later."""
        told = "\n".join(f"    {line}" for line in self._last)
        if told != self._told:
            self._told = told
            self._say(self.name, f"cannot run as things are, and starts as soon as this is mended:\n{told}")
        await asyncio.sleep(_MENDING)

    async def _spawn(self) -> asyncio.subprocess.Process:
        self.ready = {}
        self._last.clear()
        self.process.ready_file.unlink(missing_ok=True)
        reading, writing = os.pipe()
        try:
            child = await asyncio.create_subprocess_exec(
                *self.process.command,
                cwd=self._folder,
                env=self.process.environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                # A group of its own: Ctrl-C in a terminal reaches the supervisor alone, which ends all in order.
                process_group=0,
                preexec_fn=die_with_parent(signal.SIGTERM),
            )
        finally:
            os.close(writing)
        os.set_blocking(reading, False)
        asyncio.get_running_loop().add_reader(reading, self._read, reading)
        watch(child.pid, signal.SIGTERM)
        self._child = child
        return child

    async def _until_ready(self, child: asyncio.subprocess.Process) -> str | None:
        """None when it is ready, else why it is not."""
        deadline = time.monotonic() + self.process.patience
        while child.returncode is None:
            if self._read_ready() and await self.process.probe():
                return None
            if time.monotonic() > deadline:
                _force(child)
                await child.wait()
                return f"was not ready within {self.process.patience:.0f} s"
            await asyncio.sleep(0.05)
        return _ending(child.returncode)

    def _read_ready(self) -> bool:
        try:
            read = json.loads(self.process.ready_file.read_text() or "{}")
        except (OSError, ValueError):
            return False
        self.ready = read if isinstance(read, dict) else {}
        return True

    def _read(self, descriptor: int) -> None:
        try:
            data = os.read(descriptor, 65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LINE_BYTES or not data:
            lines, self._rest = [*lines, *filter(None, [self._rest])], b""
        for line in lines:
            self._keep_line(line[:_LINE_BYTES].decode(errors="replace").rstrip("\r"))

    def _keep_line(self, line: str) -> None:
        self._last.append(line)
        self._file.emit(makeLogRecord({"msg": line}))
        if line.startswith("progress: "):
            self._say(self.name, line.removeprefix("progress: "))


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs one of the project's modules."""
    return [sys.executable, "-m", module, *arguments]


def _force(child: asyncio.subprocess.Process) -> None:
    """Kills the process and its group, which is its own."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def _ending(status: int) -> str:
    return f"ended (signal {-status})" if status < 0 else f"ended (status {status})"
