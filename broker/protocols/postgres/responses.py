"""What the upstream still owes: one expectation per message sent, in order; an answer that fits none is a violation."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from broker.protocols.postgres.codec import Frame, ProtocolViolation, read_tag
from broker.protocols.postgres.copying import Copying
from broker.protocols.postgres.registry import Change, Cursor, Portal, Prepared
from broker.protocols.postgres.replies import Problem
from broker.protocols.postgres.ruling import Permitted
from broker.sql.model import Altered, Control, Moves


class Kind(Enum):
    QUERY = "query"
    PARSE = "parse"
    BIND = "bind"
    DESCRIBE_STATEMENT = "describe statement"
    DESCRIBE_PORTAL = "describe portal"
    EXECUTE = "execute"
    CLOSE = "close"
    SYNC = "sync"
    POISON = "poison"
    OWN = "a statement of the broker's own"


class Act(Enum):
    PASS = "pass"  # noqa: S105 - forwarded, more is to come
    DONE = "done"
    """Forwarded, and the expectation is met."""
    COMPLETE = "complete"
    """A command is complete: recorded, forwarded; meets an Execute."""
    SUSPEND = "suspend"
    DESCRIBE = "describe"
    """Columns: judged by the tripwire, then forwarded."""
    COPY_IN = "copy in"
    READY = "ready"
    OWN = "own"
    """Of a statement of the broker's own: kept, never forwarded."""


_RESULTS = {"C": Act.COMPLETE, "I": Act.COMPLETE, "H": Act.PASS, "c": Act.PASS, "G": Act.COPY_IN}

TABLE: dict[Kind, dict[str, Act]] = {
    Kind.QUERY: {"T": Act.DESCRIBE, "Z": Act.READY, **_RESULTS},
    Kind.PARSE: {"1": Act.DONE},
    Kind.BIND: {"2": Act.DONE},
    Kind.DESCRIBE_STATEMENT: {"t": Act.PASS, "T": Act.DESCRIBE, "n": Act.DONE},
    Kind.DESCRIBE_PORTAL: {"T": Act.DESCRIBE, "n": Act.DONE},
    Kind.EXECUTE: {"s": Act.SUSPEND, **_RESULTS},
    Kind.CLOSE: {"3": Act.DONE},
    Kind.SYNC: {"Z": Act.READY},
    Kind.POISON: {},
    Kind.OWN: {"1": Act.OWN, "2": Act.OWN, "C": Act.OWN, "3": Act.OWN},
}
"""What may come for each expectation, beside errors, notices, statuses; rows may come for a query or an execute."""

ROWS = frozenset({Kind.QUERY, Kind.EXECUTE, Kind.OWN})
_LONGEST = 64 * 1024


@dataclass(slots=True)
class Running:
    """A statement that was recorded and sent; its changes are confirmed when it completes."""

    id: str
    control: Control = Control.NONE
    changes: tuple[Change[Prepared], ...] = ()
    portal_changes: tuple[Change[Portal | Cursor], ...] = ()
    alters: Altered = Altered.NOT
    """What it does to the schema."""
    copying: Copying | None = None
    name: str = ""
    """Of a savepoint."""
    moves: Moves = Moves.NOT
    """What it does to the search path."""


@dataclass(slots=True)
class Own:
    """The answer to a statement of the broker's own: `left` messages of it are still to come."""

    left: int
    rows: bytearray = field(default_factory=bytearray)
    tag: str = ""
    error: Frame | None = None

    def take(self, kind: str, frame: Frame) -> bool:
        """Take a message of the answer; say whether it was the last."""
        self.left -= 1
        if kind == "C":
            self.tag = read_tag(frame.body)
        return self.left == 0

    def gather(self, data: bytes | memoryview) -> None:
        """Take rows of it."""
        self.rows += data
        if len(self.rows) > _LONGEST:
            raise ProtocolViolation("upstream sent more than was asked for")


@dataclass(slots=True)
class Expected:
    """`problem` is what the client is told in place of the upstream's error."""

    kind: Kind
    segment: int
    ruling: Permitted | None = None
    statements: deque[Running] = field(default_factory=deque)
    change: Change[Prepared] | None = None
    portal_change: Change[Portal | Cursor] | None = None
    portal: Portal | None = None
    prepared: Prepared | None = None
    """Whose parameters are to be described."""
    problem: Problem | None = None
    since: float = 0.0
    rows: int = 0
    own: Own | None = None
    withheld: list[Frame] | None = None
    """How a bounded change completes, kept back until what it touched is counted."""
    complete: list[Frame] = field(default_factory=list)
    """How earlier statements of its text completed, which the client has."""
    failed: bool = False
    """What is withheld was answered with an error, which the client has."""
    notice: bytes = b""
    """What its client is told before the answer."""
    given: bool = False
    """All the data of its COPY was sent: what comes behind that is another's."""
    joined: bool = False
    """A Query among messages that wait for Sync: newer servers end its transaction with that, not with its own end."""
    muted: bool = False
    """Its client has got the broker's own error already."""


@dataclass(slots=True)
class Responses:
    """In their order; each portal knows how often it stands among them, for there may be thousands."""

    queue: deque[Expected] = field(default_factory=deque)

    @property
    def head(self) -> Expected | None:
        return self.queue[0] if self.queue else None

    def __len__(self) -> int:
        return len(self.queue)

    def push(self, expected: Expected) -> None:
        self.queue.append(expected)
        _count(expected, 1)

    def put_back(self, expected: Expected) -> None:
        """Have what was taken out be answered next."""
        self.queue.appendleft(expected)
        _count(expected, 1)

    def act(self, kind: str) -> tuple[Expected, Act]:
        """Return whose answer a message is and what to do with it; raises ProtocolViolation."""
        head = self.head
        found = TABLE[head.kind].get(kind) if head is not None else None
        if head is None or found is None:
            wanted = f"an answer to {head.kind.value}" if head else "nothing"
            raise ProtocolViolation(f"upstream sent `{kind}` where {wanted} was due")
        return head, found

    @property
    def copying(self) -> Copying | None:
        """What copies now, or is about to."""
        head = self.head
        return head.statements[0].copying if head is not None and head.statements else None

    def pop(self) -> Expected:
        expected = self.queue.popleft()
        _count(expected, -1)
        return expected

    def skip_to_sync(self) -> Iterable[Expected]:
        """Take out what the upstream skips after an error: everything before the next Sync."""
        while self.queue and self.queue[0].kind is not Kind.SYNC:
            yield self.pop()

    def only_of(self, segment: int) -> bool:
        """Say whether nothing of an earlier segment is outstanding."""
        return not self.queue or self.queue[0].segment == segment


def _count(expected: Expected, more: int) -> None:
    if expected.portal is not None:
        expected.portal.owed += more
