"""PostgreSQL's wire format, version 3.0: frames found in any chunking, messages read strictly, messages written.

Longer than most files because it is a codec: a table of small readers and writers with no state but two scanners.
Nothing here allocates what a length field merely claims: a frame's length is judged before its body is buffered.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from broker.core import compiled
from broker.protocols.postgres.memory import Memory, Room, Share

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
_EMPTY_ONLY = frozenset(b"HSX")
_FRONTEND = frozenset(b"QPBDECHSXdcfpF")
# Rows and copy data: forwarded as they come, never read.
_STREAMED = frozenset(b"Dd")
_PIECE = 64 * 1024


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


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive rows or copy data, or a piece of one; `whole` is False where a message is still under way."""

    data: bytes | memoryview
    rows: int
    whole: bool


class FrontendScanner:
    """Finds the client's messages; unknown types and lying lengths are refused before their bodies arrive.

    A long one that there is no room for is let pass by (fail closed: it is handed out as lost).
    """

    __slots__ = ("_buffer", "_lost", "_position", "_room", "_share", "_skipped")

    def __init__(self, share: Share | None = None) -> None:
        self._buffer = bytearray()
        self._position = 0
        self._share = share or Share(Memory())
        self._room: Room | None = None
        self._lost: Frame | None = None
        self._skipped = 0

    @property
    def buffered(self) -> int:
        """How many bytes wait, or are still to come of a message that is let pass by; 0 is between two messages."""
        return len(self._buffer) - self._position + self._skipped + (self._lost is not None)

    def feed(self, data: bytes) -> None:
        if self._skipped:
            passed = min(self._skipped, len(data))
            self._skipped -= passed
            data = data[passed:]
        if self._position and self._position == len(self._buffer):
            self._buffer.clear()
            self._position = 0
        elif self._position > _PIECE:
            del self._buffer[: self._position]
            self._position = 0
        self._buffer += data

    def next(self) -> Frame | None:
        """Return the next whole message, or None; raises ProtocolViolation."""
        if self._skipped:
            return None
        if self._lost is not None:
            frame, self._lost = self._lost, None
            return frame
        start = self._position
        available = len(self._buffer) - start
        if available < 1:
            return None
        kind = self._buffer[start]
        if kind not in _FRONTEND:
            raise ProtocolViolation(f"unknown message type {kind:#04x}")
        if available < 5:
            return None
        (length,) = _UINT32.unpack_from(self._buffer, start + 1)
        if length < 4 or length > MAX_FRONTEND or (kind in _EMPTY_ONLY and length != 4):
            raise ProtocolViolation(f"message `{chr(kind)}` claims a length of {length}")
        if available < length + 1:
            if available > (self._room.size if self._room is not None else _PIECE):
                self._reserve(kind, length, available)
            return None
        self._position = start + 1 + length
        room, self._room = self._room, None
        return Frame(kind, bytes(self._buffer[start + 5 : self._position]), room)

    def _reserve(self, kind: int, length: int, available: int) -> None:
        """Take room for what has arrived of a message, or let it pass by."""
        size = min(length + 1, available + _PIECE)
        if self._room is None:
            self._room = self._share.take(size)
        elif not self._room.grow(size):
            self._room = None
        if self._room is None:
            self._lost, self._skipped = Frame(kind, b"", lost=length), length + 1 - available
            self._buffer.clear()
            self._position = 0


class BackendScanner:
    """Finds the upstream's messages; rows and copy data come as runs, in slices of what arrived."""

    __slots__ = ("_left", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._left = 0

    @property
    def amid(self) -> bool:
        """Whether a piece of a message was handed out whose end has not come."""
        return self._left > 0

    @property
    def idle(self) -> bool:
        """Whether the next byte begins a message."""
        return not self._left and not self._rest

    def feed(self, data: bytes) -> list[Frame | Run]:
        """Return what is complete now; raises ProtocolViolation."""
        found: list[Frame | Run] = []
        start = 0
        if self._rest:
            start = self._finish_row(data, found)
            if not start:
                data = self._rest + data
        view = memoryview(data)
        total = len(data)
        position = start or self._finish_piece(view, found)
        run_start, rows = position, 0
        while total - position >= 5:
            kind = data[position]
            (length,) = _UINT32.unpack_from(data, position + 1)
            if length < 4 or length > MAX_BACKEND:
                raise ProtocolViolation(f"upstream message {kind:#04x} claims a length of {length}")
            end = position + 1 + length
            if kind in _STREAMED:
                # Rows in a row: most of all bytes, so their ends are found with as little as possible.
                count, end = whole_rows(data, position, total)
                if count:
                    rows += count
                    position = end
                    continue
                if end > total:
                    if end - position <= _PIECE:
                        break
                    found.append(Run(view[run_start:], rows + 1, whole=False))
                    self._left = end - total
                    self._rest = b""
                    return found
            if position > run_start:
                found.append(Run(view[run_start:position], rows, whole=True))
            run_start, rows = position, 0
            if end > total:
                if length > MAX_BACKEND_BUFFERED:
                    raise ProtocolViolation(f"upstream message {kind:#04x} is longer than this broker reads")
                break
            found.append(Frame(kind, data[position + 5 : end]))
            position = run_start = end
        if position > run_start:
            found.append(Run(view[run_start:position] if run_start or position < total else data, rows, whole=True))
        self._rest = data[position:] if position < total else b""
        return found

    def _finish_row(self, data: bytes, found: list[Frame | Run]) -> int:
        """Hand out a row that has come in part, without copying what follows; return where that begins, or 0."""
        rest = self._rest
        if len(rest) < 5 or rest[0] not in _STREAMED:
            return 0
        needed = 1 + int(_UINT32.unpack_from(rest, 1)[0]) - len(rest)
        if not 0 < needed <= len(data):
            return 0
        found.append(Run(rest + data[:needed], 1, whole=True))
        return needed

    def _finish_piece(self, view: memoryview, found: list[Frame | Run]) -> int:
        if not self._left:
            return 0
        taken = min(self._left, len(view))
        self._left -= taken
        found.append(Run(view[:taken], 0, whole=self._left == 0))
        return taken


_FEW_ALIKE, _MOST_ALIKE, _PAUSE = 8, 1024, 16


def _whole_rows(data: bytes, position: int, total: int) -> tuple[int, int]:
    """Count the whole messages of one type that follow each other; return with it where the next one begins.

    Where there is none, the end of the first is returned, which is not here yet; an impossible length ends the count.
    """
    kind, unpack = data[position], _UINT32.unpack_from
    last, count, size, alike, pause = total - 5, 0, 0, _FEW_ALIKE, 0
    while position <= last and data[position] == kind:
        length = unpack(data, position + 1)[0]
        end = position + 1 + length
        if length < 4 or end > total:
            return count, position if count else end
        if pause:
            pause -= 1
        elif length + 1 == size:
            # Rows of one length often come in numbers.
            alike = min(alike, (total - position) // size)
            if alike >= _FEW_ALIKE and _alike(data, position, size, alike):
                count += alike
                position += size * alike
                alike = min(2 * alike, _MOST_ALIKE)
                continue
            alike, pause = _FEW_ALIKE, _PAUSE
        size = length + 1
        count += 1
        position = end
    return count, position


whole_rows: Callable[[bytes, int, int], tuple[int, int]] = _whole_rows if compiled is None else compiled.whole_rows


def _alike(data: bytes, position: int, size: int, count: int) -> bool:
    """Say whether so many messages of one size follow each other: type and length stand at each of their places."""
    end = position + size * count
    return all(data[at:end:size] == data[at : at + 1] * count for at in range(position, position + 5))


def bodies(data: bytes, position: int, found: list[bytes | bytearray]) -> int:
    """Add what is in the messages from a position on; return how much of the last one's body has not come yet."""
    unpack, total, size, alike, pause = _UINT32.unpack_from, len(data), 0, _FEW_ALIKE, 0
    while position < total:
        if total - position < 5:
            raise ProtocolViolation("upstream sent a message in pieces of no size")
        end = position + 1 + unpack(data, position + 1)[0]
        if end > total:
            found.append(data[position + 5 :])
            return int(end - total)
        if pause:
            pause -= 1
        elif end - position == size:
            alike = min(alike, (total - position) // size)
            if alike >= _FEW_ALIKE and _alike(data, position, size, alike):
                found.append(_without_headers(data[position : position + size * alike], size))
                position += size * alike
                alike = min(2 * alike, _MOST_ALIKE)
                continue
            alike, pause = _FEW_ALIKE, _PAUSE
        size = end - position
        found.append(data[position + 5 : end])
        position = end
    return 0


def _without_headers(data: bytes, size: int) -> bytearray:
    """Take the type and the length out of messages of one size."""
    rest = bytearray(data)
    for taken in range(5):
        del rest[:: size - taken]
    return rest


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
    count = reader.int16()
    if count < 0 or count * 4 > reader.left:
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
    count = reader.int16()
    if count < 0 or count * 2 > reader.left:
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
    return message(b"P", string(name) + string(sql) + _INT16.pack(len(types)) + packed)


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
