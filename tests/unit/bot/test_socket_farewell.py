"""What crosses with the farewell of a socket that is replaced."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import WSMsgType, web
from slack_bolt.app.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_sdk.web.async_client import AsyncWebClient

from bot.chat.slack.socket import Sockets

COMMAND = {"command": "/access", "text": "list", "team_id": "T0", "user_id": "U0", "channel_id": "C0"}


@dataclass
class Slack:
    """Greets sockets, and can send an envelope at the very moment that a farewell arrives."""

    url: str = ""
    open: list[web.WebSocketResponse] = field(default_factory=list)
    made: int = 0
    heard: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    crossing: int = 0
    counts: list[int] = field(default_factory=list)
    cut: Callable[[], None] = lambda: None

    async def connections_open(self, request: web.Request) -> web.Response:
        return web.json_response({"ok": True, "url": f"{self.url}/link"})

    async def link(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(autoclose=False)
        await socket.prepare(request)
        self.made += 1
        assert isinstance(request.transport, asyncio.Transport)
        self.cut = request.transport.abort
        number = self.made
        self.open.append(socket)
        self.counts.append(len(self.open))
        await socket.send_json({"type": "hello", "num_connections": len(self.open)})
        while (frame := await socket.receive()).type is WSMsgType.TEXT:
            self.heard.append((number, json.loads(frame.data)))
        self.open.remove(socket)
        self.counts.append(len(self.open))
        if frame.type is WSMsgType.CLOSE:
            while self.crossing:
                self.crossing -= 1
                await send(socket, f"crossed-{self.crossing}")
            await socket.close()
        return socket

    def acknowledged(self) -> dict[str, int]:
        """Say through which socket each envelope was acknowledged."""
        return {frame["envelope_id"]: number for number, frame in self.heard}


async def send(socket: web.WebSocketResponse, envelope: str) -> None:
    await socket.send_json({"type": "slash_commands", "envelope_id": envelope, "payload": COMMAND})


@pytest.fixture
async def slack() -> AsyncIterator[Slack]:
    made = Slack()
    app = web.Application()
    app.router.add_post("/api/apps.connections.open", made.connections_open)
    app.router.add_get("/link", made.link)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@dataclass
class Bot:
    """Sockets of an app that notes what it is told, and can be slow to acknowledge."""

    sockets: Sockets
    told: list[str]
    slow: asyncio.Event


@pytest.fixture
async def bot(slack: Slack) -> AsyncIterator[Bot]:
    async def known() -> AuthorizeResult:
        return AuthorizeResult(enterprise_id=None, team_id="T0", bot_user_id="U1", bot_id="B1", bot_token="xoxb-1")

    app = AsyncApp(client=AsyncWebClient(base_url=f"{slack.url}/api/"), authorize=known)
    told: list[str] = []
    slow = asyncio.Event()
    slow.set()

    async def hear(ack: Any, body: dict[str, Any]) -> None:
        told.append(body["text"])
        await slow.wait()
        await ack()

    app.command("/access")(hear)
    sockets = Sockets(app, "xapp-1", 300)
    await sockets.open(10)
    yield Bot(sockets, told, slow)
    slow.set()
    await sockets.close()


async def eventually(fact: Any) -> None:
    for _ in range(2000):
        if fact():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")


async def test_what_crosses_with_the_farewell_is_worked_on_and_acknowledged_through_the_successor(
    slack: Slack, bot: Bot
) -> None:
    slack.crossing = 3
    await bot.sockets._renew("nothing delivered")
    await eventually(lambda: len(slack.acknowledged()) == 3)
    assert bot.told == ["list"] * 3
    assert slack.acknowledged() == {"crossed-0": 2, "crossed-1": 2, "crossed-2": 2}
    await eventually(lambda: len(slack.open) == 1)


async def test_what_came_before_the_farewell_is_acknowledged_where_it_came(slack: Slack, bot: Bot) -> None:
    bot.slow.clear()
    await send(slack.open[0], "early")
    await eventually(lambda: bot.told)
    await bot.sockets._renew("nothing delivered")
    assert len(slack.open) == 2
    bot.slow.set()
    await eventually(lambda: len(slack.open) == 1)
    assert slack.acknowledged() == {"early": 1}


async def test_what_has_arrived_and_was_not_looked_at_yet_is_acknowledged_where_it_came(slack: Slack, bot: Bot) -> None:
    handler = bot.sockets._current
    handler.client.message_queue.put_nowait(
        frame := json.dumps({"type": "slash_commands", "envelope_id": "queued", "payload": COMMAND})
    )
    await handler._read(type("Frame", (), {"data": frame})())
    await handler.retire()
    assert slack.acknowledged() == {"queued": 1}


async def test_successor_is_there_before_a_socket_leaves_that_slack_asks_to_go(slack: Slack, bot: Bot) -> None:
    watching = asyncio.create_task(bot.sockets.run())
    slack.crossing = 1
    await slack.open[0].send_json({"type": "disconnect", "reason": "refresh_requested"})
    await eventually(lambda: slack.counts == [1, 2, 1])
    await eventually(lambda: slack.acknowledged() == {"crossed-0": 2})
    bot.sockets.stop()
    await watching


async def test_socket_that_is_one_too_many_leaves_before_another_is_opened(slack: Slack, bot: Bot) -> None:
    await slack.open[0].send_json({"type": "disconnect", "reason": "too_many_websockets"})
    await eventually(lambda: slack.counts == [1, 0, 1])


async def test_socket_that_is_cut_is_replaced_before_the_library_looks(
    slack: Slack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.chat.slack.socket.PING_SECONDS", 600.0)
    monkeypatch.setattr("bot.chat.slack.socket.PONG_SECONDS", 600.0)
    sockets = Sockets(AsyncApp(client=AsyncWebClient(base_url=f"{slack.url}/api/", token="xoxb-1")), "xapp-1", 300)
    await sockets.open(10)
    watching = asyncio.create_task(sockets.run())
    slack.cut()
    await eventually(lambda: slack.counts == [1, 0, 1])
    sockets.stop()
    await watching
    await sockets.close()


async def test_socket_whose_other_side_never_answers_the_farewell_is_closed_all_the_same(
    slack: Slack, bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.chat.slack.socket.RETIRE_SECONDS", 0.1)
    handler = bot.sockets._current

    async def nothing(*_: Any) -> None: ...

    monkeypatch.setattr(handler.client.current_session, "send_frame", nothing)
    monkeypatch.setattr(handler.client, "disconnect", nothing)
    await handler.retire()
    assert handler.client.closed
