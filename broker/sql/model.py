"""What inspection of a text of SQL gives: facts for the policy, the rewritten text, and what the session must know."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from policies.engine.decisions import StatementFacts

SearchPath = tuple[str, ...]
"""The schemas of users' in a search path, in order."""
Meaning = tuple[tuple[str, str], ...]
"""What a text is about by name, each with a stamp of what it is."""


class Refusal(Exception):
    """this statement cannot be decided, or can never be allowed; it is denied (fail closed)

    `rule` is a built-in rule's id, `sqlstate` the code for the client (42501 for what is forbidden, 42601 for what
    does not parse, 54001 for what is over a limit), `position` a 1-based character of the user's own text.
    """

    def __init__(
        self,
        rule: str,
        message: str,
        hint: str | None = None,
        *,
        sqlstate: str = "42501",
        position: int | None = None,
        verb: str = "",
        retry: bool = False,
        at: int | None = None,
    ) -> None:
        super().__init__(message)
        self.rule = rule
        self.message = message
        self.hint = hint
        self.sqlstate = sqlstate
        self.position = position
        self.verb = verb
        self.retry = retry
        """A name was unknown to this catalogue: read the catalogue again and inspect once more."""
        self._at = at

    def located(self, text: bytes) -> Refusal:
        """Point to the character of a text at whose byte it was found."""
        if self.position is None and self._at is not None:
            self.position = len(text[: self._at].decode(errors="replace")) + 1
        return self


class Control(StrEnum):
    """What a statement does to the connection's own state, beyond its effects."""

    NONE = ""
    BEGIN = "begin"
    COMMIT = "commit"
    ROLLBACK = "rollback"
    SAVEPOINT = "savepoint"
    RELEASE = "release"
    ROLLBACK_TO = "rollback_to"
    PREPARE = "prepare"
    EXECUTE = "execute"
    DEALLOCATE = "deallocate"
    DECLARE = "declare"
    DECLARE_HELD = "declare_held"
    """WITH HOLD: the cursor outlives its transaction."""
    FETCH = "fetch"
    CLOSE = "close"
    DISCARD_ALL = "discard_all"
    LISTEN = "listen"
    COPY_OUT = "copy_out"
    COPY_IN = "copy_in"
    CONSTRAINTS = "constraints"
    """SET CONSTRAINTS ... IMMEDIATE: it runs what earlier changes left for the end of the transaction."""


class Altered(StrEnum):
    """What a transaction has done to the schema, as far as its session sees it and nobody else does."""

    NOT = ""
    SCHEMA = "schema"
    VIEWS = "views"
    """It has made views: what is behind a name that is not known, or was a view's, nobody can tell."""
    NAMES = "names"
    """It has given views other names: nor what is behind any other."""
    CODE = "code"
    """It may have defined what runs where a builtin function, operator or type is meant."""

    def merged(self, other: Altered) -> Altered:
        """Return the graver of two."""
        return max(self, other, key=list(Altered).index)


class Moves(StrEnum):
    """What a statement does to the search path."""

    NOT = ""
    BACK = "back"
    """It goes back to the one that the session began with."""
    ELSEWHERE = "elsewhere"
    UNKNOWN = "unknown"
    """It runs what is not inspected, and that may do anything to it."""


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a text is inspected, beside the catalogue and the fields that its sender sees."""

    strict: bool = False
    """It is to fail where what it reads masked has changed since the catalogue was read."""
    covers: tuple[str, ...] = ()
    """What its sender's role lets be read like everything else: where that is all there is and nothing is masked, the
    catalogue is shown as it is, and the schema may be changed."""
    but: tuple[str, ...] = ()
    """What of that a rule stands before."""
    settings: tuple[str, ...] = ()
    """Settings of an application's own that rules name."""
    called: str = ""
    """What its client calls the database."""
    altered: Altered = Altered.NOT
    """What its session has done to the schema in this transaction, of which the catalogue knows nothing yet."""
    path: SearchPath | None = None
    """The search path that its session has set, if it has."""
    types: tuple[int, ...] = ()
    """The oids of users' types that its parameters are declared to have."""


PLAIN = Terms()


@dataclass(frozen=True, slots=True)
class CopyForm:
    """How the data of a COPY is to be read: `format` is text, csv or binary; the rest is for csv."""

    format: str = "text"
    header: bool = False
    quote: str = '"'
    escape: str = '"'


AS_TEXT = CopyForm()


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a text. `name` is a prepared statement's, a cursor's ("" is all of them) or a savepoint's."""

    facts: StatementFacts
    redacted: str
    """The user's text with every literal and comment replaced."""
    control: Control = Control.NONE
    name: str = ""
    body: str = ""
    """For prepare: the user's text of the inner statement."""
    refusal: Refusal | None = None
    """Why this statement can never be allowed here; asked only after the policy's own deny rules have spoken."""
    form: CopyForm = AS_TEXT
    """For a COPY: how its data is to be read."""
    compared: frozenset[str] = frozenset()
    """Masked fields that it filters, joins, groups or sorts by."""
    writable: bool = False
    """It asks for transactions that may change data."""
    alters: Altered = Altered.NOT
    """What it does to the schema."""
    moves: Moves = Moves.NOT
    lasting: int = 0
    """Milliseconds that it has a timeout last."""
    declared: str = ""
    """For prepare: what it says of the types of parameters."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """A whole text that may be forwarded as `rewritten`, if the policy allows every statement of it.

    `edits` maps positions back: (start in the rewritten text, start in the user's, length) of each unchanged run, in
    characters; a length of 0 is what the broker wrote, in place of what starts there. `tripwire` holds (relation oid,
    attnum) pairs that must never appear in a RowDescription.
    """

    statements: tuple[Statement, ...]
    rewritten: str
    edits: tuple[tuple[int, int, int], ...]
    scrub: bool
    """A relation with masked fields is in scope: errors and notices are rebuilt."""
    catalogue: str
    """Version of the catalogue it was inspected under."""
    tripwire: frozenset[tuple[int, int]] = field(default_factory=frozenset)
    revealed: tuple[tuple[int, int, int], ...] = ()
    """(position, relation oid, attnum) of outputs that come in clear all the same, once that is approved."""
    searches: tuple[tuple[str, int], ...] = ()
    """Masked fields that are compared in clear, and how often an hour each may be."""
    path: SearchPath | None = None
    """The search path that it was inspected under, where that is not the one that is pinned."""
    means: Meaning = field(default=(), compare=False)
