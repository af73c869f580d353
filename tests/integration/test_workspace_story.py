"""What people do in the workspace reaches a real Bolt app, and what the app does reaches them."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from slack_sdk.errors import SlackApiError

from tests.unit.bot.workspace.world import (
    ALICE,
    BOB,
    GENERAL,
    REQUESTS,
    SAM,
    World,
    button,
    field_of,
    modal,
    running,
    section,
    until,
)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(tmp_path / "state") as started:
        yield started


async def test_command_reaches_the_app_and_its_card_reaches_the_person(world: World) -> None:
    got: list[dict[str, Any]] = []

    @world.app.command("/ask")
    async def ask(ack: Any, body: dict[str, Any], client: Any) -> None:
        await ack()
        got.append(body)
        await client.chat_postMessage(channel=REQUESTS, text="a card", blocks=[section("a *card*")])

    await world.connect()
    answer = await world.post(
        "command", user="alice", channel="general", text="/ask @bob about #incidents <now> & then"
    )
    assert answer["ok"]
    assert [m["text"] for m in answer["messages"]] == ["a card"]
    assert got[0]["text"] == "<@U0BOB00001|bob> about <#C0INCIDNT1|incidents> &lt;now&gt; &amp; then"
    assert got[0]["user_id"] == ALICE
    assert got[0]["channel_id"] == GENERAL
    assert (await world.seen("bob", "#access-requests"))[0]["user"] == "U0APPBOT01"


async def test_command_without_should_escape_arrives_as_typed(world: World) -> None:
    got: list[str] = []

    @world.app.command("/raw")
    async def raw(ack: Any, body: dict[str, Any]) -> None:
        got.append(body["text"])
        await ack("as typed")

    await world.connect()
    answer = await world.post("command", user="alice", channel="general", text="/raw @bob <x>")
    assert got == ["@bob <x>"]
    assert answer["messages"][0]["text"] == "as typed"
    assert answer["messages"][0]["ephemeral"]


async def test_click_reaches_the_app_and_the_edit_comes_back(world: World) -> None:
    got: list[dict[str, Any]] = []

    @world.app.action("approve")
    async def approve(ack: Any, body: dict[str, Any], client: Any) -> None:
        await ack()
        got.append(body)
        blocks = [section("approved")]
        await client.chat_update(channel=REQUESTS, ts=body["message"]["ts"], text="approved", blocks=blocks)

    await world.connect()
    actions = {"type": "actions", "elements": [button("approve", "r1", style="primary")]}
    card = await world.client.chat_postMessage(channel=REQUESTS, text="card", blocks=[section("card"), actions])
    answer = await world.post("click", user="Bob", channel=REQUESTS, message_ts=card["ts"], action_id="approve")
    assert [m["text"] for m in answer["messages"]] == ["approved"]
    assert got[0]["user"] == {"id": BOB, "username": "bob", "name": "bob", "team_id": "T0LOCAL001"}
    assert got[0]["actions"][0]["value"] == "r1"
    assert got[0]["enterprise"] is None
    assert got[0]["container"]["message_ts"] == card["ts"]
    late = await world.post("click", user="bob", channel=REQUESTS, message_ts=card["ts"], action_id="approve")
    assert late == {"ok": False, "error": "no_such_button", "messages": [], "view": None}


async def test_forged_value_and_stale_button_can_be_sent_on_purpose(world: World) -> None:
    got: list[str] = []

    @world.app.action("approve")
    async def approve(ack: Any, action: dict[str, Any], respond: Any) -> None:
        await ack()
        got.append(action["value"])
        await respond("no")

    await world.connect()
    actions = {"type": "actions", "elements": [button("approve", "r1")]}
    card = await world.client.chat_postMessage(channel=REQUESTS, text="card", blocks=[actions])
    where = {"user": "bob", "channel": REQUESTS, "message_ts": card["ts"], "action_id": "approve"}
    await world.post("click", **where, value="forged")
    await world.client.chat_update(channel=REQUESTS, ts=card["ts"], text="done")
    answer = await world.post("click", **where, value="stale", force=True)
    assert got == ["forged", "stale"]
    assert answer["messages"][0]["text"] == "no"


async def test_person_outside_a_channel_cannot_click_in_it(world: World) -> None:
    actions = {"type": "actions", "elements": [button("approve")]}
    card = await world.client.chat_postMessage(channel=REQUESTS, text="card", blocks=[actions])
    answer = await world.post("click", user="gus", channel=REQUESTS, message_ts=card["ts"], action_id="approve")
    assert answer["error"] == "channel_not_found"


async def test_ephemeral_is_seen_by_its_reader_alone_and_cannot_be_edited(world: World) -> None:
    sent = await world.client.chat_postEphemeral(channel=REQUESTS, user=ALICE, text="for you")
    assert [m["text"] for m in await world.seen("alice", REQUESTS)] == ["for you"]
    assert await world.seen("bob", REQUESTS) == []
    with pytest.raises(SlackApiError) as refused:
        await world.client.chat_update(channel=REQUESTS, ts=sent["message_ts"], text="changed")
    assert refused.value.response["error"] == "message_not_found"


async def test_button_in_an_ephemeral_answers_through_its_response_url(world: World) -> None:
    got: list[dict[str, Any]] = []

    @world.app.action("again")
    async def again(ack: Any, body: dict[str, Any], respond: Any) -> None:
        await ack()
        got.append(body)
        await respond(text="a new line", replace_original=True)

    await world.connect()
    actions = {"type": "actions", "elements": [button("again")]}
    sent = await world.client.chat_postEphemeral(channel=REQUESTS, user=ALICE, text="line", blocks=[actions])
    where = {"channel": REQUESTS, "message_ts": sent["message_ts"], "action_id": "again"}
    assert (await world.post("click", user="bob", **where))["error"] == "message_not_found"
    await world.post("click", user="alice", **where)
    assert "message" not in got[0]
    assert got[0]["container"]["is_ephemeral"]
    assert [m["text"] for m in await world.seen("alice", REQUESTS)] == ["a new line"]


async def test_response_url_works_five_times(world: World) -> None:
    urls: list[str] = []

    @world.app.command("/ask")
    async def ask(ack: Any, body: dict[str, Any]) -> None:
        urls.append(body["response_url"])
        await ack()

    await world.connect()
    await world.post("command", user="alice", channel=GENERAL, text="/ask", wait_ms=100)
    statuses = []
    for number in range(6):
        async with world.session.post(urls[0], json={"text": f"answer {number}"}) as response:
            statuses.append(response.status)
    assert statuses == [200] * 5 + [404]
    assert len(await world.seen("alice", GENERAL)) == 5
    assert await world.seen("bob", GENERAL) == []


async def test_modal_opens_refuses_inline_and_closes(world: World) -> None:
    got: list[dict[str, Any]] = []

    @world.app.command("/ask")
    async def ask(ack: Any, body: dict[str, Any], client: Any) -> None:
        await ack()
        await client.views_open(trigger_id=body["trigger_id"], view=modal(field_of("Reason", "reason")))

    @world.app.view("form")
    async def form(ack: Any, view: dict[str, Any], client: Any) -> None:
        reason = view["state"]["values"]["reason_block"]["reason"]["value"]
        if len(reason) < 5:
            await ack(response_action="errors", errors={"reason_block": "say more"})
            return
        await ack()
        got.append(view)
        await client.chat_postMessage(channel=REQUESTS, text=f"because {reason}")

    await world.connect()
    opened = await world.post("command", user="alice", channel=GENERAL, text="/ask")
    view_id = opened["view"]["id"]
    empty = await world.post("submit", user="alice", view_id=view_id, values={})
    assert empty["errors"] == {"reason_block": "This is a required field"}
    short = await world.post("submit", user="alice", view_id=view_id, values={"Reason": "no"})
    assert short["error"] == "view_errors"
    assert short["view"]["errors"] == {"reason_block": "say more"}
    done = await world.post("submit", user="alice", view_id=view_id, values={"reason": "INC-42"})
    assert done["ok"]
    assert done["view"] is None
    assert [m["text"] for m in done["messages"]] == ["because INC-42"]
    assert got[0]["id"] == view_id
    assert (await world.get("views", **{"as": "alice"}))["views"] == []


async def test_modals_stack_three_deep_and_closing_tells_the_app(world: World) -> None:
    closed: list[str] = []
    refusals: list[str] = []

    @world.app.shortcut("begin")
    async def begin(ack: Any, body: dict[str, Any], client: Any) -> None:
        await ack()
        view = modal({"type": "actions", "elements": [button("deeper")]}, notify_on_close=True)
        await client.views_open(trigger_id=body["trigger_id"], view=view)

    @world.app.action("deeper")
    async def deeper(ack: Any, body: dict[str, Any], client: Any) -> None:
        await ack()
        view = modal({"type": "actions", "elements": [button("deeper")]}, notify_on_close=True)
        try:
            await client.views_push(trigger_id=body["trigger_id"], view=view)
        except SlackApiError as refused:
            refusals.append(refused.response["error"])

    @world.app.view_closed("form")
    async def gone(ack: Any, view: dict[str, Any]) -> None:
        await ack()
        closed.append(view["id"])

    await world.connect()
    first = (await world.post("shortcut", user="alice", callback_id="begin"))["view"]
    second = (await world.post("click", user="alice", view_id=first["id"], action_id="deeper"))["view"]
    assert second["previous_view_id"] == first["id"]
    buried = await world.post("click", user="alice", view_id=first["id"], action_id="deeper")
    assert buried["error"] == "view_not_found"
    third = (await world.post("click", user="alice", view_id=second["id"], action_id="deeper"))["view"]
    assert third["root_view_id"] == first["id"]
    still = await world.post("click", user="alice", view_id=third["id"], action_id="deeper", wait_ms=300)
    assert still["view"]["id"] == third["id"]
    assert refusals == ["push_limit_reached"]
    back = await world.post("close", user="alice", view_id=third["id"])
    assert back["view"]["id"] == second["id"]
    await world.post("close", user="alice", view_id=second["id"], all=True)
    assert closed[0] == third["id"]
    assert set(closed[1:]) == {first["id"], second["id"]}


async def test_file_is_shared_into_a_thread_and_read_only_by_members(world: World) -> None:
    card = await world.client.chat_postMessage(channel=REQUESTS, text="card")
    await world.client.files_upload_v2(
        channel=REQUESTS, thread_ts=card["ts"], filename="transcript.txt", content="select 1;\n", title="Transcript"
    )
    thread = await world.seen("bob", REQUESTS, thread_ts=card["ts"])
    file = thread[1]["files"][0]
    assert (file["name"], file["title"]) == ("transcript.txt", "Transcript")
    async with world.session.get(world.url + file["url"], params={"as": "bob"}) as response:
        assert await response.text() == "select 1;\n"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    async with world.session.get(world.url + file["url"], params={"as": "gus"}) as response:
        assert response.status == 404
    async with world.session.get(world.url + file["url"].split("?")[0]) as response:
        assert response.status == 404


async def test_app_that_does_not_acknowledge_shows_a_timeout(world: World) -> None:
    @world.app.command("/ask")
    async def ask(ack: Any) -> None:
        return

    await world.connect()
    began = time.monotonic()
    answer = await world.post("command", user="alice", channel=GENERAL, text="/ask")
    assert 2.5 < time.monotonic() - began < 10
    assert answer["error"] == "operation_timeout"
    assert answer["messages"][0]["text"] == '/ask failed with the error "operation_timeout"'


async def test_without_a_socket_the_person_is_told_at_once(world: World) -> None:
    answer = await world.post("command", user="alice", channel=GENERAL, text="/ask")
    assert answer["error"] == "app_not_connected"


async def test_mention_and_direct_message_become_events(world: World) -> None:
    got: list[tuple[str, str]] = []

    @world.app.event("app_mention")
    async def mention(event: dict[str, Any], say: Any) -> None:
        got.append((event["type"], event["text"]))
        await say("yes?", thread_ts=event["ts"])

    @world.app.event("message")
    async def direct(event: dict[str, Any], say: Any) -> None:
        got.append((event["channel_type"], event["text"]))
        await say("hello")

    await world.connect()
    asked = await world.post("message", user="alice", channel="access-requests", text="@helper hi")
    assert [m["text"] for m in asked["messages"]] == ["<@U0APPBOT01> hi", "yes?"]
    told = await world.post("message", user="alice", channel="@helper", text="psst")
    assert [m["text"] for m in told["messages"]] == ["psst", "hello"]
    assert got == [("app_mention", "<@U0APPBOT01> hi"), ("im", "psst")]
    assert [m["text"] for m in await world.seen("alice", "@helper")] == ["psst", "hello"]
    assert await world.seen("bob", "@helper") == []


async def test_home_tab_is_published_when_opened(world: World) -> None:
    @world.app.event("app_home_opened")
    async def opened(event: dict[str, Any], client: Any) -> None:
        await client.views_publish(user_id=event["user"], view={"type": "home", "blocks": [section("yours")]})

    await world.connect()
    await world.post("home", user="alice")
    home = (await world.get("views", **{"as": "alice"}))["home"]
    assert home["blocks"][0]["text"]["text"] == "yours"
    assert (await world.get("views", **{"as": "bob"}))["home"] is None


async def test_event_that_nobody_acknowledged_is_sent_again(world: World) -> None:
    got: list[dict[str, Any]] = []

    @world.app.event("app_mention")
    async def mention(body: dict[str, Any]) -> None:
        got.append(body)

    await world.connect()
    await world.post("faults", lose_ack=1)
    await world.post("message", user="alice", channel=REQUESTS, text="@helper hi")
    await until(lambda: len(got) == 2)
    assert got[0]["event_id"] == got[1]["event_id"]


async def test_stranger_acts_with_a_foreign_team(world: World) -> None:
    got: list[dict[str, Any]] = []

    @world.app.action("approve")
    async def approve(ack: Any, body: dict[str, Any]) -> None:
        await ack()
        got.append(body["user"])

    await world.connect()
    actions = {"type": "actions", "elements": [button("approve")]}
    card = await world.client.chat_postMessage(channel="C0PARTNER1", text="card", blocks=[actions])
    await world.post("click", user="sam", channel="partners", message_ts=card["ts"], action_id="approve", wait_ms=50)
    assert got[0]["id"] == SAM
    assert got[0]["team_id"] == "T0PARTNER1"


async def test_thread_shows_its_parent_and_replies_and_the_channel_only_the_parent(world: World) -> None:
    card = await world.client.chat_postMessage(channel=REQUESTS, text="card")
    await world.client.chat_postMessage(channel=REQUESTS, thread_ts=card["ts"], text="reply")
    said = await world.post("message", user="bob", channel=REQUESTS, text="mine", thread_ts=card["ts"])
    assert said["messages"][0]["thread_ts"] == card["ts"]
    assert [m["text"] for m in await world.seen("alice", REQUESTS)] == ["card"]
    assert [m["text"] for m in await world.seen("alice", REQUESTS, thread_ts=card["ts"])] == ["card", "reply", "mine"]
    refused = await world.post("command", user="bob", channel=REQUESTS, text="/ask", thread_ts=card["ts"])
    assert refused["error"] == "commands_not_in_threads"


async def test_messages_since_a_moment_leaves_out_what_came_before(world: World) -> None:
    first = await world.client.chat_postMessage(channel=REQUESTS, text="one")
    await world.client.chat_postMessage(channel=REQUESTS, text="two")
    assert [m["text"] for m in await world.seen("bob", REQUESTS, since=first["ts"])] == ["two"]
