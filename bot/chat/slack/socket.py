"""Socket Mode: the connection to Slack, the envelope's id for the inbox, and a watch on how many sockets there are."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import structlog
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.app.async_app import AsyncApp
from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.socket_mode.async_client import AsyncBaseSocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest

from bot.chat.slack.app import ENVELOPE

log = structlog.get_logger()

PING_SECONDS = 5.0
SOCKETS_EXPECTED = 2
"""One, and its successor while Slack renews it; more are ghosts that swallow payloads."""


class SocketHandler(AsyncSocketModeHandler):
    """Bolt's handler, which also says when Slack has greeted it."""

    def __init__(self, app: AsyncApp, app_token: str) -> None:
        super().__init__(app, app_token, ping_interval=PING_SECONDS)
        self.greeted = asyncio.Event()
        self.client.message_listeners.append(self._hear)

    async def handle(self, client: SocketModeClient, req: SocketModeRequest) -> None:  # type: ignore[override]
        """Dispatch one envelope."""
        ENVELOPE.set(req.envelope_id)
        await super().handle(client, req)

    async def _hear(self, _client: AsyncBaseSocketModeClient, message: dict[str, Any], _raw: str | None) -> None:
        match message.get("type"):
            case "hello":
                self.greeted.set()
                count = message.get("num_connections")
                if isinstance(count, int) and count > SOCKETS_EXPECTED:
                    log.warning("slack.ghost_sockets", connections=count)
                log.info("slack.connected", connections=count)
            case "disconnect":
                log.info("slack.disconnect", reason=json.dumps(message.get("reason")))
            case _:
                pass
