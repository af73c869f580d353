"""What the session machine says to what it hears."""

import itertools

import pytest

from broker.protocols.postgres import codec
from broker.protocols.postgres.events import (
    ClientGone,
    Close,
    Ended,
    FromClient,
    PauseClient,
    PauseUpstream,
    Recorded,
    RecordingLost,
    Reload,
    ResumeClient,
    ResumeUpstream,
    Ruled,
    Synced,
    ToClient,
    UpstreamGone,
)
from broker.protocols.postgres.machine import LEGAL, EventIllegal, State
from broker.protocols.postgres.replies import Problem
from broker.protocols.postgres.ruling import Ruling
from broker.sessions.model import CloseReason, Durability
from broker.sql.model import Control
from policies.engine.decisions import Effect
from tests.playbooks.postgres_play import (
    ASKING,
    BOUND,
    CLOSED,
    NO_DATA,
    PARSED,
    POISON,
    ROW,
    SUSPENDED,
    Play,
    bind,
    columns,
    complete,
    denied,
    describe,
    error,
    permitted,
    ready,
)

Q = codec.query("select 1")
RUN = bind("") + codec.execute("") + codec.SYNC


def but_drop(sql: str) -> Ruling:
    return denied() if sql.startswith("drop") else permitted(sql)


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


def test_a_denial_with_nothing_open_is_answered_here() -> None:
    play = Play(but_drop).client(codec.query("drop x"))
    assert play.to_upstream() == b""
    assert play.kinds() == "EZ"
    assert [entry.type for entry in play.records[0].entries] == ["statement.denied"]
    assert "mistyped" not in play.records[0].entries[0].data
    assert play.records[0].durability is Durability.SYNCED


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


def test_after_a_local_denial_nothing_passes_before_sync() -> None:
    play = Play(but_drop).client(codec.parse("", "drop x"), bind(""), codec.execute(""), Q, codec.SYNC)
    assert play.to_upstream() == codec.SYNC
    assert play.kinds() == "E"
    assert play.upstream(ready()).kinds() == "Z"


def test_a_message_of_several_statements_is_denied_as_a_whole() -> None:
    play = Play(lambda sql: denied()).client(codec.query("insert; drop x"))
    assert play.to_upstream() == b""
    assert len(play.records) == 1


def test_an_error_in_the_middle_cuts_what_never_ran() -> None:
    play = Play().client(codec.query("a; b; c")).upstream(complete("A"), error(), ready())
    assert play.outcomes() == [("q1", "ok"), ("q2", "failed"), ("q3", "cut")]


def test_bind_and_execute_are_decided_again() -> None:
    answers = iter([permitted("select 1"), permitted("select 1"), denied("not any more")])
    play = Play(lambda sql: next(answers)).client(codec.parse("s", "select 1"), bind("s"), codec.execute(""))
    assert play.to_upstream().endswith(POISON)
    assert [command.sql for command in play.inspected] == ["select 1"] * 3


def test_a_statement_that_would_be_sent_in_other_words_is_to_be_prepared_again() -> None:
    answers = iter([permitted("select 1"), permitted("select 1", rewritten="select 2")])
    play = Play(lambda sql: next(answers)).client(codec.parse("s", "select 1"), codec.SYNC).upstream(PARSED, ready())
    play.to_client()
    play.client(bind("s"))
    assert b"0A000" in (told := play.to_client())
    assert b"cached plan must not change result type" in told
    assert play.records == []


def test_a_failed_parse_of_a_name_in_use_leaves_the_old_statement() -> None:
    play = Play().client(codec.parse("s", "select 1"), codec.SYNC).upstream(PARSED, ready())
    play.client(codec.parse("s", "select 2"), codec.SYNC).upstream(error("42P05"), ready())
    play.inspected.clear()
    play.client(RUN.replace(bind(""), bind("s")))
    assert [command.sql for command in play.inspected] == ["select 1", "select 1"]


def test_a_failed_parse_without_a_name_leaves_none() -> None:
    play = Play().client(codec.parse("", "select 1"), codec.SYNC).upstream(PARSED, ready())
    play.client(codec.parse("", "select nonsense"), codec.SYNC).upstream(error("42703"), ready())
    play.to_client()
    assert b"26000" in play.client(bind("")).to_client()


def test_a_simple_query_drops_the_statement_without_a_name() -> None:
    play = Play().client(codec.parse("", "select 1"), codec.SYNC).upstream(PARSED, ready())
    play.client(Q).upstream(complete("SELECT 1"), ready())
    play.to_client()
    assert b"26000" in play.client(bind("")).to_client()


def test_a_name_that_depends_on_unanswered_segments_waits_for_them() -> None:
    play = Play().client(codec.parse("s", "select 1"), codec.SYNC, bind("s"), codec.execute(""), codec.SYNC)
    assert play.machine.state is State.DRAINING
    assert play.to_upstream() == codec.parse("s", "select 1") + codec.SYNC
    play.upstream(PARSED, ready())
    assert play.to_upstream() == RUN.replace(bind(""), bind("s"))
    refused = Play().client(codec.parse("s", "select 1"), codec.SYNC, bind("s"), codec.SYNC)
    refused.upstream(error("42601"), ready())
    assert b"26000" in refused.to_client()


def test_within_a_segment_nothing_waits() -> None:
    play = Play().client(codec.parse("s", "select 1"), bind("s"), describe("P", ""), codec.execute(""), codec.SYNC)
    assert play.machine.state is State.OPEN
    play.upstream(PARSED, BOUND, NO_DATA, complete("SELECT 0"), ready())
    assert play.kinds() == "12nCZ"


def test_sql_prepare_registers_when_the_server_says_so_and_execute_is_its_body() -> None:
    def rule(sql: str) -> Ruling:
        match sql.split():
            case ["prepare", name, *_]:
                return permitted(sql, controls=[(Control.PREPARE, name, "select body")])
            case ["execute", name]:
                return permitted(sql, controls=[(Control.EXECUTE, name, "")])
            case ["deallocate", *name]:
                return permitted(sql, controls=[(Control.DEALLOCATE, "".join(name), "")])
        return permitted(sql, masked=True)

    play = Play(rule).client(codec.query("prepare p as select body")).upstream(error("42P05"), ready())
    play.to_client()
    assert b"26000" in play.client(codec.query("execute p")).to_client()
    assert play.records[-1].entries[0].type == "statement.denied"
    assert play.records[-1].entries[0].data["mistyped"] is True
    play.client(codec.query("prepare p as select body")).upstream(complete("PREPARE"), ready())
    play.to_upstream()
    play.client(codec.query("execute p"))
    assert play.to_upstream() == codec.query("execute p")
    assert play.records[-1].durability is Durability.RESULTS_WAIT
    assert play.records[-1].entries[0].data["masked"] == ["public.people.ssn"]
    play.upstream(complete("SELECT 1"), ready())
    play.client(bind("p"), codec.execute(""), codec.SYNC).upstream(BOUND, complete("SELECT 1"), ready())
    play.client(codec.query("deallocate")).upstream(complete("DEALLOCATE ALL"), ready())
    for token in range(1, 40):
        play.hear(Synced(token, play.at))
    play.to_client()
    assert b"26000" in play.client(bind("p")).to_client()


def test_a_named_portal_is_recorded_when_bound_and_once() -> None:
    play = Play().client(codec.query("begin")).upstream(complete("BEGIN"), ready("T"))
    play.client(codec.parse("", "select 1"), bind("", "c"), codec.execute("c", 5), codec.SYNC)
    play.upstream(PARSED, BOUND, ROW, SUSPENDED, ready("T"))
    play.client(codec.execute("c", 5), codec.SYNC).upstream(ROW, complete("SELECT 1"), ready("T"))
    assert [record.entries[0].data["statement"] for record in play.records] == ["q1", "q2"]
    assert play.notes[-1] | {"milliseconds": 0} == {
        "statement": "q2",
        "outcome": "ok",
        "rows": 2,
        "milliseconds": 0,
        "sqlstate": None,
    }


def test_a_portal_that_is_left_behind_is_finished_with_the_transaction() -> None:
    play = Play().client(codec.query("begin")).upstream(complete("BEGIN"), ready("T"))
    play.client(codec.parse("", "select 1"), bind("", "c"), codec.execute("c", 1), codec.SYNC)
    play.upstream(PARSED, BOUND, ROW, SUSPENDED, ready("T"))
    play.client(codec.query("commit")).upstream(complete("COMMIT"), ready())
    assert ("q2", "ok") in play.outcomes()
    play.to_client()
    assert b"34000" in play.client(codec.execute("c")).to_client()


def test_closed_statements_are_gone() -> None:
    play = Play().client(codec.parse("s", "select 1"), codec.SYNC).upstream(PARSED, ready())
    play.client(codec.message(b"C", b"Ss\0"), codec.SYNC).upstream(CLOSED, ready())
    play.to_client()
    assert b"26000" in play.client(bind("s")).to_client()


def test_masked_results_wait_for_their_record_and_nothing_overtakes_them() -> None:
    play = Play(lambda sql: permitted(sql, masked=sql == "m")).client(codec.query("m"), Q)
    assert play.to_upstream() == codec.query("m") + Q
    play.upstream(columns(("x", 0, 0)), ROW, complete("SELECT 1"), ready(), complete("SELECT 1"), ready())
    assert play.to_client() == b""
    play.hear(Synced(play.records[0].token, play.at))
    assert play.kinds() == "TDCZCZ"


def test_results_that_wait_are_bounded() -> None:
    play = Play(lambda sql: permitted(sql, masked=True)).client(Q)
    big = codec.message(b"D", b"\0\1" + bytes(600_000))
    play.upstream(big).upstream(big)
    assert play.said[-1] == PauseUpstream()
    assert play.to_client() == b""
    play.hear(Synced(play.records[0].token, play.at))
    assert play.said[-1] == ResumeUpstream()


def test_a_client_that_floods_behind_the_gate_is_not_read() -> None:
    play = Play(lambda sql: None).client(Q)
    play.client(*[codec.query("x" * 600_000)] * 2)
    assert play.said == [PauseClient()]
    play._rule = permitted
    play.hear(Ruled(play.inspected[0].token, permitted("select 1"), play.at))
    assert ResumeClient() in play.said
    assert len(play.inspected) == 3


@pytest.mark.parametrize(
    ("found", "trips"),
    [((7, 3), True), ((7, 0), True), ((7, 2), False), ((8, 3), False), ((0, 0), False)],
)
def test_the_tripwire_ends_the_session_before_a_masked_field_shows(found: tuple[int, int], trips: bool) -> None:
    play = Play(lambda sql: permitted(sql, tripwire=[(7, 3)])).client(Q).upstream(columns(("x", *found)), ROW)
    told = play.to_client()
    if trips:
        assert b"57P01" in told
        assert ROW not in told
        (close,) = play.said[1:]
        assert isinstance(close, Close)
        assert close.reason is CloseReason.TRIPWIRE
    else:
        assert told == columns(("x", *found)) + ROW


def test_a_description_trips_too() -> None:
    play = Play(lambda sql: permitted(sql, tripwire=[(7, 3)]))
    play.client(codec.parse("s", "select 1"), describe("S", "s"), codec.SYNC)
    play.upstream(PARSED, codec.message(b"t", b"\0\0"), columns(("x", 7, 3)))
    assert isinstance(play.said[-1], Close)


def test_errors_in_the_scope_of_masks_are_rebuilt_until_the_transaction_ends() -> None:
    play = Play(lambda sql: permitted(sql, masked=sql == "m")).client(codec.query("m"))
    play.hear(Synced(play.records[0].token, play.at))
    play.upstream(error("22P02", 'invalid input syntax: "123-45"', D="123", W="123"), ready())
    assert b"123" not in play.to_client()
    play.client(codec.query("begin")).upstream(complete("BEGIN"), ready("T"))
    play.client(codec.query("m"))
    play.hear(Synced(play.records[-1].token, play.at))
    play.upstream(complete("SELECT 1"), ready("T"))
    play.client(codec.query("commit")).upstream(error("23505", "dup", D="Key (ssn)=(123)"))
    assert b"123" not in play.to_client()
    play.upstream(ready()).client(Q).upstream(error("23505", "dup", D="Key (x)=(123)"))
    assert b"Key (x)=(123)" in play.to_client()


def test_notifications_and_unlisted_statuses_stay_here() -> None:
    play = Play().upstream(
        codec.message(b"A", bytes(4) + b"ch\0123-45\0"),
        codec.parameter_status("application_name", "123-45"),
        codec.parameter_status("TimeZone", "Europe/Berlin"),
        codec.parameter_status("DateStyle", "x" * 65),
        codec.parameter_status("anything", "123-45"),
    )
    assert play.to_client() == codec.parameter_status("TimeZone", "Europe/Berlin")


def test_copy_in_passes_only_where_it_is_due() -> None:
    play = Play().client(codec.query("copy")).upstream(codec.message(b"G", b"\0\0\0"))
    data = codec.message(b"d", b"1\n")
    play.to_upstream()
    play.client(data, codec.message(b"H"), data, codec.message(b"c"))
    assert play.to_upstream() == data + data + codec.message(b"c")
    play.upstream(complete("COPY 2"), ready())
    assert play.outcomes() == [("q1", "ok")]
    play.client(data)
    assert isinstance(play.said[-1], Close)


def test_copy_data_behind_a_failed_copy_is_dropped() -> None:
    play = Play().client(codec.query("copy")).upstream(codec.message(b"G", b"\0\0\0"))
    play.upstream(error("23505"), ready())
    play.to_upstream()
    play.client(codec.message(b"d", b"x"), codec.message(b"c"), Q)
    assert play.to_upstream() == Q


def test_a_sync_that_the_server_swallows_during_copy_is_not_waited_for() -> None:
    play = Play().client(codec.parse("", "copy"), bind(""), codec.execute(""), codec.SYNC)
    play.upstream(PARSED, BOUND, codec.message(b"G", b"\0\0\0"))
    play.client(codec.message(b"d", b"x"), codec.message(b"c"), codec.SYNC)
    play.upstream(complete("COPY 1"), ready())
    assert play.kinds() == "12GCZ"
    assert play.client(Q).upstream(complete("SELECT 1"), ready()).kinds() == "CZ"


@pytest.mark.parametrize("kind", [b"W", b"V", b"K", b"R", b"v", b"?"])
def test_answers_that_nothing_asked_for_end_the_session(kind: bytes) -> None:
    play = Play().client(Q).upstream(codec.message(kind, bytes(8)))
    assert isinstance(play.said[-1], Close)
    assert play.said[-1].reason is CloseReason.UPSTREAM


def test_rows_that_nothing_asked_for_end_the_session() -> None:
    play = Play().upstream(ROW)
    assert isinstance(play.said[-1], Close)
    assert ROW not in play.to_client()


def test_a_change_of_the_schema_reloads_the_catalogue() -> None:
    play = Play(lambda sql: permitted(sql, effect=Effect.DDL)).client(Q).upstream(complete("CREATE TABLE"), ready())
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
