"""Live updates for the page: what one person sees, as it happens."""

import asyncio
import json

from aiohttp import WSMsgType, web

from ..api.serve import WORKSPACE
from ..directory import Person
from ..feed import Effect
from ..workspace import Workspace


class Eyes:
    """Queues what a person sees until it is sent."""

    def __init__(self, user: str) -> None:
        self.user = user
        self.queue: asyncio.Queue[Effect] = asyncio.Queue()

    def see(self, effect: Effect) -> None:
        """Queues a change."""
        self.queue.put_nowait(effect)


async def live(request: web.Request) -> web.StreamResponse:
    """Runs one page's connection."""
    space = request.app[WORKSPACE]
    person = space.directory.person(request.query.get("as"))
    if person is None:
        raise web.HTTPNotFound(text="no such user")
    socket = web.WebSocketResponse(heartbeat=20)
    await socket.prepare(request)
    space.pages.add(socket)
    with space.feed.watched_by(Eyes(person.id)) as eyes:
        sender = asyncio.create_task(_send(socket, eyes))
        try:
            async for frame in socket:
                if frame.type is not WSMsgType.TEXT:
                    break
                _look(space, person, frame.data)
        finally:
            space.pages.discard(socket)
            sender.cancel()
    return socket


def _look(space: Workspace, person: Person, text: str) -> None:
    """Takes note of where someone looks, as their page says; anything else is nothing."""
    try:
        where = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(where, dict):
        channel = space.directory.channel(where.get("channel"), person.id)
        if channel is not None and person.id in channel.members:
            space.note("looked", person.id, channel, str(where.get("at", "")))


async def _send(socket: web.WebSocketResponse, eyes: Eyes) -> None:
    while True:
        effect = await eyes.queue.get()
        try:
            await socket.send_json({"kind": effect.kind, "body": effect.body})
        except ConnectionError:
            return
