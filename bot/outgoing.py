"""What leaves the bot: each is an outbox row before it happens, and names rows, never secrets."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from bot.cards import Card
from workflows.reviews import Answer


@dataclass(frozen=True, slots=True)
class InThread:
    """A reply under a request's card."""

    request: str
    kind: Literal["thread"] = "thread"


@dataclass(frozen=True, slots=True)
class ToPerson:
    """A direct message."""

    account: str
    kind: Literal["person"] = "person"


@dataclass(frozen=True, slots=True)
class Mirror:
    """A direct message to somebody who does not see the reviewers' channel; to others, nothing."""

    account: str
    kind: Literal["mirror"] = "mirror"


@dataclass(frozen=True, slots=True)
class Privately:
    """Where somebody just did something, seen by nobody else."""

    account: str
    channel: str
    thread: str = ""
    reply_url: str = ""
    kind: Literal["privately"] = "privately"


Place = Annotated[InThread | ToPerson | Mirror | Privately, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True)
class Say:
    """A message that stays as it is."""

    place: Place
    card: Card
    kind: Literal["say"] = "say"


@dataclass(frozen=True, slots=True)
class Show:
    """A message that is edited in place: made from the database when it is sent."""

    message: str
    version: int
    kind: Literal["show"] = "show"


@dataclass(frozen=True, slots=True)
class PostOrder:
    request: str
    order: str
    kind: Literal["order"] = "order"


@dataclass(frozen=True, slots=True)
class DeliverTicket:
    """Mint a ticket and hand it to its owner; the ticket itself is never written down here."""

    grant: str
    account: str
    round: int
    kind: Literal["ticket"] = "ticket"


@dataclass(frozen=True, slots=True)
class EndGrant:
    """Ask the broker to end a grant for its owner, or to revoke it for anybody else."""

    grant: str
    actor: str
    account: str
    revoke: bool
    reason: str = ""
    kind: Literal["end"] = "end"


@dataclass(frozen=True, slots=True)
class PostTranscript:
    """Put a transcript into the thread as a file; with `account`, as a direct message to who does not see that."""

    grant: str
    format: Literal["text", "json"]
    account: str = ""
    kind: Literal["transcript"] = "transcript"


@dataclass(frozen=True, slots=True)
class AnswerHold:
    """Send every review of a hold to the broker; `answer` and `place` are of the person whose click caused it."""

    hold: str
    answer: Answer
    place: Privately
    kind: Literal["answer"] = "answer"


@dataclass(frozen=True, slots=True)
class PostStatement:
    """Put all of a held statement into the thread as a file; its text is fetched when this leaves."""

    hold: str
    kind: Literal["statement"] = "statement"


@dataclass(frozen=True, slots=True)
class WithdrawShape:
    """Ask the broker to withdraw an approved shape; `place` is of whoever wants that."""

    shape: str
    actor: str
    place: Privately
    kind: Literal["withdraw"] = "withdraw"


Outgoing = Annotated[
    Say | Show | PostOrder | DeliverTicket | EndGrant | PostTranscript | AnswerHold | PostStatement | WithdrawShape,
    Field(discriminator="kind"),
]
_adapter: TypeAdapter[Outgoing] = TypeAdapter(Outgoing)


def to_row(item: Outgoing) -> dict[str, Any]:
    """Return an item as JSON values."""
    row: dict[str, Any] = _adapter.dump_python(item, mode="json")
    return row


def from_row(payload: dict[str, Any]) -> Outgoing:
    """Read an item back; raises pydantic's ValidationError."""
    return _adapter.validate_python(payload)


def card_of(request: str) -> str:
    """Name the message that is a request's card."""
    return f"card:{request}"


def counter_of(grant: str) -> str:
    """Name the message that counts what happens under a grant."""
    return f"counter:{grant}"


def refusals_of(grant: str) -> str:
    """Name the message in the thread that counts refused connections, once there are too many for a line each."""
    return f"refusals:{grant}"


def ticket_of(grant: str) -> str:
    """Name the message that carried a grant's newest ticket."""
    return f"ticket:{grant}"


def home_of(account: str) -> str:
    """Name what somebody sees in the app's home."""
    return f"home:{account}"


def hold_of(hold: str) -> str:
    """Name the message that is a hold's card."""
    return f"hold:{hold}"


def shape_of(shape: str) -> str:
    """Name the message in the thread that says what shape was approved."""
    return f"shape:{shape}"


def offer_of(grant: str, end: datetime) -> str:
    """Name the message in the thread that offers to extend a grant before one of its ends."""
    return f"offer:{grant}:{int(end.timestamp())}"


def reminder_of(grant: str, end: datetime) -> str:
    """Name the direct message that does."""
    return f"reminder:{grant}:{int(end.timestamp())}"
