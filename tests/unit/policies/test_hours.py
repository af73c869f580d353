"""Rules that hold at some hours only."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.engine.conditions import DAYS, Window
from policies.engine.decide import timed
from policies.engine.decisions import Allow, Deny
from tests.unit.policies.rules import MONDAY, READ, WRITE, decided, facts, policy

HOURS = "{id: hours, decision: allow, effects: [write], when: {days: mon-fri, hours: 09:00-18:00, zone: Europe/Berlin}}"


@pytest.mark.parametrize(
    ("moment", "allowed"),
    [
        ("2026-01-05T08:00+00:00", True),  # nine in Berlin, in winter
        ("2026-01-05T07:59+00:00", False),
        ("2026-07-06T07:00+00:00", True),  # nine in Berlin, in summer
        ("2026-01-05T17:00+00:00", False),
        ("2026-01-09T23:30+00:00", False),
        ("2026-01-10T12:00+00:00", False),  # a Saturday
        (None, False),
    ],
)
def test_hours_follow_the_wall_clock_of_their_zone(moment: str | None, allowed: bool) -> None:
    at = datetime.fromisoformat(moment) if moment else None
    found = decided(policy(HOURS), facts(), at)
    assert isinstance(found, Allow) is allowed
    if isinstance(found, Deny):
        assert found.hint == "rule hours is for mon, tue, wed, thu, fri 09:00-18:00 Europe/Berlin"


def test_a_deny_with_hours_speaks_then_and_where_the_time_is_unknown() -> None:
    frozen = "{id: frozen, decision: deny, effects: [write], when: {days: [sat, sun], zone: UTC}, message: frozen}"
    given = policy(WRITE, frozen)
    assert isinstance(decided(given, facts(), MONDAY), Allow)
    for moment in (MONDAY - timedelta(days=1), None):
        assert decided(given, facts(), moment) == Deny("frozen", ("frozen",))


def test_which_rules_with_hours_hold_says_when_a_decision_may_change() -> None:
    given = policy(HOURS, READ)
    assert timed(given, MONDAY) == {"hours"}
    assert timed(given, MONDAY + timedelta(hours=12)) == frozenset()


@given(
    st.sets(st.sampled_from(DAYS), min_size=1),
    st.integers(0, 1439),
    st.integers(1, 1440),
    st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1)),
)
def test_a_window_and_its_rest_make_up_the_day(days: set[str], begin: int, end: int, at: datetime) -> None:
    if begin == end or end == 1440:
        return
    hours = [f"{a // 60:02}:{a % 60:02}-{b // 60:02}:{b % 60:02}" for a, b in ((begin, end), (end, begin))]
    window, rest = (Window(zone="UTC", days=list(DAYS), hours=each) for each in hours)
    moment = at.replace(tzinfo=UTC)
    assert window.holds(moment) != rest.holds(moment)
    some, others = (
        Window(zone="UTC", days=[day for day in DAYS if (day in days) is wanted] or list(DAYS), hours=hours[0])
        for wanted in (True, False)
    )
    if len(days) < 7:
        assert window.holds(moment) == (some.holds(moment) != others.holds(moment))
