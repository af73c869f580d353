"""A held statement as reviewers read it: nothing hidden, and whole, on the card or in a file."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from bot.text import clip, clip_head, expose, length
from workflows.wire import HoldView

TEXT_SHOWN = 2_900
LINES_SHOWN = 80
PARAMETERS_SHOWN = 2_000
PARAMETERS_LISTED = 40
HEAD, TAIL = 1_400, 1_000
HEAD_LINES, TAIL_LINES = 25, 15
FOREIGN_SHOWN = 6
_WIDE = re.compile(r"[^\S\n]{100}")
_BLANK_ROWS = 8
"""More blanks than this in a row, or rows of them, take what stands behind them out of sight."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What there is to read: `text` and `parameters` with everything that hides written as escapes."""

    text: str
    parameters: tuple[str, ...]
    characters: int
    lines: int
    escapes: int
    foreign: tuple[str, ...]
    """Letters outside the Latin script, which may look like Latin ones."""
    gaps: bool = False
    """Something stands so far from the rest that it may be overlooked."""

    @property
    def fits(self) -> bool:
        """Say whether a card shows all of it."""
        return self._text_fits and self._parameters_fit

    @property
    def _text_fits(self) -> bool:
        return length(self.text) <= TEXT_SHOWN and self.text.count("\n") < LINES_SHOWN

    @property
    def _parameters_fit(self) -> bool:
        listed = length("\n".join(self.parameters))
        return len(self.parameters) <= PARAMETERS_LISTED and listed <= PARAMETERS_SHOWN

    def pieces(self) -> tuple[str, ...]:
        """Return the text, or its head and its tail where it does not fit."""
        if self._text_fits:
            return (self.text,)
        rows = self.text.split("\n")
        head, tail = "\n".join(rows[:HEAD_LINES]), "\n".join(rows[-TAIL_LINES:])
        return clip(head, HEAD, ""), clip_head(tail, TAIL, "")

    def listed(self) -> str:
        """Return the parameters, or as many as fit, the longest cut."""
        if self._parameters_fit:
            return "\n".join(self.parameters)
        rows = [clip(row, 200) for row in self.parameters[:8]]
        left = len(self.parameters) - len(rows)
        return "\n".join([*rows, f"… and {left} more"] if left else rows)


def read(view: HoldView) -> Reading:
    """Make a statement and its parameters readable."""
    text, escapes = expose(view.text)
    rows = []
    for number, value in enumerate(view.parameters, 1):
        row, hidden = parameter(number, value)
        rows.append(row)
        escapes += hidden
    texts = (view.text, *(value or "" for value in view.parameters))
    lines = view.text.count("\n") + 1
    return Reading(text, tuple(rows), len(view.text), lines, escapes, _foreign(texts), any(map(_gaps, texts)))


def parameter(number: int, value: str | None) -> tuple[str, int]:
    """Write one parameter on one line of its own; a text is quoted as SQL would, so NULL is not `'NULL'`."""
    if value is None:
        return f"${number} = NULL", 0
    quoted = value.replace("'", "''")
    shown, hidden = expose(quoted, keep="")
    return f"${number} = '{shown}'", hidden


def file_of(hold: str, view: HoldView, reading: Reading) -> bytes:
    """Write the file that holds all of a statement; the text comes last, so that it forges nothing after it."""
    about = [
        f"Statement of hold {hold}: {view.role} on {view.resource}",
        f"digest {view.digest}",
        f"{reading.characters} characters, {reading.lines} lines",
        f"{reading.escapes} characters do not show and are written by their numbers, like \\u202e",
        f"{len(reading.parameters)} parameters",
        *reading.parameters,
        "",
        "The statement, to the end of this file:",
        reading.text,
    ]
    return "\n".join(about).encode("utf-8", "backslashreplace")


def fingerprint(content: bytes) -> str:
    """Return a file's SHA-256."""
    return hashlib.sha256(content).hexdigest()


def _gaps(text: str) -> bool:
    text = text.strip()
    if _WIDE.search(text):
        return True
    blank = 0
    for row in text.split("\n"):
        blank = 0 if row.strip() else blank + 1
        if blank >= _BLANK_ROWS:
            return True
    return False


def _foreign(texts: Sequence[str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for text in texts:
        for character in text:
            if not character.isascii() and character.isalpha() and character not in found:
                name = unicodedata.name(character, "")
                if not name.startswith(("LATIN ", "FEMININE ", "MASCULINE ")) or "SMALL CAPITAL" in name:
                    found[character] = None
                    if len(found) > FOREIGN_SHOWN:
                        return tuple(found)
    return tuple(found)
