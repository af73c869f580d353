"""PostgreSQL's wire format, version 3.0: messages read strictly, messages written; `scanning` finds them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from broker.protocols.postgres.memory import Room

MAX_STARTUP = 10_000
MAX_FRONTEND = 16 * 1024 * 1024
MAX_BACKEND = 0x3FFF_FFFF
MAX_BACKEND_BUFFERED = 16 * 1024 * 1024
"""The largest upstream message that is looked at whole; rows and copy data stream through in pieces."""
MAX_SASL = 8 * 1024
MAX_NAME = 63
"""Longer names are cut by the server, so two of them could mean one thing."""

SSL_REQUEST = 80877103
GSSENC_REQUEST = 80877104
CANCEL_REQUEST = 80877102
PROTOCOL_3_0 = 0x0003_0000

_HEADER = struct.Struct(">cI")
_INT16 = struct.Struct(">h")
_UINT16 = struct.Struct(">H")
_INT32 = struct.Struct(">i")
_UINT32 = struct.Struct(">I")


class ProtocolViolation(Exception):
    """the peer does not speak the protocol; the connection ends"""


class Overwhelmed(Exception):
    """the broker has no room for what a client sends, and cannot do without it; the connection ends"""


class Malformed(Exception):
    """a message is not well formed; it is answered with an error and goes no further

    `sqlstate` is 08P01 for a wrong shape, 22021 for text that is not UTF-8, 42622 for a name that is too long.
    """

    def __init__(self, message: str, sqlstate: str = "08P01") -> None:
        super().__init__(message)
        self.message = message
        self.sqlstate = sqlstate


class NoRoom(Malformed):
    """this broker has no room for a message; it is answered with an error and goes no further"""

    def __init__(self, size: int) -> None:
        super().__init__(f"this broker has no room for {size} bytes more: send less at a time, or try later", "53200")


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole message: `type` as its byte's number, `body` without the header.

    `room` is what a long one takes of the memory; `lost` is the length of one there was no room for: its body is gone.
    """

    type: int
    body: bytes
    room: Room | None = field(default=None, compare=False, repr=False)
    lost: int = 0

    def whole(self) -> bytes:
        return _HEADER.pack(bytes((self.type,)), len(self.body) + 4) + self.body


class Reader:
    """Reads a message's body from left to right; a short body is a violation, for its counts lied."""

    __slots__ = ("_body", "_position")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._position = 0

    def _take(self, count: int) -> int:
        start = self._position
        if count < 0 or start + count > len(self._body):
            raise ProtocolViolation("a message is shorter than its own counts say")
        self._position = start + count
        return start

    def byte(self) -> int:
        return self._body[self._take(1)]

    def int16(self) -> int:
        return int(_INT16.unpack_from(self._body, self._take(2))[0])

    def uint16(self) -> int:
        return int(_UINT16.unpack_from(self._body, self._take(2))[0])

    def int32(self) -> int:
        return int(_INT32.unpack_from(self._body, self._take(4))[0])

    def uint32(self) -> int:
        return int(_UINT32.unpack_from(self._body, self._take(4))[0])

    def take(self, count: int) -> bytes:
        start = self._take(count)
        return self._body[start : start + count]

    def cstring(self) -> bytes:
        end = self._body.find(b"\0", self._position)
        if end < 0:
            raise Malformed("a string has no end")
        start, self._position = self._position, end + 1
        return self._body[start:end]

    def text(self) -> str:
        return as_text(self.cstring())

    def name(self) -> str:
        raw = self.cstring()
        if len(raw) > MAX_NAME:
            raise Malformed(f"a name is longer than {MAX_NAME} bytes", "42622")
        return as_text(raw)

    def finish(self) -> None:
        if self._position != len(self._body):
            raise Malformed("a message has bytes after its end")

    @property
    def left(self) -> int:
        return len(self._body) - self._position


def as_text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"invalid byte sequence for encoding UTF8 at byte {error.start + 1}", "22021") from None


@dataclass(frozen=True, slots=True)
class Query:
    sql: str


@dataclass(frozen=True, slots=True)
class Parse:
    name: str
    sql: str
    types: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Bind:
    portal: str
    statement: str
    formats: tuple[int, ...]
    values: tuple[bytes | None, ...]
    results: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """What Describe and Close speak of: a statement (`S`) or a portal (`P`)."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Execute:
    portal: str
    max_rows: int


def read_query(body: bytes) -> Query:
    reader = Reader(body)
    text = reader.text()
    reader.finish()
    return Query(text)


def read_parse(body: bytes) -> Parse:
    reader = Reader(body)
    name, sql = reader.name(), reader.text()
    count = reader.uint16()
    if count * 4 > reader.left:
        raise ProtocolViolation(f"Parse claims {count} parameter types")
    types = tuple(reader.uint32() for _ in range(count))
    reader.finish()
    return Parse(name, sql, types)


def read_bind(body: bytes) -> Bind:
    reader = Reader(body)
    portal, statement = reader.name(), reader.name()
    formats = _formats(reader)
    count = reader.uint16()
    if count * 4 > reader.left or len(formats) not in (0, 1, count):
        raise ProtocolViolation(f"Bind claims {count} parameters")
    values: list[bytes | None] = []
    for _ in range(count):
        length = reader.int32()
        if length < -1:
            raise ProtocolViolation(f"Bind claims a parameter of {length} bytes")
        values.append(None if length < 0 else reader.take(length))
    results = _formats(reader)
    reader.finish()
    return Bind(portal, statement, formats, tuple(values), results)


def _formats(reader: Reader) -> tuple[int, ...]:
    count = reader.uint16()
    if count * 2 > reader.left:
        raise ProtocolViolation(f"Bind claims {count} formats")
    formats = tuple(reader.int16() for _ in range(count))
    if any(code not in (0, 1) for code in formats):
        raise ProtocolViolation("Bind has an unknown format code")
    return formats


def read_named(body: bytes) -> Named:
    """Read the body of Describe or Close."""
    reader = Reader(body)
    kind = chr(reader.byte())
    if kind not in "SP":
        raise Malformed(f"a {kind!r} can be neither described nor closed")
    name = reader.name()
    reader.finish()
    return Named(kind, name)


def read_execute(body: bytes) -> Execute:
    reader = Reader(body)
    portal, rows = reader.name(), reader.int32()
    reader.finish()
    return Execute(portal, rows)


@dataclass(frozen=True, slots=True)
class Column:
    """What RowDescription says of a column: the relation and attribute it comes from, zeros for an expression."""

    name: bytes
    relation: int
    attribute: int


_COLUMN = struct.Struct(">IhIhih")


def read_row_description(body: bytes) -> list[Column]:
    (count,) = _UINT16.unpack_from(body, 0) if len(body) >= 2 else (0,)
    columns: list[Column] = []
    position = 2
    for _ in range(count):
        end = body.find(b"\0", position)
        if end < 0 or end + 1 + _COLUMN.size > len(body):
            raise ProtocolViolation("upstream sent a row description that ends early")
        relation, attribute, *_ = _COLUMN.unpack_from(body, end + 1)
        columns.append(Column(body[position:end], relation, attribute))
        position = end + 1 + _COLUMN.size
    return columns


def read_parameter_description(body: bytes) -> tuple[int, ...]:
    """Read the types of a prepared statement's parameters."""
    reader = Reader(body)
    types = tuple(reader.uint32() for _ in range(reader.uint16()))
    if reader.left:
        raise ProtocolViolation("upstream sent a parameter description that is too long")
    return types


def read_data_row(body: bytes) -> list[bytes | None]:
    """Read the values of one row, None for NULL."""
    reader = Reader(body)
    found: list[bytes | None] = []
    for _ in range(reader.uint16()):
        length = reader.int32()
        found.append(None if length < 0 else reader.take(length))
    return found


def read_fields(body: bytes) -> dict[str, str]:
    """Read the fields of an error or a notice; bytes that are not UTF-8 are replaced."""
    fields: dict[str, str] = {}
    position = 0
    while position < len(body) and body[position]:
        end = body.find(b"\0", position + 1)
        if end < 0:
            raise ProtocolViolation("upstream sent an error that ends early")
        fields[chr(body[position])] = body[position + 1 : end].decode("utf-8", "replace")
        position = end + 1
    return fields


def read_parameter_status(body: bytes) -> tuple[str, str]:
    name, _, rest = body.partition(b"\0")
    return name.decode("utf-8", "replace"), rest.removesuffix(b"\0").decode("utf-8", "replace")


def read_tag(body: bytes) -> str:
    return body.removesuffix(b"\0").decode("utf-8", "replace")


def rows_of(tag: str) -> int | None:
    """Return the count at the end of a command's tag, where it has one."""
    last = tag.rpartition(" ")[2]
    return int(last) if last.isdecimal() else None


def message(kind: bytes, body: bytes = b"") -> bytes:
    return _HEADER.pack(kind, len(body) + 4) + body


def string(text: str) -> bytes:
    """Write a C string; a NUL would end it early, so it goes."""
    return text.replace("\0", "").encode("utf-8", "replace") + b"\0"


def copy_fail(reason: str) -> bytes:
    return message(b"f", string(reason))


def query(sql: str) -> bytes:
    return message(b"Q", string(sql))


def parse(name: str, sql: str, types: Sequence[int] = ()) -> bytes:
    packed = b"".join(_UINT32.pack(oid) for oid in types)
    return message(b"P", string(name) + string(sql) + _UINT16.pack(len(types)) + packed)


def execute(portal: str, max_rows: int = 0) -> bytes:
    return message(b"E", string(portal) + _INT32.pack(max_rows))


def bind(portal: str, statement: str) -> bytes:
    """Write a Bind without parameters, of results as text."""
    return message(b"B", string(portal) + string(statement) + bytes(6))


def close(kind: str, name: str) -> bytes:
    """Write a Close of a statement (`S`) or a portal (`P`)."""
    return message(b"C", kind.encode() + string(name))


SYNC = message(b"S")
FLUSH = message(b"H")
TERMINATE = message(b"X")


def startup(parameters: Iterable[tuple[str, str]]) -> bytes:
    body = _UINT32.pack(PROTOCOL_3_0) + b"".join(string(k) + string(v) for k, v in parameters) + b"\0"
    return _UINT32.pack(len(body) + 4) + body


def request(code: int, tail: bytes = b"") -> bytes:
    """Write one of the requests that stand in a startup packet's place: SSLRequest, CancelRequest."""
    return _UINT32.pack(8 + len(tail)) + _UINT32.pack(code) + tail


def fields(kind: bytes, values: dict[str, str]) -> bytes:
    return message(kind, b"".join(key.encode() + string(value) for key, value in values.items() if value) + b"\0")


def authentication(code: int, body: bytes = b"") -> bytes:
    return message(b"R", _UINT32.pack(code) + body)


def parameter_status(name: str, value: str) -> bytes:
    return message(b"S", string(name) + string(value))


def backend_key_data(pid: int, secret: bytes) -> bytes:
    return message(b"K", _UINT32.pack(pid) + secret)


def ready_for_query(status: str) -> bytes:
    return message(b"Z", status.encode())


def negotiate_version(minor: int, unknown: Sequence[str]) -> bytes:
    names = b"".join(string(name) for name in unknown)
    return message(b"v", _UINT32.pack(PROTOCOL_3_0 + minor) + _UINT32.pack(len(unknown)) + names)
