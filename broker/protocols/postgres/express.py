"""The express lane: an exchange that is known goes through in one step, where the gate would come to the same.

What arrives in one piece and is exactly a simple query, or Bind, Execute and Sync (perhaps with Parse before and
Describe between), boards where its ruling is at hand and asks for nothing but a record, and nothing else is under way.
Before that nothing is changed, so whatever does not fit goes through the gate. Only one ride is out at a time: when
anything but its whole, plain answer comes, it is unfolded into what the gate would have left behind, and the gate's way
goes on from there. A playbook holds the two ways against each other.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache

from broker.protocols.postgres import codec, records
from broker.protocols.postgres.backpath import BackPath
from broker.protocols.postgres.fares import Bound, Fare, Ride, boards, meant
from broker.protocols.postgres.memory import SMALL
from broker.protocols.postgres.registry import MAX_ENTRIES, Change, Portal, Prepared, own_types
from broker.protocols.postgres.responses import Expected, Kind, Running
from broker.protocols.postgres.ruling import Permitted, Ruling
from broker.protocols.postgres.scanning import whole_rows
from broker.protocols.postgres.shared import Session
from broker.protocols.postgres.tripwire import trips
from broker.sessions.model import Entry

LARGEST = 64 * 1024
"""Bytes of a chunk that is looked at here."""
_FARES = 256
_INT16 = struct.Struct(">h")
_UINT16 = struct.Struct(">H")
_INT32 = struct.Struct(">i")
_UINT32 = struct.Struct(">I")
_Q, _P, _B, _T, _ROW, _C = b"QPBTDC"
_DESCRIBE = codec.message(b"D", b"P\0")
RUN = codec.execute("") + codec.SYNC
# Whatever number of rows is asked for.
_RUNS = (RUN[:-9], _DESCRIBE + RUN[:-9])
_PARSED, _BOUND, _NO_DATA = codec.message(b"1"), codec.message(b"2"), codec.message(b"n")
_SUSPENDED = codec.message(b"s")
_IDLE = codec.ready_for_query("I")
_READY = _IDLE[:5]
_STATES = {ord("I"): "I", ord("T"): "T"}
UNREADABLE = (IndexError, struct.error, UnicodeDecodeError, codec.Malformed, codec.ProtocolViolation)


class ExpressLane:
    """Boards what `known` has a ruling for at once: the very answer that Inspect would get now."""

    def __init__(self, session: Session, back: BackPath, known: Callable[[str], Ruling | None]) -> None:
        self._session = session
        self._back = back
        self._known = known
        self._fares: dict[int, Fare] = {}
        self.ride: Ride | None = None

    def board(self, data: bytes) -> Ride | None:
        """Take a client's chunk as a ride, or leave everything as it is and return None."""
        if self.ride is not None or len(data) > LARGEST or not self.quiet:
            return None
        try:
            ride = self._query(data) if data[0] == _Q else self._bound(data) if data[0] in (_B, _P) else None
        except UNREADABLE:
            # The gate says what is wrong with it.
            return None
        if ride is None:
            return None
        session = self._session
        if ride.bound is not None and ride.bound.described:
            session.watch(ride.bound.prepared.ruling.inspection.tripwire)
        session.watch(ride.ruling.inspection.tripwire)
        session.segment += 1
        self.ride = ride
        return ride

    @property
    def quiet(self) -> bool:
        """Whether nothing is under way that a message could meet."""
        session = self._session
        return not (
            session.responses.queue
            or session.skipping
            or session.copying
            or session.copy_failed
            or session.cancelling
            or session.touched
            or session.deferred
            or session.prepared.pending
            or session.portals.pending
            or session.failed
            or session.changed
            or session.fatal_passed
            or session.ledger.allowed
            or session.bounded is not None
            or session.status == "E"
            or len(session.portals.known) >= MAX_ENTRIES
            or (isinstance(left := session.portals.known.get(""), Portal) and left.statements)
            or not self._back.idle
        )

    def _query(self, data: bytes) -> Ride | None:
        if _UINT32.unpack_from(data, 1)[0] + 1 != len(data) or data.find(0, 5) != len(data) - 1:
            return None
        sql = data[5:-1].decode("utf-8")
        found = self.permitted(sql)
        if found is None:
            return None
        ruling, fare = found
        rewritten = ruling.inspection.rewritten
        return self._ride(ruling, fare, data if rewritten == sql else codec.query(rewritten))

    def _bound(self, data: bytes) -> Ride | None:
        session = self._session
        start, end = bind_of(data)
        parse = codec.read_parse(data[5:start]) if start else None
        if start and (data[start] != _B or len(session.prepared.known) >= MAX_ENTRIES or start > SMALL):
            return None
        tail = data[end:]
        if tail[:-9] not in _RUNS or tail[-5:] != codec.SYNC:
            return None
        bind = quick_bind(data, start + 5, end)
        if bind is None:
            return None
        own = parse is not None and bind.statement == parse.name
        prepared = None if own else session.prepared.known.get(bind.statement)
        sql = parse.sql if parse is not None and own else prepared.sql if prepared is not None else None
        found = self.permitted(sql) if sql is not None else None
        if found is None or (parse is not None and not own):
            return None
        if own_types(parse.types) if parse is not None else prepared is not None and prepared.own:
            # What its parameters are is looked at in the gate.
            return None
        ruling, fare = found
        if parse is not None:
            prepared = Prepared(ruling, parse.types)
            if ruling.inspection.rewritten != parse.sql:
                data = codec.parse(parse.name, ruling.inspection.rewritten, parse.types) + data[start:]
        assert prepared is not None
        if prepared.ruling is not ruling and not meant(prepared, ruling):
            return None
        described = len(tail) > len(RUN)
        name = parse.name if parse is not None else None
        bound = Bound.of(prepared, bind, ruling.inspection.path, described=described, parsed=name)
        return self._ride(ruling, fare, data, bound)

    def _ride(self, ruling: Permitted, fare: Fare, data: bytes, bound: Bound | None = None) -> Ride:
        session = self._session
        id_ = session.ids()
        entry = fare.form.allowed(session.facts, id_, bound.parameters if bound is not None else (), ruling)
        return Ride(ruling, fare, id_, session.segment, session.now, data, entry, bound)

    def permitted(self, sql: str) -> tuple[Permitted, Fare] | None:
        """Return a ruling that boards, and what is known of it; None where there is none at hand."""
        ruling = self._known(sql)
        if not isinstance(ruling, Permitted):
            return None
        key = id(ruling.inspection.statements)
        fare = self._fares.get(key)
        if fare is None or not fare.fits(ruling):
            if not boards(ruling):
                return None
            if len(self._fares) >= _FARES:
                self._fares.clear()
            fare = self._fares[key] = Fare(ruling, records.Form.of(ruling))
        return ruling, fare

    def land(self, data: bytes) -> Entry | None:
        """Take an upstream's chunk as the whole answer to the ride: its end is noted, the chunk is for the client."""
        ride, session = self.ride, self._session
        if ride is None or data[-6:-1] != _READY:
            return None
        try:
            rows, status = self._answer(ride, data)
        except UNREADABLE:
            return None
        known = session.portals.known
        if not status or (status == "I" and known):
            # Where a transaction ends, the gate's way ends what was open in it.
            return None
        self.ride = None
        if ride.bound is None:
            session.prepared.known.pop("", None)
            known.pop("", None)
        elif ride.bound.parsed is not None:
            session.prepared.known[ride.bound.parsed] = ride.bound.prepared
        if ride.bound is not None and status == "T":
            portal = ride.bound.portal(ride)
            portal.statements = ()
            known[""] = portal
        session.landed(status, ride.ruling)
        return records.finished(session.facts, ride.id, "ok", rows, session.now - ride.since)

    def _answer(self, ride: Ride, data: bytes) -> tuple[int | None, str]:
        """Return how many rows a whole answer says it has, and the status after it, empty where it is not one."""
        at, bound = 0, ride.bound
        if bound is not None:
            if bound.parsed is not None:
                if data[:5] != _PARSED:
                    return None, ""
                at = 5
            if data[at : at + 5] != _BOUND:
                return None, ""
            at += 5
        if bound is None or bound.described:
            if data[at] == _T:
                end = at + 1 + _UINT32.unpack_from(data, at + 1)[0]
                if not self.shows(ride.fare, data[at + 5 : end]):
                    return None, ""
                at = end
            elif data[at : at + 5] == _NO_DATA and bound is not None:
                at += 5
            else:
                return None, ""
        count = 0
        if data[at] == _ROW:
            count, at = whole_rows(data, at, len(data))
        if data[at:] == _SUSPENDED + _IDLE and count and bound is not None:
            # As many rows as were asked for; where no transaction is open, the portal ends here.
            return count, "I"
        if data[at] != _C:
            return None, ""
        end = at + 1 + _UINT32.unpack_from(data, at + 1)[0]
        if data[end : end + 5] != _READY or len(data) != end + 6:
            return None, ""
        return _rows(data[at + 5 : end]), _STATES.get(data[end + 5], "")

    def shows(self, fare: Fare, description: bytes) -> bool:
        """Say whether a description trips no wire; the gate ends the session where it does."""
        wires = self._session.tripwire
        if fare.wires is not wires or fare.shown != description:
            if trips(wires, description, fare.ruling):
                return False
            fare.wires, fare.shown = wires, description
        return True

    def alight(self) -> Entry:
        """Leave nothing behind of what boarded and is not sent; returns its end."""
        ride, session = self.ride, self._session
        assert ride is not None
        self.ride = None
        session.segment -= 1
        return records.finished(session.facts, ride.id, "cut", None, session.now - ride.since)

    def unfold(self) -> None:
        """Leave behind what the gate would have: what is expected of the upstream, and what that would change."""
        ride, session = self.ride, self._session
        assert ride is not None
        self.ride = None
        push, segment = session.responses.push, ride.segment
        if ride.bound is None:
            expected = Expected(Kind.QUERY, segment, ride.ruling, since=ride.since)
            expected.statements.append(Running(ride.id))
            expected.change = session.prepared.expect(Change(segment, "", None))
            expected.portal_change = session.portals.expect(Change(segment, "", None))
            push(expected)
            return
        bound, prepared = ride.bound, ride.bound.prepared
        if bound.parsed is not None:
            change = session.prepared.expect(Change(segment, bound.parsed, prepared))
            push(Expected(Kind.PARSE, segment, ride.ruling, change=change))
        portal = bound.portal(ride)
        push(
            Expected(
                Kind.BIND,
                segment,
                ride.ruling,
                portal_change=session.portals.expect(Change(segment, "", portal)),
            )
        )
        if bound.described:
            push(Expected(Kind.DESCRIBE_PORTAL, segment, prepared.ruling, prepared=prepared))
        expected = Expected(Kind.EXECUTE, segment, ride.ruling, portal=portal, since=ride.since)
        expected.statements.append(Running(ride.id))
        push(expected)
        push(Expected(Kind.SYNC, segment))


def bind_of(data: bytes) -> tuple[int, int]:
    """Return where the Bind of an exchange begins, which is 0 where no Parse stands before it, and where it ends."""
    start = 1 + int(_UINT32.unpack_from(data, 1)[0]) if data[0] == _P else 0
    return start, start + 1 + int(_UINT32.unpack_from(data, start + 1)[0])


def quick_bind(data: bytes, start: int, end: int) -> codec.Bind | None:
    """Read a Bind of the unnamed portal as `read_bind` does; None where it is of another, or does not read.

    Every count is followed without a look at what is left: where one lied, the end is not met.
    """
    if data[start]:
        return None
    at = data.find(0, start + 1, end)
    if at < 0 or at - start - 1 > codec.MAX_NAME:
        return None
    statement = data[start + 1 : at].decode("utf-8")
    formats, at = _formats(data, at + 1)
    count = _UINT16.unpack_from(data, at)[0]
    at += 2
    values: list[bytes | None] = []
    for _ in range(count):
        length = _INT32.unpack_from(data, at)[0]
        at += 4
        if length < 0:
            if length != -1:
                return None
            values.append(None)
        else:
            values.append(data[at : at + length])
            at += length
    results, at = _formats(data, at)
    if at != end or len(formats) not in (0, 1, count):
        return None
    if any(code not in (0, 1) for code in (*formats, *results)):
        return None
    return codec.Bind("", statement, formats, tuple(values), results)


def _formats(data: bytes, at: int) -> tuple[tuple[int, ...], int]:
    count = _INT16.unpack_from(data, at)[0]
    if count == 0:
        return (), at + 2
    if count == 1:
        return _INT16.unpack_from(data, at + 2), at + 4
    # A negative count is no format for struct, which says so.
    return struct.unpack_from(f">{count}h", data, at + 2), at + 2 + 2 * count


@lru_cache(maxsize=64)
def _rows(tag: bytes) -> int | None:
    return codec.rows_of(codec.read_tag(tag))
