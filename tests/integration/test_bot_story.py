"""The whole story in the local workspace, with a fake broker behind the bot."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.bot_world import Story, buttons, shown, story

ASK = "/access prod-db read 30m because INC-42 customer cannot log in"


@pytest.fixture(params=["socket", "http"])
async def told(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Story]:
    async with story(tmp_path, http=request.param == "http") as running:
        yield running


async def test_alice_asks_bob_approves_and_alice_alone_gets_a_line(told: Story) -> None:
    answer = await told.whispers("alice", ASK, "incidents")
    assert "waits for 1 of dbas: Bob or Dana" in answer
    card = await told.card()
    assert {"request.approve", "request.changes", "request.deny", "request.cancel"} == set(buttons(card))
    assert "INC-42 customer cannot log in" in shown(card)
    assert "customers.ssn (last 4 shown)" in shown(card)
    assert "the schema of prod-db changes only through migrations" in shown(card)
    await told.click("bob", "request.approve", card)
    card = await told.card("open until")
    assert buttons(card) == []
    assert card["text"].startswith("Alice asks for read on prod-db for 30m. Approved by Bob; open until")
    ticket = await told.direct("alice", "PGPASSWORD=secret-0001")
    assert set(buttons(ticket)) == {"ticket.new", "grant.end"}
    for other in ("bob", "dana", "erin"):
        for channel in ("#access-requests", "#incidents", "@Airlock"):
            assert "secret-" not in json.dumps(await told.world.seen(other, channel))
    [order] = told.broker.orders
    assert (order.requester, order.resource, order.role, order.seconds) == ("alice", "prod-db", "read", 1800)
    [review] = order.reviews
    assert (review.person, review.evidence.user, review.evidence.message) == ("bob", "U0BOB00001", card["ts"])
    assert review.evidence.action
    assert order.requester_evidence.channel == "C0INCIDNT1"


async def test_thread_tells_the_session_and_its_end(told: Story) -> None:
    await told.command("alice", ASK, "incidents")
    card = await told.card()
    await told.click("bob", "request.approve", card)
    await told.direct("alice", "PGPASSWORD")
    [grant] = told.broker.grants
    request = told.broker.orders[0].request
    happens = told.broker.happens
    happens("session.opened", grant, person="alice", resource="prod-db", role="read", application="psql", address="")
    happens(
        "statement.allowed", grant, statement="s1", text="SELECT $1", masked=["public.customers.ssn"], rules=["reads"]
    )
    denial = {"rules": ["prod-schema"], "message": "only through migrations", "hint": "open a pull request"}
    happens("statement.denied", grant, statement="s2", text="DROP TABLE orders", **denial)
    opened = await told.thread(card, "Session opened: Alice on prod-db as read, with psql.")
    assert opened
    blocked = await told.thread(card, "Blocked: only through migrations (open a pull request). Rule prod-schema.")
    assert "DROP TABLE orders" in shown(blocked)
    counter = await told.thread(card, "1 open session, 2 statements, 1 blocked, masked: customers.ssn")
    assert buttons(counter) == ["grant.end"]
    await told.click("alice", "grant.end", counter)
    summary = await told.thread(card, "Alice had read on prod-db for")
    assert "approved by Bob" in shown(summary)
    assert "Its sessions are verified gone." in shown(summary)
    assert told.broker.ended == [(grant, "alice", "end")]

    async def files() -> list[str] | None:
        names = sorted(file["name"] for reply in await told.replies(card) for file in reply["files"])
        return names if len(names) == 2 else None

    assert await told.eventually(files) == [f"transcript-{request}.jsonl", f"transcript-{request}.txt"]
    titles = sorted(file["title"] for reply in await told.replies(card) for file in reply["files"])
    assert titles == [
        "Transcript, for programs (JSON lines): read on prod-db",
        "Transcript, to read: read on prod-db",
    ]
    final = await told.card("Ended by Alice. Its sessions are verified gone.")
    assert buttons(final) == []
    assert "opens nothing any more" in shown(await told.direct("alice", "opens nothing any more"))
    assert "PGPASSWORD" not in json.dumps(await told.world.seen("alice", "@Airlock"))


async def test_denial_needs_a_reason_and_everybody_reads_it(told: Story) -> None:
    await told.command("alice", ASK)
    card = await told.card()
    view = (await told.click("bob", "request.deny", card))["view"]
    assert view["callback_id"] == "request.deny"
    empty = await told.world.post("submit", user="bob", view_id=view["id"], values={"Reason": "\u200b"})
    assert empty["error"] == "view_errors"
    sent = await told.world.post("submit", user="bob", view_id=view["id"], values={"Reason": "use staging"})
    assert sent["ok"], sent
    assert buttons(await told.card("Denied by Bob: use staging")) == []
    assert await told.thread(card, "Bob denied the request: use staging")
    assert await told.direct("alice", "was denied by Bob: use staging")


async def test_what_policy_allows_is_given_at_once_with_a_thread(told: Story) -> None:
    answer = await told.whispers("alice", "/access staging-db write for 1h")
    assert "at once" in answer
    card = await told.card("open until")
    assert buttons(card) == []
    assert await told.direct("alice", "PGPASSWORD")
    assert await told.thread(card, "Alice has access until")


async def test_two_stages_need_two_people_and_say_how_far_they_are(told: Story) -> None:
    await told.command("alice", "/access prod-db write 30m because fix")
    card = await told.card()
    answer = await told.click("bob", "request.approve", card)
    assert "Your approval counts; it still needs 1 of security: Erin." in await told.private(answer)
    card = await told.card("Approved by Bob so far")
    again = await told.click("bob", "request.approve", card)
    assert "You have approved this already" in await told.private(again)
    await told.click("erin", "request.approve", card)
    assert await told.card("Approved by Bob and Erin")


async def test_line_that_the_broker_does_not_give_is_explained_with_what_to_do(told: Story) -> None:
    _, grant = await told.granted("read")
    told.broker.grants[grant]["state"] = "expired"  # its events are still on the way
    await told.click("alice", "ticket.new", await told.direct("alice", "PGPASSWORD"))
    why = await told.direct("alice", "The broker gives no line for read on prod-db: this access is over.")
    assert "Ask again: /access prod-db." in why["text"]
