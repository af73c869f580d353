"""Who has which psql: one for each person, opened from a message that the app sent to them alone."""

import hmac
import secrets
from collections.abc import Callable
from pathlib import Path

from ..directory import BOT_USER_ID, Channel
from ..messages import Message, Messages
from .client import Client
from .ticket import Connection, connection_in

Heard = Callable[[str, str, str], None]


class Panes:
    """The terminal panes of everybody; the token is new with every start."""

    def __init__(self, psql: Path | None, messages: Messages, heard: Heard) -> None:
        self.psql = psql
        self.token = secrets.token_urlsafe(24)
        self._messages = messages
        self._heard = heard
        self._clients: dict[str, Client] = {}
        self._count = 0

    def admits(self, token: str) -> bool:
        """Says whether a page shows the token of this start."""
        return hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode())

    def client(self, user: str) -> Client | None:
        """Gives a person's psql, running or ended."""
        return self._clients.get(user)

    def connection(self, user: str, channel: Channel, ts: str) -> Connection | None:
        """Gives the connection in a message from the app that nobody but this person sees."""
        message = self._messages.find(channel.id, ts)
        if message is None or message.author != BOT_USER_ID or not _to_them_alone(message, user, channel):
            return None
        return connection_in(message.body.get("blocks"), str(message.body.get("text", "")))

    def about(self, channel: Channel, ts: str) -> str:
        """Gives the sentence that a message begins with."""
        message = self._messages.find(channel.id, ts)
        return str(message.body.get("text", "")) if message is not None else ""

    async def open(self, user: str, connection: Connection, columns: int, rows: int, about: str) -> Client:
        """Starts a person's psql, ending the one they had; raises OSError."""
        if self.psql is None:
            raise FileNotFoundError("there is no psql")
        before = self._clients.pop(user, None)
        if before is not None:
            await before.close()
        self._count += 1
        client = Client(self._count, connection, lambda what, text: self._heard(user, what, text), about)
        client.start(self.psql, columns, rows)
        self._clients[user] = client
        return client

    async def close(self) -> None:
        """Ends them all."""
        for client in list(self._clients.values()):
            await client.close()


def _to_them_alone(message: Message, user: str, channel: Channel) -> bool:
    return user == (message.reader if message.reader is not None else channel.person)
