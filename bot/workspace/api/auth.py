"""auth.*, apps.*"""

from typing import Any

from ..directory import APP_ID, BOT_ID, BOT_USER_ID, TEAM_ID, TEAM_NAME
from ..workspace import Workspace
from .table import Args, method


@method("auth.test")
def test(space: Workspace, args: Args) -> dict[str, Any]:
    """Says whose token it is."""
    return {
        "url": f"{space.settings.origin}/",
        "team": TEAM_NAME,
        "user": space.directory.bot_handle,
        "team_id": TEAM_ID,
        "user_id": BOT_USER_ID,
        "bot_id": BOT_ID,
        "app_id": APP_ID,
        "is_enterprise_install": False,
    }


@method("api.test", bearer="none")
def api_test(space: Workspace, args: Args) -> dict[str, Any]:
    """Answers."""
    return {"args": {key: value for key, value in args.items() if key != "token"}}


@method("apps.connections.open", bearer="app")
def connections_open(space: Workspace, args: Args) -> dict[str, Any]:
    """Gives the address of a new socket."""
    address = space.settings.origin.replace("http://", "ws://", 1)
    return {"url": f"{address}/socket?ticket={space.sockets.ticket()}"}


@method("team.info", "team:read")
def team_info(space: Workspace, args: Args) -> dict[str, Any]:
    """Describes the workspace."""
    return {"team": {"id": TEAM_ID, "name": TEAM_NAME, "domain": "local", "email_domain": "example.test"}}
