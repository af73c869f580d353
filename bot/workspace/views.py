"""Modals and home tabs: each person's stack of open views, and their current home."""

import json
from dataclasses import dataclass
from typing import Any

from .checks import check_view
from .directory import APP_ID, BOT_ID, TEAM_ID
from .errors import SlackError
from .feed import Effect, Feed
from .ids import make_hash, make_id
from .limits import STACK_DEPTH, VIEW_BYTES
from .messages import name_blocks
from .store import Store


@dataclass(slots=True)
class View:
    """One open view and whose it is."""

    user: str
    body: dict[str, Any]

    @property
    def id(self) -> str:
        """Gives the view's id."""
        return str(self.body["id"])


class Views:
    """Keeps the open modals in memory and the home tabs in the store."""

    def __init__(self, store: Store, feed: Feed) -> None:
        self._store = store
        self._feed = feed
        self._stacks: dict[str, list[View]] = {}
        self._homes: dict[str, View] = {user: View(user, body) for user, body in store.all("home")}

    def stack(self, user: str) -> list[View]:
        """Gives a person's open modals, the visible one last."""
        return self._stacks.get(user, [])

    def top(self, user: str) -> View | None:
        """Gives the modal a person looks at."""
        stack = self.stack(user)
        return stack[-1] if stack else None

    def home(self, user: str) -> View | None:
        """Gives a person's home tab."""
        return self._homes.get(user)

    def find(self, view_id: Any = None, external_id: Any = None) -> View | None:
        """Finds an open view or a home tab by either id."""
        every = [*(view for stack in self._stacks.values() for view in stack), *self._homes.values()]
        if view_id:
            return next((view for view in every if view.id == view_id), None)
        return next((view for view in every if external_id and view.body.get("external_id") == external_id), None)

    def open(self, user: str, wanted: Any) -> View:
        """Opens a modal in place of whatever the person had open."""
        body = self._body(wanted, "modal")
        view = View(user, {**body, "root_view_id": body["id"], "previous_view_id": None})
        self._stacks[user] = [view]
        self._tell(user)
        return view

    def push(self, user: str, wanted: Any) -> View:
        """Puts a modal on top of the person's open one."""
        stack = self._stacks.get(user)
        if not stack:
            raise SlackError("not_found")
        if len(stack) >= STACK_DEPTH:
            raise SlackError("push_limit_reached")
        body = self._body(wanted, "modal")
        view = View(user, {**body, "root_view_id": stack[0].id, "previous_view_id": stack[-1].id})
        stack.append(view)
        self._tell(user)
        return view

    def update(self, view: View, wanted: Any, expected_hash: Any = None) -> View:
        """Replaces what a view shows, keeping its identity."""
        if expected_hash and expected_hash != view.body["hash"]:
            raise SlackError("hash_conflict")
        kept: dict[str, Any] = {
            key: view.body[key] for key in ("id", "root_view_id", "previous_view_id") if key in view.body
        }
        view.body = {**self._body(wanted, str(view.body["type"]), but=view), **kept}
        if view.body["type"] == "home":
            self._keep_home(view)
        else:
            self._tell(view.user)
        return view

    def publish(self, user: str, wanted: Any, expected_hash: Any = None) -> View:
        """Sets a person's home tab."""
        current = self._homes.get(user)
        if current is not None:
            return self.update(current, wanted, expected_hash)
        body = self._body(wanted, "home")
        view = View(user, {**body, "root_view_id": body["id"], "previous_view_id": None})
        self._homes[user] = view
        self._keep_home(view)
        return view

    def close(self, view: View, *, everything: bool = False) -> list[View]:
        """Takes the top modal away, or the whole stack; gives what was closed."""
        stack = self._stacks.get(view.user, [])
        closed = list(stack) if everything else [view]
        left = [] if everything else [other for other in stack if other is not view]
        self._stacks[view.user] = left
        self._tell(view.user, counts=False)
        return closed

    def _keep_home(self, view: View) -> None:
        self._store.put("home", view.user, view.body)
        self._feed.publish(Effect("home", {"view": view.body}, frozenset({view.user})))

    def _tell(self, user: str, *, counts: bool = True) -> None:
        body = {"views": [view.body for view in self.stack(user)]}
        self._feed.publish(Effect("views", body, frozenset({user}), counts=counts))

    def examine(self, wanted: Any, kind: str, but: View | None = None) -> None:
        """Refuses a view that breaks a limit or takes another's external id."""
        if len(json.dumps(wanted, default=str)) > VIEW_BYTES:
            raise SlackError("view_too_large")
        problems = check_view(wanted)
        if not problems and wanted["type"] != kind:
            raise SlackError("invalid_arguments", [f"[ERROR] expected a view of type {kind} [json-pointer:/view/type]"])
        if problems:
            raise SlackError("invalid_arguments", [problem.line("/view") for problem in problems])
        name = wanted.get("external_id")
        holder = self.find(external_id=name) if name else None
        if holder is not None and holder is not but:
            raise SlackError("duplicate_external_id")

    def _body(self, wanted: Any, kind: str, but: View | None = None) -> dict[str, Any]:
        self.examine(wanted, kind, but)
        view: dict[str, Any] = json.loads(json.dumps(wanted))
        name_blocks(view["blocks"])
        return {
            "id": make_id("V"),
            "team_id": TEAM_ID,
            "private_metadata": "",
            "callback_id": "",
            "state": {"values": {}},
            "hash": make_hash(),
            "title": {"type": "plain_text", "text": "View Title", "emoji": True},
            "clear_on_close": False,
            "notify_on_close": False,
            "close": None,
            "submit": None,
            "app_id": APP_ID,
            "external_id": "",
            "app_installed_team_id": TEAM_ID,
            "bot_id": BOT_ID,
            **view,
        }
