"""One session that is played with rulings at hand: with an express lane, or by the gate alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from broker.adapters.journal import unpacked
from broker.core import compiled, new_ids, new_moves
from broker.protocols.postgres.events import (
    Close,
    Event,
    FromClient,
    FromUpstream,
    Inspect,
    Note,
    PauseUpstream,
    Record,
    Recorded,
    Ruled,
    Synced,
    ToClient,
    ToUpstream,
)
from broker.protocols.postgres.machine import Machine
from broker.protocols.postgres.ruling import Denied, Permitted, Ruling
from broker.sessions.model import Durability, Entry
from broker.sql.model import Control
from policies.engine.decisions import Effect
from tests.playbooks.postgres_play import NONCE, denied, facts, permitted
from tests.support.ports import read_line

if TYPE_CHECKING:
    from broker.core.lane import Journal, Lane


CODED, PLAIN = 20000, 20001
"""Types of users': one that later policies let no parameter have, one that they do."""
HASHES = ("first", "second", "third")
CONTROLS = {"begin": Control.BEGIN, "commit": Control.COMMIT, "declare held": Control.DECLARE_HELD}


def decide(sql: str, version: int) -> Ruling:
    """What the policy of a version says; a later one masks more, and denies more."""
    if sql.startswith("drop") or (sql == "select 2" and version == 2):
        return denied()
    masked = sql == "masked" or (sql == "select 1" and version == 1)
    control = CONTROLS.get(sql)
    return permitted(
        sql,
        rewritten=f"{sql} of a mask" if masked else None,
        effect=Effect.WRITE if sql == "insert" else Effect.READ,
        masked=masked,
        tripwire=[(7, 3)] if version else [],
        controls=[(control, "c", "")] if control is not None else None,
    )


class Policy:
    """Rulings as they are kept: the same object for the same text, as long as the version is the same."""

    def __init__(self, home: tuple[str, ...] | None = None) -> None:
        self.version, self.home = 0, home
        self._kept: dict[tuple[str, int], Ruling] = {}
        self._bases = [object() for _ in range(3)]

    def rule(self, sql: str, types: tuple[int, ...] = ()) -> Ruling:
        if types:
            return denied() if CODED in types and self.version else self._decided(sql)
        return self._kept.setdefault((sql, self.version), self._decided(sql))

    def _decided(self, sql: str) -> Ruling:
        found = decide(sql, self.version)
        if isinstance(found, Denied):
            return found
        return replace(found, inspection=replace(found.inspection, path=self.home))

    def known(self, sql: str) -> Ruling | None:
        return self._kept.get((sql, self.version))

    @property
    def hash(self) -> str:
        return HASHES[self.version]

    def basis(self) -> tuple[object, float]:
        return self._bases[self.version], 1e9


class End:
    """The transport of one side."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.write = write

    def is_closing(self) -> bool:
        return False


class Stopped:
    """A clock."""

    @staticmethod
    def seconds() -> float:
        return 0.5


class Pending:
    """What completes when a record is synced; a `token` is for the machine then."""

    def __init__(self) -> None:
        self.token: int | None = None
        self.callbacks: list[Callable[[Pending], None]] = []

    def add_done_callback(self, callback: Callable[[Pending], None]) -> None:
        self.callbacks.append(callback)

    def cancelled(self) -> bool:
        return False

    def exception(self) -> None: ...


class Side:
    """One machine and what came of it; `lane`: what is known may go by express, `core`: by the compiled lane before."""

    def __init__(
        self,
        policy: Policy,
        *,
        lane: bool,
        core: bool = False,
        alike: Callable[[str, str], Permitted | None] = lambda _sql, _marked: None,
    ) -> None:
        self.policy, self._alike = policy, alike
        self._ids = new_ids(1)
        known: Callable[[str], Ruling | None] = policy.known if lane else lambda _: None
        self.at = 0.0
        self._turns: list[Callable[[], None]] = []
        self.memory = bytearray(1 << 16)
        self.machine = Machine(facts(), self._ids, NONCE, known=known, home=policy.home)
        self.upstream, self.client = b"", b""
        self.log: list[Entry] = []
        self._noted: list[Entry] = []
        self.watched: list[object] = []
        self.rides = 0
        self.landed = 0
        self.landed_in_blocks = 0
        """Of what was bound, whose portal stays."""
        self.pauses = 0
        self.over = False
        self._rule = policy.rule
        self._unsynced: list[int | Pending] = []
        self.quick = self.compiled_lane() if core else None

    def compiled_lane(self, derailed: Callable[[Exception], None] | None = None, *, takes: float | None = None) -> Lane:
        """The lane of the compiled core, with what it asks for; where sealing `takes` a while, it is done at once."""
        assert compiled is not None
        policy = self.policy
        booking = self.machine.booking(self._alike, self)  # type: ignore[arg-type]  # it is a scribe, as far as it goes
        later = self._turns.append if takes is None else None
        self.journal = compiled.Journal(self.memory, lambda journal: self.pen(journal), later, later)
        self._takes = takes or 0.0
        lane: Lane = compiled.Lane(
            booking, derailed, self.journal, "g1", "s1", self._ids, Stopped, lambda: self.at, policy.basis,
            policy, (new_moves(), new_moves()), End(self._to_upstream), End(self._to_client), 1.0,
        )  # fmt: skip
        return lane

    def pen(self, journal: Journal) -> Pending:
        self.at += self._takes
        lines = list(unpacked(self.memory))
        assert all(line.at == "1970-01-01T00:00:00.500000Z" for line in lines)
        self.log += [read_line(line) for line in lines]
        pending = Pending()
        if journal.urgent:
            self._unsynced.append(pending)
        return pending

    def note(self, entry: Entry) -> None:
        self.log.append(entry)

    def awaits(self, pending: Pending, token: int) -> None:
        pending.token = token

    def turn(self) -> None:
        """A moment has passed, or something else is to be written."""
        while self._turns:
            self._turns.pop(0)()

    def watch(self, pending: object) -> None:
        self.watched.append(pending)

    def settle(self) -> None:
        """Write the note that is kept."""
        noted, self._noted = self._noted, []
        self.log += noted

    @property
    def written(self) -> list[Entry]:
        """What is recorded, with what will be in a moment."""
        return self.log + self._noted

    def _to_upstream(self, data: bytes) -> None:
        self.rides += 1
        self.upstream += data

    def _to_client(self, data: bytes) -> None:
        self.landed += 1
        self.client += data

    def from_client(self, data: bytes, at: float) -> None:
        self.at = at
        if self.quick is not None:
            if self.quick.depart(data):
                return
            self.quick.leave()
        self.turn()
        boarded = self.machine.board(data, at)
        if boarded is None:
            self._hear(FromClient(data, at), at)
            return
        ride, token = boarded
        self.rides += 1
        self.settle()
        self.log.append(ride.entry)
        if ride.ruling.durability is Durability.RESULTS_WAIT:
            self._unsynced.append(token)
        self.upstream += ride.data

    def from_upstream(self, data: bytes, at: float) -> None:
        self.at = at
        if self.quick is not None:
            if self.quick.land(data):
                self.landed_in_blocks += data[-1:] == b"T" and data[:1] in b"12"
                return
            self.quick.leave()
        self.turn()
        landed = self.machine.land(data, at)
        if landed is None:
            self._hear(FromUpstream(data, at), at)
            return
        self.landed += 1
        self.landed_in_blocks += data[-1:] == b"T" and data[:1] in b"12"
        self.settle()
        # As the scribe does: it waits for the next record, or for a moment that has not come here.
        self._noted.append(landed[0])
        for command in landed[1]:
            assert isinstance(command, ToClient | PauseUpstream)
            if isinstance(command, ToClient):
                self.client += command.data

    def sync(self, at: float) -> None:
        """Whatever was recorded first is on disk now."""
        self.turn()
        if not self._unsynced:
            return
        synced = self._unsynced.pop(0)
        if isinstance(synced, Pending):
            self.at = at
            for callback in synced.callbacks:
                callback(synced)
            if synced.token is None:
                return
            synced = synced.token
        self._hear(Synced(synced, at), at)

    def lose(self, event: Event) -> None:
        """One side has gone, or the session is told to end."""
        self._hear(event, event.at)

    def settled(self) -> str:
        """All that the machine knows."""
        if self.quick is not None:
            self.quick.leave()
        self.turn()
        self.settle()
        if self.machine.express.ride is not None:
            self.machine.express.unfold()
        session = replace(self.machine._session, ids=str)
        return repr((self.machine.state, session, b"".join(self.machine._back._held), len(self._unsynced)))

    def _hear(self, first: Event, at: float) -> None:
        if self.quick is not None:
            self.quick.leave()
        self.turn()
        self.settle()
        waiting = [first]
        while waiting:
            for command in self.machine.handle(waiting.pop(0)):
                match command:
                    case Inspect(sql=sql, types=types, token=token):
                        waiting.append(Ruled(token, self._rule(sql, types), at))
                    case Record(entries=entries, durability=durability, token=token):
                        self.log.extend(entries)
                        if durability is Durability.RESULTS_WAIT:
                            self._unsynced.append(token)
                        waiting.append(Recorded(token, at))
                    case Note(entry=entry):
                        self.log.append(entry)
                    case ToUpstream(data=data):
                        self.upstream += data
                    case ToClient(data=data):
                        self.client += data
                    case Close():
                        self.over = True
                    case _:
                        self.pauses += 1
