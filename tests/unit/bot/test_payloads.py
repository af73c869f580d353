"""Payloads become intents; what Slack repeats is told by its key."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bot import cards
from bot.chat.slack.payloads import intent_of, key_of
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
from tests.unit.bot.slack_bodies import click, command, event, form, submission


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


def test_sent_form_is_the_ask_that_the_command_would_be() -> None:
    values = {"form.resource": "prod-db", "form.role": "read", "form.duration": "30m", "form.reason": "why"}
    asked = intent_of(form("access.ask", '{"channel": "C0GENERAL1"}', **values), "/access")
    typed = intent_of(command("prod-db read 30m because why"), "/access")
    assert isinstance(asked, Ask)
    assert isinstance(typed, Ask)
    assert (asked.resource, asked.role, asked.duration) == (typed.resource, typed.role, typed.duration)
    assert asked.source.channel == "C0GENERAL1"
