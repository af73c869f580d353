"""The broker's HTTP API as the bot uses it; calls are signed for one method and path."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from bot.ordering import BOT
from bot.ports import BrokerAway, Clock, Refusal
from workflows.orders import HoldAnswer, Order, sign_call, sign_hold_answer, sign_order
from workflows.wire import EventView, GrantView, HoldAnswerBody, HoldView, OrderBody, Problem, ShapeView, TicketView

CALL_SECONDS = 10
WAIT_SECONDS = 25
"""How long the broker may hold an answer back until there are events."""
POLL_SECONDS = 60
MAX_RECORDING = 50 * 1024 * 1024


class HttpBroker:
    """One session to one broker."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: Ed25519PrivateKey, clock: Clock) -> None:
        self._session = session
        self._url = url
        self._key = key
        self._clock = clock

    def signed(self, order: Order) -> str:
        """Sign an order."""
        return sign_order(order, self._key, self._clock.now())

    def signed_answer(self, answer: HoldAnswer) -> str:
        """Sign an answer to a hold."""
        return sign_hold_answer(answer, self._key, self._clock.now())

    async def grant(self, id: str) -> GrantView:
        """Return a grant as the broker has it; raises Refusal or BrokerAway."""
        return GrantView.model_validate(await self._call("GET", f"/v1/grants/{id}"))

    async def hold(self, id: str, grant: str = "") -> HoldView:
        query = {"grant": grant} if grant else None
        return HoldView.model_validate(await self._call("GET", f"/v1/holds/{id}", BOT, query=query))

    async def answer_hold(self, id: str, token: str) -> HoldView:
        body = HoldAnswerBody(answer=token).model_dump()
        return HoldView.model_validate(await self._call("POST", f"/v1/holds/{id}/answers", body=body))

    async def shape(self, id: str) -> ShapeView:
        return ShapeView.model_validate(await self._call("GET", f"/v1/shapes/{id}"))

    async def withdraw_shape(self, id: str, actor: str) -> ShapeView:
        return ShapeView.model_validate(await self._call("DELETE", f"/v1/shapes/{id}", actor))

    async def post_order(self, token: str) -> GrantView:
        body = OrderBody(order=token).model_dump()
        return GrantView.model_validate(await self._call("POST", "/v1/grants", body=body))

    async def mint(self, grant: str, actor: str) -> TicketView:
        return TicketView.model_validate(await self._call("POST", f"/v1/grants/{grant}/tickets", actor))

    async def end(self, grant: str, actor: str, kind: str, reason: str) -> None:
        query = {"kind": kind, "reason": reason, "by": actor}
        await self._call("DELETE", f"/v1/grants/{grant}", actor, query=query)

    async def recording(self, grant: str, format: str) -> bytes:
        path = f"/v1/recordings/{grant}"
        try:
            async with self._session.get(
                f"{self._url}{path}",
                params={"format": format},
                headers=self._headers("GET", path),
                timeout=aiohttp.ClientTimeout(total=60),
            ) as response:
                content = await _whole_lines(response)
                if response.status != 200:
                    raise _refusal(response.status, content)
                return content
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise BrokerAway(f"GET {path}: {type(error).__name__}") from None

    async def events(self, after: str) -> AsyncGenerator[list[EventView], None]:
        """Give the events after a cursor as they come, those together that come together."""
        path = "/v1/events"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CALL_SECONDS, sock_read=POLL_SECONDS)
        try:
            async with self._session.get(
                f"{self._url}{path}",
                params={"after": after, "wait": WAIT_SECONDS, "fold": "true"},
                headers=self._headers("GET", path),
                timeout=timeout,
            ) as response:
                if response.status != 200:
                    raise _refusal(response.status, await response.read())
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    if events := [EventView.model_validate_json(line) for line in lines if line.strip()]:
                        yield events
                if rest.strip():
                    yield [EventView.model_validate_json(rest)]
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise BrokerAway(f"GET {path}: {type(error).__name__}") from None

    async def _call(
        self,
        method: str,
        path: str,
        actor: str = "",
        body: dict[str, Any] | None = None,
        query: dict[str, str] | None = None,
    ) -> Any:
        try:
            async with self._session.request(
                method,
                f"{self._url}{path}",
                json=body,
                params=query,
                headers=self._headers(method, path, actor),
                timeout=aiohttp.ClientTimeout(total=CALL_SECONDS),
            ) as response:
                content = await response.read()
                if response.status >= 400:
                    raise _refusal(response.status, content)
                return json.loads(content) if content else None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise BrokerAway(f"{method} {path}: {type(error).__name__}") from None

    def _headers(self, method: str, path: str, actor: str = "") -> dict[str, str]:
        return {"Authorization": f"Bearer {sign_call(method, path, self._key, self._clock.now(), actor)}"}


async def _whole_lines(response: aiohttp.ClientResponse) -> bytes:
    """Read an answer to its end; what is larger than MAX_RECORDING ends with the last line that fits."""
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > MAX_RECORDING:
            return bytes(content[: content.rfind(b"\n", 0, MAX_RECORDING) + 1])
    return bytes(content)


def _refusal(status: int, content: bytes) -> Refusal | BrokerAway:
    if status >= 500:
        return BrokerAway(f"the broker answered {status}")
    try:
        return Refusal(status, Problem.model_validate_json(content))
    except ValidationError:
        return Refusal(status, Problem(code="unreadable", message=f"the broker answered {status}"))
