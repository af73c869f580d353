"""COPY: counted while it streams, stopped at its limit, and recorded with what it was."""

import hashlib
from dataclasses import replace

import pytest

from broker.protocols.postgres import codec
from broker.protocols.postgres.events import Cancel, Cancelled, Close
from broker.protocols.postgres.ruling import Permitted
from broker.sessions.holds import Abandoned, Answer, Pending, Refused, TimedOut
from broker.sql.model import Control
from policies.engine.decisions import Limits
from tests.playbooks.held_play import answer
from tests.playbooks.postgres_play import (
    ASKING,
    BOUND,
    PARSED,
    Play,
    Q,
    bind,
    complete,
    denied,
    error,
    permitted,
    ready,
)

IN, OUT = codec.message(b"G", b"\0\0\0"), codec.message(b"H", b"\0\0\0")
DONE, FAIL = codec.message(b"c"), codec.copy_fail("over the limit")
STARTED = codec.parse("", "copy") + bind("") + codec.execute("")


def data(text: bytes) -> bytes:
    return codec.message(b"d", text)


def copies_in(sql: str) -> Permitted:
    return permitted(sql, copying="in", limits=Limits(rows=2, bytes=100))


def copies_out(sql: str) -> Permitted:
    return permitted(sql, copying="out", limits=Limits(rows=2))


def test_what_is_copied_in_is_recorded_by_size_and_digest() -> None:
    play = Play(copies_in).client(codec.query("copy")).upstream(IN)
    play.client(data(b"1\n"), data(b"2"), data(b"\n"), DONE).upstream(complete("COPY 2"), ready())
    note = play.notes[-1]
    assert (note["outcome"], note["rows"]) == ("ok", 2)
    assert note["copied"] == {"direction": "in", "bytes": 4, "sha256": hashlib.sha256(b"1\n2\n").hexdigest()}


def test_what_is_copied_out_is_recorded_by_size_and_digest() -> None:
    play = Play(copies_out).client(codec.query("copy"))
    play.upstream(OUT, data(b"1\n"), data(b"2\n"), DONE, complete("COPY 2"), ready())
    assert play.kinds() == "HddcCZ"
    assert play.notes[-1]["copied"]["sha256"] == hashlib.sha256(b"1\n2\n").hexdigest()


@pytest.mark.parametrize("sent", [data(b"1\n2\n3\n"), data(b"1\n2\n") + data(b"3\n"), data(b"x" * 101)])
def test_a_copy_in_beyond_its_limit_is_failed_and_none_of_the_rest_is_sent(sent: bytes) -> None:
    play = Play(copies_in).client(codec.query("copy")).upstream(IN)
    play.to_upstream(), play.to_client()
    play.client(sent)
    assert play.to_upstream().endswith(FAIL)
    play.client(data(b"more\n"))
    assert play.to_upstream() == b""
    play.upstream(error("57014", "COPY from stdin failed: over the limit"), ready())
    told = play.to_client()
    assert b"this copies more than 2 rows and 100 bytes in: none of it was kept" in told
    assert b"rules: reads" in told
    play.client(DONE, Q)
    assert play.to_upstream() == Q
    assert play.notes[-1]["outcome"] == "failed"
    assert play.notes[-1]["sqlstate"] == "54000"


def test_a_copy_in_beyond_its_limit_fails_its_segment_in_the_extended_protocol_too() -> None:
    play = Play(copies_in).client(STARTED).upstream(PARSED, BOUND, IN)
    play.client(data(b"1\n2\n3\n"), data(b"4\n"), DONE, codec.SYNC)
    assert play.to_upstream().endswith(FAIL + codec.SYNC)
    play.upstream(error("57014"), ready())
    assert play.kinds() == "12GEZ"
    play.client(Q)
    assert play.to_upstream() == Q


def test_a_client_that_gives_up_fails_its_copy() -> None:
    play = Play(copies_in).client(codec.query("copy")).upstream(IN)
    give_up = codec.copy_fail("no")
    play.client(data(b"1\n"), give_up)
    assert play.to_upstream().endswith(data(b"1\n") + give_up)
    play.upstream(error("57014", "COPY from stdin failed: no"), ready())
    assert b"COPY from stdin failed: no" in play.to_client()
    assert play.outcomes() == [("q1", "failed")]


@pytest.mark.parametrize("stray", [data(b"x"), DONE, codec.copy_fail("x")])
def test_copy_data_that_nobody_asked_for_ends_the_session(stray: bytes) -> None:
    play = Play(copies_out).client(stray)
    assert isinstance(play.said[-1], Close)


def test_what_comes_behind_a_copy_that_is_over_is_ignored() -> None:
    play = Play(copies_in).client(codec.query("copy")).upstream(IN)
    play.client(data(b"1\n"), DONE).upstream(complete("COPY 1"), ready())
    play.to_upstream()
    # postgres.js fails each COPY once it is complete, and its server takes no notice.
    play.client(codec.copy_fail("null"), Q)
    assert play.to_upstream() == Q
    assert not [one for one in play.said if isinstance(one, Close)]


COPY = [(Control.COPY_IN, "", "")]


@pytest.mark.parametrize(
    "found", [Refused("h1", "Bob", "no"), TimedOut("h1"), Abandoned("h1", "policy"), Pending("h1")]
)
@pytest.mark.parametrize("prepared", [False, True])
def test_the_data_behind_a_copy_whose_review_ends_without_it_is_ignored(found: Answer, prepared: bool) -> None:
    play = Play(lambda sql: permitted(sql, copying="in", controls=COPY, asking=ASKING if sql == "copy" else None))
    start, end = (STARTED, codec.SYNC) if prepared else (codec.query("copy"), b"")
    play.client(start, end, data(b"1\n"), DONE, end, Q)
    answer(play, found)
    if prepared:
        play.upstream(PARSED, error("34000"), ready(), ready())
    assert play.kinds() == ("1EZZ" if prepared else "EZ")
    assert play.to_upstream().endswith(Q)
    assert data(b"1\n") not in play.to_upstream()
    assert not [one for one in play.said if isinstance(one, Close)]


@pytest.mark.parametrize("between", [b"", codec.SYNC, Q + codec.SYNC])
def test_the_data_behind_a_refused_copy_is_ignored_whatever_stands_between(between: bytes) -> None:
    play = Play(lambda sql: replace(denied(), verb="COPY") if sql == "copy" else permitted(sql))
    play.client(STARTED, codec.SYNC, between, data(b"1\n"), codec.SYNC, data(b"2\n"), DONE, Q)
    assert play.to_upstream().endswith(Q)
    assert not [one for one in play.said if isinstance(one, Close)]


def test_a_copy_out_beyond_its_limit_is_cancelled_and_its_client_told_at_once() -> None:
    play = Play(copies_out).client(codec.query("copy")).upstream(OUT, data(b"1\n"), data(b"2\n"))
    assert play.kinds() == "Hdd"
    play.upstream(data(b"3\n"))
    assert Cancel() in play.said
    assert b"this copies more than 2 rows out" in play.to_client()
    play.upstream(data(b"4\n"), error("57014", "canceling statement due to user request"), ready())
    assert play.kinds() == "Z"
    assert (play.notes[-1]["outcome"], play.notes[-1]["sqlstate"]) == ("failed", "54000")


def test_nothing_is_sent_before_the_cancel_is_done_for_it_could_be_cancelled_instead() -> None:
    play = Play(copies_out).client(codec.query("copy")).upstream(OUT, data(b"1\n") * 3)
    play.upstream(DONE, complete("COPY 3"), ready())
    assert play.kinds() == "HEZ"
    assert play.outcomes() == [("q1", "failed")]
    play.to_upstream()
    play.client(Q)
    assert play.to_upstream() == b""
    play.hear(Cancelled(play.at))
    assert play.to_upstream() == Q


def test_the_rest_of_a_segment_is_skipped_behind_a_copy_out_beyond_its_limit() -> None:
    play = Play(copies_out).client(STARTED, codec.parse("", "select 1"), codec.SYNC)
    play.upstream(PARSED, BOUND, OUT, data(b"1\n") * 3, DONE, complete("COPY 3"), PARSED, ready())
    assert play.kinds() == "12HEZ"
    play.hear(Cancelled(play.at)).client(Q)
    assert play.to_upstream().endswith(Q)
    play = Play(copies_out).client(STARTED, codec.message(b"H"))
    play.upstream(PARSED, BOUND, OUT, data(b"1\n") * 3, error("57014")).hear(Cancelled(play.at))
    play.to_upstream()
    play.client(codec.parse("", "select 1"), codec.SYNC, Q)
    assert play.to_upstream() == codec.SYNC + Q


def test_the_data_of_a_copy_behind_one_that_fails_at_its_end_is_its_own() -> None:
    play = Play(lambda sql: permitted(sql, copying="in", controls=[(Control.COPY_IN, "", "")]))
    # The client waits for nothing.
    play.client(codec.query("copy a"), data(b"bad\n"), DONE, codec.query("copy b"), data(b"1\n"), DONE)
    play.upstream(IN)
    assert play.to_upstream().endswith(DONE + codec.query("copy b"))
    play.upstream(error("22P02")).upstream(ready()).upstream(IN)
    assert play.to_upstream().endswith(data(b"1\n") + DONE)
    play.upstream(complete("COPY 1"), ready())
    assert [note["outcome"] for note in play.notes] == ["failed", "ok"]


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("more", [b"", data(b"2\n") + DONE])
def test_a_sync_amid_the_data_of_a_copy_that_fails_is_answered(prepared: bool, more: bytes) -> None:
    play = Play(lambda sql: permitted(sql, copying="in", controls=COPY))
    play.client(STARTED if prepared else codec.query("copy")).upstream((PARSED + BOUND if prepared else b"") + IN)
    play.to_upstream(), play.to_client()
    play.client(data(b"bad\n"), codec.SYNC)
    assert play.to_upstream() == data(b"bad\n")
    play.upstream(error("22P02"))
    assert play.to_upstream() == codec.SYNC
    play.upstream(ready() if prepared else ready() * 2)
    assert play.kinds() == ("EZ" if prepared else "EZZ")
    play.client(more, Q)
    assert play.to_upstream() == Q


def test_a_sync_amid_the_data_of_a_copy_that_succeeds_is_not_answered() -> None:
    play = Play(lambda sql: permitted(sql, copying="in", controls=COPY))
    play.client(STARTED).upstream(PARSED, BOUND, IN)
    play.to_upstream(), play.to_client()
    play.client(data(b"1\n"), codec.SYNC, data(b"2\n"), codec.SYNC, DONE, codec.SYNC)
    assert play.to_upstream() == data(b"1\n") + data(b"2\n") + DONE + codec.SYNC
    play.upstream(complete("COPY 2"), ready())
    assert play.kinds() == "CZ"
    assert play.client(Q).to_upstream() == Q


def test_a_sync_before_the_data_that_is_too_much_is_answered() -> None:
    play = Play(copies_in).client(STARTED).upstream(PARSED, BOUND, IN)
    play.to_upstream(), play.to_client()
    play.client(data(b"1\n"), codec.SYNC, data(b"2\n3\n"))
    assert play.to_upstream() == data(b"1\n") + FAIL + codec.SYNC
    play.upstream(error("57014"), ready())
    assert play.kinds() == "EZ"


def test_no_more_than_a_few_syncs_amid_the_data_are_kept() -> None:
    play = Play(lambda sql: permitted(sql, copying="in", controls=COPY))
    play.client(STARTED).upstream(PARSED, BOUND, IN)
    play.client(data(b"bad\n"), codec.SYNC * 10_000)
    play.to_upstream()
    play.upstream(error("22P02"))
    assert play.to_upstream() == codec.SYNC * 64
