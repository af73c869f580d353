"""The Web API refuses and answers as Slack does."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from tests.unit.bot.workspace.world import (
    ALICE,
    BOB,
    DANA,
    GENERAL,
    GUS,
    MANIFEST,
    PARTNERS,
    REQUESTS,
    SAM,
    World,
    button,
    field_of,
    modal,
    running,
    section,
)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(tmp_path / "state") as started:
        yield started


async def refusal(client: AsyncWebClient, method: str, **args: Any) -> Any:
    with pytest.raises(SlackApiError) as refused:
        await client.api_call(method, json=args)
    return refused.value.response


@pytest.mark.parametrize(
    ("method", "args", "error"),
    [
        ("nonsense.method", {}, "unknown_method"),
        ("apps.connections.open", {}, "not_allowed_token_type"),
        ("chat.postMessage", {"channel": "C0NOWHERE0", "text": "x"}, "channel_not_found"),
        ("chat.postMessage", {"text": "x"}, "channel_not_found"),
        ("chat.postMessage", {"channel": GENERAL, "text": "x"}, "not_in_channel"),
        ("chat.postMessage", {"channel": REQUESTS}, "no_text"),
        ("chat.postMessage", {"channel": REQUESTS, "text": " \n"}, "no_text"),
        ("chat.postMessage", {"channel": REQUESTS, "text": "x", "blocks": "{"}, "invalid_blocks_format"),
        ("chat.postMessage", {"channel": REQUESTS, "text": "x", "blocks": [{"type": "no"}]}, "invalid_blocks"),
        ("chat.postMessage", {"channel": REQUESTS, "blocks": [section("x" * 2999)] * 5}, "msg_blocks_too_long"),
        ("chat.postMessage", {"channel": REQUESTS, "text": "x", "thread_ts": "1.1"}, "thread_not_found"),
        ("chat.postMessage", {"channel": REQUESTS, "text": "x", "metadata": {"a": 1}}, "invalid_metadata_schema"),
        ("chat.postMessage", {"channel": REQUESTS, "text": "x", "attachments": [{}]}, "invalid_attachments"),
        ("chat.update", {"channel": REQUESTS, "ts": "1.1", "text": "x"}, "message_not_found"),
        ("chat.delete", {"channel": REQUESTS, "ts": "1.1"}, "message_not_found"),
        ("chat.postEphemeral", {"channel": REQUESTS, "user": GUS, "text": "x"}, "user_not_in_channel"),
        ("chat.postEphemeral", {"channel": GENERAL, "user": ALICE, "text": "x"}, "not_in_channel"),
        ("conversations.info", {"channel": "C0NOWHERE0"}, "channel_not_found"),
        ("conversations.history", {"channel": GENERAL}, "not_in_channel"),
        ("conversations.replies", {"channel": REQUESTS, "ts": "1.1"}, "thread_not_found"),
        ("conversations.open", {"users": "U0NOBODY00"}, "user_not_found"),
        ("users.info", {"user": "U0NOBODY00"}, "user_not_found"),
        ("users.lookupByEmail", {"email": "nobody@example.test"}, "users_not_found"),
        ("usergroups.users.list", {"usergroup": "S0NOTHING0"}, "no_such_subteam"),
        ("views.open", {"trigger_id": "1.2.3", "view": modal(section("x"))}, "invalid_trigger_id"),
        ("views.update", {"view_id": "V0", "view": {}}, "not_found"),
        ("views.publish", {"user_id": "U0NOBODY00", "view": {}}, "invalid_arguments"),
        ("files.getUploadURLExternal", {"filename": "a"}, "invalid_arguments"),
        ("files.completeUploadExternal", {"files": [{"id": "F0"}]}, "file_not_found"),
        ("files.info", {"file": "F0"}, "file_not_found"),
        ("reactions.add", {"channel": REQUESTS, "timestamp": "1.1", "name": "eyes"}, "message_not_found"),
        ("team.info", {}, "missing_scope"),
    ],
)
async def test_refusal_has_slacks_name(world: World, method: str, args: dict[str, Any], error: str) -> None:
    assert (await refusal(world.client, method, **args))["error"] == error


async def test_token_is_asked_for_and_checked(world: World) -> None:
    async with world.session.post(f"{world.url}/api/auth.test") as response:
        assert (await response.json())["error"] == "not_authed"
    stranger = AsyncWebClient(token="xoxb-wrong", base_url=f"{world.url}/api/")
    assert (await refusal(stranger, "auth.test"))["error"] == "invalid_auth"
    assert (await world.client.auth_test())["user_id"] == "U0APPBOT01"


async def test_invalid_blocks_say_where(world: World) -> None:
    blocks = [{"type": "header", "text": {"type": "plain_text", "text": "x" * 151}}]
    answer = await refusal(world.client, "chat.postMessage", channel=REQUESTS, text="x", blocks=blocks)
    words = "must be less than 151 characters [json-pointer:/blocks/0/text/text]"
    assert answer["response_metadata"]["messages"] == [f"[ERROR] {words}"]
    assert answer["errors"] == [words]


async def test_arguments_come_from_query_form_and_json(world: World) -> None:
    headers = {"Authorization": f"Bearer {world.space.bot_token}"}
    url = f"{world.url}/api/chat.postMessage"
    blocks = json.dumps([section("x")])
    async with world.session.post(
        url, params={"channel": REQUESTS, "team_id": "T1"}, json={"text": "a"}, headers=headers
    ) as r:
        assert (await r.json())["ok"]
    async with world.session.post(url, data={"channel": REQUESTS, "blocks": blocks, "text": "b"}, headers=headers) as r:
        assert (await r.json())["message"]["blocks"][0]["text"]["text"] == "x"
    async with world.session.get(url, params={"channel": REQUESTS, "text": "c"}, headers=headers) as r:
        assert (await r.json())["ok"]
    assert [m["text"] for m in await world.seen("bob", REQUESTS)] == ["a", "b", "c"]


async def test_update_with_text_alone_removes_the_blocks_and_marks_it_edited(world: World) -> None:
    card = await world.client.chat_postMessage(channel=REQUESTS, text="a", blocks=[section("a")])
    await world.client.chat_update(channel=REQUESTS, ts=card["ts"], text="b", blocks=[section("b")])
    assert "edited" not in world.space.messages.find(REQUESTS, card["ts"]).body  # type: ignore[union-attr]
    await world.client.chat_update(channel=REQUESTS, ts=card["ts"], text="c")
    seen = (await world.seen("bob", REQUESTS))[0]
    assert (seen["text"], seen["blocks"], seen["edited"]) == ("c", [], True)
    too_long = await refusal(world.client, "chat.update", channel=REQUESTS, ts=card["ts"], text="x" * 4001)
    assert too_long["error"] == "msg_too_long"


async def test_someone_elses_message_cannot_be_edited_or_deleted(world: World) -> None:
    said = await world.post("message", user="alice", channel=REQUESTS, text="mine")
    ts = said["messages"][0]["ts"]
    edit = await refusal(world.client, "chat.update", channel=REQUESTS, ts=ts, text="x")
    delete = await refusal(world.client, "chat.delete", channel=REQUESTS, ts=ts)
    assert (edit["error"], delete["error"]) == ("cant_update_message", "cant_delete_message")


async def test_metadata_is_kept_and_given_only_when_asked_for(world: World) -> None:
    metadata = {"event_type": "card", "event_payload": {"id": "r1"}}
    card = await world.client.chat_postMessage(channel=REQUESTS, text="a", metadata=metadata)
    await world.client.chat_update(channel=REQUESTS, ts=card["ts"], text="b")
    bare = await world.client.conversations_history(channel=REQUESTS)
    full = await world.client.conversations_history(channel=REQUESTS, include_all_metadata=True)
    assert "metadata" not in bare["messages"][0]
    assert full["messages"][0]["metadata"] == metadata
    thread = await world.client.conversations_replies(channel=REQUESTS, ts=card["ts"], include_all_metadata=True)
    assert thread["messages"][0]["metadata"] == metadata


async def test_history_is_newest_first_without_ephemerals_and_in_pages(world: World) -> None:
    for number in range(5):
        await world.client.chat_postMessage(channel=REQUESTS, text=str(number))
    await world.client.chat_postEphemeral(channel=REQUESTS, user=ALICE, text="secret")
    first = await world.client.conversations_history(channel=REQUESTS, limit=3)
    rest = await world.client.conversations_history(
        channel=REQUESTS, limit=3, cursor=first["response_metadata"]["next_cursor"]
    )
    assert [m["text"] for m in [*first["messages"], *rest["messages"]]] == ["4", "3", "2", "1", "0"]


async def test_reply_to_a_reply_joins_the_parents_thread(world: World) -> None:
    card = await world.client.chat_postMessage(channel=REQUESTS, text="card")
    one = await world.client.chat_postMessage(channel=REQUESTS, text="one", thread_ts=card["ts"])
    two = await world.client.chat_postMessage(channel=REQUESTS, text="two", thread_ts=one["ts"], reply_broadcast=True)
    assert two["message"]["thread_ts"] == card["ts"]
    assert [m["text"] for m in await world.seen("bob", REQUESTS)] == ["card", "two"]
    replies = await world.client.conversations_replies(channel=REQUESTS, ts=card["ts"])
    assert [m["text"] for m in replies["messages"]] == ["card", "one", "two"]
    assert replies["messages"][0]["reply_count"] == 2


async def test_people_look_as_slack_describes_them(world: World) -> None:
    alice = (await world.client.users_info(user=ALICE))["user"]
    assert (alice["name"], alice["profile"]["email"], alice["is_restricted"]) == ("alice", "alice@example.test", False)
    assert (await world.client.users_info(user=GUS))["user"]["is_restricted"] is True
    sam = (await world.client.users_info(user=SAM))["user"]
    assert (sam["is_stranger"], sam["team_id"], "email" in sam["profile"]) == (True, "T0PARTNER1", False)
    await world.post("people", user="dana", deleted=True)
    dana = (await world.client.users_info(user=DANA))["user"]
    assert dana["deleted"] is True
    assert "is_restricted" not in dana
    assert (await world.post("message", user="dana", channel=REQUESTS, text="x"))["error"] == "account_inactive"
    group = await world.client.usergroups_users_list(usergroup="S0DBAS0001")
    assert group["users"] == [BOB]


async def test_channels_say_who_is_in_them_and_whether_they_are_shared(world: World) -> None:
    assert (await world.client.conversations_info(channel=PARTNERS))["channel"]["is_ext_shared"] is True
    general = (await world.client.conversations_info(channel=GENERAL))["channel"]
    assert (general["is_member"], general["is_ext_shared"]) == (False, False)
    assert SAM in (await world.client.conversations_members(channel=PARTNERS))["members"]
    direct = (await world.client.conversations_open(users=ALICE))["channel"]["id"]
    await world.client.chat_postMessage(channel=direct, text="one")
    await world.client.chat_postMessage(channel=ALICE, text="two")
    assert [m["text"] for m in await world.seen("alice", "@helper")] == ["one", "two"]


async def test_app_that_is_invited_may_post(world: World) -> None:
    await world.post("command", user="alice", channel="general", text="/invite @helper")
    assert (await world.client.chat_postMessage(channel=GENERAL, text="hello"))["ok"]


async def test_email_needs_its_scope(tmp_path: Path) -> None:
    manifest = {**MANIFEST, "oauth_config": {"scopes": {"bot": ["users:read"]}}}
    async with running(tmp_path / "other", manifest) as world:
        assert "email" not in (await world.client.users_info(user=ALICE))["user"]["profile"]
        answer = await refusal(world.client, "users.lookupByEmail", email="alice@example.test")
        assert (answer["error"], answer["needed"]) == ("missing_scope", "users:read.email")


async def test_view_that_breaks_a_rule_is_refused_and_spends_no_trigger(world: World) -> None:
    trigger = world.space.triggers.make(ALICE)
    view = modal(field_of("Reason", "reason"), title={"type": "plain_text", "text": "x" * 25})
    refused = await refusal(world.client, "views.open", trigger_id=trigger, view=view)
    assert refused["error"] == "invalid_arguments"
    assert "/view/title/text" in refused["response_metadata"]["messages"][0]
    good = modal(section("x"))
    assert (await world.client.views_open(trigger_id=trigger, view=good))["ok"]
    assert (await refusal(world.client, "views.open", trigger_id=trigger, view=good))["error"] == "exchanged_trigger_id"
    big = modal(*[section("x" * 3000) for _ in range(90)])
    large = await refusal(world.client, "views.open", trigger_id=world.space.triggers.make(ALICE), view=big)
    assert large["error"] == "view_too_large"


async def test_view_update_checks_the_hash(world: World) -> None:
    opened = await world.client.views_open(trigger_id=world.space.triggers.make(ALICE), view=modal(section("a")))
    view = opened["view"]
    done = await world.client.views_update(view_id=view["id"], hash=view["hash"], view=modal(section("b")))
    assert done["view"]["id"] == view["id"]
    late = await refusal(world.client, "views.update", view_id=view["id"], hash=view["hash"], view=modal(section("c")))
    assert late["error"] == "hash_conflict"


async def test_blocks_validate_needs_no_token_and_points_at_the_fault(world: World) -> None:
    async def validate(**body: Any) -> Any:
        async with world.session.post(f"{world.url}/api/blocks.validate", json=body) as response:
            return await response.json()

    assert await validate(blocks=[section("x")]) == {"ok": True}
    assert await validate(blocks=json.dumps([section("x")])) == {"ok": True}
    wrong = await validate(blocks=[{"type": "section", "text": {"type": "invalid", "text": "x"}}])
    assert wrong["error"] == "invalid_blocks"
    assert wrong["errors"][0] == {
        "code": "failed_constraint",
        "message": "unsupported type: invalid",
        "pointer": "/0/text/type",
        "constraint": {"type": "enum", "expected": ["plain_text", "mrkdwn"]},
    }
    assert (await validate(view=modal(field_of("a", "b"), submit=None)))["error"] == "invalid_view"
    assert (await validate(blocks=[], view={}))["error"] == "invalid_arguments"


async def test_deleting_a_parent_leaves_a_tombstone_and_a_reply_vanishes(world: World) -> None:
    card = await world.client.chat_postMessage(channel=REQUESTS, text="card", blocks=[section("card")])
    reply = await world.client.chat_postMessage(channel=REQUESTS, text="one", thread_ts=card["ts"])
    await world.client.chat_delete(channel=REQUESTS, ts=card["ts"])
    assert (await world.seen("bob", REQUESTS))[0]["subtype"] == "tombstone"
    await world.client.chat_delete(channel=REQUESTS, ts=reply["ts"])
    assert len(await world.seen("bob", REQUESTS, thread_ts=card["ts"])) == 1


async def test_permalink_leads_to_the_message_in_the_page(world: World) -> None:
    actions = {"type": "actions", "elements": [button("a")]}
    card = await world.client.chat_postMessage(channel=REQUESTS, text="card", blocks=[actions])
    link = (await world.client.chat_getPermalink(channel=REQUESTS, message_ts=card["ts"]))["permalink"]
    async with world.session.get(link, allow_redirects=False) as response:
        assert response.headers["Location"] == f"/#{REQUESTS}/{card['ts']}"
