"""A workspace on a free port with an app connected to it, for tests."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

from bot.workspace.manifest import read_manifest
from bot.workspace.server import make_app
from bot.workspace.workspace import Settings, Workspace

SCOPES = [
    "commands",
    "chat:write",
    "users:read",
    "users:read.email",
    "usergroups:read",
    "files:write",
    "files:read",
    "im:write",
    "app_mentions:read",
    "channels:read",
    "channels:history",
    "reactions:write",
]
MANIFEST: dict[str, Any] = {
    "display_information": {"name": "Helper"},
    "features": {
        "app_home": {"home_tab_enabled": True},
        "bot_user": {"display_name": "helper"},
        "slash_commands": [
            {"command": "/ask", "description": "Asks", "usage_hint": "what", "should_escape": True},
            {"command": "/raw", "description": "Asks", "should_escape": False},
        ],
        "shortcuts": [
            {"name": "Begin", "type": "global", "callback_id": "begin", "description": "Begins"},
            {"name": "Run this", "type": "message", "callback_id": "run_this", "description": "Runs"},
        ],
    },
    "oauth_config": {"scopes": {"bot": SCOPES}},
    "settings": {
        "event_subscriptions": {
            "bot_events": ["app_home_opened", "app_mention", "message.im", "user_change", "subteam_members_changed"]
        }
    },
}
GENERAL, REQUESTS, PARTNERS = "C0GENERAL1", "C0ACCESS01", "C0PARTNER1"
ALICE, BOB, DANA, GUS, SAM = "U0ALICE001", "U0BOB00001", "U0DANA0001", "U0GUEST001", "U0STRANGER1"


@dataclass
class World:
    """One running workspace; `app` is a Bolt app whose listeners a test adds before `connect`."""

    space: Workspace
    session: aiohttp.ClientSession
    url: str
    client: AsyncWebClient
    app: AsyncApp
    _handlers: list[AsyncSocketModeHandler] = field(default_factory=list)

    async def connect(self) -> AsyncSocketModeHandler:
        """Opens one more socket of the app."""
        before = self.space.sockets.count
        handler = AsyncSocketModeHandler(self.app, self.space.app_token, ping_interval=1)
        self._handlers.append(handler)
        await handler.connect_async()
        await until(lambda: self.space.sockets.count > before)
        return handler

    async def post(self, path: str, **body: Any) -> dict[str, Any]:
        """Does something as a person."""
        async with self.session.post(f"{self.url}/local/{path}", json=body) as response:
            answer: dict[str, Any] = await response.json()
            return answer

    async def get(self, path: str, **query: Any) -> dict[str, Any]:
        """Looks as a person."""
        async with self.session.get(f"{self.url}/local/{path}", params=query) as response:
            answer: dict[str, Any] = await response.json()
            return answer

    async def seen(self, user: str, channel: str, **more: Any) -> list[dict[str, Any]]:
        """Gives the messages a person sees."""
        answer = await self.get("messages", **{"as": user}, channel=channel, **more)
        found: list[dict[str, Any]] = answer["messages"]
        return found

    def leave(self, user: str, channel: str) -> None:
        """Takes a person out of a channel."""
        directory = self.space.directory
        directory.change_members(channel, directory.channels[channel].members - {user})

    async def close(self) -> None:
        """Closes the app's sockets."""
        for handler in self._handlers:
            await handler.close_async()


async def until(fact: Callable[[], Any], seconds: float = 15) -> None:
    """Waits for something to become true."""
    for _ in range(int(seconds * 100)):
        if fact():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")


@asynccontextmanager
async def running(state: Path, manifest: dict[str, Any] = MANIFEST, port: int = 0, **more: Any) -> AsyncIterator[World]:
    """Runs a workspace with its own state; `more` are settings such as `guide` and `psql`."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    space = Workspace(Settings(state, listener.getsockname()[1], read_manifest(manifest), **more))
    runner = web.AppRunner(make_app(space), shutdown_timeout=0.1)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    url = space.settings.origin
    client = AsyncWebClient(token=space.bot_token, base_url=f"{url}/api/")
    async with aiohttp.ClientSession() as session:
        world = World(space, session, url, client, AsyncApp(client=client))
        try:
            yield world
        finally:
            await world.close()
            await space.close()
            await runner.cleanup()


def section(text: str) -> dict[str, Any]:
    """Builds a section."""
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def button(action_id: str, value: str = "", **more: Any) -> dict[str, Any]:
    """Builds a button."""
    return {
        "type": "button",
        "action_id": action_id,
        "text": {"type": "plain_text", "text": action_id.title()},
        "value": value,
        **more,
    }


def field_of(label: str, action_id: str, **more: Any) -> dict[str, Any]:
    """Builds a text input."""
    return {
        "type": "input",
        "block_id": f"{action_id}_block",
        "label": {"type": "plain_text", "text": label},
        "element": {"type": "plain_text_input", "action_id": action_id, **more},
    }


def modal(*blocks: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Builds a modal."""
    view = {
        "type": "modal",
        "callback_id": "form",
        "title": {"type": "plain_text", "text": "Form"},
        "submit": {"type": "plain_text", "text": "Send"},
        "blocks": list(blocks),
    }
    return {**view, **more}
