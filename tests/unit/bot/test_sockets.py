"""When a socket is not trusted any more."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from slack_bolt.authorization import AuthorizeResult

from bot.chat.slack import socket
from bot.chat.slack.service import make_app
from bot.chat.slack.socket import GREET_SECONDS, PONG_SECONDS, SocketHandler
from bot.config import Settings


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.at = time.time()

    def time(self) -> float:
        return self.at

    monotonic = time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    clock = Time()
    monkeypatch.setattr(socket, "time", clock)
    return clock


@pytest.fixture
async def handler(clock: Time) -> AsyncIterator[tuple[SocketHandler, list[str]]]:
    identity = AuthorizeResult(enterprise_id=None, team_id="T0", bot_user_id="U0APPBOT01", bot_id="B1", bot_token="x")
    suspected: list[str] = []
    made = SocketHandler(make_app(Settings(), identity), "xapp-1", suspected.append)
    session: Any = SimpleNamespace(closed=False)
    made.client.current_session = session
    await made._hear(made.client, {"type": "hello", "num_connections": 1}, None)
    yield made, suspected
    made.client.current_session = None
    await made.close_async()


async def test_greeted_socket_that_answers_and_delivers_is_trusted(
    handler: tuple[SocketHandler, list[str]], clock: Time
) -> None:
    made, _ = handler
    made.client.last_ping_pong_time = clock.at
    clock.at += PONG_SECONDS - 1
    assert made.trouble(300) is None


async def test_socket_that_answers_no_pings_is_not(handler: tuple[SocketHandler, list[str]], clock: Time) -> None:
    made, _ = handler
    made.client.last_ping_pong_time = clock.at
    clock.at += PONG_SECONDS + 1
    assert made.trouble(300) == "no answer to pings"


async def test_socket_that_was_never_greeted_is_not(handler: tuple[SocketHandler, list[str]], clock: Time) -> None:
    made, _ = handler
    successor: Any = SimpleNamespace(closed=False)
    made.client.current_session = successor
    assert made.trouble(300) is None
    clock.at += GREET_SECONDS + 1
    assert made.trouble(300) == "no greeting"


async def test_quiet_socket_is_not(handler: tuple[SocketHandler, list[str]], clock: Time) -> None:
    made, _ = handler
    clock.at += 301
    assert made.trouble(300) == "nothing delivered"


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        ({"type": "disconnect", "reason": "too_many_websockets"}, ["too many sockets"]),
        ({"type": "disconnect", "reason": "refresh_requested"}, ["Slack asks for a new one"]),
        ({"type": "events_api", "payload": {"text": "disconnect"}}, []),
    ],
    ids=str,
)
async def test_slack_says_why_a_socket_should_go(
    handler: tuple[SocketHandler, list[str]], frame: dict[str, Any], expected: list[str]
) -> None:
    made, suspected = handler
    told: Any = SimpleNamespace(data=json.dumps(frame))
    await made._read(told)
    assert suspected == expected
