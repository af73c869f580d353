"""The workspace misbehaves on request, guards its door, and continues where it stopped."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_async_handlers import AsyncRateLimitErrorRetryHandler

from tests.unit.bot.workspace.world import ALICE, GENERAL, MANIFEST, REQUESTS, World, modal, running, section, until


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(tmp_path / "state") as started:
        yield started


def answering(world: World) -> list[str]:
    got: list[str] = []

    @world.app.command("/ask")
    async def ask(ack: Any, body: dict[str, Any]) -> None:
        await ack()
        got.append(body["trigger_id"])

    return got


async def test_rate_limit_tells_how_long_to_wait_and_the_client_waits(world: World) -> None:
    await world.post("faults", status=429, method="chat.postMessage", retry_after=1)
    world.client.retry_handlers.append(AsyncRateLimitErrorRetryHandler(max_retry_count=1))
    began = time.monotonic()
    assert (await world.client.chat_postMessage(channel=REQUESTS, text="late"))["ok"]
    assert time.monotonic() - began > 0.9
    assert len(await world.seen("bob", REQUESTS)) == 1


async def test_server_error_posts_nothing(world: World) -> None:
    await world.post("faults", status=500, count=1)
    with pytest.raises(SlackApiError):
        await world.client.chat_postMessage(channel=REQUESTS, text="x")
    assert await world.seen("bob", REQUESTS) == []


@pytest.mark.parametrize(("drop", "posted"), [("before", 0), ("after", 1)])
async def test_cut_connection_leaves_the_app_unsure(world: World, drop: str, posted: int) -> None:
    await world.post("faults", drop=drop, method="chat.postMessage")
    world.client.retry_handlers.clear()
    with pytest.raises(aiohttp.ClientError):
        await world.client.chat_postMessage(channel=REQUESTS, text="x")
    assert len(await world.seen("bob", REQUESTS)) == posted


async def test_envelope_is_delivered_twice_on_request(world: World) -> None:
    got = answering(world)
    await world.connect()
    await world.post("faults", duplicate=1)
    await world.post("command", user="alice", channel=GENERAL, text="/ask", wait_ms=200)
    await until(lambda: len(got) == 2)
    assert got[0] == got[1]
    await world.post("command", user="alice", channel=GENERAL, text="/ask", wait_ms=100)
    assert len(got) == 3


async def test_late_delivery_finds_its_trigger_expired(world: World) -> None:
    got = answering(world)
    await world.connect()
    await world.post("faults", delay_ms=3200)
    answer = await world.post("command", user="alice", channel=GENERAL, text="/ask")
    assert answer["error"] == "operation_timeout"
    await until(lambda: got)
    with pytest.raises(SlackApiError, match="expired_trigger_id"):
        await world.client.views_open(trigger_id=got[0], view=modal(section("x")))


async def test_app_comes_back_after_its_socket_is_cut(world: World) -> None:
    got = answering(world)
    await world.connect()
    assert (await world.post("faults", drop_socket=True))["sockets"] == 1
    assert world.space.sockets.count == 0
    await until(lambda: world.space.sockets.count == 1, 8)
    await world.post("command", user="alice", channel=GENERAL, text="/ask", wait_ms=100)
    await until(lambda: len(got) == 1)


async def test_app_follows_a_disconnect_to_a_new_socket(world: World) -> None:
    got = answering(world)
    await world.connect()
    await world.post("faults", disconnect=True)
    await until(lambda: sum(e["kind"] == "apps.connections.open" for e in world.space.journal.since(0)) == 2)
    await until(lambda: world.space.sockets.count == 1)
    # What goes to the old socket while it closes nobody hears, as with Slack.
    for _ in range(50):
        await world.post("command", user="alice", channel=GENERAL, text="/ask", wait_ms=100)
        if got:
            break
    assert got


async def test_each_envelope_goes_to_one_of_two_sockets(world: World) -> None:
    got = answering(world)
    await world.connect()
    await world.connect()
    for _ in range(4):
        await world.post("command", user="alice", channel=GENERAL, text="/ask", wait_ms=50)
    assert len(got) == 4


async def test_eleventh_socket_is_turned_away(world: World) -> None:
    async def open_one() -> tuple[aiohttp.ClientWebSocketResponse, dict[str, Any]]:
        url = (await world.client.apps_connections_open(app_token=world.space.app_token))["url"]
        socket = await world.session.ws_connect(url)
        return socket, await socket.receive_json()

    opened = [await open_one() for _ in range(11)]
    assert [hello["num_connections"] for _, hello in opened[:10]] == list(range(1, 11))
    assert opened[10][1]["reason"] == "too_many_websockets"
    for socket, _ in opened:
        await socket.close()


async def test_socket_echoes_pings_and_takes_a_ticket_once(world: World) -> None:
    url = (await world.client.apps_connections_open(app_token=world.space.app_token))["url"]
    async with world.session.ws_connect(url, autoping=False) as socket:
        await socket.receive_json()
        await socket.ping(b"sdk-ping-pong:1.5")
        pong = await socket.receive()
        assert (pong.type, bytes(pong.data)) == (aiohttp.WSMsgType.PONG, b"sdk-ping-pong:1.5")
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await world.session.ws_connect(url)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.test"}, 403),
        ({"Host": "127.0.0.1:1"}, 403),
        ({"Origin": "http://evil.test"}, 403),
        ({"Origin": "null"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({}, 200),
    ],
)
async def test_door_refuses_foreign_pages(world: World, headers: dict[str, str], status: int) -> None:
    body = json.dumps({"user": "alice", "channel": GENERAL, "text": "x"})
    sent = {"Content-Type": "application/json", **headers}
    async with world.session.post(f"{world.url}/local/message", data=body, headers=sent) as response:
        assert response.status == status
    assert len(await world.seen("alice", GENERAL)) == (1 if status == 200 else 0)


async def test_foreign_page_cannot_listen(world: World) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await world.session.ws_connect(f"{world.url}/local/live?as=alice", headers={"Origin": "http://evil.test"})


async def test_live_updates_reach_only_those_who_may_see_them(world: World) -> None:
    alice = await world.session.ws_connect(f"{world.url}/local/live?as=alice")
    gus = await world.session.ws_connect(f"{world.url}/local/live?as=gus")
    await world.client.chat_postMessage(channel=REQUESTS, text="for members")
    await world.client.chat_postEphemeral(channel=REQUESTS, user=ALICE, text="for alice")
    texts = [(await alice.receive_json(timeout=15))["body"]["text"] for _ in range(2)]
    assert texts == ["for members", "for alice"]
    with pytest.raises(asyncio.TimeoutError):
        await gus.receive_json(timeout=0.2)
    await alice.close()
    await gus.close()


async def test_bad_json_and_unknown_names_are_answered_clearly(world: World) -> None:
    for text in ("", "[]", "{", "[" * 100_000):
        async with world.session.post(
            f"{world.url}/local/message", data=text, headers={"Content-Type": "application/json"}
        ) as response:
            assert (response.status, (await response.json())["error"]) == (400, "invalid_json")
    assert (await world.post("message", user="mallory", channel=GENERAL, text="x"))["error"] == "user_not_found"
    assert (await world.post("message", user="gus", channel=REQUESTS, text="x"))["error"] == "channel_not_found"
    assert (await world.post("command", user="alice", channel=GENERAL, text="/nope"))["error"] == "no_such_command"
    assert (await world.post("submit", user="alice", view_id="V0", values={}))["error"] == "view_not_found"
    assert (await world.get("messages", **{"as": "gus"}, channel=REQUESTS))["error"] == "channel_not_found"


async def test_journal_shows_both_directions_without_tokens(world: World) -> None:
    answering(world)
    await world.connect()
    await world.post("command", user="alice", channel=GENERAL, text="/ask secret", wait_ms=50)
    entries = (await world.get("journal"))["entries"]
    assert {"to_app", "from_app"} == {entry["direction"] for entry in entries}
    text = json.dumps(entries)
    assert "/ask" in text
    assert world.space.app_token not in text
    assert world.space.bot_token not in text


async def test_unread_counts_what_came_after_the_mark(world: World) -> None:
    async def unread(user: str) -> int:
        channels = (await world.get("channels", **{"as": user}))["channels"]
        return int(next(channel["unread"] for channel in channels if channel["id"] == REQUESTS))

    await world.client.chat_postMessage(channel=REQUESTS, text="a")
    second = await world.client.chat_postMessage(channel=REQUESTS, text="b")
    assert await unread("bob") == 2
    await world.post("read", user="bob", channel=REQUESTS, ts=second["ts"])
    assert (await unread("bob"), await unread("alice")) == (0, 2)


async def test_restart_keeps_ids_tokens_messages_files_and_changes(tmp_path: Path) -> None:
    async with running(tmp_path / "state") as world:
        token = world.space.bot_token
        card = await world.client.chat_postMessage(channel=REQUESTS, text="card", blocks=[section("card")])
        await world.client.files_upload_v2(channel=REQUESTS, thread_ts=card["ts"], filename="t.txt", content="kept")
        await world.client.chat_postEphemeral(channel=REQUESTS, user=ALICE, text="gone")
        await world.client.views_publish(user_id=ALICE, view={"type": "home", "blocks": [section("home")]})
        await world.post("groups", group="dbas", users=["dana"])
        await world.post("people", user="erin", deleted=True)
        await world.post("read", user="alice", channel=REQUESTS, ts=card["ts"])
    async with running(tmp_path / "state") as again:
        assert again.space.bot_token == token
        assert [m["text"] for m in await again.seen("alice", REQUESTS)] == ["card"]
        file = (await again.seen("alice", REQUESTS, thread_ts=card["ts"]))[1]["files"][0]
        async with again.session.get(again.url + file["url"], params={"as": "alice"}) as response:
            assert await response.text() == "kept"
        assert (await again.get("views", **{"as": "alice"}))["home"]["blocks"][0]["text"]["text"] == "home"
        assert (await again.client.usergroups_users_list(usergroup="S0DBAS0001"))["users"] == ["U0DANA0001"]
        assert (await again.client.users_info(user="U0ERIN0001"))["user"]["deleted"] is True
        later = await again.client.chat_postMessage(channel=REQUESTS, text="later")
        assert later["ts"] > card["ts"]
        edited = await again.client.chat_update(channel=REQUESTS, ts=card["ts"], text="edited")
        assert edited["ok"]


async def test_program_tells_when_it_is_ready_and_ends_on_sigterm(tmp_path: Path) -> None:
    manifest, ready = tmp_path / "manifest.json", tmp_path / "ready.json"
    manifest.write_text(json.dumps(MANIFEST))
    arguments = ["--state", str(tmp_path / "s"), "--port", "0", "--manifest", str(manifest), "--ready", str(ready)]
    program = await asyncio.create_subprocess_exec(sys.executable, "-m", "bot.workspace", *arguments)
    try:
        await until(ready.exists, 8)
        told = json.loads(ready.read_text())
        app_file = tmp_path / "s" / "app.json"
        app = json.loads(app_file.read_text())
        assert (told["pid"], told["app"]) == (program.pid, str(app_file))
        assert app["api_url"] == f"{told['url']}/api/"
        assert (app["users"]["alice"], app["channels"]["access-requests"]) == (ALICE, REQUESTS)
        assert app_file.stat().st_mode & 0o777 == 0o600
        async with aiohttp.ClientSession() as session, session.get(told["url"]) as page:
            assert "default-src 'self'" in page.headers["Content-Security-Policy"]
            live = await session.ws_connect(f"{told['url']}/local/live?as=alice")
            began = time.monotonic()
            program.send_signal(signal.SIGTERM)
            assert await program.wait() == 0
            assert time.monotonic() - began < 10
            await live.close()
    finally:
        if program.returncode is None:
            os.kill(program.pid, signal.SIGKILL)


async def test_program_refuses_a_broken_manifest_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text("{}")
    arguments = ["--state", str(tmp_path), "--manifest", str(tmp_path / "m.json")]
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bot.workspace", *arguments, stderr=asyncio.subprocess.PIPE
    )
    _, said = await program.communicate()
    assert program.returncode == 2
    assert said.decode() == "workspace: `display_information.name` is missing\n"
