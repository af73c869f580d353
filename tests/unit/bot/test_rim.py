"""The rim to Slack: a payload is kept before it is acknowledged; wrong forms are answered at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import Mock

import pytest
from slack_bolt.authorization import AuthorizeResult
from slack_bolt.request.async_request import AsyncBoltRequest
from sqlalchemy.ext.asyncio import AsyncEngine

from bot import cards
from bot.adapters.boxes import Inbox, Reserved
from bot.adapters.broker import HttpBroker
from bot.adapters.clock import RandomIds
from bot.adapters.desks import Desks
from bot.adapters.store import Store
from bot.chat.slack.app import Rim
from bot.chat.slack.directory import SlackDirectory
from bot.chat.slack.opening import Opener
from bot.chat.slack.payloads import intent_of
from bot.chat.slack.reviewing import ReviewForms
from bot.chat.slack.service import make_app
from bot.config import Settings
from tests.unit.bot.slack_bodies import click, command, event, form, submission
from tests.unit.bot.stored import Fixed, Still
from tests.unit.bot.test_directory import Users


@pytest.fixture
async def rim(engine: AsyncEngine) -> AsyncIterator[tuple[Any, Inbox]]:
    clock = Still()
    inbox = Inbox(engine, clock)
    desks = Desks(
        Store(engine, clock), Fixed(), clock, RandomIds(), command="/access", channel="C0ACCESS01", pending_cap=5
    )

    client = Users()
    identity = AuthorizeResult(enterprise_id=None, team_id="T0", bot_user_id="U0APPBOT01", bot_id="B1", bot_token="x")
    # Nobody listens there: a form that is opened here goes to no Slack.
    app = make_app(Settings(slack_api_url="http://127.0.0.1:9/api/"), identity)
    directory = SlackDirectory(client, Fixed(), clock, "T0")
    opener = Opener(desks, directory, ReviewForms(desks, Mock(spec=HttpBroker)))
    Rim(inbox, desks, opener, lambda: None, Reserved()).attach(app)
    yield app, inbox
    await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "body",
    [
        command(),
        command(command="/unheard-of"),
        click(cards.APPROVE),
        click(cards.DENY),
        click(cards.CHANGES),
        click(cards.AGAIN),
        click(cards.ASK, '["prod-db","","",""]'),
        click(f"{cards.EXTEND}.900"),
        click("form.resource", view={"id": "V1", "callback_id": "access.ask"}),
        form("access.ask", "{}", **{"form.resource": "prod-db", "form.role": "read", "form.duration": "30m"}),
        form("request.changes", **{"form.role": "read", "form.duration": "30m"}),
        command(""),
        click("unheard.of"),
        submission("because"),
        click(cards.APPROVE_HOLD),
        click(cards.DENY_HOLD),
        submission("because", "hold.deny"),
        submission(None, "unheard.of"),
        {"type": "shortcut", "callback_id": "x", "trigger_id": "1", "user": {"id": "U0"}, "team": {"id": "T0"}},
        event({"type": "app_mention", "user": "U0", "channel": "C0", "text": "hi"}),
        event({"type": "unheard_of"}),
    ],
    ids=lambda body: json.dumps(body)[:50],
)
async def test_every_payload_is_kept_before_it_is_acknowledged(rim: tuple[Any, Inbox], body: dict[str, Any]) -> None:
    app, inbox = rim
    response = await app.async_dispatch(AsyncBoltRequest(body=body, mode="socket_mode"))
    assert response.status == 200
    [row] = await inbox.waiting()
    assert row.payload == body
    await app.async_dispatch(AsyncBoltRequest(body=body, mode="socket_mode"))
    assert len(await inbox.waiting()) == 1


async def test_words_of_a_clicked_message_are_not_kept(rim: tuple[Any, Inbox]) -> None:
    app, inbox = rim
    message = {"ts": "9.2", "thread_ts": "9.1", "text": "UPDATE secret", "blocks": [{"type": "rich_text"}]}
    body = click(cards.APPROVE_HOLD, message=message)
    await app.async_dispatch(AsyncBoltRequest(body=body, mode="socket_mode"))
    [row] = await inbox.waiting()
    assert row.payload["message"] == {"ts": "9.2", "thread_ts": "9.1"}
    assert intent_of(row.payload, "/access") == intent_of(body, "/access")


async def test_payload_that_cannot_be_kept_is_not_acknowledged(
    rim: tuple[Any, Inbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    app, inbox = rim

    async def full(*_: Any) -> bool:
        raise OSError("disk full")

    monkeypatch.setattr(inbox, "keep", full)
    response = await app.async_dispatch(AsyncBoltRequest(body=command(), mode="socket_mode"))
    assert response.status == 500


@pytest.mark.parametrize("form", ["request.deny", "hold.deny"])
async def test_form_without_a_reason_is_answered_in_the_acknowledgement(rim: tuple[Any, Inbox], form: str) -> None:
    app, inbox = rim
    response = await app.async_dispatch(AsyncBoltRequest(body=submission(None, form), mode="socket_mode"))
    assert json.loads(response.body)["response_action"] == "errors"
    assert await inbox.waiting() == []


async def test_form_that_asks_for_too_much_is_answered_in_the_acknowledgement(rim: tuple[Any, Inbox]) -> None:
    app, inbox = rim
    values = {"form.resource": "prod-db", "form.role": "read", "form.duration": "9h"}
    body = form("access.ask", "{}", **values)
    response = await app.async_dispatch(AsyncBoltRequest(body=body, mode="socket_mode"))
    answer = json.loads(response.body)
    assert answer["response_action"] == "errors"
    assert "at most 4h" in "".join(answer["errors"].values())
    assert await inbox.waiting() == []


async def test_payload_that_a_form_may_answer_waits_for_as_long_as_its_trigger_lives() -> None:
    reserved = Reserved()
    reserved.reserve("a", 0.5)
    reserved.reserve("b", 60)
    assert reserved.has("a")
    reserved.release("b")
    assert not reserved.has("b")
    await asyncio.sleep(0.6)
    assert not reserved.has("a")
