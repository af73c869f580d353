"""What the compiled core's lane asks of a session in Python: tickets for known texts, and to take over what is left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from broker.protocols.postgres import codec, records
from broker.protocols.postgres.express import RUN, UNREADABLE, ExpressLane, bind_of, quick_bind
from broker.protocols.postgres.fares import Bound, Fare, Ride, boards, meant
from broker.protocols.postgres.memory import SMALL
from broker.protocols.postgres.registry import Cursor, Portal, Prepared, own_types
from broker.protocols.postgres.ruling import Permitted
from broker.protocols.postgres.shared import Session
from broker.sessions.model import Durability
from broker.sql.rewrite import whole_run

if TYPE_CHECKING:
    from broker.protocols.postgres.scribe import Scribe


class Ticket(NamedTuple):
    """What stays the same of each run of a text: its record's JSON in the pieces that `records.Form` has."""

    ruling: Permitted
    fare: Fare
    said: dict[str, Any] | None
    """What a summary counts of it, where that is more than that it ran."""
    before: bytes
    between: bytes
    behind: bytes
    texts: bytes
    send: bytes | None
    """The message, where a simple query or a Parse is not sent as it came."""
    scrub: bool
    waits: bool
    """Its results wait for its record to be on disk."""

    @classmethod
    def of(cls, ruling: Permitted, fare: Fare, send: Callable[[str], bytes] | None) -> Ticket:
        """Return it; `send` writes the message that the text is sent in, where it can be another."""
        form, rewritten = fare.form, ruling.inspection.rewritten
        texts = form.texts if ruling is form.ruling else records.texts(ruling)
        said = form.data if any(form.data.get(key) for key in ("masked", "revealed", "searched")) else None
        before, between, behind = form.before.encode("ascii"), form.between.encode("ascii"), form.behind.encode("ascii")
        message = send(rewritten) if send is not None and rewritten != ruling.sql else None
        scrub, waits = ruling.inspection.scrub, ruling.durability is Durability.RESULTS_WAIT
        return cls(ruling, fare, said, before, between, behind, f"{{{texts}".encode("ascii"), message, scrub, waits)


class Quiet(NamedTuple):
    """Where a session stands while nothing of it is under way."""

    status: str
    segment: int
    tripwire: frozenset[tuple[int, int]]
    prepared: dict[str, Prepared]
    portals: dict[str, Portal | Cursor]


class Booking:
    """One session's; while `quiet` says so, nothing of it is under way, and only then is the lane armed.

    `alike` gives what was ruled on every text of a shape, where all of them are sent as they come; `withhold` has what
    comes for the client wait, from an answer on, and returns under which token.
    """

    def __init__(
        self,
        session: Session,
        express: ExpressLane,
        quiet: Callable[[], bool],
        alike: Callable[[str, str], Permitted | None],
        scribe: Scribe,
        withhold: Callable[[bytes], int],
    ) -> None:
        self._session = session
        self._express = express
        self._quiet = quiet
        self._alike = alike
        self._scribe = scribe
        self._withhold = withhold

    @property
    def tripwire(self) -> frozenset[tuple[int, int]]:
        return self._session.tripwire

    def quiet(self) -> Quiet | None:
        """Return where the session stands, or None while anything is under way."""
        if not self._quiet():
            return None
        # What went another way is recorded to its end before what goes this one.
        self._scribe.settle()
        if not self._quiet():
            # It could not be.
            return None
        session = self._session
        known = session.prepared.known, session.portals.known
        return Quiet(session.status, session.segment, session.tripwire, *known)

    def ticket(self, text: bytes | None, prepared: Prepared | None) -> Ticket | None:
        """Return what a text, or a prepared statement, boards with again and again under what holds now."""
        try:
            sql = prepared.sql if prepared is not None else (text or b"").decode("utf-8")
        except UnicodeDecodeError:
            return None
        found = self._express.permitted(sql)
        if found is None or (prepared is not None and prepared.own):
            return None
        ruling, fare = found
        if prepared is not None and prepared.ruling is not ruling:
            watched = prepared.ruling.inspection.tripwire <= ruling.inspection.tripwire
            if not watched or not meant(prepared, ruling):
                return None
        self._session.watch(ruling.inspection.tripwire)
        return Ticket.of(ruling, fare, codec.query if prepared is None else None)

    def alighted(self, id_: str, seconds: float) -> None:
        """Note that what was recorded is not sent, because it is decided anew."""
        self._scribe.note(records.finished(self._session.facts, id_, "cut", None, seconds))

    def parsing(self, body: bytes) -> tuple[Ticket, str, tuple[int, ...]] | None:
        """Return what a Parse with its Bind and Execute boards with time and again, the name and the types it gives."""
        if len(body) > SMALL - 5:
            return None
        try:
            parse = codec.read_parse(body)
        except UNREADABLE:
            return None
        found = self._express.permitted(parse.sql)
        if found is None or own_types(parse.types):
            return None
        self._session.watch(found[0].inspection.tripwire)
        ticket = Ticket.of(*found, lambda sql: codec.parse(parse.name, sql, parse.types))
        return ticket, parse.name, parse.types

    def made(self, ticket: Ticket, types: tuple[int, ...]) -> Prepared:
        """Return what such a Parse makes."""
        return Prepared(ticket.ruling, types)

    def alike(self, text: bytes, marked: bytes) -> Ticket | None:
        """Return what every text of a shape boards with, where they all board alike and are sent as they come."""
        ruling = self._alike(text.decode("ascii"), marked.decode("ascii"))
        if ruling is None or not boards(ruling):
            return None
        self._session.watch(ruling.inspection.tripwire)
        return Ticket.of(ruling, Fare(ruling, records.Form.of(ruling)), codec.query)

    def shows(self, ticket: Ticket, description: bytes) -> bool:
        """Say whether a description trips no wire."""
        return self._express.shows(ticket.fare, description)

    def landed(self, status: str, ruling: Permitted) -> None:
        self._session.landed(status, ruling)

    def left(self, segment: int, at: float) -> None:
        """Go on behind so many segments, at a moment."""
        self._session.segment, self._session.now = segment, at

    def portal(self, ticket: Ticket, data: bytes, prepared: Prepared, id_: str, since: float) -> None:
        """Take over the portal that a ride within a transaction leaves."""
        ride = self._rebuilt(ticket, data, prepared, id_, self._session.segment, since)
        assert ride.bound is not None
        portal = ride.bound.portal(ride)
        portal.statements = ()
        self._session.portals.known[""] = portal

    def ride(
        self,
        ticket: Ticket,
        data: bytes,
        prepared: Prepared | None,
        id_: str,
        segment: int,
        since: float,
        awaited: Awaitable[None] | None,
    ) -> None:
        """Take over a ride that is out and recorded; its results may wait for that to be synced."""
        self._express.ride = self._rebuilt(ticket, data, prepared, id_, segment, since)
        if awaited is not None:
            self._scribe.awaits(awaited, self._withhold(b""))

    def withheld(self, data: bytes, awaited: Awaitable[None]) -> None:
        """Take over an answer that is for the client once its record is synced."""
        self._scribe.awaits(awaited, self._withhold(data))

    def watch(self, pending: Awaitable[None]) -> None:
        """Learn of what is synced later, and fails."""
        self._scribe.watch(pending)

    def _rebuilt(
        self, ticket: Ticket, data: bytes, prepared: Prepared | None, id_: str, segment: int, since: float
    ) -> Ride:
        ruling, bound = ticket.ruling, None
        if prepared is None:
            sql = data[5:-1].decode("utf-8")
            if sql != ruling.sql:
                # Another text of its shape.
                inspection = replace(ruling.inspection, rewritten=sql, edits=whole_run(sql))
                ruling = replace(ruling, sql=sql, inspection=inspection)
        else:
            start, end = bind_of(data)
            parsed = codec.read_parse(data[5:start]).name if start else None
            bind = quick_bind(data, start + 5, end)
            assert bind is not None
            described = len(data) - end > len(RUN)
            bound = Bound.of(prepared, bind, ruling.inspection.path, described=described, parsed=parsed)
        parameters = bound.parameters if bound is not None else ()
        entry = ticket.fare.form.allowed(self._session.facts, id_, parameters, ruling)
        return Ride(ruling, ticket.fare, id_, segment, since, data, entry, bound)
