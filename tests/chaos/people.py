"""What people do in the local workspace, by its JSON API; whoever does it sees errors, and tries again as people do."""

from __future__ import annotations

from typing import Any

import aiohttp

CARDS = "#access-requests"


class Unanswered(Exception):
    """the workspace gave no answer"""


class People:
    """Everybody in the workspace; `api` is the app's own way in, to see what only it sees."""

    def __init__(self, http: aiohttp.ClientSession, url: str, app: dict[str, Any]) -> None:
        self._http = http
        self.url = url
        self._app = app

    async def post(self, path: str, **body: Any) -> dict[str, Any]:
        """Do something; raises Unanswered where nobody is there."""
        body = {"wait_ms": 3000, "settle_ms": 40, **body}
        try:
            async with self._http.post(f"{self.url}/local/{path}", json=body, timeout=_timeout(12)) as response:
                answer: dict[str, Any] = await response.json()
                return answer
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unanswered(type(error).__name__) from None

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        """Look at something."""
        try:
            async with self._http.get(f"{self.url}/local/{path}", params=query, timeout=_timeout(12)) as response:
                answer: dict[str, Any] = await response.json()
                return answer
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unanswered(type(error).__name__) from None

    async def seen(self, user: str, channel: str, **more: str) -> list[dict[str, Any]]:
        """Return what somebody sees in a channel or thread; nothing where the workspace is away."""
        try:
            found: list[dict[str, Any]] = (await self.get("messages", **{"as": user, "channel": channel, **more}))[
                "messages"
            ]
        except (Unanswered, KeyError):
            return []
        return found

    async def command(self, user: str, text: str) -> bool:
        """Type a command; say whether the app acknowledged it."""
        try:
            return bool((await self.post("command", user=user, channel="incidents", text=text))["ok"])
        except Unanswered:
            return False

    async def click(self, user: str, message: dict[str, Any], action: str, **more: Any) -> dict[str, Any]:
        """Press a button; the answer's `ok` says whether the app acknowledged it."""
        where = {"channel": message["channel"], "message_ts": message["ts"], "action_id": action}
        try:
            return await self.post("click", user=user, **where, **more)
        except Unanswered as error:
            return {"ok": False, "error": str(error), "view": None}

    async def fault(self, **wish: Any) -> None:
        """Arm a fault of the workspace's own."""
        await self.post("faults", **wish)

    async def api(self, method: str, **query: str) -> dict[str, Any]:
        """Call the Web API as the app does."""
        headers = {"Authorization": f"Bearer {self._app['bot_token']}"}
        address = f"{self._app['api_url']}{method}"
        try:
            async with self._http.get(address, params=query, headers=headers, timeout=_timeout(12)) as response:
                answer: dict[str, Any] = await response.json()
                return answer
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unanswered(type(error).__name__) from None

    async def posted(self, channel: str, since: str, thread: str = "") -> list[dict[str, Any]]:
        """Return the app's messages in a channel or thread, with the key that each was sent under."""
        query = {"channel": channel, "include_all_metadata": "true", "limit": "200", "oldest": since}
        method = "conversations.history"
        if thread:
            method, query["ts"] = "conversations.replies", thread
        found: list[dict[str, Any]] = []
        while True:
            answer = await self.api(method, **query)
            found += answer.get("messages", [])
            query["cursor"] = (answer.get("response_metadata") or {}).get("next_cursor") or ""
            if not query["cursor"]:
                return found

    async def direct(self, user: str) -> str:
        """Return the id of somebody's direct messages with the app."""
        messages = await self.seen(user, "@Airlock", limit="1")
        return str(messages[0]["channel"]) if messages else ""


def key_of(message: dict[str, Any]) -> str:
    """Return the key that the app sent a message under."""
    return str(((message.get("metadata") or {}).get("event_payload") or {}).get("key") or "")


def _timeout(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=seconds)
