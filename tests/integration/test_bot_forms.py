"""Asking with a form: what opens it, what it offers, what it says of what is wrong, and who gets none."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bot_world import Story, buttons, element, initial, labels, options, shown, story


@pytest.fixture
async def told(tmp_path: Path) -> AsyncIterator[Story]:
    async with story(tmp_path) as running:
        yield running


async def opened(told: Story, text: str, user: str = "alice") -> dict[str, Any]:
    """Type a command that opens a form."""
    answer = await told.world.post("command", user=user, channel="incidents", text=text)
    assert answer["ok"], answer
    assert answer["messages"] == []
    view: dict[str, Any] = answer["view"]
    assert view["callback_id"] == "access.ask"
    return view


async def choose(told: Story, view: dict[str, Any], label: str, value: str, **typed: str) -> dict[str, Any]:
    """Choose in a menu of an open form, with something typed beside it."""
    act = {"action_id": element(view, label)["action_id"], "value": value, "values": typed}
    answer = await told.world.post("click", user="alice", view_id=view["id"], **act)
    assert answer["ok"], answer
    assert answer["messages"] == []
    changed: dict[str, Any] = answer["view"]
    return changed


async def test_command_alone_opens_a_form_with_what_this_person_may_ask_for(told: Story) -> None:
    view = await opened(told, "/access")
    assert labels(view) == ["What", "Why"]
    assert options(view, "What") == ["prod-db", "staging-db"]
    erin = await told.world.post("command", user="erin", channel="incidents", text="/access")
    assert options(erin["view"], "What") == ["prod-db"]
    assert options(erin["view"], "As") == ["read"]


async def test_roles_follow_the_resource_and_durations_the_role(told: Story) -> None:
    view = await choose(told, await opened(told, "/access"), "What", "prod-db", Why="INC-42")
    assert options(view, "As") == ["read", "write"]
    view = await choose(told, view, "As", "write")
    assert options(view, "For how long") == ["15m", "30m", "1h"]
    assert "1 of dbas: Bob or Dana; and 1 of security: Erin" in json.dumps(view)
    assert initial(view, "Why") == "INC-42"
    view = await choose(told, view, "What", "staging-db")
    assert initial(view, "As") is None
    assert options(view, "For how long")[-1] == "8h"
    assert "1d" not in options(view, "For how long")


async def test_sent_form_makes_the_same_request_as_the_command(told: Story) -> None:
    view = await opened(told, "/access prod-db because INC-42 customer cannot log in")
    assert (initial(view, "What"), initial(view, "Why")) == ("prod-db", "INC-42 customer cannot log in")
    sent = await told.submit("alice", view, **{"As": "read", "For how long": "30m"})
    assert sent["ok"], sent
    assert sent["view"] is None
    assert "waits for 1 of dbas: Bob or Dana" in await told.private(sent)
    card = await told.card()
    assert "INC-42 customer cannot log in" in shown(card)
    await told.click("bob", "request.approve", card)
    await told.direct("alice", "PGPASSWORD")
    [order] = told.broker.orders
    assert (order.requester, order.resource, order.role, order.seconds) == ("alice", "prod-db", "read", 1800)
    assert order.requester_evidence.channel == "C0INCIDNT1"
    assert order.requester_evidence.action


@pytest.mark.parametrize(
    ("text", "starts"),
    [
        ("/access prod-db", {"What": "prod-db", "As": None}),
        ("/access prod-db read", {"What": "prod-db", "As": "read", "For how long": "30m"}),
        ("/access prod-db write because x", {"As": "write", "Why": "x"}),
    ],
)
async def test_words_that_are_right_are_filled_in(told: Story, text: str, starts: dict[str, str | None]) -> None:
    view = await opened(told, text)
    assert {label: initial(view, label) for label in starts} == starts


@pytest.mark.parametrize(
    ("values", "label", "says"),
    [
        ({"Or another time": "45"}, "Or another time", "did you mean 45m?"),
        ({"Or another time": "5h"}, "Or another time", "at most 4h"),
        ({"Or another time": "-3m"}, "Or another time", "A duration cannot be negative: did you mean 3m?"),
        ({"For how long": "30m", "Or another time": "0m"}, "Or another time", "at least a minute"),
    ],
)
async def test_what_is_wrong_is_said_in_the_form_and_asks_for_nothing(
    told: Story, values: dict[str, str], label: str, says: str
) -> None:
    view = await opened(told, "/access prod-db read")
    answer = await told.submit("alice", view, **values)
    assert answer["error"] == "view_errors"
    [(block, text)] = answer["errors"].items()
    assert block == next(b["block_id"] for b in view["blocks"] if b.get("label", {}).get("text") == label)
    assert says in text
    assert [one for one in await told.world.seen("bob", "#access-requests") if one["from_app"]] == []
    again = await told.submit("alice", view, **{"Or another time": "1h30m"})
    assert again["ok"], again
    assert "Alice asks for read on prod-db for 1h30m" in (await told.card())["text"]


async def test_form_starts_with_a_duration_that_the_role_gives_and_answers_where_the_command_was_typed(
    told: Story,
) -> None:
    # The app is no member of this channel: only the command's own address answers there.
    answer = await told.command("alice", "/access prod-db write because x", "general")
    assert answer == []
    view = await told.view("alice")
    assert view is not None
    [pick, other] = [one for one in view["blocks"] if one["block_id"].startswith(("duration", "other"))]
    assert (initial(view, "For how long"), pick["optional"], other["optional"]) == ("30m", False, True)
    assert other["element"]["placeholder"]["text"] == "20m, 45m"
    sent = await told.submit("alice", view)
    assert sent["ok"], sent
    assert await told.whispered("alice", "Your request for write on prod-db waits for", "#general")


async def test_form_without_a_role_says_what_is_missing(told: Story) -> None:
    view = await opened(told, "/access")
    answer = await told.submit("alice", view, What="prod-db")
    assert answer["errors"] == {"resource": "Choose a role on it as well."}


async def test_wrong_words_are_answered_with_a_button_that_opens_the_form_filled_in(told: Story) -> None:
    answer = await told.command("alice", "/access prod_db reed 45 INC-42", "incidents")
    assert "did you mean `prod-db`?" in answer[0]["text"]
    assert (await told.view("alice")) is None
    assert buttons(answer[0]) == ["access.ask"]
    view = (await told.click("alice", "access.ask", answer[0]))["view"]
    assert (initial(view, "What"), initial(view, "As"), initial(view, "Or another time")) == ("prod-db", "read", "45m")
    assert initial(view, "Why") == "INC-42"
    sent = await told.submit("alice", view)
    assert sent["ok"], sent
    assert "Alice asks for read on prod-db for 45m" in (await told.card())["text"]


async def test_what_the_policy_refuses_can_be_put_right_in_the_form(told: Story) -> None:
    answer = await told.command("alice", "/access prod-db read 9h because long", "incidents")
    view = (await told.click("alice", "access.ask", answer[0]))["view"]
    assert (initial(view, "Or another time"), initial(view, "Why")) == ("9h", "long")
    assert (await told.submit("alice", view))["error"] == "view_errors"


async def test_form_that_slack_does_not_open_is_answered_in_words(told: Story) -> None:
    await told.world.post("faults", status=500, method="views.open")
    await told.command("alice", "/access prod-db", "incidents")
    answer = await told.whispered("alice", "As what? On prod-db you may ask for", "incidents")
    assert buttons(answer) == ["access.ask"]
    await told.world.post("faults", status=500, method="views.open")
    asked = (await told.click("alice", "access.ask", answer))["asked"]

    async def later() -> dict[str, Any] | None:
        seen = await told.world.seen("alice", "incidents", since=asked["since"])
        return next((one for one in seen if one["ephemeral"] and "As what?" in one["text"]), None)

    again = await told.eventually(later)
    view = (await told.click("alice", "access.ask", again))["view"] or await told.eventually(lambda: told.view("alice"))
    assert view["callback_id"] == "access.ask"


async def test_form_opens_once_for_a_payload_that_is_delivered_twice(told: Story) -> None:
    await told.world.post("faults", duplicate=1)
    assert (await opened(told, "/access"))["callback_id"] == "access.ask"
    assert len(await told.calls("views.open")) == 1
    assert [one for one in await told.world.seen("alice", "incidents") if one["ephemeral"]] == []


@pytest.mark.parametrize(
    ("user", "why"),
    [("gus", "an admin of this workspace can make you a full member"), ("sam", "one of its admins can make you one")],
)
async def test_guest_and_stranger_get_no_form(told: Story, user: str, why: str) -> None:
    answer = await told.world.post("command", user=user, channel="partners", text="/access")
    assert answer["view"] is None
    assert why in await told.private(answer)
    assert await told.calls("views.open") == []


async def test_form_of_somebody_who_became_a_guest_is_refused_when_it_is_sent(told: Story) -> None:
    view = await opened(told, "/access prod-db read")
    await told.world.post("people", user="alice", restricted=True)
    sent = await told.submit("alice", view, **{"For how long": "30m"})
    assert "guests may not" in await told.private(sent) or await told.whispered("alice", "guests may not", "incidents")
    assert [one for one in await told.world.seen("bob", "#access-requests") if one["from_app"]] == []


async def test_button_with_a_forged_value_does_nothing(told: Story) -> None:
    [answer] = await told.command("alice", "/access prod_db read 30m", "incidents")
    for value in ("", "[1,2,3,4]", '["a"]', "[" * 2000, '["prod-db","read","30m"]'):
        got = await told.click("alice", "access.ask", answer, value=value)
        assert got["view"] is None
        assert "Nothing here answers to what this button carries" in await told.private(got)


async def test_menu_of_many_resources_is_asked_for_and_answers_what_is_typed(told: Story) -> None:
    rows = "".join(
        f"  db-{n:03d}: {{protocol: postgres, upstream: {{host: 127.0.0.1, port: 1, database: d}}, "
        f"roles: {{read: {{credential: 'file:x', relations: [public.*]}}}}}}\n"
        for n in range(150)
    )
    (told.policies / "many.yaml").write_text(
        f"resources:\n{rows}access:\n  - {{id: many, decision: allow, groups: [engineers], "
        f"resources: [{', '.join(f'db-{n:03d}' for n in range(150))}]}}\n"
    )

    async def many() -> dict[str, Any] | None:
        view = (await told.world.post("command", user="alice", channel="incidents", text="/access"))["view"]
        return view if element(view, "What")["type"] == "external_select" else None

    view = await told.eventually(many)
    ask = {"user": "alice", "view_id": view["id"], "action_id": "form.resource"}
    found = await told.world.post("suggest", **ask, value="db-14")
    assert [option["value"] for option in found["options"]] == [f"db-14{n}" for n in range(10)]
    assert len((await told.world.post("suggest", **ask, value=""))["options"]) == 100
    view = await choose(told, view, "What", "db-149")
    assert initial(view, "As") == "read"
