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
from ..terminal.panes import MOST, PanesFull
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
    with space.panes.watched_by(person.id, pane.change):
        for client in space.panes.clients(person.id):
            pane.change(client, True)
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
    """One page's view of a person's psqls."""

    def __init__(self, space: Workspace, person: Person, socket: web.WebSocketResponse) -> None:
        self._space = space
        self._person = person
        self._socket = socket
        self._shown: dict[int, tuple[Client, Reader, asyncio.Task[None]]] = {}
        self._gone: set[asyncio.Task[None]] = set()
        self._size = 80, 24

    async def obey(self, wish: dict[str, Any]) -> None:
        """Does what the page asks; what is not understood is nothing."""
        size = wish.get("size")
        if isinstance(size, list) and len(size) == 2 and all(type(each) is int for each in size):
            self._size = size[0], size[1]
            for one in self._space.panes.clients(self._person.id):
                one.resize(*self._size)
        client = self._space.panes.client(self._person.id, wish.get("tab"))
        if isinstance(wish.get("open"), dict):
            await self._open(wish["open"])
        elif client is None:
            return
        elif wish.get("forget"):
            await self._space.panes.forget(self._person.id, client)
        elif not client.running:
            return
        elif isinstance(wish.get("send"), str):
            typed = read_typed(wish["send"])
            why = typed.why if isinstance(typed, Refused) else "psql has not yet read what was sent before"
            if isinstance(typed, Refused) or not client.send(typed):
                await self._say({"refused": why, "text": wish["send"], "tab": client.number})
        elif wish.get("interrupt"):
            client.interrupt()

    async def _open(self, wish: dict[str, Any]) -> None:
        panes, directory = self._space.panes, self._space.directory
        channel = directory.channel(wish.get("channel"), self._person.id)
        ts = str(wish.get("ts", ""))
        connection = None
        if channel is not None and self._person.id in channel.members:
            connection = panes.connection(self._person.id, channel, ts)
        if channel is None or connection is None:
            await self._say({"failed": "This message has no line for psql any more."})
            return
        try:
            client = await panes.open(self._person.id, connection, panes.origin(channel, ts), self._size)
        except PanesFull:
            await self._say({"failed": f"{MOST} sessions are open here. Leave one (Ctrl-D in it), then press again."})
        except OSError as error:
            await self._say({"failed": f"psql could not be started: {error}"})
        else:
            await self._say({"show": client.number})

    def change(self, client: Client, there: bool) -> None:
        """Shows a psql in this page from now on, with what it has said before; or takes it away."""
        if there:
            reader = client.attach()
            self._shown[client.number] = client, reader, asyncio.create_task(self._send(client, reader))
            return
        self._leave(client.number)
        gone = asyncio.create_task(self._say({"gone": client.number}))
        self._gone.add(gone)
        gone.add_done_callback(self._gone.discard)

    def leave(self) -> None:
        """Shows nothing more here; every psql goes on."""
        for number in list(self._shown):
            self._leave(number)

    def _leave(self, number: int) -> None:
        client, reader, sender = self._shown.pop(number)
        client.detach(reader)
        sender.cancel()

    async def _send(self, client: Client, reader: Reader) -> None:
        with suppress(ConnectionError):
            name = client.origin.name or client.label
            await self._socket.send_json({"opened": client.number, "label": client.label, "name": name})
            while True:
                for frame in await reader.take():
                    await self._socket.send_json({**frame, "tab": client.number})
                await asyncio.sleep(_PAUSE)

    async def _say(self, frame: dict[str, Any]) -> None:
        with suppress(ConnectionError):
            await self._socket.send_json(frame)
