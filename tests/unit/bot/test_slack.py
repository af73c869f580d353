"""The rim to Slack: payloads, accounts, refusals, the manifest."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from pydantic import ValidationError
from slack_bolt.authorization import AuthorizeResult
from slack_bolt.request.async_request import AsyncBoltRequest
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot import cards
from bot.adapters.boxes import Inbox, Reserved
from bot.adapters.broker import HttpBroker
from bot.adapters.clock import RandomIds
from bot.adapters.desks import Desks
from bot.adapters.keys import OrderKeyUnusable, order_key
from bot.adapters.policies import FolderPolicies
from bot.adapters.store import Store
from bot.adapters.tables import MIGRATIONS
from bot.chat.slack.app import Rim
from bot.chat.slack.directory import SlackDirectory, objection
from bot.chat.slack.gateway import SlackRefused, SlackUncertain, judged
from bot.chat.slack.opening import Opener
from bot.chat.slack.pacing import SlackBusy
from bot.chat.slack.payloads import intent_of, key_of
from bot.chat.slack.reviewing import ReviewForms
from bot.chat.slack.service import make_app
from bot.config import Settings
from bot.intents import (
    AccountChanged,
    Approve,
    ApproveChanged,
    ApproveHold,
    Ask,
    AskAgain,
    Cancel,
    EndNow,
    Extend,
    Help,
    Ignored,
    NewLine,
    OpenAsk,
    OpenChanges,
    OpenDeny,
    OpenDenyHold,
    Refuse,
    RefuseHold,
    Unknown,
)
from bot.ports import Member, Outsider
from policies.engine.load import PolicyUnreadable
from tests.unit.bot.memory import NOW, POLICY
from tests.unit.bot.test_store import Fixed, Still
from workflows.storage.engine import make_engine, sqlite_url
from workflows.storage.migrate import upgrade

USER = {
    "id": "U0BOB00001",
    "team_id": "T0",
    "deleted": False,
    "is_bot": False,
    "is_restricted": False,
    "is_ultra_restricted": False,
}


def command(text: str = "prod-db read 30m", **more: Any) -> dict[str, Any]:
    body = {
        "token": "x",
        "team_id": "T0",
        "channel_id": "C0ACCESS01",
        "user_id": "U0ALICE001",
        "command": "/access",
        "text": text,
        "response_url": "https://hooks.slack.com/commands/1",
        "trigger_id": "1.2.3",
    }
    return {**body, **more}


def click(action: str, value: Any = "t0", **more: Any) -> dict[str, Any]:
    body = {
        "type": "block_actions",
        "team": {"id": "T0"},
        "user": {"id": "U0BOB00001", "team_id": "T0"},
        "trigger_id": "4.5.6",
        "channel": {"id": "C0ACCESS01"},
        "container": {"type": "message", "message_ts": "9.1", "channel_id": "C0ACCESS01"},
        "message": {"ts": "9.1", "thread_ts": "9.1"},
        "response_url": "https://hooks.slack.com/actions/1",
        "actions": [{"type": "button", "action_id": action, "block_id": "b", "value": value, "action_ts": "10.1"}],
    }
    return {**body, **more}


def submission(reason: str | None, callback: str = "request.deny") -> dict[str, Any]:
    values = {"reason": {"text": {"type": "plain_text_input", "value": reason}}}
    return {
        "type": "view_submission",
        "team": {"id": "T0"},
        "user": {"id": "U0BOB00001", "team_id": "T0"},
        "trigger_id": "7.8.9",
        "view": {
            "id": "V1",
            "type": "modal",
            "callback_id": callback,
            "private_metadata": "t0",
            "state": {"values": values},
        },
    }


def form(callback: str, metadata: str = "t0", **values: Any) -> dict[str, Any]:
    """A form of ours, sent: values by action id."""
    state = {f"b{n}": {action: state_of(value)} for n, (action, value) in enumerate(values.items())}
    body = submission(None, callback)
    blocks = [{"type": "input", "block_id": block} for block in state]
    return {
        **body,
        "view": {**body["view"], "private_metadata": metadata, "blocks": blocks, "state": {"values": state}},
    }


def state_of(value: Any) -> dict[str, Any]:
    chosen = {"type": "static_select", "selected_option": {"value": value}}
    return chosen if isinstance(value, str) else {"type": "plain_text_input", "value": None}


def event(inner: dict[str, Any]) -> dict[str, Any]:
    return {"type": "event_callback", "team_id": "T0", "event_id": "Ev1", "event": inner}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (command(), Ask),
        (command(command="/other"), Unknown),
        (click(cards.APPROVE), Approve),
        (click(cards.DENY), OpenDeny),
        (click(cards.CANCEL), Cancel),
        (click(cards.CHANGES), OpenChanges),
        (click(cards.AGAIN), AskAgain),
        (click(cards.ASK, '["prod-db","","",""]'), OpenAsk),
        (click(cards.ASK, '["prod-db"]'), Unknown),
        (click(cards.ASK, "[["), Unknown),
        (click(cards.ASK, None), Unknown),
        (click(f"{cards.EXTEND}.900"), Extend),
        (click(f"{cards.EXTEND}.900", "x" * 101), Unknown),
        (click(f"{cards.EXTEND}.-900"), Unknown),
        (click(f"{cards.EXTEND}.99999999"), Unknown),
        (click(f"{cards.EXTEND}.١"), Unknown),
        (click("form.resource"), Ignored),
        (click("form.role"), Ignored),
        (form("access.ask", "{}"), Ask),
        (form("access.ask", "not json"), Ask),
        (form("request.changes"), ApproveChanged),
        ({**form("request.changes"), "view": {"callback_id": "request.changes"}}, Unknown),
        (click(cards.NEW_LINE), NewLine),
        (click(cards.END), EndNow),
        (click(cards.APPROVE_HOLD), ApproveHold),
        (click(cards.DENY_HOLD), OpenDenyHold),
        (submission("no", "hold.deny"), RefuseHold),
        (click("another"), Unknown),
        (click(cards.APPROVE, ""), Unknown),
        (click(cards.APPROVE, None), Unknown),
        (click(cards.APPROVE, "x" * 101), Unknown),
        (click(cards.APPROVE, {"a": 1}), Unknown),
        (click(cards.APPROVE, actions=[]), Unknown),
        (click(cards.APPROVE, actions="x", user=None, message=None, container=None), Unknown),
        (submission("no"), Refuse),
        (submission("no", "another"), Unknown),
        ({"type": "shortcut", "user": {"id": "U0"}}, Unknown),
        ({"type": "view_closed", "user": {"id": "U0"}}, Ignored),
        ({}, Unknown),
        (event({"type": "app_mention", "user": "U0", "channel": "C0"}), Help),
        (event({"type": "user_change", "user": {"id": "U0", "deleted": True}}), AccountChanged),
        (event({"type": "anything"}), Ignored),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else value.__name__,
)
def test_payload_becomes_an_intent(body: dict[str, Any], kind: type) -> None:
    assert isinstance(intent_of(body, "/access"), kind)


def test_click_says_who_and_where() -> None:
    source = intent_of(click(cards.APPROVE), "/access").source
    assert (source.team, source.account, source.channel, source.message) == ("T0", "U0BOB00001", "C0ACCESS01", "9.1")
    assert (source.thread, source.action) == ("", "10.1")


def test_keys_are_what_slack_repeats() -> None:
    assert key_of(event({"type": "x"})) == "event_callback:Ev1"
    assert key_of(click("a")) == "block_actions:10.1:4.5.6"
    assert key_of(command()) == "command:1.2.3"
    assert key_of(submission("no")) == "view_submission:7.8.9"
    assert key_of({"type": "shortcut"}, "envelope-1") == "shortcut:envelope-1"
    assert key_of({"type": "shortcut", "a": 1}) != key_of({"type": "shortcut", "a": 2})


@pytest.mark.parametrize(
    "change",
    [
        {"deleted": True},
        {"is_bot": True},
        {"is_restricted": True},
        {"is_ultra_restricted": True},
        {"is_stranger": True},
        {"is_workflow_bot": True},
        {"team_id": "T9"},
        {"id": "U9"},
        {"deleted": None},
        *({key: ...} for key in ("deleted", "is_bot", "is_restricted", "is_ultra_restricted", "team_id")),
    ],
    ids=str,
)
def test_account_that_is_not_a_whole_member_is_refused(change: dict[str, Any]) -> None:
    user = {key: value for key, value in {**USER, **change}.items() if value is not ...}
    assert objection(user, "U0BOB00001", "T0") is not None


def test_whole_member_is_not_refused() -> None:
    assert objection(USER, "U0BOB00001", "T0") is None
    assert objection(None, "U0BOB00001", "T0") is not None


class Users(AsyncWebClient):
    """Answers users.info, and counts."""

    def __init__(self) -> None:
        super().__init__(token="x")
        self.user: Any = dict(USER)
        self.calls = 0
        self.error: Exception | None = None
        self.fails = 100

    async def users_info(self, *, user: str, **_: Any) -> Any:  # type: ignore[override]
        self.calls += 1
        if self.error and self.calls <= self.fails:
            raise self.error
        return {"user": {**self.user, "id": user}}


async def test_account_is_remembered_for_a_minute_and_asked_afresh_for_decisions() -> None:
    client, clock = Users(), Still()
    directory = SlackDirectory(client, Fixed(), clock, "T0")
    assert await directory.standing("T0", "U0BOB00001", False) == Member("bob", "U0BOB00001")
    await directory.standing("T0", "U0BOB00001", False)
    assert client.calls == 1
    client.user["deleted"] = True
    assert isinstance(await directory.standing("T0", "U0BOB00001", True), Outsider)
    clock.at = NOW + timedelta(seconds=61)
    await directory.standing("T0", "U0BOB00001", False)
    assert client.calls == 3


async def test_account_that_cannot_be_looked_up_is_refused() -> None:
    client = Users()
    directory = SlackDirectory(client, Fixed(), Still(), "T0", patience=0)
    client.error = SlackApiError("x", {"error": "user_not_found"})
    assert isinstance(await directory.standing("T0", "U0BOB00001", True), Outsider)
    client.error = TimeoutError()
    assert isinstance(await directory.standing("T0", "U0BOB00001", True), Outsider)
    client.error = None
    assert isinstance(await directory.standing("T9", "U0BOB00001", True), Outsider)
    assert isinstance(await directory.standing("T0", "", True), Outsider)
    assert isinstance(await directory.standing("T0", "U0NOBODY01", True), Outsider)


@pytest.mark.parametrize(
    "error",
    [
        lambda: SlackApiError("x", Answer(429, {"error": "ratelimited"}, {"Retry-After": "0"})),
        lambda: SlackApiError("x", Answer(500, {"error": "internal_error"})),
        TimeoutError,
    ],
    ids=["busy", "broken", "gone"],
)
async def test_slack_that_is_away_for_a_moment_is_asked_again(error: Any) -> None:
    client = Users()
    client.error, client.fails = error(), 2
    directory = SlackDirectory(client, Fixed(), Still(), "T0")
    assert await directory.standing("T0", "U0BOB00001", True) == Member("bob", "U0BOB00001")
    assert client.calls == 3


async def test_account_that_slack_does_not_know_is_not_asked_for_again() -> None:
    client = Users()
    client.error = SlackApiError("x", Answer(200, {"error": "user_not_found"}))
    assert isinstance(await SlackDirectory(client, Fixed(), Still(), "T0").standing("T0", "U1", True), Outsider)
    assert client.calls == 1


class Answer:
    def __init__(self, status: int, data: Any, headers: dict[str, str] | None = None) -> None:
        self.status_code, self.data, self.headers = status, data, headers or {}


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(200, {"error": "channel_not_found"}), SlackRefused),
        (Answer(429, {"error": "ratelimited"}, {"Retry-After": "12"}), SlackBusy),
        (Answer(429, "slow down"), SlackBusy),
        (Answer(500, {"error": "internal_error"}), SlackUncertain),
        (Answer(503, "<html>"), SlackUncertain),
        (Answer(200, "garbage"), SlackUncertain),
        (Answer(200, {"error": "fatal_error"}), SlackBusy),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_answers_of_slack_are_told_apart(answer: Any, kind: type) -> None:
    found = judged(SlackApiError("x", answer))
    assert isinstance(found, kind)
    if isinstance(found, SlackBusy) and answer.headers:
        assert found.after == 12


@pytest.fixture
async def rim(tmp_path: Path) -> AsyncIterator[tuple[Any, Inbox]]:
    engine = make_engine(sqlite_url(tmp_path / "bot.db"))
    await upgrade(engine, MIGRATIONS)
    clock = Still()
    inbox = Inbox(engine, clock)
    desks = Desks(
        Store(engine, clock), Fixed(), clock, RandomIds(), command="/access", channel="C0ACCESS01", pending_cap=5
    )

    client = Users()
    identity = AuthorizeResult(enterprise_id=None, team_id="T0", bot_user_id="U0APPBOT01", bot_id="B1", bot_token="x")
    app = make_app(Settings(), identity)
    directory = SlackDirectory(client, Fixed(), clock, "T0")
    opener = Opener(desks, directory, ReviewForms(desks, Mock(spec=HttpBroker)))
    Rim(inbox, desks, opener, lambda: None, Reserved()).attach(app)
    yield app, inbox
    await asyncio.sleep(0.02)
    await engine.dispose()


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
    reserved.reserve("a", 0.05)
    reserved.reserve("b", 60)
    assert reserved.has("a")
    reserved.release("b")
    assert not reserved.has("b")
    await asyncio.sleep(0.1)
    assert not reserved.has("a")


def test_sent_form_is_the_ask_that_the_command_would_be() -> None:
    values = {"form.resource": "prod-db", "form.role": "read", "form.duration": "30m", "form.reason": "why"}
    asked = intent_of(form("access.ask", '{"channel": "C0GENERAL1"}', **values), "/access")
    typed = intent_of(command("prod-db read 30m because why"), "/access")
    assert isinstance(asked, Ask)
    assert isinstance(typed, Ask)
    assert (asked.resource, asked.role, asked.duration) == (typed.resource, typed.role, typed.duration)
    assert asked.source.channel == "C0GENERAL1"


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://slack.com/api/", True),
        ("http://127.0.0.1:3960/api", True),
        ("http://localhost:1/api/", True),
        ("http://[::1]:1/api/", True),
        ("http://slack.com/api/", False),
        ("http://127.0.0.1.example.com/api/", False),
    ],
)
def test_api_address_is_secure_or_on_this_machine(url: str, good: bool) -> None:
    if good:
        made = Settings(slack_api_url=url)
        assert made.slack_api_url.endswith("/")
        assert made.pace == (1.0 if url.startswith("https") else 0.0)
    else:
        with pytest.raises(ValidationError):
            Settings(slack_api_url=url)


def test_settings_are_read_from_the_environment_and_show_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK_API_URL", "http://127.0.0.1:1/api/")
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-secret")
    monkeypatch.setenv("AIRLOCK_CHANNEL", "#approvals")
    monkeypatch.setenv("AIRLOCK_STATE", "/tmp/x")
    made = Settings()
    assert (made.slack_api_url, made.channel, str(made.home)) == ("http://127.0.0.1:1/api/", "#approvals", "/tmp/x/bot")
    assert "xoxb-secret" not in repr(made)


def test_order_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    first = order_key(tmp_path / "bot").private_bytes_raw()
    assert order_key(tmp_path / "bot").private_bytes_raw() == first
    assert (tmp_path / "bot" / "order.pem").stat().st_mode & 0o777 == 0o600
    assert b"PUBLIC KEY" in (tmp_path / "bot" / "order.pub.pem").read_bytes()
    (tmp_path / "bot" / "order.pem").write_text("no key")
    with pytest.raises(OrderKeyUnusable):
        order_key(tmp_path / "bot")


def test_policy_that_does_not_load_stops_the_start_and_not_a_reload(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("nonsense: [")
    with pytest.raises(PolicyUnreadable):
        FolderPolicies(tmp_path)
    file.write_text(POLICY)
    held = FolderPolicies(tmp_path)
    before = held.hash
    file.write_text("nonsense: 1")
    assert not held.refresh()
    assert held.hash == before
    file.write_text(POLICY.replace("max_duration: 4h", "max_duration: 3h"))
    assert held.refresh()
    assert held.hash != before
