"""`python -m tests.bench`: starts a server, a broker and what else is installed, and measures them in turn.

Everything is on loopback and ends with it, also on Ctrl-C. Exit status 1: something did not do its work.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from broker.core import compiled
from broker.demo.install import Install, NoPostgres, find_postgres
from tests.bench import report
from tests.bench.airlock import airlock, policy_text
from tests.bench.decisions import Decisions
from tests.bench.peers import Peer, other_proxies
from tests.bench.programs import BenchFailed, cpu_seconds, find_clients
from tests.bench.upstream import DATABASE, upstream
from tests.bench.works import NARROW, Clients, Work, WorkFailed, works
from tests.support.catalogue import load_catalogue

CLIENTS_LINE = "apt install postgresql"
MAX_FAILURES = 3
"""After so many a peer is left alone, so that one that hangs does not make the run long."""
_CORE = "compiled" if compiled is not None else "Python alone (`python -m broker.core` says why)"


def main() -> int:
    """Measure, print and write; returns the exit status."""
    options = _options()
    started = time.monotonic()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        install = find_postgres(options.server)
        clients = find_clients(install)
        if clients is None:
            raise BenchFailed(f"no pgbench that can speak TLS, which is measured too: {CLIENTS_LINE}")
        with _folder() as folder:
            results = _bench(install, Clients(clients, folder), folder, options, started)
    except (NoPostgres, BenchFailed) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench: interrupted; everything that was started has ended", file=sys.stderr)
        return 130
    report.write(results, options.out)
    print(f"\n{report.table(results)}\n\n{results.rounds} rounds in {time.monotonic() - started:.0f} s; {options.out}")
    return 1 if results.failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each work is done at each peer")
    parser.add_argument("--selects", type=int, default=5000, help="of each connection of pgbench's point select")
    parser.add_argument("--idle", type=int, default=200, help="idle sessions whose memory is measured, once")
    parser.add_argument("--budget", type=float, default=2700.0, help="seconds that no further round may pass")
    parser.add_argument("--workers", type=int, default=1, help="processes of Airlock's broker that serve sessions")
    parser.add_argument("--server", default="wheel", help="`wheel`, `debian`, a major version or a folder")
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"))
    options = parser.parse_args()
    if options.rounds < 1 or options.selects < 16 or not 1 <= options.idle <= 2000:
        parser.error("at least 1 round, at least 16 selects, 1 to 2000 idle sessions")
    return options


def _interrupt(number: int, _frame: object) -> NoReturn:
    # Once: what ends the programs must not be interrupted itself.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="airlock-bench-"))
    # As root, servers run as another user, and pass through here.
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _bench(
    install: Install, clients: Clients, folder: Path, options: argparse.Namespace, started: float
) -> report.Results:
    with (
        upstream(install, folder, 3 * options.idle + 300) as (server, ways),
        other_proxies(ways, folder) as (others, skipped),
        airlock(ways[0], folder / "airlock-tls", tls=True, workers=options.workers) as ours,
        airlock(ways[0], folder / "airlock-plain", tls=False, workers=options.workers) as plain,
    ):
        decisions = Decisions(load_catalogue(server, DATABASE), policy_text(ways[0]))
        peers = [*ways, *others, *ours, *plain]
        tasks = works(decisions.rewritten(NARROW), options.selects, options.idle)
        if len(ways) == 1:
            skipped.append(f"the {install.label} server has no TLS, so no direct way is by TLS: --server debian has it")
        results = report.Results(peers, tasks, _facts(install, clients, options), skipped)
        _say(install, clients, peers)
        _rounds(results, clients, decisions, options, started)
        return results


def _facts(install: Install, clients: Clients, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "load": list(os.getloadavg()),
        "python": platform.python_version(),
        "core": _CORE,
        "workers": options.workers,
        "server": f"{install.label} {install.version}",
        "clients": str(clients.bin),
        "upstream_tls": False,
        "rounds_asked": options.rounds,
    }


def _say(install: Install, clients: Clients, peers: Sequence[Peer]) -> None:
    print(f"PostgreSQL {install.version} ({install.label}), pgbench and psql of {clients.bin}, {os.cpu_count()} CPUs")
    print(f"the broker's core: {_CORE}")
    for peer in peers:
        print(f"  {peer.label:20} TLS {'on' if peer.tls else 'off'} to the client, off to the server", flush=True)


def _rounds(
    results: report.Results, clients: Clients, decisions: Decisions, options: argparse.Namespace, started: float
) -> None:
    longest = 0.0
    for number in range(options.rounds):
        begun = time.monotonic()
        if begun - started + longest > options.budget and number:
            print(
                f"stopped after {number} of {options.rounds} rounds: one more would pass --budget {options.budget:.0f}"
            )
            break
        for work in results.works:
            # Each round begins with another peer, so that none is always the one behind a busy neighbour.
            turn = number % len(results.peers)
            for peer in (*results.peers[turn:], *results.peers[:turn]):
                _measure(results, clients, work, peer)
        for name, figure in decisions.measure().items():
            results.decisions.setdefault(name, []).append(figure)
        results.rounds += 1
        longest = max(longest, time.monotonic() - begun)
        print(f"round {number + 1} of {options.rounds}: {time.monotonic() - begun:.0f} s", flush=True)


def _measure(results: report.Results, clients: Clients, work: Work, peer: Peer) -> None:
    where = (work.name, peer.label)
    failures = sum(label == peer.label for _, label in results.failed)
    if where in results.failed or failures >= MAX_FAILURES or not work.fits(peer):
        return
    if work.once and where in results.figures:
        return
    before = cpu_seconds(peer.pids)
    try:
        figure = work.measure(clients, peer)
        results.figures.setdefault(where, []).append(figure)
        if peer.pids and work.statements:
            spent = (cpu_seconds(peer.pids) - before) * 1_000_000 / work.statements(peer)
            results.cpu.setdefault(where, []).append(spent)
    except WorkFailed as error:
        results.failed[where] = str(error)
        print(f"{work.name} at {peer.label}: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
