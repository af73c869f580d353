"""Whatever fails on the way, every decision and every message happens once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bot.chat.slack import delivery
from tests.support.bot_world import CARDS, Story, shown, story

ASK = "/access prod-db read 30m because INC-42"


@pytest.fixture
async def told(tmp_path: Path) -> AsyncIterator[Story]:
    async with story(tmp_path) as running:
        yield running


async def fault(told: Story, **wish: Any) -> None:
    answer = await told.world.post("faults", **wish)
    assert answer.get("ok", True), answer


async def cards(told: Story) -> list[dict[str, Any]]:
    return [one for one in await told.world.seen("bob", CARDS) if one["from_app"] and not one["ephemeral"]]


@pytest.mark.parametrize(
    "wish",
    [
        {"drop": "after", "method": "chat.postMessage"},
        {"drop": "before", "method": "chat.postMessage"},
        {"status": 500, "method": "chat.postMessage", "count": 2},
        {"status": 429, "retry_after": 1, "method": "chat.postMessage"},
    ],
    ids=str,
)
async def test_card_is_posted_once_whatever_becomes_of_the_call(told: Story, wish: dict[str, Any]) -> None:
    await fault(told, **wish)
    await told.command("alice", ASK)
    card = await told.card()
    await told.click("bob", "request.approve", card)
    await told.card("open until")
    assert len(await cards(told)) == 1


@pytest.mark.parametrize("drop", ["before", "after"])
async def test_ticket_whose_delivery_is_in_doubt_arrives_once(told: Story, drop: str) -> None:
    await told.command("alice", ASK)
    card = await told.card()
    # The next two posts are the line in the thread and the ticket.
    await fault(told, drop=drop, method="chat.postMessage", count=3)
    await told.click("bob", "request.approve", card)
    await told.direct("alice", "PGPASSWORD")
    await asyncio.sleep(0.5)
    messages = await told.world.seen("alice", "@Airlock")
    assert sum("PGPASSWORD" in shown(one) for one in messages) == 1
    texts = [shown(one) for one in await told.replies(card)]
    assert len(texts) == len(set(texts))


async def test_payload_delivered_twice_is_worked_on_once(told: Story) -> None:
    await fault(told, duplicate=1)
    await told.command("alice", ASK)
    card = await told.card()
    await fault(told, duplicate=1)
    await told.click("bob", "request.approve", card)
    await told.card("open until")
    await asyncio.sleep(0.3)
    assert len(await cards(told)) == 1
    assert len(told.broker.orders) == 1
    assert sum("Bob approved" in shown(one) for one in await told.replies(card)) == 1


async def test_lost_acknowledgement_loses_nothing(told: Story) -> None:
    await fault(told, lose_ack=1)
    await told.world.post("command", user="alice", channel=CARDS, text=ASK)
    await told.card()
    assert len(await cards(told)) == 1


async def test_dropped_socket_is_opened_again(told: Story) -> None:
    await fault(told, drop_socket=True)
    await told.eventually(lambda: _connected(told))
    await told.command("alice", ASK)
    assert await told.card()


async def _connected(told: Story) -> bool | None:
    return True if told.world.space.sockets.count else None


async def test_broker_that_is_away_is_asked_again_with_the_same_order(told: Story) -> None:
    await told.command("alice", ASK)
    card = await told.card()
    told.broker.away = True
    await told.click("bob", "request.approve", card)
    await told.card("Waiting for the broker, which does not answer")
    told.broker.away = False
    await told.card("open until")
    assert len({order.id for order in told.broker.orders}) == 1
    assert len(told.broker.grants) == 1


async def test_order_whose_answer_was_lost_gives_one_grant(told: Story) -> None:
    await told.command("alice", ASK)
    card = await told.card()
    told.broker.drop_after_order = 2
    await told.click("bob", "request.approve", card)
    await told.card("open until")
    await told.direct("alice", "PGPASSWORD")
    assert len(told.broker.grants) == 1
    assert len({order.model_dump_json() for order in told.broker.orders}) == 1


@pytest.mark.parametrize("needs", [{"count": 2, "groups": ["dbas"]}, {"count": 1, "groups": ["dbas"]}], ids=str)
async def test_broker_that_needs_more_reviews_reopens_and_keeps_those_there_are(
    told: Story, needs: dict[str, Any]
) -> None:
    await told.command("alice", ASK)
    card = await told.card()
    told.broker.refusals.append((409, {"code": "more_reviews", "message": "more are needed", "needs": [needs]}))
    await told.click("bob", "request.approve", card)
    card = await told.card("The broker's policy asks for more reviews.")
    assert "Approved by Bob so far" in shown(card)
    await told.click("bob", "request.approve", card)
    assert await told.whispered("bob", "You have approved this already")
    await told.click("dana", "request.approve", card)
    await told.card("open until")
    first, second = told.broker.orders
    assert first.id != second.id
    assert [review.person for review in second.reviews] == ["bob", "dana"]


async def test_refused_order_reopens_and_can_be_tried_again(told: Story) -> None:
    await told.command("alice", ASK)
    card = await told.card()
    told.broker.refusals.append((403, {"code": "denied", "message": "prod-db is frozen", "hint": "ask tomorrow"}))
    await told.click("bob", "request.approve", card)
    card = await told.card("The broker refused: prod-db is frozen. Ask tomorrow.")
    assert await told.direct("alice", "prod-db is frozen")
    await told.click("bob", "request.approve", card)
    await told.card("open until")


async def test_refused_order_that_needs_nobody_ends_with_the_reason(told: Story) -> None:
    told.broker.refusals.append((403, {"code": "denied", "message": "staging is gone"}))
    await told.command("alice", "/access staging-db read 1h")
    await told.card("Cancelled: The broker refused: staging is gone.")


async def test_restarted_bot_goes_on_where_it_was(told: Story) -> None:
    await told.command("alice", ASK)
    card = await told.card()
    told.broker.away = True
    await told.click("bob", "request.approve", card)
    await told.card("Waiting for the broker")
    await told.stop_bot()
    told.broker.away = False
    await told.start_bot()
    await told.card("open until")
    await told.direct("alice", "PGPASSWORD")
    [grant] = told.broker.grants
    await told.stop_bot()
    told.broker.happens("session.opened", grant, application="psql")
    told.broker.close(grant)
    await told.start_bot()
    await told.thread(card, "Session opened")
    await told.thread(card, "Alice had read on prod-db")
    await asyncio.sleep(0.3)
    texts = [shown(one) for one in await told.replies(card) if not one["files"]]
    assert len(texts) == len(set(texts))


async def test_request_that_nobody_answers_expires_and_says_so(told: Story) -> None:
    access = told.policies / "access.yaml"
    access.write_text(access.read_text().replace("pending_for: 1h", "pending_for: 1m"))
    await asyncio.sleep(2.5)
    await told.command("alice", ASK)
    card = await told.card()
    await _age(told)
    late = await told.card("Expired: nobody answered in time.")
    assert late["ts"] == card["ts"]
    assert await told.direct("alice", "has expired")
    token = next(e["value"] for b in card["blocks"] if b["type"] == "actions" for e in b["elements"])
    click = await told.click("bob", "request.approve", card, value=token, force=True)
    assert "expired before anybody answered it" in await told.private(click)


async def _age(told: Story) -> None:
    """Let every pending request's time be over."""
    import sqlite3

    database = sqlite3.connect(told.settings.home / "bot.db", timeout=10)
    with database:
        database.execute("update requests set expires_at = '2020-01-01 00:00:00.000000'")
    database.close()


async def test_broken_policy_at_reload_keeps_the_last_good_one(told: Story) -> None:
    (told.policies / "access.yaml").write_text("access: [")
    await asyncio.sleep(2.5)
    assert "waits for" in await told.whispers("alice", ASK)


async def test_card_that_somebody_deleted_is_posted_anew(told: Story) -> None:
    await told.command("alice", ASK)
    card = await told.card()
    await told.world.client.chat_delete(channel=card["channel"], ts=card["ts"])
    await told.command("alice", "/access revoke")
    assert (await told.card("Cancelled by Alice"))["ts"] != card["ts"]


async def test_no_secret_is_in_the_database(told: Story) -> None:
    await told.command("alice", "/access staging-db read 1h")
    await told.direct("alice", "PGPASSWORD=secret-0001")
    home: Path = told.settings.home
    kept = b"".join(file.read_bytes() for file in (home / "bot.db", home / "bot.db-wal"))
    assert b"secret-0001" not in kept
    assert told.settings.slack_bot_token.get_secret_value().encode() not in kept
    assert (home / "order.pem").stat().st_mode & 0o777 == 0o600
    assert json.loads((home.parent.parent / "ready.json").read_text())["pid"]


async def test_twenty_clicks_on_one_card_make_one_decision(told: Story) -> None:
    await told.command("alice", ASK)
    card = await told.card()
    people = ["bob", "dana", "alice", "erin", "bob"] * 4
    answers = await asyncio.gather(
        *(
            told.click(who, "request.approve" if n % 3 else "request.cancel", card, force=True)
            for n, who in enumerate(people)
        )
    )
    assert all(answer["ok"] for answer in answers), answers
    final = await told.card("Alice asks")
    await asyncio.sleep(0.5)
    final = await told.card("Alice asks")
    assert len(told.broker.orders) == (1 if "open until" in shown(final) else 0)
    assert len(told.broker.orders) <= 1
    assert ("open until" in shown(final)) != ("Cancelled" in shown(final))


async def test_who_ends_access_or_waits_for_a_line_hears_that_the_broker_does_not_answer(told: Story) -> None:
    card, grant = await told.granted("read")
    ticket = await told.direct("alice", "PGPASSWORD")
    told.broker.away = True
    await told.click("alice", "ticket.new", ticket)
    assert await told.direct("alice", "so your line for read on prod-db comes when it does.")
    await told.click("bob", "grant.end", await told.thread(card, "has read on prod-db until"))
    late = await told.direct("bob", "The broker does not answer, so read on prod-db is not ended yet.")
    assert "asked again every second" in late["text"]
    told.broker.away = False
    assert await told.card("Revoked by Bob")
    assert told.broker.ended == [(grant, "bob", "revoke")]


async def test_transcript_that_cannot_be_had_is_said_to_be_missing(told: Story) -> None:
    card, grant = await told.granted("read")
    told.broker.unreadable = 404
    told.broker.close(grant, "ended")
    text = (await told.thread(card, "The transcript could not be posted: there is no such recording."))["text"]
    assert f"The broker keeps the recording of {grant}: `airlock audit transcript {grant}` on its machine" in text
    assert await told.thread(card, "Alice had read on prod-db")


async def test_transcript_that_comes_late_is_said_to_and_comes(told: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "TRANSCRIPT_TRIES", 1)
    card, grant = await told.granted("read")
    told.broker.unreadable = 503
    told.broker.close(grant, "ended")
    assert await told.thread(
        card, "The transcript is not here yet: the broker does not answer. It is tried again for a day."
    )
    told.broker.unreadable = 0

    async def files() -> bool | None:
        return any(one.get("files") for one in await told.replies(card)) or None

    await told.eventually(files)
