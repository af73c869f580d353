"""usergroups.*"""

from typing import Any

from ..directory import TEAM_ID, Group
from ..errors import SlackError
from ..workspace import Workspace
from .table import Args, flag, method


def group_object(group: Group, *, users: bool) -> dict[str, Any]:
    """Builds a user group as `usergroups.list` gives it."""
    body: dict[str, Any] = {
        "id": group.id,
        "team_id": TEAM_ID,
        "is_usergroup": True,
        "is_external": False,
        "name": group.name,
        "description": group.name,
        "handle": group.handle,
        "date_create": 1_700_000_000,
        "date_update": 1_700_000_000,
        "date_delete": 0,
        "auto_type": None,
        "prefs": {"channels": [], "groups": []},
        "user_count": len(group.users),
    }
    if users:
        body["users"] = list(group.users)
    return body


@method("usergroups.list", "usergroups:read")
def list_all(space: Workspace, args: Args) -> dict[str, Any]:
    """Lists the user groups."""
    users = flag(args, "include_users")
    return {"usergroups": [group_object(group, users=users) for group in space.directory.groups.values()]}


@method("usergroups.users.list", "usergroups:read")
def list_users(space: Workspace, args: Args) -> dict[str, Any]:
    """Lists who is in a user group."""
    group = space.directory.groups.get(str(args.get("usergroup", "")))
    if group is None:
        raise SlackError("no_such_subteam")
    return {"users": [user for user in group.users if not space.directory.people[user].deleted]}
