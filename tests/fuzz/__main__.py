"""`python -m tests.fuzz`: every target in turn until the time is up; the first failure is printed at its smallest."""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, seed, settings

from tests.fuzz.targets import TARGETS

EXAMPLES = 200
"""How many a turn has: few enough that every target has many turns, enough that a failure can be made small."""


def turn(name: str, number: int, examples: int = EXAMPLES) -> None:
    """Try some examples of a target; a number gives the same ones again. Raises what the smallest failure raises."""
    strategy, check = TARGETS[name]

    @seed(number)
    @settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=False
    )
    @given(strategy)
    def tried(example: Any) -> None:
        check(example)

    tried()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=None, help="where the turns begin; printed")
    parser.add_argument("--only", choices=TARGETS, action="append")
    chosen = parser.parse_args()
    names = chosen.only or list(TARGETS)
    number = chosen.seed if chosen.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {number}, {chosen.seconds:.0f} s, {len(names)} targets", flush=True)
    began, turns, spent = time.monotonic(), Counter[str](), dict.fromkeys(names, 0.0)
    while not turns or time.monotonic() - began < chosen.seconds:
        # The target with the least time so far is next, so that slow ones do not keep the others waiting.
        name = min(names, key=lambda one: spent[one])
        start = time.monotonic()
        try:
            turn(name, number + turns[name])
        except Exception:  # noqa: BLE001 - it is what is looked for
            traceback.print_exc()
            print(
                f"\n{name} failed; again: python -m tests.fuzz --seconds 0 --only {name} --seed {number + turns[name]}"
            )
            return 1
        spent[name] += time.monotonic() - start
        turns[name] += 1
    for name in names:
        print(f"  {name:18} {turns[name] * EXAMPLES:9} examples")
    print(f"nothing found in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
