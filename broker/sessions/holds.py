"""What is known of a held statement: what an approval is bound to, what a reviewer sees, and how a hold is answered."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any

from broker.sessions.eventchain import canonical
from broker.sessions.model import GrantFacts, SessionFacts
from broker.sessions.shapes import Shape
from policies.engine.decisions import Bound, Requirement

Settings = tuple[tuple[str, str], ...]
_USUAL = {
    "DateStyle": ("ISO, MDY",),
    "IntervalStyle": ("postgres",),
    "TimeZone": ("GMT", "UTC", "Etc/UTC"),
    "bytea_output": ("hex",),
    # More than none are alike.
    "extra_float_digits": ("1", "2", "3"),
}
"""What PostgreSQL has by itself, or means the same: reviewers are not told of it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A statement exactly as the client sent it: raw values with their formats and types, None for NULL.

    `bodies` are the texts of prepared statements that it runs, `path` is the search path that its session has set, and
    `settings` are those that say what its texts mean, as the server writes them.
    """

    sql: str
    bodies: tuple[str, ...] = ()
    values: tuple[bytes | None, ...] = ()
    formats: tuple[int, ...] = ()
    types: tuple[int, ...] = ()
    results: tuple[int, ...] = ()
    path: tuple[str, ...] | None = None
    settings: Settings = ()
    means: tuple[tuple[str, str], ...] = ()
    """What it is about, each with a stamp: an approval is for that too."""
    altered: bool = False
    """Its transaction has changed the schema before it."""

    @property
    def text(self) -> str:
        """All of it, for a reviewer."""
        before = ["behind a change of the schema, so that names may mean something else"] if self.altered else []
        set_ = [] if self.path is None else [("search_path", ", ".join(self.path))]
        set_ += [(name, value) for name, value in self.settings if value not in _USUAL.get(name, ("",))]
        # What its client chose stays on its line.
        before += [f"under {name} = {value if value.isprintable() else ascii(value)}" for name, value in set_]
        if _alike(self.sql):
            before.append("as it was sent:")
        return "".join(f"-- {one}\n" for one in before) + "\n\n-- which runs:\n".join((self.sql, *self.bodies))

    def canonical(self) -> dict[str, Any]:
        return {
            **({} if self.path is None else {"path": [name.encode().hex() for name in self.path]}),
            "sql": self.sql.encode().hex(),
            "bodies": [body.encode().hex() for body in self.bodies],
            "values": [None if value is None else value.hex() for value in self.values],
            "formats": list(self.formats),
            "types": list(self.types),
            "results": list(self.results),
            "settings": [list(one) for one in self.settings],
            "means": [list(one) for one in self.means],
            **({"altered": True} if self.altered else {}),
        }


def _alike(sql: str) -> bool:
    """Say whether a text begins with what could be taken for words of the broker's own."""
    for row in map(str.strip, sql.splitlines()):
        if row.startswith(("-- under ", "-- behind ", "-- as it ")):
            return True
        if row and not row.startswith("--"):
            return False
    return False


@dataclass(frozen=True, slots=True)
class HoldFacts:
    """A statement to be reviewed. `seconds` is how long it may wait; `shown` are its parameters as text.

    `waits` says that its client waits for the answer; else it was refused, and an approval is for the same statement
    when it comes again under the same grant.
    """

    session: SessionFacts
    statement: str
    asked: Asked
    requirement: Requirement
    rules: tuple[str, ...]
    seconds: float
    sequence: int
    verb: str = ""
    redacted: str = ""
    shown: tuple[str | None, ...] = ()
    effects: tuple[str, ...] = ()
    relations: tuple[str, ...] = ()
    in_transaction: bool = False
    waits: bool = True
    bound: Bound | None = None
    reveals: tuple[str, ...] = ()
    """Masked fields that would come in clear."""
    shape: Shape | None = None
    """What may be approved beyond this run, where policy lets it be."""


@dataclass(frozen=True, slots=True)
class Sized:
    """How large a relation is, as its upstream says; None where it does not know."""

    name: str
    rows: int | None
    bytes: int | None


@dataclass(frozen=True, slots=True)
class Estimate:
    """What an upstream says of a held statement, which it has not run: `rows` is what its planner expects.

    Where there are no `rows`, `why` says why. `locks` are those that the statement's transaction keeps meanwhile, None
    where that is not known; `cascades` and `triggers` say what else it would change or run. `returned` rows come back
    beside what changes.
    """

    relations: tuple[Sized, ...] = ()
    rows: int | None = None
    why: str = ""
    locks: tuple[str, ...] | None = None
    cascades: tuple[str, ...] = ()
    triggers: tuple[str, ...] = ()
    returned: int = 0

    @property
    def touched(self) -> int | None:
        """Return how many rows it changes or returns, whichever is more: what rules are held against."""
        return max(self.rows, self.returned) if self.rows is not None else None


def digest(facts: HoldFacts, policy: str) -> str:
    """Return what an approval is bound to: SHA-256 over the statement, where and as whom it runs, and the policy."""
    grant = facts.session.grant
    bound = {
        **facts.asked.canonical(),
        "resource": grant.resource,
        "role": grant.role,
        "grant": grant.id,
        "session": facts.session.id,
        "policy": policy,
        "sequence": facts.sequence,
    }
    return hashlib.sha256(canonical(bound)).hexdigest()


def likeness(grant: GrantFacts, asked: Asked) -> str:
    """Return what is equal of the same statement asked twice under one grant."""
    same = {**asked.canonical(), "resource": grant.resource, "role": grant.role, "grant": grant.id}
    return hashlib.sha256(canonical(same)).hexdigest()


@dataclass(frozen=True, slots=True)
class Released:
    """`most` is how many rows the approved statement may touch, where that is bounded; `by` are names for people."""

    hold: str
    most: int | None = None
    by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """`by` are names for people."""

    hold: str
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class TimedOut:
    hold: str


@dataclass(frozen=True, slots=True)
class Abandoned:
    hold: str
    reason: str


@dataclass(frozen=True, slots=True)
class Pending:
    """Nobody has answered, and the client does not wait."""

    hold: str


Answer = Released | Refused | TimedOut | Abandoned | Pending


@dataclass(frozen=True, slots=True)
class Sought:
    """A statement that policy asks about, for which an approved shape is looked up."""

    grant: GrantFacts
    asked: Asked
    shape: Shape
    requirement: Requirement
    rules: tuple[str, ...]
    waits: bool


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold as a session has it: `opened` completes when it is recorded, `answered` when it is over.

    It is not `fresh` where the same statement was held before, and nobody waited for it.
    """

    id: str
    seconds: float
    fresh: bool
    opened: Awaitable[None] = field(compare=False)
    answered: Awaitable[Answer] = field(compare=False)
