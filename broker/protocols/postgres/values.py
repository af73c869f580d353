"""Parameters as text for people: binary ones by their type, as PostgreSQL's own output functions would write them.

What has no reader here, or does not read, is shown as its bytes in hex, so that nothing is shown wrongly.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
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
    1114: _timestamp,
    1184: lambda value: f"{_timestamp(value)}+00",
    1700: _numeric,
    2950: lambda value: str(UUID(bytes=value)),
}


def is_readable(oid: int) -> bool:
    """Say whether binary values of a type are shown as text that the server would read back."""
    return oid in _READERS


def as_shown(value: bytes, *, binary: bool, oid: int) -> str:
    """Return one value as a person reads it; `oid` 0 is an unknown type."""
    if not binary:
        return value.decode("utf-8", "backslashreplace")
    try:
        return _READERS[oid](value)
    except (KeyError, ValueError, OverflowError, struct.error):
        return f"\\x{value.hex()}"
