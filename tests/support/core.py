"""Tests of the compiled core are skipped where it is not built."""

import os

import pytest

from broker.core import compiled

needs_core = pytest.mark.skipif(
    compiled is None and not os.environ.get("AIRLOCK_REQUIRE_ALL"),
    reason="the compiled core is not built: `apt install gcc python3-dev`, then `make`",
)
