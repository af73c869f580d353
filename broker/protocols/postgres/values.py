"""Parameters as text for people: binary ones by their type, as PostgreSQL's own output functions would write them.

What has no reader here, or does not read, is shown as its bytes in hex, so that nothing is shown wrongly.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from math import prod
from uuid import UUID

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def _number(layout: str) -> Callable[[bytes], str]:
    return lambda value: str(struct.unpack(layout, value)[0])


def _boolean(value: bytes) -> str:
    return {b"\0": "false", b"\1": "true"}[value]


def _date(value: bytes) -> str:
    return str(date(2000, 1, 1) + timedelta(days=struct.unpack("!i", value)[0]))


def _timestamp(value: bytes) -> str:
    found = _EPOCH + timedelta(microseconds=struct.unpack("!q", value)[0])
    return found.replace(tzinfo=None).isoformat(" ")


def _time(value: bytes) -> str:
    (microseconds,) = struct.unpack("!q", value)
    if not 0 <= microseconds <= 86_400_000_000:
        raise ValueError("not a time of a day")
    return _clock(microseconds)


def _clock(microseconds: int) -> str:
    seconds, fraction = divmod(microseconds, 1_000_000)
    text = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{text}.{fraction:06d}".rstrip("0") if fraction else text


def _interval(value: bytes) -> str:
    microseconds, days, months = struct.unpack("!qii", value)
    # With a sign each where one is negative, as the server writes it: a single one could be taken for all of them.
    below = min(microseconds, days, months) < 0
    signs = ["-" if part < 0 else "+" if below else "" for part in (months, days, microseconds)]
    return f"{signs[0]}{abs(months)} mons {signs[1]}{abs(days)} days {signs[2]}{_clock(abs(microseconds))}"


def _jsonb(value: bytes) -> str:
    if value[:1] != b"\1":
        raise ValueError("not a version that is known")
    return value[1:].decode()


def _numeric(value: bytes) -> str:
    count, weight, sign, scale = struct.unpack_from("!hhHh", value)
    digits = struct.unpack_from(f"!{count}h", value, 8)
    if len(value) != 8 + 2 * count or sign not in (0, 0x4000):
        raise ValueError("not a finite number")
    whole = [digits[index] if index < count else 0 for index in range(weight + 1)]
    # Digits are of four decimal places each; the first of the fraction stands at index `weight + 1`.
    places = (scale + 3) // 4
    fraction = [digits[index] if 0 <= index < count else 0 for index in range(weight + 1, weight + 1 + places)]
    text = "".join(f"{digit:04d}" for digit in whole).lstrip("0") or "0"
    if scale:
        text += "." + "".join(f"{digit:04d}" for digit in fraction)[:scale]
    return f"-{text}" if sign else text


TYPES = {
    0: "unknown",
    16: "boolean",
    17: "bytea",
    20: "bigint",
    21: "smallint",
    23: "integer",
    25: "text",
    114: "json",
    700: "real",
    701: "double precision",
    1042: "character",
    1043: "character varying",
    1082: "date",
    1083: "time",
    1114: "timestamp",
    1184: "timestamp with time zone",
    1186: "interval",
    1700: "numeric",
    2950: "uuid",
    3802: "jsonb",
}
"""Usual types by oid, as people know them."""

_READERS: dict[int, Callable[[bytes], str]] = {
    16: _boolean,
    17: lambda value: f"\\x{value.hex()}",
    18: bytes.decode,
    19: bytes.decode,
    20: _number("!q"),
    21: _number("!h"),
    23: _number("!i"),
    25: bytes.decode,
    26: _number("!I"),
    114: bytes.decode,
    700: _number("!f"),
    701: _number("!d"),
    1042: bytes.decode,
    1043: bytes.decode,
    1082: _date,
    1083: _time,
    1114: _timestamp,
    1184: lambda value: f"{_timestamp(value)}+00",
    1186: _interval,
    1700: _numeric,
    2950: lambda value: str(UUID(bytes=value)),
    3802: _jsonb,
}
_ELEMENTS = {
    199: 114,
    1000: 16,
    1001: 17,
    1002: 18,
    1003: 19,
    1005: 21,
    1007: 23,
    1009: 25,
    1014: 1042,
    1015: 1043,
    1016: 20,
    1021: 700,
    1022: 701,
    1028: 26,
    1115: 1114,
    1182: 1082,
    1183: 1083,
    1185: 1184,
    1187: 1186,
    1231: 1700,
    2951: 2950,
    3807: 3802,
}
"""Of arrays' types, that of what is in them."""
_DEEPEST = 6
_QUOTED = frozenset('{},"\\')


def _array(value: bytes, element: int) -> str:
    """Write an array as the server does."""
    depth, _, of = struct.unpack_from("!iiI", value)
    if of != element or not 0 <= depth <= _DEEPEST:
        raise ValueError("not an array of these")
    bounds = [struct.unpack_from("!ii", value, 12 + 8 * level) for level in range(depth)]
    if any(length < 1 or first != 1 for length, first in bounds):
        raise ValueError("not an array that begins at 1")
    at, shown = 12 + 8 * depth, []
    while at < len(value):
        (size,) = struct.unpack_from("!i", value, at)
        at += 4
        if size < -1 or at + max(size, 0) > len(value):
            raise ValueError("not all of an array")
        shown.append("NULL" if size < 0 else _quoted(_READERS[element](value[at : at + size])))
        at += max(size, 0)
    if len(shown) != (prod(length for length, _ in bounds) if bounds else 0):
        raise ValueError("not as many as an array says")
    for length, _ in reversed(bounds[1:]):
        shown = [f"{{{','.join(shown[begin : begin + length])}}}" for begin in range(0, len(shown), length)]
    return f"{{{','.join(shown)}}}"


def _quoted(text: str) -> str:
    if text and text.upper() != "NULL" and not any(one in _QUOTED or one.isspace() for one in text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def is_readable(oid: int) -> bool:
    """Say whether binary values of a type are shown as text that the server would read back."""
    return oid in _READERS or oid in _ELEMENTS


def as_shown(value: bytes, *, binary: bool, oid: int) -> str:
    """Return one value as a person reads it; `oid` 0 is an unknown type."""
    if not binary:
        return value.decode("utf-8", "backslashreplace")
    try:
        return _array(value, _ELEMENTS[oid]) if oid in _ELEMENTS else _READERS[oid](value)
    except (KeyError, ValueError, OverflowError, struct.error):
        return f"\\x{value.hex()}"
