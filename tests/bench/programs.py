"""Programs that the bench runs: found, started one by one, and each ended by its own pid."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from broker.demo.install import Install, installs
from broker.demo.lifeline import die_with_parent
from broker.demo.owner import Owner

ROOT = Path(__file__).parents[2]
STOP_SECONDS = 15.0
_SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/sbin")


class BenchFailed(Exception):
    """the bench cannot go on"""


def find_program(name: str) -> str | None:
    """Find a program, also in the folders of servers, which are not on everybody's PATH."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS]))


def find_clients(first: Install) -> Path | None:
    """Return the folder of a pgbench and a psql that speak TLS, which is measured too; the server's own first.

    The wheel's libpq is built without it.
    """
    for install in (first, *installs()):
        program = install.bin / "pgbench"
        if not program.is_file() or not (install.bin / "psql").is_file():
            continue
        # Nothing listens on port 1: what is asked is only whether this libpq takes the word `require`.
        asked = {**bare_environment(), "PGHOST": "127.0.0.1", "PGPORT": "1", "PGSSLMODE": "require"}
        done = subprocess.run([program, "-n", "x"], env=asked, capture_output=True, text=True, timeout=20, check=False)
        if "not compiled in" not in done.stderr:
            return install.bin
    return None


def bare_environment() -> dict[str, str]:
    """Return an environment in which nothing changes how a client or a server behaves."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


@contextmanager
def running(
    name: str,
    command: Sequence[str],
    folder: Path,
    *,
    owner: Owner | None = None,
    environment: Mapping[str, str] | None = None,
    cwd: Path | str = "/",
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program while the block runs; its output goes to `folder`/`name`.log."""
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            user=owner.uid if owner else None,
            group=owner.gid if owner else None,
            extra_groups=[] if owner else None,
            cwd=cwd,
            env={**bare_environment(), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # A group of its own: Ctrl-C ends it from here, in order, and not beside us.
            process_group=0,
            preexec_fn=die_with_parent(signal.SIGTERM),
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the processor's time that processes have taken, with that of their threads."""
    stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13] for pid in pids]
    return sum(int(user) + int(system) for user, system in stats) / os.sysconf("SC_CLK_TCK")


def memory_kib(pids: Iterable[int]) -> int:
    """Return what processes alone keep in memory."""
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean:", "Private_Dirty:")))


def wait_listening(
    name: str, process: subprocess.Popen[bytes], port: int, folder: Path, patience: float = 15.0
) -> None:
    """Wait until a program accepts connections on a port of loopback; raises BenchFailed with what it said."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise BenchFailed(f"{name} does not listen on port {port}:\n{tail(folder / f'{name}.log')}")


def tail(log: Path, size: int = 2000) -> str:
    """Return the end of a log."""
    return log.read_text(errors="replace")[-size:].strip() if log.exists() else ""


def hand_over(folder: Path, owner: Owner | None) -> None:
    """Give a folder and what is in it to the user that a server runs as."""
    if owner is not None:
        for path in (folder, *folder.iterdir()):
            os.chown(path, owner.uid, owner.gid)
