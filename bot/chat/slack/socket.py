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
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
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


class SocketHandler(AsyncSocketModeHandler):
    """Bolt's handler, which also knows when Slack greeted it, answered a ping and delivered something."""

    def __init__(self, app: AsyncApp, app_token: str, suspect: Callable[[str], None]) -> None:
        super().__init__(app, app_token, ping_interval=PING_SECONDS)
        self.greeted = asyncio.Event()
        self._suspect = suspect
        self._session: aiohttp.ClientWebSocketResponse | None = None
        self._session_at = self._heard_at = time.monotonic()
        self._greeted_session: aiohttp.ClientWebSocketResponse | None = None
        self._handling = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.client.message_listeners.append(self._hear)
        self.client.on_message_listeners.append(self._read)

    async def handle(self, client: SocketModeClient, req: SocketModeRequest) -> None:  # type: ignore[override]
        """Dispatch one envelope."""
        ENVELOPE.set(req.envelope_id)
        self._heard_at = time.monotonic()
        self._handling += 1
        self._idle.clear()
        try:
            await super().handle(client, req)
        finally:
            self._handling -= 1
            if not self._handling:
                self._idle.set()

    def trouble(self, quiet: float) -> str | None:
        """Say why this socket should be replaced; None where it lives, as far as that can be told."""
        now = time.monotonic()
        session = self.client.current_session
        if session is not self._session:
            self._session, self._session_at = session, now
        if session is not self._greeted_session and now - self._session_at > GREET_SECONDS:
            return "no greeting"
        answered = self.client.last_ping_pong_time
        if answered is not None and time.time() - answered > PONG_SECONDS:
            return "no answer to pings"
        # A socket that answers pings and delivers nothing cannot be told from an idle workspace, so it is not trusted.
        return "nothing delivered" if now - self._heard_at > quiet else None

    async def retire(self) -> None:
        """Close, once what came through here is acknowledged."""
        with suppress(TimeoutError):
            async with asyncio.timeout(RETIRE_SECONDS):
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
        """Hear why Slack closes a socket: the SDK follows it before any listener is told."""
        if '"disconnect"' not in str(frame.data)[:200]:
            return
        with suppress(ValueError):
            message = json.loads(frame.data)
            reason = message.get("reason") if isinstance(message, dict) else None
            log.info("slack.disconnect", reason=json.dumps(reason))
            if reason == TOO_MANY:
                self._suspect("too many sockets")


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
        self._suspicion: str | None = None
        self._renewed_at = 0.0
        self._pause = SHORTEST_PAUSE
        self._retiring: set[asyncio.Task[None]] = set()

    def _made(self) -> SocketHandler:
        return SocketHandler(self._app, self._token, self.suspect)

    def suspect(self, why: str) -> None:
        """Say that payloads may not arrive here."""
        self._suspicion = why

    async def open(self, patience: float) -> None:
        """Connect and be greeted; raises TimeoutError."""
        async with asyncio.timeout(patience):
            await self._current.connect_async()  # type: ignore[no-untyped-call]
            await self._current.greeted.wait()

    def stop(self) -> None:
        """Watch no longer."""
        self._stop.set()

    async def run(self) -> None:
        """Watch until told to stop."""
        while not self._stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), CHECK_SECONDS)
                return
            why = self._suspicion or self._current.trouble(self._quiet)
            if why is not None and time.monotonic() - self._renewed_at > self._pause:
                await self._renew(why)

    async def close(self) -> None:
        """Say farewell on every socket."""
        await asyncio.gather(self._current.retire(), *self._retiring, return_exceptions=True)

    async def _renew(self, why: str) -> None:
        idle = why == "nothing delivered"
        (log.info if idle else log.warning)("slack.socket_renewed", why=why)
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
        self._retire(self._current)
        self._current = fresh
        self._pause = SHORTEST_PAUSE if idle else min(self._pause * 2, LONGEST_PAUSE)

    def _retire(self, handler: SocketHandler) -> None:
        task = asyncio.create_task(handler.retire())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
