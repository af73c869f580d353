"""Hands payloads to the app: interactions once, events again until they are acknowledged."""

import asyncio
from typing import Any

from . import payloads
from .directory import Channel, Directory
from .hooks import AppRefused, Hooks
from .manifest import Manifest
from .sockets import AckTimedOut, AppNotConnected, Sockets

RETRY_AFTER_SECONDS = (0.0, 60.0, 300.0)
TIMED_OUT = "operation_timeout"
NOT_CONNECTED = "app_not_connected"
REFUSED = "http_service_error"
_REASONS = {TIMED_OUT: "timeout", REFUSED: "http_error"}


class Deliveries:
    """Delivers over Socket Mode or HTTP and repeats events on Slack's schedule."""

    def __init__(self, door: Sockets | Hooks, manifest: Manifest, directory: Directory) -> None:
        self._door = door
        self._manifest = manifest
        self._directory = directory
        self._retries: set[asyncio.Task[None]] = set()

    async def interaction(self, kind: str, payload: dict[str, Any]) -> tuple[str | None, Any]:
        """Delivers once; gives an error name or what the acknowledgement carried."""
        try:
            return None, await self._door.deliver(kind, payload, accepts_response_payload=True)
        except AppNotConnected:
            return NOT_CONNECTED, None
        except AckTimedOut:
            return TIMED_OUT, None
        except AppRefused:
            return REFUSED, None

    async def event(self, name: str, body: dict[str, Any], channel: Channel | None = None) -> str | None:
        """Delivers an event if the app subscribes to it; gives an error name when the first try failed."""
        if name not in self._manifest.events:
            return None
        payload = payloads.event(body, channel)
        error = await self._attempt(payload, 0, "")
        if error is not None:
            task = asyncio.create_task(self._repeat(payload, error))
            self._retries.add(task)
            task.add_done_callback(self._retries.discard)
        return error

    def subscribes(self, name: str) -> bool:
        """Says whether the app wants an event."""
        return name in self._manifest.events

    async def _attempt(self, payload: dict[str, Any], attempt: int, reason: str) -> str | None:
        try:
            await self._door.deliver(
                "events_api", payload, accepts_response_payload=False, retry_attempt=attempt, retry_reason=reason
            )
        except AppNotConnected:
            return NOT_CONNECTED
        except AckTimedOut:
            return TIMED_OUT
        except AppRefused:
            return REFUSED
        return None

    async def _repeat(self, payload: dict[str, Any], error: str) -> None:
        for attempt, pause in enumerate(RETRY_AFTER_SECONDS, 1):
            await asyncio.sleep(pause)
            reason = _REASONS.get(error, "connection_failed")
            if await self._attempt(payload, attempt, reason) is None:
                return

    async def close(self) -> None:
        """Gives up the repeats that are still to come."""
        for task in list(self._retries):
            task.cancel()
        await asyncio.gather(*self._retries, return_exceptions=True)
