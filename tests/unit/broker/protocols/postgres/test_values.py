"""What a reviewer reads of binary parameters is what the server would write, or plain bytes."""

import struct
from uuid import UUID

import pytest

from broker.protocols.postgres.values import as_shown


@pytest.mark.parametrize(
    ("oid", "value", "shown"),
    [
        (16, b"\1", "true"),
        (16, b"\2", "\\x02"),
        (20, struct.pack("!q", -(2**63)), "-9223372036854775808"),
        (21, struct.pack("!h", -1), "-1"),
        (23, struct.pack("!i", 7), "7"),
        (23, b"\0\0\7", "\\x000007"),
        (25, "grün".encode(), "grün"),
        (25, b"\xff", "\\xff"),
        (701, struct.pack("!d", 1.5), "1.5"),
        (1082, struct.pack("!i", 9497), "2026-01-01"),
        (1082, struct.pack("!i", 2**31 - 1), "\\x7fffffff"),
        (1114, struct.pack("!q", 1), "2000-01-01 00:00:00.000001"),
        (1184, struct.pack("!q", 0), "2000-01-01 00:00:00+00"),
        (1700, struct.pack("!hhHhhh", 2, 0, 0x4000, 2, 12, 5000), "-12.50"),
        (1700, struct.pack("!hhHhh", 1, 1, 0, 0, 3), "30000"),
        (1700, struct.pack("!hhHhh", 1, -1, 0, 3, 50), "0.005"),
        (1700, struct.pack("!hhHhh", 1, -2, 0, 8, 50), "0.00000050"),
        (1700, struct.pack("!hhHh", 0, 0, 0, 2), "0.00"),
        (1700, struct.pack("!hhHh", 0, 0, 0xC000, 0), "\\x00000000c0000000"),
        (2950, UUID(int=5).bytes, "00000000-0000-0000-0000-000000000005"),
        (0, b"ab", "\\x6162"),
        (17, b"ab", "\\x6162"),
    ],
)
def test_binary_parameters_are_shown_as_text(oid: int, value: bytes, shown: str) -> None:
    assert as_shown(value, binary=True, oid=oid) == shown


def array(element: int, *values: bytes | None, shape: tuple[int, ...] = (), first: int = 1) -> bytes:
    """Write an array as clients send it."""
    shape = shape or ((len(values),) if values else ())
    found = [struct.pack("!iiI", len(shape), 0, element), *(struct.pack("!ii", length, first) for length in shape)]
    for value in values:
        found.append(struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value)
    return b"".join(found)


@pytest.mark.parametrize(
    ("oid", "value", "shown"),
    [
        (1007, array(23, struct.pack("!i", 1), None, struct.pack("!i", -3)), "{1,NULL,-3}"),
        (1007, array(23), "{}"),
        (1007, array(25), None),
        (1007, array(23, struct.pack("!i", 1), first=2), None),
        (1007, array(23, struct.pack("!i", 1), shape=(2,)), None),
        (1007, array(23, struct.pack("!i", 1))[:-1], None),
        (1007, array(23, struct.pack("!i", 1), shape=(-1,)), None),
        (1007, struct.pack("!iiI", 2**31 - 1, 0, 23), None),
        (1009, array(25, b"a", b"a b", b"", b"Null", b'"\\', b"{,}"), '{a,"a b","","Null","\\"\\\\","{,}"}'),
        (1009, array(25, b"a", b"b", b"c", b"d", shape=(2, 2)), "{{a,b},{c,d}}"),
        (1009, array(25, b"\xff"), None),
        (3802, b'\1{"a": 1}', '{"a": 1}'),
        (3802, b'\2{"a": 1}', None),
        (1083, struct.pack("!q", 3_661_500_000), "01:01:01.5"),
        (1083, struct.pack("!q", -1), None),
        (1186, struct.pack("!qii", 0, 2, 14), "14 mons 2 days 00:00:00"),
        (1186, struct.pack("!qii", 1, 2, -14), "-14 mons +2 days +00:00:00.000001"),
    ],
)
def test_what_is_made_of_others_is_shown_as_text_where_all_of_it_reads(
    oid: int, value: bytes, shown: str | None
) -> None:
    assert as_shown(value, binary=True, oid=oid) == (f"\\x{value.hex()}" if shown is None else shown)


def test_text_parameters_are_shown_as_they_are() -> None:
    assert as_shown(b"7; drop", binary=False, oid=23) == "7; drop"
    assert as_shown(b"\xff", binary=False, oid=25) == "\\xff"
