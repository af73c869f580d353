"""What people want: every payload of a chat platform becomes one of these, with who and where."""

from __future__ import annotations

from dataclasses import dataclass

from workflows.orders import Evidence
from workflows.reviews import Answer


@dataclass(frozen=True, slots=True)
class Source:
    """Who did it and where, in the platform's own ids; `reply_url` answers that person privately."""

    platform: str
    team: str
    account: str
    channel: str = ""
    message: str = ""
    thread: str = ""
    action: str = ""
    reply_url: str = ""

    def evidence(self) -> Evidence:
        return Evidence(
            platform=self.platform,
            team=self.team,
            user=self.account,
            channel=self.channel,
            message=self.message,
            action=self.action,
        )


@dataclass(frozen=True, slots=True)
class Ask:
    """`/access <resource> <role> [for] <duration> [because <reason>]`, words as typed; None is missing."""

    source: Source
    resource: str | None
    role: str | None = None
    duration: str | None = None
    reason: str = ""
    extra: str = ""
    """What follows the duration without `because`."""


@dataclass(frozen=True, slots=True)
class OpenAsk:
    """A click on Open the form; it is opened on the spot, with what `ask` says already."""

    source: Source
    ask: Ask


@dataclass(frozen=True, slots=True)
class AskAgain:
    """A click on Ask again, on a request that nobody answered."""

    source: Source
    token: str


@dataclass(frozen=True, slots=True)
class List:
    """`/access list [<resource>]`."""

    source: Source
    resource: str | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """`/access status [<resource>]`."""

    source: Source
    resource: str | None = None


@dataclass(frozen=True, slots=True)
class Revoke:
    """`/access revoke [<resource> [<role>] | <id> | <person>] [because <reason>]`; `name` is the first word."""

    source: Source
    name: str | None = None
    reason: str = ""
    role: str | None = None


@dataclass(frozen=True, slots=True)
class Connect:
    """`/access connect [<resource> [<role>] | <id>]`: another line into what is open."""

    source: Source
    name: str | None = None
    role: str | None = None


@dataclass(frozen=True, slots=True)
class ExtendNamed:
    """`/access extend [<resource> [<role>] | <id>] [<duration>]`, the duration as typed."""

    source: Source
    name: str | None = None
    role: str | None = None
    duration: str | None = None


@dataclass(frozen=True, slots=True)
class Help:
    source: Source
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Approve:
    source: Source
    token: str


@dataclass(frozen=True, slots=True)
class OpenChanges:
    """A click on Approve with changes…; the form is opened on the spot, this is for those who got none."""

    source: Source
    token: str


@dataclass(frozen=True, slots=True)
class ApproveChanged:
    """The form behind it, sent: a role, and a duration as it was typed or chosen."""

    source: Source
    token: str
    role: str
    duration: str


@dataclass(frozen=True, slots=True)
class OpenDeny:
    """A click on Deny…; the form is opened on the spot, this is for those who got none."""

    source: Source
    token: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """The form behind Deny…, sent."""

    source: Source
    token: str
    reason: str


@dataclass(frozen=True, slots=True)
class Cancel:
    source: Source
    token: str


@dataclass(frozen=True, slots=True)
class ApproveHold:
    """A click on Approve on the card of a held statement."""

    source: Source
    token: str


@dataclass(frozen=True, slots=True)
class OpenDenyHold:
    """A click on Deny… there; the form is opened on the spot, this is for those who got none."""

    source: Source
    token: str


@dataclass(frozen=True, slots=True)
class RefuseHold:
    """The form behind it, sent."""

    source: Source
    token: str
    reason: str


@dataclass(frozen=True, slots=True)
class OpenReview:
    """A click on Review there; the form is opened on the spot, this only tells those who may not."""

    source: Source
    token: str


@dataclass(frozen=True, slots=True)
class ReviewHold:
    """The form behind it, sent: an answer to the statement of `digest`, which the form has shown whole."""

    source: Source
    token: str
    digest: str
    answer: Answer
    reason: str = ""


@dataclass(frozen=True, slots=True)
class OpenShape:
    """A click on Approve this shape… there; the form is opened on the spot, this only tells those who may not."""

    source: Source
    token: str


@dataclass(frozen=True, slots=True)
class ApproveShape:
    """The form behind it, sent: an approval of the statement of `digest`, and of `shape` until the access ends."""

    source: Source
    token: str
    digest: str
    shape: str


@dataclass(frozen=True, slots=True)
class Withdraw:
    """A click on Withdraw shape."""

    source: Source
    token: str


@dataclass(frozen=True, slots=True)
class NewLine:
    source: Source
    token: str


@dataclass(frozen=True, slots=True)
class Extend:
    """A click on +15m or the like, before access ends."""

    source: Source
    token: str
    seconds: int


@dataclass(frozen=True, slots=True)
class EndNow:
    source: Source
    token: str


@dataclass(frozen=True, slots=True)
class HomeOpened:
    """Somebody looks at the app's home."""

    source: Source


@dataclass(frozen=True, slots=True)
class AccountChanged:
    """Somebody's account is not what it was; `gone` where it is deactivated."""

    source: Source
    gone: bool


@dataclass(frozen=True, slots=True)
class Unknown:
    """A payload that nothing here sends."""

    source: Source
    what: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """A payload that asks for nothing."""

    source: Source


Wanted = (
    Ask
    | OpenAsk
    | AskAgain
    | OpenChanges
    | ApproveChanged
    | Extend
    | List
    | Status
    | Revoke
    | Connect
    | ExtendNamed
    | Help
    | Approve
    | OpenDeny
    | Refuse
    | Cancel
    | ApproveHold
    | OpenDenyHold
    | RefuseHold
    | OpenReview
    | ReviewHold
    | OpenShape
    | ApproveShape
    | Withdraw
    | NewLine
    | EndNow
)
"""What only somebody who is known here may do."""
Intent = Wanted | HomeOpened | AccountChanged | Unknown | Ignored
FORMS = (OpenAsk, OpenChanges, OpenDeny, OpenDenyHold, OpenReview, OpenShape)
"""Clicks that open a form."""
DECISIONS = (
    *FORMS,
    Ask,
    AskAgain,
    ApproveChanged,
    Extend,
    Approve,
    Refuse,
    Cancel,
    ApproveHold,
    RefuseHold,
    ReviewHold,
    ApproveShape,
    Withdraw,
    NewLine,
    EndNow,
    Revoke,
    Connect,
    ExtendNamed,
)
"""Intents before which an account is looked up afresh."""
