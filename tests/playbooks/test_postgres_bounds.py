"""What the session machine says around a change whose rows are counted before it may be committed."""

from dataclasses import replace

import pytest

from broker.protocols.postgres import codec
from broker.protocols.postgres.events import ClientGone, Close
from broker.protocols.postgres.ruling import Permitted
from broker.sql.model import Control
from policies.engine.decisions import Bound, Effect
from tests.playbooks.postgres_play import (
    BOUND,
    CLOSED,
    PARSED,
    POISON,
    ROW,
    RUN,
    SUSPENDED,
    Play,
    bind,
    complete,
    error,
    permitted,
    ready,
)

CHANGE = codec.query("insert")
CLOSES = CLOSED + CLOSED
OURS = b"airlock-nonce-own"


CONTROLS = {"begin": Control.BEGIN, "commit": Control.COMMIT, "back": Control.ROLLBACK_TO}


def bounded(sql: str) -> Permitted:
    """Inserts may touch ten rows."""
    control = CONTROLS.get(sql, Control.NONE)
    if sql != "insert":
        return permitted(sql, controls=[(control, "", "")])
    return replace(permitted(sql, effect=Effect.WRITE), bound=Bound(10))


def done(tag: str, row: bytes = b"") -> bytes:
    """How the upstream answers one statement of the broker's own."""
    return CLOSES + PARSED + BOUND + row + complete(tag) + CLOSES


def counted(rows: int, track: bytes = b"on", locks: bytes = b"", foreign: bytes = b"0") -> bytes:
    values = (track, str(rows).encode(), locks, b"16600", foreign)
    body = len(values).to_bytes(2, "big") + b"".join(len(one).to_bytes(4, "big") + one for one in values)
    return done("SELECT 1", codec.message(b"D", body))


def begun(play: Play) -> Play:
    """The change is under way, in a transaction of the broker's own."""
    sent = play.client(CHANGE).to_upstream()
    assert OURS in sent
    assert b"begin\0" in sent
    assert CHANGE not in sent
    play.upstream(done("BEGIN") + counted(5) + ready("T"))
    assert play.to_upstream() == CHANGE
    return play


def test_change_is_recorded_with_the_brokers_own_statements_wrapped_counted_and_then_told() -> None:
    play = begun(Play(bounded))
    (record,) = play.records
    assert [entry.type for entry in record.entries] == ["statement.allowed", "statement.bounded"]
    assert record.entries[1].data == {"statement": "q1", "most": 10}
    assert play.upstream(ROW, complete("INSERT 0 1"), ready("T")).kinds() == "D"
    assert b"set constraints all immediate\0" in play.to_upstream()
    play.upstream(done("SET CONSTRAINTS") + counted(15) + ready("T"))
    assert b"commit\0" in play.to_upstream()
    assert play.kinds() == ""
    assert play.upstream(done("COMMIT") + ready("I")).to_client() == complete("INSERT 0 1") + ready("I")
    assert play.outcomes() == [("q1", "ok")]
    assert {"statement": "q1", "rows": 10, "most": 10, "kept": True} in play.notes


def test_above_the_bound_it_is_rolled_back_and_both_counts_are_told() -> None:
    play = begun(Play(bounded))
    play.upstream(complete("INSERT 0 1"), ready("T"))
    play.to_upstream()
    play.upstream(done("SET CONSTRAINTS") + counted(16) + ready("T"))
    assert b"rollback\0" in play.to_upstream()
    told = play.upstream(done("ROLLBACK") + ready("I")).to_client()
    assert b"this touched 11 rows, triggers and cascades included, and may touch 10" in told
    assert told.endswith(ready("I"))
    assert b"INSERT" not in told
    assert play.outcomes() == [("q1", "failed")]
    assert play.client(codec.query("select")).to_upstream() == codec.query("select")


@pytest.mark.parametrize(
    ("track", "locks"), [(b"off", b""), (b"", b"")], ids=["the upstream does not count", "nor says whether"]
)
def test_change_that_cannot_be_counted_never_reaches_the_upstream(track: bytes, locks: bytes) -> None:
    play = Play(bounded).client(CHANGE)
    play.to_upstream()
    play.upstream(done("BEGIN") + counted(0, track, locks) + ready("T"))
    sent = play.to_upstream()
    assert CHANGE not in sent
    assert b"rollback\0" in sent
    assert b"cannot be counted here" in play.upstream(done("ROLLBACK") + ready("I")).to_client()


def test_counters_that_went_back_or_a_table_that_was_emptied_roll_it_back() -> None:
    for after in (counted(4), counted(6, locks=b"16500.16500"), counted(6, locks=b"16500.")):
        play = begun(Play(bounded))
        play.upstream(complete("INSERT 0 1"), ready("T"))
        play.upstream(done("SET CONSTRAINTS") + after + ready("T"))
        assert b"emptied, altered or dropped" in play.upstream(done("ROLLBACK") + ready("I")).to_client()


def test_a_foreign_table_that_was_changed_rolls_it_back() -> None:
    play = begun(Play(bounded))
    play.upstream(complete("INSERT 0 1"), ready("T"))
    play.upstream(done("SET CONSTRAINTS") + counted(6, foreign=b"1") + ready("T"))
    assert b"whose rows no bound covers" in play.upstream(done("ROLLBACK") + ready("I")).to_client()


def test_a_table_that_was_made_and_dropped_meanwhile_is_no_loss() -> None:
    play = begun(Play(bounded))
    play.upstream(complete("INSERT 0 1"), ready("T"))
    play.upstream(done("SET CONSTRAINTS") + counted(6, locks=b"16601.") + ready("T"))
    assert play.upstream(done("COMMIT") + ready("I")).to_client() == complete("INSERT 0 1") + ready("I")


def test_what_the_upstream_says_of_a_deferred_constraint_is_told_as_the_statements_own_error() -> None:
    play = begun(Play(bounded))
    play.upstream(complete("INSERT 0 1"), ready("T"))
    play.upstream(CLOSES, error("23503", "no such owner", P="9"), ready("E"))
    assert play.kinds() == ""
    told = play.upstream(done("ROLLBACK") + ready("I")).to_client()
    assert b"no such owner" in told
    assert b"P9" not in told
    assert told.endswith(ready("I"))


def test_commit_that_fails_is_told_instead_of_the_completion() -> None:
    play = begun(Play(bounded))
    play.upstream(complete("INSERT 0 1"), ready("T"))
    play.upstream(done("SET CONSTRAINTS") + counted(6) + ready("T"))
    told = play.upstream(CLOSES + PARSED + BOUND + error("40001", "could not serialize") + ready("I")).to_client()
    assert b"could not serialize" in told
    assert b"INSERT" not in told
    assert play.outcomes() == [("q1", "failed")]


def test_statement_that_fails_by_itself_is_told_at_once_and_its_transaction_ended() -> None:
    play = begun(Play(bounded))
    assert play.upstream(error("23505"), ready("E")).kinds() == "E"
    assert b"rollback\0" in play.to_upstream()
    assert play.upstream(done("ROLLBACK") + ready("I")).to_client() == ready("I")


def test_cancel_that_meets_the_rollback_leaves_no_transaction_open() -> None:
    """Its client began none, and would not know that it has to end one."""
    play = begun(Play(bounded))
    assert play.upstream(error("57014"), ready("E")).kinds() == "E"
    assert b"rollback\0" in play.to_upstream()
    play.upstream(CLOSES, error("57014"), ready("E"))
    assert b"rollback\0" in play.to_upstream()
    assert play.upstream(done("ROLLBACK") + ready("I")).to_client() == ready("I")


def test_inside_a_transaction_the_failure_is_the_transactions() -> None:
    play = Play(bounded).client(codec.query("begin")).upstream(complete("BEGIN"), ready("T"))
    sent = play.client(CHANGE).to_upstream()
    assert b"begin\0\0" not in sent.partition(codec.query("begin"))[2]
    play.upstream(counted(0) + ready("T"))
    play.upstream(complete("INSERT 0 1"), ready("T"))
    play.to_upstream()
    play.to_client()
    play.upstream(counted(11) + ready("T"))
    assert play.to_upstream() == POISON + codec.SYNC
    told = play.upstream(error("34000"), ready("E")).to_client()
    assert b"this touched 11 rows" in told
    assert told.endswith(ready("E"))


def test_change_waits_until_it_is_known_which_transaction_it_is_in() -> None:
    """Wrapped by mistake it would be kept whatever its client then says; unwrapped by mistake, whatever is counted."""
    for before, status, answer, stands in (("begin", "I", "BEGIN", "T"), ("commit", "T", "COMMIT", "I")):
        play = Play(bounded)
        if status == "T":
            play.client(codec.query("begin")).upstream(complete("BEGIN"), ready("T"))
        play.client(codec.query(before), CHANGE)
        assert OURS not in play.to_upstream()
        sent = play.upstream(complete(answer), ready(stands)).to_upstream()
        assert OURS in sent
        assert (b"begin\0" in sent) is (stands == "I")


@pytest.mark.parametrize("extended", [False, True])
def test_commit_waits_until_it_is_known_whether_there_is_anything_to_commit(extended: bool) -> None:
    play = Play(bounded).client(codec.query("begin")).upstream(complete("BEGIN"), ready("T")).client(CHANGE)
    play.upstream(counted(5) + ready("T")).upstream(complete("INSERT 0 1"), ready("T")).upstream(
        counted(6) + ready("T")
    )
    play.client(codec.query("wrong")).upstream(error("22012"), ready("E")).to_upstream()
    commit = codec.parse("", "commit") + RUN if extended else codec.query("commit")
    play.client(codec.query("back"), commit)
    assert b"set constraints all immediate\0" not in play.to_upstream()
    play.upstream(complete("ROLLBACK"), ready("T"))
    if extended:
        assert codec.execute("") not in play.upstream(PARSED, BOUND).to_upstream()
    assert b"set constraints all immediate\0" in play.to_upstream() or extended
    play.upstream(counted(6) + done("SET CONSTRAINTS") + counted(16) + (b"" if extended else ready("T")))
    assert b"rollback\0" in play.to_upstream()


def test_in_the_extended_protocol_completion_waits_for_the_count_and_sync_for_deferred_triggers() -> None:
    play = Play(bounded).client(codec.parse("", "insert"), RUN)
    sent = play.to_upstream()
    assert codec.execute("") not in sent
    assert sent.endswith(codec.FLUSH)
    play.upstream(PARSED, BOUND, counted(0))
    assert play.to_upstream() == codec.execute("") + codec.FLUSH
    assert play.kinds() == "12"
    assert play.upstream(complete("INSERT 0 1")).kinds() == ""
    assert play.to_upstream().endswith(codec.FLUSH)
    assert play.upstream(counted(3)).kinds() == "C"
    deferred = play.to_upstream()
    assert b"set constraints all immediate\0" in deferred
    assert codec.SYNC not in deferred
    play.upstream(counted(3) + done("SET CONSTRAINTS") + counted(14))
    assert play.to_upstream() == POISON + codec.SYNC
    told = play.upstream(error("34000"), ready("I")).to_client()
    assert b"this touched 14 rows" in told


def test_portal_that_ends_with_its_transaction_while_it_is_counted_runs_no_further() -> None:
    play = Play(bounded).client(codec.parse("", "insert"), bind(""), codec.execute("", 1))
    play.upstream(PARSED, BOUND, counted(0)).upstream(ROW, SUSPENDED).upstream(counted(1)).client(codec.SYNC)
    # Its Sync is answered only after the client has asked for the rest.
    play.upstream(counted(1) + done("SET CONSTRAINTS") + counted(1)).client(codec.execute("")).to_client()
    play.upstream(ready("I")).to_upstream()
    play.upstream(counted(1))
    assert play.to_upstream() == POISON + codec.FLUSH
    assert b"34000" in play.upstream(error("34000")).to_client()
    assert play.outcomes() == [("q1", "ok")]


def test_earlier_failure_of_a_segment_leaves_the_change_unsent() -> None:
    play = Play(bounded).client(codec.parse("", "insert"), bind(""), codec.execute(""), codec.SYNC)
    play.to_upstream()
    play.upstream(error("42601"))
    assert play.to_upstream() == codec.SYNC
    assert play.upstream(ready("I")).kinds() == "EZ"
    assert play.outcomes() == [("q1", "cut")]


def test_client_that_leaves_before_the_count_leaves_a_change_that_is_cut() -> None:
    play = begun(Play(bounded))
    play.upstream(complete("INSERT 0 1"), ready("T"))
    play.hear(ClientGone(play.at))
    assert play.outcomes() == [("q1", "cut")]
    assert any(isinstance(command, Close) for command in play.said)


def test_change_whose_session_ends_before_it_is_sent_is_cut() -> None:
    play = Play(bounded).client(CHANGE)
    assert CHANGE not in play.to_upstream()
    assert play.hear(ClientGone(9.0)).outcomes() == [("q1", "cut")]
    # So is the COMMIT that waits for what is deferred.
    play = Play(bounded).client(codec.query("begin")).upstream(complete("BEGIN"), ready("T")).client(CHANGE)
    play.upstream(counted(5) + ready("T")).upstream(complete("INSERT 0 1"), ready("T"))
    play.upstream(counted(6) + ready("T")).client(codec.query("commit"))
    assert play.hear(ClientGone(9.0)).outcomes() == [("q1", "ok"), ("q2", "ok"), ("q3", "cut")]


def test_copy_data_passes_while_the_change_waits_for_its_count() -> None:
    play = begun(Play(bounded))
    play.upstream(codec.message(b"G", b"\0\0\0"))
    row, end = codec.message(b"d", b"1\n"), codec.message(b"c")
    assert play.client(row, end).to_upstream() == row + end + codec.FLUSH
    play.upstream(complete("COPY 1"), ready("T"))
    play.to_upstream()
    play.upstream(done("SET CONSTRAINTS") + counted(6) + ready("T")).upstream(done("COMMIT") + ready("I"))
    assert play.kinds() == "GCZ"


def test_a_copy_whose_rows_are_counted_is_over_before_its_client_says_sync() -> None:
    play = Play(bounded).client(codec.parse("", "insert"), bind(""), codec.execute(""), codec.SYNC)
    play.upstream(PARSED, BOUND).upstream(counted(5))
    play.upstream(codec.message(b"G", b"\0\0\0"))
    play.to_upstream()
    row, end = codec.message(b"d", b"1\n"), codec.message(b"c")
    play.client(row, end, codec.SYNC)
    assert play.to_upstream() == row + end + codec.FLUSH
    play.upstream(complete("COPY 1")).upstream(counted(6))
    assert play.kinds() == "12GC"
    assert play.outcomes() == [("q1", "ok")]
