"""What became of approved statements: those that failed, were rolled back later, or whose end nobody knows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from broker.protocols.postgres import records
from broker.protocols.postgres.events import Note
from broker.sessions.model import SessionFacts


@dataclass(slots=True)
class _Run:
    hold: str
    level: int | None = None
    """Under how many savepoints it completed; None while it has not."""


@dataclass(slots=True)
class Fates:
    """Statements that used up an approval, by their ids, until their transaction is over."""

    facts: SessionFacts
    runs: dict[str, _Run] = field(default_factory=dict)

    def begun(self, hold: str, ids: tuple[str, ...]) -> None:
        """Take note of statements that are sent under an approval."""
        self.runs.update((id_, _Run(hold)) for id_ in ids)

    def finished(self, id_: str, outcome: str, level: int) -> Iterator[Note]:
        """Take note of the end of a statement."""
        if (run := self.runs.get(id_)) is None:
            return
        if outcome == "ok":
            run.level = level
        else:
            yield from self._undone(id_, "failed" if outcome == "failed" else "not_run")

    def released(self, level: int) -> None:
        """Take note that savepoints beyond so many are gone, and what was done since is kept with the rest."""
        for run in self.runs.values():
            run.level = run.level if run.level is None else min(run.level, level)

    def rolled_back(self, level: int) -> Iterator[Note]:
        """Take note that what was done since so many savepoints is undone."""
        for id_, run in list(self.runs.items()):
            if run.level is not None and run.level > level:
                yield from self._undone(id_, "rolled_back")

    def over(self, *, kept: bool) -> Iterator[Note]:
        """Take note that the transaction is over; what has not completed is in a later one."""
        if not kept:
            yield from self.rolled_back(-1)
        self.runs = {id_: run for id_, run in self.runs.items() if run.level is None}

    def lost(self) -> Iterator[Note]:
        """Take note that nobody will hear how it ended."""
        for id_ in list(self.runs):
            yield from self._undone(id_, "unknown")

    def _undone(self, id_: str, outcome: str) -> Iterator[Note]:
        run = self.runs.pop(id_, None)
        if run is None:
            return
        # Of several statements of one text, the first says it.
        self.runs = {other: one for other, one in self.runs.items() if one.hold != run.hold}
        yield Note(records.undone(self.facts, run.hold, id_, outcome))
