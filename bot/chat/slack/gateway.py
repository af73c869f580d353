"""The calls to Slack that the outbox makes; an answer that never came is told apart from a refusal."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web.async_client import AsyncWebClient

from bot.chat.slack.check import check_payload
from bot.chat.slack.pacing import Pacer, SlackBusy

METADATA_TYPE = "airlock_message"
LIMITED = "ratelimited"
LINKS_KEPT = 5_000
_TRANSIENT = frozenset({"internal_error", "fatal_error", "service_unavailable", "request_timeout", "team_added_to_org"})


class SlackRefused(Exception):
    """Slack said no, and would again"""

    def __init__(self, error: str) -> None:
        super().__init__(error)
        self.error = error


class SlackUncertain(Exception):
    """the connection ended before Slack answered, so the call may have been obeyed"""


class Gateway:
    """Calls one workspace's API, without retries of its own: whoever calls knows what may be repeated."""

    def __init__(self, client: AsyncWebClient, session: aiohttp.ClientSession, pacer: Pacer, own: str) -> None:
        self._client = client
        self._session = session
        self._pacer = pacer
        self._own = own
        """The bot's own account."""
        self._direct: dict[str, str] = {}
        self._permalinks: OrderedDict[tuple[str, str], str] = OrderedDict()

    async def post(self, channel: str, payload: dict[str, Any], key: str, thread: str = "") -> str:
        """Post a message and return its ts; `key` is kept in its metadata, for looking it up."""
        metadata = {"event_type": METADATA_TYPE, "event_payload": {"key": key}}
        body = {**payload, "metadata": metadata, **_QUIET}
        check_payload(body)
        if thread:
            body["thread_ts"] = thread
        answer = await self._call("chat.postMessage", {"channel": channel, **body})
        return str(answer["ts"])

    async def update(self, channel: str, ts: str, payload: dict[str, Any]) -> None:
        """Replace a message of ours."""
        check_payload(payload)
        await self._call("chat.update", {"channel": channel, "ts": ts, **payload, "parse": "none", "link_names": False})

    async def whisper(self, channel: str, account: str, payload: dict[str, Any], thread: str = "") -> None:
        """Post what only one person sees."""
        check_payload(payload)
        body = {"channel": channel, "user": account, **payload, "parse": "none", "link_names": False}
        await self._call("chat.postEphemeral", {**body, "thread_ts": thread} if thread else body)

    async def reply(self, url: str, payload: dict[str, Any], thread: str = "") -> None:
        """Answer privately through the address that came with a payload."""
        check_payload(payload)
        self._trust(url)
        body = {**payload, "response_type": "ephemeral", "replace_original": False}
        if thread:
            body["thread_ts"] = thread
        try:
            async with self._session.post(url, json=body, timeout=aiohttp.ClientTimeout(total=10)) as response:
                if response.status >= 400:
                    raise SlackRefused(f"response_url answered {response.status}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise SlackUncertain(type(error).__name__) from None

    def _trust(self, url: str) -> None:
        given, ours = urlsplit(url), urlsplit(str(self._client.base_url))
        if (given.scheme, given.netloc) != (ours.scheme, ours.netloc) and (given.scheme, given.hostname) != (
            "https",
            "hooks.slack.com",
        ):
            raise SlackRefused("the response_url is not Slack's")

    async def direct(self, account: str) -> str:
        """Return the channel of direct messages with somebody."""
        if account not in self._direct:
            answer = await self._call("conversations.open", {"users": account})
            self._direct[account] = str(answer["channel"]["id"])
        return self._direct[account]

    async def permalink(self, channel: str, ts: str) -> str:
        """Return the address of a message."""
        if (channel, ts) not in self._permalinks:
            answer = await self._call("chat.getPermalink", {"channel": channel, "message_ts": ts})
            self._permalinks[channel, ts] = str(answer["permalink"])
            if len(self._permalinks) > LINKS_KEPT:
                self._permalinks.popitem(last=False)
        return self._permalinks[channel, ts]

    async def find(self, channel: str, key: str, since: float, thread: str = "") -> str | None:
        """Return the ts of a message of ours by the key in its metadata."""
        query: dict[str, Any] = {
            "channel": channel,
            "include_all_metadata": True,
            "limit": 200,
            "oldest": f"{since:.6f}",
        }
        method = "conversations.history"
        if thread:
            method, query["ts"] = "conversations.replies", thread
        for _ in range(10):
            answer = await self._call(method, query)
            for message in answer.get("messages", []):
                metadata = message.get("metadata") or {}
                if metadata.get("event_type") == METADATA_TYPE and metadata.get("event_payload", {}).get("key") == key:
                    return str(message["ts"])
            query["cursor"] = (answer.get("response_metadata") or {}).get("next_cursor")
            if not query["cursor"]:
                return None
        return None

    async def message(self, channel: str, ts: str) -> dict[str, Any] | None:
        """Return a message as Slack has it now."""
        query = {"channel": channel, "oldest": ts, "latest": ts, "inclusive": True, "limit": 1}
        answer = await self._call("conversations.history", query)
        found: list[dict[str, Any]] = [one for one in answer.get("messages", []) if one.get("ts") == ts]
        return found[0] if found else None

    async def find_file(self, channel: str, thread: str, name: str) -> bool:
        """Say whether a thread, or else a channel, has a file of ours of a name; anybody may post one called so."""
        query: dict[str, Any] = {"channel": channel, "limit": 200, **({"ts": thread} if thread else {})}
        for _ in range(10):
            answer = await self._call("conversations.replies" if thread else "conversations.history", query)
            for message in answer.get("messages", []):
                files = message.get("files", [])
                if any((file.get("name"), file.get("user")) == (name, self._own) for file in files):
                    return True
            query["cursor"] = (answer.get("response_metadata") or {}).get("next_cursor")
            if not query["cursor"]:
                return False
        return False

    async def publish(self, account: str, view: dict[str, Any]) -> None:
        """Replace what somebody sees in the app's home."""
        check_payload(view)
        await self._call("views.publish", {"user_id": account, "view": view})

    async def has_member(self, channel: str, account: str) -> bool:
        """Say whether somebody is in a channel."""
        query: dict[str, Any] = {"channel": channel, "limit": 1000}
        while True:
            answer = await self._call("conversations.members", query)
            if account in answer.get("members", ()):
                return True
            query["cursor"] = (answer.get("response_metadata") or {}).get("next_cursor")
            if not query["cursor"]:
                return False

    async def is_shared_outside(self, channel: str) -> bool:
        """Say whether people of other workspaces see a channel, or are about to."""
        found = (await self._call("conversations.info", {"channel": channel}))["channel"]
        return bool(found.get("is_ext_shared") or found.get("is_pending_ext_shared"))

    async def upload(self, channel: str, thread: str, name: str, content: bytes, title: str) -> str:
        """Put a file into a thread, or without one into a channel, and return its id."""
        asked = await self._call("files.getUploadURLExternal", {"filename": name, "length": len(content)})
        try:
            async with self._session.post(
                asked["upload_url"],
                data=content,
                headers={"Content-Type": "application/octet-stream"},
                timeout=aiohttp.ClientTimeout(total=120),
            ) as response:
                if response.status != 200:
                    raise SlackBusy(f"the upload answered {response.status}", 5.0)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise SlackBusy(type(error).__name__, 5.0) from None  # an upload that nothing completes shows nowhere
        files = [{"id": asked["file_id"], "title": title}]
        done = {"files": files, "channel_id": channel, "thread_ts": thread or None}
        await self._call("files.completeUploadExternal", done)
        return str(asked["file_id"])

    async def _call(self, method: str, arguments: dict[str, Any]) -> Any:
        channel = str(arguments.get("channel") or arguments.get("channel_id") or "")
        await self._pacer.turn(method, channel)
        try:
            if method.startswith(_JSON):
                return await self._client.api_call(method, json=arguments)
            return await self._client.api_call(method, params=_flat(arguments))
        except SlackApiError as error:
            told = judged(error)
            if isinstance(told, SlackBusy) and str(told) == LIMITED:
                self._pacer.hold_off(method, channel, told.after)
            raise told from None
        except aiohttp.ClientConnectorError as error:
            raise SlackBusy(type(error).__name__, 1.0) from None
        except (aiohttp.ClientError, TimeoutError, OSError, SlackClientError, ValueError) as error:
            raise SlackUncertain(type(error).__name__) from None


_JSON = ("chat.postMessage", "chat.postEphemeral", "chat.update", "conversations.open", "views.")
_QUIET = {"unfurl_links": False, "unfurl_media": False, "parse": "none", "link_names": False}


def _flat(arguments: dict[str, Any]) -> dict[str, Any]:
    flat = {}
    for key, value in arguments.items():
        if value is None:
            continue
        flat[key] = json.dumps(value) if isinstance(value, list | dict | bool) else value
    return flat


def judged(error: SlackApiError) -> SlackRefused | SlackBusy | SlackUncertain:
    """Tell apart what Slack would say again, what passes, and what leaves open whether it was obeyed."""
    response = error.response
    data = getattr(response, "data", None)
    status = int(getattr(response, "status_code", None) or getattr(response, "status", None) or 0)
    name = str(data.get("error") or f"status {status}") if isinstance(data, dict) else f"status {status}"
    if status == 429 or name in ("ratelimited", "rate_limited"):
        after = str(response.headers.get("Retry-After", "1"))
        return SlackBusy(LIMITED, float(after) if after.isdecimal() else 1.0)
    if status >= 500 or not isinstance(data, dict) or "error" not in data:
        return SlackUncertain(name)
    return SlackBusy(name, 2.0) if name in _TRANSIENT else SlackRefused(name)
