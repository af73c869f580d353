"""Socket Mode: envelopes out to one of the app's sockets, acknowledgements back."""

import asyncio
import json
import secrets
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from .directory import APP_ID
from .faults import Faults
from .feed import Effect, Feed
from .journal import Journal
from .limits import ACK_SECONDS, SOCKETS


class AppNotConnected(Exception):
    """app not connected"""


class AckTimedOut(Exception):
    """app did not acknowledge in time"""


@dataclass(slots=True)
class Sockets:
    """The app's open sockets; each envelope goes to one of them, in turn."""

    journal: Journal
    faults: Faults
    feed: Feed
    _tickets: set[str] = field(default_factory=set)
    _open: list[web.WebSocketResponse] = field(default_factory=list)
    _transports: dict[web.WebSocketResponse, asyncio.Transport] = field(default_factory=dict)
    _waiting: dict[str, asyncio.Future[Any]] = field(default_factory=dict)
    _late: set[asyncio.Task[None]] = field(default_factory=set)
    _silent: set[web.WebSocketResponse] = field(default_factory=set)
    _turn: int = 0

    @property
    def count(self) -> int:
        """Says how many sockets the app has open."""
        return len(self._open)

    def ticket(self) -> str:
        """Makes the secret that opens one socket."""
        ticket = secrets.token_urlsafe(18)
        self._tickets.add(ticket)
        return ticket

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Runs one of the app's sockets until it closes."""
        ticket = request.query.get("ticket", "")
        if ticket not in self._tickets:
            raise web.HTTPForbidden(text="invalid or used ticket")
        self._tickets.discard(ticket)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        if len(self._open) >= SOCKETS:
            await socket.send_json({"type": "disconnect", "reason": "too_many_websockets", "debug_info": {}})
            await socket.close()
            return socket
        self._open.append(socket)
        if request.transport is not None:
            self._transports[socket] = request.transport
        try:
            await self._greet(socket)
            async for frame in socket:
                if frame.type is WSMsgType.TEXT:
                    self._receive(frame.data)
        except ConnectionError:
            pass
        finally:
            self._forget(socket)
            self._tell()
        return socket

    def _forget(self, socket: web.WebSocketResponse) -> None:
        self._transports.pop(socket, None)
        self._silent.discard(socket)
        if socket in self._open:
            self._open.remove(socket)

    async def _greet(self, socket: web.WebSocketResponse) -> None:
        await socket.send_json(
            {
                "type": "hello",
                "num_connections": len(self._open),
                "debug_info": {"host": "applink-local", "build_number": 1, "approximate_connection_time": 18060},
                "connection_info": {"app_id": APP_ID},
            }
        )
        self._tell()

    def _tell(self) -> None:
        self.feed.publish(Effect("app", {"connected": self.count > 0, "sockets": self.count}, counts=False))

    def _receive(self, text: str) -> None:
        try:
            frame = json.loads(text)
        except (ValueError, RecursionError):
            frame = None
        if not isinstance(frame, dict):
            self.journal.note("from_app", "unreadable frame", text[:2000])
            return
        envelope = str(frame.get("envelope_id", ""))
        if self.faults.take("lose_ack"):
            self.journal.note("from_app", "ack lost", frame)
            return
        self.journal.note("from_app", "ack", frame)
        waiting = self._waiting.get(envelope)
        if waiting is not None and not waiting.done():
            waiting.set_result(frame.get("payload"))

    async def deliver(self, kind: str, payload: dict[str, Any], **more: Any) -> Any:
        """Sends an envelope and gives what the acknowledgement carried."""
        envelope_id = str(uuid.uuid4())
        envelope = {"envelope_id": envelope_id, "payload": payload, "type": kind, **more}
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[envelope_id] = answer
        try:
            if self.faults.take("delayed"):
                late = asyncio.create_task(self._send_late(envelope, self.faults.delay_ms / 1000))
                self._late.add(late)
                late.add_done_callback(self._late.discard)
            else:
                await self._send(envelope)
            return await asyncio.wait_for(answer, ACK_SECONDS)
        except TimeoutError as error:
            raise AckTimedOut from error
        finally:
            del self._waiting[envelope_id]

    async def _send_late(self, envelope: dict[str, Any], pause: float) -> None:
        await asyncio.sleep(pause)
        with suppress(AppNotConnected):
            await self._send(envelope)

    async def _send(self, envelope: dict[str, Any]) -> None:
        await self._send_once(envelope)
        if self.faults.take("duplicate"):
            await self._send_once(envelope)

    async def _send_once(self, envelope: dict[str, Any]) -> None:
        while self._open:
            self._turn += 1
            socket = self._open[self._turn % len(self._open)]
            if socket in self._silent:
                self.journal.note("to_app", "swallowed", envelope)
                return
            try:
                await socket.send_json(envelope)
            except ConnectionError:
                self._forget(socket)
                continue
            self.journal.note("to_app", envelope["type"], envelope)
            return
        raise AppNotConnected

    def drop(self) -> int:
        """Cuts every socket without a word; says how many."""
        sockets = list(self._open)
        for socket in sockets:
            transport = self._transports.get(socket)
            if transport is not None:
                transport.abort()
            self._forget(socket)
        return len(sockets)

    def silence(self, *, pings: bool) -> int:
        """Makes ghosts of the open sockets: they swallow envelopes and perhaps answer pings; says how many."""
        for socket in self._open:
            self._silent.add(socket)
            if not pings and (transport := self._transports.get(socket)) is not None:
                transport.pause_reading()
        return len(self._open)

    async def disconnect(self, reason: str = "refresh_requested") -> int:
        """Asks the app to open new sockets, as Slack does every few hours."""
        sockets = list(self._open)
        for socket in sockets:
            await socket.send_json({"type": "disconnect", "reason": reason, "debug_info": {"host": "applink-local"}})
        return len(sockets)

    async def close(self) -> None:
        """Closes every socket, at the end."""
        for late in list(self._late):
            late.cancel()
        for socket in list(self._open):
            transport = self._transports.get(socket)
            if socket in self._silent and transport is not None:
                transport.abort()
            else:
                await socket.close()
