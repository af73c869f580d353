"""Reads what the page or a script asks for, and words the answers."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from ..api.serve import WORKSPACE
from ..directory import Channel, Person
from ..workspace import Workspace

Wish = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Refused(Exception):
    """A wish that a client would not have let anyone have; `more` is merged into the answer."""

    def __init__(self, name: str, **more: Any) -> None:
        super().__init__(name)
        self.name = name
        self.more = more


def posted(run: Callable[[Workspace, Wish], Awaitable[dict[str, Any]]]) -> Handler:
    """Wraps a function of a JSON body as a request handler."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.content_type != "application/json":
            return _no("json_content_type_required", 415)
        try:
            wish = json.loads(await request.text())
        except (ValueError, RecursionError):
            return _no("invalid_json", 400)
        if not isinstance(wish, dict):
            return _no("invalid_json", 400)
        return await _answer(lambda: run(request.app[WORKSPACE], wish))

    return handle


def read(run: Callable[[Workspace, Wish], Awaitable[dict[str, Any]]]) -> Handler:
    """Wraps a function of the query as a request handler."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await _answer(lambda: run(request.app[WORKSPACE], dict(request.query)))

    return handle


async def _answer(run: Callable[[], Awaitable[dict[str, Any]]]) -> web.StreamResponse:
    try:
        return web.json_response(await run())
    except Refused as refusal:
        body = {"ok": False, "error": refusal.name, "messages": [], "view": None, **refusal.more}
        return web.json_response(body)


def _no(name: str, status: int) -> web.Response:
    return web.json_response({"ok": False, "error": name, "messages": [], "view": None}, status=status)


def person_in(space: Workspace, wish: Wish, key: str = "user") -> Person:
    """Finds who acts or looks."""
    person = space.directory.person(wish.get(key))
    if person is None:
        raise Refused("user_not_found")
    return person


def active_person_in(space: Workspace, wish: Wish) -> Person:
    """Finds who acts; someone deactivated cannot."""
    person = person_in(space, wish)
    if person.deleted:
        raise Refused("account_inactive")
    return person


def channel_in(space: Workspace, wish: Wish, person: Person) -> Channel:
    """Finds a channel that this person is in."""
    channel = space.directory.channel(wish.get("channel"), person.id)
    if channel is None or person.id not in channel.members:
        raise Refused("channel_not_found")
    return channel


def text_in(wish: Wish, key: str = "text") -> str:
    """Gives a text that is there and not blank."""
    text = wish.get(key)
    if not isinstance(text, str) or not text.strip():
        raise Refused("no_text")
    return text
