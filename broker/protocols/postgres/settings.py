"""The settings that say what a text means: `'01/02/2020'` is a day in January, or one in February.

An approval is for a text under the ones that its session has, so they are asked of the server before each review; and
again behind whatever was sent since, for what comes and goes with transactions is not followed here.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from broker.protocols.postgres.events import Command
from broker.protocols.postgres.owning import ask_when_sure
from broker.protocols.postgres.ruling import Denied
from broker.protocols.postgres.shared import Session
from broker.sessions.holds import Settings

NAMES = ("DateStyle", "IntervalStyle", "TimeZone", "bytea_output", "extra_float_digits")
"""Of those that a session may change, all that change what is read or compared, and not only how it is shown."""
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
    told = yield from ask_when_sure(session, SHOWS)
    values = [row[0] for row in told.rows if row and row[0] is not None] if told is not None else []
    if len(values) != len(NAMES):
        return None
    session.settings = tuple(zip(NAMES, (value.decode("utf-8", "replace") for value in values), strict=True))
    session.settings_at = session.sent_so_far
    return session.settings
