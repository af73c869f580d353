"""The chain: canonical, bound to its name and domain, and blind to no changed byte."""

import hashlib
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.sessions.eventchain import (
    EVENT,
    RECORD,
    ChainBroken,
    Checkpoint,
    Head,
    LineUnwritable,
    canonical,
    checked,
    checkpoint_prev,
    event_line,
    genesis,
    opened,
    read_checkpoint,
    record_line,
    timestamp,
)

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)


def chain(count: int) -> list[tuple[bytes, Head, Head]]:
    head = genesis(EVENT, "broker")
    made = []
    for number in range(count):
        line, after = event_line(
            head, "broker", timestamp(AT), "statement.allowed", "g1", None, {"n": number, "text": "é\n"}
        )
        made.append((line, head, after))
        head = after
    return made


def test_line_is_canonical_ascii_and_opens_again() -> None:
    line, before, after = chain(1)[0]
    content, head = checked(EVENT, line, before)
    assert head == after
    assert line.isascii()
    assert line.endswith(b'"}\n')
    assert line.count(b"\n") == 1
    assert content["at"] == "2026-01-02T03:04:05.678901Z"
    assert list(content)[:-1] == sorted(list(content)[:-1])


def test_every_flipped_bit_of_fifty_events_breaks_its_line() -> None:
    for line, before, _ in chain(50):
        for index in range(len(line)):
            for bit in (1, 0x20, 0x80):
                changed = line[:index] + bytes([line[index] ^ bit]) + line[index + 1 :]
                with pytest.raises(ChainBroken):
                    checked(EVENT, changed, before)


def test_lines_keep_their_order_and_their_chain() -> None:
    lines = chain(3)
    with pytest.raises(ChainBroken, match="number 3 follows 1"):
        checked(EVENT, lines[2][0], lines[0][2])
    with pytest.raises(ChainBroken, match="does not follow"):
        checked(EVENT, lines[0][0], genesis(EVENT, "reaper"))
    with pytest.raises(ChainBroken, match="hash"):
        opened(RECORD, lines[0][0])


def test_recording_lines_have_their_own_domain() -> None:
    line, head = record_line(genesis(RECORD, "g1"), "g1", timestamp(AT), "grant.opened", None, {}, {"order": {}})
    assert checked(RECORD, line, genesis(RECORD, "g1"))[1] == head
    with pytest.raises(ChainBroken):
        opened(EVENT, line)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.dictionaries(st.text(), PLAIN, max_size=6)


@given(FIELDS, FIELDS, st.text(), st.none() | st.text())
def test_lines_are_what_the_standard_encoder_writes(
    data: dict[str, Any], detail: dict[str, Any], name: str, session: str | None
) -> None:
    at, before = timestamp(AT), Head(6, "ab")
    common = {"at": at, "data": data, "grant": name, "prev": "ab", "seq": 7, "session": session, "type": name}
    event, _ = event_line(before, name, at, name, name, session, data)
    record, _ = record_line(before, name, at, name, session, data, detail)
    for domain, line, content in (
        (EVENT, event, {**common, "stream": name}),
        (RECORD, record, common | {"detail": detail}),
    ):
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(domain + text.encode("ascii")).hexdigest()
        assert line.decode("ascii") == f'{text[:-1]},"hash":"{digest}"}}\n'


@given(st.datetimes(), st.integers(-23 * 60, 23 * 60))
def test_timestamps_are_in_utc_with_six_places(at: datetime, minutes: int) -> None:
    at = at.replace(year=2000 + at.year % 100, tzinfo=timezone(timedelta(minutes=minutes)))
    assert timestamp(at) == at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@pytest.mark.parametrize("value", [object(), float("inf"), {1: 2, "a": 3}, b"x"])
def test_what_is_not_json_is_not_written(value: object) -> None:
    with pytest.raises(LineUnwritable):
        canonical({"x": value})


def test_times_and_sets_are_written_plainly() -> None:
    assert canonical({"at": AT, "fields": frozenset({"b", "a"})}) == (
        b'{"at":"2026-01-02T03:04:05.678901Z","fields":["a","b"]}'
    )
    assert timestamp(AT) < timestamp(AT.replace(year=2027))


def test_checkpoint_reads_only_in_its_canonical_form() -> None:
    checkpoint = Checkpoint("broker", 3, "ab", timestamp(AT), checkpoint_prev(None, "broker"), "cd")
    line = checkpoint.line()
    assert read_checkpoint(line) == checkpoint
    assert checkpoint_prev(line, "broker") != checkpoint_prev(None, "broker")
    for changed in (
        line.replace(b":3,", b": 3,"),
        line[:-1],
        b"{}\n",
        b"[]\n",
        b"\xff\n",
        line.replace(b"seq", b"sez"),
    ):
        with pytest.raises(ChainBroken):
            read_checkpoint(changed)
