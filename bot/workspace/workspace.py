"""The workspace as one object: its parts, and the secrets it hands to the app."""

import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from .deliveries import Deliveries
from .directory import APP_ID, BOT_USER_ID, TEAM_ID, Channel, Directory
from .faults import Faults
from .feed import Effect, Feed
from .files import Files
from .handles import ResponseUrls, Triggers
from .hooks import Hooks
from .ids import Timestamps
from .journal import Journal
from .manifest import Manifest
from .messages import Messages
from .progress import Progress, all_text
from .reads import Reads
from .sockets import Sockets
from .store import Store
from .terminal.panes import Panes
from .views import Views


@dataclass(frozen=True, slots=True)
class Settings:
    """How this workspace was started."""

    state: Path
    port: int
    manifest: Manifest
    guide: dict[str, Any] = field(default_factory=dict)
    psql: Path | None = None

    @property
    def origin(self) -> str:
        """Gives the address everything is served from."""
        return f"http://127.0.0.1:{self.port}"


class Workspace:
    """Holds every part; nothing here talks to the network but `sockets`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.manifest = settings.manifest
        self.state = settings.state
        self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.store = Store(self.state / "workspace.db")
        self.directory = Directory(self.store, self.manifest.handle)
        self.feed = Feed()
        self.journal = Journal()
        self.faults = Faults()
        self.timestamps = Timestamps()
        self.messages = Messages(self.store, self.directory, self.feed, self.timestamps)
        self.views = Views(self.store, self.feed)
        self.files = Files(self.store, self.state / "files")
        self.reads = Reads(self.store, self.messages)
        self.triggers = Triggers()
        self.response_urls = ResponseUrls(self.store)
        self.sockets = Sockets(self.journal, self.faults, self.feed)
        self.pages: set[web.WebSocketResponse] = set()
        self.bot_token, self.app_token, self.signing_secret = self._tokens()
        self.hooks = Hooks(self.manifest, self.journal, self.faults, self.signing_secret)
        door = self.sockets if self.manifest.socket_mode else self.hooks
        self.deliveries = Deliveries(door, self.manifest, self.directory)
        self.panes = Panes(self.settings.psql, self.messages, self._hear)
        self.progress = Progress(self.store, self.settings.guide, self._tell_progress)
        self.feed.witnessed_by(self._witness)

    @property
    def app_file(self) -> Path:
        """Names the file that tells the app where to connect."""
        return self.state / "app.json"

    @property
    def connected(self) -> bool:
        """Says whether the app can be reached, as far as that is known."""
        return self.sockets.count > 0 or not self.manifest.socket_mode

    def note(self, fact: str, who: str, channel: Channel | None = None, text: str = "") -> None:
        """Takes note of what somebody did, for the guide."""
        self.progress.note(fact, who=self._handle(who), where=self._place(channel), text=text)

    def _hear(self, user: str, what: str, text: str) -> None:
        self.note(what, user, None, text)

    def _witness(self, effect: Effect) -> None:
        """Follows what is posted; `offered` says that somebody was sent a line for psql."""
        if effect.kind != "message" or not self.progress.waiting:
            return
        body = effect.body
        channel = self.directory.channels.get(str(body["channel"]))
        self.note("posted", str(body["user"]), channel, all_text([body]))
        for user in effect.readers or ():
            if channel is not None and self.panes.connection(user, channel, str(body["ts"])) is not None:
                self.note("offered", user, channel)

    def _tell_progress(self, done: list[str]) -> None:
        self.feed.publish(Effect("guide", {"done": done}, counts=False))

    def _handle(self, user: str) -> str:
        person = self.directory.people.get(user)
        return person.handle if person else "app" if user == BOT_USER_ID else user

    def _place(self, channel: Channel | None) -> str:
        if channel is None:
            return ""
        return channel.name if channel.person is None else f"@{self.directory.bot_handle}"

    def _tokens(self) -> tuple[str, str, str]:
        known = dict(self.store.all("token"))
        made = {
            "bot": f"xoxb-{secrets.randbelow(10**12):012d}-{secrets.token_hex(16)}",
            "app": f"xapp-1-{APP_ID}-{secrets.token_hex(24)}",
            "signing": secrets.token_hex(16),
        }
        for key in made.keys() - known.keys():
            self.store.put("token", key, made[key])
        kept = made | known
        return kept["bot"], kept["app"], kept["signing"]

    def write_app_file(self) -> None:
        """Writes addresses, tokens and ids for the app, readable by its owner alone."""
        body = {
            "api_url": f"{self.settings.origin}/api/",
            "bot_token": self.bot_token,
            "app_token": self.app_token,
            "signing_secret": self.signing_secret,
            "team_id": TEAM_ID,
            "bot_user_id": BOT_USER_ID,
            "users": {person.handle: person.id for person in self.directory.people.values()},
            "channels": {c.name: c.id for c in self.directory.channels.values() if c.person is None},
        }
        write_atomically(self.app_file, body)

    async def close(self) -> None:
        """Ends sockets, retries and the store."""
        await self.panes.close()
        await self.deliveries.close()
        await self.sockets.close()
        await self.hooks.close()
        for page in list(self.pages):
            await page.close()
        self.store.close()


def write_atomically(path: Path, body: dict[str, Any]) -> None:
    """Writes JSON so that a reader sees either the old file or the whole new one."""
    half = path.with_name(path.name + ".new")
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(body, file, indent=2)
    half.replace(path)
