"""users.*"""

from typing import Any

from ..directory import BOT_USER_ID
from ..errors import SlackError
from ..payloads import bot_object, user_object
from ..workspace import Workspace
from .table import Args, method, need, page, person_of


def _sees_email(space: Workspace) -> bool:
    return space.manifest.scopes is None or "users:read.email" in space.manifest.scopes


@method("users.info", "users:read")
def info(space: Workspace, args: Args) -> dict[str, Any]:
    """Describes one person, or the app itself."""
    if args.get("user") == BOT_USER_ID:
        return {"user": bot_object(space.directory, space.manifest.bot_name)}
    return {"user": user_object(person_of(space, args), email=_sees_email(space))}


@method("users.list", "users:read")
def list_all(space: Workspace, args: Args) -> dict[str, Any]:
    """Lists everybody."""
    members = [user_object(person, email=_sees_email(space)) for person in space.directory.people.values()]
    members.append(bot_object(space.directory, space.manifest.bot_name))
    chosen, cursor = page(members, args)
    return {"members": chosen, "cache_ts": 1_700_000_000, "response_metadata": {"next_cursor": cursor}}


@method("users.lookupByEmail", "users:read.email")
def lookup_by_email(space: Workspace, args: Args) -> dict[str, Any]:
    """Finds an active person by address."""
    wanted = need(args, "email").strip().lower()
    for person in space.directory.people.values():
        body = user_object(person)
        if body["profile"].get("email") == wanted and not person.deleted:
            return {"user": body}
    raise SlackError("users_not_found")
