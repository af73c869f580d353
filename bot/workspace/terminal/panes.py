"""Who has which psql: a few for each person, each opened from a message that the app sent to them alone."""

import hmac
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..directory import BOT_USER_ID, Channel
from ..messages import Message, Messages
from .client import Client
from .ticket import Connection, Origin, connection_in, name_in

Heard = Callable[[str, str, str], None]
Changed = Callable[[Client, bool], None]
MOST = 4
"""How many psql one person has open at once."""


class PanesFull(Exception):
    """as many psql are open as one person may have"""


class Panes:
    """The terminal panes of everybody; the token is new with every start."""

    def __init__(self, psql: Path | None, messages: Messages, heard: Heard) -> None:
        self.psql = psql
        self.token = secrets.token_urlsafe(24)
        self._messages = messages
        self._heard = heard
        self._clients: dict[str, dict[int, Client]] = {}
        self._watching: dict[str, list[Changed]] = {}
        self._count = 0

    def admits(self, token: str) -> bool:
        """Says whether a page shows the token of this start."""
        return hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode())

    def clients(self, user: str) -> list[Client]:
        """Gives a person's psqls, running or ended, the oldest first."""
        return list(self._clients.get(user, {}).values())

    def client(self, user: str, number: object = None) -> Client | None:
        """Gives the psql of that number, or without one the newest."""
        mine = self._clients.get(user, {})
        if number is None:
            return next(reversed(mine.values()), None)
        return mine.get(number) if isinstance(number, int) else None

    @contextmanager
    def watched_by(self, user: str, changed: Changed) -> Iterator[None]:
        """Tells of every psql that comes (True) or goes (False)."""
        watching = self._watching.setdefault(user, [])
        watching.append(changed)
        try:
            yield
        finally:
            watching.remove(changed)

    def connection(self, user: str, channel: Channel, ts: str) -> Connection | None:
        """Gives the connection in a message from the app that nobody but this person sees."""
        message = self._messages.find(channel.id, ts)
        if message is None or message.author != BOT_USER_ID or not _to_them_alone(message, user, channel):
            return None
        return connection_in(message.body.get("blocks"), str(message.body.get("text", "")))

    def origin(self, channel: Channel, ts: str) -> Origin:
        """Gives what a message says of itself, for whoever opens its line."""
        message = self._messages.find(channel.id, ts)
        body = message.body if message is not None else {}
        return Origin(channel.id, ts, str(body.get("text", "")), name_in(body.get("blocks")))

    async def open(self, user: str, connection: Connection, origin: Origin, size: tuple[int, int]) -> Client:
        """Gives the psql of a message's line, started if there is none that is connected; raises OSError, PanesFull."""
        if self.psql is None:
            raise FileNotFoundError("there is no psql")
        mine = self._clients.setdefault(user, {})
        same = [one for one in mine.values() if (one.origin.channel, one.origin.ts) == (origin.channel, origin.ts)]
        if alive := [one for one in same if one.connected]:
            return alive[0]
        over = [one for one in mine.values() if not one.connected and one not in same]
        # What has ended gives way, the oldest first; a session that lives is never ended for another.
        for old in [*same, *over[: max(len(mine) - len(same) - MOST + 1, 0)]]:
            await self._drop(user, old)
        if len(mine) >= MOST:
            raise PanesFull
        self._count += 1
        client = Client(self._count, connection, lambda what, text: self._heard(user, what, text), origin)
        client.start(self.psql, *size)
        mine[client.number] = client
        self._tell(user, client, True)
        return client

    async def forget(self, user: str, client: Client) -> None:
        """Takes away a psql that has ended, or is connected to nothing any more; one that lives stays."""
        if not client.connected:
            await self._drop(user, client)

    async def close(self) -> None:
        """Ends them all."""
        for mine in self._clients.values():
            for client in list(mine.values()):
                await client.close()

    async def _drop(self, user: str, client: Client) -> None:
        if self._clients[user].pop(client.number, None) is not None:
            self._tell(user, client, False)
            await client.close()

    def _tell(self, user: str, client: Client, there: bool) -> None:
        for changed in list(self._watching.get(user, [])):
            changed(client, there)


def _to_them_alone(message: Message, user: str, channel: Channel) -> bool:
    return user == (message.reader if message.reader is not None else channel.person)
