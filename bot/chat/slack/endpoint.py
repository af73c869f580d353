"""Payloads over HTTP: checked byte by byte before anything parses them, then given to the same listeners."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog
from aiohttp import web
from slack_bolt.adapter.aiohttp import to_aiohttp_response
from slack_bolt.app.async_app import AsyncApp
from slack_bolt.request.async_request import AsyncBoltRequest
from slack_bolt.response import BoltResponse

from bot.chat.slack.manifest import REQUEST_PATH
from bot.chat.slack.signature import is_signed, untimely

log = structlog.get_logger()

LARGEST = 1024 * 1024
"""Bytes; a clicked message comes back whole, and a view has at most 250,000."""
BODY_SECONDS = 2.0
ANSWER_SECONDS = 2.8
"""Slack waits for three."""
IDLE_SECONDS = 75.0
"""How long a connection may say nothing, or dawdle over its headers; a proxy in front keeps idle ones for a minute."""


class Endpoint:
    """One address for commands, interactions and events; Slack's retries are told apart by the inbox."""

    def __init__(
        self, app: AsyncApp, secret: str, clock: Callable[[], float] = time.time, idle: float = IDLE_SECONDS
    ) -> None:
        self._app = app
        self._secret = secret
        self._clock = clock
        self._idle = idle
        self._runner: web.AppRunner | None = None
        self._working: set[asyncio.Task[BoltResponse]] = set()

    async def start(self, host: str, port: int) -> None:
        """Listen."""
        server = web.Application(client_max_size=LARGEST)
        server.router.add_post(REQUEST_PATH, self.receive)
        self._runner = web.AppRunner(
            server,
            access_log=None,
            shutdown_timeout=ANSWER_SECONDS,
            keepalive_timeout=self._idle,
            # A body that nobody has checked yet is not unpacked: a few kilobytes can stand for a gigabyte.
            auto_decompress=False,
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()

    async def close(self) -> None:
        """Stop listening; what is being answered is answered."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def receive(self, request: web.Request) -> web.Response:
        """Check and dispatch one request; what is refused is neither parsed nor logged."""
        timestamp = request.headers.get("X-Slack-Request-Timestamp", "")
        if problem := untimely(timestamp, self._clock()):
            return _refused(401, problem)
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return _refused(413, "the body is too large")
        except TimeoutError:
            return _refused(408, "the body does not come")
        if not is_signed(self._secret, timestamp, request.headers.get("X-Slack-Signature", ""), body):
            return _refused(401, "the signature is missing or wrong")
        try:
            parsed = AsyncBoltRequest(
                body=body.decode(), query=request.query_string, headers={**request.headers}, mode="http"
            )
        except ValueError:
            return _refused(400, "the body does not read")
        return await self._dispatch(parsed)

    async def _dispatch(self, parsed: AsyncBoltRequest) -> web.Response:
        work = asyncio.create_task(self._app.async_dispatch(parsed))
        self._working.add(work)
        work.add_done_callback(self._working.discard)
        done, _ = await asyncio.wait({work}, timeout=ANSWER_SECONDS)
        if not done:
            # Not cut off: a row half written would keep the database locked. Unacknowledged, it comes again.
            return _refused(503, "no answer in time")
        return await to_aiohttp_response(work.result())


def _refused(status: int, problem: str) -> web.Response:
    log.warning("slack.refused_request", status=status, problem=problem)
    return web.Response(status=status)
