"""The app's home: made from the database, kept up to date, bounded, for whole members only."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bot.chat.slack.limits import VIEW_BLOCKS
from tests.support.bot_world import CARDS, Story, shown, story

ASK = "/access prod-db read 30m because INC-42"


@pytest.fixture
async def told(tmp_path: Path) -> AsyncIterator[Story]:
    async with story(tmp_path) as running:
        yield running


async def open_home(told: Story, user: str) -> str:
    answer = await told.world.post("home", user=user)
    assert answer["ok"], answer
    return await home(told, user, "")


async def view(told: Story, user: str) -> dict[str, Any]:
    found: dict[str, Any] | None = (await told.world.get("views", **{"as": user}))["home"]
    return found or {"blocks": []}


async def home(told: Story, user: str, has: str, lacks: str = "\x00") -> str:
    """Return the text of somebody's home, once it says something."""

    async def find() -> str | None:
        text = shown({"text": "", "blocks": (await view(told, user))["blocks"]})
        return text if text and has in text and lacks not in text else None

    found: str = await told.eventually(find)
    return found


async def press(told: Story, user: str, action: str) -> dict[str, Any]:
    answer = await told.world.post("click", user=user, view_id=(await view(told, user))["id"], action_id=action)
    assert answer["ok"], answer
    return answer


async def test_home_follows_a_request_from_asking_to_the_end(told: Story) -> None:
    assert "Nothing." in await open_home(told, "bob")
    assert "None open." in await open_home(told, "alice")
    await told.command("alice", ASK)
    card = await told.card()
    waiting = await home(told, "bob", "Alice asks for read on prod-db for 30m")
    assert "INC-42" in waiting
    assert "Waiting for 1 of dbas" in await home(told, "alice", "read on prod-db for 30m")
    await told.click("bob", "request.approve", card)
    await home(told, "bob", "Nothing.", "Alice asks")
    text = await home(told, "alice", "30 minutes left")
    assert "Approved by Bob; open until" in text
    await press(told, "alice", "grant.end")
    [grant] = told.broker.grants
    await told.eventually(lambda: _ended(told, grant))
    told.broker.close(grant)
    await home(told, "alice", "None open.")
    await home(told, "alice", "Approved by Bob. Ended by Alice.")


async def _ended(told: Story, grant: str) -> bool | None:
    return True if any(one[0] == grant for one in told.broker.ended) else None


async def test_button_of_what_waits_leads_to_its_card_and_does_nothing(told: Story) -> None:
    await told.command("alice", ASK)
    card = await told.card()
    await open_home(told, "bob")
    await home(told, "bob", "Alice asks")
    elements = [e for b in (await view(told, "bob"))["blocks"] if b["type"] == "actions" for e in b["elements"]]
    [leading] = [one for one in elements if one["action_id"] == "go"]
    assert leading["url"].endswith(f"/archives/{card['channel']}/p{card['ts'].replace('.', '')}")
    before = len(await told.calls("chat."))
    await press(told, "bob", "go")
    assert len(await told.calls("chat.")) == before


async def test_held_statement_waits_in_the_home_of_those_who_may_answer(told: Story) -> None:
    for user in ("alice", "bob", "erin"):
        await open_home(told, user)
    _, grant = await told.granted()
    told.broker.hold(grant)
    text = await home(told, "bob", "Alice asks to run a statement that changes public.orders")
    assert "under write on prod-db" in text
    assert "asks to run" not in await home(told, "erin", "Waits for you")
    assert "asks to run" not in await home(told, "alice", "Waits for you")
    card = await told.thread(await told.card(), "UPDATE orders")
    await told.click("bob", "hold.approve", card)
    await home(told, "bob", "Nothing.", "asks to run")


async def test_new_line_is_sent_from_home(told: Story) -> None:
    await open_home(told, "alice")
    await told.granted("read")
    await told.direct("alice", "secret-0001")
    await home(told, "alice", "30 minutes left")
    await press(told, "alice", "ticket.new")
    await told.direct("alice", "secret-0002")


async def test_home_of_somebody_who_may_not_use_this_shows_nothing(told: Story) -> None:
    await told.command("alice", ASK)
    await told.card()
    text = await open_home(told, "gus")
    assert "You cannot use this: guests may not" in text
    assert "prod-db" not in text
    assert "not a member of this workspace" in await open_home(told, "sam")


async def test_home_of_somebody_who_became_a_guest_is_emptied(told: Story) -> None:
    await told.granted("read")
    await open_home(told, "alice")
    await home(told, "alice", "30 minutes left")
    await told.world.post("people", user="alice", restricted=True)
    assert "prod-db" not in await home(told, "alice", "You cannot use this")


async def test_home_is_published_only_for_those_who_opened_it(told: Story) -> None:
    await told.command("alice", ASK)
    await told.card()
    assert await told.calls("views.publish") == []


async def test_messages_tab_publishes_no_home(told: Story) -> None:
    await told.world.post("home", user="alice", tab="messages")
    await told.command("alice", ASK)
    await told.card()
    assert await told.calls("views.publish") == []


async def test_many_changes_are_few_calls_and_restart_shows_the_last(told: Story) -> None:
    await open_home(told, "bob")
    for number in range(8):
        await told.command("alice", f"/access prod-db read {number + 10}m because {number}", CARDS)
    await home(told, "bob", "read on prod-db for 17m")
    published = [one for one in await told.calls("views.publish") if one["direction"] == "from_app"]
    assert len(published) <= 6
    await told.command("alice", "/access prod-db read 40m because last")
    await told.stop_bot()
    await told.start_bot()
    await home(told, "bob", "read on prod-db for 40m")


async def test_home_stays_small_whatever_was_before(told: Story) -> None:
    await told.granted("read")
    await told.stop_bot()
    _multiply(told.settings.home / "bot.db", 120)
    await told.start_bot()
    await open_home(told, "bob")
    await home(told, "bob", "and 110 more")
    await open_home(told, "alice")
    text = await home(told, "alice", "and 111 more")
    assert text.count("minutes left") == 10
    for user in ("alice", "bob"):
        assert len((await view(told, user))["blocks"]) <= VIEW_BLOCKS


def _multiply(path: Path, times: int) -> None:
    """Give Alice many open grants, many requests that wait, and many that are long over."""
    database = sqlite3.connect(path, timeout=10)
    with database:
        for number in range(times):
            _copy(database, "requests", f"rq-p{number}", state="pending", requester="alice")
            _copy(database, "requests", f"rq-o{number}", state="pending", asked_at="2020-01-01 00:00:00.000000")
            database.execute(
                "update requests set state='cancelled', decided_at='2020-01-01 00:00:00.000000' where id=?",
                (f"rq-o{number}",),
            )
            _copy(database, "grants", f"g-x{number}")
    database.close()


def _copy(database: sqlite3.Connection, table: str, id: str, **more: Any) -> None:
    cursor = database.execute(f"select * from {table} order by id limit 1")
    row = dict(zip([column[0] for column in cursor.description], cursor.fetchone(), strict=True))
    row |= {"id": id, "token": f"token-{id}", **more}
    names = ", ".join(f'"{name}"' for name in row)
    database.execute(f"insert into {table} ({names}) values ({', '.join('?' * len(row))})", list(row.values()))
