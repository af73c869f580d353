"""What the two directions of a session share: the registries, what is owed, and where the transaction stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field

from broker.protocols.postgres import records
from broker.protocols.postgres.beginnings import Beginning
from broker.protocols.postgres.codec import NoRoom
from broker.protocols.postgres.events import Note
from broker.protocols.postgres.fates import Fates
from broker.protocols.postgres.memory import SMALL, Memory, Room, Share
from broker.protocols.postgres.rationing import Rations
from broker.protocols.postgres.registry import Change, Cursor, Portal, Prepared, Registry
from broker.protocols.postgres.replies import compares, speaks_of_others
from broker.protocols.postgres.responses import Expected, Responses, Running
from broker.protocols.postgres.ruling import Permitted
from broker.sessions.holds import Settings
from broker.sessions.model import SessionFacts
from broker.sql.model import Altered, Control, Moves, SearchPath


@dataclass(slots=True)
class Ledger:
    """The bounded changes of an open transaction by statement: how many rows each may touch, and how many it did."""

    allowed: dict[str, int] = field(default_factory=dict)
    spent: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.spent.values())

    @property
    def most(self) -> int:
        """How many rows all of them may touch: one that touched none has no triggers that wait."""
        return sum(most for id_, most in self.allowed.items() if self.spent[id_])

    def clear(self) -> None:
        self.allowed.clear()
        self.spent.clear()


ENDS = frozenset({Control.COMMIT, Control.ROLLBACK, Control.ROLLBACK_TO})
"""What may bring back a search path of before."""


@dataclass(slots=True)
class Pathway:
    """The search path that a session has upstream, as far as that is known."""

    pinned: SearchPath = ("public",)
    path: SearchPath | None = None
    """The one that it has set, as the upstream last said; None for the one that is pinned."""
    home: SearchPath | None = None
    """The one that it began with, to which a RESET goes back."""
    lost: bool = False
    """The upstream said one that nobody may set."""
    moved: bool = False
    """It was set since the transaction began, so that the end of that may undo it."""
    unsure: bool = False
    """Something was sent since that could have changed it."""
    ended_in: int | None = None
    """The segment in which something was sent last that ends a transaction: in its middle the status is behind that."""

    def changed_by(self, moves: Moves) -> bool:
        """Say whether a statement that does this could change it."""
        away = self.path != self.home or self.moved or self.lost
        return moves is Moves.ELSEWHERE or (moves is Moves.BACK and away)

    def sent(self, running: Running, segment: int) -> None:
        """Take note of a statement on its way."""
        self.ended_in = segment if running.control in ENDS else self.ended_in
        if self.changed_by(running.moves) or running.moves is Moves.UNKNOWN:
            self.moved = self.unsure = True
        elif running.control in ENDS:
            self.doubt()

    def told(self) -> None:
        """Take note that the upstream reports another one, as servers since 18 do: whatever changed it, it is asked."""
        self.moved = self.unsure = True

    def doubt(self) -> None:
        """Take note that a transaction may be over."""
        self.unsure = self.unsure or self.moved


@dataclass(slots=True)
class Session:
    facts: SessionFacts
    ids: Callable[[], str]
    nonce: str
    access_hint: str = ""
    rations: Rations = field(default_factory=Rations)
    share: Share = field(default_factory=lambda: Share(Memory()), repr=False)
    clear: Callable[[], bool] = lambda: True
    """Says whether policy masks nothing for its person by now."""
    longest: int = 0
    """Milliseconds that a timeout may last which its client sets."""
    now: float = 0.0
    prepared: Registry[Prepared] = field(default_factory=lambda: Registry(keeps_unnamed=True))
    portals: Registry[Portal | Cursor] = field(default_factory=Registry)
    responses: Responses = field(default_factory=Responses)
    status: str = "I"
    """As the upstream last said: `I` idle, `T` in a transaction, `E` in a failed one."""
    segment: int = 0
    touched: bool = False
    """Something of this segment has been sent, so the upstream may have an implicit transaction open."""
    deferred: list[bytes] = field(default_factory=list)
    """What begins this segment and is sent with what follows, so that a hold keeps no lock on what it only names."""
    unsent: dict[str, float] = field(default_factory=dict)
    """Statements that the gate recorded and has not sent yet; since when."""
    beginning: Beginning = field(default_factory=Beginning, repr=False)
    reviews: int = 0
    """How many statements have been held."""
    skipping: bool = False
    """An error was answered in this segment: what comes before its Sync is dropped, as the server does."""
    copying: bool = False
    """The upstream reads copy data."""
    copy_failed: bool = False
    """Copy data that is still under way belongs to a COPY that has failed."""
    copy_lost: bool = False
    """Some COPY of its client's was refused or has failed: data that nothing asks for may be the rest of it."""
    copied: bool = False
    """It was told all the data of one, behind which postgres.js sends a CopyFail that means nothing."""
    fed: bool = False
    """Some of the data has come, so the COPY may have failed over it."""
    late: int = 0
    """Syncs amid copy data: a server that reads it ignores them, and answers them where the COPY has failed before."""
    cancelling: bool = False
    """The upstream is asked to cancel: what is sent before that is done could be cancelled in its place."""
    tripwire: frozenset[tuple[int, int]] = frozenset()
    """What no result may attest: it only grows."""
    told: set[str] = field(default_factory=set)
    """Masked fields whose comparing the client was told of."""
    scrub: bool = False
    """A masked relation was in scope since the transaction began."""
    named: dict[str, int] = field(default_factory=dict)
    """Relations that the changes of the transaction name, with what stands behind them and follows them.

    With the segment that named each last: the end of an earlier one says nothing of it.
    """
    failed: bool = False
    """An error came since the upstream was last ready, so a transaction that ends with this segment is rolled back."""
    fatal_passed: bool = False
    savepoints: list[str] = field(default_factory=list)
    """Of the open transaction, the oldest first."""
    listening: bool = False
    """A LISTEN was let pass: what other sessions notify reaches the client."""
    changed: bool = False
    """The schema was changed since the transaction began: others see it when it ends."""
    altered: Altered = Altered.NOT
    """What was sent since the transaction began that changes the schema, done or not: the catalogue is behind it."""
    alterations: int = 0
    """How many statements were sent that change the schema."""
    altered_in: int = 0
    """The segment in which that was sent last: the end of an earlier one says nothing of it."""
    way: Pathway = field(default_factory=Pathway)
    sent: int = field(default=0, repr=False)
    """How many statements were sent by the gate's way."""
    settings: Settings | None = None
    """Those that say what a text means, as they were behind `settings_at`."""
    settings_at: tuple[int, int] = field(default=(-1, 0), repr=False)
    own_settings: set[str] = field(default_factory=set)
    """Those of an application's own that it may have set."""
    fates: Fates = field(init=False)
    wrote: int | None = None
    """The segment in which data was changed last, while its transaction may be open."""
    block: bool = False
    """A BEGIN has completed, and neither Sync nor Query ends its transaction."""
    ledger: Ledger = field(default_factory=Ledger)
    bounded: Expected | None = None
    """A bounded change that is complete upstream and not yet counted."""

    def __post_init__(self) -> None:
        self.fates = Fates(self.facts)

    @property
    def drained(self) -> bool:
        return self.responses.only_of(self.segment)

    @property
    def sent_so_far(self) -> tuple[int, int]:
        """Stand for everything that was sent that could change a setting, or end a transaction that has."""
        return self.segment, self.sent

    @property
    def unlocked(self) -> bool:
        """Nothing is open upstream, or a transaction that has only begun and so keeps no lock."""
        begun = self.status == "T" and self.beginning.plain == self.segment - 1
        return (self.status == "I" or begun) and not self.touched

    @property
    def fails(self) -> bool:
        """Say whether the transaction has failed, and nothing was sent that ends it."""
        return self.status == "E" and self.way.ended_in != self.segment

    @property
    def copy_settled(self) -> bool:
        """The upstream takes copy data, or no COPY is under way that could still begin to."""
        running = (one for expected in self.responses.queue for one in expected.statements)
        return self.copying or self.copy_failed or all(one.control is not Control.COPY_IN for one in running)

    @property
    def clean(self) -> bool:
        """Nothing is open or outstanding upstream, so an error can be answered without it."""
        return self.status == "I" and not self.touched and len(self.responses) == 0

    def keep(self, size: int) -> Room | None:
        """Take room for what is kept after its message; what is small needs none. Raises NoRoom."""
        if size <= SMALL:
            return None
        if (room := self.share.take(size)) is None:
            raise NoRoom(size)
        return room

    def keep_texts(self, ruling: Permitted) -> Room | None:
        """Take room for a statement that is prepared; raises NoRoom."""
        return self.keep(len(ruling.sql) + len(ruling.inspection.rewritten))

    def watch(self, wires: frozenset[tuple[int, int]]) -> None:
        """Have results watched for masked fields."""
        if wires is not self.tripwire:
            # Statements under the same rules share one set, so that this is seldom work.
            self.tripwire = wires if wires >= self.tripwire else self.tripwire | wires

    def tell(self, expected: Expected, compared: Set[str]) -> None:
        """Have the client told, before the answer, of the masked fields that it compares; once of each."""
        if new := compared - self.told:
            self.told |= new
            expected.notice = compares(new)

    def expect(self, expected: Expected) -> None:
        """Take note of what the statements that are sent would change."""
        self.sent += len(expected.statements)
        for running in expected.statements:
            self.unsent.pop(running.id, None)
            self.way.sent(running, expected.segment)
            if running.alters:
                self.altered = self.altered.merged(running.alters)
                self.alterations += 1
                self.altered_in = expected.segment
            for change in running.changes:
                self.prepared.expect(change)
            for moved in running.portal_changes:
                self.portals.expect(moved)

    def withholds(self, body: bytes) -> bool:
        """Say whether the text of an error or notice is kept from the client, whatever its own statement reads."""
        return self.scrub or (not self.clear() and speaks_of_others(body, self.named.keys()))

    def landed(self, status: str, ruling: Permitted) -> None:
        """Take note of where the transaction stands behind a plain read that went through in one step."""
        self.scrub = status != "I" and (self.scrub or ruling.inspection.scrub)
        self.status, self.block = status, status != "I"

    def end_segment(self, *, joined: bool = False) -> None:
        """Take note that a Sync or a Query is sent, which ends a transaction that nobody began.

        One that is `joined` need not: until Sync that may be open.
        """
        self.beginning.ended(self.segment)
        self.segment += 1
        self.touched = joined
        if not self.block:
            self.way.doubt()

    def forget(self, running: Running) -> None:
        """Take note that a statement changed nothing."""
        for change in running.changes:
            self.prepared.drop(change)
        for moved in running.portal_changes:
            self.portals.drop(moved)

    def confirm(self, running: Running) -> Iterator[Note]:
        """Take note of what a statement has changed, as the upstream says."""
        for change in running.changes:
            self.prepared.confirm(change)
        for moved in running.portal_changes:
            yield from self.confirm_portal(moved)
        yield from self._follow(running)

    def confirm_portal(self, change: Change[Portal | Cursor]) -> Iterator[Note]:
        """Take note of what became of a portal's name, and under how many savepoints; what had it has ended."""
        yield from self._finish_portals(change.name)
        if change.value is not None:
            change.value.level = len(self.savepoints)
        self.portals.confirm(change)

    def _follow(self, running: Running) -> Iterator[Note]:
        """Follow LISTEN, and savepoints: rolling back to one forgets the portals made since."""
        match running.control:
            case Control.LISTEN:
                self.listening = True
            case Control.SAVEPOINT:
                self.savepoints.append(running.name)
            case Control.RELEASE | Control.ROLLBACK_TO if running.name in self.savepoints:
                # The newest of a name hides the others.
                at = len(self.savepoints) - 1 - self.savepoints[::-1].index(running.name)
                since = [name for name, one in self.portals.known.items() if one.level > at]
                if running.control is Control.RELEASE:
                    self.fates.released(at)
                    del self.savepoints[at:]
                    for name in since:
                        self.portals.known[name].level = at
                    return
                del self.savepoints[at + 1 :]
                yield from self.fates.rolled_back(at)
                for name in since:
                    yield from self._finish_portals(name)
                    del self.portals.known[name]
            case _:
                pass

    def end_transaction(self, *, committed: bool) -> Iterator[Note]:
        """Forget the portals that end with a transaction: all but the cursors that it, or an earlier one, leaves."""
        yield from self._finish_portals(None)
        yield from self.fates.over(kept=committed)
        self.ledger.clear()
        self.savepoints.clear()
        known = self.portals.known
        for name, one in list(known.items()):
            if isinstance(one, Cursor) and one.held and (committed or one.settled):
                one.settled, one.level = True, 0
            else:
                del known[name]

    def _finish_portals(self, name: str | None) -> Iterator[Note]:
        known = self.portals.known
        for one in list(known.values()) if name is None else [known.get(name)]:
            if isinstance(one, Portal):
                yield from self.finish_portal(one)

    def finish(self, expected: Expected, outcome: str, rows: int | None, sqlstate: str | None = None) -> Iterator[Note]:
        """Note the end of the statement that runs now."""
        if expected.statements:
            done = expected.statements.popleft()
            self.unsent.pop(done.id, None)
            seconds = self.now - expected.since
            yield Note(records.finished(self.facts, done.id, outcome, rows, seconds, sqlstate, done.copying))
            yield from self.fates.finished(done.id, outcome, len(self.savepoints))
            expected.since = self.now
            if expected.portal is not None:
                self._end_once(done.id, expected.portal, queued=expected.portal.again)

    def _end_once(self, id_: str, portal: Portal, *, queued: bool) -> None:
        """Have a portal's statement that has ended be none of its later executions': those run nothing, or run anew.

        `queued` says that there may be such among what is not answered; a long pipeline is not looked through for each.
        """
        if id_ in portal.statements:
            portal.statements, portal.rows = (), 0
        for later in self.responses.queue if queued and portal.owed else ():
            if later.portal is portal:
                for running in [one for one in later.statements if one.id == id_]:
                    self.forget(running)
                    later.statements.remove(running)

    def abandon(self, expected: Expected) -> Iterator[Note]:
        """Note that what is left of an expectation never ran, and forget what it would have changed."""
        for running in expected.statements:
            self.forget(running)
        while expected.statements:
            yield from self.finish(expected, "cut", None)
        if expected.change is not None:
            self.prepared.drop(expected.change)
        if expected.portal_change is not None:
            bound = expected.portal_change.value
            self.portals.drop(expected.portal_change)
            if isinstance(bound, Portal) and not bound.owed:
                yield from self.finish_portal(bound)

    def cut_unsent(self) -> Iterator[Note]:
        """Note that what is recorded and still in the gate was never sent: its session ends, or it is decided anew."""
        bound = [one.portal_change.value for one in self.responses.queue if one.portal_change is not None]
        owed: set[str] = set()
        for portal in (*bound, *self.portals.known.values()):
            owed |= set(portal.statements) if isinstance(portal, Portal) else set()
        for id_ in [id_ for id_ in self.unsent if id_ not in owed]:
            yield Note(records.finished(self.facts, id_, "cut", None, self.now - self.unsent.pop(id_)))
            yield from self.fates.finished(id_, "cut", len(self.savepoints))

    def finish_portal(self, portal: Portal) -> Iterator[Note]:
        """Note the end of a portal that was recorded and is closed before its last row."""
        for id_ in portal.statements:
            outcome = "ok" if portal.rows else "cut"
            self.unsent.pop(id_, None)
            yield Note(records.finished(self.facts, id_, outcome, portal.rows, self.now - portal.since))
            yield from self.fates.finished(id_, outcome, len(self.savepoints))
            self._end_once(id_, portal, queued=True)
