"""Becomes psql, after giving up everything that psql does not need: run as a program of its own, standard library only.

Whatever psql is talked into, it can start no other program and write no file. Each layer stands alone: limits of the
kernel everywhere (no process, no byte in a file), and on Linux a filter of system calls (`seccomp`) and of paths and
ports (`landlock`), where the kernel has them. Root becomes `nobody`, or where `nobody` cannot read psql, keeps its name
and loses its powers. At the end it tries: if a process can still be started or a byte be written, psql is not.
"""

import fcntl
import importlib.util
import os
import pwd
import resource
import stat
import sys
import tempfile
import termios
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def _linux_layers() -> Callable[[Path, int], None] | None:
    """Loads what lies beside this file, which an isolated interpreter does not find by name."""
    if sys.platform != "linux":
        return None
    spec = importlib.util.spec_from_file_location("confine", Path(__file__).with_name("confine.py"))
    if spec is None or spec.loader is None:
        raise ImportError("confine")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    layers: Callable[[Path, int], None] = module.confine
    return layers


# At once: only root may be able to read Python's own files, and root is left before the layers are put on.
CONFINE = _linux_layers()
CAGE_BROKEN = 97
MEMORY = 1 << 30
_FILES = 64
_CPU_SECONDS = 900


class NotSafe(Exception):
    """this machine gives no way to keep psql from starting other programs"""


def main(psql: str, port: int) -> None:
    """Locks itself in and becomes psql; never returns."""
    try:
        _own_terminal()
        os.umask(0o077)
        os.chdir("/")
        enclose(Path(psql), port)
        prove()
    except (NotSafe, OSError, ValueError) as error:
        sys.stdout.write(f"this pane does not open psql here: {error}\n")
        sys.stdout.flush()
        os._exit(CAGE_BROKEN)
    os.execve(psql, [psql, *ARGUMENTS], dict(os.environ))  # noqa: S606 - becoming psql is what this is for


# -n: no readline, so no editor, no history file, no completion; -X: no start-up file; -w: never ask for a password.
# The prompts stand between two control characters, so that the page knows them from data.
ARGUMENTS = (
    *("-X", "-n", "-w", "-P", "pager=off", "-P", "expanded=auto"),
    *("-v", "PROMPT1=\x1e%/%R%x%# \x1f", "-v", "PROMPT2=\x1e%/%R%x%# \x1f", "-v", "PROMPT3=\x1e>> \x1f"),
)


def enclose(psql: Path, port: int) -> None:
    """Gives everything up, for good."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, _FILES))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    with suppress(ValueError, OSError):  # macOS does not know this one
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    if os.geteuid() == 0:
        _leave_root(psql)
    if CONFINE is not None:
        CONFINE(psql, port)
    # Last: it also keeps an ordinary user's Python from starting anything.
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def prove() -> None:
    """Tries what must not work; raises NotSafe if it does."""
    try:
        child = os.fork()
    except OSError:
        child = -1
    if child == 0:
        os._exit(0)
    if child > 0:
        os.waitpid(child, 0)
        raise NotSafe("other programs could be started")
    try:
        with tempfile.TemporaryFile(buffering=0) as file:
            file.write(b"x")
    except OSError:
        return
    raise NotSafe("files could be written")


def _own_terminal() -> None:
    with suppress(OSError):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _leave_root(psql: Path) -> None:
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        nobody = None
    if nobody is not None and nobody.pw_uid and _readable_by_all(psql):
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)
    elif sys.platform != "linux":
        raise NotSafe(f"root cannot be left, since `{psql}` is not readable by everyone")


def _readable_by_all(psql: Path) -> bool:
    """Says whether anyone may run psql and load what lies beside it."""
    libraries = [*psql.parent.parent.glob("lib"), *psql.parent.parent.parent.parent.glob("*.libs")]
    for path in (psql, *libraries):
        for each in (path, *path.parents):
            mode = each.stat().st_mode
            if not mode & stat.S_IXOTH or (each == path and not mode & stat.S_IROTH):
                return False
    return True


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
