"""views.*"""

from typing import Any

from ..content import read_json
from ..errors import SlackError
from ..workspace import Workspace
from .table import Args, method


def _view(args: Args) -> Any:
    view = read_json(args.get("view"), "invalid_arguments")
    if view is None:
        raise SlackError("invalid_arguments", ["[ERROR] missing required field: view"])
    return view


def _exchange(space: Workspace, args: Args) -> tuple[Any, str]:
    """Spends the trigger, but only for a view that can be shown."""
    view = _view(args)
    space.views.examine(view, "modal")
    return view, space.triggers.exchange(args.get("trigger_id") or args.get("interactivity_pointer"))


@method("views.open")
def open_view(space: Workspace, args: Args) -> dict[str, Any]:
    """Opens a modal for the person behind a trigger."""
    view, user = _exchange(space, args)
    return {"view": space.views.open(user, view).body}


@method("views.push")
def push(space: Workspace, args: Args) -> dict[str, Any]:
    """Puts a modal on top of the open one."""
    view, user = _exchange(space, args)
    return {"view": space.views.push(user, view).body}


@method("views.update")
def update(space: Workspace, args: Args) -> dict[str, Any]:
    """Replaces an open view."""
    view = space.views.find(args.get("view_id"), args.get("external_id"))
    if view is None:
        raise SlackError("not_found")
    return {"view": space.views.update(view, _view(args), args.get("hash")).body}


@method("views.publish")
def publish(space: Workspace, args: Args) -> dict[str, Any]:
    """Sets a person's home tab."""
    if not space.manifest.home_tab:
        raise SlackError("not_enabled")
    person = space.directory.people.get(str(args.get("user_id", "")))
    if person is None:
        raise SlackError("invalid_arguments", ["[ERROR] invalid user_id"])
    return {"view": space.views.publish(person.id, _view(args), args.get("hash")).body}
