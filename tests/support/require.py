"""Skips what a machine cannot run, saying what to install; where everything is required, fails instead."""

import os
import shutil
from typing import NoReturn

import pytest

from broker.core import compiled


def require_program(name: str, install: str) -> str:
    """The path of a program on PATH; without it the test is skipped, or fails under AIRLOCK_REQUIRE_ALL=1."""
    path = shutil.which(name)
    if path is None:
        missing(f"`{name}` is not installed", install)
    return path


def missing(what: str, install: str) -> NoReturn:
    """Skips the test, naming the line that would let it run; fails it under AIRLOCK_REQUIRE_ALL=1."""
    message = f"{what}: {install}"
    if _required():
        pytest.fail(message)
    pytest.skip(message)


def _required() -> bool:
    return os.environ.get("AIRLOCK_REQUIRE_ALL") == "1"


needs_core = pytest.mark.skipif(
    compiled is None and not _required(),
    reason="the compiled core is not built: `apt install gcc python3-dev`, then `make`",
)


_SINCE = {
    "multirange": 14,
    "rngmultitypid": 14,
    "date_bin(": 14,
    "group by distinct": 14,
    "pg_get_function_sqlbody": 14,
    # Before, nobody but superusers could read any column of it.
    "from pg_catalog.pg_subscription": 14,
    "merge into": 15,
}


def older_than(sql: str, major: int) -> bool:
    """Whether a server of this version is older than something in a statement."""
    return any(word in sql.lower() and major < since for word, since in _SINCE.items())


def skip_where_older(sql: str, major: int) -> None:
    """Skip a test of a statement that a server of this version does not know: those of the suite's own know all."""
    if older_than(sql, major):
        pytest.skip("this server is older than the statement")
