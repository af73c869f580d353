"""Posts and edits in the app's name, wherever the wish comes from: a call, a response URL, an acknowledgement."""

from typing import Any

from .content import read_content
from .directory import APP_ID, BOT_ID, BOT_USER_ID, TEAM_ID
from .errors import SlackError
from .handles import Reply
from .messages import Message
from .workspace import Workspace


def by_app(space: Workspace, content: dict[str, Any]) -> dict[str, Any]:
    """Gives a message body signed by the app."""
    return {
        "user": BOT_USER_ID,
        "bot_id": BOT_ID,
        "app_id": APP_ID,
        "team": TEAM_ID,
        "bot_profile": {
            "id": BOT_ID,
            "app_id": APP_ID,
            "user_id": BOT_USER_ID,
            "name": space.manifest.bot_name,
            "team_id": TEAM_ID,
            "deleted": False,
            "updated": 1_700_000_000,
            "icons": {},
        },
        **content,
    }


def edit(space: Workspace, message: Message, content: dict[str, Any]) -> None:
    """Replaces text and blocks; text without blocks removes the blocks, as Slack does."""
    changes: dict[str, Any] = {"text": content["text"], "blocks": content.get("blocks")}
    if "metadata" in content:
        changes["metadata"] = content["metadata"] or None
    if not content.get("blocks"):
        changes["edited"] = {"user": BOT_USER_ID, "ts": space.timestamps.next()}
    space.messages.update(message, changes)


def respond(space: Workspace, reply: Reply, wish: dict[str, Any]) -> Message | None:
    """Carries out what was sent to a response URL or inside an acknowledgement."""
    origin = space.messages.find(reply.channel, reply.message_ts) if reply.message_ts else None
    if wish.get("delete_original"):
        if origin is not None:
            space.messages.delete(origin)
        return None
    content = read_content(wish)
    if wish.get("replace_original") and origin is not None:
        edit(space, origin, content)
        return origin
    response_type = wish.get("response_type", "ephemeral")
    if response_type not in ("ephemeral", "in_channel"):
        raise SlackError("invalid_arguments", [f"[ERROR] unknown response_type: {response_type}"])
    reader = reply.user if response_type == "ephemeral" else None
    return space.messages.post(reply.channel, by_app(space, content), thread_ts=wish.get("thread_ts"), reader=reader)
