"""Accepted connections change hands: one process listens, another serves; descriptors go over a socket between them."""

from __future__ import annotations

import asyncio
import pickle
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from broker.transport.listener import Handler

_NOTE_BYTES = 4096
_AGAIN_SECONDS = 0.01


def handing_pair() -> tuple[socket.socket, socket.socket]:
    """Return both ends; messages keep their bounds."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


async def give(over: socket.socket, accepted: socket.socket, note: tuple[Any, ...]) -> None:
    """Give an accepted connection away, with a note about it; raises OSError where nobody takes it."""
    body = pickle.dumps(note, protocol=5)
    while True:
        try:
            socket.send_fds(over, [body], [accepted.fileno()])
        except BlockingIOError:
            await asyncio.sleep(_AGAIN_SECONDS)
        else:
            accepted.close()
            return


class Door:
    """Where connections that were given away come in; `left` is told the number of each that has been served.

    `known` is told of one whose peer has proved who it is.
    """

    def __init__(self, over: socket.socket, known: Callable[[int], None], left: Callable[[int], None]) -> None:
        over.setblocking(False)
        self._over = over
        self._known = known
        self._left = left
        self._handlers: dict[str, Handler] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    def open(self) -> None:
        """Take what comes from now on."""
        self._loop.add_reader(self._over.fileno(), self._take)

    def serve(self, name: str, handler: Handler) -> None:
        """Have a protocol's connections served."""
        self._handlers[name] = handler

    async def close(self) -> None:
        """Take nothing more, and drop connections that are still being set up."""
        if self._over.fileno() >= 0:
            self._loop.remove_reader(self._over.fileno())
            self._over.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _take(self) -> None:
        with suppress(BlockingIOError, InterruptedError):
            body, descriptors, _, _ = socket.recv_fds(self._over, _NOTE_BYTES, 1)
            if not body:
                self._loop.remove_reader(self._over.fileno())
                return
            name, number, address = pickle.loads(body)  # noqa: S301  of the process that started this one
            accepted = [socket.socket(fileno=descriptor) for descriptor in descriptors]
            task = self._loop.create_task(self._serve(name, number, accepted, address), name=f"client {address}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, name: str, number: int, accepted: list[socket.socket], address: str) -> None:
        visit = HandedVisit(number, self._known)
        try:
            for one in accepted:
                one.set_inheritable(False)
                one.setblocking(False)
                await self._handlers[name](one, address, visit)
        finally:
            self._left(number)


class HandedVisit:
    """One connection's place among those that have not proved who they are, which another process counts."""

    def __init__(self, number: int, known: Callable[[int], None]) -> None:
        self._number = number
        self._known = known

    def known(self) -> None:
        self._known(self._number)
