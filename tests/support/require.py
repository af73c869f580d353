"""Skips what a machine cannot run, saying what to install; where everything is required, fails instead."""

import os
import shutil
from typing import NoReturn

import pytest


def require_program(name: str, install: str) -> str:
    """The path of a program on PATH; without it the test is skipped, or fails under AIRLOCK_REQUIRE_ALL=1."""
    path = shutil.which(name)
    if path is None:
        missing(f"`{name}` is not installed", install)
    return path


def missing(what: str, install: str) -> NoReturn:
    """Skips the test, naming the line that would let it run; fails it under AIRLOCK_REQUIRE_ALL=1."""
    message = f"{what}: {install}"
    if os.environ.get("AIRLOCK_REQUIRE_ALL") == "1":
        pytest.fail(message)
    pytest.skip(message)
