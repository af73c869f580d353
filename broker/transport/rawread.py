"""Speaks over a raw socket without ever taking a byte too many, so that nothing is buffered across a change to TLS."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from broker.transport.stream import PeerGone


async def read_exactly(connection: socket.socket, count: int) -> bytes:
    """Return exactly so many bytes; raises PeerGone."""
    taken = b""
    while len(taken) < count:
        try:
            # The loop's own way waits in any case, for what is mostly there.
            piece = connection.recv(count - len(taken))
        except (BlockingIOError, InterruptedError):
            await _readable(connection)
            continue
        if not piece:
            raise PeerGone
        taken += piece
    return taken


async def send(connection: socket.socket, data: bytes) -> None:
    """Send a few bytes, which nearly always fit at once."""
    with suppress(BlockingIOError, InterruptedError):
        data = data[connection.send(data) :]
    if data:
        await asyncio.get_running_loop().sock_sendall(connection, data)


async def peek(connection: socket.socket) -> bytes:
    """Return the first byte that waits, and leave it there; raises PeerGone."""
    while True:
        try:
            found = connection.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            await _readable(connection)
            continue
        if not found:
            raise PeerGone
        return found


def waiting(connection: socket.socket) -> bool:
    """Say whether bytes have arrived that nobody has read."""
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except (BlockingIOError, InterruptedError):
        return False


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(connection.fileno(), lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(connection.fileno())
