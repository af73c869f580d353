"""TLS on a connection, over the standard library's `SSLObject`: a session that idles keeps no buffer of its own for it.

The event loop's own TLS keeps a quarter of a megabyte of address space for each connection, of which what was once
used stays: with 2,000 sessions that idle, more than all else that they take.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from broker.core import compiled

if TYPE_CHECKING:
    _Data = bytes | bytearray | memoryview[Any]

_RECORD = 16 * 1024
"""Bytes of a TLS record at most (RFC 8446, 5.1)."""
_SLICE = 32 * 1024
"""Bytes that pass between a socket and its TLS at once: what they pass through grows to that, and stays so."""


class RecordLayer(asyncio.Protocol, asyncio.Transport):
    """What passes between a TLS connection's records and what they hold; the compiled core has the same.

    What is made of it has the rest of the connection.
    """

    __slots__ = ("_agreed", "_closing", "_deliver", "_incoming", "_outgoing", "_protocol", "_raw", "_tls")

    _raw: asyncio.Transport | None

    def __init__(self, context: ssl.SSLContext, server_side: bool, host: str | None) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side, server_hostname=host)
        self._raw = None
        self._agreed = self._closing = False

    def _agree(self) -> bool:
        """Go on with the handshake; says whether it is done. `Secured` has it, over either layer."""
        raise NotImplementedError

    def _flush(self) -> None:
        """Send what TLS has to say by itself. `Secured` has it too."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        for piece in _slices(data):
            self._take(piece)

    def _take(self, data: _Data) -> None:
        self._incoming.write(data)
        if not self._agreed and not self._agree():
            return
        found, piece = b"", b"-"
        try:
            # Most often this is one record, and nothing behind it.
            while piece and (self._incoming.pending or self._tls.pending()):
                piece = self._tls.read(_RECORD)
                found = found + piece if found else piece
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            # What no key of this connection has made is not for anybody (fail closed).
            self._flush()
            self.abort()
            return
        if self._outgoing.pending:
            self._flush()
        if found and not self._closing:
            self._deliver(found)
        if not piece:
            # The peer's goodbye.
            self.close()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast(asyncio.Protocol, protocol)
        self._deliver = self._protocol.data_received

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def is_closing(self) -> bool:
        return self._closing or self._raw is None or self._raw.is_closing()

    def write(self, data: _Data) -> None:
        """Send what is given, now as far as the socket takes it; nothing where the connection is closing."""
        if self.is_closing():
            return
        for piece in _slices(data):
            self._seal(piece)

    def _seal(self, data: _Data) -> None:
        assert self._raw is not None
        try:
            sent = self._tls.write(data)
            while sent < len(data):
                sent += self._tls.write(memoryview(data)[sent:])
        except ssl.SSLError:
            self.abort()
            return
        self._raw.write(self._outgoing.read())


def _slices(data: _Data) -> Iterable[_Data]:
    """Return what passes at once, piece by piece."""
    if len(data) <= _SLICE:
        return (data,)
    view = memoryview(data)
    return (view[at : at + _SLICE] for at in range(0, len(data), _SLICE))


Layer = RecordLayer
if not TYPE_CHECKING and compiled is not None:
    Layer = compiled.RecordLayer


class Secured(Layer, asyncio.Protocol):
    """A TLS connection: to the socket's transport its protocol, to its own protocol the transport.

    `ready` completes when both sides have agreed; it raises what kept them from it, an OSError.
    """

    __slots__ = ("ready",)

    def __init__(
        self, context: ssl.SSLContext, protocol: asyncio.Protocol, *, server_side: bool, host: str | None = None
    ) -> None:
        super().__init__(context, server_side, host)
        self.set_protocol(protocol)
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # Of the socket's transport: its protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast(asyncio.Transport, transport)
        self._agree()

    def connection_lost(self, exc: Exception | None) -> None:
        agreed, self._closing = self._agreed, True
        self._fail(exc or ConnectionResetError("the connection was closed while TLS was agreed on"))
        if agreed:
            self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._agreed:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._agreed:
            self._protocol.resume_writing()

    def _agree(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError as error:
            # The alert that says why goes out first.
            self._flush()
            self._fail(error)
            self.close()
            return False
        self._flush()
        self._agreed = True
        self._protocol.connection_made(self)
        if not self.ready.done():
            self.ready.set_result(None)
        return True

    def _fail(self, error: Exception) -> None:
        if not self.ready.done():
            self.ready.set_exception(error)
            self.ready.exception()

    def _flush(self) -> None:
        if self._outgoing.pending and self._raw is not None:
            self._raw.write(self._outgoing.read())

    # Of the connection's own protocol: its transport.

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return self._tls
        return default if self._raw is None else self._raw.get_extra_info(name, default)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        for data in list_of_data:
            self.write(data)

    def pause_reading(self) -> None:
        if self._raw is not None:
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        if self._raw is not None:
            self._raw.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if self._raw is not None:
            self._raw.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return 0 if self._raw is None else self._raw.get_write_buffer_size()

    def close(self) -> None:
        """Say goodbye, send what is left, and close; the peer's own goodbye is not waited for."""
        if self._closing:
            return
        self._closing = True
        if self._agreed:
            # It wants the peer's, or has none to send.
            with suppress(ssl.SSLError):
                self._tls.unwrap()
            self._flush()
        if self._raw is not None:
            self._raw.close()

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        if self._raw is not None:
            self._raw.abort()


async def secured(
    connection: socket.socket,
    context: ssl.SSLContext,
    protocol: asyncio.Protocol,
    *,
    server_side: bool,
    host: str | None = None,
) -> None:
    """Agree on TLS on a connected socket, and give it to a protocol then; raises OSError, and has closed it."""
    made = Secured(context, protocol, server_side=server_side, host=host)
    loop = asyncio.get_running_loop()
    try:
        if server_side:
            await loop.connect_accepted_socket(lambda: made, connection)
        else:
            await loop.create_connection(lambda: made, sock=connection)
        await made.ready
    except BaseException:
        made.abort()
        raise
