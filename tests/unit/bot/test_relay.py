"""What the broker's events become: replies in the thread, counters, summaries, direct messages."""

from __future__ import annotations

from typing import Any

import pytest

from bot import relay
from bot.cards import Code
from bot.grant_cards import counter_card
from bot.outgoing import InThread, Mirror, Say, ToPerson
from bot.request_words import ending_words
from bot.text import one_line
from tests.unit.bot.memory import LATER, MemoryWork, desk, policy
from tests.unit.bot.test_handlers import granted
from workflows.grants import GrantState
from workflows.wire import FOLDED, EventView


def event(number: int, type: str, grant: str | None = "g0001", **data: Any) -> EventView:
    return EventView(cursor=f"c{number}", stream="s", seq=number, at=LATER, type=type, grant=grant, data=data)


async def test_events_are_counted_and_blocked_statements_shown_without_a_flood() -> None:
    work = MemoryWork()
    grant = await granted(work)
    events = [event(1, "session.opened"), event(2, "session.opened")]
    events += [event(n, "statement.denied", text="DROP TABLE x", rules=["r"], message="no") for n in range(3, 63)]
    events += [
        event(70, "statement.allowed", masked=["public.customers.ssn"]),
        event(71, "session.closed", verified=True),
    ]
    await relay.apply(desk(work), events)
    now = work.grants[grant.id]
    assert (now.sessions, now.open_sessions, now.statements, now.denied) == (2, 1, 61, 60)
    assert now.masked == ("public.customers.ssn",)
    replies = [key for key in work.sent if key.startswith("event:") and not key.endswith(":told")]
    assert len(replies) == 1 + relay.DENIALS_SHOWN + 1
    # All but the session's opening, to a requester who does not see the thread.
    told = [item for key, (_, item) in work.sent.items() if key.startswith("event:") and isinstance(item, Say)]
    mirrored = [item for item in told if isinstance(item.place, Mirror)]
    assert len(mirrored) == relay.DENIALS_SHOWN + 1
    assert mirrored[0].card.text == "read on prod-db: Blocked: no. Rule r."
    assert Code("DROP TABLE x") in mirrored[0].card.parts


async def test_what_was_refused_until_its_review_is_counted_and_has_its_card_alone() -> None:
    work = MemoryWork()
    grant = await granted(work)
    refused = event(3, "statement.denied", text="UPDATE x", rules=["r"], message="this needs a review", hold="h1")
    await relay.apply(desk(work), [refused])
    assert (work.grants[grant.id].statements, work.grants[grant.id].blocked) == (1, 0)
    assert not [key for key in work.sent if key.startswith("event:")]


async def test_statements_that_are_told_together_are_counted_for_each_grant() -> None:
    work = MemoryWork()
    grant = await granted(work)
    share = {"statements": 700, "masked": ["public.customers.ssn"], "rules": {"reads": 700}}
    odd: dict[str, Any] = {"unknown": share, "g0002": "no share", grant.id: share}
    events = [event(1, "statement.allowed", masked=["public.customers.email"]), event(2, FOLDED, None, grants=odd)]
    await relay.apply(desk(work), [*events, event(3, FOLDED, None), event(4, FOLDED, None, grants=[])])
    now = work.grants[grant.id]
    assert (now.statements, now.masked) == (701, ("public.customers.email", "public.customers.ssn"))


async def test_thread_is_told_both_counts_of_a_change_that_was_rolled_back() -> None:
    work = MemoryWork()
    await granted(work)
    counted = [event(n, "statement.counted", rows=rows, most=10, kept=rows <= 10) for n, rows in ((1, 9), (2, 4096))]
    await relay.apply(desk(work), counted)
    await relay.apply(desk(work), [event(3, "statement.counted", rows=None, most=10, kept=False)])
    undone = "A statement of Alice was rolled back: it touched"
    assert [text for text in said(work, InThread) if "touched" in text] == [
        f"{undone} 4,096 rows, triggers and cascades included, and might touch 10 rows.",
        f"{undone} what could not be counted, triggers and cascades included, and might touch 10 rows.",
    ]


async def test_closed_grant_is_summed_up_once() -> None:
    work = MemoryWork()
    grant = await granted(work)
    closed = event(
        2,
        "grant.closed",
        statements=7,
        denied=2,
        sessions=1,
        verified=True,
        recording={"hash": "ab"},
        masked=["public.customers.ssn"],
        revealed=["public.customers.email"],
    )
    await relay.apply(desk(work), [event(1, "grant.ended", by="alice", state="ended"), closed, closed])
    now = work.grants[grant.id]
    assert (now.state, now.statements, now.verified, now.recording) == (GrantState.ENDED, 7, True, "ab")
    assert work.kinds().count("transcript") == 3
    [text] = [
        item.card.text for key, (_, item) in work.sent.items() if key == "summary:g0001" and isinstance(item, Say)
    ]
    assert "approved by Bob" in text
    assert "7 statements, 2 blocked" in text
    assert "Masked fields: customers.ssn." in text
    assert "No " not in text


async def test_summary_of_what_was_only_revealed_does_not_say_that_nothing_was_read() -> None:
    work = MemoryWork()
    await granted(work)
    facts: dict[str, Any] = {"statements": 1, "denied": 0, "sessions": 1, "verified": True}
    closed = event(2, "grant.closed", **facts, masked=[], revealed=["public.customers.email"])
    await relay.apply(desk(work), [event(1, "grant.expired"), closed])
    [text] = [text for text in said(work, InThread) if "approved by Bob" in text]
    assert "revealed: customers.email.\nNo other masked field was read." in text


async def test_event_of_a_grant_that_nobody_knows_changes_nothing() -> None:
    work = MemoryWork()
    await relay.apply(desk(work), [event(1, "statement.denied", "g9999"), event(2, "policy.loaded", None)])
    assert work.sent == {}


def said(work: MemoryWork, place: type[InThread] | type[ToPerson]) -> list[str]:
    """Return what was said in threads, or to people."""
    items = [item for _, item in work.sent.values() if isinstance(item, Say)]
    return [item.card.text for item in items if isinstance(item.place, place)]


async def test_mistyped_statements_are_counted_and_take_no_room_from_blocked_ones() -> None:
    work = MemoryWork()
    grant = await granted(work)
    typos = [event(n, "statement.denied", text="selec 1", rules=["syntax"], mistyped=True) for n in range(40)]
    await relay.apply(desk(work), typos)
    assert not [text for text in said(work, InThread) if text.startswith("Blocked")]
    drop = event(50, "statement.denied", text="DROP TABLE x", rules=["r"], message="no")
    await relay.apply(desk(work), [event(49, "session.opened"), drop])
    assert said(work, InThread)[-1] == "Blocked: no. Rule r."
    now = work.grants[grant.id]
    assert (now.statements, now.denied, now.mistyped, now.blocked) == (41, 41, 40, 1)
    assert "41 statements, 1 blocked, 40 mistyped, nothing masked yet" in counter_card(policy(), now).text
    closed = event(60, "grant.closed", statements=41, denied=41, sessions=1, verified=True)
    await relay.apply(desk(work), [event(59, "grant.expired"), closed])
    [summary] = [text for text in said(work, InThread) if "approved by Bob" in text]
    assert "41 statements, 1 blocked, 40 mistyped." in summary


async def test_thread_says_that_a_resource_is_down_and_later_that_it_answers_again() -> None:
    work = MemoryWork()
    grant = await granted(work)
    failed = [event(n, "upstream.failed", resource="prod-db", reason="it refuses connections") for n in (1, 2)]
    await relay.apply(desk(work), [*failed, event(3, "session.refused", reason="upstream down")])
    down = "prod-db cannot be used now: it refuses connections. The access stays open meanwhile."
    assert said(work, InThread)[-1] == down
    assert said(work, InThread).count(down) == 1
    assert work.grants[grant.id].refused == 1
    assert work.grants[grant.id].down_since == LATER
    await relay.apply(desk(work), [event(4, "session.opened"), event(5, "session.opened")])
    assert said(work, InThread).count("prod-db answers again.") == 1
    assert work.grants[grant.id].down_since is None


async def test_psql_that_tries_to_come_back_after_the_end_is_counted_and_nothing_to_look_into() -> None:
    work = MemoryWork()
    grant = await granted(work)
    await relay.apply(desk(work), [event(1, "session.refused", reason="wrong password")])
    told = "A connection with the ticket of Alice was refused: wrong password."
    assert said(work, InThread)[-1] == told
    over = event(2, "grant.ended", by="alice")
    await relay.apply(desk(work), [over, event(3, "session.refused", reason="this access was ended")])
    assert said(work, InThread)[-1] == told
    assert work.grants[grant.id].refused == 2


@pytest.mark.parametrize(
    ("by", "reason", "told"),
    [
        ("bob", "", "Bob revoked your access, read on prod-db, at 12:05 UTC; no reason was given."),
        ("bob", "it is `over` *now*", "Bob revoked your access, read on prod-db, at 12:05 UTC: it is `over` *now*"),
        ("policy", "policy: frozen", "The policy revoked your access, read on prod-db, at 12:05 UTC: frozen"),
        ("alice", "", None),
        ("airlock", "the account was deactivated", None),
    ],
)
async def test_revoked_access_is_told_in_a_message_of_its_own(by: str, reason: str, told: str | None) -> None:
    work = MemoryWork()
    await granted(work)
    over = event(1, "grant.revoked", by=by, reason=reason, state="revoked")
    await relay.apply(desk(work), [over, over])
    assert [text for text in said(work, ToPerson) if "revoked" in text] == ([told] if told else [])
    card = ending_words(policy(), next(iter(work.grants.values())))
    assert card.startswith(f"Revoked{' by ' + by.title() if by in ('bob', 'alice') else ''}")
    assert one_line(reason.removeprefix("policy: ")) in card


async def test_ended_access_is_not_told_to_whoever_ended_it() -> None:
    work = MemoryWork()
    await granted(work)
    await relay.apply(desk(work), [event(1, "grant.ended", by="alice", state="ended")])
    assert said(work, ToPerson) == []


async def test_thread_and_summary_say_what_was_revealed() -> None:
    work = MemoryWork()
    await granted(work)
    await relay.apply(desk(work), [event(1, "statement.allowed", masked=[], revealed=["public.customers.ssn"])])
    told = "Alice sees customers.ssn in clear, in one statement that a reviewer approved."
    assert said(work, InThread)[-1] == told
    listed = {"revealed": ["public.customers.ssn"], "searched": ["public.customers.email"]}
    closed = event(3, "grant.closed", statements=1, sessions=1, verified=True, **listed)
    await relay.apply(desk(work), [event(2, "grant.expired"), closed])
    [summary] = [text for text in said(work, InThread) if "approved by Bob" in text]
    assert "Fields that a reviewer revealed: customers.ssn." in summary
    assert "Masked fields that were searched for a value: customers.email." in summary
