"""What the broker says in PostgreSQL's own words: problems of its own, and the upstream's made safe to pass."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Any

from broker.protocols.postgres import codec
from broker.protocols.postgres.copying import Copying
from broker.sql.paths import confirmed
from broker.sql.rewrite import position_in_user_text

PREFIX = "airlock: "
OVER_LIMIT = "54000"


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as a client shows it: `position` is a 1-based character of the client's own text."""

    sqlstate: str
    message: str
    detail: str | None = None
    hint: str | None = None
    position: int | None = None
    fatal: bool = False
    routine: str = ""

    def encoded(self) -> bytes:
        severity = "FATAL" if self.fatal else "ERROR"
        return codec.fields(
            b"E",
            {
                "S": severity,
                "V": severity,
                "C": self.sqlstate,
                "M": PREFIX + self.message,
                "D": self.detail or "",
                "H": self.hint or "",
                "P": str(self.position or ""),
                "R": self.routine,
            },
        )


Recheck = Callable[[], Generator[Any, Any, Problem | None]]
"""Looks at what has run once more, and says why it is not kept."""


def notice(message: str) -> bytes:
    """Write a notice; a hold will say so whom it waits for."""
    return codec.fields(b"N", {"S": "NOTICE", "V": "NOTICE", "C": "00000", "M": PREFIX + message})


def compares(fields: Iterable[str]) -> bytes:
    """Tell that masked fields are compared as they are shown."""
    named = ", ".join(sorted(fields))
    return notice(f"masked for you, so filters, joins and sorting compare what is shown, not what is stored: {named}")


def denial(sqlstate: str, message: str, rules: Sequence[str], hint: str | None, position: int | None = None) -> Problem:
    """Word a denial: the rules that gave it are its detail."""
    return Problem(sqlstate, message, f"rules: {', '.join(rules)}" if rules else None, hint, position)


def no_statement(name: str) -> Problem:
    what = f'prepared statement "{name}"' if name else "unnamed prepared statement"
    return Problem("26000", f"{what} does not exist")


def no_portal(name: str) -> Problem:
    return Problem("34000", f'portal "{name}" does not exist')


def too_far(copying: Copying) -> Problem:
    """Word the end of a COPY that went beyond its limit."""
    way = "in: none of it was kept" if copying.incoming else "out"
    message = f"this copies more than {copying.allowance()} {way}"
    hint = (
        "copy less at a time" if copying.incoming else "copy less at a time, with a query: COPY (SELECT ...) TO STDOUT"
    )
    return denial(OVER_LIMIT, message, copying.rules, hint)


# Classes whose texts name objects and states, never values: syntax and names, operator intervention, transaction
# states, cursors and prepared statements. Everything else gets a text from the tables below.
_NAMING = ("42", "57", "25", "26", "34", "08", "53", "55", "3D", "3F", "2D", "3B", "0A")
# Texts of these quote values although their class does not: 42804 and 42846 name types only, 42P10 and 42611 positions;
# 42602 and 42622 quote what was passed as a name at run time, 0A000 can quote a time zone or a locale.
_QUOTING = frozenset({"42602", "42622", "42939", "0A000"})
# Of a name in the statement's text these give the place; without one they quote a value that was looked up as a name
# when it ran, as a cast to regclass does.
_LOOKED_UP = frozenset({"3D000", "3F000", "42601", "42703", "42704", "42725", "42883", "42P01"})
_UNPLACED = re.compile(
    r'column ".*" specified in USING clause does not exist in (left|right) table'
    r'|multiple assignments to same column ".*"'
    r"|INSERT has more (expressions than target columns|target columns than expressions)"
)
"""Texts of these that name only what the statement does although they give no place."""
_PARAMETER = re.compile(r'(unnamed portal|portal ".*") parameter \$\d+.*')
_STATES = {
    "22001": "value too long for its type",
    "22003": "numeric value out of range",
    "22007": "invalid date or time format",
    "22008": "date or time field value out of range",
    "22012": "division by zero",
    # The check of a strict role's statement fails so.
    "2201G": "what the statement reads was changed after it was decided, or width_bucket has a wrong argument",
    "22021": "invalid character for the encoding",
    "22P02": "invalid text representation",
    "22P03": "invalid binary representation",
    "23502": "null value violates a not-null constraint",
    "23503": "violates a foreign key constraint",
    "23505": "duplicate key value violates a unique constraint",
    "23514": "violates a check constraint",
    "23P01": "conflicting key value violates an exclusion constraint",
    "2D000": "invalid transaction termination",
    "40001": "could not serialize access",
    "40P01": "deadlock detected",
    "54001": "stack depth limit exceeded",
    "55P03": "a lock is not available",
    "57014": "the statement was canceled",
}
_OF_RECOVERY = frozenset(
    {
        "canceling statement due to conflict with recovery",
        "terminating connection due to conflict with recovery",
    }
)
"""What a standby says of a statement that is in the way of what it has to follow: whole texts, which tell nothing."""
_CLASSES = {
    "01": "warning",
    "02": "no data",
    "0A": "feature not supported",
    "21": "cardinality violation",
    "22": "data exception",
    "23": "integrity constraint violation",
    "24": "invalid cursor state",
    "25": "invalid transaction state",
    "2B": "dependent privilege descriptors still exist",
    "3D": "invalid name of a database",
    "3F": "invalid name of a schema",
    "40": "transaction rollback",
    "42": "syntax error or access rule violation",
    "44": "with check option violation",
    "53": "insufficient resources",
    "54": "program limit exceeded",
    "55": "something is not in the state that this needs",
    "57": "operator intervention",
    "58": "system error",
    "P0": "raised by a function",
    "XX": "internal error",
}
_WITHHELD = " (its text is withheld: it could tell of fields that are masked for you)"


def passed_problem(kind: bytes, body: bytes, edits: Sequence[tuple[int, int, int]] | None, *, scrub: bool) -> bytes:
    """Return the upstream's error or notice as the client may see it; `edits` None means positions mean nothing."""
    if not scrub and b"\0P" not in body and not body.startswith(b"P"):
        return codec.message(kind, body)
    values = codec.read_fields(body)
    if scrub:
        values = _scrubbed(values)
    position = values.get("P", "")
    mapped = position_in_user_text(edits, int(position)) if edits is not None and position.isdecimal() else None
    # A field without a value is left out; the others keep their order.
    values["P"] = str(mapped) if mapped is not None else ""
    return codec.fields(kind, values)


_OWN_CONTEXT = ("COPY ", "unnamed portal", 'portal "', "JSON data, ")


def speaks_of_others(body: bytes, named: Set[str]) -> bool:
    """Say whether an error or notice could tell of more than what a transaction's statements named.

    One from within a function, as a trigger's is, may say what that has read; what else has a context speaks of the
    client's own data (words in another language are not known: fail closed). One about the rows of a table that no
    statement named speaks of what a trigger or a foreign key had follow, perhaps at the transaction's end; but that
    rows are still referred to from another table is said of those that were named.
    """
    if b"\0W" not in body and b"\0t" not in body:
        return False
    values = codec.read_fields(body)
    if _from_within(values):
        return True
    about = f"{values.get('s', '')}.{values['t']}" if "t" in values and values.get("C") != "23503" else ""
    return bool(about) and about not in named


def _from_within(values: dict[str, str]) -> bool:
    return any(not line.startswith(_OWN_CONTEXT) for line in values.get("W", "").split("\n") if line)


def _names_only(state: str, values: dict[str, str]) -> bool:
    """Say whether a text can only name what the statement itself names: code of users' gives any state any text."""
    if _from_within(values):
        return False
    if state.startswith("22"):
        # What is read before anything runs: a constant that its type does not take has a place, a parameter its number.
        return "P" in values or _PARAMETER.fullmatch(values.get("W", "")) is not None
    if not state.startswith(_NAMING) or state in _QUOTING:
        return False
    return state not in _LOOKED_UP or "P" in values or _UNPLACED.fullmatch(values.get("M", "")) is not None


def _scrubbed(values: dict[str, str]) -> dict[str, str]:
    state = values.get("C", "XX000")
    if not _is_state(state):
        state = "XX000"
    kept = {"S": values.get("S", "ERROR"), "V": values.get("V", "ERROR"), "C": state}
    if any(not word.isalpha() for word in (kept["S"], kept["V"])):
        kept |= {"S": "ERROR", "V": "ERROR"}
    if _names_only(state, values) or (state == "40001" and values.get("M") in _OF_RECOVERY):
        kept["M"] = values.get("M", "")
    else:
        kept["M"] = (_STATES.get(state) or _CLASSES.get(state[:2]) or "error") + _WITHHELD
    if "P" in values:
        kept["P"] = values["P"]
    return kept


def _is_state(state: str) -> bool:
    return len(state) == 5 and state.isascii() and state.isalnum()


# What a driver needs to know of the server, each with the characters its values may have. The upstream's own
# application_name and user name are the broker's business.
_STATUSES = frozenset(
    {
        "server_version",
        "server_encoding",
        "client_encoding",
        "DateStyle",
        "IntervalStyle",
        "TimeZone",
        "integer_datetimes",
        "standard_conforming_strings",
        "in_hot_standby",
        "default_transaction_read_only",
    }
)
_PUNCTUATION = frozenset(" .,:+-_/()~")


def passes_status(name: str, value: str) -> bool:
    """Say whether a ParameterStatus may reach the client: a setting can carry data in its value.

    Servers since 18 report the search path. One that sessions may set is what SHOW would tell.
    """
    if name == "search_path":
        return confirmed(value) is not None
    return (
        name in _STATUSES
        and len(value) <= 64
        and value.isascii()
        and all(character.isalnum() or character in _PUNCTUATION for character in value)
    )
