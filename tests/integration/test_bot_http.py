"""Payloads over HTTP: only what Slack signed lately is read, nothing is done twice, and the answer comes in time."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
from pydantic import ValidationError
from slack_bolt.app.async_app import AsyncApp
from slack_sdk.signature import SignatureVerifier

from bot.chat.slack import endpoint
from bot.chat.slack.endpoint import LARGEST, Endpoint
from bot.chat.slack.manifest import REQUEST_PATH
from bot.chat.slack.signature import signature_of
from bot.config import Settings
from tests.support.bot_world import CARDS, Story, story

ASK = "/access prod-db read 30m because INC-42"


@pytest.fixture
async def told(tmp_path: Path) -> AsyncIterator[Story]:
    async with story(tmp_path, http=True) as running:
        yield running


def url(told: Story) -> str:
    return f"http://127.0.0.1:{told.settings.slack_port}{REQUEST_PATH}"


def headers(told: Story, body: bytes, kind: str = "application/json", age: float = 0, **more: str) -> dict[str, str]:
    """Sign as Slack does, with Slack's own SDK."""
    at = str(int(time.time() - age))
    verifier = SignatureVerifier(told.world.space.signing_secret)
    signature = verifier.generate_signature(timestamp=at, body=body)
    assert signature is not None
    return {"X-Slack-Request-Timestamp": at, "X-Slack-Signature": signature, "Content-Type": kind} | more


async def post(told: Story, body: bytes, given: dict[str, str]) -> tuple[int, str]:
    async with told.world.session.post(url(told), data=body, headers=given) as response:
        return response.status, await response.text()


async def cards(told: Story) -> int:
    return sum(one["from_app"] and not one["ephemeral"] for one in await told.world.seen("bob", CARDS))


def event(id: str = "Ev1") -> bytes:
    inner = {"type": "app_home_opened", "user": "U0BOB00001", "tab": "home", "channel": "D0"}
    return json.dumps({"type": "event_callback", "event_id": id, "team_id": "T0LOCAL001", "event": inner}).encode()


@pytest.mark.parametrize("fault", ["wrong", "stale", "missing"])
async def test_badly_signed_command_is_refused_and_nothing_is_kept(told: Story, fault: str) -> None:
    await told.world.post("faults", signature=fault)
    answer = await told.world.post("command", user="alice", channel=CARDS, text=ASK)
    assert answer["error"] == "http_service_error"
    await asyncio.sleep(0.2)
    assert await cards(told) == 0
    assert "waits for" in await told.whispers("alice", ASK)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"X-Slack-Request-Timestamp": "soon"}, 401),
        ({"X-Slack-Request-Timestamp": "9" * 40}, 401),
        ({"X-Slack-Request-Timestamp": "-1"}, 401),
        ({"X-Slack-Request-Timestamp": "١٢٣"}, 401),
        ({"X-Slack-Signature": "v0=" + "0" * 64}, 401),
        ({"X-Slack-Signature": ""}, 401),
        ({"X-Slack-Signature": "v0=é"}, 401),
        ({}, 200),
    ],
    ids=str,
)
async def test_headers_that_are_not_slacks_are_refused(told: Story, change: dict[str, str], status: int) -> None:
    body = event()
    assert (await post(told, body, headers(told, body) | change))[0] == status


async def test_body_is_checked_byte_by_byte_before_it_is_parsed(told: Story) -> None:
    body = event()
    signed = headers(told, body)
    assert (await post(told, body + b" ", signed))[0] == 401
    assert (await post(told, b"[" * 100_000, signed))[0] == 401
    bad = b"\xff\xfe"
    given = headers(told, b"")
    given["X-Slack-Signature"] = signature_of(told.world.space.signing_secret, given["X-Slack-Request-Timestamp"], bad)
    assert (await post(told, bad, given))[0] == 400
    broken = b"{"
    assert (await post(told, broken, headers(told, broken)))[0] == 400


async def test_large_body_is_refused_without_being_read(told: Story) -> None:
    body = b"x" * (LARGEST + 1)
    assert (await post(told, body, headers(told, body)))[0] == 413


async def test_packed_body_is_checked_as_it_came_and_never_unpacked(told: Story) -> None:
    body = event()
    packed = gzip.compress(body)
    assert (await post(told, packed, headers(told, body, **{"Content-Encoding": "gzip"})))[0] == 401
    large = gzip.compress(b"x" * (LARGEST + 1))
    assert (await post(told, large, headers(told, b"", **{"Content-Encoding": "gzip"})))[0] == 401


async def test_connection_that_says_nothing_or_no_whole_header_is_closed() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    endpoint = Endpoint(AsyncApp(token="xoxb-1", signing_secret="s"), "s", idle=0.2)
    await endpoint.start("127.0.0.1", port)
    try:
        for said in (b"", b"POST /slack/events HTTP/1.1\r\nHost"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(said)
            assert await asyncio.wait_for(reader.read(), 30) == b""
            writer.close()
    finally:
        await endpoint.close()


async def test_replayed_request_is_refused_when_it_is_old_and_changes_nothing_when_it_is_not(told: Story) -> None:
    body = event()
    assert (await post(told, body, headers(told, body, age=290)))[0] == 200
    assert (await post(told, body, headers(told, body, age=310)))[0] == 401
    assert (await post(told, body, headers(told, body, age=-310)))[0] == 401


async def test_slacks_own_checks_are_answered(told: Story) -> None:
    body = json.dumps({"type": "url_verification", "challenge": "abc", "token": "x"}).encode()
    status, text = await post(told, body, headers(told, body))
    assert (status, json.loads(text)["challenge"]) == (200, "abc")
    form = urlencode({"ssl_check": "1", "token": "x"}).encode()
    assert (await post(told, form, headers(told, form, "application/x-www-form-urlencoded")))[0] == 200


async def test_retried_event_is_worked_on_once(told: Story) -> None:
    body = event("EvRetried")
    assert (await post(told, body, headers(told, body)))[0] == 200
    await told.eventually(lambda: _published(told))
    again = {"X-Slack-Retry-Num": "1", "X-Slack-Retry-Reason": "http_timeout"}
    assert (await post(told, body, headers(told, body, **again)))[0] == 200
    await asyncio.sleep(0.3)
    assert len([one for one in await told.calls("views.publish") if one["direction"] == "from_app"]) == 1


async def test_retry_of_an_event_that_never_came_is_worked_on(told: Story) -> None:
    body = event("EvOnlyRetry")
    assert (await post(told, body, headers(told, body, **{"X-Slack-Retry-Num": "2"})))[0] == 200
    await told.eventually(lambda: _published(told))


async def _published(told: Story) -> bool | None:
    return True if await told.calls("views.publish") else None


async def test_payload_delivered_twice_is_worked_on_once(told: Story) -> None:
    await told.world.post("faults", duplicate=1)
    await told.command("alice", ASK)
    card = await told.card()
    await told.world.post("faults", duplicate=1)
    await told.click("bob", "request.approve", card)
    await told.card("open until")
    await asyncio.sleep(0.3)
    assert await cards(told) == 1
    assert len(told.broker.orders) == 1


async def test_form_is_answered_in_the_response(told: Story) -> None:
    await told.command("alice", ASK)
    card = await told.card()
    view = (await told.click("bob", "request.deny", card))["view"]
    answer = await told.world.post("submit", user="bob", view_id=view["id"], values={"Reason": "\u200b"})
    assert answer["error"] == "view_errors"
    answer = await told.world.post("submit", user="bob", view_id=view["id"], values={"Reason": "no ticket"})
    assert answer["ok"], answer
    await told.card("Denied by Bob: no ticket")


async def test_inbox_that_cannot_be_written_acknowledges_nothing_within_three_seconds(
    told: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bot.adapters.boxes import Inbox

    kept, answered = Inbox.keep, asyncio.Event()

    async def slow(self: Inbox, *given: Any) -> bool:
        await answered.wait()
        return await kept(self, *given)

    monkeypatch.setattr(Inbox, "keep", slow)
    body = event("EvSlow")
    async with asyncio.timeout(30):
        status, _ = await post(told, body, headers(told, body))
    answered.set()
    assert status == 503
    assert endpoint.ANSWER_SECONDS < 3


async def test_nothing_but_the_one_address_answers(told: Story) -> None:
    base = url(told).removesuffix(REQUEST_PATH)
    for method, path, status in (("GET", REQUEST_PATH, 405), ("POST", "/", 404), ("GET", "/", 404)):
        async with told.world.session.request(method, base + path) as response:
            assert response.status == status


async def test_slow_sender_is_cut_off(told: Story) -> None:
    async def drip() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(4)

    given = headers(told, b"{")
    try:
        async with told.world.session.post(url(told), data=drip(), headers=given) as response:
            assert response.status == 408
    except aiohttp.ClientError:
        return  # the connection was closed before the rest was sent


def test_http_without_a_signing_secret_does_not_start() -> None:
    with pytest.raises(ValidationError, match="SLACK_SIGNING_SECRET"):
        Settings(slack_mode="http")
