"""Socket Mode: one live connection to Slack, watched, and renewed where it only looks alive."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import aiohttp
import structlog
from slack_bolt.adapter.socket_mode.async_base_handler import AsyncBaseSocketModeHandler
from slack_bolt.adapter.socket_mode.async_internals import run_async_bolt_app, send_async_response
from slack_bolt.app.async_app import AsyncApp
from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.socket_mode.async_client import AsyncBaseSocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest

from bot.chat.slack.app import ENVELOPE

log = structlog.get_logger()

PING_SECONDS = 5.0
PONG_SECONDS = 15.0
"""Three pings without an answer."""
GREET_SECONDS = 10.0
CHECK_SECONDS = 0.5
RETIRE_SECONDS = 3.0
"""How long what came through an old socket may take to be acknowledged there."""
SHORTEST_PAUSE, LONGEST_PAUSE = 1.0, 300.0
"""Between two renewals, doubled while they do not help: sockets that pile up are ghosts themselves."""
SOCKETS_EXPECTED = 2
"""One, and its successor while it is renewed; more are ghosts that swallow payloads."""
TOO_MANY = "too_many_websockets"
IDLE, CROWDED, REFRESH = "nothing delivered", "too many sockets", "Slack asks for a new one"
ROUTINE = (IDLE, REFRESH)
"""Reasons to renew a socket that is well."""
FAREWELL = (1000).to_bytes(2, "big")


class Client(SocketModeClient):
    """The SDK's client, which leaves it to who owns it whether it follows when Slack asks it to go."""

    follows = True

    async def connect_to_new_endpoint(self, force: bool = False) -> None:
        """Open a new socket, once the old one is closed; by force is what the SDK says where Slack asks."""
        if self.follows or not force:
            await super().connect_to_new_endpoint(force)


class SocketHandler(AsyncBaseSocketModeHandler):
    """Hands envelopes to Bolt, and knows when Slack greeted it, answered a ping and delivered something."""

    def __init__(self, app: AsyncApp, app_token: str, suspect: Callable[[str], None]) -> None:
        self._app = app
        self.client: Client = Client(app_token, app.logger, app.client, ping_interval=PING_SECONDS)
        self.client.socket_mode_request_listeners.append(self.handle)  # type: ignore[arg-type]  # its type is for the client of a base class
        self.greeted = asyncio.Event()
        self._suspect = suspect
        self._session: aiohttp.ClientWebSocketResponse | None = None
        self._session_at = self._heard_at = time.monotonic()
        self._greeted_session: aiohttp.ClientWebSocketResponse | None = None
        self._unanswered = 0
        """How many envelopes have arrived, whether or not anything has looked at them, and are not acknowledged."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._left, self._parted = False, asyncio.Event()
        self._heir: SocketHandler | None = None
        self.client.message_listeners.append(self._hear)
        self.client.on_message_listeners.append(self._read)
        self.client.on_close_listeners.append(self._part)

    async def handle(self, client: SocketModeClient, req: SocketModeRequest) -> None:  # type: ignore[override]
        """Dispatch one envelope, and acknowledge it here, or through the heir once the farewell is said."""
        ENVELOPE.set(req.envelope_id)
        self._heard_at = time.monotonic()
        began = time.time()
        try:
            answer = await run_async_bolt_app(self._app, req)
            await send_async_response(self._live().client, req, answer, began)
        finally:
            self._unanswered -= 1
            if not self._unanswered:
                self._idle.set()

    def _live(self) -> SocketHandler:
        """Return the handler that may still send; it need not be the one to which an envelope came."""
        live = self
        while live._left and live._heir is not None:
            live = live._heir
        return live

    def trouble(self, quiet: float) -> str | None:
        """Say why this socket should be replaced; None where it lives, as far as that can be told."""
        now = time.monotonic()
        session = self.client.current_session
        if session is not self._session:
            self._session, self._session_at = session, now
        if session is not None and session.closed:
            # The SDK would notice with its next ping only, and nothing is delivered until then.
            return "closed"
        if session is not self._greeted_session and now - self._session_at > GREET_SECONDS:
            return "no greeting"
        answered = self.client.last_ping_pong_time
        if answered is not None and time.time() - answered > PONG_SECONDS:
            return "no answer to pings"
        # A socket that answers pings and delivers nothing cannot be told from an idle workspace, so it is not trusted.
        return IDLE if now - self._heard_at > quiet else None

    async def retire(self, heir: SocketHandler | None = None) -> None:
        """Close, once what came through here is acknowledged.

        Slack sends on until it reads the farewell. What crosses with it is read until Slack answers with its own, and
        acknowledged through the heir, as the SDK does with what came through the connection before.
        """
        self._heir = heir
        self.client.auto_reconnect_enabled = False
        with suppress(TimeoutError):
            async with asyncio.timeout(RETIRE_SECONDS):
                await self._idle.wait()
        session = self.client.current_session
        self._left = True
        if session is not None and not session.closed:
            self._parted.clear()
            with suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(RETIRE_SECONDS):
                    # Not `close()`, which reads on until the answer as well, but throws away what it reads.
                    await session.send_frame(FAREWELL, aiohttp.WSMsgType.CLOSE)
                    await self._parted.wait()
                    await self._idle.wait()
        with suppress(TimeoutError):
            # A half-open connection never answers the farewell.
            await asyncio.wait_for(self.close_async(), RETIRE_SECONDS)  # type: ignore[no-untyped-call]

    async def _hear(self, _client: AsyncBaseSocketModeClient, message: dict[str, Any], _raw: str | None) -> None:
        if message.get("type") != "hello":
            return
        self._greeted_session = self.client.current_session
        self._heard_at = time.monotonic()
        self.greeted.set()
        count = message.get("num_connections")
        if isinstance(count, int) and count > SOCKETS_EXPECTED:
            log.warning("slack.ghost_sockets", connections=count, expected=SOCKETS_EXPECTED)
        log.info("slack.connected", connections=count)

    async def _read(self, frame: aiohttp.WSMessage) -> None:
        """Note what arrives, before the SDK lets anything look at it, and hear why Slack closes a socket."""
        try:
            message = json.loads(frame.data)
            if not isinstance(message, dict):
                return
            dispatched = SocketModeRequest.from_dict(message) is not None
        except ValueError:
            return
        if message.get("type") == "disconnect":
            self._asked_to_leave(message.get("reason"))
        elif dispatched:
            self._unanswered += 1
            self._idle.clear()

    def _asked_to_leave(self, reason: Any) -> None:
        log.info("slack.disconnect", reason=json.dumps(reason))
        # Where there are too many, the SDK closes this one before it opens another; else the successor comes first.
        self.client.follows = reason == TOO_MANY and self._heir is None
        if self._heir is None:
            self._suspect(CROWDED if reason == TOO_MANY else REFRESH)

    async def _part(self, _frame: aiohttp.WSMessage) -> None:
        """Hear Slack's farewell, after which nothing comes."""
        self._parted.set()


class Sockets:
    """Keeps one socket open that delivers; a new one is greeted before the old one is closed, so nothing falls between.

    Ghosts on Slack's side cannot be closed from here; they time out there. What can be done is to have none of our own:
    every socket is closed with a farewell, and renewals that do not help come at ever longer intervals.
    """

    def __init__(self, app: AsyncApp, app_token: str, quiet: float) -> None:
        self._app = app
        self._token = app_token
        self._quiet = quiet
        self._current = self._made()
        self._stop = asyncio.Event()
        self._woken = asyncio.Event()
        self._suspicion: str | None = None
        self._renewed_at = 0.0
        self._pause = SHORTEST_PAUSE
        self._retiring: set[asyncio.Task[None]] = set()

    def _made(self) -> SocketHandler:
        return SocketHandler(self._app, self._token, self.suspect)

    def suspect(self, why: str) -> None:
        """Say that payloads may not arrive here."""
        self._suspicion = why
        self._woken.set()

    async def open(self, patience: float) -> None:
        """Connect and be greeted; raises TimeoutError."""
        async with asyncio.timeout(patience):
            await self._current.connect_async()  # type: ignore[no-untyped-call]
            await self._current.greeted.wait()

    def stop(self) -> None:
        """Watch no longer."""
        self._stop.set()
        self._woken.set()

    async def run(self) -> None:
        """Watch until told to stop."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), CHECK_SECONDS)
            self._woken.clear()
            if self._stop.is_set():
                return
            why = self._suspicion or self._current.trouble(self._quiet)
            pause = SHORTEST_PAUSE if why == REFRESH else self._pause
            if why is not None and time.monotonic() - self._renewed_at > pause:
                await self._renew(why)

    async def close(self) -> None:
        """Say farewell on every socket."""
        await asyncio.gather(self._current.retire(), *self._retiring, return_exceptions=True)

    async def _renew(self, why: str) -> None:
        routine = why in ROUTINE
        (log.info if routine else log.warning)("slack.socket_renewed", why=why)
        self._renewed_at, self._suspicion = time.monotonic(), None
        fresh = self._made()
        try:
            async with asyncio.timeout(GREET_SECONDS):
                await fresh.connect_async()  # type: ignore[no-untyped-call]
                await fresh.greeted.wait()
        except Exception as error:  # noqa: BLE001 - whatever it was, the old socket is kept and this is tried again
            log.warning("slack.not_renewed", error=type(error).__name__)
            self._retire(fresh)
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
            return
        self._retire(self._current, fresh)
        self._current = fresh
        self._pause = SHORTEST_PAUSE if routine else min(self._pause * 2, LONGEST_PAUSE)

    def _retire(self, handler: SocketHandler, heir: SocketHandler | None = None) -> None:
        task = asyncio.create_task(handler.retire(heir))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
