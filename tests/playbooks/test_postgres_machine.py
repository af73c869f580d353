"""What the session machine says to what it hears, from its first statement to its end."""

import itertools

import pytest

from broker.protocols.postgres import codec
from broker.protocols.postgres.events import (
    ClientGone,
    Close,
    Ended,
    FromClient,
    PauseClient,
    Recorded,
    RecordingLost,
    Reload,
    ResumeClient,
    Ruled,
    ToClient,
    UpstreamGone,
)
from broker.protocols.postgres.replies import Problem
from broker.protocols.postgres.ruling import Ruling
from broker.protocols.postgres.states import LEGAL, EventIllegal, State
from broker.sessions.model import CloseReason, Durability
from broker.sql.model import Altered, Control
from policies.engine.decisions import Effect
from tests.playbooks.postgres_play import (
    ASKING,
    BOUND,
    PARSED,
    ROW,
    RUN,
    Play,
    Q,
    bind,
    but_drop,
    columns,
    complete,
    describe,
    error,
    permitted,
    ready,
)


def test_a_statement_is_inspected_recorded_forwarded_and_finished_in_this_order() -> None:
    play = Play(lambda sql: None, slow=True).client(Q)
    assert play.said == []
    play.hear(Ruled(play.inspected[0].token, permitted("select 1"), play.at))
    assert play.to_upstream() == b""
    assert [entry.type for entry in play.records[0].entries] == ["statement.allowed"]
    play.hear(Recorded(play.records[0].token, play.at))
    assert play.to_upstream() == Q
    play.upstream(columns(("x", 0, 0)), ROW, complete("SELECT 1"), ready())
    assert play.kinds() == "TDCZ"
    assert play.notes[0]["rows"] == 1
    assert play.outcomes() == [("q1", "ok")]


def test_the_rewritten_text_is_what_goes_upstream() -> None:
    play = Play(lambda sql: permitted(sql, rewritten="select masked")).client(Q)
    assert play.to_upstream() == codec.query("select masked")
    assert play.records[0].entries[0].detail == {"sql": "select 1", "rewritten": "select masked"}


def test_an_error_in_the_middle_cuts_what_never_ran() -> None:
    play = Play().client(codec.query("a; b; c")).upstream(complete("A"), error(), ready())
    assert play.outcomes() == [("q1", "ok"), ("q2", "failed"), ("q3", "cut")]


def test_a_client_that_floods_behind_the_gate_is_not_read() -> None:
    play = Play(lambda sql: None).client(Q)
    play.client(*[codec.query("x" * 600_000)] * 2)
    assert play.said == [PauseClient()]
    play._rule = permitted
    play.hear(Ruled(play.inspected[0].token, permitted("select 1"), play.at))
    assert ResumeClient() in play.said
    assert len(play.inspected) == 3


def test_a_change_of_the_schema_reloads_the_catalogue() -> None:
    play = Play(altering).client(codec.query("create table t")).upstream(complete("CREATE TABLE"))
    assert Reload() not in play.said  # Nobody else sees it before its transaction is over.
    play.upstream(ready())
    assert Reload() in play.said


def test_a_change_that_is_committed_in_the_middle_reloads_the_catalogue_at_once() -> None:
    play = Play(altering).client(codec.query("begin")).upstream(complete("BEGIN"), ready("T"))
    play.client(codec.query("create table t")).upstream(complete("CREATE TABLE"), ready("T"))
    assert Reload() not in play.said
    play.client(codec.query("commit")).upstream(complete("COMMIT"), ready("T"))  # AND CHAIN
    assert Reload() in play.said
    play.client(codec.query("select 1"))
    assert play.inspected[-1].altered is Altered.SCHEMA  # Fail closed: the status says nothing of it.


def altering(sql: str) -> Ruling:
    """Rules on a text: what creates something changes the schema."""
    created = sql.startswith("create")
    begun = {"begin": [(Control.BEGIN, "", "")], "commit": [(Control.COMMIT, "", "")]}.get(sql)
    effect, alters = (Effect.DDL, Altered.SCHEMA) if created else (Effect.READ, Altered.NOT)
    return permitted(sql, effect=effect, alters=alters, controls=begun)


def run(sql: str) -> bytes:
    """The messages of one statement without its Sync."""
    return codec.parse("", sql) + codec.bind("", "") + codec.execute("")


def test_what_follows_a_change_of_the_schema_is_ruled_on_as_behind_it() -> None:
    """Until its transaction is over, whatever comes between: answers of earlier segments, errors, savepoints."""
    within = Play(altering).client(codec.query("begin")).upstream(complete("BEGIN"), ready("T"))
    within.client(codec.query("create table t"), codec.query("select 1"))
    assert [one.sql for one in within.inspected] == ["begin", "create table t"]  # Its segment is waited for.
    within.upstream(complete("CREATE TABLE"), ready("T"))
    assert within.inspected[-1].altered is Altered.SCHEMA
    within.upstream(error(), ready("E")).client(codec.query("select 2"))
    assert within.inspected[-1].altered is Altered.SCHEMA
    within.upstream(complete("ROLLBACK"), ready()).client(codec.query("select 3"))
    assert within.inspected[-1].altered is Altered.NOT

    piped = Play(altering).client(run("select 1") + codec.SYNC + run("create table t"))
    answered = [codec.message(b"1"), codec.message(b"2")]
    piped.upstream(*answered, complete("SELECT 1"), ready())  # The end of the segment before it.
    piped.client(run("select 2"))
    assert piped.inspected[-1].sql == "select 2"
    assert piped.inspected[-1].altered is Altered.SCHEMA


def test_a_change_of_the_schema_counts_from_the_moment_that_it_is_sent() -> None:
    play = Play(altering).client(run("create table t") + run("select 1") + codec.SYNC)
    assert [one.altered for one in play.inspected if one.sql == "select 1"] == [Altered.SCHEMA] * 3
    assert {one.altered for one in play.inspected if one.sql == "create table t"} == {Altered.NOT}
    play.client(codec.query("select 2"))
    assert play.inspected[-1].sql == "select 1"
    done = [codec.message(b"1"), codec.message(b"2")]
    play.upstream(*done, complete("CREATE TABLE"), *done, complete("SELECT 1"), ready())
    assert (play.inspected[-1].sql, play.inspected[-1].altered) == ("select 2", Altered.NOT)
    assert Reload() in play.said


def test_changes_are_synced_before_they_are_forwarded() -> None:
    play = Play(lambda sql: permitted(sql, effect=Effect.WRITE), slow=True).client(Q)
    assert play.records[0].durability is Durability.SYNCED
    assert play.to_upstream() == b""


ENDINGS = {
    "expired": lambda play: Ended(CloseReason.EXPIRED, Problem("57P01", "over", fatal=True), play.at),
    "client": lambda play: ClientGone(play.at),
    "upstream": lambda play: UpstreamGone(play.at),
    "recording": lambda play: RecordingLost(play.at),
}


@pytest.mark.parametrize(
    "asked", [codec.query("insert"), codec.parse("", "insert") + bind("", "p"), codec.parse("", "insert") + RUN]
)
def test_what_waits_for_its_record_as_the_session_ends_was_cut(asked: bytes) -> None:
    play = Play(lambda sql: permitted(sql, effect=Effect.WRITE), slow=True).client(asked)
    assert len(play.records) == 1
    assert play.hear(ClientGone(9.0)).outcomes() == [("q1", "cut")]


def test_portal_that_ends_with_its_transaction_while_its_execution_is_recorded_is_said_to_be_gone() -> None:
    play = Play(lambda sql: permitted(sql, effect=Effect.WRITE), slow=True).client(codec.parse("", "insert") + bind(""))
    play.client(codec.SYNC).upstream(PARSED, BOUND).client(codec.execute("") + codec.SYNC)
    assert play.upstream(ready()).kinds() == "12Z"
    assert play.outcomes() == [("q1", "cut")]
    play.hear(Recorded(play.machine._token, play.at))
    assert b"34000" in play.to_client()
    assert play.upstream(ready()).kinds() == "Z"


@pytest.mark.parametrize("name", ENDINGS)
@pytest.mark.parametrize("state", list(State))
def test_a_session_ends_from_every_state_and_then_does_nothing(name: str, state: State) -> None:
    play = Play()
    if state is State.GATED:
        play = Play(lambda sql: None).client(Q)
    if state is State.HELD:
        play = Play(lambda sql: permitted(sql, asking=ASKING)).client(Q)
    if state is State.DRAINING:
        play.client(codec.parse("s", "select 1"), codec.SYNC, bind("s"))
    if state is State.CLOSED:
        play.hear(ClientGone(play.at))
    assert play.machine.state is state
    play.said.clear()
    play.hear(ENDINGS[name](play))
    assert play.machine.state is State.CLOSED
    if state is not State.CLOSED:
        assert isinstance(play.said[-1], Close)
        play.said.clear()
    play.client(Q).upstream(ready())
    assert play.said == []


def test_an_end_cuts_what_runs_and_is_recorded_so() -> None:
    play = Play().client(codec.query("a; b"), Q)
    play.hear(Ended(CloseReason.REVOKED, Problem("57P01", "over", fatal=True), play.at))
    assert play.outcomes() == [("q1", "cut"), ("q2", "cut"), ("q3", "cut")]
    assert play.kinds() == "E"


def test_in_the_middle_of_a_row_no_error_is_written() -> None:
    play = Play().client(Q)
    play.upstream((codec.message(b"D", bytes(200_000)))[:100_000])
    assert play.to_client()
    play.hear(Ended(CloseReason.EXPIRED, Problem("57P01", "over", fatal=True), play.at))
    assert not any(isinstance(command, ToClient) for command in play.said)


def test_an_answer_that_comes_after_its_question_is_void_changes_nothing() -> None:
    play = Play(lambda sql: None).client(Q)
    token = play.inspected[0].token
    play.hear(Ruled(token + 7, permitted("select 1"), play.at))
    assert play.machine.state is State.GATED
    play.hear(ClientGone(play.at))
    play.hear(Ruled(token, permitted("select 1"), play.at))
    assert play.to_upstream() == b""


def test_every_event_is_either_legal_or_raises() -> None:
    every = {kind for kinds in LEGAL.values() for kind in kinds}
    for state, kind in itertools.product(State, every):
        if kind in LEGAL[state]:
            continue
        play = Play()
        play.machine.state = state
        with pytest.raises(EventIllegal):
            list(play.machine.handle(kind(*[None] * (len(kind.__dataclass_fields__) - 1), 0.0)))


def test_scripts_mean_the_same_however_they_are_cut() -> None:
    script = b"".join(
        [
            codec.query("select 1; select 2"),
            codec.parse("s", "drop x"),
            codec.SYNC,
            codec.parse("s", "select 3"),
            bind("s"),
            describe("S", "s"),
            codec.execute(""),
            codec.SYNC,
            codec.query("drop y"),
        ]
    )
    whole = Play(but_drop).client(script)
    for size in (1, 2, 3, 7, 64):
        cut = Play(but_drop)
        for at in range(0, len(script), size):
            cut.hear(FromClient(script[at : at + size], cut.at))
        assert cut.to_upstream() == Play(but_drop).client(script).to_upstream()
    assert whole.to_upstream()
