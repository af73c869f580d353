"""reactions.*"""

from typing import Any

from ..directory import BOT_USER_ID
from ..errors import SlackError
from ..workspace import Workspace
from .table import Args, joined_channel, method, need


@method("reactions.add", "reactions:write")
def add(space: Workspace, args: Args) -> dict[str, Any]:
    """Adds an emoji to a message."""
    name = need(args, "name").strip(":")
    channel = joined_channel(space, args)
    message = space.messages.find(channel.id, need(args, "timestamp"))
    if message is None or message.reader is not None:
        raise SlackError("message_not_found")
    reactions: list[dict[str, Any]] = list(message.body.get("reactions", []))
    entry = next((reaction for reaction in reactions if reaction["name"] == name), None)
    if entry is not None and BOT_USER_ID in entry["users"]:
        raise SlackError("already_reacted")
    if entry is None:
        reactions.append({"name": name, "users": [BOT_USER_ID], "count": 1})
    else:
        entry["users"].append(BOT_USER_ID)
        entry["count"] += 1
    space.messages.update(message, {"reactions": reactions})
    return {}
