"""No text of any length can break a payload or forge anything in it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.asking import Wish, denied_card, understood, wrong_card
from bot.cards import (
    Button,
    Buttons,
    Card,
    Code,
    Fact,
    Facts,
    Heading,
    Mention,
    Moment,
    Note,
    Paragraph,
    Quote,
    Words,
    clock,
    moments,
    say,
    unpacked,
)
from bot.chat.slack.blocks import render
from bot.chat.slack.check import PayloadInvalid, check_payload
from bot.chat.slack.forms import Place, ask_form, changes_form
from bot.chat.slack.mrkdwn import defused, escaped
from bot.chat.slack.views import deny_errors, deny_reason, deny_view
from bot.drafts import draft_of, fitted, form_button
from bot.grant_cards import counter_card, end_button, refusals_card, spent_ticket_card, ticket_card
from bot.intents import Ask, Source
from bot.lines import line
from bot.model import Given, Grant, Request
from bot.narrowing import Scene
from bot.outgoing import Privately, Say, from_row, to_row
from bot.relay import blocked
from bot.request_card import RequestFacts, request_card
from bot.text import clip, excerpt, is_blank, length, one_line, reveal, whole
from bot.workspace.checks import check_blocks, check_view
from policies.engine.decisions import Deny, Need, Requirement
from tests.unit.bot.memory import NOW, policy, source
from workflows.grants import GrantState
from workflows.orders import Evidence
from workflows.requests import RequestState
from workflows.reviews import Answer
from workflows.terms import Terms
from workflows.wire import TicketView

EVIDENCE = Evidence(platform="slack", team="T0", user="U0ALICE001")
TICKET = TicketView(
    id="t",
    grant="g1",
    protocol="postgres",
    host="127.0.0.1",
    port=28331,
    user="alice.k3f9",
    password="invented-password",
    database="prod-db",
    line='PGPASSWORD=invented-password psql "host=127.0.0.1 port=28331 dbname=prod-db user=alice.k3f9 sslmode=require"',
    expires_at=NOW,
)
HOSTILE = st.one_of(
    st.text(max_size=3000),
    st.text(alphabet=st.characters(codec=None), max_size=200),
    st.text(alphabet="<>&*_~`!@#|:\n\u202e\u200b\u2066😀:x", max_size=3000),
    st.sampled_from(["<!channel>", "<@U0BOB00001>", "```\n", ":white_check_mark:", "&lt;", "\u0000", "😀", "\n"]).map(
        lambda piece: piece * 4000
    ),
)
ROOMY = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def request(**changes: Any) -> Request:
    made = Request(
        id="rq-0001",
        token="t" * 32,
        state=RequestState.PENDING,
        requester="alice",
        account="U0ALICE001",
        resource="prod-db",
        role="read",
        seconds=1800,
        reason="INC-42",
        requirement=Requirement((Need(1, ("dbas",)),)),
        rules=("r",),
        policy_hash="0" * 64,
        asked_at=NOW,
        expires_at=NOW + timedelta(hours=1),
        asked_in="C0ACCESS01",
        evidence=EVIDENCE,
    )
    return replace(made, **changes)


def grant(**changes: Any) -> Grant:
    made = Grant("g1", "t", "rq-0001", "alice", "U0ALICE001", "prod-db", "read", GrantState.ACTIVE, NOW, NOW)
    return replace(made, **changes)


def valid(card: Card) -> dict[str, Any]:
    """Render a card and hold it against our limits and against the workspace's, which are written apart."""
    payload = render(card)
    check_payload(payload)
    json.dumps(payload).encode()
    assert check_blocks(payload["blocks"]) == []
    return payload


@ROOMY
@given(reason=HOSTILE, answer=HOSTILE, note=HOSTILE, state=st.sampled_from(RequestState), needs=st.integers(0, 4))
def test_request_card_is_always_valid(reason: str, answer: str, note: str, state: RequestState, needs: int) -> None:
    requirement = Requirement(tuple(Need(1 + index, ("dbas", "security")) for index in range(needs)))
    words = {"reason": whole(reason), "answer": whole(answer), "note": whole(note)}
    held = request(**words, state=state, requirement=requirement, decided_by="bob")
    given = [Given("bob", "U0BOB00001", Answer.APPROVE, "", NOW, EVIDENCE)]
    for live in (None, grant(), grant(state=GrantState.REVOKED, ended_by="bob", verified=False, closed_at=NOW)):
        valid(request_card(RequestFacts(held, given, live, policy(), NOW)))


@ROOMY
@given(reason=HOSTILE)
def test_reason_that_may_be_asked_with_is_on_the_card_whole(reason: str) -> None:
    wish = understood(policy(), "alice", Ask(source("alice"), "prod-db", "read", "30m", whole(reason)), "/access")
    if isinstance(wish, Wish):
        payload = valid(request_card(RequestFacts(request(reason=wish.reason), [], None, policy(), NOW)))
        quotes = [
            block["elements"][0]["elements"]
            for block in payload["blocks"]
            if block["type"] == "rich_text" and block["elements"][0]["type"] == "rich_text_quote"
        ]
        assert [text["text"] for quote in quotes for text in quote] == ([reveal(wish.reason)] if wish.reason else [])


@ROOMY
@given(name=HOSTILE)
def test_names_of_people_groups_and_resources_cannot_forge(name: str) -> None:
    held = policy()
    people = {**held.people, "alice": held.people["alice"].model_copy(update={"name": whole(name)})}
    groups = {**held.groups, "dbas": whole(name)}
    resources = {
        **held.resources,
        "prod-db": held.resources["prod-db"].model_copy(update={"description": whole(name)}),
    }
    forged = held.model_copy(update={"people": people, "groups": groups, "resources": resources})
    valid(request_card(RequestFacts(request(), [], None, forged, NOW)))


@ROOMY
@given(text=HOSTILE, masked=st.lists(HOSTILE, max_size=30))
def test_every_other_card_is_always_valid(text: str, masked: list[str]) -> None:
    held = policy()
    valid(counter_card(held, grant(masked=tuple(masked), statements=10**9)))
    valid(refusals_card(held, grant(refusal=text, refused=10**9)))
    valid(spent_ticket_card(held, grant(state=GrantState.ENDED)))
    valid(wrong_card(held, "alice", text, "/access", text))
    valid(denied_card(Deny(text, ("r",), text)))
    fallback, parts = blocked({"text": text, "message": text, "hint": text, "rules": masked})
    valid(Card(fallback, (Paragraph(say(Words(fallback))), *parts)))
    words = {"host": text, "user": text, "password": text, "database": text, "line": text}
    valid(ticket_card(held, grant(), TICKET.model_copy(update=words)))
    check_payload(deny_view("t" * 32, text))
    assert check_view(deny_view("t" * 32, text)) == []


@ROOMY
@given(texts=st.lists(HOSTILE, min_size=1, max_size=70))
def test_any_card_is_rendered_within_the_limits_and_keeps_its_buttons(texts: list[str]) -> None:
    parts: list[Any] = []
    for text in texts:
        spans = say(Words(text, bold=True), Mention("U0ALICE001"), Moment(NOW), text)
        parts += [Heading(text), Paragraph(spans), Quote(text), Code(text), Note(spans), Facts((Fact(text, spans),))]
    parts.append(Buttons((Button("a", texts[0], "v", label=texts[0]),)))
    payload = valid(Card(texts[0], tuple(parts)))
    assert payload["blocks"][-1]["type"] == "actions"


@given(HOSTILE, st.integers(60, 3000))
def test_escaped_text_fits_and_is_never_cut_inside_an_entity(text: str, limit: int) -> None:
    for made in (escaped(text, limit), defused(text, limit)):
        assert length(made) <= limit
        rest = made.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "")
        assert not set(rest) & set("&<>")
    assert not set(defused(text, limit)) & set("*~`")


def test_names_can_be_copied_and_format_nothing() -> None:
    assert defused("prod_db", 100) == "prod_db"
    assert defused("_prod_ a __b__ c_", 100) == "＿prod＿ a ＿＿b＿＿ c＿"
    assert defused("*x* `y` ~z~ :wave: 14:02", 100) == "＊x＊ ｀y｀ ～z～ ：wave: 14:02"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u202eb", "a\\u202eb"),
        ("a\u200bb", "a\\u200bb"),
        ("\x1b[31m", "\\u001b[31m"),
        ("a\u2028b", "a\\u2028b"),
        ("\U000e0041", "\\u{e0041}"),
        ("👩\u200d💻 fine", "👩\u200d💻 fine"),
        ("👩🏽\u200d💻", "👩🏽\u200d💻"),
        ("a\u200db", "a\\u200db"),
        ("עברית", "עברית"),
    ],
)
def test_what_hides_becomes_visible(text: str, shown: str) -> None:
    assert reveal(text) == shown


def test_long_text_says_that_it_is_cut_and_how_long_it_is() -> None:
    shown, remark = excerpt("x" * 10_000)
    assert length(shown) == 1000
    assert remark == "shown in part: 10,000 characters, 1 lines in all"
    assert excerpt("short") == ("short", "")


def test_small_text_tools() -> None:
    assert clip("😀😀😀", 4) == "😀…"
    assert one_line("a\n  b\u200b") == "a b\\u200b"
    assert is_blank(" \u200b\n")
    assert not is_blank("👎")
    assert whole("a\ud800\x00") == "a\ufffd\u2400"


def test_form_without_a_visible_reason_is_wrong() -> None:
    view = {"state": {"values": {"reason": {"text": {"type": "plain_text_input", "value": " \u200b "}}}}}
    assert deny_errors(view) == {"reason": "A reason is needed: the requester will read it."}
    assert deny_errors({}) != {}
    view["state"]["values"]["reason"]["text"]["value"] = " no "
    assert (deny_errors(view), deny_reason(view)) == ({}, "no")


def plain_text(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text, "emoji": False}


SURE = {part: plain_text("x") for part in ("title", "text", "confirm", "deny")}
UNCOLOURED = {"type": "button", "action_id": "a", "text": plain_text("x"), "confirm": SURE}


@pytest.mark.parametrize(
    "payload",
    [
        {"blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": "x", "verbatim": True}}]},
        {
            "text": "<!channel>",
            "blocks": [{"type": "section", "text": plain_text("x")}],
        },
        {"text": "x", "blocks": []},
        {"text": "x", "blocks": [{"type": "image"}]},
        {
            "text": "x",
            "blocks": [{"type": "header", "text": plain_text("x" * 151)}],
        },
        {"text": "x", "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": "<!here>", "verbatim": True}}]},
        {"text": "x", "blocks": [{"type": "context", "elements": []}]},
        {"text": "x", "blocks": [{"type": "actions", "elements": [UNCOLOURED]}]},
        {"type": "modal", "callback_id": "x", "blocks": []},
    ],
    ids=lambda payload: json.dumps(payload)[:40],
)
def test_checker_finds_what_slack_would_refuse(payload: dict[str, Any]) -> None:
    with pytest.raises(PayloadInvalid):
        check_payload(payload)


@ROOMY
@given(HOSTILE)
def test_cards_survive_the_outbox(text: str) -> None:
    card = Card(whole(text), (Paragraph(say(whole(text), Moment(NOW))), Quote(whole(text))))
    item = Say(Privately("U0", "C0"), card)
    assert from_row(json.loads(json.dumps(to_row(item)))) == item


@given(HOSTILE, HOSTILE, HOSTILE)
@ROOMY
def test_form_to_ask_with_is_valid_whatever_was_typed(resource: str, duration: str, reason: str) -> None:
    held = policy()
    typed = Ask(Source("slack", "T0", "U0ALICE001", "C0ACCESS01"), resource, "read", duration, whole(reason))
    for intent in (typed, replace(typed, resource="prod-db"), replace(typed, resource=None, role=None)):
        draft = draft_of(held, "alice", intent)
        for person in ("alice", "dana"):
            view = ask_form(held, person, fitted(held, person, draft), Place("C0ACCESS01"))
            check_payload(view)
            assert check_view(view) == []
        button = form_button(draft)
        assert length(button.value) <= 2000
        resource_, role, duration_, reason_ = unpacked(button.value, 4) or ("?", "", "", "")
        assert (resource_, role, duration_) == (draft.resource, draft.role, draft.duration)
        assert reason_ == draft.reason or length(draft.reason) > 200


@given(HOSTILE, st.integers(60, 30 * 86400))
@ROOMY
def test_form_to_approve_less_with_is_valid(name: str, seconds: int) -> None:
    held = policy()
    people = {**held.people, "alice": held.people["alice"].model_copy(update={"name": name})}
    held = held.model_copy(update={"people": people})
    narrow = Given("bob", "U0BOB00001", Answer.APPROVE, "", NOW, EVIDENCE, Terms("read", 60))
    for others in ((), (narrow,)):
        view = changes_form(Scene(held, request(seconds=seconds), others))
        check_payload(view)
        assert check_view(view) == []


def test_card_of_a_request_that_was_given_less_says_what_was_given_and_by_which_rule() -> None:
    given_ = (Given("bob", "U0BOB00001", Answer.APPROVE, "", NOW, EVIDENCE, Terms("read", 900)),)
    asked = request(role="write", seconds=1800, rules=("w",), narrowed=Terms("read", 900))
    pending = str(request_card(RequestFacts(asked, given_, None, policy(), NOW)))
    assert "prod-db (write)" in pending
    assert "rule w." in pending
    approved = replace(asked, state=RequestState.APPROVED)
    decided = str(request_card(RequestFacts(approved, given_, None, policy(), NOW)))
    assert "prod-db (read)" in decided
    assert "rule r." in decided
    assert "write was asked for" in decided
    assert "15m from when access opens; 30m was asked for" in decided


@given(st.text(), st.datetimes(timezones=st.just(UTC)), st.datetimes(timezones=st.just(UTC)))
def test_a_time_in_a_sentence_is_shown_in_the_readers_zone_and_nothing_else_changes(
    text: str, first: datetime, second: datetime
) -> None:
    sentence = f"From {clock(first)} {text} until {clock(second)}."
    spans = moments(sentence, first, None, second)
    assert (
        "".join(clock(one.at) if isinstance(one, Moment) else str(getattr(one, "text", "")) for one in spans)
        == sentence
    )
    assert any(isinstance(one, Moment) and one.at == first for one in spans)
    assert all(clock(second) not in one.text for one in spans if isinstance(one, Words))


def test_role_in_the_place_of_its_resource_is_put_right_in_the_line_and_in_the_form() -> None:
    ask = Ask(source("alice"), "read", "prod-db", "30m", "why")
    card = understood(policy(), "alice", ask, "/access")
    assert isinstance(card, Card)
    assert card.text == "There is no resource `read`; the resource comes first, then the role."
    assert Code("/access prod-db read 30m because why") in card.parts
    draft = draft_of(policy(), "alice", ask)
    assert (draft.resource, draft.role, draft.duration) == ("prod-db", "read", "30m")


def test_line_that_was_replaced_says_what_becomes_of_its_use() -> None:
    text = spent_ticket_card(policy(), grant()).text
    assert text.endswith("was replaced by a newer one, below. Where it was used, it goes on working until the end.")


def test_an_end_on_another_day_has_its_date_and_is_found_in_its_sentence() -> None:
    held = grant(expires_at=NOW + timedelta(days=3))
    end = f"12:00 UTC on {held.expires_at.day} {held.expires_at:%B}"
    assert f"Alice has it until {end}. " in str(end_button(policy(), held).confirm)
    assert counter_card(policy(), held).text.startswith(f"Alice has read on prod-db until {end}: ")
    assert f"open until {end}." in ticket_card(policy(), held, TICKET).text
    spans = moments(f"from {clock(NOW)} until {end}.", NOW, held.expires_at)
    assert spans == say("from ", Moment(NOW), " until ", Moment(held.expires_at), ".")
    assert moments(f"until {end}.", NOW) == say(f"until {end}.")
    text = line("grant_opened", person="Alice", until=held.expires_at, since=held.opened_at)
    assert text == f"Alice has access until {end}."


def test_request_card_says_what_each_reviewer_approved() -> None:
    given_ = (
        Given("bob", "U0BOB00001", Answer.APPROVE, "", NOW, EVIDENCE, Terms("read", 900)),
        Given("dana", "U0DANA0001", Answer.APPROVE, "", NOW, EVIDENCE),
    )
    for state in RequestState:
        for extends in (None, "g0001"):
            made = request(state=state, narrowed=Terms("read", 900), extends=extends)
            card = request_card(RequestFacts(made, given_, None, policy(), NOW))
            valid(card)
            listed = [fact for part in card.parts if isinstance(part, Facts) for fact in part.facts]
            [approved] = [fact for fact in listed if fact.label == "Approved"]
            told = "".join(span.text for span in approved.value if isinstance(span, Words))
            assert told == ("Bob: read for 15m\nDana: as asked" if extends is None else "Bob: 15m more\nDana: as asked")
