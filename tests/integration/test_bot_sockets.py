"""Sockets that only look alive: they are found out and replaced, and a replacement loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bot.chat.slack import socket
from tests.support.bot_world import CARDS, Story, story
from tests.unit.bot.workspace.world import until

Telling = Callable[..., Any]


@pytest.fixture
def pinging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ping and despair five times as fast, where a test has sockets that answer no pings."""
    monkeypatch.setattr(socket, "PING_SECONDS", 1.0)
    monkeypatch.setattr(socket, "PONG_SECONDS", 3.0)


@pytest.fixture
async def told(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Story]:
    async with story(tmp_path, slack_quiet=getattr(request, "param", 300)) as running:
        yield running


async def silence(told: Story, kind: str) -> None:
    answer = await told.world.post("faults", silent_socket=kind)
    assert answer["ok"], answer
    assert answer["sockets"] >= 1


async def answers(told: Story, seconds: float = 30) -> None:
    """Type commands until one is answered, as people would."""

    async def typed() -> bool | None:
        answer = await told.world.post("command", user="alice", channel=CARDS, text="/access list", wait_ms=1000)
        return True if answer["ok"] else None

    await told.eventually(typed, seconds)


@pytest.mark.parametrize("told", [1.0], indirect=True)
async def test_socket_that_answers_pings_and_delivers_nothing_is_replaced(told: Story) -> None:
    with capture_logs() as logs:
        await silence(told, "deaf")
        lost = await told.world.post("command", user="alice", channel=CARDS, text="/access list", wait_ms=100)
        assert lost["error"] == "operation_timeout"
        await answers(told)
    assert any(one["event"] == "slack.socket_renewed" and one["why"] == "nothing delivered" for one in logs)


async def test_socket_that_answers_no_pings_is_replaced(pinging: None, told: Story) -> None:
    await silence(told, "dead")
    await until(lambda: told.world.space.sockets.count >= 2, 40)
    # The dead one is a ghost on the other side, which still gets its share; the new one delivers.
    await answers(told)


async def test_event_that_first_comes_as_a_repetition_is_worked_on_and_renews_the_socket(
    pinging: None, told: Story
) -> None:
    await silence(told, "dead")
    await until(lambda: told.world.space.sockets.count >= 2, 40)
    with capture_logs() as logs:
        # One of two tries goes to the ghost, and its repetition to the live one.
        for _ in range(2):
            await told.world.post("home", user="alice")
        await told.eventually(lambda: _renewed(logs), 30)
    assert any(one["event"] == "payload.missed_before" for one in logs)
    assert await told.calls("views.publish")


async def test_event_that_comes_the_first_time_renews_nothing(told: Story) -> None:
    with capture_logs() as logs:
        await told.world.post("home", user="alice")
        await told.eventually(lambda: _published(told))
        await asyncio.sleep(1)
    assert not [one for one in logs if one["event"] in ("payload.missed_before", "slack.socket_renewed")]


async def _published(told: Story) -> bool | None:
    return True if await told.calls("views.publish") else None


async def _renewed(logs: list[Any]) -> bool | None:
    found = [one for one in logs if one["event"] == "slack.socket_renewed"]
    return True if found and found[0]["why"] == "a payload was missed" else None


@pytest.fixture
def renewing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renew a socket several times a second, where it is quiet that long."""
    monkeypatch.setattr(socket, "SHORTEST_PAUSE", 0.1)
    monkeypatch.setattr(socket, "CHECK_SECONDS", 0.05)


@pytest.mark.parametrize("told", [0.1], indirect=True)
async def test_replacing_a_live_socket_again_and_again_loses_nothing(renewing: None, told: Story) -> None:
    for number in range(12):
        before = await renewals(told)
        assert await told.whispers("alice", "/access list"), number
        await told.eventually(lambda before=before: _more(told, before), 30)
    # None of the old ones stays: Slack would go on giving them their share.
    await until(lambda: told.world.space.sockets.count == 1, 30)


async def renewals(told: Story) -> int:
    return len(await told.calls("apps.connections.open"))


async def _more(told: Story, before: int) -> bool | None:
    return True if await renewals(told) > before else None


async def test_ghosts_are_counted_at_the_greeting(pinging: None, told: Story) -> None:
    await silence(told, "dead")
    with capture_logs() as logs:
        await told.world.post("faults", disconnect=True)
        await until(lambda: told.world.space.sockets.count >= 2, 40)
        await silence(told, "dead")
        await until(lambda: told.world.space.sockets.count >= 3, 40)
        await told.eventually(lambda: _ghosts(logs), 20)


async def _ghosts(logs: list[Any]) -> bool | None:
    return True if any(one["event"] == "slack.ghost_sockets" and one["connections"] == 3 for one in logs) else None


async def test_stopping_closes_every_socket_with_a_farewell(told: Story) -> None:
    await told.stop_bot()
    await until(lambda: told.world.space.sockets.count == 0)
    await told.start_bot()
