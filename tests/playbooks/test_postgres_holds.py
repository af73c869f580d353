"""What the session machine says while a statement waits for its reviewers, and when they have answered."""

import pytest

from broker.protocols.postgres import codec
from broker.protocols.postgres.events import CancelAsked, ClientGone, Close, Ended, HoldWaited, PauseClient
from broker.protocols.postgres.replies import Problem
from broker.protocols.postgres.ruling import Ruling
from broker.protocols.postgres.states import State
from broker.sessions.holds import Abandoned, Answer, Pending, Refused, Released, TimedOut
from broker.sessions.model import CloseReason, Durability
from broker.sql.model import Control
from policies.engine.decisions import Effect
from tests.playbooks.held_play import RUN, Q, answer, ask, held
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
    complete,
    denied,
    describe,
    error,
    permitted,
    ready,
)


def test_the_client_is_told_at_once_and_again_whom_it_waits_for() -> None:
    play = held()
    told = play.to_client()
    assert b"airlock: waiting for 1 of dbas (Bob) to review this statement, up to 10m; Ctrl-C gives up" in told
    play.hear(HoldWaited(play.holds[0].token, 585, play.at))
    assert b"airlock: still waiting for 1 of dbas (Bob) to review this statement, 9m 45s left" in play.to_client()
    assert play.to_upstream() == b""
    assert play.records == []


def test_a_release_is_decided_again_used_recorded_and_then_forwarded() -> None:
    play = held()
    play.to_client()
    answer(play, Released("h1"))
    assert [command.sql for command in play.inspected] == ["insert"] * 2
    assert [(use.hold, use.requirement) for use in play.uses] == [("h1", ASKING.requirement)]
    (record,) = play.records
    assert record.durability is Durability.SYNCED
    assert [entry.type for entry in record.entries] == ["hold.consumed", "statement.allowed"]
    assert record.entries[1].data["rules"] == ["reads", "hold:h1"]
    assert record.entries[0].data == {"hold": "h1", "statement": play.holds[0].facts.statement}
    assert play.to_upstream() == Q
    assert play.upstream(complete("INSERT 0 1"), ready()).kinds() == "CZ"


def test_the_client_is_told_who_approved_before_the_result() -> None:
    play = held()
    play.to_client()
    answer(play, Released("h1", by=("Bob", "Erin")))
    assert b"airlock: approved by Bob and Erin" in play.to_client()
    assert play.upstream(complete("INSERT 0 1"), ready()).kinds() == "CZ"


def test_nothing_is_forwarded_before_the_use_is_recorded() -> None:
    play = Play(ask, slow=True).client(Q)
    answer(play, Released("h1"))
    assert play.to_upstream() == b""


@pytest.mark.parametrize(
    ("found", "state", "words"),
    [
        (Refused("h1", "Bob", "use staging"), b"42501", b"airlock: Bob refused this statement: use staging"),
        (TimedOut("h1"), b"57014", b"airlock: nobody answered in time"),
        (Abandoned("h1", "revoked"), b"57014", b"airlock: canceled: the review is over, because"),
    ],
)
def test_without_an_approval_nothing_is_forwarded(found: Answer, state: bytes, words: bytes) -> None:
    play = held()
    play.to_client()
    told = answer(play, found).to_client()
    assert state in told
    assert words in told
    assert told.endswith(ready())
    assert play.to_upstream() == b""
    assert play.machine.state is State.OPEN


def test_a_client_that_gives_up_is_told_so_and_a_late_answer_is_void() -> None:
    play = held()
    play.to_client()
    play.hear(CancelAsked(play.at))
    assert b"57014" in (told := play.to_client())
    assert b"airlock: canceled: the review was given up" in told
    assert play.drops == ["cancelled"]
    answer(play, Released("h1"))
    assert play.to_upstream() == b""
    assert play.uses == []


def test_an_approval_that_is_not_good_any_more_runs_nothing() -> None:
    play = held()
    play.good = False
    assert b"it is used, or the policy has changed" in answer(play, Released("h1")).to_client()
    assert play.to_upstream() == b""


def test_what_policy_denies_by_the_time_it_is_approved_is_denied() -> None:
    rulings = iter([ask("insert"), denied("not any more")])
    play = Play(lambda sql: next(rulings)).client(Q)
    assert b"not any more" in answer(play, Released("h1")).to_client()
    assert play.drops == ["policy"]
    assert play.to_upstream() == b""


def test_what_policy_allows_by_then_needs_no_requirement() -> None:
    rulings = iter([ask("insert"), permitted("insert")])
    play = Play(lambda sql: next(rulings)).client(Q)
    answer(play, Released("h1"))
    assert play.uses[0].requirement is None
    assert play.to_upstream() == Q


def test_messages_behind_a_hold_wait_in_order_and_are_bounded() -> None:
    play = held(Q, codec.query("select 1"), codec.query("select 2"))
    assert play.to_upstream() == b""
    play.client(codec.query("x" * 1_100_000))
    assert play.said[-1] == PauseClient()
    answer(play, Released("h1"))
    sent = play.to_upstream()
    assert sent.startswith(Q + codec.query("select 1") + codec.query("select 2"))


@pytest.mark.parametrize("reason", [CloseReason.EXPIRED, CloseReason.REVOKED, CloseReason.ENDED, CloseReason.SHUTDOWN])
def test_the_end_of_the_grant_ends_the_wait(reason: CloseReason) -> None:
    play = held()
    play.hear(Ended(reason, Problem("57P01", "over", fatal=True), play.at))
    assert play.said[-1] == Close(reason, Problem("57P01", "over", fatal=True))
    answer(play, Released("h1"))
    assert play.to_upstream() == b""


def test_a_client_that_leaves_ends_the_wait() -> None:
    play = held().hear(ClientGone(0.5))
    assert play.said[-1] == Close(CloseReason.CLIENT, None)


@pytest.mark.parametrize(
    "chunks",
    [
        [codec.TERMINATE],
        [Q, codec.query("select 1")[:9], codec.query("select 1")[9:] + codec.TERMINATE[:2], codec.TERMINATE[2:]],
        [codec.query(f"select '{codec.TERMINATE.decode()[:1]}'"), codec.SYNC + codec.TERMINATE + Q],
    ],
)
def test_a_client_that_says_goodbye_ends_the_wait_though_its_connection_stays(chunks: list[bytes]) -> None:
    play = held()
    for chunk in chunks:
        play.client(chunk)
    assert play.said[-1] == Close(CloseReason.CLIENT, None)
    answer(play, Released("h1"))
    assert play.to_upstream() == b""


def test_who_has_said_goodbye_already_is_not_waited_for() -> None:
    held(Q, codec.message(b"Q", codec.TERMINATE), Q[:6])
    play = Play(ask).client(Q, Q, codec.TERMINATE)
    assert play.said[-1] == Close(CloseReason.CLIENT, None)
    assert (play.holds, play.to_upstream()) == ([], b"")


def test_parse_and_describe_wait_with_bind_so_that_no_lock_is_kept() -> None:
    play = held(codec.parse("", "insert"), bind(""), describe("P", ""), codec.execute(""), codec.SYNC)
    assert play.to_upstream() == b""
    assert play.holds[0].facts.seconds == 600
    answer(play, Released("h1"))
    assert play.to_upstream() == codec.parse("", "insert") + RUN.replace(bind(""), bind("") + describe("P", ""))
    play.upstream(PARSED, BOUND, NO_DATA, complete("INSERT 0 1"), ready())
    assert play.outcomes() == [(play.holds[0].facts.statement, "ok")]
    assert len(play.holds) == 1


def test_a_driver_that_waits_for_parse_and_describe_gets_their_answers() -> None:
    play = Play(ask).client(codec.parse("s", "insert"), describe("S", "s"), codec.message(b"H"))
    assert play.to_upstream() == codec.parse("s", "insert") + describe("S", "s") + codec.message(b"H")
    play.upstream(PARSED, codec.message(b"t", b"\0\1" + (23).to_bytes(4, "big")), NO_DATA)
    play.client(codec.SYNC).upstream(ready())
    values = b"\0\1\0\1" + b"\0\1" + b"\0\0\0\4" + (7).to_bytes(4, "big") + b"\0\0"
    play.client(codec.message(b"B", b"\0s\0" + values), codec.execute(""), codec.SYNC)
    assert play.holds[0].facts.shown == ("7",)
    assert not play.holds[0].facts.in_transaction
    assert play.holds[0].facts.asked.types == (23,)


def test_an_approval_is_for_one_execution_of_one_binding() -> None:
    play = Play(ask).client(codec.parse("s", "insert"), codec.SYNC).upstream(PARSED, ready())
    for number in (1, 2):
        play.client(bind("s"), codec.execute(""), codec.SYNC)
        assert len(play.holds) == number
        answer(play, Released(f"h{number}"))
        play.upstream(BOUND, complete("INSERT 0 1"), ready())
    play.client(codec.query("begin")).upstream(complete("BEGIN"), ready("T"))
    play.client(bind("s", "c"))
    answer(play, Released("h3"))
    play.client(codec.execute("c"), codec.SYNC)
    assert len(play.holds) == 3
    play.upstream(BOUND, complete("INSERT 0 1"), ready("T"))
    play.to_upstream()
    play.client(codec.execute("c"), codec.SYNC)
    assert len(play.holds) == 4
    assert play.to_upstream() == b""


def test_a_refusal_in_a_pipeline_is_one_error_and_nothing_behind_it_runs() -> None:
    good = codec.parse("", "select 1") + bind("") + codec.execute("")
    bad = codec.parse("", "insert") + bind("") + codec.execute("")
    play = Play(ask)
    play.tells = False
    play.client(good, bad, good, codec.SYNC, good, codec.SYNC)
    assert play.to_upstream() == good
    play.upstream(PARSED, BOUND, complete("SELECT 1"), play.told())
    assert play.to_upstream() == codec.parse("", "insert")
    assert play.holds[0].facts.in_transaction
    answer(play, Refused("h1", "Bob", "no"))
    assert play.to_upstream() == POISON + codec.SYNC + good + codec.SYNC
    play.upstream(PARSED, error("34000"), ready())
    assert play.kinds().endswith("1EZ")


def test_where_the_upstream_does_not_say_what_a_text_means_nobody_is_asked_about_it() -> None:
    play = Play(ask)
    play.tells = False
    play.client(Q).upstream(CLOSED, CLOSED, error("57014"), ready())
    assert (play.holds, play.records) == ([], [])
    assert b"canceled: an earlier statement failed" in play.to_client()
    play.tells = True
    assert len(play.client(Q).holds) == 1


def test_the_upstream_is_asked_once_for_what_is_prepared_and_bound_in_one_segment() -> None:
    play = Play(ask)
    play.tells = False
    play.client(codec.parse("", "insert"), bind(""), codec.execute(""), codec.SYNC)
    assert play.to_upstream() == b""
    play.upstream(play.told(synced=True))
    assert len(play.holds) == 1


def executed_twice() -> Play:
    """A portal that was approved, of which one row is asked for and then the rest, at once."""
    play = Play(ask)
    play.tells = False
    named = codec.parse("", "insert") + bind("", "p") + codec.execute("p", 1)
    play.client(named, codec.execute("p"), codec.SYNC).upstream(play.told(synced=True))
    return answer(play, Released("h1"))


def test_a_portal_that_ends_while_the_upstream_is_asked_is_asked_about_again() -> None:
    play = executed_twice()
    play.upstream(PARSED, BOUND, complete("INSERT 0 1"), play.told())
    assert len(play.holds) == 2
    answer(play, Released("h2"))
    assert play.upstream(complete("INSERT 0 0"), ready()).kinds().endswith("CZ")


def test_a_portal_that_is_executed_in_parts_is_asked_about_once() -> None:
    play = executed_twice()
    play.upstream(PARSED, BOUND, ROW, SUSPENDED, play.told())
    play.upstream(ROW, complete("INSERT 0 2"), ready())
    assert (len(play.holds), play.kinds()[-5:]) == (1, "DsDCZ")


def test_an_error_that_comes_meanwhile_leaves_the_approval_unused() -> None:
    first = codec.parse("", "select 1") + bind("") + codec.execute("")
    play = Play(ask)
    play.tells = False
    play.client(first, codec.parse("", "insert"), bind(""), codec.execute(""), codec.SYNC)
    play.upstream(PARSED, BOUND, complete("SELECT 1"), play.told())
    play.upstream(error("57014"))
    answer(play, Released("h1"))
    assert play.uses == []
    assert play.drops == ["upstream"]


def test_a_binding_that_fails_is_finished() -> None:
    play = held(codec.parse("", "insert"), bind(""), codec.SYNC)
    answer(play, Released("h1"))
    play.upstream(PARSED, error("22P02"), ready())
    assert play.outcomes() == [(play.holds[0].facts.statement, "cut")]


def test_execute_of_a_prepared_statement_shows_what_it_runs() -> None:
    def rule(sql: str) -> Ruling:
        match sql.split():
            case ["prepare", name, *_]:
                return permitted(sql, controls=[(Control.PREPARE, name, "insert body")])
            case ["execute", name]:
                return permitted(sql, controls=[(Control.EXECUTE, name, "")])
        return ask(sql)

    play = Play(rule).client(codec.query("prepare p as insert body")).upstream(complete("PREPARE"), ready())
    assert play.holds == []
    play.client(codec.query("execute p"))
    assert play.holds[0].facts.asked.text == "execute p\n\n-- which runs:\ninsert body"
    assert play.holds[0].facts.effects == ("read", "write")


def test_a_role_that_does_not_wait_refuses_at_once_and_says_what_to_do() -> None:
    play = Play(ask).client(Q)
    told = answer(play, Pending("h1")).to_client()
    assert b"this needs a review by 1 of dbas" in told
    assert b"Bob can approve it now, on its card; then this very statement runs once" in told
    (entry,) = play.records[0].entries
    assert (entry.type, entry.data["hold"]) == ("statement.denied", "h1")


def test_parameters_too_long_to_be_seen_are_not_asked_about() -> None:
    value = b"x" * 70_000
    body = b"\0\0" + b"\0\0" + b"\0\1" + len(value).to_bytes(4, "big") + value + b"\0\0"
    play = Play(ask).client(codec.parse("", "insert"), codec.message(b"B", body), codec.SYNC)
    assert play.holds == []
    play.upstream(PARSED, error("34000"), ready())
    assert b"too long to be shown" in play.to_client()


def small(sql: str) -> Ruling:
    """Whatever runs depends on what the planner expects."""
    return permitted(sql, effect=Effect.WRITE, estimating=True)


def test_what_depends_on_the_planner_is_ruled_on_again_with_its_answer_before_it_is_recorded() -> None:
    play = Play(small).client(Q)
    (asked,) = play.weighed
    assert (asked.ruling.sql, asked.question.sql) == ("insert", "insert")
    assert play.to_upstream() == Q
    play = Play(small, weigh=lambda ruling: denied("too many")).client(Q)
    assert play.to_upstream() == b""
    assert b"too many" in play.to_client()
    assert [entry.type for record in play.records for entry in record.entries] == ["statement.denied"]


def test_what_the_planner_expects_too_many_rows_of_is_held_and_asked_once() -> None:
    play = Play(small, weigh=lambda ruling: ask(ruling.sql)).client(Q)
    assert play.machine.state is State.HELD
    answer(play, Released("h1"))
    assert len(play.weighed) == 1
    assert play.to_upstream() == Q


def test_a_bound_statement_is_weighed_at_bind_and_not_again_at_execute() -> None:
    play = Play(small).client(codec.parse("", "insert"), describe("S", ""))
    assert play.weighed == []
    play.upstream(PARSED, codec.message(b"t", b"\0\0"), NO_DATA)
    play.client(RUN)
    assert len(play.weighed) == 1
    assert play.to_upstream().endswith(RUN)
    play = Play(small, weigh=lambda ruling: denied("too many")).client(codec.parse("", "insert"), RUN)
    assert play.to_upstream().endswith(POISON + codec.SYNC)


def test_what_the_planner_is_not_asked_about_is_ruled_on_without_its_answer() -> None:
    play = Play(small).client(codec.query("insert; insert"))
    (asked,) = play.weighed
    assert (asked.question.sql, asked.question.why) == ("", "it is more than one statement")
