"""Accepts TCP connections within caps: so many that have not proved who they are, in all and from one address."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

MAX_STRANGERS = 1000
MAX_STRANGERS_PER_ADDRESS = 50
_BACKLOG = 512


class Known(Protocol):
    def known(self) -> None:
        """Give up a connection's place among the strangers: its peer has proved who it is."""
        ...


Handler = Callable[[socket.socket, str, Known], Awaitable[None]]


class Visit:
    """One connection's place among the strangers; given up once its peer has proved who it is."""

    def __init__(self, strangers: Counter[str], address: str) -> None:
        self._strangers: Counter[str] | None = strangers
        self._address = address
        strangers[address] += 1

    def known(self) -> None:
        if self._strangers is not None:
            self._strangers[self._address] -= 1
            if not self._strangers[self._address]:
                del self._strangers[self._address]
            self._strangers = None


class TcpListener:
    """Listens on one address and gives each connection, as a raw socket, to a handler in a task of its own."""

    def __init__(
        self,
        handler: Handler,
        *,
        max_strangers: int = MAX_STRANGERS,
        max_per_address: int = MAX_STRANGERS_PER_ADDRESS,
    ) -> None:
        self._handler = handler
        self._max = max_strangers
        self._max_per_address = max_per_address
        self._strangers: Counter[str] = Counter()
        self._sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        return int(self._sockets[0].getsockname()[1])

    async def open(self, host: str, port: int) -> None:
        """Listen on every address that a host name has; raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            listening = socket.create_server(
                (str(address[0]), port or (self.port if self._sockets else 0)), family=family, backlog=_BACKLOG
            )
            listening.setblocking(False)
            self._sockets.append(listening)
            self._accepting.append(loop.create_task(self._accept(listening), name="accept"))

    async def close(self) -> None:
        """Stop accepting, and drop connections that are still being set up."""
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        for listening in self._sockets:
            listening.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, peer = await loop.sock_accept(listening)
            except OSError:
                # Out of descriptors, or a peer that left while it was being accepted.
                await asyncio.sleep(0.05)
                continue
            address = str(peer[0])
            full = self._strangers.total() >= self._max or self._strangers[address] >= self._max_per_address
            if full:
                accepted.close()
                continue
            tune(accepted)
            visit = Visit(self._strangers, address)
            task = loop.create_task(self._serve(accepted, address, visit), name=f"client {address}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, accepted: socket.socket, address: str, visit: Visit) -> None:
        try:
            await self._handler(accepted, address, visit)
        finally:
            visit.known()


def tune(connection: socket.socket) -> None:
    """Send at once, and notice a peer that is silently gone while nothing is on its way to it."""
    connection.setblocking(False)
    with suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    keep_alive(connection)


def keep_alive(connection: socket.socket) -> None:
    """Have the kernel ask a silent peer whether it is there, and close the connection where it is not."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # Of a peer that owes an answer to what was sent, keepalives say nothing: see `silence`.
        for name, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3)):
            if (option := getattr(socket, name, None)) is not None:
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
