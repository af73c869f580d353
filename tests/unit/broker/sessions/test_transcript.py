"""The transcript: complete, redacted unless asked, and nothing in it can pretend to be what it is not."""

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.sessions.transcript import outcomes, plain, transcript

AT = "2026-01-02T03:04:05.678901Z"


def record(kind: str, data: dict[str, Any], detail: dict[str, Any] | None = None, session: str | None = "s1") -> Any:
    return {"at": AT, "type": kind, "grant": "g1234", "session": session, "data": data, "detail": detail or {}}


OPENED = record(
    "grant.opened",
    {"person": "alice", "role": "read", "resource": "prod-db", "expires_at": AT, "policy": "abc", "by": ["dana"]},
    {"order": {"reason": "INC-42"}},
    None,
)
ALLOWED = record(
    "statement.allowed",
    {
        "statement": "1",
        "text": "select * from t\nwhere a = ?",
        "verb": "SELECT",
        "rules": ["reads"],
        "masked": ["t.ssn"],
    },
    {"sql": "select * from t\nwhere a = 'LITERAL'", "rewritten": "select masked", "parameters": [{"text": "VALUE"}]},
)
FINISHED = record("statement.finished", {"statement": "1", "outcome": "ok", "rows": 3, "milliseconds": 1.5})
DENIED = record("statement.denied", {"statement": "2", "text": "drop table t", "message": "no", "hint": "ask"})


def written(*records: Any, full: bool = False) -> str:
    return "\n".join(transcript(records, outcomes(records), full))


def test_transcript_says_who_what_why_until_and_every_statement() -> None:
    text = written(OPENED, ALLOWED, FINISHED, DENIED)
    for part in (
        "who       alice",
        "what      read on prod-db",
        "why       INC-42",
        "approved  dana",
        "from      2026-01-02 03:04:05; every time here is in UTC",
        "until     03:04:05 at the latest",
        "03:04:05.678  allowed SELECT  [s1]",
        "where a = ?",
        "rules: reads",
        "masked: t.ssn",
        "ok, 3 rows, 1.5 ms",
        "BLOCKED",
        "because no",
        "hint: ask",
    ):
        assert part in text, part
    assert "LITERAL" not in text
    assert "VALUE" not in text


def test_literals_and_parameters_are_shown_to_who_asks() -> None:
    text = written(OPENED, ALLOWED, full=True)
    assert "'LITERAL'" in text
    assert "VALUE" in text
    assert "sent as: select masked" in text


def test_no_line_of_a_statement_is_one_that_the_transcript_says_of_it() -> None:
    sql = "delete from t /*\n- masked: t.ssn\n- ok, 0 rows, 0.1 ms\n03:04:05.678  allowed SELECT  [s1]\n*/"
    for rewritten in ({}, {"rewritten": sql}):
        told = record("statement.allowed", ALLOWED["data"], {"sql": sql, **rewritten})
        lines = [line.strip() for line in written(OPENED, told, FINISHED, full=True).split("\n")]
        assert [line for line in lines if line.startswith("- ok")] == ["- ok, 3 rows, 1.5 ms"]
        assert sum(line.startswith("- masked") for line in lines) == 1
        assert sum("allowed SELECT" in line and not line.startswith("|") for line in lines) == 1


def test_a_text_of_which_the_recording_has_the_beginning_alone_is_said_to_be_that() -> None:
    told = record("statement.denied", DENIED["data"], {"sql": "drop", "bytes": 200_000, "sha256": "ab"})
    said = "only its beginning is kept, of 200000 bytes, sha256 ab"
    assert said in written(told, full=True)
    assert said not in written(told)


def test_statement_without_an_end_is_said_to_be_unknown() -> None:
    assert "outcome unknown" in written(OPENED, ALLOWED)


def test_statements_of_two_sessions_keep_their_own_outcomes() -> None:
    other = {**FINISHED, "session": "s2", "data": {**FINISHED["data"], "outcome": "failed"}}
    assert "failed" not in written(ALLOWED, other, FINISHED)


def test_head_says_when_it_ended_and_by_whom() -> None:
    begun = {**OPENED, "data": {**OPENED["data"], "expires_at": "2026-01-02T04:04:05.1Z"}}
    over = {**record("grant.ended", {"by": "alice", "state": "ended"}, None, None), "at": "2026-01-02T03:30:00.2Z"}
    more = record("grant.extended", {"expires_at": "2026-01-03T00:04:05.1Z"}, None, None)
    assert "until     03:30:00: ended by alice; it would have lasted until 04:04:05" in written(begun, over)
    assert "would have lasted until 2026-01-03 00:04:05" in written(begun, more, over)
    expired = {**over, "type": "grant.expired", "data": {}}
    assert "until     03:30:00: the time was over\n" in written(begun, expired)


def test_a_new_day_is_said_where_it_begins() -> None:
    late = {**ALLOWED, "at": "2026-01-02T23:59:59.999Z"}
    next_day = {**DENIED, "at": "2026-01-03T00:00:00.001Z"}
    lines = written(OPENED, late, FINISHED, next_day, {**next_day, "at": "2026-01-03T23:59:59Z"}).split("\n")
    assert [line for line in lines if line.startswith("2026-")] == ["2026-01-03"]
    at = lines.index("2026-01-03")
    assert lines[at + 1].startswith("00:00:00.001  BLOCKED")
    assert next(line for line in reversed(lines[:at]) if line.startswith("23:")) == "23:59:59.999  allowed SELECT  [s1]"


def test_more_time_and_the_end_of_a_session_are_said_in_words() -> None:
    more = {"request": "rq-2", "order": "o", "seconds": 900, "before": AT, "expires_at": "2026-01-02T03:19:05Z"}
    text = written(
        OPENED,
        record("grant.extended", {**more, "by": ["bob", "erin"], "rules": ["prod-read"]}, None, None),
        record("grant.extended", {**more, "by": []}, None, None),
        record("extension.refused", {"request": "rq-3", "order": "o", "reason": "this access is over"}, None, None),
        record("session.closed", {"reason": "expired", "verified": True}),
        record("session.settled", {"reason": "error", "verified": False}),
        record("upstream.failed", {"resource": "prod-db", "reason": "it does not answer"}),
        record("statement.explained", {"statement": "1", "text": "select 1"}),
        record("identity.left", {"identity": "airlock_1", "resource": "prod-db", "owns": ["t"]}),
    )
    for part in (
        "extended until 2026-01-02 03:19:05, approved by bob and erin (seconds 900, before 2026-01-02 03:04:05, rules ",
        "extended until 2026-01-02 03:19:05, as policy gives it at once (seconds 900",
        "more time was refused: this access is over",
        "session closed: the access ran out (verified yes)  [s1]",
        "session closed: it, or the broker, failed (verified no)  [s1]",
        "prod-db could not be used: it does not answer  [s1]",
        "the planner was asked what a statement would do: select 1  [s1]",
        "the role airlock_1 of this session could not be dropped on prod-db, and is disabled (owns t)  [s1]",
    ):
        assert part in text, part


def test_what_happened_to_a_hold_is_said_in_words() -> None:
    sizes = [{"name": "public.orders", "rows": 120000, "bytes": 14901248}]
    text = written(
        record("hold.estimated", {"hold": "h1", "rows": 1, "relations": sizes}),
        record("hold.released", {"hold": "h1", "by": ["bob", "erin"], "waits": True, "expires_at": AT}),
        record("hold.consumed", {"hold": "h1", "statement": "q1"}),
        record("statement.bounded", {"statement": "q1", "most": 10}),
        record("statement.counted", {"statement": "q1", "kept": True, "most": 10, "rows": 1}),
        record("hold.undone", {"hold": "h1", "statement": "q1", "outcome": "rolled_back"}),
        record("hold.abandoned", {"hold": "h1", "reason": "client"}),
        record("hold.abandoned", {"hold": "h1", "reason": "something else"}),
        record("hold.unheard_of", {"some_thing": {"a": False}}),
    )
    for part in (
        "estimated for the reviewers (rows 1, relations public.orders: 120,000 rows, 14,901,248 bytes)  [s1]",
        "approved by bob and erin; the held statement may run, once (expires at 2026-01-02 03:04:05)  [s1]",
        "the approval was used; the held statement runs  [s1]",
        "it may change at most 10 rows  [s1]",
        "rows that it changed: 1, of at most 10 (kept yes)  [s1]",
        "the approved statement is not kept: it was rolled back  [s1]",
        "given up: its client left; the held statement did not run  [s1]",
        "given up: something else; the held statement did not run  [s1]",
        "hold.unheard_of (some thing no a)  [s1]",
    ):
        assert part in text, text
    for raw in ("hold.consumed", "True", "bytes=", "h1"):
        assert raw not in text


def test_long_text_is_cut_and_says_so() -> None:
    text = written(record("statement.denied", {"statement": "1", "text": "x" * 30_000, "message": "no"}))
    assert "(10000 more characters)" in text
    assert len(text) < 25_000


@given(st.text())
def test_nothing_invisible_or_reordering_is_left(text: str) -> None:
    shown = written(
        record("statement.denied", {"statement": text, "text": text, "message": text, "hint": text, "rules": [text]}),
        record("session.opened", {"application": text, "ports": [text], "more": {text: text}}),
        record("grant.opened", {"person": text}, {"order": {"reason": text}}, None),
    )
    for char in shown:
        assert char == "\n" or unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@pytest.mark.parametrize(
    "text", ["a\n03:04:05.678  allowed SELECT", "a\r03:04", "a\u202e\u2066b", "\x1b[2J", "\x9b31m"]
)
def test_text_cannot_make_a_line_of_the_timeline(text: str) -> None:
    shown = written(record("statement.denied", {"statement": "1", "text": text, "message": text}))
    lines = [line for line in shown.splitlines() if line[:1].isdigit()]
    assert len(lines) == 1


def test_plain_writes_what_it_hides() -> None:
    assert plain("a\x00\u202eé😀\n") == "a\\u{0}\\u{202e}é😀\\u{a}"
