"""Prepared statements and portals: what a name stands for, as the upstream has said, also after a savepoint."""

import pytest

from broker.protocols.postgres import codec, registry
from broker.protocols.postgres.events import Synced
from broker.protocols.postgres.ruling import Permitted, Ruling
from broker.protocols.postgres.states import State
from broker.sessions.model import Durability
from broker.sql.model import Altered, Control
from policies.engine.decisions import Effect, Limits
from tests.playbooks.postgres_play import (
    BOUND,
    CLOSED,
    NO_DATA,
    PARSED,
    POISON,
    ROW,
    RUN,
    SUSPENDED,
    Play,
    Q,
    bind,
    but_drop,
    complete,
    denied,
    describe,
    error,
    permitted,
    ready,
)


def test_bind_and_execute_are_decided_again() -> None:
    answers = iter([permitted("select 1"), permitted("select 1"), denied("not any more")])
    play = Play(lambda sql: next(answers)).client(codec.parse("s", "select 1"), bind("s"), codec.execute(""))
    assert play.to_upstream().endswith(POISON)
    assert [command.sql for command in play.inspected] == ["select 1"] * 3


def test_users_types_that_a_parse_declares_are_ruled_on_with_every_use_of_its_statement() -> None:
    play = Play().client(codec.parse("s", "select $1", [20001, 25, 20000, 20000]), bind("s"), codec.execute(""))
    play.client(codec.SYNC).upstream(PARSED, BOUND, complete("SELECT 0"), ready())
    play.client(codec.query("execute s"))
    assert [one.types for one in play.inspected if one.sql == "select $1"] == [(20000, 20001)] * 3


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


def test_a_refused_query_drops_the_statement_without_a_name_as_any_query_does() -> None:
    prepared = codec.parse("", "select 1"), codec.SYNC
    play = Play(but_drop).client(*prepared).upstream(PARSED, ready()).client(codec.query("drop table t"))
    play.to_client()
    assert b"26000" in play.client(bind("")).to_client()
    play = Play(but_drop).client(*prepared).upstream(PARSED, ready("T")).client(codec.query("drop table t"))
    play.upstream(error("34000"), ready("E"))
    play.client(bind("")).upstream(error("34000"))
    assert b"unnamed prepared statement does not exist" in play.to_client()


def test_what_drops_every_statement_leaves_the_one_without_a_name() -> None:
    play = Play(lambda sql: permitted(sql, controls=[(Control.DEALLOCATE, "", "")]))
    play.client(codec.parse("s", "deallocate all"), codec.SYNC).upstream(PARSED, ready())
    play.client(codec.parse("", "deallocate all"), RUN)
    play.upstream(PARSED, BOUND, complete("DEALLOCATE ALL"), ready())
    play.to_client()
    assert play.client(bind(""), codec.SYNC).to_client() == b""
    play.upstream(BOUND, ready()).to_client()
    assert b"26000" in play.client(bind("s")).to_client()


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


def test_discard_all_forgets_every_statement_and_every_portal() -> None:
    def rule(sql: str) -> Ruling:
        return permitted(sql, controls=[(Control.DISCARD_ALL, "", "")]) if sql == "discard all" else permitted(sql)

    play = Play(rule).client(codec.parse("s", "select 1"), codec.SYNC).upstream(PARSED, ready())
    play.client(codec.query("discard all")).upstream(error("25001"), ready())
    play.client(bind("s"), codec.SYNC).upstream(BOUND, ready())
    assert b"26000" not in play.to_client()
    play.client(codec.query("discard all")).upstream(complete("DISCARD ALL"), ready())
    play.to_client()
    assert b"26000" in play.client(bind("s"), codec.SYNC).to_client()


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


@pytest.mark.parametrize(
    ("answers", "outcomes"),
    [
        ([complete("INSERT 0 1"), error("55000")], [("q1", "ok")]),
        ([complete("SELECT 1"), complete("SELECT 0"), complete("SELECT 0")], [("q1", "ok")]),
        ([error("22012")], [("q1", "failed")]),
        ([SUSPENDED, complete("SELECT 1"), error("55000")], [("q1", "ok")]),
    ],
)
def test_a_statement_ends_once_however_often_its_portal_is_executed_before_that_is_known(
    answers: list[bytes], outcomes: list[tuple[str, str]]
) -> None:
    play = Play().client(codec.parse("", "select 1"), bind(""), *[codec.execute("")] * 3, codec.SYNC)
    play.upstream(PARSED, BOUND, *answers, ready())
    assert play.outcomes() == outcomes
    assert len(play.records) == 1


def test_a_statement_is_cut_once_however_often_its_portal_was_executed() -> None:
    play = Play().client(codec.parse("", "select 1"), bind(""), *[codec.execute("")] * 3)
    assert play.client(codec.TERMINATE).outcomes() == [("q1", "cut")]


def test_a_portal_whose_execution_was_skipped_is_recorded_anew_when_it_is_executed_again() -> None:
    controls = {"savepoint": Control.SAVEPOINT, "rollback": Control.ROLLBACK_TO}
    play = Play(lambda sql: permitted(sql, controls=[(controls.get(sql.split()[0], Control.NONE), "a", "")]))
    play.client(codec.query("begin")).upstream(complete("BEGIN"), ready("T"))
    play.client(codec.parse("s", "select 1"), bind("s", "p"), codec.SYNC).upstream(PARSED, BOUND, ready("T"))
    play.client(codec.query("savepoint a")).upstream(complete("SAVEPOINT"), ready("T"))
    play.client(codec.parse("s", "select 1"), codec.execute("p"), codec.SYNC).upstream(error("42P05"), ready("E"))
    assert play.outcomes()[-1] == ("q2", "cut")
    play.client(codec.query("rollback to a")).upstream(complete("ROLLBACK"), ready("T"))
    play.client(codec.execute("p"), codec.SYNC).upstream(complete("SELECT 1"), ready("T"))
    assert play.outcomes()[-2:] == [("q4", "ok"), ("q5", "ok")]
    assert play.records[-1].entries[0].data["statement"] == "q5"


def test_a_portal_that_ended_with_its_transaction_before_its_execution_was_answered_ends_once() -> None:
    play = Play(but_drop).client(codec.parse("s", "select 1"), bind("s", "p"), codec.SYNC)
    play.client(codec.execute("p"), codec.SYNC)
    play.upstream(PARSED, BOUND, ready(), error("34000"), ready())
    assert play.outcomes() == [("q1", "cut")]


def controlled(sql: str) -> Ruling:
    """Rule on `verb name`."""
    verb, _, name = sql.partition(" ")
    body = "select 1" if verb == "prepare" else ""
    known = {one.value for one in Control}
    return permitted(sql, controls=[(Control(verb), name, body)] if verb in known else None)


def run(play: Play, sql: str, tag: str = "OK", status: str = "T") -> list[str]:
    """Run a text to its end, and return what was ruled on."""
    play.inspected.clear()
    play.client(codec.query(sql)).upstream(complete(tag), ready(status))
    return [command.sql for command in play.inspected]


CURSOR = ["fetch c", "declare c"]


@pytest.mark.parametrize(
    ("steps", "ruled"),
    [
        ("declare c|savepoint a|rollback_to a", CURSOR),
        ("savepoint a|declare c|rollback_to a", ["fetch c"]),
        ("savepoint a|savepoint b|declare c|rollback_to a", ["fetch c"]),
        ("savepoint a|savepoint b|declare c|release b|rollback_to a", ["fetch c"]),
        ("savepoint a|savepoint b|declare c|release a", CURSOR),
        ("savepoint a|declare c|savepoint a|rollback_to a", CURSOR),
        ("savepoint a|declare c|savepoint a|rollback_to a|release a|rollback_to a", ["fetch c"]),
        ("savepoint a|declare c|rollback_to a|declare c", CURSOR),
        ("savepoint a|declare_held c|rollback_to a", ["fetch c"]),
    ],
)
def test_rolling_back_to_a_savepoint_forgets_the_cursors_made_since(steps: str, ruled: list[str]) -> None:
    play = Play(controlled)
    run(play, "begin")
    for step in steps.split("|"):
        run(play, step)
    found = run(play, "fetch c")
    assert [text.replace("declare_held", "declare") for text in found] == ruled


def test_rolling_back_to_a_savepoint_notes_the_end_of_the_portals_made_since() -> None:
    play = Play(controlled)
    run(play, "begin")
    run(play, "savepoint a")
    play.client(codec.parse("s", "select 1"), bind("s", "p"), codec.execute("p", 1), codec.SYNC)
    play.upstream(PARSED, BOUND, ROW, SUSPENDED, ready("T"))
    before = len(play.outcomes())
    run(play, "rollback_to a")
    assert [outcome for _, outcome in play.outcomes()[before:]] == ["ok", "ok"]
    play.to_client()
    play.client(codec.execute("p"))
    assert play.to_upstream().endswith(POISON)


def test_prepare_in_sql_is_bounded_like_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MAX_ENTRIES", 200)
    play = Play(controlled)
    for at in range(200):
        run(play, f"prepare p{at}", status="I")
    play.to_client()
    play.client(codec.query("prepare more"))
    told = play.to_client()
    assert b"53400" in told
    assert b"too many prepared statements in this session" in told
    assert b"deallocate some of them" in told
    run(play, "deallocate p1", status="I")
    assert run(play, "prepare more", status="I") == ["prepare more", "select 1"]


@pytest.mark.parametrize(
    "body",
    [
        permitted("commit", controls=[(Control.COMMIT, "", "")]),
        permitted("begin", controls=[(Control.BEGIN, "", "")]),
        permitted("listen", controls=[(Control.LISTEN, "", "")]),
        permitted("discard", controls=[(Control.DISCARD_ALL, "", "")]),
        permitted("copy", controls=[(Control.COPY_OUT, "", "")], copying="out", limits=Limits(rows=1)),
        permitted("alter", effect=Effect.DDL, alters=Altered.SCHEMA),
        permitted("set", effect=Effect.SESSION, lasting=1),
    ],
    ids=lambda one: one.sql,
)
def test_what_is_followed_where_it_is_sent_is_not_executed_by_name(body: Permitted) -> None:
    """Else a COPY would have no limit, and a change of the schema or a transaction's end nobody's notice."""

    def rule(sql: str) -> Ruling:
        return permitted(sql, controls=[(Control.EXECUTE, "s", "")]) if sql.startswith("execute") else body

    play = Play(rule, longest=1).client(codec.parse("s", body.sql) + codec.SYNC).upstream(PARSED, ready())
    play.to_upstream()
    play.client(codec.query("execute s"))
    assert play.to_upstream() == b""
    assert play.records[-1].entries[0].type == "statement.denied"
