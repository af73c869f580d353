"""Plays seeds one after another on a few rigs, checks every run from outside, and reports what does not hold."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from broker.adapters.verify import verify
from tests.chaos.evidence import Watch
from tests.chaos.faults import Plan, plan
from tests.chaos.invariants import Scene, unsettled, violations
from tests.chaos.people import Unanswered
from tests.chaos.rig import Rig
from tests.chaos.stage import PATIENCE, NeverCame
from tests.chaos.story import Story
from tests.chaos.upstream import Upstream

RUNS_OF_A_RIG = 20


@dataclass(slots=True)
class Result:
    """How one run went."""

    plan: Plan
    problems: list[str]
    timeline: list[str]
    seconds: float
    settled: float
    """Seconds from the end of the last fault until everything had come to rest."""


@dataclass(slots=True)
class Report:
    """How all of them went."""

    results: list[Result] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    rig_problems: list[str] = field(default_factory=list)

    @property
    def failed(self) -> list[Result]:
        """The runs in which something does not hold."""
        return [result for result in self.results if result.problems]

    def summary(self) -> str:
        """Say it in a few lines."""
        settled = sorted(result.settled for result in self.results) or [0.0]
        kinds = Counter(f"{fault.kind} {fault.target}" for result in self.results for fault in result.plan.faults)
        cells = {(fault.step, fault.kind, fault.target) for result in self.results for fault in result.plan.faults}
        words = [
            f"{len(self.results)} runs, {len(self.failed)} with violations; {sum(kinds.values())} faults of"
            f" {len(kinds)} kinds, {len(cells)} different cells (step, fault)",
            f"at rest after the last fault: median {settled[len(settled) // 2]:.1f} s, longest {settled[-1]:.1f} s",
            ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())),
        ]
        return "\n".join([*words, *self.rig_problems])


class Runner:
    """Keeps an upstream and a rig, and plays plans on them."""

    def __init__(self, echo: Callable[[str], None], short: bool = False, workers: int = 1) -> None:
        self._echo = echo
        self._workers = workers
        self._short = short
        self._upstream = Upstream()
        self._rig: Rig | None = None
        self._watch: Watch | None = None
        self._watching: asyncio.Task[None] | None = None
        self._used = 0
        self._timelines: dict[int, list[str]] = {}
        self._beside: dict[int, set[int]] = {}
        self._late: list[asyncio.Task[Result]] = []
        self._broken = False
        self.report = Report()

    async def run(self, first: int, count: int) -> Report:
        """Play `count` seeds from `first` on."""
        return await self.play(plan(seed, self._short) for seed in range(first, first + count))

    async def play(self, plans: Iterable[Plan]) -> Report:
        """Play what is planned."""
        await self._upstream.start()
        try:
            for made in plans:
                if self._rig is None or self._broken or (self._used >= RUNS_OF_A_RIG and not self._late):
                    await self._fresh()
                await self._one(made)
            await self._settle_late()
        finally:
            await self._done_with_rig()
            await self._upstream.stop()
        return self.report

    async def _one(self, made: Plan) -> None:
        self._used += 1
        running = asyncio.create_task(self._result(made), name=str(made))
        if made.ending == "expiry" and not self._short and made.decision == "approve":
            # What ends by itself in a minute does so while others go on.
            self._late.append(running)
            if len(self._late) >= 6 or self._used >= RUNS_OF_A_RIG:
                await self._settle_late()
            else:
                await asyncio.wait({running}, timeout=12)
            return
        self._take(await running)

    async def _settle_late(self) -> None:
        for task in self._late:
            self._take(await task)
        self._late = []

    def _take(self, result: Result) -> None:
        self.report.results.append(result)
        verdict = f"{len(result.problems)} VIOLATIONS" if result.problems else "ok"
        self._echo(f"{verdict:>14}  {result.seconds:5.1f} s  {result.plan}")
        if result.problems:
            self._broken = True
            for problem in result.problems:
                self._echo(f"    {problem}")
            for line in result.timeline:
                self._echo(f"      {line}")
            self._echo(f"    again: {self._again(result.plan.seed)}")

    def _again(self, seed: int) -> str:
        beside = self._beside.get(seed, {seed})
        alone = f"make chaos RUNS=1 SEED={seed}"
        if len(beside) == 1:
            return alone
        return f"{alone}; others went on beside it: make chaos RUNS={max(beside) - min(beside) + 1} SEED={min(beside)}"

    async def _result(self, made: Plan) -> Result:
        assert self._rig is not None
        assert self._watch is not None
        rig, watch = self._rig, self._watch
        lines = self._timelines[made.seed] = []
        self._beside[made.seed] = set(self._timelines)
        for seed in self._timelines:
            self._beside[seed].add(made.seed)
        began = time.monotonic()

        def say(text: str) -> None:
            if lines and lines[-1].endswith(text):
                return
            lines.append(f"{time.monotonic() - began:7.3f}  {text}")

        story = Story(rig, made, say)
        problems: list[str] = []
        deaths = {name: member.deaths for name, member in rig.members.items()}
        try:
            await story.play()
        except (NeverCame, Unanswered) as error:
            problems.append(f"story: {error}")
        except Exception:
            problems.append(f"story: {traceback.format_exc()}")
        try:
            await story.heal()
            settled = await self._rest(rig, watch, story, problems)
            problems += await violations(Scene(rig, watch, story))
        except Exception:
            settled = 0.0
            problems.append(f"checks: {traceback.format_exc()}")
        problems += [
            f"{name} ended by itself {member.deaths - deaths[name]} times"
            for name, member in rig.members.items()
            if member.deaths > deaths[name]
        ]
        self._timelines.pop(made.seed, None)
        return Result(made, problems, lines, time.monotonic() - began, settled)

    async def _rest(self, rig: Rig, watch: Watch, story: Story, problems: list[str]) -> float:
        """Wait until nothing is under way any more; what still is after the patience is a violation."""
        left: list[str] = []
        while time.time() < story.healed_at + PATIENCE:
            with suppress(psycopg.Error):
                self._upstream.flush()
            watch.look()
            left = unsettled(Scene(rig, watch, story))
            if not left:
                return time.time() - story.healed_at
            await asyncio.sleep(0.1)
        problems += [f"not at rest after {PATIENCE:.0f} s: {what}" for what in left]
        return time.time() - story.healed_at

    async def _fresh(self) -> None:
        await self._done_with_rig()
        self._broken = False
        self._rig = Rig(self._upstream, self._say, self._workers)
        await self._rig.start()
        self._watch = Watch(self._rig)
        self._watching = asyncio.create_task(self._watch.run(), name="watch")
        self._used = 0

    def _say(self, text: str) -> None:
        """Put what processes do into the timeline of every run that goes on."""
        now = time.strftime("%H:%M:%S")
        for lines in self._timelines.values():
            lines.append(f"{now}  {text}")

    async def _done_with_rig(self) -> None:
        if self._rig is None:
            return
        await self._settle_late()
        if self._watching is not None:
            self._watching.cancel()
        bad = self._broken or any(result.problems for result in self.report.results[-self._used :] if self._used)
        await self._rig.stop(keep=True)
        found = verify(self._rig.state)
        if not found.good:
            bad = True
            problem = f"audit verify of {self._rig.root}: {found.findings[:3]}"
            self.report.rig_problems.append(problem)
            self._echo(f"VIOLATION  {problem}")
        if bad:
            self.report.kept.append(self._rig.root)
            self._echo(f"    kept: {self._rig.root}")
        else:
            await self._rig.stop()
        self._rig = None
