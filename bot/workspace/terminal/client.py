"""One psql in its cage, on a terminal of its own: what it says, what it is told."""

import asyncio
import codecs
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import tty
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from .peers import deserted
from .ticket import NOWHERE, Connection, Origin

CAGE = Path(__file__).with_name("cage.py")
KEPT = 256 * 1024
"""Characters of output that a page which comes later still sees."""
PROMPT = "\x1e"
"""What `cage.py` has psql write before a prompt."""
PROMPT_END = "\x1f"
"""What it writes behind one."""
_PROMPT_KEPT = 200
_CHUNK = 65_536
_BEHIND = 512 * 1024
_UNREAD = 1024 * 1024
_GRACE = 1.0
_LOOK = 0.5
"""Seconds between two looks whether a psql that waits for its next line still has somebody at the other end."""
_AGE = re.compile(
    r"WARNING: psql major version \d+, server major version \d+\.\n +Some psql features might not work\.\n"
)
"""What psql greets a newer server with; it says nothing of what is run here, and newcomers take it for a fault."""

Frame = dict[str, Any]


class Reader:
    """One page that looks on; it waits for frames and says how far behind it is."""

    def __init__(self, frames: list[Frame]) -> None:
        self.frames: deque[Frame] = deque(frames)
        self.behind = sum(map(_size, frames))
        self.news = asyncio.Event()
        self.read = asyncio.Event()

    def put(self, frame: Frame) -> None:
        """Adds what has just happened."""
        self.frames.append(frame)
        self.behind += _size(frame)
        self.news.set()

    async def take(self) -> list[Frame]:
        """Gives everything new, output in one piece where it can be, waiting for the first."""
        while not self.frames:
            self.news.clear()
            await self.news.wait()
        taken: list[Frame] = []
        while self.frames:
            frame = self.frames.popleft()
            if "out" in frame and taken and "out" in taken[-1]:
                taken[-1] = {"out": taken[-1]["out"] + frame["out"]}
            else:
                taken.append(frame)
        self.behind = 0
        self.read.set()
        return taken


class Client:
    """A running psql; what it says is kept for pages that come later, up to a limit."""

    def __init__(
        self, number: int, connection: Connection, heard: Callable[[str, str], None], origin: Origin = NOWHERE
    ) -> None:
        self.number = number
        self.connection = connection
        self.origin = origin
        self.code: int | None = None
        self._heard = heard
        self._log: deque[Frame] = deque()
        self._kept = 0
        self._readers: list[Reader] = []
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._process: subprocess.Popen[bytes] | None = None
        self._terminal = -1
        self._pump: asyncio.Task[None] | None = None
        self._unsent = bytearray()
        self._greeted = False
        self._prompt = ""
        self._greeting = ""
        self._deserted = False
        self._watch: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Says whether psql can still be told something."""
        return self._process is not None and self.code is None

    @property
    def connected(self) -> bool:
        """Says whether psql runs and has a session; where it has noticed that there is none, its prompt has a `!`."""
        return self.running and not self._deserted and not self._prompt.rpartition(PROMPT)[2].startswith("!")

    @property
    def pid(self) -> int:
        """Gives the process, which is the cage first and psql then; 0 before it has started."""
        return self._process.pid if self._process is not None else 0

    @property
    def label(self) -> str:
        """Names what it is connected to."""
        return f"{self.connection.dbname} as {self.connection.user}"

    def start(self, psql: Path, columns: int, rows: int) -> None:
        """Starts psql; raises OSError where the system gives no terminal or no process."""
        ours, theirs = pty.openpty()
        try:
            # Raw: no line length, no echo, no character that means something to the terminal; we send whole lines.
            tty.setraw(theirs)
            self._terminal = ours
            self.resize(columns, rows)
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(CAGE), str(psql), str(self.connection.port)],
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                env=_environment(self.connection),
                cwd="/",
                start_new_session=True,
            )
        except OSError:
            self._terminal = -1
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        os.set_blocking(ours, False)
        self._pump = asyncio.create_task(self._read())
        self._watch = asyncio.create_task(self._look())

    def attach(self) -> Reader:
        """Gives a page everything that is kept, and what comes."""
        reader = Reader(list(self._log))
        self._readers.append(reader)
        return reader

    def detach(self, reader: Reader) -> None:
        """Forgets a page."""
        self._readers.remove(reader)
        reader.read.set()

    def send(self, lines: list[str]) -> bool:
        """Types lines that `read_typed` has let through; False while psql has not read the earlier ones."""
        if len(self._unsent) > _UNREAD:
            return False
        for line in lines:
            self.note({"in": line})
            self._heard("typed", line)
        self._unsent += "".join(f"{line}\n" for line in lines).encode("utf-8")
        self._write()
        return True

    def note(self, frame: Frame) -> None:
        """Shows something to the pages, among what psql says."""
        self._log.append(frame)
        self._kept += _size(frame)
        while self._kept > KEPT and len(self._log) > 1:
            self._kept -= _size(self._log.popleft())
        for reader in self._readers:
            reader.put(frame)

    def interrupt(self) -> None:
        """Does what Ctrl-C does."""
        if self._process is not None and self.code is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGINT)

    def resize(self, columns: int, rows: int) -> None:
        """Tells psql how wide it may write."""
        if self._terminal >= 0:
            size = struct.pack("HHHH", min(max(rows, 5), 500), min(max(columns, 20), 1000), 0, 0)
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)

    async def close(self) -> None:
        """Ends psql if it has not ended, and waits for it."""
        if self._process is not None and self.code is None:
            self._process.send_signal(signal.SIGHUP)
            for _ in range(int(_GRACE * 50)):
                if self._process.poll() is not None:
                    break
                await asyncio.sleep(0.02)
            else:
                self._process.kill()
        for reader in self._readers:
            reader.behind = 0
            reader.read.set()
        if self._pump is not None:
            await asyncio.wait({self._pump})

    async def _read(self) -> None:
        while True:
            await self._readable()
            try:
                data = os.read(self._terminal, _CHUNK)
            except BlockingIOError:
                continue
            except OSError:  # on Linux, a terminal that nobody holds any more
                break
            if not data:
                break
            self._say(self._decoder.decode(data))
            await self._wait_for_slow_readers()
        self._say("", over=True)
        self._unsent.clear()
        asyncio.get_running_loop().remove_writer(self._terminal)
        terminal, self._terminal = self._terminal, -1
        os.close(terminal)
        assert self._process is not None
        self.code = await asyncio.to_thread(self._process.wait)
        if self._watch is not None:
            self._watch.cancel()
        self.note({"end": self.code})
        self._heard("closed", "")

    def _say(self, text: str, over: bool = False) -> None:
        """Passes on what psql says; what it says before its first prompt comes at once with that, without its age."""
        if not self._greeted:
            self._greeting += text
            if PROMPT not in self._greeting and len(self._greeting) < KEPT and not over:
                return
            text, self._greeting = _AGE.sub("", self._greeting), ""
            self._greeted = PROMPT in text
            if self._greeted:
                self._heard("opened", f"{self.label}\n{self.origin.text}")
        if text:
            self._prompt = (self._prompt + text)[-_PROMPT_KEPT:]
            self._deserted = False
            self.note({"out": text})
            self._heard("said", text)

    async def _look(self) -> None:
        """Notices that a session is over while psql waits to be told something, for until then it does not."""
        while True:
            await asyncio.sleep(_LOOK)
            said = self._prompt
            waits = self.connected and said.endswith(PROMPT_END)
            if waits and await asyncio.to_thread(deserted, self.pid) and self._prompt == said:
                self._deserted = True
                self.note({"lost": True})

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self._terminal, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._terminal)

    async def _wait_for_slow_readers(self) -> None:
        """Lets psql wait while a page is far behind; its own heartbeat ends a page that never reads."""
        for reader in list(self._readers):
            while reader in self._readers and reader.behind > _BEHIND:
                reader.read.clear()
                await reader.read.wait()

    def _write(self) -> None:
        """Writes what the terminal takes now; the rest when it takes more."""
        if self._terminal < 0:
            return
        loop = asyncio.get_running_loop()
        try:
            count = os.write(self._terminal, self._unsent)
        except BlockingIOError:
            count = 0
        except OSError:
            self._unsent.clear()
            count = 0
        del self._unsent[:count]
        if self._unsent:
            loop.add_writer(self._terminal, self._write)
        else:
            loop.remove_writer(self._terminal)


def _environment(connection: Connection) -> dict[str, str]:
    """Gives psql its connection and nothing of ours: no home, no path, no file it would look for."""
    nowhere = "/nonexistent"
    return {
        **connection.environment(),
        "HOME": nowhere,
        "PATH": nowhere,
        "TERM": "dumb",
        "LC_ALL": "C",
        "PGCLIENTENCODING": "UTF8",
        "PGAPPNAME": "psql",
        "PGPASSFILE": os.devnull,
        "PGSERVICEFILE": os.devnull,
        "PGSYSCONFDIR": nowhere,
        "PGGSSENCMODE": "disable",
        "PGCONNECT_TIMEOUT": "10",
        "PSQLRC": os.devnull,
        "PSQL_HISTORY": os.devnull,
    }


def _size(frame: Frame) -> int:
    return len(str(frame.get("out") or frame.get("in") or "")) + 16
