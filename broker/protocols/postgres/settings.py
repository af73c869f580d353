"""The settings that say what a text means: `'01/02/2020'` is a day in January, or one in February.

An approval is for a text under the ones that its session has, so they are asked of the server before each review; and
again behind whatever was sent since, for what comes and goes with transactions is not followed here. So are settings of
an application's own, where the session has had to do with any: row security and functions may go by them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any

from broker.protocols.postgres.events import Command
from broker.protocols.postgres.owning import ask_when_sure
from broker.protocols.postgres.ruling import Denied
from broker.protocols.postgres.shared import Session
from broker.sessions.holds import Settings
from broker.sql.masks import quote_text

NAMES = ("DateStyle", "IntervalStyle", "TimeZone", "bytea_output", "extra_float_digits")
"""Of those that a session may change, all that change what is read or compared, and not only how it is shown."""
_LONG = (
    "CASE WHEN pg_catalog.length({0}) OPERATOR(pg_catalog.>) 256 THEN 'sha256 ' OPERATOR(pg_catalog.||) "
    "pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to({0}, 'UTF8')), 'hex') ELSE {0} END"
)
SHOWS = [f"show {name}" for name in NAMES]
"""Statements of the broker's own: take no snapshot, and tell nothing but these."""

otherwise = Denied(
    "0A000",
    "a setting that says what this means has changed since it was prepared or bound",
    ("settings",),
    "do that again",
)
"""A value that is written as text was read as it was prepared, or bound."""


def current(session: Session) -> Generator[Command, Any, Settings | None]:
    """Return what the server says of them; None where nothing runs any more before an error is over."""
    if session.settings is not None and session.settings_at == session.sent_so_far:
        return session.settings
    own = sorted(session.own_settings)
    told = yield from ask_when_sure(session, [*SHOWS, *([_values(own)] if own else [])])
    values = [value or b"" for row in told.rows for value in row] if told is not None else []
    if len(values) != len(NAMES) + len(own):
        return None
    texts = (value.decode("utf-8", "replace") for value in values)
    session.settings = tuple(zip((*NAMES, *own), texts, strict=True))
    session.settings_at = session.sent_so_far
    return session.settings


def reading(settings: Settings | None) -> Settings | None:
    """Return those that say what a text means as it is prepared; an application's own count when it runs."""
    return settings and settings[: len(NAMES)]


def _values(names: Iterable[str]) -> str:
    """Write what asks for settings that there may not be, which SHOW would fail of; what is long stands for itself."""
    listed = (f"pg_catalog.current_setting({quote_text(name)}, true)" for name in names)
    return f"select {', '.join(_LONG.format(value) for value in listed)}"
