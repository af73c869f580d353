"""What the two directions of a session share: the registries, what is owed, and where the transaction stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from broker.protocols.postgres import records
from broker.protocols.postgres.events import Note
from broker.protocols.postgres.registry import Portal, Prepared, Registry
from broker.protocols.postgres.responses import Expected, Responses
from broker.sessions.model import SessionFacts


@dataclass(slots=True)
class Session:
    facts: SessionFacts
    ids: Callable[[], str]
    nonce: str
    access_hint: str = ""
    now: float = 0.0
    prepared: Registry[Prepared] = field(default_factory=Registry)
    portals: Registry[Portal] = field(default_factory=Registry)
    responses: Responses = field(default_factory=Responses)
    status: str = "I"
    """As the upstream last said: `I` idle, `T` in a transaction, `E` in a failed one."""
    segment: int = 0
    touched: bool = False
    """Something of this segment has been sent, so the upstream may have an implicit transaction open."""
    deferred: list[bytes] = field(default_factory=list)
    """What begins this segment and is sent with what follows, so that a hold keeps no lock on what it only names."""
    reviews: int = 0
    """How many statements have been held."""
    skipping: bool = False
    """An error was answered in this segment: what comes before its Sync is dropped, as the server does."""
    copying: bool = False
    """The upstream reads copy data."""
    copy_failed: bool = False
    """Copy data that is still under way belongs to a COPY that has failed."""
    tripwire: set[tuple[int, int]] = field(default_factory=set)
    scrub: bool = False
    """A masked relation was in scope since the transaction began."""
    fatal_passed: bool = False
    changed: bool = False
    """The schema was changed since the transaction began: others see it when it ends."""

    @property
    def drained(self) -> bool:
        return self.responses.only_of(self.segment)

    @property
    def clean(self) -> bool:
        """Nothing is open or outstanding upstream, so an error can be answered without it."""
        return self.status == "I" and not self.touched and len(self.responses) == 0

    def finish(self, expected: Expected, outcome: str, rows: int | None, sqlstate: str | None = None) -> Iterator[Note]:
        """Note the end of the statement that runs now."""
        if expected.statements:
            done = expected.statements.popleft()
            yield Note(records.finished(self.facts, done.id, outcome, rows, self.now - expected.since, sqlstate))
            expected.since = self.now

    def abandon(self, expected: Expected) -> Iterator[Note]:
        """Note that what is left of an expectation never ran, and forget what it would have changed."""
        for running in expected.statements:
            for change in running.changes:
                self.prepared.drop(change)
        while expected.statements:
            yield from self.finish(expected, "cut", None)
        if expected.change is not None:
            self.prepared.drop(expected.change)
        if expected.portal_change is not None:
            bound = expected.portal_change.value
            self.portals.drop(expected.portal_change)
            if bound is not None and not any(later.portal is bound for later in self.responses.queue):
                yield from self.finish_portal(bound)

    def finish_portal(self, portal: Portal) -> Iterator[Note]:
        """Note the end of a portal that was recorded and is closed before its last row."""
        for id_ in portal.statements:
            outcome = "ok" if portal.rows else "cut"
            yield Note(records.finished(self.facts, id_, outcome, portal.rows, self.now - portal.since))
        portal.statements = ()
