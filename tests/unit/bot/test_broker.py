"""The broker's HTTP API as the bot reads it, from a server whose answers come in pieces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bot.adapters import broker as module
from bot.adapters.broker import HttpBroker
from bot.ports import BrokerAway, Refusal
from tests.unit.bot.stored import Still

LINE = b"x" * 199 + b"\n"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def _broker(handler: Handler) -> AsyncIterator[HttpBroker]:
    app = web.Application()
    app.router.add_get("/v1/recordings/{id}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        async with aiohttp.ClientSession() as session:
            yield HttpBroker(session, f"http://127.0.0.1:{port}", Ed25519PrivateKey.generate(), Still())
    finally:
        await runner.cleanup()


async def _in_pieces(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(10):
        await response.write(LINE * 100)
        await asyncio.sleep(0.005)
    await response.write_eof()
    return response


async def test_a_recording_that_comes_in_pieces_is_read_to_its_end() -> None:
    async with _broker(_in_pieces) as broker:
        assert await broker.recording("g1", "text") == LINE * 1000


async def test_a_recording_that_is_too_large_ends_with_a_whole_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RECORDING", 30_050)
    async with _broker(_in_pieces) as broker:
        assert await broker.recording("g1", "text") == LINE * 150


async def test_a_recording_whose_end_is_missing_is_not_a_recording() -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(LINE * 100)
        assert request.transport is not None
        request.transport.close()
        return response

    async with _broker(cut) as broker:
        with pytest.raises(BrokerAway):
            await broker.recording("g1", "text")


async def test_a_recording_that_is_not_there_is_a_refusal() -> None:
    async def missing(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"code": "not_found", "message": "there is no such recording"}, status=404)

    async with _broker(missing) as broker:
        with pytest.raises(Refusal) as caught:
            await broker.recording("g1", "text")
    assert caught.value.problem.code == "not_found"
