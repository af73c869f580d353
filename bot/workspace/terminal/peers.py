"""Whether somebody is still at the other end of a program's connections, as Linux knows it."""

import os
from contextlib import suppress
from pathlib import Path

_CLOSE_WAIT = "08"
"""The other end has closed, and the program has not."""


def deserted(pid: int) -> bool:
    """Says whether the other end of a process's TCP connection has closed it; False where the system does not tell."""
    home = Path("/proc") / str(pid)
    held: set[str] = set()
    with suppress(OSError):
        for entry in os.listdir(home / "fd"):
            with suppress(OSError):  # closed meanwhile
                held.add(os.readlink(home / "fd" / entry))
    for family in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (home / "net" / family).read_text().splitlines()[1:]:
                columns = line.split()
                if columns[3] == _CLOSE_WAIT and f"socket:[{columns[9]}]" in held:
                    return True
    return False
