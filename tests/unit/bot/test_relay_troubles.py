"""What the thread says of trouble: refused connections, ends that are not verified, codes that become words."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from bot import hold_card, relay
from bot.cards import Buttons
from bot.chat.slack.delivery import HEALABLE
from bot.chat.slack.failures import failure_words
from bot.grant_cards import refusals_card
from bot.outgoing import InThread, Mirror, Say, Show
from broker.sessions import transcript
from broker.sessions.model import CloseReason
from tests.unit.bot.memory import LATER, MemoryWork, desk, policy
from tests.unit.bot.test_handlers import granted
from tests.unit.bot.test_holds import held
from tests.unit.bot.test_relay import event, said
from workflows.wire import EVENT_TYPES, EventView
from workflows.words import CLOSED, REFUSED


def refused(number: int, reason: str = "another database") -> EventView:
    return event(number, "session.refused", reason=reason, address="10.1.2.3")


async def test_connections_that_go_on_being_refused_are_said_once_more_and_then_counted_in_place() -> None:
    work = MemoryWork()
    grant = await granted(work)
    await relay.apply(desk(work), [refused(number) for number in range(5)])
    told = "it asked for another database than its line is for (from 10.1.2.3)"
    assert said(work, InThread)[-1] == f"A connection with the ticket of Alice was refused: {told}."
    assert "refusals:g0001" not in work.places
    await relay.apply(desk(work), [refused(number, "it is a secret") for number in range(5, 40)])
    lines = [text for text in said(work, InThread) if "was refused" in text]
    assert len(lines) == 5
    shows = [item for _, item in work.sent.values() if isinstance(item, Show) and item.message == "refusals:g0001"]
    assert shows
    [mirrored] = [
        item.card.text
        for key, (_, item) in work.sent.items()
        if key.startswith("refusals:") and isinstance(item, Say) and isinstance(item.place, Mirror)
    ]
    assert "press End now" in mirrored
    card = refusals_card(policy(), work.grants[grant.id])
    assert "go on being refused: 40 so far, the last one at " in card.text
    assert card.text.endswith("it is a secret (from 10.1.2.3).")
    assert any(isinstance(part, Buttons) for part in card.parts)
    before = len(shows)
    await relay.apply(desk(work), [event(41, "grant.ended", by="alice")])
    shows = [item for _, item in work.sent.values() if isinstance(item, Show) and item.message == "refusals:g0001"]
    assert len(shows) == before + 1


async def test_resource_that_is_down_is_no_refusal_to_look_into() -> None:
    work = MemoryWork()
    await granted(work)
    await relay.apply(desk(work), [refused(number, relay.UPSTREAM_DOWN) for number in range(40)])
    assert "refusals:g0001" not in work.places


async def test_end_that_is_not_verified_says_so_in_words_and_later_that_it_is_gone() -> None:
    work = MemoryWork()
    grant = await granted(work)
    at = {"session": "s1"}
    opened = event(1, "session.opened").model_copy(update=at)
    closed = event(2, "session.closed", reason="expired", verified=False).model_copy(update=at)
    await relay.apply(desk(work), [opened, closed])
    text = said(work, InThread)[-1]
    assert "A session of Alice on prod-db is over, because the access ran out, but" in text
    assert "whoever runs prod-db should look there" in text
    assert work.grants[grant.id].open_sessions == 0
    other = event(3, "session.opened").model_copy(update={"session": "s2"})
    gone = event(4, "session.closed", reason="expired", verified=True, by="reaper").model_copy(update=at)
    await relay.apply(desk(work), [other, gone])
    assert said(work, InThread)[-1].endswith("that could not be verified is gone now.")
    assert work.grants[grant.id].open_sessions == 1


async def test_denial_of_a_held_statement_is_counted_at_once() -> None:
    work = MemoryWork()
    hold = await held(work)
    await relay.apply(desk(work), [event(60, "hold.refused", hold=hold.id, by="dana", reason="no")])
    grant = work.grants[hold.grant]
    assert (grant.statements, grant.denied, grant.blocked) == (1, 1, 1)


async def test_hold_waits_longer_where_its_access_was_extended() -> None:
    work = MemoryWork()
    hold = await held(work)
    until = hold.expires_at + timedelta(minutes=5)
    wanted = work.places[f"hold:{hold.id}"].wanted
    await relay.apply(desk(work), [event(60, "hold.prolonged", hold=hold.id, expires_at=until.isoformat())])
    assert work.holds[hold.id].expires_at == until
    assert work.places[f"hold:{hold.id}"].wanted == wanted + 1
    await relay.apply(desk(work), [event(61, "hold.refused", hold=hold.id, by="dana", reason="no")])
    await relay.apply(desk(work), [event(62, "hold.prolonged", hold=hold.id, expires_at=LATER.isoformat())])
    assert work.holds[hold.id].expires_at == until


def test_every_event_that_a_recording_has_is_told_in_words() -> None:
    elsewhere = ("identity.swept", "recording.read", "recording.resumed", "log.", "clock.", "policy.")
    shown = {"grant.opened", "statement.allowed", "statement.denied", "statement.finished", "hold.opened"}
    recorded = {kind for kind in EVENT_TYPES if not kind.startswith(elsewhere)}
    assert recorded - shown <= transcript._WORDS.keys()


def test_every_reason_that_a_session_ends_for_has_words() -> None:
    assert CLOSED.keys() == {reason.value for reason in CloseReason}


def test_every_reason_that_a_connection_is_refused_for_has_words() -> None:
    code = Path(transcript.__file__).parents[1] / "protocols" / "postgres"
    raised = re.compile(r'SessionRefused\([^"]*(?:"[^"]*"[^"]*\)[^"]*)?"([^"]+)"\)')
    found = {reason for path in code.glob("*.py") for reason in raised.findall(path.read_text())}
    assert len(found) >= 6
    assert found <= REFUSED.keys()


def test_every_reason_that_a_hold_is_given_up_for_has_words() -> None:
    listed = EVENT_TYPES["hold.abandoned"].partition("(")[2].partition(":")[0]
    reasons = {one.strip() for one in listed.split(",")}
    assert len(reasons) == 11
    assert reasons <= hold_card._GIVEN_UP.keys()
    assert reasons <= transcript._VALUES["hold.abandoned", "reason"].keys()


@pytest.mark.parametrize("code", sorted(HEALABLE))
def test_what_slack_says_again_and_again_has_words_and_its_code(code: str) -> None:
    words = failure_words(code)
    assert words.endswith(f"({code})")
    assert " " in words.removesuffix(f"({code})").strip()


def test_failure_that_is_words_already_stays_what_it_is() -> None:
    assert failure_words("the broker does not answer") == "the broker does not answer"
    assert failure_words("ekm_access_denied") == "Slack says ekm_access_denied"
    assert failure_words("ServerDisconnectedError") == "Slack does not answer (ServerDisconnectedError)"
