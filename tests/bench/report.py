"""The figures: medians, spreads and ratios, as a table for people and as JSON for programs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.peers import Peer
from tests.bench.plot import drawn
from tests.bench.works import LATENCY, Work


@dataclass(slots=True)
class Results:
    """Every figure by work and peer, in the order of the rounds; `failed` says why some are missing."""

    peers: Sequence[Peer]
    works: Sequence[Work]
    facts: dict[str, Any]
    skipped: list[str]
    figures: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    failed: dict[tuple[str, str], str] = field(default_factory=dict)
    cpu: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    """Microseconds of the processor that the process in between took for each statement, set-up included."""
    decisions: dict[str, list[float]] = field(default_factory=dict)
    rounds: int = 0

    def ratio(self, work: Work, ours: Peer, other: Peer) -> list[float]:
        """Return how fast ours is to the other, round by round: 1 is as fast, 0.5 is half as fast."""
        pairs = zip(
            self.figures.get((work.name, ours.label), ()), self.figures.get((work.name, other.label), ()), strict=False
        )
        return [theirs / own if work.cost else own / theirs for own, theirs in pairs]

    def ratios(self) -> dict[str, dict[str, float]]:
        """Return by work how fast each way through the broker is to each way that is not: medians."""
        found: dict[str, dict[str, float]] = {}
        for work in self.works:
            for own, other in self.compared:
                if values := self.ratio(work, own, other):
                    found.setdefault(work.name, {})[f"{own.label} / {other.label}"] = statistics.median(values)
        return found

    def added(self) -> dict[str, float]:
        """Return what each way adds to the median of a select, in parts of what pgbouncer adds."""
        direct, found = self._of(LATENCY, "direct", tls=False), {}
        for peer in self.peers:
            bouncer = self._of(LATENCY, "pgbouncer", tls=peer.tls)
            rounds = zip(direct, bouncer, self.figures.get((LATENCY, peer.label), ()), strict=False)
            parts = [(own - base) / (theirs - base) for base, theirs, own in rounds if theirs > base]
            if parts and peer.name not in ("direct", "pgbouncer"):
                found[peer.label] = statistics.median(parts)
        return found

    def _of(self, work: str, name: str, *, tls: bool) -> list[float]:
        found = (self.figures.get((work, peer.label)) for peer in self.peers if (peer.name, peer.tls) == (name, tls))
        return next(found, None) or []

    @property
    def compared(self) -> list[tuple[Peer, Peer]]:
        """Return each way through the broker with those that are not, of the same encryption where there are such."""
        ours = [peer for peer in self.peers if peer.name.startswith("airlock")]
        others = [peer for peer in self.peers if peer not in ours]
        return [
            (own, next((one for one in others if (one.name, one.tls) == (name, own.tls)), first))
            for own in ours
            for name, first in {one.name: one for one in reversed(others)}.items()
        ]


def spread(values: Sequence[float]) -> float:
    """Return the range of the figures as a part of their median."""
    middle = statistics.median(values)
    return (max(values) - min(values)) / middle if middle else 0.0


def table(results: Results) -> str:
    """Write the results for people."""
    labels = [peer.label for peer in results.peers]
    rows = [["median, and its spread", "", *labels]]
    for work in results.works:
        cells = [_figure(results, work, label) for label in labels]
        rows.append([work.name, work.unit, *cells])
    parts = [_aligned(rows), ""]
    for own in dict.fromkeys(own for own, _ in results.compared):
        others = [other for ours, other in results.compared if ours is own]
        rows = [[f"speed of {own.label}, as a part of", "", *(other.label for other in others)]]
        for work in results.works:
            found = [results.ratio(work, own, other) for other in others]
            if any(found):
                rows.append([work.name, "", *(f"{statistics.median(each):.2f}" if each else "-" for each in found)])
        parts += [_aligned(rows), ""]
    between = [peer.label for peer in results.peers if any(label == peer.label for _, label in results.cpu)]
    rows = [["processor's time of each statement in between", "", *between]]
    for work in results.works:
        if any(name == work.name for name, _ in results.cpu):
            found = [results.cpu.get((work.name, label), []) for label in between]
            rows.append([work.name, "µs", *(f"{statistics.median(each):.0f}" if each else "-" for each in found)])
    parts += [_aligned(rows), ""]
    if added := results.added():
        rows = [["added to the p50 of a select, in parts of what pgbouncer adds", "", *added]]
        rows.append(["", "", *(f"{part:.2f}" for part in added.values())])
        parts += [_aligned(rows), ""]
    rows = [["decision", "", "median, and its spread"]]
    rows += [[name, "µs", f"{statistics.median(each):.1f} ±{spread(each) / 2:.0%}"]
             for name, each in results.decisions.items()]  # fmt: skip
    parts += [_aligned(rows), ""]
    parts += [f"skipped: {line}" for line in results.skipped]
    parts += [f"FAILED: {work} at {label}: {why}" for (work, label), why in results.failed.items()]
    return "\n".join(parts).rstrip()


def _figure(results: Results, work: Work, label: str) -> str:
    if (work.name, label) in results.failed:
        return "failed"
    values = results.figures.get((work.name, label))
    if not values:
        return "-"
    middle = statistics.median(values)
    return f"{middle:,.{2 if middle < 100 else 0}f} ±{spread(values) / 2:.0%}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if at < 2 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def write(results: Results, path: Path) -> None:
    """Write the results for programs: every figure, with what the table says of it."""
    document = {
        **results.facts,
        "rounds": results.rounds,
        "peers": {peer.label: {"tls": peer.tls, "masked": peer.masked} for peer in results.peers},
        "works": {work.name: _work(results, work) for work in results.works},
        "cpu_us": {f"{work}: {label}": _summary(each) for (work, label), each in results.cpu.items()},
        "added_of_pgbouncer": results.added(),
        "decisions_us": {name: _summary(each) for name, each in results.decisions.items()},
        "skipped": results.skipped,
        "failed": [{"work": work, "peer": label, "why": why} for (work, label), why in results.failed.items()],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    path.with_suffix(".svg").write_text(drawn(results.ratios()), encoding="utf-8")


def _work(results: Results, work: Work) -> dict[str, Any]:
    figures = {peer.label: results.figures.get((work.name, peer.label), []) for peer in results.peers}
    ratios = {f"{own.label} / {other.label}": results.ratio(work, own, other) for own, other in results.compared}
    return {
        "unit": work.unit,
        "better": "less" if work.cost else "more",
        "peers": {label: _summary(values) for label, values in figures.items() if values},
        "speed_ratios": {name: _summary(values) for name, values in ratios.items() if values},
    }


def _summary(values: Sequence[float]) -> dict[str, Any]:
    return {"median": statistics.median(values), "spread": spread(values), "values": list(values)}
