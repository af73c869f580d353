"""Ties a child process's life to its parent's, so that nothing outlives the demo; asks about processes by pid."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_WATCH = 'while kill -0 "$1" 2>/dev/null; do sleep 1; done; kill -s "$3" "$2" 2>/dev/null'


def die_with_parent(signum: signal.Signals) -> Callable[[], None] | None:
    """A `preexec_fn` that has the kernel signal the child when this process ends; None where the kernel cannot."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0)
        if os.getppid() != parent:  # it died between the fork and the call
            os._exit(1)

    return tie


def watch(child: int, signum: signal.Signals) -> None:
    """Signals the child within a second of this process's end, where `die_with_parent` cannot."""
    if sys.platform == "linux":
        return
    # A shell that ends by itself, in a session of its own: nothing to stop and nothing to wait for.
    subprocess.Popen(
        ["/bin/sh", "-c", _WATCH, "sh", str(os.getpid()), str(child), signum.name.removeprefix("SIG")],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def is_alive(pid: int) -> bool:
    """Whether a process of this pid runs; one that has ended and waits to be reaped does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        # The state follows the name, which is in brackets and may hold anything.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return True


def command_line(pid: int) -> str:
    """The command line of a process, or nothing."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        pass
    try:
        asked = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return asked.stdout.strip()


def end(pid: int, steps: tuple[tuple[signal.Signals, float], ...]) -> bool:
    """Sends each signal in turn and waits that long for the process to go; whether it is gone."""
    for signum, patience in steps:
        deadline = time.monotonic() + patience
        try:
            os.kill(pid, signum)
        except ProcessLookupError:
            return True
        while time.monotonic() < deadline:
            if not is_alive(pid):
                return True
            time.sleep(0.05)
    return not is_alive(pid)
