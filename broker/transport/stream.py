"""One side of a connection: read piece by piece while it is being set up, then handed to a sink that is pushed to."""

from __future__ import annotations

import asyncio
import ssl
from typing import Protocol, cast

_HIGH = 64 * 1024
_LARGE = 16 * 1024
"""What a TLS record holds at most."""


class PeerGone(Exception):
    """the connection was closed by its other end"""


class Sink(Protocol):
    """What an attached stream pushes to; nothing of it may block."""

    def arrived(self, data: bytes) -> None: ...

    def lost(self) -> None: ...

    def full(self) -> None:
        """The stream's own buffer is full: write less."""
        ...

    def free(self) -> None: ...


class Stream(asyncio.Protocol):
    """A connection as an asyncio protocol; at most a bounded amount is buffered before a sink is attached."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._sink: Sink | None = None
        self._gone = False
        self._full = False
        self._holding = False
        self._pauses: set[str] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._sink is not None:
            self._sink.arrived(data)
            return
        self._buffer += data
        if len(self._buffer) > _HIGH:
            self.pause("setting up")
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        self._wake()
        if self._sink is not None:
            self._sink.lost()

    def pause_writing(self) -> None:
        self._full = True
        if self._sink is not None:
            self._sink.full()

    def resume_writing(self) -> None:
        self._full = False
        if self._sink is not None:
            self._sink.free()

    @property
    def gone(self) -> bool:
        return self._gone

    @property
    def waiting(self) -> bool:
        """Whether bytes have come that nobody has read."""
        return bool(self._buffer)

    @property
    def ssl_object(self) -> ssl.SSLObject | None:
        return self.transport.get_extra_info("ssl_object") if self.transport else None

    async def read(self, count: int) -> bytes:
        """Return exactly so many bytes; raises PeerGone. Only before a sink is attached."""
        while (taken := self.take(count)) is None:
            await self.more()
        return taken

    def peek(self, count: int) -> bytes:
        """Return so many of the next bytes, fewer where fewer have come, and leave them there."""
        return bytes(self._buffer[:count])

    def take(self, count: int) -> bytes | None:
        """Return exactly so many bytes, None where they have not come."""
        if len(self._buffer) < count:
            return None
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def more(self) -> None:
        """Wait until something comes; raises PeerGone."""
        if self._gone:
            raise PeerGone
        self.resume("setting up")
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def attach(self, sink: Sink) -> None:
        """Push everything to a sink from now on, first what is buffered."""
        self._sink = sink
        if self.transport is not None:
            # It may keep what it calls: from now on, without a step in between.
            self.data_received = sink.arrived  # type: ignore[method-assign]  # of this object alone
            self.transport.set_protocol(self)
        self.resume("setting up")
        if self._buffer:
            data = bytes(self._buffer)
            self._buffer.clear()
            sink.arrived(data)
        if self._full:
            sink.full()
        if self._gone:
            sink.lost()

    def write(self, pieces: list[bytes | memoryview]) -> None:
        if self.transport is None or self._gone or self.transport.is_closing():
            return
        if len(pieces) == 1:
            self.transport.write(pieces[0])
        elif sum(map(len, pieces)) < _LARGE:
            self.transport.write(b"".join(pieces))
        else:
            # More is not worth a copy: each piece is a record of its own then.
            self.transport.writelines(pieces)

    def pause(self, why: str) -> None:
        """Stop reading, until every reason to is gone."""
        if not self._pauses and self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()
            self._holding = True
        self._pauses.add(why)

    def resume(self, why: str) -> None:
        self._pauses.discard(why)
        if self._holding and not self._pauses and self.transport is not None and not self.transport.is_closing():
            self._holding = False
            self.transport.resume_reading()

    def close(self, patience: float = 1.0) -> None:
        """Send what is buffered and close; a peer that does not read is cut off after a moment."""
        if self.transport is None or self._gone:
            return
        self.transport.close()
        asyncio.get_running_loop().call_later(patience, self.abort)

    def abort(self) -> None:
        if self.transport is not None and not self._gone:
            self.transport.abort()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
