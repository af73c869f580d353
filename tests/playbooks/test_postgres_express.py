"""The express lane against the gate: the same bytes, records and state, whatever comes and however it is cut."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.adapters.journal import unpacked
from broker.core import compiled, new_ids, new_moves
from broker.protocols.postgres import codec, records
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
from broker.protocols.postgres.express import quick_bind
from broker.protocols.postgres.fares import boards
from broker.protocols.postgres.machine import Machine, State
from broker.protocols.postgres.registry import Prepared
from broker.protocols.postgres.ruling import Denied, Permitted, Ruling
from broker.sessions.eventchain import json_text
from broker.sessions.model import Durability, Entry
from broker.sql.model import Control
from policies.engine.decisions import Effect, Limits
from tests.playbooks.postgres_play import (
    ASKING,
    NONCE,
    PARSED,
    ROW,
    Play,
    bind,
    columns,
    complete,
    denied,
    describe,
    error,
    facts,
    permitted,
    ready,
)
from tests.support.broker import read_line
from tests.support.require import needs_core

if TYPE_CHECKING:
    from broker.core.lane import Journal, Lane

EXECUTE, SYNC = codec.execute(""), codec.SYNC
OFTEN = ("select 1", "masked", "commit")
STEADY = ("select 1", "select 1", "masked", "begin", "commit")
TEXTS = ("select 1", "select 2", "masked", "insert", "begin", "commit", "drop", "fail", "select 1; select 2")
CODED, PLAIN = 20000, 20001
"""Types of users': one that later policies let no parameter have, one that they do."""
HASHES = ("first", "second", "third")
CONTROLS = {"begin": Control.BEGIN, "commit": Control.COMMIT}


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
        controls=[(control, "", "")] if control is not None else None,
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

    def compiled_lane(self, derailed: Callable[[Exception], None] | None = None) -> Lane:
        """The lane of the compiled core, with what it asks for."""
        assert compiled is not None
        policy = self.policy
        booking = self.machine.booking(self._alike, self)  # type: ignore[arg-type]  # it is a scribe, as far as it goes
        self.journal = compiled.Journal(
            self.memory, lambda journal: self.pen(journal), self._turns.append, self._turns.append
        )
        lane: Lane = compiled.Lane(
            booking, derailed, self.journal, "g1", "s1", self._ids, Stopped, lambda: self.at, policy.basis,
            policy, (new_moves(), new_moves()), End(self._to_upstream), End(self._to_client), 1.0,
        )  # fmt: skip
        return lane

    def pen(self, journal: Journal) -> Pending:
        lines = list(unpacked(self.memory))
        assert all(line.at == "1970-01-01T00:00:00.500000Z" for line in lines)
        self.log += [read_line(line) for line in lines]
        pending = Pending()
        if journal.urgent:
            self._unsynced.append(pending)
        return pending

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


class FakeServer:
    """Answers as PostgreSQL would, as far as the order of messages goes."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._read = 0
        self._status = "I"
        self._skipping = False
        self._texts: dict[str, str] = {}
        self._portals: dict[str, tuple[str, int]] = {}

    def answer(self, sent: bytes) -> bytes:
        """Answer what was sent since the last time."""
        found = b""
        while self._read < len(sent):
            length = int.from_bytes(sent[self._read + 1 : self._read + 5], "big")
            kind, body = chr(sent[self._read]), sent[self._read + 5 : self._read + 1 + length]
            self._read += 1 + length
            if kind == "S":
                self._skipping = False
                found += self._ready()
            elif kind == "Q":
                found += self._run(codec.read_query(body).sql, b"", described=True) + self._ready()
                self._skipping = False
            elif not self._skipping:
                found += self._extended(kind, body)
        return found

    def _ready(self) -> bytes:
        if self._status == "I":
            self._portals.clear()
        return ready(self._status)

    def _extended(self, kind: str, body: bytes) -> bytes:
        match kind:
            case "P":
                parse = codec.read_parse(body)
                if parse.name in self._texts and parse.name:
                    return self._error("42P05")
                self._texts[parse.name] = parse.sql
                return PARSED
            case "B":
                found = codec.read_bind(body)
                if found.statement not in self._texts:
                    return self._error("26000")
                self._portals[found.portal] = (self._texts[found.statement], 0)
                return codec.message(b"2")
            case "D":
                named = codec.read_named(body)
                known = self._texts if named.kind == "S" else self._portals
                if named.name not in known:
                    return self._error("34000")
                return (codec.message(b"t", b"\0\0") if named.kind == "S" else b"") + self._columns()
            case "E":
                executed = codec.read_execute(body)
                if executed.portal not in self._portals:
                    return self._error("34000")
                sql, done = self._portals[executed.portal]
                if executed.max_rows and not done:
                    self._portals[executed.portal] = (sql, 1)
                    return ROW * executed.max_rows + codec.message(b"s")
                return self._run(sql, b"")
            case "C":
                named = codec.read_named(body)
                (self._texts if named.kind == "S" else self._portals).pop(named.name, None)
                return codec.message(b"3")
            case _:
                return b""

    def _run(self, sql: str, found: bytes, *, described: bool = False) -> bytes:
        for part in sql.split("; "):
            if self._status == "E" and part != "commit":
                return found + self._error("25P02")
            if part == "fail" or self._chance.random() < 0.02:
                return found + self._error("22012")
            if part in CONTROLS:
                self._status = "T" if part == "begin" else "I"
                found += complete(part.upper())
                continue
            found += self._columns() if described else b""
            rows = self._chance.choice([0, 1, 1, 3])
            found += ROW * rows + self._aside() + complete(f"SELECT {rows}")
        return found

    def _aside(self) -> bytes:
        notice = codec.fields(b"N", {"S": "NOTICE", "V": "NOTICE", "C": "00000", "M": "by the way"})
        status = codec.parameter_status("TimeZone", "UTC")
        return self._chance.choice([b"", b"", b"", b"", notice, status, codec.message(b"A", bytes(4) + b"a\0b\0")])

    def _columns(self) -> bytes:
        return columns(("a", 7, 3 if self._chance.random() < 0.01 else 2))

    def _error(self, state: str) -> bytes:
        self._skipping = True
        self._status = "E" if self._status == "T" else self._status
        return error(state)


def exchange(chance: random.Random, *, steady: bool) -> bytes:
    """What a client sends at a time: mostly what drivers do, and where it is not `steady`, what nobody does."""
    if steady:
        text = chance.choice(STEADY)
        run = bind_to("e", "") + chance.choice([b"", describe("P", "")]) + codec.execute("", chance.choice([0, 0, 2]))
        return codec.query(text) if text in CONTROLS else codec.parse("", text) + run + SYNC
    text = chance.choice(OFTEN if chance.random() < 0.7 else TEXTS)
    name = chance.choice(["", "s", "s", "t"])
    end = chance.choice([EXECUTE + SYNC, describe("P", "") + EXECUTE + SYNC])
    types = chance.choice([(), (), (), (25,), (PLAIN,), (CODED, 25)])
    bound = bind_to("é" if chance.random() < 0.4 else "e", name)
    match chance.choice([0, 0, 0, 3, 3, 3, 6, 6, 7, 7, 8, 9, 10, 11]):
        case 0:
            return codec.query(text)
        case 3:
            return bound + end
        case 6:
            return codec.parse(name, text, types) + bound + end
        case 7:
            return codec.parse(name, text, types) + describe("S", name) + SYNC
        case 8:
            return bind(name, "p") + codec.execute("p", chance.choice([0, 2])) + SYNC
        case 9:
            return bind(name) + EXECUTE + EXECUTE + SYNC + codec.execute("", 2) + SYNC
        case 10:
            return codec.message(b"C", b"S" + codec.string(name)) + SYNC
        case _:
            return chance.choice([SYNC, codec.message(b"H"), bind(name), EXECUTE, codec.query("")]) + SYNC


def bind_to(value: str, name: str) -> bytes:
    """A Bind with a parameter; only ASCII goes by the compiled lane."""
    one = value.encode()
    return codec.message(b"B", b"\0" + codec.string(name) + struct.pack(">hhi", 0, 1, len(one)) + one + bytes(2))


def cut(data: bytes, chance: random.Random) -> list[bytes]:
    """Mostly whole, sometimes in pieces."""
    if not data or chance.random() < 0.8:
        return [data] if data else []
    at = chance.randrange(len(data) + 1)
    return [piece for piece in (data[:at], data[at:]) if piece]


def assert_written(entry: Entry) -> None:
    """What is written of an entry beforehand is what the encoder would write of it, with `recorded` in its place."""
    if (written := entry.written) is not None:
        assert f"{{{written.before}{written.behind}}}" == json_text(entry.data)
        assert f'{{{written.before}"recorded":"7:a",{written.behind}}}' == json_text({**entry.data, "recorded": "7:a"})
        assert written.detail == json_text(entry.detail)


def play(chance: random.Random, *, core: bool = False) -> tuple[Side, Side]:
    """Play one session on both, and hold them against each other after each step; `core` plays the compiled lane."""
    policy = Policy(chance.choice([None, ("app",)]))
    for text in TEXTS:
        policy.rule(text)
    fast, slow = Side(policy, lane=True, core=core), Side(policy, lane=False)
    server = FakeServer(chance)
    coming: list[bytes] = []
    at, checked, steady = 0.0, 0, 0
    for _ in range(chance.randrange(5, 80)):
        at += 0.25
        odd = chance.random()
        if odd < 0.03:
            policy.version = (policy.version + 1) % 3
        elif odd < 0.2:
            fast.sync(at)
            slow.sync(at)
        elif coming and odd < 0.9:
            # Mostly all of it, before the client goes on.
            for piece in [coming.pop(0) for _ in range(len(coming) if odd < 0.8 else 1)]:
                fast.from_upstream(piece, at)
                slow.from_upstream(piece, at)
        else:
            # In runs, so that a transaction may come to its end.
            steady = steady - 1 if steady else chance.choice([0, 0, 0, 30])
            for piece in cut(exchange(chance, steady=steady > 0), chance):
                fast.from_client(piece, at)
                if chance.random() < 0.5:
                    fast.turn()
                slow.from_client(piece, at)
        fast.turn()
        assert fast.upstream == slow.upstream
        assert fast.client == slow.client
        assert fast.written == slow.written
        for entry in (*fast.log[checked:], *slow.log[checked:]):
            assert_written(entry)
        checked = len(fast.log)
        assert (fast.over, fast.machine.state) == (slow.over, slow.machine.state)
        if slow.over:
            break
        coming += cut(server.answer(slow.upstream), chance)
    assert fast.settled() == slow.settled()
    return fast, slow


WAYS = pytest.mark.parametrize("core", [False, pytest.param(True, marks=needs_core)])


@WAYS
@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_both_ways_give_the_same_bytes_records_and_state(seed: int, core: bool) -> None:
    play(random.Random(seed), core=core)


@WAYS
def test_the_plays_take_the_lane_and_leave_it_again(core: bool) -> None:
    sides = [play(random.Random(seed), core=core)[0] for seed in range(60)]
    assert sum(side.rides for side in sides) > sum(side.landed for side in sides) > 20
    assert any(side.over for side in sides)
    assert sum(side.landed_in_blocks for side in sides) > 5
    assert sum(side.rides for side in sides if side.policy.home is not None) > 20


@given(
    st.text(),
    st.text(),
    st.lists(st.text(), max_size=3),
    st.sets(st.text(), max_size=3),
    st.lists(st.binary() | st.none()),
)
def test_records_written_beforehand_are_the_same_records(
    sql: str, rewritten: str, rules: list[str], masked: list[str], values: list[bytes | None]
) -> None:
    ruling = permitted("select 1")
    (one,), names = ruling.inspection.statements, frozenset(masked)
    one = replace(
        one, redacted=sql, facts=replace(one.facts, verb=rewritten, masked=names, searched=names, reveals=names)
    )
    found = replace(ruling.inspection, statements=(one,), rewritten=rewritten, path=tuple(rules) or None)
    ruling = replace(ruling, sql=sql, inspection=found, rules=(tuple(rules),))
    parameters = records.parameters((1,) if rules else (), values)
    entry = records.Form.of(ruling).allowed(facts(), "q1", parameters, ruling)
    assert (entry,) == records.allowed(facts(), ("q1",), ruling, parameters)
    assert_written(entry)
    like = replace(ruling, sql=f"{sql}!", inspection=replace(found, rewritten=f"{rewritten}!"))
    entry = records.Form.of(ruling).allowed(facts(), "q1", parameters, like)
    assert (entry,) == records.allowed(facts(), ("q1",), like, parameters)
    assert_written(entry)


@given(st.text(), st.none() | st.integers(), st.floats(-1, 1e9), st.none() | st.text())
def test_ends_written_beforehand_are_the_same_records(
    outcome: str, rows: int | None, seconds: float, state: str | None
) -> None:
    assert_written(records.finished(facts(), "q1", outcome, rows, seconds, state))


MESSAGES = st.builds(
    lambda portal, name, formats, values, results: (
        codec.string(portal)
        + codec.string(name)
        + struct.pack(f">h{len(formats)}h", len(formats), *formats)
        + struct.pack(">H", len(values))
        + b"".join(struct.pack(">i", -1) if one is None else struct.pack(">i", len(one)) + one for one in values)
        + struct.pack(f">h{len(results)}h", len(results), *results)
    ),
    st.sampled_from(["", "", "", "p"]),
    st.text(max_size=70),
    st.lists(st.sampled_from([0, 1, 1, 2]), max_size=3),
    st.lists(st.none() | st.binary(max_size=5), max_size=3),
    st.lists(st.sampled_from([0, 1, -1]), max_size=2),
)


@settings(max_examples=500)
@given(MESSAGES, st.integers(0, 300), st.binary(max_size=3))
def test_a_bind_that_reads_quickly_reads_the_same(body: bytes, spoil: int, put: bytes) -> None:
    for each in (body, body[:spoil] + put + body[spoil + len(put) :], body[:spoil]):
        data = b"B...." + each + EXECUTE + SYNC
        try:
            found = quick_bind(data, 5, 5 + len(each))
        except (IndexError, struct.error, UnicodeDecodeError):
            continue
        if found is not None:
            assert found == codec.read_bind(each)
            assert found.portal == ""


def test_a_bind_as_drivers_send_it_reads_quickly() -> None:
    body = bind("s")[5:]
    assert quick_bind(b"B...." + body + EXECUTE, 5, 5 + len(body)) == codec.read_bind(body)


@pytest.mark.parametrize(
    "ruling",
    [
        permitted("insert", effect=Effect.WRITE),
        permitted("set", effect=Effect.SESSION),
        permitted("select 1; select 2"),
        permitted("fetch", controls=[(Control.FETCH, "c", "")]),
        permitted("select 1", asking=ASKING),
        permitted("select 1", estimating=True),
        permitted("select 1", compared=["public.people.ssn"]),
        permitted("copy", copying="out", limits=Limits(rows=1)),
        replace(permitted("select 1"), durability=Durability.SYNCED),
    ],
)
def test_what_is_more_than_one_plain_read_takes_the_gate(ruling: Permitted) -> None:
    assert not boards(ruling)
    assert boards(permitted("select 1"))


def test_a_denial_that_is_known_takes_the_gate() -> None:
    side = Side(policy := Policy(), lane=True)
    assert isinstance(policy.rule("drop"), Denied)
    side.from_client(codec.query("drop"), 1.0)
    assert (side.rides, side.upstream, side.log[0].type) == (0, b"", "statement.denied")


def test_a_wire_that_trips_on_the_lane_ends_the_session_before_a_row_shows() -> None:
    side = Side(policy := Policy(), lane=True)
    policy.version = 1
    policy.rule("select 2")
    side.from_client(codec.query("select 2"), 1.0)
    assert side.rides == 1
    side.from_upstream(columns(("a", 7, 3)) + ROW + complete("SELECT 1") + ready(), 2.0)
    assert side.over
    assert side.machine.state is State.CLOSED
    assert ROW not in side.client


def test_what_was_put_on_the_lane_is_cut_with_the_session() -> None:
    side = Side(policy := Policy(), lane=True)
    policy.rule("select 1")
    side.from_client(codec.query("select 1"), 1.0)
    side.from_client(codec.message(b"X"), 2.0)
    assert [entry.data.get("outcome") for entry in side.log] == [None, "cut"]


def test_a_play_without_rulings_at_hand_never_boards() -> None:
    play = Play()
    assert play.machine.board(codec.query("select 1"), 1.0) is None


def test_no_ticket_is_given_where_a_parse_has_declared_types_of_users() -> None:
    policy = Policy()
    ruling = policy.rule("select 1")
    assert isinstance(ruling, Permitted)
    side = Side(policy, lane=True)
    booking = side.machine.booking(lambda _sql, _marked: None, side)  # type: ignore[arg-type]  # a scribe, as far as it goes
    assert booking.ticket(None, Prepared(ruling)) is not None
    assert booking.ticket(None, Prepared(ruling, (PLAIN,), (PLAIN,))) is None
