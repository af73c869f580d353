"""What is done at each peer, by programs and libraries written in C, so that the client costs little everywhere."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg

from tests.bench.peers import Peer
from tests.bench.programs import ROOT, bare_environment, memory_kib
from tests.bench.upstream import NARROW_ROWS, WIDE_ROWS

NARROW = "SELECT aid, bid, abalance FROM pgbench_accounts"
WIDE = "SELECT id, body FROM wide"
# What `pgbench -S` runs. As a script of ours, for -S itself first reads the system catalogue.
POINT = f"\\set aid random(1, {NARROW_ROWS})\nSELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n"
CLIENTS = {"simple": (1, 8, 32), "prepared": (1, 8, 32), "extended": (8,)}
"""How many at a time, by pgbench's protocol: extended ones bring their Parse each time, as most drivers do."""
LATENCY = "p50 of a prepared select, 1 client"
CONNECTIONS = 25
PAUSE = 0.05
"""Seconds between two connections that come one by one."""
TIMEOUT = 120.0
_TPS = re.compile(r"^tps = ([0-9.]+) ", re.M)
_CONNECTION = re.compile(r"^average connection time = ([0-9.]+) ms", re.M)
_TIME = re.compile(r"^Time: ([0-9.]+) ms", re.M)


class WorkFailed(Exception):
    """a peer did not do the work"""


@dataclass(frozen=True, slots=True)
class Clients:
    """Where pgbench and psql are, and a folder for scripts."""

    bin: Path
    folder: Path

    def pgbench(self, peer: Peer, script: str, *options: str) -> str:
        """Run a script of pgbench's; returns its report."""
        file = self.folder / "script.sql"
        file.write_text(script)
        return self._run("pgbench", peer, "-n", "-f", str(file), *options)

    def psql(self, peer: Peer, *commands: str) -> str:
        words = [word for command in commands for word in ("-c", command)]
        return self._run("psql", peer, "-X", "-q", "-v", "ON_ERROR_STOP=1", *words)

    def stream(self, peer: Peer, sql: str, rows: int) -> float:
        """Read all rows of a query as they come; returns how many a second."""
        words = self._run(sys.executable, peer, "-m", "tests.bench.reader", sql).split()
        if int(words[0]) != rows:
            raise WorkFailed(f"{words[0]} rows came, not {rows}")
        return rows / float(words[1])

    def _run(self, program: str, peer: Peer, *words: str) -> str:
        environment = {**bare_environment(), **peer.environment}
        command = [str(self.bin / program), *words]
        try:
            done = subprocess.run(
                command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired:
            raise WorkFailed(f"{program} did not end within {TIMEOUT:.0f} s") from None
        if done.returncode != 0:
            raise WorkFailed(f"{program}: {done.stderr.strip()[-500:]}")
        return done.stdout


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of work; `measure` gives a figure in `unit`, of which more is better unless it is a cost.

    `statements` are how many it runs, where that is worth an account of the processor's time. What is done `once` would
    find the second time what the first has left.
    """

    name: str
    unit: str
    measure: Callable[[Clients, Peer], float]
    fits: Callable[[Peer], bool] = lambda peer: not peer.ahead
    cost: bool = False
    statements: Callable[[Peer], int] | None = None
    once: bool = False


def works(masked_narrow: str, selects: int, idle: int) -> list[Work]:
    """List the works; `masked_narrow` is NARROW as the broker rewrites it, which the unmasked peers run instead."""
    # First, while nothing has been left behind that sessions could use.
    idles = Work(
        f"idle session, of {idle}",
        "KiB",
        _idle(idle),
        lambda peer: bool(peer.pids) and _is_measured(peer),
        cost=True,
        once=True,
    )
    found = [
        Work(
            f"select {mode}, {clients} client{'s' * (clients > 1)}",
            "tps",
            _point(mode, clients, selects),
            _is_measured,
            statements=partial(_selects, clients, selects),
        )
        for mode, counts in CLIENTS.items()
        for clients in counts
    ]
    return [
        idles,
        *found,
        Work(LATENCY, "µs", _latency(selects), _is_measured, cost=True),
        Work(f"{NARROW_ROWS:,} narrow rows", "rows/s", _rows(NARROW, NARROW_ROWS), _is_clear),
        Work(f"{NARROW_ROWS:,} rows, 2 masked", "rows/s", _masked_rows(masked_narrow)),
        Work(f"{WIDE_ROWS:,} rows of 10 KB", "rows/s", _rows(WIDE, WIDE_ROWS), _is_clear),
        Work(f"COPY {NARROW_ROWS:,} narrow", "rows/s", _copy, _is_clear),
        Work("connection set-up, one by one", "ms", _connect_apart, lambda _: True, cost=True),
        Work("connection set-up, back to back", "ms", _connect, lambda _: True, cost=True),
    ]


def _is_measured(peer: Peer) -> bool:
    """Masked ones with TLS alone, as they wait for the disk."""
    return not peer.ahead and (peer.tls or not peer.masked)


def _is_clear(peer: Peer) -> bool:
    return not peer.masked and not peer.ahead


def _point(mode: str, clients: int, selects: int) -> Callable[[Clients, Peer], float]:
    # A number and not a time, which many connections take up before the first of them has run a statement.
    def measure(tools: Clients, peer: Peer) -> float:
        each = str(_selects(clients, selects, peer) // clients)
        return _read(_TPS, tools.pgbench(peer, POINT, "-M", mode, "-c", str(clients), "-j", "1", "-t", each))

    return measure


def _latency(selects: int) -> Callable[[Clients, Peer], float]:
    """Measure the median of one select after the other, as pgbench logs them."""

    def measure(tools: Clients, peer: Peer) -> float:
        for old in tools.folder.glob("latency.*"):
            old.unlink()
        prefix = str(tools.folder / "latency")
        times = _selects(1, selects, peer)
        tools.pgbench(peer, POINT, "-M", "prepared", "-t", str(times), "-l", f"--log-prefix={prefix}")
        lines = [line.split() for file in tools.folder.glob("latency.*") for line in file.read_text().splitlines()]
        return statistics.median(float(line[2]) for line in lines)

    return measure


def _selects(clients: int, selects: int, peer: Peer) -> int:
    """Return how many there are of a run: fewer where each takes longer.

    They are so many for each connection, for a server's process maps the table's pages and fills its caches as it meets
    them: some 13 ms each time, which a pool like pgbouncer's has behind it and a session of its own has not.
    """
    every = max(clients, 4) * selects
    return every // 16 if peer.masked else every


def _rows(sql: str, rows: int) -> Callable[[Clients, Peer], float]:
    return lambda tools, peer: tools.stream(peer, sql, rows)


def _masked_rows(masked_narrow: str) -> Callable[[Clients, Peer], float]:
    return lambda tools, peer: tools.stream(peer, NARROW if peer.masked else masked_narrow, NARROW_ROWS)


def _copy(tools: Clients, peer: Peer) -> float:
    report = tools.psql(peer, r"\timing on", r"\o /dev/null", f"COPY ({NARROW}) TO STDOUT")
    return NARROW_ROWS / _read(_TIME, report) * 1000


def _connect(tools: Clients, peer: Peer) -> float:
    return _read(_CONNECTION, tools.pgbench(peer, "SELECT 1;\n", "-C", "-t", str(CONNECTIONS)))


def _connect_apart(_: Clients, peer: Peer) -> float:
    """Measure how long libpq takes until it may ask, after a pause each time, in which the last one is cleared away."""
    times = []
    for _number in range(CONNECTIONS):
        time.sleep(PAUSE)
        begun = time.perf_counter()
        session = _session(peer)
        times.append((time.perf_counter() - begun) * 1000)
        session.close()
    return statistics.median(times)


def _idle(sessions: int) -> Callable[[Clients, Peer], float]:
    """Measure what the process in between keeps for each session that has run a statement and waits."""

    def measure(_: Clients, peer: Peer) -> float:
        with ExitStack() as stack:
            # The first ones warm up what all of them share.
            for count in (5, sessions):
                before = memory_kib(peer.pids)
                for _number in range(count):
                    session = _session(peer)
                    stack.callback(session.close)
                    session.execute("SELECT 1")
                # What setting up has left is given back within a moment.
                time.sleep(1)
            return (memory_kib(peer.pids) - before) / sessions

    return measure


def _session(peer: Peer) -> psycopg.Connection:
    words = {
        "host": "127.0.0.1",
        "port": str(peer.port),
        "dbname": peer.database,
        "user": peer.user,
        "password": peer.password,
        "sslmode": "require" if peer.tls else "disable",
    }
    try:
        return psycopg.connect(psycopg.conninfo.make_conninfo(**words), autocommit=True)
    except psycopg.OperationalError as error:
        raise WorkFailed(str(error)) from None


def _read(pattern: re.Pattern[str], report: str) -> float:
    found = pattern.search(report)
    if found is None:
        raise WorkFailed(f"the report does not read: {report.strip()[-300:]}")
    return float(found[1])
