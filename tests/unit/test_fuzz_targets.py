"""Each target of `make fuzz` holds for its first few examples."""

import pytest

from tests.fuzz.__main__ import turn
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_fuzz_target_holds(target: str) -> None:
    turn(target, 0, examples=20)
