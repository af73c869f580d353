"""The terminal pane's connection: lines in, text out."""

import asyncio
import json
from contextlib import suppress
from typing import Any

from aiohttp import WSMsgType, web

from ..api.serve import WORKSPACE
from ..directory import Person
from ..terminal.client import Client, Reader
from ..terminal.lines import Refused, read_typed
from ..workspace import Workspace

_PAUSE = 0.015


async def terminal(request: web.Request) -> web.StreamResponse:
    """Runs one page's pane; only our own page, with this start's token, gets one."""
    space = request.app[WORKSPACE]
    # A browser always says where a WebSocket comes from, and `guard` has compared it: what says nothing is no page.
    if "Origin" not in request.headers or not space.panes.admits(request.query.get("token", "")):
        raise web.HTTPForbidden(text="not our page")
    person = space.directory.person(request.query.get("as"))
    if person is None or person.deleted:
        raise web.HTTPNotFound(text="no such user")
    socket = web.WebSocketResponse(heartbeat=20, max_msg_size=512 * 1024)
    await socket.prepare(request)
    space.pages.add(socket)
    pane = Pane(space, person, socket)
    pane.follow(space.panes.client(person.id))
    try:
        async for frame in socket:
            if frame.type is not WSMsgType.TEXT:
                break
            await pane.obey(_wish(frame.data))
    finally:
        space.pages.discard(socket)
        pane.leave()
    return socket


def _wish(text: str) -> dict[str, Any]:
    try:
        wish = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return wish if isinstance(wish, dict) else {}


class Pane:
    """One page's view of a person's psql."""

    def __init__(self, space: Workspace, person: Person, socket: web.WebSocketResponse) -> None:
        self._space = space
        self._person = person
        self._socket = socket
        self._client: Client | None = None
        self._reader: Reader | None = None
        self._sender: asyncio.Task[None] | None = None
        self._columns, self._rows = 80, 24

    async def obey(self, wish: dict[str, Any]) -> None:
        """Does what the page asks; what is not understood is nothing."""
        latest = self._space.panes.client(self._person.id)
        if latest is not self._client:  # another page of the same person has opened a new one
            self.follow(latest)
        client = self._client
        size = wish.get("size")
        if isinstance(size, list) and len(size) == 2 and all(type(each) is int for each in size):
            self._columns, self._rows = size
            if client is not None:
                client.resize(self._columns, self._rows)
        if isinstance(wish.get("open"), dict):
            await self._open(wish["open"])
        elif client is None or not client.running:
            return
        elif isinstance(wish.get("send"), str):
            typed = read_typed(wish["send"])
            if isinstance(typed, Refused):
                await self._say({"refused": typed.why, "text": wish["send"]})
            elif not client.send(typed):
                await self._say({"refused": "psql has not yet read what was sent before", "text": wish["send"]})
        elif wish.get("interrupt"):
            client.interrupt()

    async def _open(self, wish: dict[str, Any]) -> None:
        panes, directory = self._space.panes, self._space.directory
        channel = directory.channel(wish.get("channel"), self._person.id)
        connection = None
        if channel is not None and self._person.id in channel.members:
            connection = panes.connection(self._person.id, channel, str(wish.get("ts", "")))
        if channel is None or connection is None:
            await self._say({"failed": "This message has no line for psql any more."})
            return
        try:
            about = panes.about(channel, str(wish.get("ts", "")))
            client = await panes.open(self._person.id, connection, self._columns, self._rows, about)
        except OSError as error:
            await self._say({"failed": f"psql could not be started: {error}"})
            return
        self.follow(client)

    def follow(self, client: Client | None) -> None:
        """Shows a psql in this page from now on, with what it has said before."""
        self.leave()
        if client is None:
            return
        self._client = client
        self._reader = client.attach()
        self._sender = asyncio.create_task(self._send(client, self._reader))

    def leave(self) -> None:
        """Shows nothing more here; psql goes on."""
        if self._client is not None and self._reader is not None:
            self._client.detach(self._reader)
        if self._sender is not None:
            self._sender.cancel()
        self._client = self._reader = self._sender = None

    async def _send(self, client: Client, reader: Reader) -> None:
        with suppress(ConnectionError):
            await self._socket.send_json({"opened": client.number, "label": client.label})
            while True:
                for frame in await reader.take():
                    await self._socket.send_json(frame)
                await asyncio.sleep(_PAUSE)

    async def _say(self, frame: dict[str, Any]) -> None:
        with suppress(ConnectionError):
            await self._socket.send_json(frame)
