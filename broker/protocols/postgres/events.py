"""What the session machine hears and says: events are participles, commands imperatives; `at` is monotonic seconds."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

from broker.protocols.postgres.codec import Frame
from broker.protocols.postgres.explaining import Question
from broker.protocols.postgres.replies import Problem
from broker.protocols.postgres.responses import Expected
from broker.protocols.postgres.ruling import Permitted, Ruling
from broker.sessions.holds import Answer, HoldFacts, Sought
from broker.sessions.model import CloseReason, Durability, Entry
from broker.sessions.shapes import ShapeRule
from broker.sql.model import Altered, SearchPath
from policies.engine.decisions import Requirement


@dataclass(frozen=True, slots=True)
class FromClient:
    data: bytes
    at: float


@dataclass(frozen=True, slots=True)
class FromUpstream:
    data: bytes
    at: float


@dataclass(frozen=True, slots=True)
class Ruled:
    """The answer to Inspect."""

    token: int
    ruling: Ruling
    at: float


@dataclass(frozen=True, slots=True)
class Recorded:
    """The answer to Record: what it asked for is as durable as it must be before the statement goes on."""

    token: int
    at: float


@dataclass(frozen=True, slots=True)
class Synced:
    """A record whose results waited is on disk."""

    token: int
    at: float


@dataclass(frozen=True, slots=True)
class RecordingLost:
    at: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The broker ends the session: expiry, revocation, End now, shutdown."""

    reason: CloseReason
    problem: Problem | None
    at: float


@dataclass(frozen=True, slots=True)
class ClientGone:
    at: float


@dataclass(frozen=True, slots=True)
class UpstreamGone:
    at: float


@dataclass(frozen=True, slots=True)
class HoldOpened:
    """A hold is recorded, and may wait for so many seconds."""

    token: int
    seconds: float
    at: float


@dataclass(frozen=True, slots=True)
class HoldWaited:
    """A while has passed without an answer."""

    token: int
    seconds: float
    at: float


@dataclass(frozen=True, slots=True)
class HoldAnswered:
    """The answer to Hold."""

    token: int
    answer: Answer
    at: float


@dataclass(frozen=True, slots=True)
class HoldUsed:
    """The answer to Use: whether the approval was good."""

    token: int
    good: bool
    at: float


@dataclass(frozen=True, slots=True)
class Matched:
    """The answer to Match: the rule that an approved shape made, if there is one."""

    token: int
    rule: ShapeRule | None
    at: float


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """The client gives up what it waits for; of no meaning where nothing is held."""

    at: float


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The answer to Cancel: the upstream has heard of it, or could not be reached."""

    at: float


Event = (
    FromClient
    | FromUpstream
    | Ruled
    | Recorded
    | Synced
    | RecordingLost
    | Ended
    | ClientGone
    | UpstreamGone
    | HoldOpened
    | HoldWaited
    | HoldAnswered
    | HoldUsed
    | Matched
    | CancelAsked
    | Cancelled
)


@dataclass(frozen=True, slots=True)
class Inspect:
    """Rule on a text; answered by Ruled."""

    sql: str
    altered: Altered = Altered.NOT
    """What the transaction that it belongs to did to the schema before it."""
    types: tuple[int, ...] = ()
    """Users' types that its parameters were declared to have."""
    token: int = 0

    def with_token(self, token: int) -> Inspect:
        return replace(self, token=token)


@dataclass(frozen=True, slots=True)
class Record:
    """Write entries; answered by Recorded, at once or when synced, and by Synced where results wait for it."""

    entries: tuple[Entry, ...]
    durability: Durability
    token: int = 0

    def with_token(self, token: int) -> Record:
        return replace(self, token=token)


@dataclass(frozen=True, slots=True)
class Hold:
    """Have a statement reviewed; answered by HoldAnswered, before that perhaps by HoldOpened and HoldWaited.

    `notice` is what the client hears while it waits, followed by how long that may be. `question` is what the upstream
    is asked meanwhile, for the reviewers.
    """

    facts: HoldFacts
    notice: str
    question: Question
    token: int = 0

    def with_token(self, token: int) -> Hold:
        return replace(self, token=token)


@dataclass(frozen=True, slots=True)
class Weigh:
    """Ask the upstream's planner, and rule again with what it expects; answered by Ruled."""

    ruling: Permitted
    question: Question
    token: int = 0

    def with_token(self, token: int) -> Weigh:
        return replace(self, token=token)


@dataclass(frozen=True, slots=True)
class Use:
    """Use up an approval for what policy demands now, which may be nothing; answered by HoldUsed."""

    hold: str
    requirement: Requirement | None
    token: int = 0

    def with_token(self, token: int) -> Use:
        return replace(self, token=token)


@dataclass(frozen=True, slots=True)
class Match:
    """Look up whether the shape of a statement was approved; answered by Matched."""

    sought: Sought
    token: int = 0

    def with_token(self, token: int) -> Match:
        return replace(self, token=token)


@dataclass(frozen=True, slots=True)
class Drop:
    """Abandon the hold that was opened last."""

    reason: str


@dataclass(frozen=True, slots=True)
class Note:
    """Write an entry that nothing waits for."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class ToUpstream:
    data: bytes


@dataclass(frozen=True, slots=True)
class ToClient:
    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class PauseClient:
    pass


@dataclass(frozen=True, slots=True)
class ResumeClient:
    pass


@dataclass(frozen=True, slots=True)
class PauseUpstream:
    pass


@dataclass(frozen=True, slots=True)
class ResumeUpstream:
    pass


@dataclass(frozen=True, slots=True)
class Reload:
    """The schema has changed, or may have: what was read of the catalogue is old."""

    own: bool = True
    """This session has changed it, of which other processes are to hear."""


@dataclass(frozen=True, slots=True)
class Move:
    """The session has this search path by now; None is the one that is pinned."""

    path: SearchPath | None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Ask the upstream to cancel what it runs; answered by Cancelled."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Wait until nothing of earlier segments, or nothing at all, is due; the machine's own, never handed out.

    `copy` waits only until the upstream says whether it takes copy data.
    """

    everything: bool = False
    copy: bool = False


@dataclass(frozen=True, slots=True)
class Settle:
    """Take these answers to what was withheld as if they came from the upstream now; the machine's own like Drain."""

    expected: Expected
    frames: tuple[Frame, ...]


@dataclass(frozen=True, slots=True)
class Close:
    """The session is over: forward nothing more, end the upstream's work."""

    reason: CloseReason
    problem: Problem | None = None


Command = (
    Inspect
    | Record
    | Hold
    | Weigh
    | Use
    | Match
    | Drop
    | Note
    | ToUpstream
    | ToClient
    | PauseClient
    | ResumeClient
    | PauseUpstream
    | ResumeUpstream
    | Reload
    | Move
    | Cancel
    | Drain
    | Settle
    | Close
)

Gate = Generator[Command, Any, None]
"""One message on its way through the gate; Inspect is answered by a ruling, Record and Drain by None.

Hold is answered by an answer, or by None where the client gave up; Use by whether the approval was good; Match by a
rule, or by None.
"""
