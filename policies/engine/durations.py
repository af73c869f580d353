"""Durations as people write them: `30m`, `2h`, `1h30m`, `1d`; always with a unit."""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS = {"d": 86400, "h": 3600, "m": 60}
_TEXT = re.compile(r"(?:(\d{1,4})d)?(?:(\d{1,4})h)?(?:(\d{1,5})m)?", re.ASCII)


class DurationUnreadable(ValueError):
    """a duration is a number with a unit, like `30m`, `2h` or `1h30m`"""


def parse_duration(text: str) -> timedelta:
    """Read a duration of at least a minute; raises DurationUnreadable with what would be right."""
    found = _TEXT.fullmatch(text.lower())
    if not text or found is None or not any(found.groups()):
        suggestion = f": did you mean `{text}m`?" if re.fullmatch(r"[0-9]{1,5}", text) else f", not `{text[:20]}`"
        raise DurationUnreadable(f"a duration needs a unit, like `30m`, `2h` or `1h30m`{suggestion}")
    days, hours, minutes = (int(part or 0) for part in found.groups())
    total = timedelta(days=days, hours=hours, minutes=minutes)
    if total < timedelta(minutes=1):
        raise DurationUnreadable("a duration is at least a minute, like `30m`")
    return total


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
