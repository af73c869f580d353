"""Durations: read as people write them, and what cannot be read is answered in its own words."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.engine.durations import DurationUnreadable, duration_at, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("30m", 30),
        ("2h", 120),
        ("1h30m", 90),
        ("1d", 1440),
        ("1D2h", 1560),
        ("1 h", 60),
        ("90 min", 90),
        ("1.5h", 90),
        ("0.5 hours", 30),
        ("2 hours", 120),
        ("1 hour 30 minutes", 90),
        ("1h 30m", 90),
        ("90min", 90),
        ("120s", 2),
        (" 30m ", 30),
    ],
)
def test_durations_are_read_as_people_write_them(text: str, minutes: int) -> None:
    assert parse_duration(text) == timedelta(minutes=minutes)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("30", "needs a unit, like `30m`, `2h` or `1h30m`: did you mean `30m`?"),
        ("1h30", "needs a unit, like `30m`, `2h` or `1h30m`: did you mean `1h30m`?"),
        ("", "a duration needs a unit, like `30m`, `2h` or `1h30m`"),
        ("m", "a duration is a number of days, hours or minutes, like `30m`, `2h` or `1h30m`, not `m`"),
        ("1e9h", "not `1e9h`"),
        ("٣٠m", "did you mean `30m`?"),
        ("３０ｍ", "did you mean `30m`?"),
        ("30m;90d", "not `30m;90d`"),
        ("1h1d", "not `1h1d`"),
        ("1,5h", "a number of days, hours or minutes, like `30m`, `2h` or `1h30m`: did you mean `1h30m`?"),
        ("30 min.", "did you mean `30m`?"),
        ("1 hour and 30 minutes", "did you mean `1h30m`?"),
        ("1w", "did you mean `7d`?"),
        ("2 weeks", "did you mean `14d`?"),
        ("½h", "not `½h`"),
        ("1.5 months", "not `1.5 months`"),
        ("99999999m", "not `99999999m`"),
        ("99999d", "at most 9999d"),
        ("as long as it takes, please", "not `as long as it takes,…`"),
        ("thirtyminutesandnotonemore", "not `thirtyminutesandnotonemo…`"),
        ("90s", "minutes are the smallest: did you mean `2m`?"),
        ("30 sec", "minutes are the smallest: did you mean `1m`?"),
        ("1m30s", "minutes are the smallest: did you mean `2m`?"),
        ("1.5m", "minutes are the smallest: did you mean `2m`?"),
        ("-5m", "a duration cannot be negative: did you mean `5m`?"),
        ("-5", "a duration cannot be negative"),
        ("0m", "no time at all opens nothing: a duration is at least a minute"),
        ("0h0m", "no time at all opens nothing"),
        ("-0m", "a duration cannot be negative"),
    ],
)
def test_what_is_not_a_duration_says_why_and_what_would_be(text: str, words: str) -> None:
    with pytest.raises(DurationUnreadable) as told:
        parse_duration(text)
    assert words in str(told.value)


@given(st.integers(min_value=1, max_value=9999 * 24 * 60))
def test_durations_read_back_as_they_are_written(minutes: int) -> None:
    value = timedelta(minutes=minutes)
    assert parse_duration(format_duration(value)) == value


@given(
    st.integers(0, 99),
    st.integers(0, 999),
    st.integers(1, 9999),
    st.sampled_from(["", " ", "  "]),
    st.sampled_from([("d", "h", "m"), ("day", "hr", "min"), ("days", "hours", "minutes"), ("D", "Hours", "MINS")]),
)
def test_spaces_and_long_units_change_nothing(days: int, hours: int, minutes: int, gap: str, units: tuple[str]) -> None:
    text = gap.join(f"{number}{gap}{unit}" for number, unit in zip((days, hours, minutes), units, strict=True))
    assert parse_duration(text) == timedelta(days=days, hours=hours, minutes=minutes)
    assert duration_at(f"{text} INC-42") == text


@given(st.text(max_size=40) | st.text(alphabet="0123456789.-dhms ", max_size=12))
def test_any_text_is_a_whole_number_of_minutes_or_answered_with_one(text: str) -> None:
    meant = text
    try:
        parse_duration(text)
    except DurationUnreadable as error:
        meant = error.meant or "30m"
    value = parse_duration(meant)
    assert value >= timedelta(minutes=1)
    assert value % timedelta(minutes=1) == timedelta()


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("1 h because", "1 h"),
        ("1h30m INC-42", "1h30m"),
        ("2 hours 5 min please", "2 hours 5 min"),
        ("90 s", "90 s"),
        ("- 5m", ""),
        ("30 minutesx", ""),
        ("30m;90d", ""),
        ("30 INC-42", ""),
        ("1 dog", ""),
    ],
)
def test_the_beginning_of_a_text_that_is_a_duration_is_found(text: str, written: str) -> None:
    assert duration_at(text) == written
