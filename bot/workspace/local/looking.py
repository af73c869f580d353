"""What people see: messages, views, channels, each other, files."""

from typing import Any

from aiohttp import web

from ..api.serve import WORKSPACE
from ..directory import BOT_USER_ID, TEAM_NAME, Channel, Person
from ..workspace import Workspace
from .wire import Wish, channel_in, person_in


async def messages(space: Workspace, wish: Wish) -> dict[str, Any]:
    """Gives a channel or a thread as one person sees it."""
    person = person_in(space, wish, "as")
    channel = channel_in(space, wish, person)
    found = space.messages.visible(person.id, channel.id, wish.get("thread_ts"), str(wish.get("since", "")))
    limit = str(wish.get("limit", ""))
    if limit.isascii() and limit.isdigit() and int(limit):
        found = found[-int(limit) :]
    return {"ok": True, "messages": [space.messages.shown(message, person.id) for message in found]}


async def views(space: Workspace, wish: Wish) -> dict[str, Any]:
    """Gives a person's open modals, the visible one last, and their home tab."""
    person = person_in(space, wish, "as")
    home = space.views.home(person.id)
    return {
        "ok": True,
        "views": [view.body for view in space.views.stack(person.id)],
        "home": home.body if home else None,
    }


async def users(space: Workspace, wish: Wish) -> dict[str, Any]:
    """Lists the people who can be played."""
    return {"ok": True, "users": [shown_person(person) for person in space.directory.people.values()]}


def shown_person(person: Person) -> dict[str, Any]:
    """Gives a person as the page shows them."""
    return {
        "id": person.id,
        "handle": person.handle,
        "name": person.name,
        "title": person.title,
        "team_id": person.team_id,
        "is_restricted": person.restricted,
        "is_stranger": person.stranger,
        "deleted": person.deleted,
    }


async def channels(space: Workspace, wish: Wish) -> dict[str, Any]:
    """Lists the channels, for one person only theirs, with what they have not read."""
    if not wish.get("as"):
        named = [channel for channel in space.directory.channels.values() if channel.person is None]
        return {"ok": True, "channels": [_shown_channel(channel) for channel in named]}
    person = person_in(space, wish, "as")
    shown = [
        {**_shown_channel(channel), "unread": space.reads.unread(person.id, channel.id)}
        for channel in space.directory.visible(person.id)
    ]
    return {"ok": True, "channels": shown}


def _shown_channel(channel: Channel) -> dict[str, Any]:
    return {
        "id": channel.id,
        "name": channel.name,
        "purpose": channel.purpose,
        "shared": channel.shared,
        "direct": channel.person is not None,
        "members": sorted(channel.members),
        "has_app": BOT_USER_ID in channel.members,
    }


async def overview(space: Workspace, wish: Wish) -> dict[str, Any]:
    """Gives what the page needs to start: the app, the people, the guide."""
    manifest = space.manifest
    return {
        "ok": True,
        "team": TEAM_NAME,
        "app": {
            "name": manifest.name,
            "description": manifest.description,
            "user": BOT_USER_ID,
            "display_name": manifest.bot_name,
            "handle": manifest.handle,
            "home_tab": manifest.home_tab,
            "connected": space.connected,
            "sockets": space.sockets.count,
            "commands": [
                {"command": c.name, "description": c.description, "usage_hint": c.usage_hint}
                for c in manifest.commands.values()
            ],
            "shortcuts": [
                {"name": s.name, "type": s.kind, "callback_id": s.callback_id, "description": s.description}
                for s in manifest.shortcuts
            ],
        },
        "users": [shown_person(person) for person in space.directory.people.values()],
        "groups": [{"id": g.id, "handle": g.handle, "users": list(g.users)} for g in space.directory.groups.values()],
        "guide": {**space.settings.guide, "done": space.progress.done},
        "terminal": {"token": space.panes.token, "psql": space.panes.psql is not None},
    }


async def file(request: web.Request) -> web.StreamResponse:
    """Gives a file's bytes to someone who sees a channel it was shared in, or to the app."""
    space = request.app[WORKSPACE]
    record = space.files.record(request.match_info["file"])
    if record is None or record["name"] != request.match_info["name"] or not _may_read(space, request, record):
        raise web.HTTPNotFound(text="no such file")
    if request.query.get("opened") or request.query.get("download"):
        space.note("read", _reader(space, request), None, record["name"])
    shown = space.files.as_api(record, space.settings.origin)
    text = str(shown["mimetype"]).startswith("text/plain")
    picture = shown["mimetype"] in ("image/png", "image/jpeg", "image/gif")
    kind = "text/plain; charset=utf-8" if text else shown["mimetype"] if picture else "application/octet-stream"
    headers = {
        "Content-Type": kind,
        "Content-Disposition": "inline" if (text or picture) and not request.query.get("download") else "attachment",
    }
    return web.Response(body=space.files.content(record["id"]), headers=headers)


def _may_read(space: Workspace, request: web.Request, record: dict[str, Any]) -> bool:
    if request.headers.get("Authorization") == f"Bearer {space.bot_token}":
        return True
    person = space.directory.person(_reader(space, request))
    return person is not None and any(
        person.id in space.directory.channels[channel].members for channel in record["channels"]
    )


def _reader(space: Workspace, request: web.Request) -> str:
    """Names who reads a file: a message's URL does already, a script may add another, and the last one counts."""
    person = space.directory.person(request.query.getall("as", [""])[-1].rpartition("?as=")[2])
    return person.id if person else ""
