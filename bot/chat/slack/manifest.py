"""The app as Slack is told of it: one source for scopes, events, the command, and how payloads arrive."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("manifest.json")
COMMAND = "/access"
REQUEST_PATH = "/slack/events"
"""Where payloads arrive over HTTP, whatever their kind."""

METHODS: Mapping[str, tuple[str, ...]] = {
    "auth.test": (),
    "chat.getPermalink": (),
    "chat.postEphemeral": ("chat:write",),
    "chat.postMessage": ("chat:write",),
    "chat.update": ("chat:write",),
    "conversations.history": ("channels:history", "groups:history", "im:history"),
    "conversations.info": ("channels:read", "groups:read"),
    "conversations.list": ("channels:read", "groups:read"),
    "conversations.members": ("channels:read", "groups:read"),
    "conversations.open": ("im:write",),
    "conversations.replies": ("channels:history", "groups:history", "im:history"),
    "files.completeUploadExternal": ("files:write",),
    "files.getUploadURLExternal": ("files:write",),
    "users.info": ("users:read",),
    "views.open": (),
    "views.publish": (),
    "views.update": (),
}
"""Every Web API method that the bot's token calls, and the scopes it takes for the conversations that there are."""
EVENTS: Mapping[str, tuple[str, ...]] = {
    "app_home_opened": (),
    "app_mention": ("app_mentions:read",),
    "user_change": ("users:read",),
}
"""Every event that the bot does something about, and the scope it takes to hear it."""
SHORTCUTS: tuple[Mapping[str, str], ...] = ()


def scopes() -> list[str]:
    """Return the bot's scopes: what methods and events take, and slash commands."""
    needed = {"commands"}
    for some in (*METHODS.values(), *EVENTS.values()):
        needed.update(some)
    return sorted(needed)


def manifest(command: str = COMMAND, url: str = "") -> dict[str, Any]:
    """Return the app's manifest; with the address of an HTTP endpoint, payloads go there instead of a socket."""
    slash: dict[str, Any] = {
        "command": command,
        "description": "Ask for access to something",
        "usage_hint": "prod-db read 30m because INC-42",
        "should_escape": True,
    }
    events: dict[str, Any] = {"bot_events": sorted(EVENTS)}
    interactivity: dict[str, Any] = {"is_enabled": True}
    if url:
        slash["url"] = events["request_url"] = interactivity["request_url"] = url
    features: dict[str, Any] = {
        "app_home": {"home_tab_enabled": True, "messages_tab_enabled": True, "messages_tab_read_only_enabled": False},
        "bot_user": {"display_name": "Airlock", "always_online": True},
        "slash_commands": [slash],
    }
    if SHORTCUTS:
        features["shortcuts"] = [dict(shortcut) for shortcut in SHORTCUTS]
    return {
        "display_information": {
            "name": "Airlock",
            "description": "Ask for access, answer requests, see what happened",
            "long_description": (
                "Airlock lets engineers ask for access to production in Slack, lets reviewers answer in Slack, and "
                "makes sure that what was approved is exactly what can happen. Every request has a card, every card a "
                "thread: who asked, who approved, what was run, what was blocked."
            ),
            "background_color": "#1f3a5f",
        },
        "features": features,
        "oauth_config": {"scopes": {"bot": scopes()}},
        "settings": {
            "event_subscriptions": events,
            "interactivity": interactivity,
            "org_deploy_enabled": False,
            "socket_mode_enabled": not url,
            "token_rotation_enabled": False,
        },
    }


def text(command: str = COMMAND, url: str = "") -> str:
    """Return the manifest as it is written to a file."""
    return json.dumps(manifest(command, url), indent=2) + "\n"
