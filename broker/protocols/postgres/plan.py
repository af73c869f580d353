"""A plan: a text ruled on together with the prepared statements that it makes, runs or removes."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

from broker.protocols.postgres.copying import Copying
from broker.protocols.postgres.events import Command, Drain, Inspect
from broker.protocols.postgres.memory import Room
from broker.protocols.postgres.pathway import elsewhere, follow, misplaced, strayed
from broker.protocols.postgres.registry import Change, Cursor, Portal, Prepared, Registry, Uncertain, V
from broker.protocols.postgres.responses import Running
from broker.protocols.postgres.ruling import Asking, Denied, Permitted, Ruling
from broker.protocols.postgres.settings import current, otherwise, reading
from broker.protocols.postgres.shared import Session
from broker.protocols.postgres.values import TYPES
from broker.sessions.model import Durability
from broker.sql.meaning import changed
from broker.sql.model import Control, Meaning, Moves, Statement
from policies.engine.decisions import NO_LIMITS, Effect

stale = Denied(
    "0A000",
    "cached plan must not change result type",
    (),
    "prepare the statement again",
    routine="RevalidateCachedQuery",
)
"""What drivers know as the order to prepare again: today's rewriting is not what the upstream parsed."""

outdated = Denied("0A000", "what may be seen has changed since this cursor was declared", (), "declare it again")
"""Its rows would come as they were decided on under an earlier policy or catalogue."""

unfetched = Denied("0A000", "what a reviewer reveals is not fetched by name", ("reveal",), "run the SELECT itself")
"""An approval is for the rows of one run, as its own client asks for them."""

unshaped = Denied("0A000", "what an approved shape let pass is not fetched by name", ("shape",), "execute it itself")
"""Whether its shape is still approved is asked wherever a client executes it, and not here."""

uncounted = Denied("0A000", "a change with a row bound is not fetched by name", ("row-bound",), "execute it itself")
"""Its rows are counted wherever a client executes it, and not over several FETCHes."""

unexecuted = Denied("0A000", "EXECUTE runs queries and changes of data here", ("prepare",), "send the statement itself")
"""The protocol prepares COMMIT, COPY and ALTER too, and what those do is followed where a client sends them."""

unmoved = Denied("0A000", "what sets the search path is not fetched by name", ("search-path",), "execute it itself")
"""What a client runs itself is followed by a look at the path, and this is not."""

_UNTOLD = (Moves.NOT, Moves.UNKNOWN)
"""What a look at the path behind it follows, whoever runs it."""
_OWN_SETTINGS = 64
_GRADES = (Durability.WRITTEN, Durability.RESULTS_WAIT, Durability.SYNCED)


@dataclass(frozen=True, slots=True)
class Plan:
    """`parsed` is the ruling on the text alone, `ruling` the same joined with the `bodies` that it runs."""

    parsed: Permitted
    ruling: Permitted
    changes: tuple[tuple[Change[Prepared], ...], ...]
    bodies: tuple[Permitted, ...] = ()
    texts: tuple[str, ...] = ()
    """What reviewers see of each body."""
    segment: int = 0
    room: Room | None = field(default=None, compare=False, repr=False)
    """What the texts of cursors take of the memory."""

    @property
    def statements(self) -> tuple[Statement, ...]:
        return self.parsed.inspection.statements

    @property
    def rewritten(self) -> str:
        return self.parsed.inspection.rewritten

    @property
    def writes(self) -> bool:
        """Say whether it may change data, by itself or a body that it runs."""
        return any(Effect.WRITE in one.facts.all_effects for one in self._every)

    @property
    def named(self) -> frozenset[str]:
        """Relations that it changes, or a body that it runs, with what stands behind them and follows them."""
        facts = [one.facts for one in self._every if one.facts.writes]
        return frozenset().union(*(one.relations | one.through | one.reaches for one in facts))

    @property
    def settings(self) -> frozenset[str]:
        """Settings of an application's own that it, or a body that it runs, could set."""
        return frozenset().union(*(one.facts.settings for one in self._every))

    @property
    def means(self) -> Meaning:
        """What it is about, and the bodies that it runs."""
        every = (self.parsed, *self.bodies)
        return tuple(sorted({one for ruling in every for one in ruling.inspection.means}))

    @property
    def compared(self) -> frozenset[str]:
        """Masked fields that it compares, or a body that it runs."""
        return frozenset().union(*(one.compared for one in self._every))

    @property
    def _every(self) -> list[Statement]:
        """Its statements, and those of the bodies that it runs."""
        return [one for ruling in (self.parsed, *self.bodies) for one in ruling.inspection.statements]

    def running(self, ids: Sequence[str]) -> list[Running]:
        return [
            Running(
                id_,
                statement.control,
                changes,
                self._moved(statement),
                statement.alters,
                self._copying(at, statement),
                statement.name,
                self.ruling.inspection.statements[at].moves,
            )
            for at, (id_, statement, changes) in enumerate(zip(ids, self.statements, self.changes, strict=True))
        ]

    def _copying(self, at: int, statement: Statement) -> Copying | None:
        if not statement.facts.copying:
            return None
        limits = self.parsed.limits[at] if self.parsed.limits else NO_LIMITS
        return Copying(statement.facts.copying == "in", limits, statement.form, self.parsed.rules[at])

    def _moved(self, statement: Statement) -> tuple[Change[Portal | Cursor], ...]:
        """Return what a statement does to portals: SQL and the protocol name the same ones."""
        match statement.control:
            case Control.DECLARE | Control.DECLARE_HELD:
                cursor = Cursor(self.parsed, held=statement.control is Control.DECLARE_HELD, room=self.room)
                return (Change(self.segment, statement.name, cursor),)
            case Control.DISCARD_ALL:
                return (Change(self.segment, None, None),)
            case Control.CLOSE:
                return (Change(self.segment, statement.name or None, None),)
            case _:
                return ()


Planning = Generator[Command, Any, "Plan | Denied"]


class Planner:
    """Plans one text under today's policy and catalogue."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._own: list[Change[Prepared]] = []
        self._declared: set[str] = set()

    def text(self, sql: str, types: tuple[int, ...] = ()) -> Planning:
        """Plan a text of the client's; `types` are users' own that it declares for parameters."""
        if self._session.altered:
            # What an earlier segment does to the schema shows with its end, and what this text means after that.
            yield Drain()
        yield from follow(self._session)
        ruling: Ruling = yield self._inspect(sql, types)
        if isinstance(ruling, Permitted):
            statements = ruling.inspection.statements
            unfit = misplaced(self._session, statements) or _outlasting(self._session, statements)
            ruling = unfit or _overmany(self._session, statements) or ruling
        if isinstance(ruling, Denied):
            return ruling
        bodies: list[Permitted] = []
        texts: list[str] = []
        changes: list[tuple[Change[Prepared], ...]] = []
        for statement in ruling.inspection.statements:
            made: tuple[Change[Prepared], ...] = ()
            match statement.control:
                case Control.PREPARE if not self._session.prepared.has_room(len(self._own)):
                    return _too_many("prepared statements", "deallocate some of them", statement)
                case Control.PREPARE:
                    body: Ruling = yield self._inspect(statement.body)
                    if isinstance(body, Denied):
                        return body
                    # What stands before it in its text may change them.
                    alone = len(ruling.inspection.statements) == 1
                    settings = (yield from current(self._session)) if alone and body.consults else None
                    room = self._session.keep_texts(body)
                    prepared = Prepared(body, room=room, settings=settings, declared=statement.declared)
                    made = (Change(self._session.segment, statement.name, prepared),)
                case Control.EXECUTE:
                    answer = yield from self._body(statement)
                    if isinstance(answer, Denied):
                        return answer
                    bodies.append(answer)
                    texts.append((yield from self._shown(statement)))
                case Control.FETCH if statement.name not in self._declared:
                    rows = yield from self._rows(statement)
                    if isinstance(rows, Denied):
                        return rows
                    if rows is not None:
                        bodies.append(rows)
                        texts.append(rows.sql)
                case Control.DECLARE | Control.DECLARE_HELD if not self._session.portals.has_room(len(self._declared)):
                    return _too_many("cursors", "close some of them", statement)
                case Control.DECLARE | Control.DECLARE_HELD:
                    self._declared.add(statement.name)
                case Control.DEALLOCATE | Control.DISCARD_ALL:
                    made = (Change(self._session.segment, statement.name or None, None),)
                case _:
                    pass
            self._own += made
            changes.append(made)
        room = self._session.keep_texts(ruling) if self._declared else None
        joined, segment = _joined(ruling, bodies), self._session.segment
        if denied := strayed(joined.inspection.statements):
            return denied
        return Plan(ruling, joined, tuple(changes), tuple(bodies), tuple(texts), segment, room)

    def _inspect(self, sql: str, types: tuple[int, ...] = ()) -> Inspect:
        return Inspect(sql, self._session.altered, types)

    def again(self, prepared: Prepared) -> Planning:
        """Plan a prepared statement as if it came now; `stale` where it would be sent in other words."""
        plan = yield from self.text(prepared.sql, prepared.own)
        if isinstance(plan, Plan) and plan.rewritten != prepared.rewritten:
            return stale
        return plan

    def _body(self, statement: Statement) -> Generator[Command, Any, Ruling]:
        prepared = yield from self._find(statement.name)
        if prepared is None:
            return Denied(
                "26000",
                f'prepared statement "{statement.name}" does not exist',
                ("prepared-unknown",),
                verb=statement.facts.verb,
                text=statement.redacted,
            )
        ruling: Ruling = yield self._inspect(prepared.sql, prepared.own)
        if isinstance(ruling, Permitted) and ruling.inspection.rewritten != prepared.rewritten:
            return stale
        # Who reviews what this very text prepares sees all of it.
        if isinstance(ruling, Permitted) and ruling.consults and not self._made(prepared):
            settings = yield from current(self._session)
            if reading(settings) != reading(prepared.settings) and not self._session.fails:
                return replace(otherwise, verb=statement.facts.verb, text=statement.redacted)
        if isinstance(ruling, Permitted) and not _is_query(ruling):
            return replace(unexecuted, verb=statement.facts.verb, text=statement.redacted)
        if isinstance(ruling, Permitted) and ruling.inspection.revealed:
            return replace(unfetched, verb=statement.facts.verb, text=statement.redacted)
        return ruling

    def _shown(self, statement: Statement) -> Generator[Command, Any, str]:
        """Return what EXECUTE runs, for reviewers: the types of parameters say what its values are."""
        prepared = yield from self._find(statement.name)
        assert prepared is not None
        types = prepared.declared or ", ".join(TYPES.get(oid, f"type {oid}") for oid in prepared.types)
        return f"-- of parameters ({types})\n{prepared.sql}" if types else prepared.sql

    def _rows(self, statement: Statement) -> Generator[Command, Any, Ruling | None]:
        """Rule anew on what a FETCH takes rows of; None where there is no such name, as the upstream says itself."""
        found = yield from found_in(self._session.portals, statement.name, self._session.segment)
        if found is None:
            return None
        before = found.ruling if isinstance(found, Cursor) else found.prepared.ruling
        if (before.inspection.path if isinstance(found, Cursor) else found.path) != self._session.way.path:
            return replace(elsewhere, verb=statement.facts.verb, text=statement.redacted)
        ruling: Ruling = yield self._inspect(before.sql, found.prepared.own if isinstance(found, Portal) else ())
        if isinstance(ruling, Denied):
            return replace(ruling, verb=statement.facts.verb, text=statement.redacted)
        other = not before.asking or changed(before.inspection.means, ruling.inspection.means)
        if ruling.inspection.rewritten != before.inspection.rewritten or (ruling.asking and other):
            # Fail closed: the upstream has the rows of the earlier text, whoever may see them now.
            return replace(outdated, verb=statement.facts.verb, text=statement.redacted)
        if any(one.moves not in _UNTOLD for one in ruling.inspection.statements):
            return replace(unmoved, verb=statement.facts.verb, text=statement.redacted)
        if ruling.inspection.revealed:
            return replace(unfetched, verb=statement.facts.verb, text=statement.redacted)
        if ruling.asking is not None and isinstance(found, Portal) and found.shape:
            return replace(unshaped, verb=statement.facts.verb, text=statement.redacted)
        if ruling.bound is not None or (isinstance(found, Portal) and found.most is not None):
            return replace(uncounted, verb=statement.facts.verb, text=statement.redacted)
        # What was asked about was answered before the cursor was made, and what it searches for was counted then.
        inspection = replace(ruling.inspection, searches=())
        return replace(ruling, inspection=inspection, asking=None)

    def _made(self, prepared: Prepared) -> bool:
        return any(change.value is prepared for change in self._own)

    def _find(self, name: str) -> Generator[Command, Any, Prepared | None]:
        """Look a name up, first among what this very text prepares."""
        for change in reversed(self._own):
            if change.name is None or change.name == name:
                return change.value
        return (yield from found_in(self._session.prepared, name, self._session.segment))


def _outlasting(session: Session, statements: Sequence[Statement]) -> Denied | None:
    """Say why a timeout may not last that long: in the last resort it ends what nobody else does."""
    for one in statements:
        if one.lasting > session.longest:
            message = f"no timeout of this session lasts longer than {session.longest // 1000}s, when its access ends"
            hint = "set it shorter; RESET has it last that long"
            return Denied("42501", message, ("settings",), hint, verb=one.facts.verb, text=one.redacted)
    return None


def _overmany(session: Session, statements: Sequence[Statement]) -> Denied | None:
    """Say why a session may set no more settings of an application's own: each is asked for before a review."""
    for one in statements:
        if len(session.own_settings | one.facts.settings) > _OWN_SETTINGS:
            return _too_many("settings of an application's own", "connect again", one)
    return None


def _too_many(what: str, hint: str, statement: Statement) -> Denied:
    message, verb, text = f"too many {what} in this session", statement.facts.verb, statement.redacted
    return Denied("53400", message, ("limit-names",), hint, verb=verb, text=text)


def found_in(registry: Registry[V], name: str, segment: int) -> Generator[Command, Any, V | None]:
    """Return what a name will stand for, once the answers that it depends on have come."""
    while True:
        try:
            return registry.find(name, segment)
        except Uncertain:
            yield Drain()


def _is_query(ruling: Permitted) -> bool:
    """Say whether a text is one statement that does nothing to the session, its transaction or the schema."""
    statements = ruling.inspection.statements
    return (
        all(
            one.control is Control.NONE
            and one.moves in _UNTOLD
            and not (one.alters or one.lasting or one.facts.copying)
            for one in statements
        )
        and len(statements) <= 1
    )


def _joined(ruling: Permitted, bodies: Sequence[Permitted]) -> Permitted:
    """Join a ruling with those on the bodies it runs: the strictest durability, every mask, every tripwire."""
    if not bodies:
        return ruling
    every = (ruling, *bodies)
    behind = [one.facts for body in bodies for one in body.inspection.statements]
    masked = frozenset().union(*(facts.masked for facts in behind))
    searched = frozenset().union(*(facts.searched for facts in behind))
    moves = Moves.UNKNOWN if any(one.moves for body in bodies for one in body.inspection.statements) else Moves.NOT
    statements = tuple(
        replace(
            statement,
            moves=moves,
            facts=replace(
                statement.facts, masked=statement.facts.masked | masked, searched=statement.facts.searched | searched
            ),
        )
        if statement.control in (Control.EXECUTE, Control.FETCH)
        else statement
        for statement in ruling.inspection.statements
    )
    inspection = replace(
        ruling.inspection,
        statements=statements,
        scrub=any(one.inspection.scrub for one in every),
        tripwire=frozenset().union(*(one.inspection.tripwire for one in every)),
        searches=tuple(one for each in every for one in each.inspection.searches),
    )
    durability = max((one.durability for one in every), key=_GRADES.index)
    asked = [one.asking for one in every if one.asking is not None]
    asking = reduce(Asking.merged, asked) if asked else None
    bound = reduce(lambda found, one: one.bound.merged(found) if one.bound else found, every, ruling.bound)
    estimating = any(one.estimating for one in every)
    return replace(
        ruling, inspection=inspection, durability=durability, asking=asking, bound=bound, estimating=estimating
    )


def weighed(plan: Plan, parsed: Permitted, bodies: Sequence[Permitted]) -> Plan:
    """Put rulings with the planner's answer in place of those without."""
    return replace(plan, parsed=parsed, ruling=_joined(parsed, bodies), bodies=tuple(bodies))
