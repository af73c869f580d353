"""The app as its manifest describes it: name, commands, events, scopes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


class ManifestBroken(ValueError):
    """app manifest cannot be used"""


@dataclass(frozen=True, slots=True)
class Command:
    """One slash command."""

    name: str
    description: str
    usage_hint: str
    should_escape: bool
    url: str


@dataclass(frozen=True, slots=True)
class Shortcut:
    """One global or message shortcut."""

    name: str
    kind: str
    callback_id: str
    description: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The parts of an app manifest that decide what people see and what the app receives."""

    name: str
    description: str
    bot_name: str
    commands: Mapping[str, Command]
    shortcuts: tuple[Shortcut, ...]
    events: frozenset[str]
    scopes: frozenset[str] | None
    home_tab: bool
    messages_tab: bool
    socket_mode: bool
    events_url: str
    interactivity_url: str

    @property
    def handle(self) -> str:
        """Gives the name the bot is mentioned by."""
        return self.bot_name.lower().replace(" ", "")


def load_manifest(path: Path) -> Manifest:
    """Reads a Slack app manifest in JSON."""
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ManifestBroken(f"`{path}` is not readable JSON: {error}") from error
    if not isinstance(document, dict):
        raise ManifestBroken(f"`{path}` is not a JSON object")
    return read_manifest(document)


def read_manifest(document: Mapping[str, Any]) -> Manifest:
    """Picks the used parts out of a manifest."""
    name = str(_at(document, "display_information", "name") or "").strip()
    if not name:
        raise ManifestBroken("`display_information.name` is missing")
    features: Mapping[str, Any] = document.get("features") or {}
    scopes = _at(document, "oauth_config", "scopes", "bot")
    settings: Mapping[str, Any] = document.get("settings") or {}
    tabs: Mapping[str, Any] = features.get("app_home") or {}
    return Manifest(
        name=name,
        description=str(_at(document, "display_information", "description") or ""),
        bot_name=str(_at(features, "bot_user", "display_name") or name),
        commands={command.name: command for command in map(_command, features.get("slash_commands") or [])},
        shortcuts=tuple(map(_shortcut, features.get("shortcuts") or [])),
        events=frozenset(_at(document, "settings", "event_subscriptions", "bot_events") or []),
        scopes=None if scopes is None else frozenset(scopes),
        home_tab=bool(tabs.get("home_tab_enabled", False)),
        messages_tab=bool(tabs.get("messages_tab_enabled", True)),
        socket_mode=bool(settings.get("socket_mode_enabled", True)),
        events_url=_local(_at(settings, "event_subscriptions", "request_url")),
        interactivity_url=_local(_at(settings, "interactivity", "request_url")),
    )


def _local(url: Any) -> str:
    """Reads a request URL; payloads leave this machine for nowhere."""
    if url and urlsplit(str(url)).hostname not in ("127.0.0.1", "localhost"):
        raise ManifestBroken(f"request URL `{url}` must be on 127.0.0.1")
    return str(url or "")


def _command(entry: Mapping[str, Any]) -> Command:
    name = str(entry.get("command", ""))
    if not name.startswith("/") or len(name) > 32 or " " in name:
        raise ManifestBroken(f"slash command `{name}` must start with a slash and have no spaces")
    return Command(
        name,
        str(entry.get("description", "")),
        str(entry.get("usage_hint", "")),
        bool(entry.get("should_escape")),
        _local(entry.get("url")),
    )


def _shortcut(entry: Mapping[str, Any]) -> Shortcut:
    kind = str(entry.get("type", ""))
    if kind not in ("global", "message"):
        raise ManifestBroken(f"shortcut type `{kind}` is neither `global` nor `message`")
    return Shortcut(str(entry["name"]), kind, str(entry["callback_id"]), str(entry.get("description", "")))


def _at(document: Mapping[str, Any], *keys: str) -> Any:
    found: Any = document
    for key in keys:
        found = (found or {}).get(key)
    return found
