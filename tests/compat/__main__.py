"""`python -m tests.compat`: run the suites both ways and compare; fails on a difference that is not listed."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
from collections import Counter
from pathlib import Path

import structlog
import yaml

from tests.compat.comparing import Comparison, Outcomes, compare
from tests.compat.corpus import Corpus
from tests.compat.stage import Door, doors, fresh_database
from tests.compat.suites import SUITES, Suite
from tests.support.postgres import Server, running_server

KNOWN = Path(__file__).with_name("differences.yaml")
SERVER = "wheel"
_SETTINGS = {"max_connections": "200"}


async def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.compat", description=__doc__)
    parser.add_argument("--suite", choices=[suite.package for suite in SUITES], action="append")
    parser.add_argument("--only", default="", help="a pytest expression; differences that are gone are not looked for")
    parser.add_argument("--seconds", type=float, default=900, help="the longest that a suite may take through a door")
    parser.add_argument("--server", default=SERVER, help="the PostgreSQL: wheel, debian, a version or a folder")
    parser.add_argument("--keep", type=Path, help="a folder for logs and reports")
    parser.add_argument("--all", action="store_true", help="print what is known to differ too")
    chosen = parser.parse_args()
    good = True
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with running_server(chosen.server, _SETTINGS) as server, tempfile.TemporaryDirectory() as home:
        folder = (chosen.keep or Path(home)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        async with doors(server, Path(home)) as both:
            for suite in SUITES:
                if not chosen.suite or suite.package in chosen.suite:
                    good &= await _Match(suite, both, server, folder, chosen).played()
    return 0 if good else 1


class _Match:
    """One suite through both doors."""

    def __init__(
        self, suite: Suite | Corpus, both: tuple[Door, Door], server: Server, folder: Path, chosen: argparse.Namespace
    ) -> None:
        self._suite = suite
        self._both = both
        self._server = server
        self._folder = folder
        self._chosen = chosen

    async def played(self) -> bool:
        """Run and compare; says whether what differs is what is listed."""
        lists = yaml.safe_load(KNOWN.read_text())
        known: dict[str, list[str]] = lists[self._suite.package] or {}
        unsteady = frozenset(test for tests in lists["unsteady"].values() for test in tests)
        plain, broker = await self._runs(self._chosen.only, "")
        found = compare(plain, broker, known, unsteady)
        if found.unlisted and not self._chosen.only:
            # Some tests race against a clock: what differs for the first time is run again by itself.
            names = sorted({test.partition("[")[0].rpartition(".")[2] for test in found.unlisted})
            again = await self._runs("" if not self._suite.fresh else " or ".join(names), "-again")
            for first, second in zip((plain, broker), again, strict=True):
                first.update((test, second[test]) for test in found.unlisted if test in second)
            found = compare(plain, broker, known, unsteady)
        self._print(plain, broker, found)
        return not found.unlisted and (found.good or not self._whole)

    @property
    def _whole(self) -> bool:
        """Whether everything ran that the list is of: every test, on the server that it was written for."""
        return not self._chosen.only and self._chosen.server == SERVER

    async def _runs(self, only: str, suffix: str) -> tuple[Outcomes, Outcomes]:
        runs = []
        for number, door in enumerate(self._both):
            if number == 0 or self._suite.fresh:
                await asyncio.to_thread(fresh_database, self._server)
            report = self._folder / f"{self._suite.package}-{door.name}{suffix}.xml"
            runs.append(await self._suite.run(door, report, self._chosen.seconds, only))
        return runs[0], runs[1]

    def _print(self, plain: Outcomes, broker: Outcomes, found: Comparison) -> None:
        print(f"{self._suite.package:12} {'passed':>8} {'failed':>8} {'skipped':>8}")
        for name, outcomes in (("forwarder", plain), ("broker", broker)):
            counts = Counter(outcome for outcome, _ in outcomes.values())
            print(f"  {name:10} {counts['passed']:8} {counts['failed']:8} {counts['skipped']:8}")
        for test, reason in found.differing.items():
            before, after = (outcomes.get(test, ("missing", "")) for outcomes in (plain, broker))
            if not reason or self._chosen.all:
                print(f"  {reason or 'UNLISTED'}: {test}: {before[0]} -> {after[0]}: {after[1] or before[1]}")
        gone = found.gone if self._whole else ()
        for pattern in gone:
            print(f"  GONE: {pattern} is listed, and not everything that it names differs: mend the list")
        print(f"  {len(found.differing)} differ, {len(found.unlisted)} of them unlisted; {len(gone)} listed are gone")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
