"""What whoever runs the workspace may do: inspect payloads, arm faults, change people and groups."""

from typing import Any

from ..api.groups import group_object
from ..directory import TEAM_ID
from ..faults import UnknownFault
from ..payloads import user_object
from ..workspace import Workspace
from .looking import shown_person
from .wire import Refused, Wish, person_in


async def journal(space: Workspace, wish: Wish) -> dict[str, Any]:
    """Gives the payloads after a number."""
    since = str(wish.get("since", "0") or "0")
    if not since.isascii() or not since.isdigit():
        raise Refused("invalid_arguments")
    return {"ok": True, "entries": space.journal.since(int(since))}


async def faults(space: Workspace, wish: Wish) -> dict[str, Any]:
    """Says what is armed."""
    return {"ok": True, "faults": space.faults.armed()}


async def arm(space: Workspace, wish: Wish) -> dict[str, Any]:
    """Arms a fault, drops, silences or renews the sockets, or with `clear` disarms everything."""
    done: dict[str, Any] = {}
    if wish.get("clear"):
        space.faults.clear()
    elif wish.get("drop_socket"):
        done["sockets"] = space.sockets.drop()
    elif "silent_socket" in wish:
        if wish["silent_socket"] not in ("deaf", "dead"):
            raise Refused("invalid_arguments", message="`silent_socket` is deaf or dead")
        done["sockets"] = space.sockets.silence(pings=wish["silent_socket"] == "deaf")
    elif wish.get("disconnect"):
        done["sockets"] = await space.sockets.disconnect()
    else:
        try:
            space.faults.add(wish)
        except UnknownFault as error:
            raise Refused("invalid_arguments", message=str(error)) from error
    return {"ok": True, "error": None, "faults": space.faults.armed(), **done}


async def change_guide(space: Workspace, wish: Wish) -> dict[str, Any]:
    """Counts a step of the guide as done, or with `start_over` none."""
    if wish.get("start_over"):
        space.progress.start_over()
    else:
        space.progress.finish(str(wish.get("done", "")))
    return {"ok": True, "error": None, "done": space.progress.done}


async def change_person(space: Workspace, wish: Wish) -> dict[str, Any]:
    """Deactivates someone, makes them a guest, or takes that back; the app hears `user_change`."""
    person = person_in(space, wish)
    deleted, restricted = wish.get("deleted", person.deleted), wish.get("restricted", person.restricted)
    if not isinstance(deleted, bool) or not isinstance(restricted, bool):
        raise Refused("invalid_arguments")
    person = space.directory.change_person(person.id, deleted=deleted, restricted=restricted)
    event = {"type": "user_change", "user": user_object(person), "cache_ts": 0, "event_ts": space.timestamps.next()}
    await space.deliveries.event("user_change", event)
    return {"ok": True, "error": None, "user": shown_person(person)}


async def change_group(space: Workspace, wish: Wish) -> dict[str, Any]:
    """Sets who is in a user group; the app hears `subteam_members_changed`."""
    group = space.directory.group(wish.get("group"))
    users = wish.get("users")
    if group is None or not isinstance(users, list):
        raise Refused("group_not_found" if group is None else "invalid_arguments")
    people = [person_in(space, {"user": name}).id for name in users]
    before = set(group.users)
    group = space.directory.change_group(group.id, people)
    event = {
        "type": "subteam_members_changed",
        "subteam_id": group.id,
        "team_id": TEAM_ID,
        "added_users": sorted(set(people) - before),
        "removed_users": sorted(before - set(people)),
        "event_ts": space.timestamps.next(),
    }
    await space.deliveries.event("subteam_members_changed", event)
    return {"ok": True, "error": None, "group": group_object(group, users=True)}
