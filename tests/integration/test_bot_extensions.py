"""More time before access ends, and asking again for what nobody answered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from tests.support.bot_world import Story, buttons, initial, shown, story
from workflows.storage.engine import make_engine

STEPS = ["grant.extend.900", "grant.extend.1800", "grant.extend.3600"]


@pytest.fixture
async def told(tmp_path: Path) -> AsyncIterator[Story]:
    async with story(tmp_path) as running:
        yield running


async def ending(told: Story, ask: str = "/access prod-db read 30m because INC-42") -> tuple[dict[str, Any], str]:
    """Bring Alice to access that ends in four minutes; gives the request's card and the grant's id."""
    told.broker.elapsed = timedelta(minutes=26)
    await told.command("alice", ask, "incidents")
    card = await told.card()
    if "request.approve" in buttons(card):
        await told.click("bob", "request.approve", card)
        if "write" in ask:
            await told.card("so far. Still waiting for")
            await told.click("erin", "request.approve", card)
    card = await told.card("open until")
    return card, list(told.broker.grants)[-1]


def end_of(told: Story, grant: str) -> datetime:
    return datetime.fromisoformat(told.broker.grants[grant]["expires_at"])


async def test_more_time_is_offered_in_the_thread_and_as_a_direct_message(told: Story) -> None:
    card, _ = await ending(told)
    offer = await told.thread(card, "read on prod-db ends at")
    assert buttons(offer) == STEPS
    assert "+15m" in shown(offer)
    reminder = await told.direct("alice", "Your read on prod-db ends at")
    assert buttons(reminder) == STEPS
    for other in ("bob", "erin"):
        assert [one for one in await told.world.seen(other, "@Airlock") if "ends at" in one["text"]] == []


async def test_extension_is_a_request_in_the_thread_that_moves_the_end_everywhere(told: Story) -> None:
    card, grant = await ending(told)
    before = end_of(told, grant)
    ticket = await told.direct("alice", "PGPASSWORD")
    reminder = await told.direct("alice", "ends at")
    await told.click("alice", "grant.extend.900", reminder)
    waits = "Your request for 15m more of read on prod-db waits for 1 of dbas: Bob or Dana"
    assert await told.whispered("alice", waits, "@Airlock")
    assert await told.direct("alice", "15m more was asked for and waits for 1 of dbas")
    request = await told.thread(card, "Alice asks for 15m more of read on prod-db")
    assert "<@U0BOB00001>" in str(request["blocks"]) or "U0BOB00001" in str(request["blocks"])
    assert "INC-42" in shown(request)
    await told.click("bob", "request.approve", request)
    until = f"{before + timedelta(minutes=15):%H:%M} UTC"
    assert await told.thread(card, f"Alice has access until {until}")
    assert await told.direct("alice", f"was extended: it is open until {until}")
    assert f"open until {until}" in (await told.card(until))["text"]
    await _moved(told, ticket, until)
    assert await told.thread(card, f"the access was extended until {until}")
    counter = await told.thread(card, f"has read on prod-db until {until}")
    assert buttons(counter) == ["grant.end"]
    offer = await told.thread(card, "; more time was asked for, and given below")
    assert buttons(offer) == []
    order = told.broker.orders[-1]
    assert (order.kind, order.extends, order.role, order.seconds) == ("extension", grant, "read", 900)
    assert order.request != told.broker.orders[0].request
    assert [review.person for review in order.reviews] == ["bob"]
    assert end_of(told, grant) == before + timedelta(minutes=15)


def shown_end(ticket: dict[str, Any]) -> int:
    """Return the time that a ticket's first line names."""
    spans = ticket["blocks"][0]["elements"][0]["elements"]
    return next(int(span["timestamp"]) for span in spans if span["type"] == "date")


async def _moved(told: Story, ticket: dict[str, Any], until: str) -> None:
    """The message with the line names the new end, in place, and all of it works as before."""
    now = await told.direct("alice", f"Your line for read on prod-db, open until {until}")
    assert now["ts"] == ticket["ts"]
    kept = [[{**block, "block_id": ""} for block in one["blocks"][1:-1]] for one in (now, ticket)]
    assert kept[0] == kept[1]
    assert shown_end(now) == shown_end(ticket) + 900
    assert f"Alice has it until {until}" in shown(now)
    assert buttons(now) == buttons(ticket)
    assert len([one for one in await told.world.seen("alice", "@Airlock") if "PGPASSWORD" in shown(one)]) == 1


async def test_choices_go_up_to_the_policys_maximum(told: Story) -> None:
    card, _ = await ending(told, "/access prod-db write 30m because fix")
    assert buttons(await told.thread(card, "write on prod-db ends at")) == ["grant.extend.900", "grant.extend.1800"]


async def test_nothing_is_offered_where_the_policy_gives_no_more(told: Story) -> None:
    told.broker.elapsed = timedelta(minutes=57)
    await told.command("alice", "/access prod-db write 1h because fix")
    card = await told.card()
    await told.click("bob", "request.approve", card)
    await told.card("so far. Still waiting for")
    await told.click("erin", "request.approve", card)
    await told.card("open until")
    forged = await told.thread(card, "has write on prod-db until")
    token = next(e["value"] for b in forged["blocks"] if b["type"] == "actions" for e in b["elements"])
    answer = await told.click("alice", "grant.extend.900", forged, value=token, force=True)
    assert "as long as the policy gives" in await told.private(answer)
    assert not [one for one in await told.replies(card) if "ends at" in one["text"]]


async def test_what_policy_allows_is_extended_at_once(told: Story) -> None:
    card, grant = await ending(told, "/access staging-db write 30m")
    before = end_of(told, grant)
    offer = await told.thread(card, "write on staging-db ends at")
    await told.click("alice", "grant.extend.1800", offer)
    assert await told.whispers_in_thread("alice", "The policy gives you 30m more of write on staging-db at once.")
    assert await told.thread(card, "Alice has access until")
    assert await told.direct("alice", "was extended")
    assert end_of(told, grant) == before + timedelta(minutes=30)


async def test_only_the_requester_extends_and_only_by_what_is_possible(told: Story) -> None:
    card, _ = await ending(told)
    offer = await told.thread(card, "ends at")
    assert "This access is Alice's; only they can ask for more" in await told.private(
        await told.click("bob", "grant.extend.900", offer)
    )
    for seconds in (0, 59, 36000):
        got = await told.click("alice", f"grant.extend.{seconds}", offer, value=value_of(offer), force=True)
        assert "can be extended by at most 3h30m" in await told.private(got)
    unknown = await told.click("alice", "grant.extend.900", offer, value="f" * 32)
    assert "belongs to no access that is known" in await told.private(unknown)
    odd = await told.click("alice", "grant.extend.x", offer, value=value_of(offer), force=True)
    assert "Nothing here answers" in await told.private(odd)
    await told.click("alice", "grant.extend.900", offer)
    await told.thread(card, "15m more was asked for and waits for")
    await told.click("alice", "grant.extend.1800", offer, value=value_of(offer), force=True)
    assert await told.whispers_in_thread("alice", "You have asked for 15m more already")
    assert len(told.broker.orders) == 1


def value_of(message: dict[str, Any]) -> str:
    value: str = next(e["value"] for b in message["blocks"] if b["type"] == "actions" for e in b["elements"])
    return value


async def test_guest_cannot_extend(told: Story) -> None:
    card, _ = await ending(told)
    offer = await told.thread(card, "ends at")
    await told.world.post("people", user="alice", restricted=True)
    answer = await told.click("alice", "grant.extend.900", offer)
    assert "guests may not" in await told.private(answer)
    assert not [one for one in await told.replies(card) if "more of read" in one["text"]]


async def test_extension_that_is_approved_after_the_end_is_refused_clearly(told: Story) -> None:
    card, grant = await ending(told)
    await told.click("alice", "grant.extend.900", await told.thread(card, "ends at"))
    request = await told.thread(card, "Alice asks for 15m more")
    told.broker.grants[grant]["state"] = "expired"  # its events are still on the way
    await told.click("bob", "request.approve", request)
    refused = await told.thread(
        card, "this access is over (expired), so it was not extended. Ask again: /access prod-db"
    )
    assert "when that is solved" not in shown(refused)
    assert "Cancelled" in (await told.thread(card, "Cancelled: The broker refused"))["text"]
    assert refused
    assert await told.direct("alice", "this access is over (expired), so it was not extended")
    assert told.broker.extended == []
    told.broker.close(grant, "expired", by="")
    final = await told.card("The time is over.")
    assert buttons(final) == []


async def test_access_that_ends_closes_its_open_extension(told: Story) -> None:
    card, grant = await ending(told)
    offer = await told.thread(card, "ends at")
    await told.click("alice", "grant.extend.900", offer)
    request = await told.thread(card, "Alice asks for 15m more")
    told.broker.close(grant, "ended")
    closed = await told.thread(card, "Cancelled: The access ended before this was answered.")
    assert closed["ts"] == request["ts"]
    assert buttons(closed) == []
    assert await told.thread(card, "The request for 15m more is closed. The access ended before this was answered.")
    late = await told.direct("alice", "Your request for 15m more of read on prod-db is closed.")
    spent = await told.direct("alice", "opens nothing any more")
    assert buttons(late) == buttons(spent) == ["access.ask"]
    await told.click("alice", "access.ask", late, value=value_of(late))

    async def form() -> dict[str, Any] | None:
        return await told.view("alice")

    view = await told.eventually(form)
    assert (initial(view, "What"), initial(view, "As")) == ("prod-db", "read")
    await told.click("bob", "request.approve", request, value=value_of(request), force=True)
    assert await told.whispers_in_thread("bob", "This request was cancelled.")
    await told.click("alice", "grant.extend.900", offer, value=value_of(offer), force=True)
    assert await told.whispers_in_thread("alice", "This access is over, so it cannot be extended")
    assert buttons(await told.thread(card, "More time was offered here for read on prod-db, which is over.")) == []
    assert len(told.broker.orders) == 1


async def test_extension_may_be_approved_shorter_but_not_lower(told: Story) -> None:
    card, grant = await ending(told, "/access prod-db write 30m because fix")
    before = end_of(told, grant)
    await told.click("alice", "grant.extend.1800", await told.thread(card, "ends at"))
    request = await told.thread(card, "Alice asks for 30m more")
    view = (await told.click("bob", "request.changes", request))["view"]
    answer = await told.submit("bob", view, **{"As": "read", "For how long": "15m"})
    assert answer["error"] == "view_errors"
    await told.submit("bob", view, **{"For how long": "15m"})
    request = await told.thread(card, "It would give 15m more")
    assert await told.thread(card, "Bob approved 15m more; still waiting for")
    await told.click("erin", "request.approve", request)
    assert await told.thread(card, "Erin approved 30m more.")
    given = await told.thread(card, "Approved by Bob and Erin, 15m more; the access was extended until")
    assert "15m more, until " in shown(given)
    assert "; 30m more was asked for" in shown(given)
    assert await told.direct(
        "alice", "Bob approved your request for 30m more of write on prod-db with changes: 15m more."
    )
    assert end_of(told, grant) == before + timedelta(minutes=15)
    assert told.broker.orders[-1].role == "write"


async def test_denied_extension_can_be_asked_for_again(told: Story) -> None:
    card, _ = await ending(told)
    await told.click("alice", "grant.extend.900", await told.thread(card, "ends at"))
    request = await told.thread(card, "Alice asks for 15m more")
    view = (await told.click("bob", "request.deny", request))["view"]
    await told.submit("bob", view, Reason="be done")
    assert await told.thread(card, "Bob denied the request for 15m more: be done")
    assert await told.direct("alice", "Your request for 15m more of read on prod-db was denied by Bob: be done")
    assert buttons(await told.thread(card, "It can be extended.")) == STEPS


async def test_answer_that_was_lost_extends_once(told: Story) -> None:
    card, grant = await ending(told)
    before = end_of(told, grant)
    await told.click("alice", "grant.extend.900", await told.thread(card, "ends at"))
    request = await told.thread(card, "Alice asks for 15m more")
    told.broker.away = True
    await told.click("bob", "request.approve", request)
    assert await told.thread(card, "Waiting for the broker, which does not answer")
    await told.stop_bot()
    told.broker.away = False
    await told.start_bot()
    assert await told.direct("alice", "was extended")
    assert end_of(told, grant) == before + timedelta(minutes=15)
    # On another day its date stands behind it.
    assert await told.thread(card, f"Alice has access until {end_of(told, grant):%H:%M} UTC")
    assert len([one for one in await told.replies(card) if one["text"].startswith("Alice has access until")]) == 2


async def overdue(told: Story) -> None:
    """Let the time of every open request be over."""
    engine = make_engine(told.settings.database_url)
    async with engine.begin() as connection:
        past = datetime.now(UTC) - timedelta(seconds=1)
        await connection.execute(text("update requests set expires_at = :past"), {"past": past.replace(tzinfo=None)})
    await engine.dispose()


async def test_request_that_nobody_answers_expires_and_is_asked_again_with_one_click(told: Story) -> None:
    await told.command("alice", "/access prod-db read 45m because INC-42", "incidents")
    first = await told.card()
    await overdue(told)
    expired = await told.card("Expired: nobody answered in time. Alice may ask again.")
    assert buttons(expired) == ["request.again"]
    told_so = await told.direct("alice", "Your request for read on prod-db has expired: nobody answered in time.")
    assert buttons(told_so) == ["request.again"]
    await told.click("bob", "request.again", expired)
    assert await told.whispered("bob", "Only Alice can ask for this again.")
    answer = await told.click("alice", "request.again", told_so)
    assert answer["ok"]
    card = await told.card("Waiting for 1 of dbas")
    assert card["ts"] != first["ts"]
    assert card["text"].startswith("Alice asks for read on prod-db for 45m.")
    assert "INC-42" in shown(card)
    twice = await told.click("alice", "request.again", expired)
    assert "You already have a request for read on prod-db waiting." in await told.private(twice)
    await told.click("bob", "request.approve", card)
    assert await told.direct("alice", "PGPASSWORD")


async def test_guest_cannot_ask_again(told: Story) -> None:
    await told.command("alice", "/access prod-db read 45m because INC-42")
    await told.card()
    await overdue(told)
    expired = await told.card("Expired")
    await told.world.post("people", user="alice", restricted=True)
    await told.click("alice", "request.again", expired)
    assert await told.whispered("alice", "guests may not")
    assert (await told.card())["ts"] == expired["ts"]


async def test_cancelled_request_can_be_asked_for_again_and_a_denied_one_not(told: Story) -> None:
    await told.command("alice", "/access prod-db read 45m because INC-42")
    card = await told.card()
    token = value_of(card)
    await told.click("alice", "request.cancel", card)
    cancelled = await told.card("Cancelled by Alice.")
    await told.click("alice", "request.again", cancelled)
    card = await told.card("Waiting for")
    view = (await told.click("bob", "request.deny", card))["view"]
    await told.submit("bob", view, Reason="no")
    denied = await told.card("Denied by Bob")
    assert buttons(denied) == []
    got = await told.click("alice", "request.again", denied, value=value_of(card), force=True)
    assert "This request was already denied by Bob." in await told.private(got)
    assert token != value_of(card)


async def test_policy_that_gives_it_no_more_decides_on_asking_again(told: Story) -> None:
    await told.command("alice", "/access prod-db read 3h because INC-42")
    await told.card()
    await overdue(told)
    expired = await told.card("Expired")
    access = told.policies / "access.yaml"
    access.write_text(access.read_text().replace("max_duration: 4h", "max_duration: 2h"))

    async def refused() -> bool | None:
        return "at most 2h" in await told.whispers("alice", "/access list") or None

    await told.eventually(refused)
    assert "given for at most 2h" in await told.private(await told.click("alice", "request.again", expired))
