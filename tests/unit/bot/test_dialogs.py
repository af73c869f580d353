"""What a dialog asks before a click counts: whose it is, for how long, why; never green for what is no approval."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot import cards
from bot.cards import Button, Buttons, Card
from bot.chat.slack.limits import CONFIRM_TEXT
from bot.grant_cards import counter_card, ticket_card
from bot.hold_card import hold_card
from bot.request_card import CONFIRM_ROOM, RequestFacts, request_card, with_reason
from bot.text import length
from policies.engine.decisions import Need, Requirement
from tests.unit.bot.memory import NOW, policy
from tests.unit.bot.test_cards import HOSTILE, ROOMY, TICKET, grant, request, valid
from tests.unit.bot.test_hold_card import DIGEST, facts, view
from workflows.terms import Terms

LATER = NOW + timedelta(minutes=30)


def button(card: Card, action: str) -> Button:
    [found] = [one for part in card.parts if isinstance(part, Buttons) for one in part.buttons if one.action == action]
    return found


def asked(card: Card, action: str) -> str:
    """Return what the dialog of a button says."""
    confirm = button(card, action).confirm
    assert confirm is not None
    return confirm.text


def request_asked(**changes: Any) -> str:
    return asked(request_card(RequestFacts(request(**changes), [], None, policy(), NOW)), cards.APPROVE)


def test_approving_a_request_says_who_gets_what_for_how_long_and_why() -> None:
    gives = "Alice gets read on prod-db for 30m, from the moment the broker opens it."
    assert request_asked() == f"{gives}\nReason: INC-42"
    assert request_asked(reason="") == f"{gives} No reason was given."
    two = Requirement((Need(1, ("dbas",)), Need(1, ("security",))))
    assert request_asked(requirement=two) == (
        f"{gives} Yours is one of 2 approvals that it still needs.\nReason: INC-42"
    )
    assert request_asked(extends="g1") == "Alice gets 30m more of read on prod-db.\nReason: INC-42"
    less = "Alice gets read on prod-db for 10m, from the moment the broker opens it."
    wider = "Whoever approved less before now approves read for 30m."
    assert request_asked(narrowed=Terms("read", 600)) == f"{less} {wider}\nReason: INC-42"


def test_letting_a_statement_run_shows_how_it_begins_and_its_digest() -> None:
    said = asked(hold_card(facts(view("UPDATE orders\n  SET total = 0 -- all"))), cards.APPROVE_HOLD)
    runs = f"Alice runs this once, as write on prod-db. Digest {DIGEST[:12]}."
    assert said == f"{runs}\nUPDATE orders SET total = 0 -- all"
    later = asked(hold_card(facts(view("UPDATE orders SET total = 0", waits=False))), cards.APPROVE_HOLD)
    assert later.startswith("Alice may run this once, within ten minutes, as write on prod-db.")
    long = asked(hold_card(facts(view("UPDATE orders SET a = 1" + " " * 3 + "x" * 2000))), cards.APPROVE_HOLD)
    assert long.endswith("x…")
    assert length(long) == CONFIRM_ROOM
    given_ = asked(hold_card(facts(view("DELETE FROM orders WHERE id = $1", parameters=["7"]))), cards.APPROVE_HOLD)
    assert "as write on prod-db, with 1 parameter. Digest" in given_


@pytest.mark.parametrize("which", ["counter", "ticket"])
def test_ending_access_says_whose_it_is_until_when_and_what_it_was_for(which: str) -> None:
    held = grant(expires_at=LATER, reason="INC-42 customer cannot log in")
    card = counter_card(policy(), held) if which == "counter" else ticket_card(policy(), held, TICKET)
    assert asked(card, cards.END) == (
        "Alice has it until 12:30 UTC. Every session under it is cut at once, and it cannot be opened again.\n"
        "Reason: INC-42 customer cannot log in"
    )


def test_only_an_approval_is_coloured_as_a_success() -> None:
    pending = request_card(RequestFacts(request(), [], None, policy(), NOW))
    made = [pending, hold_card(facts(view())), counter_card(policy(), grant())]
    elements = [e for card in made for b in valid(card)["blocks"] if b["type"] == "actions" for e in b["elements"]]
    dialogs = {element["action_id"]: element["confirm"]["style"] for element in elements if "confirm" in element}
    assert dialogs == {
        cards.APPROVE: "primary",
        cards.APPROVE_HOLD: "primary",
        cards.CANCEL: "danger",
        cards.END: "danger",
    }
    assert {e["action_id"] for e in elements if e.get("style") == "primary"} == {cards.APPROVE, cards.APPROVE_HOLD}


@ROOMY
@given(HOSTILE, st.integers(1, 400))
def test_reason_gives_way_and_what_is_confirmed_does_not(reason: str, size: int) -> None:
    sentence = "s" * size
    said = with_reason(sentence, reason)
    assert length(said) <= CONFIRM_ROOM == CONFIRM_TEXT
    assert said.startswith(sentence[: CONFIRM_ROOM - 1])
    assert said.count("\n") <= 1
    whole = grant(reason=reason, expires_at=LATER)
    valid(counter_card(policy(), whole))
    valid(hold_card(replace(facts(view(reason)), grant=replace(whole, role="write"))))
