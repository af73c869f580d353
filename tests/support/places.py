"""Where tests keep their files."""

from __future__ import annotations

import shutil
from pathlib import Path

_MEMORY = Path("/dev/shm")
_ROOM = 4 * 2**30
"""More than a run takes with every server that it starts; containers often have 64 MiB."""


def in_memory() -> Path | None:
    """Return a folder in memory, where there is room for a run: on a busy disk each sync and each new file waits."""
    return _MEMORY if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM else None
