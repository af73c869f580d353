"""Durations as people write them: `30m`, `2 hours`, `1h30m`, `1.5h`, `1d`; always with a unit, in whole minutes."""

from __future__ import annotations

import re
import unicodedata
from datetime import timedelta
from fractions import Fraction

_UNITS = {"d": 86400, "h": 3600, "m": 60}
_WORDS = {"d": "days|day|d", "h": "hours|hour|hrs|hr|h", "m": "minutes|minute|mins|min|m"}
_SECONDS = "seconds|second|secs|sec|s"
_WEEKS = "weeks|week|w"
_NUMBER = r"\d{1,5}(?:\.\d{1,4})?"
_PARTS = "".join(rf"(?:(?P<{unit}>{_NUMBER})\s*(?:{words})\s*)?" for unit, words in _WORDS.items())
_TEXT = re.compile(rf"{_PARTS}(?:(?P<s>{_NUMBER})\s*(?:{_SECONDS}))?", re.ASCII)
_PART = rf"-?\d[\d.]*\s*(?:{'|'.join([*_WORDS.values(), _SECONDS, _WEEKS])})(?![^\W\d_])"
_BEGINNING = re.compile(rf"{_PART}(?:\s*(?:\sand\s+)?{_PART})*(?!\S)", re.ASCII | re.IGNORECASE)
_NEGATIVE = re.compile(r"[-\u2212]\s*\d")
_MOST_DAYS = 9999
_ECHOED = 24
_RIGHT = "like `30m`, `2h` or `1h30m`"


class DurationUnreadable(ValueError):
    """a duration is a number with a unit, like `30m`, `2h` or `1h30m`"""

    def __init__(self, message: str, meant: str = "") -> None:
        """`meant` is the duration that was probably meant, where there is one."""
        super().__init__(f"{message}: did you mean `{meant}`?" if meant else message)
        self.meant = meant


def parse_duration(text: str) -> timedelta:
    """Read a duration of at least a minute; raises DurationUnreadable with what would be right."""
    text = text.strip().lower()
    if _NEGATIVE.match(text):
        raise DurationUnreadable("a duration cannot be negative", _read_or_nothing(text[1:].strip()))
    found = _TEXT.fullmatch(text)
    if not text or found is None or not any(found.groupdict().values()):
        unitless = _read_or_nothing(f"{text}m")
        meant = unitless or _read_or_nothing(_folded(text))
        echo = "" if meant or not text else f", not `{_echoed(text)}`"
        other = re.search(r"[^\W\d_]", text) is not None and not unitless
        lacks = "is a number of days, hours or minutes" if other else "needs a unit"
        raise DurationUnreadable(f"a duration {lacks}, {_RIGHT}{echo}", meant)
    seconds = sum(
        (Fraction(number) * _UNITS.get(unit, 1) for unit, number in found.groupdict().items() if number), Fraction()
    )
    if seconds == 0:
        raise DurationUnreadable(f"no time at all opens nothing: a duration is at least a minute, {_RIGHT}")
    minutes = -(-seconds // 60)
    if seconds % 60:
        raise DurationUnreadable("minutes are the smallest", format_duration(timedelta(minutes=minutes)))
    if seconds > _MOST_DAYS * _UNITS["d"]:
        raise DurationUnreadable(f"a duration is at most {_MOST_DAYS}d, {_RIGHT}")
    return timedelta(minutes=minutes)


def duration_at(text: str) -> str:
    """Return what of a text's beginning is written like a duration, spaces and all; empty where nothing is."""
    found = _BEGINNING.match(text)
    return found[0] if found else ""


def _read_or_nothing(text: str) -> str:
    """Return a duration as it is best written; empty where the text is none."""
    found = _TEXT.fullmatch(text)
    try:
        return format_duration(parse_duration(text)) if found and any(found.groupdict().values()) else ""
    except DurationUnreadable as error:
        return error.meant


def _folded(text: str) -> str:
    """Return a text with what others write for the same: their digits, a decimal comma, `and`, a full stop, weeks."""
    plain = "".join(str(unicodedata.decimal(one, one)) for one in unicodedata.normalize("NFKC", text))
    plain = re.sub(r"(?<=\d),(?=\d)", ".", plain.rstrip("."))
    plain = re.sub(r"\s+and\s+", " ", plain)
    return re.sub(rf"(\d{{1,3}})\s*(?:{_WEEKS})\b", lambda found: f"{int(found[1]) * 7}d", plain, flags=re.ASCII)


def _echoed(text: str) -> str:
    return text if len(text) <= _ECHOED else f"{text[:_ECHOED].rpartition(' ')[0] or text[:_ECHOED]}…"


def format_duration(value: timedelta) -> str:
    """Write a duration the way parse_duration reads it; seconds only where it is under a minute."""
    seconds = int(value.total_seconds())
    if seconds < 60:
        return f"{max(seconds, 0)}s"
    text = ""
    for unit, size in _UNITS.items():
        count, seconds = divmod(seconds, size)
        text += f"{count}{unit}" if count else ""
    return text
