"""The manifest says what the program does: no event unheard, no call without its scope, no scope without a use."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from typer.testing import CliRunner

from airlock import app
from bot.chat.slack import manifest as source
from bot.chat.slack.manifest import EVENTS, FILE, METHODS, manifest
from bot.chat.slack.payloads import _EVENTS, intent_of
from bot.config import Settings
from bot.intents import Ignored, Unknown
from bot.workspace.api import METHODS as WORKSPACE_METHODS
from bot.workspace.manifest import read_manifest

_LITERAL = re.compile(r'"((?:auth|apps|chat|conversations|files|users|usergroups|views|reactions)\.[A-Za-z.]+)"')
_CLIENT = re.compile(r"client\.([a-z]+_[a-z_]+)\(")
_OTHER = {"api_call", "apps_connections_open"}
"""No call of its own, and one that is made with the app's token, which has no scopes of the bot."""


def called() -> set[str]:
    """Return the methods that the program's text names."""
    text = "".join(file.read_text() for file in FILE.parent.glob("*.py") if file.name != "manifest.py")
    methods = set(_LITERAL.findall(text))
    for name in set(_CLIENT.findall(text)) - _OTHER:
        family, _, rest = name.partition("_")
        first, *more = rest.split("_")
        methods.add(f"{family}.{first}{''.join(word.title() for word in more)}")
    return methods


def test_checked_in_manifest_is_the_generated_one() -> None:
    written = FILE.read_text()
    assert written == source.text(), "airlock.py slack manifest > bot/chat/slack/manifest.json"


def test_every_method_that_is_called_is_in_the_table_and_no_other() -> None:
    assert called() == set(METHODS)


def test_every_event_that_is_listened_to_is_in_the_manifest_and_no_other() -> None:
    assert set(_EVENTS) == set(EVENTS)
    assert manifest()["settings"]["event_subscriptions"]["bot_events"] == sorted(EVENTS)
    for name in EVENTS:
        user: Any = {"id": "U0", "deleted": True} if name == "user_change" else "U0"
        inner = {"type": name, "user": user, "tab": "home"}
        body = {"type": "event_callback", "event_id": "Ev1", "team_id": "T0", "event": inner}
        assert not isinstance(intent_of(body, "/access"), Ignored | Unknown), name


def test_scopes_are_what_the_workspace_demands_and_nothing_is_asked_for_that_nothing_uses() -> None:
    scopes = set(manifest()["oauth_config"]["scopes"]["bot"])
    for name in METHODS:
        demanded = WORKSPACE_METHODS[name].scopes
        assert not demanded or scopes & set(demanded), name
    used = {scope for some in (*METHODS.values(), *EVENTS.values()) for scope in some}
    assert scopes == used | {"commands"}


def test_command_and_the_way_payloads_come_are_settings() -> None:
    made = manifest("/ask", "https://airlock.example.test/slack/events")
    [slash] = made["features"]["slash_commands"]
    assert (slash["command"], slash["should_escape"]) == ("/ask", True)
    settings = made["settings"]
    urls = {
        slash["url"],
        settings["event_subscriptions"]["request_url"],
        settings["interactivity"]["request_url"],
    }
    assert urls == {"https://airlock.example.test/slack/events"}
    assert settings["socket_mode_enabled"] is False
    plain = manifest()
    assert plain["features"]["slash_commands"][0]["command"] == Settings.model_fields["command"].default
    assert plain["settings"]["socket_mode_enabled"] is True
    assert "url" not in json.dumps(plain)


def test_manifest_can_be_read_by_the_workspace() -> None:
    read = read_manifest(manifest())
    assert read.home_tab
    assert read.events == frozenset(EVENTS)


@pytest.mark.parametrize("arguments", [[], ["--command", "/ask", "--url", "https://x.test/slack/events"]])
def test_command_line_prints_the_manifest(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["slack", "manifest", *arguments])
    assert result.exit_code == 0
    expected = manifest("/ask", "https://x.test/slack/events") if arguments else manifest()
    assert json.loads(result.stdout) == expected


def test_command_that_slack_would_not_take_is_refused() -> None:
    result = CliRunner().invoke(app, ["slack", "manifest", "--command", "ask"])
    assert result.exit_code == 2
    assert "should be like /access" in " ".join(result.output.split())
