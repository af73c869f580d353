"""What the compiled core's lane asks of a session in Python: tickets for known texts, and to take over what is left."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from broker.protocols.postgres import records
from broker.protocols.postgres.express import Quiet, Ticket
from broker.protocols.postgres.registry import Prepared
from broker.protocols.postgres.ruling import Permitted
from broker.sessions.model import SessionFacts

if TYPE_CHECKING:
    from broker.core.lane import Lane
    from broker.protocols.postgres.machine import Machine
    from broker.protocols.postgres.scribe import Scribe


class Booking:
    """One session's; `machine` is quiet or in Python's hands, and only while it is quiet is the lane armed."""

    def __init__(self, machine: Machine, facts: SessionFacts, scribe: Scribe) -> None:
        self._machine = machine
        self._facts = facts
        self._scribe = scribe
        self._lane: Lane | None = None

    def lane(self, lane: Lane) -> Lane:
        """Take the lane that this is the booking of."""
        self._lane = lane
        return lane

    def quiet(self) -> Quiet | None:
        """Return where the session stands, or None while anything is under way."""
        return self._machine.quiet()

    def ticket(self, text: bytes | None, prepared: Prepared | None) -> Ticket | None:
        """Return what a text, or a prepared statement, boards with under what holds now."""
        return self._machine.express.ticket(text, prepared)

    def alike(self, text: bytes, marked: bytes) -> Ticket | None:
        """Return what every text of a shape boards with, where they all board alike and are sent as they come."""
        return self._machine.express.alike(text, marked)

    def tripwire(self) -> frozenset[tuple[int, int]]:
        return self._machine.express.tripwire

    def shows(self, ticket: Ticket, description: bytes) -> bool:
        return self._machine.express.shows(ticket.fare, description)

    def landed(self, status: str, ruling: Permitted) -> None:
        self._machine.express.landed(status, ruling)

    def left(self, segment: int, at: float) -> None:
        """Go on behind so many segments, at a moment."""
        self._machine.express.left(segment, at)

    def note(self, id_: str, rows: int | None, seconds: float) -> None:
        """Take over the end of a statement that is not written yet."""
        self._scribe.land(records.finished(self._facts, id_, "ok", rows, seconds))

    def portal(self, ticket: Ticket, data: bytes, prepared: Prepared, id_: str, since: float) -> None:
        """Take over the portal that a ride within a transaction leaves."""
        self._machine.express.keep_portal(ticket, data, prepared, id_, since)

    def ride(
        self, ticket: Ticket, data: bytes, prepared: Prepared | None, id_: str, segment: int, since: float
    ) -> None:
        """Take over a ride that is out."""
        self._machine.express.take_over(ticket, data, prepared, id_, segment, since)

    def listed(self) -> None:
        """Have the note that is kept written in time."""
        self._scribe.remind(self)

    def settle(self) -> None:
        """Write the note that is kept."""
        assert self._lane is not None
        self._lane.settle()

    def watch(self, pending: Awaitable[None]) -> None:
        """Learn of what is synced later, and fails."""
        self._scribe.watch(pending)
