"""Wire models of the broker's HTTP API, shared by both sides; times are RFC 3339 in UTC."""

from __future__ import annotations

from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict

from workflows.grants import GrantState


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class OrderBody(_Wire):
    """`POST /v1/grants`: the signed order, which opens a grant or moves the end of one; it authenticates itself."""

    order: str


class GrantView(_Wire):
    """What `POST /v1/grants` and `GET /v1/grants/{id}` answer; the same order twice gives the same grant."""

    id: str
    request: str
    person: str
    resource: str
    role: str
    state: GrantState
    opened_at: AwareDatetime
    expires_at: AwareDatetime


class TicketView(_Wire):
    """What `POST /v1/grants/{id}/tickets` answers, once: fields for graphical tools, and the line to paste."""

    id: str
    grant: str
    protocol: str
    host: str
    port: int
    user: str
    password: str
    database: str
    line: str
    expires_at: AwareDatetime


class SizedRelation(_Wire):
    """A relation's size as its upstream knows it; None where it does not."""

    name: str
    rows: int | None = None
    bytes: int | None = None


class EstimateView(_Wire):
    """What the upstream says of a held statement without running it.

    `rows` is what its planner expects the statement to change, or to return; where there is none, `why` says why.
    `locks` are those on relations that the statement's transaction keeps while it waits, None where that is not known.
    `cascades` says which rows of other relations foreign keys would change, `triggers` which triggers run, there too.
    """

    relations: list[SizedRelation] = []
    rows: int | None = None
    why: str = ""
    locks: list[str] | None = None
    cascades: list[str] = []
    triggers: list[str] = []


class ShapeOffer(_Wire):
    """A held statement's shape, where policy lets it be approved: its text with `$1` for the first value, and in
    words what may stand for each."""

    digest: str
    text: str
    values: list[str] = []


class ShapeView(_Wire):
    """What `GET` and `DELETE /v1/shapes/{id}` answer: an approved shape, which is a rule of its grant until that ends.

    `most` is how many rows each run may touch before it is rolled back; `redacted` is the text without any literals.
    """

    id: str
    grant: str
    hold: str
    digest: str
    text: str
    redacted: str
    values: list[str] = []
    rules: list[str] = []
    by: list[str] = []
    most: int | None = None
    approved_at: AwareDatetime
    withdrawn_at: AwareDatetime | None = None
    withdrawn_by: str | None = None


class HoldView(_Wire):
    """What `GET /v1/holds/{id}` answers, to the bot alone: all of what a reviewer must see before they answer.

    `parameters` are as text, None for NULL. `digest` binds bytes, parameters, role, resource and policy. `redacted` is
    the text without its literals. `waits` says that the client waits for the answer; else the statement was refused,
    and once approved it may run when it comes again, until `expires_at`. `estimate` comes a moment later than the rest.
    `reveals` are masked fields that would come in clear.
    `most` is how many rows it may touch before it is rolled back, where that is bounded. `shape` is what may be
    approved beyond this run.
    """

    id: str
    grant: str
    session: str
    statement: str
    person: str
    resource: str
    role: str
    state: str
    digest: str
    text: str
    parameters: list[str | None] = []
    effects: list[str] = []
    relations: list[str] = []
    reveals: list[str] = []
    rules: list[str] = []
    needs: list[dict[str, Any]] = []
    in_transaction: bool = False
    waits: bool = True
    redacted: str = ""
    estimate: EstimateView | None = None
    most: int | None = None
    shape: ShapeOffer | None = None
    opened_at: AwareDatetime
    expires_at: AwareDatetime


class HoldAnswerBody(_Wire):
    """`POST /v1/holds/{id}/answers`: the signed answer; 200 with the HoldView, 409 `more_reviews` or `over`."""

    answer: str


class Problem(_Wire):
    """Every answer that is not a success; `code` is for programs, `message` and `hint` for people."""

    code: str
    message: str
    hint: str | None = None
    needs: list[dict[str, Any]] | None = None
    """With code `more_reviews` (409): what the broker's policy still wants, as [{count, groups}]."""


class EventView(_Wire):
    """One line of `GET /v1/events` (NDJSON); `cursor` is opaque, to be sent back as `after`."""

    cursor: str
    stream: str
    seq: int
    at: AwareDatetime
    type: str
    grant: str | None = None
    session: str | None = None
    data: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """What tells it from every other event, wherever its reader began to read."""
        return f"{self.stream}:{self.seq}:{self.at:%Y%m%dT%H%M%S.%f}"


FOLDED = "statements.allowed"
"""Not an event of the log: what `GET /v1/events?fold=true` gives for statement.allowed and statement.finished events
that follow each other. `grants`: of each its `statements` (how many), `masked`, `rules` (how many by each)."""
EVENT_TYPES = {
    "grant.opened": "request, order, person, resource, role, opened_at, expires_at, policy",
    "grant.refused": "request, order, reason",
    "grant.extended": "request, order, seconds (that came on top), before (the end until now), expires_at, by, rules",
    "extension.refused": "request, order, reason: the grant stays what it is",
    "grant.ended": "by; state",
    "grant.expired": "",
    "grant.revoked": "by, reason",
    "grant.closed": "no session is left; statements, denied, masked, revealed, searched, sessions, verified, recording",
    "ticket.minted": "ticket (id), by",
    "session.opened": "ticket, person, resource, role, application, address, identity: its own role upstream, if any",
    "session.refused": "reason (for a known ticket: expired, another database, upstream down, ...), address, "
    "application",
    "session.closed": "reason (client, ended, expired, revoked, tripwire, upstream, error), verified (bool), seconds, "
    "identity (dropped, disabled): what became of its own role",
    "identity.left": "identity, resource, owns: a session's role could not be dropped; nobody logs in as it any more",
    "identity.swept": "identity, resource, end, owns: a role that no session has any more was dropped or disabled",
    "statement.allowed": "statement (id), text (redacted), verb, rules, masked, revealed (fields that come in clear), "
    "searched (masked fields that are compared in clear)",
    "statement.denied": "statement, text (redacted), verb, rules, message, hint; hold: that may let it run later",
    "statement.bounded": "statement, most: it may touch so many rows; the broker counts them before it is committed",
    "statement.counted": "statement, rows (triggers and cascades included), most, kept (false: it was rolled back)",
    "statement.finished": "statement, outcome (ok, failed, cut, unknown), rows, milliseconds, sqlstate; "
    "copied ({direction, bytes, sha256}) of a COPY",
    "statement.explained": "statement (id), text (redacted): the upstream's planner is asked before it is decided",
    "session.settled": "reason, verified, seconds, outcome: of one whose end was not seen, or not verified, before",
    "order.deferred": "request, order, needs, policy",
    "recording.read": "recording (grant), by: somebody read a recording with its literals",
    "recording.torn": "bytes: a half-written last line was cut off at a start",
    "recording.resumed": "recorded",
    "log.torn": "stream, bytes, position: a half-written last line was cut off at a start",
    "clock.stepped": "seconds: the wall clock went back; no grant became longer",
    "hold.opened": "hold, statement, digest, text (redacted), verb, rules, needs, relations, effects, reveals, "
    "waits, "
    "expires_at",
    "hold.explained": "hold, statement (id), text (redacted): the upstream's planner is asked; nothing runs",
    "hold.estimated": "hold, relations ([{name, rows, bytes}]), rows, why, locks, cascades, triggers",
    "hold.prolonged": "hold, expires_at: its grant was extended, so it waits, or is good, until then",
    "hold.released": "hold, by (people), waits, expires_at: until when the approval is good, most (rows it may touch)",
    "hold.consumed": "hold, statement: the approval was used, once",
    "hold.undone": "hold, statement, outcome (failed, rolled_back, not_run, unknown): what was approved is not kept",
    "hold.refused": "hold, by, reason",
    "hold.timed_out": "hold",
    "hold.abandoned": "hold, reason (client, cancelled, expired, revoked, ended, policy, schema, shutdown, upstream, "
    "error, crowded: by newer ones that no client waits for either)",
    "shape.approved": "shape (the id of the rule it makes), hold, by (people), text (redacted), rules, "
    "most (rows of each run)",
    "shape.refused": "hold, reason: a shape was approved with a statement, and made no rule",
    "shape.withdrawn": "shape, by, reason",
    "policy.loaded": "hash",
    "policy.rejected": "findings",
    "upstream.failed": "resource, reason",
}
"""Every type of event in the feed and the keys of its `data`."""
