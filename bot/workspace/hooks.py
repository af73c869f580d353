"""HTTP request URLs: payloads posted to the app, signed, and what it answers."""

import asyncio
import hashlib
import hmac
import json
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import aiohttp

from .faults import Faults
from .journal import Journal
from .limits import ACK_SECONDS
from .manifest import Manifest
from .sockets import AckTimedOut, AppNotConnected

STALE_SECONDS = 6 * 60


class AppRefused(Exception):
    """app answered with a status other than 200"""


@dataclass(slots=True)
class Hooks:
    """The app's request URLs, used where its manifest turns Socket Mode off."""

    manifest: Manifest
    journal: Journal
    faults: Faults
    secret: str
    _session: aiohttp.ClientSession | None = None
    _late: set[asyncio.Task[Any]] = field(default_factory=set)

    async def deliver(self, kind: str, payload: dict[str, Any], **more: Any) -> Any:
        """Posts a payload and gives what the answer carried."""
        url, body, headers = self._request(kind, payload, **more)
        if self.faults.take("delayed"):
            # The person sees a timeout, and the app hears of it afterwards.
            late = asyncio.create_task(self._late_post(url, body, headers, self.faults.delay_ms / 1000))
            self._late.add(late)
            late.add_done_callback(self._late.discard)
            await asyncio.sleep(min(ACK_SECONDS, self.faults.delay_ms / 1000))
            raise AckTimedOut
        self.journal.note("to_app", kind, payload)
        answer = await self._post(url, body, headers)
        if self.faults.take("duplicate"):
            await self._post(url, body, headers)
        self.journal.note("from_app", "ack", {"payload": answer})
        if self.faults.take("lose_ack"):
            raise AckTimedOut
        return answer

    def _request(self, kind: str, payload: dict[str, Any], **more: Any) -> tuple[str, bytes, dict[str, str]]:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if kind == "events_api":
            url, body = self.manifest.events_url, json.dumps(payload).encode()
            headers["Content-Type"] = "application/json"
            if more.get("retry_attempt"):
                headers["X-Slack-Retry-Num"] = str(more["retry_attempt"])
                reason = str(more.get("retry_reason", ""))
                headers["X-Slack-Retry-Reason"] = "http_timeout" if reason == "timeout" else reason
        elif kind == "slash_commands":
            url, body = self.manifest.commands[payload["command"]].url, urlencode(payload).encode()
        else:
            url, body = self.manifest.interactivity_url, urlencode({"payload": json.dumps(payload)}).encode()
        return url, body, headers

    async def _late_post(self, url: str, body: bytes, headers: dict[str, str], pause: float) -> None:
        await asyncio.sleep(pause)
        try:
            await self._post(url, body, headers)
        except (AppNotConnected, AckTimedOut, AppRefused):
            return

    async def _post(self, url: str, body: bytes, headers: dict[str, str]) -> Any:
        if not url:
            raise AppNotConnected
        self._session = self._session or aiohttp.ClientSession(trust_env=False)
        timeout = aiohttp.ClientTimeout(total=ACK_SECONDS)
        signed = headers | self._signed(body)
        try:
            async with self._session.post(url, data=body, headers=signed, timeout=timeout) as response:
                text = await response.text()
                if response.status != 200:
                    self.journal.note("from_app", "refused", {"status": response.status, "url": url})
                    raise AppRefused
                return json.loads(text) if response.content_type == "application/json" and text else text or None
        except TimeoutError as error:
            raise AckTimedOut from error
        except (aiohttp.ClientError, ValueError) as error:
            raise AppNotConnected from error

    def _signed(self, body: bytes) -> dict[str, str]:
        fault = self.faults.signature if self.faults.take("signed_badly") else ""
        at = str(int(time.time()) - (STALE_SECONDS if fault == "stale" else 0))
        digest = hmac.new(self.secret.encode(), b"v0:" + at.encode() + b":" + body, hashlib.sha256).hexdigest()
        if fault == "wrong":
            digest = digest[::-1]
        headers = {"X-Slack-Request-Timestamp": at, "X-Slack-Signature": f"v0={digest}"}
        return {} if fault == "missing" else headers

    async def close(self) -> None:
        """Gives up what is late and closes connections."""
        for late in list(self._late):
            late.cancel()
        await asyncio.gather(*self._late, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
