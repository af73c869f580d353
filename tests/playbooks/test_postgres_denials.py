"""A denial: where its error stands, and what it leaves of what is around it."""

import hashlib
from dataclasses import replace

import pytest

from broker.protocols.postgres import codec
from broker.protocols.postgres.events import (
    Recorded,
)
from broker.protocols.postgres.records import MAX_DENIED
from broker.protocols.postgres.ruling import Ruling
from broker.sessions.eventchain import RECORD, genesis, record_line
from broker.sessions.model import Durability
from policies.engine.decisions import Effect
from tests.playbooks.postgres_play import (
    BOUND,
    PARSED,
    POISON,
    Play,
    Q,
    bind,
    but_drop,
    complete,
    denied,
    error,
    permitted,
    ready,
)


def test_a_denial_with_nothing_open_is_answered_here() -> None:
    play = Play(but_drop).client(codec.query("drop x"))
    assert play.to_upstream() == b""
    assert play.kinds() == "EZ"
    assert [entry.type for entry in play.records[0].entries] == ["statement.denied"]
    assert "mistyped" not in play.records[0].entries[0].data
    assert play.records[0].durability is Durability.SYNCED


@pytest.mark.parametrize("letter", ["x", "\x01", "é", "😀"])
def test_a_denial_is_recorded_however_long_its_text_is(letter: str) -> None:
    sql = "drop " + letter * ((codec.MAX_FRONTEND - 100) // len(letter.encode()))
    play = Play(but_drop).client(codec.query(sql))
    assert play.kinds() == "EZ"
    (entry,) = play.records[0].entries
    assert entry.detail == {
        "sql": sql[:MAX_DENIED],
        "bytes": len(sql.encode()),
        "sha256": hashlib.sha256(sql.encode()).hexdigest(),
    }
    record_line(genesis(RECORD, "g1"), "g1", "", entry.type, None, entry.data, entry.detail)


@pytest.mark.parametrize("message", ['syntax error at or near "hunter2"', 'unrecognized role option "hunter2"'])
def test_what_a_syntax_error_quotes_is_told_to_its_author_alone(message: str) -> None:
    ruling = replace(denied(message), rules=("syntax",), sqlstate="42601")
    play = Play(lambda sql: ruling).client(codec.query("alter"))
    assert b"hunter2" in play.to_client()
    said = play.records[0].entries[0].data["message"]
    assert said in message
    assert "hunter2" not in said


def test_a_denial_waits_until_it_is_recorded() -> None:
    play = Play(but_drop, slow=True).client(codec.query("drop x"))
    assert play.to_client() == b""
    play.hear(Recorded(play.records[0].token, play.at))
    assert play.kinds() == "EZ"


def test_a_denial_in_a_transaction_fails_it_upstream_and_shows_ours() -> None:
    play = Play(but_drop).client(codec.query("begin")).upstream(complete("BEGIN"), ready("T"))
    play.to_upstream(), play.to_client()
    play.client(codec.query("drop x"))
    assert play.to_upstream() == POISON + codec.SYNC
    assert play.to_client() == b""
    play.upstream(error("34000", "portal does not exist"), ready("E"))
    told = play.to_client()
    assert b"airlock: no" in told
    assert b"34000" not in told
    assert told.endswith(ready("E"))


def test_a_denial_behind_an_unanswered_statement_keeps_the_order() -> None:
    play = Play(but_drop).client(Q, codec.query("drop x"))
    assert play.to_upstream() == Q + POISON + codec.SYNC
    play.upstream(complete("SELECT 1"), ready(), error("34000"), ready())
    assert play.kinds() == "CZEZ"


def test_a_denial_in_a_pipeline_is_one_error_and_skips_to_sync() -> None:
    play = Play(but_drop)
    good = codec.parse("", "insert") + bind("") + codec.execute("")
    play.client(good, codec.parse("", "drop x"), bind(""), codec.execute(""), good, codec.SYNC, good, codec.SYNC)
    assert play.to_upstream() == good + POISON + codec.SYNC + good + codec.SYNC
    answered = PARSED + BOUND + complete("INSERT 0 1")
    play.upstream(answered, error("34000"), ready(), answered, ready())
    assert play.kinds() == "12CEZ12CZ"


def test_an_earlier_error_of_the_segment_replaces_the_denial() -> None:
    play = Play(but_drop)
    play.client(codec.parse("", "insert"), bind(""), codec.execute(""), codec.parse("", "drop x"), codec.SYNC)
    play.upstream(PARSED, BOUND, error("23505"), ready())
    assert play.kinds() == "12EZ"
    assert play.outcomes() == [("q1", "failed")]


@pytest.mark.parametrize("sql", ["drop x", "select 2"])
def test_a_query_in_the_middle_of_a_segment_that_has_failed_is_skipped_as_the_server_does(sql: str) -> None:
    play = Play(but_drop).client(codec.parse("s", "select 1"), codec.query(sql), codec.query("select 3"), codec.SYNC)
    assert play.to_upstream() == codec.parse("s", "select 1") + codec.FLUSH
    play.upstream(error("42P05"))
    assert play.to_upstream() == codec.SYNC
    assert play.upstream(ready()).kinds() == "EZ"
    assert play.records == []


def test_a_denied_query_in_the_middle_of_a_segment_fails_it_and_ends_it() -> None:
    play = Play(but_drop).client(codec.parse("s", "select 1"), codec.query("drop x"), Q)
    play.upstream(PARSED)
    assert play.to_upstream() == codec.parse("s", "select 1") + codec.FLUSH + POISON + codec.SYNC + Q
    assert play.upstream(error("34000"), ready(), complete("SELECT 1"), ready()).kinds() == "1EZCZ"


def test_after_a_local_denial_nothing_passes_before_sync() -> None:
    play = Play(but_drop).client(codec.parse("", "drop x"), bind(""), codec.execute(""), Q, codec.SYNC)
    assert play.to_upstream() == codec.SYNC
    assert play.kinds() == "E"
    assert play.upstream(ready()).kinds() == "Z"


def test_a_message_of_several_statements_is_denied_as_a_whole() -> None:
    play = Play(lambda sql: denied()).client(codec.query("insert; drop x"))
    assert play.to_upstream() == b""
    assert len(play.records) == 1


def test_a_timeout_lasts_no_longer_than_the_access() -> None:
    def rule(sql: str) -> Ruling:
        return permitted(sql, effect=Effect.SESSION, lasting=int(sql.split()[-1]))

    for longest, passes in ((4999, False), (5000, True)):
        text = codec.query("set 5000")
        play = Play(rule, longest=longest).client(text)
        assert play.to_upstream() == (text if passes else b"")
        assert (b"no timeout of this session lasts longer than 4s" in play.to_client()) is not passes
        assert play.records[0].entries[0].type == ("statement.allowed" if passes else "statement.denied")
        pipeline = [codec.parse("s", "set 5000"), bind("s"), codec.execute(""), codec.SYNC]
        assert (codec.execute("") in Play(rule, longest=longest).client(*pipeline).to_upstream()) is passes
