"""Held statements with ports in memory: who may answer, what is queued for it, what the broker's word changes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from bot import holds, relay
from bot.adapters.answers import answer_of
from bot.cards import MessageLink, Paragraph, Words
from bot.handlers import handle
from bot.hold_card import does, held_words, hold_words
from bot.intents import ApproveHold, Intent, OpenDenyHold, RefuseHold
from bot.model import Exhibit, Hold
from bot.outgoing import AnswerHold, Mirror, Privately, Say, Show, to_row
from bot.ports import Outsider, Refusal
from policies.engine.decisions import Need, Requirement
from tests.unit.bot.memory import CHANNEL, LATER, NOW, MemoryWork, desk, member, policy, source
from tests.unit.bot.test_handlers import granted
from tests.unit.bot.test_relay import event
from workflows.grants import GrantState
from workflows.holds import TABLE, HoldEvent, HoldState
from workflows.reviews import Answer
from workflows.wire import Problem

DIGEST = "d" * 64
ONE = [{"count": 1, "groups": ["dbas"]}]
BOTH = [{"count": 1, "groups": ["dbas"]}, {"count": 1, "groups": ["security"]}]
EVENTS = {
    HoldEvent.RELEASE: ("hold.released", {"by": ["bob"]}),
    HoldEvent.CONSUME: ("hold.consumed", {"statement": "s1"}),
    HoldEvent.REFUSE: ("hold.refused", {"by": "dana", "reason": "no"}),
    HoldEvent.TIME_OUT: ("hold.timed_out", {}),
    HoldEvent.ABANDON: ("hold.abandoned", {"reason": "client"}),
}
PLACE = Privately("U0BOB00001", CHANNEL)


async def held(work: MemoryWork, needs: Any = ONE, exhibit: Exhibit = Exhibit.CARD, id: str = "h0001") -> Hold:
    """Bring Alice to a statement that waits."""
    if not work.grants:
        await granted(work)
    facts = {"hold": id, "digest": DIGEST, "needs": needs, "rules": ["prod-writes"], "text": "UPDATE ..."}
    until = (NOW + timedelta(minutes=10)).isoformat()
    what = {"effects": ["write"], "relations": ["public.orders"], "expires_at": until}
    await relay.apply(desk(work), [event(50, "hold.opened", **facts, **what)])
    work.holds[id] = replace(work.holds[id], exhibit=exhibit)
    return work.holds[id]


async def does_(work: MemoryWork, intent: Intent, person: str, cause: str = "do", **more: Any) -> None:
    await handle(desk(work, **more), intent, member(person), cause)


def answers(work: MemoryWork) -> list[AnswerHold]:
    return [item for _, item in work.sent.values() if isinstance(item, AnswerHold)]


async def test_hold_is_shown_at_once_and_its_statement_is_nowhere_kept() -> None:
    work = MemoryWork()
    hold = await held(work)
    assert (hold.state, hold.requirement) == (HoldState.WAITING, Requirement((Need(1, ("dbas",)),)))
    [(lane, _)] = [sent for sent in work.sent.values() if sent[1] == Show("hold:h0001", 1)]
    assert lane == "hold:h0001"
    assert "UPDATE" not in repr(work.holds) + repr([to_row(item) for _, item in work.sent.values()])


async def test_hold_is_opened_once_and_only_under_a_known_grant() -> None:
    work = MemoryWork()
    first = await held(work)
    await held(work)
    assert work.holds["h0001"].token == first.token
    await relay.apply(desk(work), [event(60, "hold.opened", "g9999", hold="h0009")])
    await relay.apply(desk(work), [event(61, "hold.opened", hold="../grants/g1")])
    assert list(work.holds) == ["h0001"]


async def test_approval_is_kept_with_the_digest_and_sent_before_the_broker() -> None:
    work = MemoryWork()
    hold = await held(work)
    await does_(work, ApproveHold(source("bob"), hold.token), "bob")
    [given] = await work.hold_reviews(hold)
    assert (given.person, given.answer, given.evidence.user) == ("bob", Answer.APPROVE, "U0BOB00001")
    assert await work.hold_reviews(replace(hold, digest="e" * 64)) == []
    [(lane, item)] = [sent for sent in work.sent.values() if isinstance(sent[1], AnswerHold)]
    assert (lane, item) == ("answer:h0001", AnswerHold("h0001", Answer.APPROVE, PLACE))
    assert work.holds[hold.id].state is HoldState.WAITING
    assert "do:tell" not in work.sent


@pytest.mark.parametrize(
    ("person", "why"), [("alice", "nobody reviews their own request"), ("erin", "you are not in dbas")]
)
@pytest.mark.parametrize("kind", [ApproveHold, OpenDenyHold, RefuseHold])
async def test_who_may_not_answer_is_told_why(person: str, why: str, kind: Any) -> None:
    work = MemoryWork()
    hold = await held(work)
    intent = kind(source(person), hold.token, "no") if kind is RefuseHold else kind(source(person), hold.token)
    await does_(work, intent, person)
    assert why in work.told("do")
    assert answers(work) == []


async def test_outsider_answers_nothing() -> None:
    work = MemoryWork()
    hold = await held(work)
    guest = Outsider("U0GUEST001", "guests may not")
    for number, intent in enumerate(
        (ApproveHold(source("bob"), hold.token), RefuseHold(source("bob"), hold.token, "x"))
    ):
        await handle(desk(work), intent, guest, f"o{number}")
        assert work.told(f"o{number}") == "You cannot use this: guests may not."
    assert answers(work) == []


@pytest.mark.parametrize(
    ("exhibit", "words"),
    [(Exhibit.NOWHERE, "has not been shown whole"), (Exhibit.IMPOSSIBLE, "cannot be shown whole here")],
)
async def test_what_is_not_shown_whole_is_denied_but_not_approved(exhibit: Exhibit, words: str) -> None:
    work = MemoryWork()
    hold = await held(work, exhibit=exhibit)
    await does_(work, ApproveHold(source("bob"), hold.token), "bob", "approve")
    assert words in work.told("approve")
    assert answers(work) == []
    await does_(work, RefuseHold(source("bob"), hold.token, "no"), "bob", "deny")
    assert [item.answer for item in answers(work)] == [Answer.DENY]


async def test_second_reviewer_hears_who_was_faster_and_a_denial_still_counts() -> None:
    work = MemoryWork()
    hold = await held(work)
    await does_(work, ApproveHold(source("bob"), hold.token), "bob", "first")
    await does_(work, ApproveHold(source("dana"), hold.token), "dana", "second")
    assert work.told("second") == "This statement was already approved by Bob."
    # The broker has not let it go yet, and one denial ends it.
    await does_(work, RefuseHold(source("dana"), hold.token, "wait"), "dana", "third")
    assert [item.answer for item in answers(work)] == [Answer.APPROVE, Answer.DENY]
    await does_(work, ApproveHold(source("bob"), hold.token), "bob", "fourth")
    assert work.told("fourth") == "This statement was already denied by Dana."


async def test_one_person_fills_one_place_of_two() -> None:
    work = MemoryWork()
    hold = await held(work, BOTH)
    await does_(work, ApproveHold(source("bob"), hold.token), "bob", "one")
    await does_(work, ApproveHold(source("bob"), hold.token), "bob", "two")
    assert "it still needs 1 of security: Erin" in work.told("two")
    assert len(answers(work)) == 1


@pytest.mark.parametrize(("state", "move"), list(itertools.product(HoldState, HoldEvent)))
async def test_every_event_moves_a_hold_as_the_table_says_or_not_at_all(state: HoldState, move: HoldEvent) -> None:
    work = MemoryWork()
    hold = await held(work)
    work.holds[hold.id] = replace(hold, state=state)
    type, data = EVENTS[move]
    before = dict(work.sent)
    await relay.apply(desk(work), [event(51, type, hold=hold.id, **data)])
    after = TABLE.get((state, move))
    assert work.holds[hold.id].state is (after or state)
    assert (work.sent == before) is (after is None)


@pytest.mark.parametrize("state", [state for state in HoldState if state is not HoldState.WAITING])
async def test_late_click_hears_what_became_of_it(state: HoldState) -> None:
    work = MemoryWork()
    hold = await held(work)
    work.holds[hold.id] = replace(hold, state=state, people=("dana",), reason="client")
    await does_(work, ApproveHold(source("bob"), hold.token), "bob")
    words = {
        HoldState.RELEASED: "already approved by Dana",
        HoldState.CONSUMED: "already approved by Dana, and ran",
        HoldState.REFUSED: "already denied by Dana",
        HoldState.TIMED_OUT: "not used in time",
        HoldState.ABANDONED: "Given up: Alice left",
    }
    assert words[state] in work.told("do")
    assert answers(work) == []


async def test_click_after_its_time_or_after_the_access_does_nothing() -> None:
    work = MemoryWork()
    hold = await held(work)
    late = desk(work, hold.expires_at)
    await handle(late, ApproveHold(source("bob"), hold.token), member("bob"), "late")
    assert "The time of this statement is over" in work.told("late")
    work.grants["g0001"] = replace(work.grants["g0001"], state=GrantState.REVOKED)
    await does_(work, ApproveHold(source("bob"), hold.token), "bob", "over")
    assert "The access is over (revoked)" in work.told("over")
    assert answers(work) == []


async def test_click_from_another_channel_or_an_older_card_does_nothing() -> None:
    work = MemoryWork()
    hold = await held(work)
    place = f"hold:{hold.id}"
    work.places[place] = replace(work.places[place], channel=CHANNEL, ts="2.0")
    await does_(work, ApproveHold(source("bob", "2.0", "C0GENERAL1"), hold.token), "bob", "elsewhere")
    await does_(work, ApproveHold(source("bob", "1.0"), hold.token), "bob", "older")
    await does_(work, ApproveHold(source("bob"), "another"), "bob", "forged")
    assert "no statement that is known" in work.told("elsewhere")
    assert "not the newest card of that statement" in work.told("older")
    assert "no statement that is known" in work.told("forged")
    assert answers(work) == []


async def test_broker_that_wants_more_raises_what_is_needed_and_the_reviewer_hears_it() -> None:
    work = MemoryWork()
    hold = await held(work)
    await does_(work, ApproveHold(source("bob"), hold.token), "bob")
    more = Refusal(409, Problem(code="more_reviews", message="x", needs=[{"count": 1, "groups": ["security"]}]))
    await holds.more_reviews(desk(work), answers(work)[0], more, "answer")
    assert work.told("answer") == "Your approval counts; it still needs 1 of security: Erin."
    assert work.holds[hold.id].requirement == Requirement((Need(1, ("dbas",)), Need(1, ("security",))))
    await does_(work, ApproveHold(source("erin"), hold.token), "erin", "erin")
    assert len(answers(work)) == 2


async def test_denial_that_does_not_count_at_the_broker_is_not_called_an_approval() -> None:
    work = MemoryWork()
    hold = await held(work)
    await does_(work, RefuseHold(source("bob"), hold.token, "no"), "bob")
    more = Refusal(409, Problem(code="more_reviews", message="x", needs=ONE))
    await holds.more_reviews(desk(work), answers(work)[0], more, "answer")
    assert (
        work.told("answer")
        == "By the broker's policy your denial does not count; it still needs 1 of dbas: Bob or Dana."
    )
    assert work.holds[hold.id].requirement == Requirement((Need(1, ("dbas",)),))


async def test_answer_that_is_not_taken_can_be_given_again() -> None:
    work = MemoryWork()
    hold = await held(work)
    await does_(work, ApproveHold(source("bob"), hold.token), "bob")
    await holds.not_taken(
        desk(work), answers(work)[0], Refusal(422, Problem(code="bad", message="`no`\u202e")), "answer"
    )
    assert "did not take the answer" in work.told("answer")
    assert "\u202e" not in work.told("answer")
    await does_(work, ApproveHold(source("dana"), hold.token), "dana", "again")
    assert len(answers(work)) == 2
    assert work.holds[hold.id].note is None


async def test_broker_that_is_away_is_said_once_and_forgotten() -> None:
    work = MemoryWork()
    hold = await held(work)
    for cause in ("first", "second"):
        await holds.broker_away(desk(work), AnswerHold(hold.id, Answer.APPROVE, PLACE), cause)
    assert "sent again until 12:10 UTC" in work.told("first:away")
    assert "second:away:tell" not in work.sent
    assert work.holds[hold.id].note == holds.AWAY
    await holds.decided(desk(work), hold.id, HoldState.RELEASED)
    assert (work.holds[hold.id].answered, work.holds[hold.id].note) == (HoldState.RELEASED, None)
    await does_(work, ApproveHold(source("dana"), hold.token), "dana")
    assert "already approved" in work.told("do")


@pytest.mark.parametrize(
    ("answer", "state", "told"),
    [
        (Answer.APPROVE, HoldState.RELEASED, ""),
        (Answer.APPROVE, HoldState.CONSUMED, ""),
        (Answer.DENY, HoldState.REFUSED, ""),
        (Answer.DENY, HoldState.CONSUMED, "already approved"),
        (Answer.APPROVE, HoldState.REFUSED, "already denied"),
        (Answer.APPROVE, HoldState.ABANDONED, "Nobody waits for it."),
        (Answer.APPROVE, None, "This statement is over: why."),
    ],
)
async def test_answer_that_came_too_late_says_so_unless_it_is_what_happened(
    answer: Answer, state: HoldState | None, told: str
) -> None:
    work = MemoryWork()
    hold = await held(work)
    await holds.too_late(desk(work), AnswerHold(hold.id, answer, PLACE), state, "why.", "late")
    assert ("late:tell" in work.sent) is bool(told)
    if told:
        assert told in work.told("late")
        assert "Your answer changed nothing." in work.told("late")


async def test_same_reviews_are_the_same_answer() -> None:
    work = MemoryWork()
    hold = await held(work, BOTH)
    await does_(work, ApproveHold(source("bob"), hold.token), "bob", "bob")
    first = answer_of(hold, await work.hold_reviews(hold), "0" * 64)
    assert first == answer_of(hold, await work.hold_reviews(hold), "0" * 64)
    await does_(work, ApproveHold(source("erin"), hold.token), "erin", "erin")
    second = answer_of(hold, await work.hold_reviews(hold), "0" * 64)
    assert (first.id != second.id, second.digest, len(second.reviews)) == (True, DIGEST, 2)


async def test_thread_says_what_the_card_alone_would_tell_nobody() -> None:
    work = MemoryWork()
    hold = await held(work)
    await relay.apply(desk(work), [event(51, "hold.refused", hold=hold.id, by="dana", reason="not <!here>\nnow")])
    [text] = [i.card.text for key, (_, i) in work.sent.items() if key == "hold:h0001:refused" and isinstance(i, Say)]
    assert text == "Dana denied the statement of Alice: not <!here> now"
    assert (work.holds[hold.id].people, work.holds[hold.id].reason) == (("dana",), "not <!here>\nnow")


async def test_who_has_approved_is_not_named_among_those_who_still_may() -> None:
    work = MemoryWork()
    hold = await held(work, [{"count": 2, "groups": ["dbas"]}])
    await does_(work, ApproveHold(source("bob"), hold.token), "bob")
    words = hold_words(policy(), hold, "alice", await work.hold_reviews(hold))
    assert words == "Approved by Bob so far. Still waiting for 1 of dbas: Dana."
    await does_(work, ApproveHold(source("bob"), hold.token), "bob", "again")
    assert work.told("again") == "You have approved this already; it still needs 1 of dbas: Dana."


async def test_one_approval_of_two_is_not_passed_over_when_the_time_is_over() -> None:
    work = MemoryWork()
    hold = await held(work, BOTH)
    await does_(work, ApproveHold(source("bob"), hold.token), "bob")
    await relay.apply(desk(work), [event(51, "hold.timed_out", hold=hold.id)])
    told = [i.card.text for key, (_, i) in work.sent.items() if "h0001:timed_out" in key and isinstance(i, Say)]
    late = "Bob approved, but not everybody who was needed answered in time"
    assert told == [
        f"The statement of Alice did not run: {late}.",
        f"Your statement that changes public.orders: {late}, so it did not run.",
    ]
    late_words = holds.lateness(policy(), work.holds[hold.id], work.grants[hold.grant])
    assert late_words == "This statement is over. Not everybody who was needed answered in time, so it did not run."


async def test_thread_has_all_of_a_reason_and_leads_to_the_card_that_it_is_about() -> None:
    work = MemoryWork()
    hold = await held(work)
    reason = "as the runbook says, first " + "look " * 400
    await relay.apply(desk(work), [event(51, "hold.refused", hold=hold.id, by="dana", reason=reason)])
    [card] = [i.card for key, (_, i) in work.sent.items() if key == "hold:h0001:refused" and isinstance(i, Say)]
    assert card.text == f"Dana denied the statement of Alice: {reason.strip()}"
    assert card.parts == (
        Paragraph(
            (
                Words("Dana denied the "),
                MessageLink("hold:h0001", "statement of Alice"),
                Words(f": {reason.strip()}"),
            )
        ),
    )


async def test_requester_elsewhere_gets_the_same_as_direct_messages() -> None:
    work = MemoryWork()
    await granted(work)
    hold = await held(work)
    await relay.apply(desk(work), [event(51, "hold.released", hold=hold.id, by=["bob"])])
    told = [i.card.text for _, i in work.sent.values() if isinstance(i, Say) and isinstance(i.place, Mirror)][1:]
    assert told == [
        "Your statement that changes public.orders waits for 1 of dbas: Bob or Dana.",
        "Your statement that changes public.orders: Approved by Bob; it runs now.",
    ]


async def test_card_says_that_what_ran_was_rolled_back() -> None:
    work = MemoryWork()
    await held(work)
    undone = event(62, "hold.undone", hold="h0001", statement="s1", outcome="rolled_back")
    await relay.apply(desk(work), [undone])
    assert work.holds["h0001"].reason is None  # Nothing has run yet.
    steps = [event(60, "hold.released", hold="h0001", by=["bob"]), event(61, "hold.consumed", hold="h0001")]
    await relay.apply(desk(work), steps)
    shown = len([item for _, item in work.sent.values() if isinstance(item, Show)])
    await relay.apply(desk(work), [undone])
    assert (work.holds["h0001"].state, work.holds["h0001"].reason) == (HoldState.CONSUMED, "rolled_back")
    assert len([item for _, item in work.sent.values() if isinstance(item, Show)]) > shown


async def test_summary_says_who_answered_holds() -> None:
    work = MemoryWork()
    await held(work)
    await held(work, id="h0002")
    steps = [("hold.released", "h0001", {"by": ["bob"]}), ("hold.consumed", "h0001", {})]
    steps.append(("hold.abandoned", "h0002", {"reason": "cancelled"}))
    events = [event(60 + n, type, hold=hold, **data) for n, (type, hold, data) in enumerate(steps)]
    await relay.apply(desk(work), [*events, event(70, "grant.closed", sessions=1, verified=True)])
    [text] = [i.card.text for key, (_, i) in work.sent.items() if key == "summary:g0001" and isinstance(i, Say)]
    assert "0 blocked, 2 held: 1 approved by Bob, 1 given up." in text


def test_what_a_statement_does_is_said_in_words() -> None:
    hold = Hold("h", "t", "g", "s", DIGEST, HoldState.WAITING, Requirement(()), (), (), (), NOW, LATER)
    assert does(hold) == "does what the broker did not name"
    both = replace(hold, effects=("write", "read"), relations=("public.orders", "public.items"))
    assert does(both) == "reads and changes public.orders, public.items"
    assert (
        does(replace(hold, effects=("ddl", "admin"))) == "changes the schema of no relation and administers the server"
    )
    assert held_words(policy(), []) == ""
