"""The bot in this process, between a local workspace and a fake broker, for tests of the whole way."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bot.__main__ import start
from bot.chat.slack.manifest import REQUEST_PATH, manifest
from bot.config import Settings
from broker.demo.cluster import free_port
from tests.support.fake_broker import FakeBroker, fake_broker
from tests.unit.bot.workspace.world import World, running

REPOSITORY = Path(__file__).resolve().parents[2]
CARDS = "#access-requests"


@dataclass
class Story:
    """Everything a test of the story needs; people are named, channels too."""

    world: World
    broker: FakeBroker
    settings: Settings
    policies: Path
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.world.space.feed.witnessed_by(lambda effect: self._changed.set())

    async def start_bot(self) -> None:
        """Start the bot on the same state."""
        self._stack = AsyncExitStack()
        await start(self.settings, self._stack)

    async def stop_bot(self) -> None:
        """Stop it as SIGTERM would."""
        await self._stack.aclose()

    async def command(self, user: str, text: str, channel: str = CARDS) -> list[dict[str, Any]]:
        """Type a command; gives what its author saw."""
        answer = await self.world.post("command", user=user, channel=channel, text=text)
        assert answer["ok"], answer
        messages: list[dict[str, Any]] = answer["messages"]
        return messages

    async def whispers(self, user: str, text: str, channel: str = CARDS) -> str:
        """Type a command; gives the text of the private answers to it."""
        since = f"{time.time():.6f}"
        if found := private({"messages": await self.command(user, text, channel)}):
            return found

        async def later() -> str | None:
            return private({"messages": await self.world.seen(user, channel, since=since)}) or None

        answer: str = await self.eventually(later)
        return answer

    async def card(self, has: str = "", user: str = "bob") -> dict[str, Any]:
        """Return the newest card, once it says something."""

        async def find() -> dict[str, Any] | None:
            cards = [one for one in await self.world.seen(user, CARDS) if not one["ephemeral"] and one["from_app"]]
            return cards[-1] if cards and has in shown(cards[-1]) else None

        return await self.eventually(find)

    async def click(self, user: str, action: str, message: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Press a button of a message."""
        where = {"channel": message["channel"], "message_ts": message["ts"], "action_id": action}
        asked = {"user": user, "channel": message["channel"], "since": f"{time.time():.6f}"}
        answer = await self.world.post("click", user=user, **where, **more)
        return {**answer, "asked": {**asked, "thread_ts": message.get("thread_ts") or message["ts"]}}

    async def view(self, user: str) -> dict[str, Any] | None:
        """Return the form that somebody looks at."""
        views = (await self.world.get("views", **{"as": user}))["views"]
        return views[-1] if views else None

    async def submit(self, user: str, view: dict[str, Any], **values: Any) -> dict[str, Any]:
        """Send a form; values by label."""
        asked = {"user": user, "channel": CARDS, "since": f"{time.time():.6f}"}
        answer = await self.world.post("submit", user=user, view_id=view["id"], values=values)
        return {**answer, "asked": asked}

    async def private(self, answer: dict[str, Any]) -> str:
        """Return what was said to somebody alone after a click or a form, however late it comes."""

        async def find() -> str | None:
            if found := private(answer):
                return found
            asked = dict(answer["asked"])
            user, channel, thread = asked["user"], asked["channel"], asked.get("thread_ts")
            seen = await self.world.seen(user, channel, since=asked["since"])
            if thread:
                seen = [*seen, *await self.world.seen(user, channel, since=asked["since"], thread_ts=thread)]
            return private({"messages": seen}) or None

        text: str = await self.eventually(find)
        return text

    async def thread(self, card: dict[str, Any], has: str) -> dict[str, Any]:
        """Return the reply under a card that says something."""

        async def find() -> dict[str, Any] | None:
            replies = await self.replies(card)
            return next((one for one in replies if has in shown(one)), None)

        return await self.eventually(find)

    async def replies(self, card: dict[str, Any]) -> list[dict[str, Any]]:
        """Return what is under a card now."""
        return (await self.world.seen("bob", CARDS, thread_ts=card["ts"]))[1:]

    async def granted(self, role: str = "write") -> tuple[dict[str, Any], str]:
        """Bring Alice to access on prod-db; gives the request's card and the grant's id."""
        await self.command("alice", f"/access prod-db {role} 30m because INC-42")
        card = await self.card()
        await self.click("bob", "request.approve", card)
        if role == "write":
            await self.card("so far. Still waiting for")
            await self.click("erin", "request.approve", card)
        card = await self.card("open until")
        return card, list(self.broker.grants)[-1]

    async def direct(self, user: str, has: str) -> dict[str, Any]:
        """Return the direct message to somebody that says something."""

        async def find() -> dict[str, Any] | None:
            messages = await self.world.seen(user, "@Airlock")
            return next((one for one in reversed(messages) if has in shown(one)), None)

        return await self.eventually(find)

    async def whispered(self, user: str, has: str, channel: str = CARDS) -> dict[str, Any]:
        """Return the private answer to somebody that says something."""

        async def find() -> dict[str, Any] | None:
            messages = await self.world.seen(user, channel)
            return next((one for one in messages if one["ephemeral"] and has in shown(one)), None)

        return await self.eventually(find)

    async def whispers_in_thread(self, user: str, has: str) -> dict[str, Any]:
        """Return the private answer to somebody under the newest card that says something."""
        card = await self.card()

        async def find() -> dict[str, Any] | None:
            messages = await self.world.seen(user, CARDS, thread_ts=card["ts"])
            return next((one for one in messages if one["ephemeral"] and has in shown(one)), None)

        return await self.eventually(find)

    async def eventually(self, find: Callable[[], Any], seconds: float = 20) -> Any:
        """Wait for something to be found: look whenever people see a change, and now and then."""
        deadline = time.monotonic() + seconds
        while True:
            self._changed.clear()
            if (found := await find()) is not None:
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"it never came: {await self.everything()}")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), 0.05)

    async def everything(self) -> str:
        """Say what is there, for a test that failed."""
        cards = await self.world.seen("bob", CARDS)
        direct = await self.world.seen("alice", "@Airlock")
        return "\n".join(shown(one) for one in [*cards, *direct])

    async def calls(self, method: str) -> list[dict[str, Any]]:
        """Return the calls of a method that the workspace has seen."""
        entries = (await self.world.get("journal"))["entries"]
        return [entry for entry in entries if method in json.dumps(entry)]


def shown(message: dict[str, Any]) -> str:
    """Return all the text of a message, blocks included."""
    found = [message["text"]]
    todo: list[Any] = list(message["blocks"])
    while todo:
        item = todo.pop(0)
        if isinstance(item, dict):
            found += [value for key, value in item.items() if key in ("text", "value") and isinstance(value, str)]
            todo.extend(value for value in item.values() if isinstance(value, dict | list))
        elif isinstance(item, list):
            todo.extend(item)
    return "\n".join(found)


def private(answer: dict[str, Any]) -> str:
    """Return the private answers among what somebody saw."""
    return "\n".join(shown(one) for one in answer["messages"] if one["ephemeral"])


def buttons(message: dict[str, Any]) -> list[str]:
    """Return the action ids that a message offers."""
    blocks = [block for block in message["blocks"] if block["type"] == "actions"]
    return [element["action_id"] for block in blocks for element in block["elements"]]


def options(view: dict[str, Any], label: str) -> list[str]:
    """Return what a menu of a form offers."""
    return [option["value"] for option in element(view, label)["options"]]


def element(view: dict[str, Any], label: str) -> dict[str, Any]:
    """Return the input of a form by its label."""
    found = next(b for b in view["blocks"] if b["type"] == "input" and b["label"]["text"] == label)
    made: dict[str, Any] = found["element"]
    return made


def labels(view: dict[str, Any]) -> list[str]:
    """Return the labels of a form's inputs."""
    return [block["label"]["text"] for block in view["blocks"] if block["type"] == "input"]


def initial(view: dict[str, Any], label: str) -> str | None:
    """Return what an input of a form starts with."""
    held = element(view, label)
    option = held.get("initial_option")
    return option["value"] if option else held.get("initial_value")


@asynccontextmanager
async def story(
    folder: Path, change: Callable[[Path], None] = lambda policies: None, http: bool = False, **settings: Any
) -> AsyncIterator[Story]:
    """Run the workspace, the fake broker and the bot, on policy files that `change` may change first.

    Payloads come through a socket, or over HTTP.
    """
    port = free_port() if http else 0
    state, policies = folder / "state", folder / "policies"
    policies.mkdir()
    for file in (REPOSITORY / "policies").glob("*.yaml"):
        shutil.copy(file, policies)
    change(policies)
    async with (
        running(folder / "workspace", manifest(url=f"http://127.0.0.1:{port}{REQUEST_PATH}" if http else "")) as world,
        fake_broker(state / "bot" / "order.pub.pem") as (broker, address),
    ):
        if http:
            settings |= {
                "slack_mode": "http",
                "slack_port": port,
                "slack_signing_secret": world.space.signing_secret,
            }
        given = Settings(
            state=state,
            policies=policies,
            broker_url=address,
            slack_api_url=f"{world.url}/api/",
            slack_bot_token=world.space.bot_token,
            slack_app_token=world.space.app_token,
            ready_file=folder / "ready.json",
            **settings,
        )
        made = Story(world, broker, given, policies)
        await made.start_bot()
        try:
            yield made
        finally:
            await made.stop_bot()
