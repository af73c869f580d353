"""Holds of a grant that is extended: they wait, or are good, as long as if it had always ended then."""

import asyncio
from datetime import timedelta

import pytest

from broker.errors import RecordingFailed
from broker.sessions.holds import Pending
from tests.unit.broker.adapters.test_holds import Desk


async def test_hold_that_its_grant_cut_short_waits_longer_once_that_is_extended() -> None:
    held = Desk()
    facts = held.facts(seconds=7200.0)
    hold, end = held.desk.open(facts), facts.session.grant.expires_at
    assert (await held.desk.get(hold.id)).expires_at == end
    later = end + timedelta(minutes=15)
    held.desk.extend("g1", later)
    view = await held.desk.get(hold.id)
    assert view.expires_at == later
    assert held.recorder.of("hold.prolonged") == [{"hold": hold.id, "expires_at": later}]
    held.desk.extend("g1", end + timedelta(hours=9))
    assert (await held.desk.get(hold.id)).expires_at == view.opened_at + timedelta(hours=2)
    assert (await held.approve(hold.id)).state == "released"


async def test_hold_that_ends_before_its_grant_and_those_of_others_stay_what_they_are() -> None:
    held = Desk()
    short, other = held.desk.open(held.facts()), held.desk.open(held.facts(grant="g2", seconds=7200.0))
    before = [(await held.desk.get(one.id)).expires_at for one in (short, other)]
    held.desk.extend("g1", held.clock.now() + timedelta(hours=9))
    assert [(await held.desk.get(one.id)).expires_at for one in (short, other)] == before
    assert held.recorder.of("hold.prolonged") == []


async def test_approval_that_its_grant_cut_short_is_good_for_longer() -> None:
    held = Desk()
    facts = held.facts(waits=False, seconds=7200.0)
    hold, end = held.desk.open(facts), facts.session.grant.expires_at
    assert isinstance(await hold.answered, Pending)
    held.clock.offset = timedelta(minutes=55)
    assert (await held.approve(hold.id)).expires_at == end
    held.desk.extend("g1", end + timedelta(hours=1))
    assert timedelta(minutes=4) < (await held.desk.get(hold.id)).expires_at - end < timedelta(minutes=6)


async def test_extension_that_cannot_be_recorded_moves_no_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Desk()
    hold = held.desk.open(held.facts(seconds=7200.0))
    before = (await held.desk.get(hold.id)).expires_at

    def fails(*_entry: object, **_how: object) -> asyncio.Future[None]:
        raise RecordingFailed

    monkeypatch.setattr(held.recorder, "write", fails)
    held.desk.extend("g1", before + timedelta(hours=1))
    assert (await held.desk.get(hold.id)).expires_at == before
