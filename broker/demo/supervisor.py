"""Runs the whole demo: starts every process in order, keeps them running, prints one address, ends them in order."""

import asyncio
import fcntl
import json
import os
import signal
import sys
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console

from broker.demo.greeting import greet
from broker.demo.keeper import CrashLoop, Keeper, Process
from broker.demo.ports import choose_ports
from broker.demo.shop import write_private
from broker.demo.table import REPOSITORY, Demo, demo_processes, demo_summary

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

Table = Callable[[Demo], list[Process]]


class AlreadyRunning(Exception):
    """another demo runs on this state"""

    def __init__(self, state: Path, pid: str) -> None:
        who = f" (pid {pid})" if pid else ""
        super().__init__(f"another demo{who} runs on `{state}`: stop it with Ctrl-C, or choose another `--state`")


def run(
    state: Path,
    *,
    headless: bool = False,
    ready: Path | None = None,
    open_browser: Callable[[str], object] = webbrowser.open,
    table: Table = demo_processes,
) -> int:
    """Runs the demo on `state` until a signal; returns the exit status."""
    console = Console(highlight=False, soft_wrap=True)
    # The databases, logs and keys of every process below are its owner's alone.
    os.umask(0o077)
    try:
        _make_state(state)
        with _lock(state):
            return asyncio.run(Supervisor(state, headless, ready, open_browser, table, console).run())
    except (AlreadyRunning, CrashLoop, OSError) as error:
        console.print(f"demo: {error}", style="red", markup=False)
        return 1


class Supervisor:
    """The processes of one demo, from the first start to the last end."""

    def __init__(
        self,
        state: Path,
        headless: bool,
        ready: Path | None,
        open_browser: Callable[[str], object],
        table: Table,
        console: Console,
    ) -> None:
        self.state = state.absolute()
        self._headless = headless
        self._ready = ready.absolute() if ready else None
        self._open_browser = open_browser
        self._table = table
        self._console = console
        self._keepers: list[Keeper] = []
        self._started = time.monotonic()
        self._complete = False

    async def run(self) -> int:
        """Starts all, waits for a signal, ends all; raises CrashLoop when something never starts."""
        stop = asyncio.Event()
        for signum in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(signum, stop.set)
        if self._ready:
            self._ready.unlink(missing_ok=True)
        stopping = asyncio.create_task(stop.wait())
        starting = asyncio.create_task(self._start())
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                await stopping
            return 0
        finally:
            starting.cancel()
            with suppress(asyncio.CancelledError, CrashLoop):
                await starting
            stopping.cancel()
            await self._end()

    async def _start(self) -> None:
        for folder in ("logs", "run"):
            (self.state / folder).mkdir(exist_ok=True)
        ports = await asyncio.to_thread(choose_ports, self.state / "ports.json", self._say)
        demo = Demo(self.state, ports)
        # What `airlock policy explain` and `airlock audit verify` need to work on this state.
        write_private(self.state / "settings.json", json.dumps(demo.settings(), indent=2) + "\n")
        for process in self._table(demo):
            self._say(process.name, "starting")
            keeper = Keeper(process, REPOSITORY, self.state / "logs", self._say, lambda: self._write_ready(demo))
            self._keepers.append(keeper)
            await keeper.start()
        self._complete = True
        self._write_ready(demo)
        greet(self._console, demo, time.monotonic() - self._started)
        if not self._headless and _has_display():
            # A browser that takes its time, or a console one, must not hold the demo up.
            await asyncio.to_thread(self._open_browser, demo.workspace_url)

    async def _end(self) -> None:
        self._complete = False
        if self._keepers:
            self._say("demo", "stopping")
        for keeper in reversed(self._keepers):
            await keeper.stop()
        if self._ready:
            self._ready.unlink(missing_ok=True)
        if self._keepers:
            self._say("demo", f"stopped; everything is kept in {self.state}")

    def _write_ready(self, demo: Demo) -> None:
        if self._ready and self._complete:
            pids = {keeper.name: keeper.pid for keeper in self._keepers} | {"supervisor": os.getpid()}
            self._ready.parent.mkdir(parents=True, exist_ok=True)
            write_private(self._ready, json.dumps(demo_summary(demo, pids), indent=2) + "\n")

    def _say(self, name: str, text: str) -> None:
        self._console.print(f"{name:>10}  {text}", markup=False)


def _make_state(state: Path) -> None:
    state.mkdir(parents=True, exist_ok=True)
    # As root the database server runs as somebody else, who has to pass through here to its own folder.
    state.chmod(0o711 if os.geteuid() == 0 else 0o700)


@contextmanager
def _lock(state: Path) -> Iterator[None]:
    """Holds the state for this process; the kernel lets go of it however we end."""
    with (state / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise AlreadyRunning(state, file.read().strip()) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _has_display() -> bool:
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
