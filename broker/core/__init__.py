"""The compiled core: where it is built, known point reads go through it; without it, the same way goes in Python.

`python -m broker.core` builds it, with a C compiler and Python's headers; AIRLOCK_CORE=python leaves it out.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from itertools import count
from types import ModuleType

from broker.core.build import up_to_date


def _load() -> ModuleType | None:
    # One that was built of another source is not the one that was tested.
    if os.environ.get("AIRLOCK_CORE", "") == "python" or not up_to_date():
        return None
    try:
        return importlib.import_module("broker.core.lane")
    except ImportError:
        return None


compiled = _load()
"""The module `lane`, or None."""


class Moves:
    """Counts what may change a ruling."""

    def __init__(self) -> None:
        self.count = 0


def new_moves() -> Moves:
    """Return a count that the compiled core reads, where there is one."""
    made: Moves = Moves() if compiled is None else compiled.Moves()
    return made


def new_ids(first: int) -> Callable[[], str]:
    """Return what gives the ids of a session's statements, the compiled core's where there is one."""
    made: Callable[[], str] = map("q{:016x}".format, count(first)).__next__ if compiled is None else compiled.Ids(first)
    return made
