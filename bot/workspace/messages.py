"""The messages of every channel: posted, edited, deleted, threaded, and shown only to those who may see them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from .checks import interactive_elements
from .directory import BOT_USER_ID, Directory
from .feed import Effect, Feed
from .ids import Timestamps, make_block_id, micros
from .store import Store


@dataclass(slots=True)
class Message:
    """One message; an ephemeral one has a `reader` and is never stored."""

    channel: str
    ts: str
    body: dict[str, Any]
    reader: str | None = None

    @property
    def thread_ts(self) -> str | None:
        """Gives the parent of a reply; a parent itself has none."""
        parent = self.body.get("thread_ts")
        return parent if parent != self.ts else None

    @property
    def author(self) -> str:
        """Gives who wrote it."""
        return str(self.body["user"])

    @property
    def top_level(self) -> bool:
        """Says whether it shows in the channel itself."""
        return self.thread_ts is None or self.body.get("subtype") == "thread_broadcast"


class Messages:
    """The log of messages; what is posted here is stored before the call returns."""

    def __init__(self, store: Store, directory: Directory, feed: Feed, timestamps: Timestamps) -> None:
        self._store = store
        self._directory = directory
        self._feed = feed
        self._timestamps = timestamps
        self._log: dict[str, dict[str, Message]] = {}
        self._threads: dict[tuple[str, str], list[str]] = {}
        for key, body in store.all("message"):
            channel, _, ts = key.partition("/")
            timestamps.seen(ts)
            self._keep(Message(channel, ts, body))

    def _keep(self, message: Message) -> None:
        self._log.setdefault(message.channel, {})[message.ts] = message
        if message.thread_ts:
            self._threads.setdefault((message.channel, message.thread_ts), []).append(message.ts)

    def post(
        self, channel: str, body: dict[str, Any], *, thread_ts: str | None = None, reader: str | None = None
    ) -> Message:
        """Adds a message; a reply to a reply joins the parent's thread."""
        ts = self._timestamps.next()
        if thread_ts is not None:
            parent = self.find(channel, thread_ts)
            thread_ts = (parent.thread_ts if parent else None) or thread_ts
        whole = {"type": "message", **body, "ts": ts}
        if thread_ts is not None:
            whole["thread_ts"] = thread_ts
        name_blocks(whole.get("blocks"))
        message = Message(channel, ts, whole, reader)
        self._write(message)
        self._keep(message)
        self._announce(message)
        return message

    def update(self, message: Message, changes: dict[str, Any]) -> None:
        """Edits a message; an attribute changed to None is removed."""
        for key, value in changes.items():
            if value is None:
                message.body.pop(key, None)
            else:
                message.body[key] = value
        name_blocks(message.body.get("blocks"))
        self._write(message)
        self._announce(message)

    def delete(self, message: Message) -> None:
        """Removes a message; one with replies leaves a tombstone."""
        if self.replies(message.channel, message.ts):
            kept: dict[str, Any] = {key: message.body[key] for key in ("type", "ts") if key in message.body}
            message.body = {
                **kept,
                "subtype": "tombstone",
                "user": "USLACKBOT",
                "text": "This message was deleted.",
                "hidden": True,
            }
            self._write(message)
            self._announce(message)
            return
        self._log[message.channel].pop(message.ts, None)
        parent = message.thread_ts
        if parent:
            self._threads[message.channel, parent].remove(message.ts)
        if message.reader is None:
            self._store.drop("message", f"{message.channel}/{message.ts}")
        body = {"channel": message.channel, "ts": message.ts, "thread_ts": parent}
        self._feed.publish(Effect("message_deleted", body, self.readers(message)))
        self._announce_thread(message)

    def _write(self, message: Message) -> None:
        if message.reader is None:
            self._store.put("message", f"{message.channel}/{message.ts}", message.body)

    def _announce(self, message: Message) -> None:
        by_app = message.author == BOT_USER_ID or message.reader is not None
        self._feed.publish(Effect("message", self.shown(message), self.readers(message), counts=by_app))
        self._announce_thread(message)

    def _announce_thread(self, reply: Message) -> None:
        """Tells those who see a parent how its thread has grown or shrunk."""
        parent = self.find(reply.channel, reply.thread_ts) if reply.thread_ts else None
        if parent is None:
            return
        body = {"channel": parent.channel, "ts": parent.ts, **self._shown_thread(parent)}
        self._feed.publish(Effect("thread", body, self.readers(reply), counts=False))

    def _shown_thread(self, parent: Message) -> dict[str, Any]:
        """Counts a thread's replies; what only one person sees is none."""
        replies = self.replies(parent.channel, parent.ts)
        return {
            "reply_count": len(replies),
            "latest_reply": replies[-1].ts if replies else None,
            "reply_users": list(dict.fromkeys(reply.author for reply in replies))[:5],
        }

    def readers(self, message: Message) -> frozenset[str]:
        """Gives who may see a message."""
        if message.reader is not None:
            return frozenset({message.reader})
        return self._directory.channels[message.channel].members

    def find(self, channel: str, ts: str) -> Message | None:
        """Finds a message, whoever may see it."""
        return self._log.get(channel, {}).get(ts)

    def everything(self, channel: str) -> Iterator[Message]:
        """Gives every message of a channel, replies among them, oldest first."""
        return iter(list(self._log.get(channel, {}).values()))

    def in_channel(self, channel: str) -> Iterator[Message]:
        """Gives the messages that show in the channel itself, oldest first."""
        return (message for message in self.everything(channel) if message.top_level)

    def replies(self, channel: str, parent: str, viewer: str | None = None) -> list[Message]:
        """Gives a thread's replies; ephemeral ones only to their reader."""
        log = self._log.get(channel, {})
        found = [log[ts] for ts in self._threads.get((channel, parent), []) if ts in log]
        return [reply for reply in found if reply.reader is None or reply.reader == viewer]

    def visible(self, user: str, channel: str, thread_ts: str | None = None, since: str = "") -> list[Message]:
        """Gives what a person sees in a channel, or in one thread with its parent first."""
        if thread_ts is None:
            found = [m for m in self.in_channel(channel) if user in self.readers(m)]
        else:
            parent = self.find(channel, thread_ts)
            seen = [parent] if parent and user in self.readers(parent) else []
            found = [*seen, *self.replies(channel, thread_ts, user)]
        return [message for message in found if micros(message.ts) > micros(since)]

    def thread_facts(self, message: Message) -> dict[str, Any]:
        """Gives the counters that a parent carries, empty for a message without replies."""
        replies = self.replies(message.channel, message.ts)
        if not replies:
            return {}
        users = list(dict.fromkeys(reply.author for reply in replies))
        return {
            "thread_ts": message.ts,
            "reply_count": len(replies),
            "reply_users_count": len(users),
            "latest_reply": replies[-1].ts,
            "reply_users": users[:5],
            "is_locked": False,
            "subscribed": False,
        }

    def as_api(self, message: Message, *, metadata: bool = False) -> dict[str, Any]:
        """Gives a message as the Web API and payloads carry it."""
        body = {**message.body, **self.thread_facts(message)}
        if not metadata:
            body.pop("metadata", None)
        return body

    def shown(self, message: Message, viewer: str | None = None) -> dict[str, Any]:
        """Gives a message as a person sees it."""
        body = message.body
        return {
            "channel": message.channel,
            "ts": message.ts,
            "thread_ts": message.thread_ts,
            "user": message.author,
            "text": body.get("text", ""),
            "blocks": body.get("blocks", []),
            "ephemeral": message.reader is not None,
            "files": [_shown_file(file, viewer) for file in body.get("files", [])],
            "edited": "edited" in body,
            "from_app": bool(body.get("bot_id")),
            "subtype": body.get("subtype"),
            "broadcast": body.get("subtype") == "thread_broadcast",
            "reactions": body.get("reactions", []),
            **self._shown_thread(message),
        }


def _shown_file(file: dict[str, Any], viewer: str | None) -> dict[str, Any]:
    return {
        "id": file["id"],
        "name": file["name"],
        "title": file.get("title") or file["name"],
        "url": f"/files/{file['id']}/{quote(file['name'])}" + (f"?as={viewer}" if viewer else ""),
        "mimetype": file.get("mimetype"),
        "size": file.get("size", 0),
    }


def name_blocks(blocks: Any) -> None:
    """Gives every block and every element that people can act on the ids it came without."""
    for block in blocks or []:
        if not block.get("block_id"):
            block["block_id"] = make_block_id()
        for _, element in interactive_elements(block):
            if not element.get("action_id"):
                element["action_id"] = make_block_id()
