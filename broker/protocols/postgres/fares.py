"""What goes by express: which rulings board, what is known of each, and one exchange on its way."""

from __future__ import annotations

from dataclasses import dataclass, fields
from operator import attrgetter

from broker.protocols.postgres import codec, records
from broker.protocols.postgres.registry import Portal, Prepared
from broker.protocols.postgres.ruling import Permitted
from broker.sessions.holds import Asked
from broker.sessions.model import Durability, Entry
from broker.sql.model import Inspection, SearchPath, Statement
from policies.engine.decisions import Effect

_READ = frozenset({Effect.READ})
_DURABILITIES = (Durability.WRITTEN, Durability.RESULTS_WAIT)
# What texts of one shape have in common.
_plain = attrgetter(*(one.name for one in fields(Permitted) if one.name not in ("sql", "inspection")))
_inspected = attrgetter(*(one.name for one in fields(Inspection) if one.name not in ("rewritten", "edits")))


@dataclass(slots=True)
class Fare:
    """What is known of a ruling that boards; `shown` is the last description of its columns that tripped no wire."""

    ruling: Permitted
    form: records.Form
    wires: frozenset[tuple[int, int]] | None = None
    shown: bytes = b""

    def fits(self, ruling: Permitted) -> bool:
        """Say whether a ruling is this one, or differs from it in its text alone."""
        mine = self.ruling
        if ruling is mine:
            return True
        return bool(_plain(ruling) == _plain(mine) and _inspected(ruling.inspection) == _inspected(mine.inspection))


@dataclass(slots=True)
class Bound:
    """The extended protocol's part of a ride; `parsed` where it brings its Parse."""

    prepared: Prepared
    parsed: str | None
    described: bool
    asked: Asked
    parameters: tuple[dict[str, object], ...]

    @classmethod
    def of(
        cls,
        prepared: Prepared,
        bind: codec.Bind,
        path: SearchPath | None,
        *,
        described: bool,
        parsed: str | None = None,
    ) -> Bound:
        asked = Asked(prepared.sql, (), bind.values, bind.formats, prepared.types, bind.results, path=path)
        return cls(prepared, parsed, described, asked, records.parameters(bind.formats, bind.values))

    def portal(self, ride: Ride) -> Portal:
        path = self.asked.path
        return Portal(self.prepared, self.asked, self.parameters, (ride.id,), since=ride.since, path=path)


@dataclass(slots=True)
class Ride:
    """An exchange on its way: `data` is what goes upstream, once `entry` is written."""

    ruling: Permitted
    fare: Fare
    id: str
    segment: int
    since: float
    data: bytes
    entry: Entry
    bound: Bound | None = None


def boards(ruling: Permitted) -> bool:
    """Say whether a ruling lets one plain read pass with a record and nothing else.

    Whatever else a ruling may come to say has to be at its default here, so that it is the gate's (fail closed).
    """
    found = ruling.inspection
    if len(found.statements) != 1 or ruling.durability not in _DURABILITIES:
        return False
    one = found.statements[0]
    plain = Inspection(
        found.statements,
        found.rewritten,
        found.edits,
        found.scrub,
        found.catalogue,
        found.tripwire,
        path=found.path,
    )
    return (
        one.facts.effects == _READ
        and ruling == Permitted(ruling.sql, found, ruling.rules, ruling.durability)
        and one == Statement(one.facts, one.redacted)
        and found == plain
    )


def meant(prepared: Prepared, ruling: Permitted) -> bool:
    """Say whether a statement would be sent today as it was prepared, and watched in the same way."""
    before = prepared.ruling.inspection
    after = ruling.inspection
    return (before.rewritten, before.scrub, before.revealed) == (after.rewritten, after.scrub, after.revealed)
