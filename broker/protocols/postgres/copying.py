"""What a COPY brings or takes: counted and hashed while it streams, and stopped at its limit.

Rows that come in are counted as the server reads them: text by its line ends, CSV by those outside quotes, binary by
its tuples. What goes out is one message a row. The digest is of the data alone, so it is that of psql's file.
"""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass, field
from typing import Any

from broker.protocols.postgres.scanning import bodies
from broker.sql.model import AS_TEXT, CopyForm
from policies.engine.decisions import NO_LIMITS, Limits

_LENGTH = struct.Struct(">I")
_COUNT = struct.Struct(">h")
_SIZE = struct.Struct(">i")
_SIGNATURE = b"PGCOPY\n\xff\r\n\0"
_PREFIX = len(_SIGNATURE) + 8
_TEXT = re.compile(rb"\\.|\r\n|\r|\n", re.DOTALL)


class Rows:
    """Counts the rows in data that comes in pieces; `count` is of those that have begun to be whole."""

    def __init__(self, form: CopyForm) -> None:
        self.count = 0
        self._form = form
        self._rest = b""
        self._quoted = False
        self._hidden = False
        self._skip = 0
        self._fields = 0
        self._begun = False
        self._over = False
        quote, escape = re.escape(form.quote.encode()), re.escape(form.escape.encode())
        self._csv = re.compile(rb"(?P<quote>" + quote + rb")|(?P<escape>" + escape + rb")|(?P<end>\r\n|\r|\n)")
        self._heading = form.header

    def take(self, data: bytes) -> None:
        """Take the next piece."""
        if self._over:
            return
        data, self._rest = self._rest + data, b""
        match self._form.format:
            case "binary":
                self._binary(data)
            case "csv":
                self._quotes(data)
            case _:
                self._lines(data)

    def _line(self) -> None:
        if self._heading:
            self._heading = False
        else:
            self.count += 1

    def _lines(self, data: bytes) -> None:
        # What may go on in the next piece is looked at with it: the start of an escape, or of a line end.
        ends = len(data) - data.endswith(b"\r")
        open_ = (ends - len(data[:ends].rstrip(b"\\"))) % 2
        if open_ or ends < len(data):
            data, self._rest = data[: ends - open_], data[ends - open_ :]
        if b"\\" not in data and b"\r" not in data:
            found = data.count(b"\n")
            if self._heading and found:
                self._heading, found = False, found - 1
            self.count += found
            return
        for match in _TEXT.finditer(data):
            if not match.group().startswith(b"\\"):
                self._line()

    def _quotes(self, data: bytes) -> None:
        if data.endswith(b"\r"):
            data, self._rest = data[:-1], data[-1:]
        at = int(self._hidden and bool(data))
        self._hidden = self._hidden and not data
        while match := self._csv.search(data, at):
            at = match.end()
            if match["end"] is not None:
                if not self._quoted:
                    self._line()
            elif match["quote"] is not None:
                self._quoted = not self._quoted
            elif self._quoted:
                # An escape inside quotes hides what follows it.
                self._hidden = at == len(data)
                at += 1

    def _binary(self, data: bytes) -> None:
        at = 0
        if not self._begun:
            if len(data) < _PREFIX:
                self._rest = data
                return
            if not data.startswith(_SIGNATURE):
                self._over = True  # The server refuses it.
                return
            (extension,) = _LENGTH.unpack_from(data, _PREFIX - 4)
            self._begun, self._skip, at = True, extension, _PREFIX
        while True:
            taken = min(self._skip, len(data) - at)
            self._skip -= taken
            at += taken
            wanted = 4 if self._fields else 2
            if self._skip or len(data) - at < wanted:
                self._rest = b"" if self._skip else data[at:]
                return
            if self._fields:
                (size,) = _SIZE.unpack_from(data, at)
                self._skip, self._fields = max(size, 0), self._fields - 1
            else:
                (count,) = _COUNT.unpack_from(data, at)
                if count < 0:
                    self._over = True
                    return
                self._fields = count
                self._line()
            at += wanted


@dataclass(slots=True)
class Copying:
    """One COPY under way; `told` is that it has gone too far and its client knows."""

    incoming: bool
    limits: Limits = NO_LIMITS
    form: CopyForm = AS_TEXT
    rules: tuple[str, ...] = ()
    rows: int = 0
    size: int = 0
    told: bool = False
    _digest: Any = field(default_factory=hashlib.sha256)
    _counted: Rows | None = None
    _left: int = 0
    _header: bytes = b""

    def take_in(self, data: bytes) -> bool:
        """Take what the client sends; returns whether it may go on."""
        self.size += len(data)
        if self.limits.rows is not None:
            self._counted = self._counted or Rows(self.form)
            self._counted.take(data)
            self.rows = self._counted.count
        self._digest.update(data)
        return self.within

    def take_out(self, data: bytes | memoryview, rows: int) -> bool:
        """Take messages that the upstream sends, or a piece of one; returns whether they may go on."""
        self.rows += rows
        whole = bytes(data)
        position = min(self._left, len(whole))
        self._left -= position
        parts: list[bytes | bytearray] = [whole[:position]]
        if position < len(whole):
            self._left = bodies(whole, position, parts)
        payload = b"".join(parts)
        self.size += len(payload)
        self._digest.update(payload)
        return self.within

    @property
    def within(self) -> bool:
        limits = self.limits
        return (limits.rows is None or self.rows <= limits.rows) and (limits.bytes is None or self.size <= limits.bytes)

    def found(self) -> dict[str, object]:
        """Return what is recorded of it."""
        return {
            "direction": "in" if self.incoming else "out",
            "bytes": self.size,
            "sha256": self._digest.hexdigest(),
        }

    def allowance(self) -> str:
        """Say how far it may go."""
        rows = f"{self.limits.rows} rows" if self.limits.rows is not None else ""
        size = f"{self.limits.bytes} bytes" if self.limits.bytes is not None else ""
        return " and ".join(part for part in (rows, size) if part)
