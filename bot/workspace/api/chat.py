"""chat.*"""

from typing import Any

from ..content import read_content
from ..directory import BOT_USER_ID, Channel, direct_channel_id
from ..errors import SlackError
from ..limits import UPDATE_TEXT
from ..messages import Message
from ..posting import by_app, edit
from ..workspace import Workspace
from .table import Args, channel_of, flag, joined_channel, method, need


def _target(space: Workspace, args: Args) -> Channel:
    """Finds where to post; a user id means that person's direct message."""
    named = str(args.get("channel", ""))
    if named in space.directory.people:
        return space.directory.channels[direct_channel_id(named)]
    return joined_channel(space, args)


def _own(space: Workspace, args: Args, refusal: str) -> Message:
    channel = channel_of(space, args)
    message = space.messages.find(channel.id, need(args, "ts"))
    if message is None or message.reader is not None:
        raise SlackError("message_not_found")
    if message.author != BOT_USER_ID:
        raise SlackError(refusal)
    return message


@method("chat.postMessage", "chat:write")
def post_message(space: Workspace, args: Args) -> dict[str, Any]:
    """Posts in a channel, a thread or a direct message."""
    channel = _target(space, args)
    content = read_content(args)
    body = by_app(space, content)
    thread_ts = args.get("thread_ts")
    if thread_ts is not None:
        parent = space.messages.find(channel.id, str(thread_ts))
        if parent is None or parent.reader is not None:
            raise SlackError("thread_not_found")
        if flag(args, "reply_broadcast"):
            body["subtype"] = "thread_broadcast"
    message = space.messages.post(channel.id, body, thread_ts=thread_ts)
    return {"channel": channel.id, "ts": message.ts, "message": space.messages.as_api(message, metadata=True)}


@method("chat.update", "chat:write")
def update(space: Workspace, args: Args) -> dict[str, Any]:
    """Edits one of the app's own messages."""
    message = _own(space, args, "cant_update_message")
    content = read_content(args, files=bool(message.body.get("files")))
    if len(content["text"]) > UPDATE_TEXT:
        raise SlackError("msg_too_long")
    if "blocks" not in args and "text" not in args:
        raise SlackError("no_text")
    edit(space, message, content)
    return {
        "channel": message.channel,
        "ts": message.ts,
        "text": message.body["text"],
        "message": space.messages.as_api(message, metadata=True),
    }


@method("chat.delete", "chat:write")
def delete(space: Workspace, args: Args) -> dict[str, Any]:
    """Removes one of the app's own messages."""
    message = _own(space, args, "cant_delete_message")
    space.messages.delete(message)
    return {"channel": message.channel, "ts": message.ts}


@method("chat.postEphemeral", "chat:write")
def post_ephemeral(space: Workspace, args: Args) -> dict[str, Any]:
    """Shows a message to one person."""
    channel = joined_channel(space, args)
    user = need(args, "user")
    if user not in channel.members:
        raise SlackError("user_not_in_channel")
    body = by_app(space, read_content(args))
    message = space.messages.post(channel.id, body, thread_ts=args.get("thread_ts"), reader=user)
    return {"message_ts": message.ts}


@method("chat.getPermalink")
def permalink(space: Workspace, args: Args) -> dict[str, Any]:
    """Gives a link to a message."""
    channel = channel_of(space, args)
    message = space.messages.find(channel.id, need(args, "message_ts"))
    if message is None or message.reader is not None:
        raise SlackError("message_not_found")
    link = f"{space.settings.origin}/archives/{channel.id}/p{message.ts.replace('.', '')}"
    if message.thread_ts:
        link += f"?thread_ts={message.thread_ts}&cid={channel.id}"
    return {"channel": channel.id, "permalink": link}
