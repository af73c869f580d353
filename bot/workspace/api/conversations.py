"""conversations.*, users.conversations"""

from typing import Any

from ..directory import BOT_USER_ID, TEAM_ID, Channel, direct_channel_id
from ..errors import SlackError
from ..ids import micros
from ..messages import Message
from ..workspace import Workspace
from .table import Args, channel_of, flag, joined_channel, method, need, page

_READ = ("channels:read", "groups:read", "im:read", "mpim:read")
_HISTORY = ("channels:history", "groups:history", "im:history", "mpim:history")


def channel_object(channel: Channel, *, members: bool = False) -> dict[str, Any]:
    """Builds a channel as `conversations.info` gives it."""
    if channel.person is not None:
        return {
            "id": channel.id,
            "created": 1_700_000_000,
            "is_im": True,
            "is_archived": False,
            "is_org_shared": False,
            "context_team_id": TEAM_ID,
            "user": channel.person,
            "is_user_deleted": False,
            "is_open": True,
        }
    body: dict[str, Any] = {
        "id": channel.id,
        "name": channel.name,
        "name_normalized": channel.name,
        "is_channel": True,
        "is_group": False,
        "is_im": False,
        "is_mpim": False,
        "is_private": False,
        "is_archived": False,
        "is_general": channel.name == "general",
        "is_shared": channel.shared,
        "is_ext_shared": channel.shared,
        "is_org_shared": False,
        "is_pending_ext_shared": False,
        "pending_shared": [],
        "is_member": BOT_USER_ID in channel.members,
        "created": 1_700_000_000,
        "creator": "U0ERIN0001",
        "context_team_id": TEAM_ID,
        "topic": {"value": "", "creator": "", "last_set": 0},
        "purpose": {"value": channel.purpose, "creator": "", "last_set": 0},
        "previous_names": [],
    }
    if channel.shared:
        body["shared_team_ids"] = [TEAM_ID, "T0PARTNER1"]
    if members:
        body["num_members"] = len(channel.members)
    return body


@method("conversations.info", *_READ)
def info(space: Workspace, args: Args) -> dict[str, Any]:
    """Describes a channel."""
    return {"channel": channel_object(channel_of(space, args), members=flag(args, "include_num_members"))}


def _listed(args: Args, channels: list[Channel]) -> dict[str, Any]:
    kinds = str(args.get("types") or "public_channel").replace(" ", "").split(",")
    wanted = [c for c in channels if ("im" if c.person else "public_channel") in kinds]
    chosen, cursor = page(wanted, args)
    bodies = [channel_object(channel, members=True) for channel in chosen]
    return {"channels": bodies, "response_metadata": {"next_cursor": cursor}}


@method("conversations.list", *_READ)
def list_all(space: Workspace, args: Args) -> dict[str, Any]:
    """Lists the channels."""
    return _listed(args, list(space.directory.channels.values()))


@method("users.conversations", *_READ)
def list_joined(space: Workspace, args: Args) -> dict[str, Any]:
    """Lists the channels that a person, or the app, is in."""
    user = str(args.get("user") or BOT_USER_ID)
    return _listed(args, space.directory.visible(user))


@method("conversations.members", *_READ)
def members(space: Workspace, args: Args) -> dict[str, Any]:
    """Lists who is in a channel."""
    chosen, cursor = page(sorted(channel_of(space, args).members), args)
    return {"members": chosen, "response_metadata": {"next_cursor": cursor}}


@method("conversations.open", "im:write", "mpim:write", "channels:manage", "groups:write")
def open_direct(space: Workspace, args: Args) -> dict[str, Any]:
    """Opens the direct message with one person."""
    if args.get("channel"):
        return {"channel": {"id": channel_of(space, args).id}, "already_open": True, "no_op": True}
    users = args.get("users")
    names = users if isinstance(users, list) else [name for name in str(users or "").split(",") if name]
    if len(names) != 1:
        raise SlackError("users_list_not_supplied" if not names else "invalid_arguments")
    person = space.directory.people.get(str(names[0]))
    if person is None:
        raise SlackError("user_not_found")
    if person.deleted:
        raise SlackError("user_disabled")
    channel = space.directory.channels[direct_channel_id(person.id)]
    return {"channel": channel_object(channel) if flag(args, "return_im") else {"id": channel.id}}


def _window(space: Workspace, args: Args, messages: list[Message]) -> dict[str, Any]:
    oldest, latest = str(args.get("oldest") or "0"), str(args.get("latest") or "")
    inclusive = flag(args, "inclusive")

    def inside(message: Message) -> bool:
        at = micros(message.ts)
        if inclusive:
            return micros(oldest) <= at and (not latest or at <= micros(latest))
        return micros(oldest) < at and (not latest or at < micros(latest))

    chosen, cursor = page([m for m in messages if m.reader is None and inside(m)], args)
    metadata = flag(args, "include_all_metadata")
    return {
        "messages": [space.messages.as_api(message, metadata=metadata) for message in chosen],
        "has_more": bool(cursor),
        "response_metadata": {"next_cursor": cursor},
    }


@method("conversations.history", *_HISTORY)
def history(space: Workspace, args: Args) -> dict[str, Any]:
    """Gives a channel's messages, newest first."""
    channel = joined_channel(space, args)
    return _window(space, args, list(space.messages.in_channel(channel.id))[::-1])


@method("conversations.replies", *_HISTORY)
def replies(space: Workspace, args: Args) -> dict[str, Any]:
    """Gives a thread, its parent first."""
    channel = joined_channel(space, args)
    parent = space.messages.find(channel.id, need(args, "ts"))
    if parent is None or parent.reader is not None:
        raise SlackError("thread_not_found")
    if parent.thread_ts is not None:
        parent = space.messages.find(channel.id, parent.thread_ts) or parent
    return _window(space, args, [parent, *space.messages.replies(channel.id, parent.ts)])
