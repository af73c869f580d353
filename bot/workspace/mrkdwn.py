"""What a person types, as the app receives it: entities escaped, mentions turned into ids."""

import re
from typing import Any

from .directory import BOT_USER_ID, Directory

_MENTION = re.compile(r"(?<![\w@#&;])([@#])([a-z0-9][a-z0-9._-]*)", re.IGNORECASE)
_TOKEN = re.compile(r"<([@#!])([^>|]+)(?:\|([^>]*))?>")


def escape(text: str) -> str:
    """Escapes the three characters that Slack escapes."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def unescape(text: str) -> str:
    """Takes the escapes back, once."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def encode_command(text: str, directory: Directory) -> str:
    """Encodes slash command text as `should_escape` asks: `<@U1|name>`, `<#C1|name>`, entities."""
    return _mentions(escape(text), directory, labelled=True)


def encode_message(text: str, directory: Directory) -> str:
    """Encodes message text as the composer does: `<@U1>`, `<#C1|name>`, entities."""
    return _mentions(escape(text), directory, labelled=False)


def _mentions(text: str, directory: Directory, *, labelled: bool) -> str:
    def encode(match: re.Match[str]) -> str:
        sign, name = match[1], match[2]
        bare = name.rstrip("._-")
        rest = name[len(bare) :]
        if sign == "#":
            channel = directory.channel(bare)
            return match[0] if channel is None or channel.person else f"<#{channel.id}|{channel.name}>{rest}"
        if bare.lower() in ("here", "channel", "everyone"):
            return f"<!{bare.lower()}>{rest}"
        if bare.lower() == directory.bot_handle:
            user, handle = BOT_USER_ID, directory.bot_handle
        else:
            person = directory.person(bare)
            if person is None:
                group = directory.group(bare)
                return match[0] if group is None else f"<!subteam^{group.id}|@{group.handle}>{rest}"
            user, handle = person.id, person.handle
        return (f"<@{user}|{handle}>" if labelled else f"<@{user}>") + rest

    return _MENTION.sub(encode, text)


def rich_text(encoded: str) -> dict[str, Any]:
    """Builds the rich_text block that accompanies a typed message."""
    elements: list[dict[str, Any]] = []
    end = 0
    for match in _TOKEN.finditer(encoded):
        if match.start() > end:
            elements.append({"type": "text", "text": unescape(encoded[end : match.start()])})
        elements.append(_element(match))
        end = match.end()
    if end < len(encoded) or not elements:
        elements.append({"type": "text", "text": unescape(encoded[end:])})
    return {"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": elements}]}


def _element(match: re.Match[str]) -> dict[str, Any]:
    sign, target = match[1], match[2]
    if sign == "@":
        return {"type": "user", "user_id": target}
    if sign == "#":
        return {"type": "channel", "channel_id": target}
    if target.startswith("subteam^"):
        return {"type": "usergroup", "usergroup_id": target.removeprefix("subteam^")}
    return {"type": "broadcast", "range": target}
