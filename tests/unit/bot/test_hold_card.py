"""Cards of held statements: all of it is there to be read, or it cannot be approved; nothing in it forges anything."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bot import cards
from bot.cards import Buttons, Card
from bot.chat.slack.blocks import rendered
from bot.chat.slack.check import check_payload
from bot.chat.slack.views import DENY_HOLD_VIEW, deny_view
from bot.hold_card import HoldFacts, approvable, hold_card
from bot.hold_reading import form_parts
from bot.model import Exhibit, Given, Hold
from bot.statement_text import PARAMETERS_SHOWN, TEXT_SHOWN, file_of, fingerprint, parameter, read
from bot.text import clip_head, expose, length
from policies.engine.decisions import Need, Requirement
from policies.engine.model import Policy
from tests.unit.bot.memory import NOW, policy
from tests.unit.bot.test_cards import EVIDENCE, HOSTILE, ROOMY, grant, valid
from workflows.grants import GrantState
from workflows.holds import HoldState
from workflows.reviews import Answer
from workflows.wire import EstimateView, HoldView, SizedRelation

DIGEST = "d" * 64
FITTING = st.text(max_size=400) | st.text(alphabet="<>&*`\n\u202e\u00a0😀x", max_size=700)


def hold(**changes: Any) -> Hold:
    needs = Requirement((Need(1, ("dbas",)),))
    what = ((("prod-writes",)), ("write",), ("public.orders",))
    made = Hold(
        "h00000001", "t" * 32, "g1", "s1", DIGEST, HoldState.WAITING, needs, *what, NOW, NOW + timedelta(minutes=10)
    )
    return replace(made, **changes)


def view(text: str = "UPDATE orders SET total = 0", **more: Any) -> HoldView:
    facts = {"id": "h00000001", "grant": "g1", "session": "s1", "statement": "st1", "person": "alice"}
    where = {"resource": "prod-db", "role": "write", "state": "waiting", "digest": DIGEST, "text": text}
    return HoldView.model_validate({**facts, **where, "opened_at": NOW, "expires_at": NOW, **more})


def facts(shown: HoldView | None, held: Hold | None = None, *reviews: Given) -> HoldFacts:
    return HoldFacts(held or hold(), reviews, grant(role="write"), shown, policy())


def actions(card: Card) -> list[str]:
    return [button.action for part in card.parts if isinstance(part, Buttons) for button in part.buttons]


def literal(payload: dict[str, Any]) -> list[str]:
    """Return what stands in one pitch, block by block."""
    found = []
    for block in payload["blocks"]:
        for element in block.get("elements", []) if block["type"] == "rich_text" else []:
            if element["type"] == "rich_text_preformatted":
                found.append("".join(inner["text"] for inner in element["elements"]))
    return found


@ROOMY
@given(
    text=HOSTILE,
    values=st.lists(st.none() | HOSTILE, max_size=60),
    words=HOSTILE,
    state=st.sampled_from(HoldState),
    exhibit=st.sampled_from(Exhibit),
    locks=st.booleans(),
)
def test_card_of_any_statement_is_valid_and_approvable_only_when_it_can_be_read_whole(
    text: str, values: list[str | None], words: str, state: HoldState, exhibit: Exhibit, locks: bool
) -> None:
    names = tuple([words[:300]] * 30)
    held = hold(
        state=state,
        exhibit=exhibit,
        reason=words,
        note=words[:300],
        rules=names,
        relations=names,
        effects=("read", "write", "ddl", "admin"),
        requirement=Requirement(tuple(Need(n + 1, ("dbas", "security")) for n in range(5))),
        people=("bob", "dana"),
    )
    shown = view(text, parameters=values, in_transaction=locks)
    review = Given("bob", "U0BOB00001", Answer.APPROVE, words, NOW, EVIDENCE)
    made = facts(shown, held, review)
    card = hold_card(made)
    payload = valid(card)
    reading = read(shown)
    offered = cards.APPROVE_HOLD in actions(card)
    assert offered is approvable(made)
    if offered and exhibit is not Exhibit.FILE:
        whole = literal(payload)
        assert (reading.text or "(an empty statement)") in whole or not reading.text.strip()
        assert not reading.parameters or "\n".join(reading.parameters) in whole
    if not reading.fits and exhibit is not Exhibit.FILE:
        assert not offered
    assert (actions(card) != []) is (state is HoldState.WAITING)
    check_payload(deny_view("t" * 32, card.text, DENY_HOLD_VIEW))


@ROOMY
@given(FITTING, st.lists(st.none() | st.text(max_size=60), max_size=12))
@example("x" * TEXT_SHOWN, ["y" * (PARAMETERS_SHOWN - 8)])
@example("\n" * 79, ["a"] * 40)
@example("😀" * (TEXT_SHOWN // 2), [])
def test_what_fits_is_on_the_card_whole(text: str, values: list[str | None]) -> None:
    shown = view(text, parameters=values, in_transaction=True)
    reading = read(shown)
    payload = valid(hold_card(facts(shown)))
    if reading.fits and reading.text.strip():
        assert reading.text in literal(payload)
    if reading.fits and reading.parameters:
        assert "\n".join(reading.parameters) in literal(payload)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("x" * (TEXT_SHOWN + 1), []),
        ("\n" * 80, []),
        ("select 1", ["x" * PARAMETERS_SHOWN]),
        ("select 1", ["x"] * 41),
        ("\u202e" * 600, []),
    ],
    ids=["length", "lines", "parameter", "parameters", "escapes"],
)
def test_what_does_not_fit_waits_for_its_file(text: str, values: list[str | None]) -> None:
    shown = view(text, parameters=values)
    early = hold_card(facts(shown))
    assert actions(early) == [cards.DENY_HOLD]
    assert "it can be approved once that is there" in json.dumps(valid(early))
    later = hold_card(facts(shown, hold(exhibit=Exhibit.FILE)))
    assert actions(later) == [cards.APPROVE_HOLD, cards.DENY_HOLD]
    content = file_of("h00000001", shown, read(shown))
    assert fingerprint(content) in json.dumps(valid(later))
    never = hold_card(facts(shown, hold(exhibit=Exhibit.IMPOSSIBLE)))
    assert actions(never) == [cards.DENY_HOLD]


@ROOMY
@given(HOSTILE, st.lists(st.none() | HOSTILE, max_size=5))
def test_file_has_all_of_it_and_nothing_that_hides(text: str, values: list[str | None]) -> None:
    shown = view(text, parameters=values)
    reading = read(shown)
    content = file_of("h00000001", shown, reading).decode()
    assert content.endswith(f"to the end of this file:\n{reading.text}")
    assert expose(content) == (content, 0)
    rows = content.split("\n")
    assert rows[5 : 5 + len(values)] == list(reading.parameters)


def test_long_statement_shows_its_head_and_its_tail() -> None:
    rows = [f"line {number}" for number in range(500)]
    payload = valid(hold_card(facts(view("\n".join(rows)))))
    head, tail = literal(payload)
    assert head.startswith("line 0\nline 1\n")
    assert tail.endswith("line 498\nline 499")
    assert "500 lines" in json.dumps(payload)
    assert "characters are left out here" in json.dumps(payload)


@pytest.mark.parametrize(
    ("text", "shown", "count"),
    [
        ("a\u00a0b", "a\\u00a0b", 1),
        ("a\rb", "a\\u000db", 1),
        ("=\u0338", "=\\u0338", 1),
        ("e\u0301", "e\u0301", 0),
        ("x\ufe0f", "x\\ufe0f", 1),
        ("👩\u200d💻", "👩\\u200d💻", 1),
        ("\U000e0101", "\\u{e0101}", 1),
        ("a\n\tb", "a\n\tb", 0),
    ],
)
def test_characters_that_hide_in_a_statement_are_written_by_their_numbers(text: str, shown: str, count: int) -> None:
    assert expose(text) == (shown, count)


def test_letters_that_look_latin_are_named() -> None:
    text = json.dumps(valid(hold_card(facts(view("SELECT \u0430 FROM t")))), ensure_ascii=False)
    assert "letters that are not Latin and may look like it: \u0430 (\\\\u0430)" in text
    assert "not Latin" not in json.dumps(valid(hold_card(facts(view("SELECT 'é ü' FROM t")))))


def test_parameters_cannot_forge_each_other() -> None:
    assert parameter(1, None) == ("$1 = NULL", 0)
    assert parameter(2, "NULL") == ("$2 = 'NULL'", 0)
    assert parameter(3, "a'\n$4 = 'b") == ("$3 = 'a''\\u000a$4 = ''b'", 1)


def redacting() -> Policy:
    held = policy()
    resource = held.resources["prod-db"].model_copy(update={"show": "redacted"})
    return held.model_copy(update={"resources": {"prod-db": resource}})


def test_locks_are_named_and_how_long_they_may_wait() -> None:
    held = hold(expires_at=NOW + timedelta(minutes=1))
    text = json.dumps(valid(hold_card(facts(view(in_transaction=True), held))))
    assert "It waits in an open transaction, for at most 1m: locks are held." in text
    assert "locks are held" not in json.dumps(valid(hold_card(facts(view()))))
    estimate = EstimateView(locks=[])
    text = json.dumps(valid(hold_card(facts(view(in_transaction=True, estimate=estimate), held))))
    assert "It waits in an open transaction that has locked no table yet, for at most 1m." in text
    assert "locks are held" not in text
    estimate = EstimateView(locks=["public.orders (row exclusive)"])
    text = json.dumps(valid(hold_card(facts(view(in_transaction=True, estimate=estimate), held))))
    assert "Locks: public.orders (row exclusive), and those on rows it changed." in text


def test_statement_that_does_not_wait_says_how_it_goes_on() -> None:
    text = json.dumps(valid(hold_card(facts(view(waits=False)))))
    assert "the same statement may run, once, within ten minutes" in text


@pytest.mark.parametrize(
    ("estimate", "words"),
    [
        (None, "no estimate yet"),
        (EstimateView(why="it reads masked fields"), "no estimate: it reads masked fields"),
        (EstimateView(rows=8312), "it would change about 8,312 rows, the planner expects"),
        (EstimateView(rows=1), "it would change about 1 row, the planner expects"),
        (
            EstimateView(rows=0, relations=[SizedRelation(name="public.orders", rows=100_000, bytes=12_582_912)]),
            "public.orders: about 100,000 rows, 12 MB",
        ),
        (
            EstimateView(relations=[SizedRelation(name="public.orders", bytes=8192)]),
            "public.orders: 8.0 kB",
        ),
        (EstimateView(relations=[SizedRelation(name="public.orders")]), "public.orders: its size is not known"),
    ],
    ids=str,
)
def test_card_says_what_the_database_says_of_the_statement(estimate: EstimateView | None, words: str) -> None:
    payload = valid(hold_card(facts(view(estimate=estimate, effects=["write"]))))
    assert words in json.dumps(payload)
    assert "May touch" not in str(hold_card(facts(view(estimate=estimate))))
    most = "at most 20 rows, triggers and cascades included: above that it is rolled back"
    bound = str(hold_card(facts(view(estimate=estimate, most=20))))
    assert most in bound
    more = estimate is not None and (estimate.rows or 0) > 20
    assert ("The planner expects more, so an approval would most likely be in vain" in bound) is more
    clear = str(hold_card(facts(view(estimate=estimate, reveals=["public.customers.ssn"]))))
    assert "public.customers.ssn, in clear" in clear
    assert "sees public.customers.ssn in clear" in clear
    reached = [f"public.t{number}: deleted with public.orders (on delete cascade)" for number in range(10)]
    shown = str(hold_card(facts(view(estimate=EstimateView(cascades=reached, triggers=["public.t1: x on delete"])))))
    assert "public.t7: deleted with public.orders (on delete cascade)\\nand 2 more" in shown
    assert "public.t1: x on delete" in shown
    many = [SizedRelation(name=f"public.t{number}") for number in range(9)]
    assert "and 3 more" in json.dumps(valid(hold_card(facts(view(estimate=EstimateView(relations=many))))))


def test_redacted_card_shows_no_value_and_offers_only_review() -> None:
    shown = view("UPDATE orders SET total = 41 WHERE id = 7", redacted="UPDATE orders SET total = $1 WHERE id = $2")
    for exhibit in Exhibit:
        made = replace(facts(shown, hold(exhibit=exhibit)), policy=redacting())
        card = hold_card(made)
        text = json.dumps(valid(card))
        assert actions(card) == [cards.REVIEW_HOLD]
        assert "SET total = $1" in text
        assert "41" not in text.replace(shown.digest, "")
    over = replace(made, hold=hold(state=HoldState.CONSUMED, people=("bob",)))
    assert actions(hold_card(over)) == []
    assert "41" not in json.dumps(valid(hold_card(over)))


def test_resource_that_the_policy_lost_is_taken_for_redacted() -> None:
    nothing = policy().model_copy(update={"resources": {}})
    assert actions(hold_card(replace(facts(view()), policy=nothing))) == [cards.REVIEW_HOLD]


@ROOMY
@given(text=HOSTILE | st.text(min_size=3000, max_size=9000), values=st.lists(st.none() | HOSTILE, max_size=60))
@example(text="x" * 130_000, values=[])
@example(text="a\n" * 40_000, values=["v" * 5000])
@example(text="\u202e" * 30_000, values=[])
@example(text="", values=[])
def test_form_shows_all_of_a_statement_or_does_not_show_it(text: str, values: list[str | None]) -> None:
    shown = view(text, parameters=values)
    parts = form_parts(shown)
    reading = read(shown)
    if parts is None:
        assert length(reading.text) + length("\n".join(reading.parameters)) > 100_000
        return
    pieces = literal({"blocks": rendered(parts)})
    whole = reading.text if reading.text.strip() else "(an empty statement)"
    assert "".join(pieces) == whole + "\n".join(reading.parameters)


def test_statement_comes_first_then_facts_then_buttons() -> None:
    payload = valid(hold_card(facts(view("UPDATE orders SET total = 0"))))
    kinds = [block["type"] for block in payload["blocks"]]
    assert kinds == ["rich_text", "rich_text", "context", "rich_text", "section", "context", "actions"]
    line, statement = (block["elements"][0] for block in payload["blocks"][:2])
    assert [each.get("text") or each["user_id"] for each in line["elements"]] == [
        *("U0ALICE001", " asks to run this, once, as ", "write on prod-db")
    ]
    assert statement["elements"] == [{"type": "text", "text": "UPDATE orders SET total = 0"}]
    assert 1 <= len(payload["blocks"][4]["fields"]) <= 4


@pytest.mark.parametrize("shown", [None, view(digest="e" * 64)], ids=["unknown", "another"])
def test_statement_that_is_not_there_or_is_another_cannot_be_approved(shown: HoldView | None) -> None:
    card = hold_card(facts(shown, hold(exhibit=Exhibit.FILE)))
    assert actions(card) == [cards.DENY_HOLD]
    assert "UPDATE" not in json.dumps(valid(card))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"state": HoldState.RELEASED, "people": ("bob",)},
            "it has not run yet, it may run once until 12:10 UTC.",
        ),
        ({"state": HoldState.CONSUMED, "people": ("bob", "erin")}, "Approved by Bob and Erin, ran once."),
        (
            {"state": HoldState.CONSUMED, "people": ("bob",), "reason": "rolled_back"},
            "Approved by Bob, ran once; its transaction was rolled back.",
        ),
        (
            {"state": HoldState.CONSUMED, "people": ("bob",), "reason": "failed"},
            "Approved by Bob, ran once and failed.",
        ),
        ({"state": HoldState.CONSUMED, "reason": "{x}"}, "sent once; its session ended before anybody heard"),
        ({"state": HoldState.REFUSED, "people": ("dana",), "reason": "no"}, "Denied by Dana: no"),
        ({"state": HoldState.TIMED_OUT}, "Nobody answered in time, so it did not run."),
        ({"state": HoldState.ABANDONED, "reason": "crowded"}, "Alice has sent too many others since."),
        ({"state": HoldState.TIMED_OUT, "people": ("bob",)}, "Approved by Bob, but not used in time"),
        ({"state": HoldState.ABANDONED, "reason": "client"}, "Given up: Alice left. It did not run; nobody denied it."),
        ({"state": HoldState.ABANDONED, "reason": "{0.__class__}"}, "Given up: nobody waits for it any more."),
        ({"answered": HoldState.RELEASED}, "Waiting for 1 of dbas: Bob or Dana."),
    ],
    ids=str,
)
def test_card_of_what_is_over_has_no_buttons_and_mentions_nobody(changes: dict[str, Any], words: str) -> None:
    payload = valid(hold_card(facts(view(), hold(**changes))))
    assert words in payload["text"]
    assert '"user"' not in json.dumps(payload)
    assert all(block["type"] != "actions" for block in payload["blocks"])


def test_grant_that_is_over_offers_nothing() -> None:
    made = replace(facts(view()), grant=grant(role="write", state=GrantState.EXPIRED))
    assert actions(hold_card(made)) == []


@given(HOSTILE, st.integers(10, 500))
def test_end_of_a_text_is_kept_within_its_limit(text: str, limit: int) -> None:
    kept = clip_head(text, limit)
    assert length(kept) <= limit
    assert text.endswith(kept.removeprefix("…"))
