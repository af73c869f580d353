"""`python -m tests.chaos --runs N --seed S`: the fault matrix; with `--bars`, what holds on a quiet rig."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

from tests.chaos.bars import Sizes, measure
from tests.chaos.faults import without_a_net
from tests.chaos.rig import NO_COMPILER, clock_shim
from tests.chaos.runner import Runner


def main() -> int:
    """Run and print; 1 where something does not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="without what takes a minute: access that runs out")
    parser.add_argument("--bars", action="store_true", help="measure the bars instead")
    parser.add_argument("--prove", action="store_true", help="whether the checks notice that nobody ends a session")
    parser.add_argument("--full", action="store_true", help="measure them as often as a release needs")
    parser.add_argument("--workers", type=int, default=1, help="processes of the broker that serve sessions")
    options = parser.parse_args()
    started = time.monotonic()
    if options.bars:
        sizes = Sizes(1000, 1000, 300, 60, 200) if options.full else Sizes()
        bars = asyncio.run(measure(sizes, lambda line: print(line, flush=True), options.workers))
        return 0 if all(bar.held for bar in bars) else 1
    if options.prove:
        return asyncio.run(_proved())
    if clock_shim() is None:
        print(f"skipped: {NO_COMPILER}")
    runner = Runner(lambda line: print(line, flush=True), options.short, options.workers)
    report = asyncio.run(runner.run(options.seed, options.runs))
    print(report.summary())
    print(f"{time.monotonic() - started:.0f} s")
    return 1 if report.failed or report.rig_problems else 0


async def _proved() -> int:
    lines: list[str] = []
    report = await Runner(lines.append).play([without_a_net()])
    noticed = [problem for result in report.failed for problem in result.problems if "outlived" in problem]
    print("\n".join(noticed or ["NOT NOTICED: broker and reaper stood still past a session's end", *lines]))
    return 0 if noticed else 1


if __name__ == "__main__":
    sys.exit(main())
