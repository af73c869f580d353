"""Calls between processes of one broker, over a socket that no other program has: in order, both ways.

Both ends are the same program under the same user, one started by the other with the socket in its hands, and both
hold the same credentials: so values cross as pickles, and nothing is guarded here that is not open to either end.
"""

from __future__ import annotations

import asyncio
import pickle
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import structlog

from broker.errors import AirlockError

PATIENCE = 300.0
"""Seconds that a process waits for the other's answer while nothing else runs in it: where that one stands still for a
while, so does this one."""
MOST_UNSENT = 64 * 1024 * 1024
"""Bytes that wait for a peer that does not read; beyond, it is given up."""
_LENGTH = struct.Struct("=I")
_CHUNK = 256 * 1024
_CALL, _CAST, _DONE, _FAILED = range(4)

Handler = Callable[[str, tuple[Any, ...]], Any]
_log = structlog.get_logger("channel")


class ChannelLost(AirlockError):
    """the other process of this broker does not answer"""


class Frames:
    """Cuts a stream of bytes into the messages that it is made of: each has its length before it."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def take(self, data: bytes) -> list[Any]:
        """Return what is whole with these bytes."""
        self._buffer += data
        found, at = [], 0
        while len(self._buffer) - at >= _LENGTH.size:
            end = at + _LENGTH.size + _LENGTH.unpack_from(self._buffer, at)[0]
            if end > len(self._buffer):
                break
            found.append(pickle.loads(memoryview(self._buffer)[at + _LENGTH.size : end]))  # noqa: S301  see above
            at = end
        del self._buffer[:at]
        return found


def framed(message: tuple[Any, ...]) -> bytes:
    """Write a message as `Frames` reads it."""
    body = pickle.dumps(message, protocol=5)
    return _LENGTH.pack(len(body)) + body


class Channel:
    """One end; `handle` is given each call's method and arguments, and returns the answer or what it comes from.

    Calls are handled in the order in which they were made; `lost` is called once, when the other end is gone.
    """

    def __init__(self, connection: socket.socket, handle: Handler, lost: Callable[[], None]) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._handle = handle
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._frames = Frames()
        self._arrived: deque[Any] = deque()
        self._writing = False
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._last = 0
        self._unsent = bytearray()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._loop.add_reader(connection.fileno(), self._readable)

    @property
    def closed(self) -> bool:
        return self._closed

    def cast(self, method: str, *arguments: Any) -> None:
        """Have something done, and hear nothing of it."""
        self._send(framed((_CAST, 0, method, arguments)))

    def call(self, method: str, *arguments: Any) -> asyncio.Future[Any]:
        """Ask for something; what it returns raises what was raised there, or ChannelLost where that end is gone."""
        self._last += 1
        message = framed((_CALL, self._last, method, arguments))
        future: asyncio.Future[Any] = self._loop.create_future()
        self._calls[self._last] = future
        self._send(message)
        if self._closed:
            _lose(future)
        return future

    def ask(self, method: str, *arguments: Any) -> Any:
        """Ask for something and wait for it here and now: nothing else runs in this process meanwhile.

        Raises as `call` does. What comes meanwhile is handled afterwards, in its order.
        """
        future = self.call(method, *arguments)
        deadline = time.monotonic() + PATIENCE
        poll = select.poll()
        while not future.done() and not self._closed:
            left = deadline - time.monotonic()
            if left <= 0:
                # Whether it was done there is not known: this end can only give up (fail closed).
                self._give_up()
                break
            poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._unsent else 0))
            poll.poll(left * 1000)
            self._flush()
            self._receive()
        if self._arrived:
            self._loop.call_soon(self._handle_arrived)
        _lose(future)
        return future.result()

    def close(self) -> None:
        """Give this end up; what was asked for fails."""
        if self._closed:
            return
        self._closed = True
        with suppress(OSError, ValueError):
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        for future in self._calls.values():
            _lose(future)
        self._calls.clear()
        for task in self._tasks:
            task.cancel()

    def _give_up(self) -> None:
        if not self._closed:
            self.close()
            self._lost()

    def _send(self, message: bytes) -> None:
        if self._closed:
            return
        waited = bool(self._unsent)
        self._unsent += message
        if not waited:
            self._flush()
        if len(self._unsent) > MOST_UNSENT:
            self._give_up()

    def _flush(self) -> None:
        if self._closed:
            return
        try:
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        except (BlockingIOError, InterruptedError):
            if not self._writing:
                self._writing = True
                self._loop.add_writer(self._socket.fileno(), self._flush)
            return
        except OSError:
            self._give_up()
            return
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._socket.fileno())

    def _readable(self) -> None:
        self._receive()
        self._handle_arrived()

    def _receive(self) -> None:
        """Take what has come: answers at once, calls for later."""
        if self._closed:
            return
        try:
            data = self._socket.recv(_CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._give_up()
            return
        try:
            messages = self._frames.take(data)
        except Exception as error:  # noqa: BLE001  what follows cannot be told apart any more (fail closed)
            _log.error("what another process says does not read", error=f"{type(error).__name__}: {error}")
            self._give_up()
            return
        for message in messages:
            if message[0] in (_DONE, _FAILED):
                self._answered(*message)
            else:
                self._arrived.append(message)

    def _answered(self, kind: int, number: int, value: Any) -> None:
        future = self._calls.pop(number, None)
        if future is None or future.done():
            return
        if kind == _DONE:
            future.set_result(value)
        else:
            future.set_exception(value)
            _looked_at(future)

    def _handle_arrived(self) -> None:
        while self._arrived and not self._closed:
            kind, number, method, arguments = self._arrived.popleft()
            try:
                answer = self._handle(method, arguments)
            except Exception as error:  # noqa: BLE001  whoever asked learns of it
                self._answer(kind, number, error)
                continue
            if isinstance(answer, Awaitable):
                task = self._loop.create_task(self._finish(kind, number, answer))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                self._answer(kind, number, answer)

    async def _finish(self, kind: int, number: int, answer: Awaitable[Any]) -> None:
        try:
            found = await answer
        except Exception as error:  # noqa: BLE001  whoever asked learns of it
            found = error
        self._answer(kind, number, found)

    def _answer(self, kind: int, number: int, found: Any) -> None:
        if kind != _CALL:
            if isinstance(found, Exception):
                _log.error("what another process asked for went wrong", error=f"{type(found).__name__}: {found}")
            return
        if isinstance(found, Exception) and not isinstance(found, AirlockError):
            found = AirlockError(f"{type(found).__name__}: {found}")
        try:
            message = framed((_FAILED if isinstance(found, Exception) else _DONE, number, found))
            if isinstance(found, Exception):
                # One that is made of other words than it says would end its reader.
                Frames().take(message)
        except Exception as error:  # noqa: BLE001  whoever asked waits for an answer, and nothing else runs there
            message = framed((_FAILED, number, AirlockError(f"the answer cannot be sent: {type(error).__name__}")))
        self._send(message)


def _lose(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(ChannelLost(ChannelLost.__doc__))
        _looked_at(future)


def _looked_at(future: asyncio.Future[Any]) -> None:
    """Not everybody who asked still wants to know what went wrong."""
    future.exception()
