"""What the session machine says around a search path that its client sets: nothing is inspected before it is sure."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from broker.protocols.postgres import codec
from broker.protocols.postgres.ruling import Permitted, Ruling
from broker.sql.model import Control, Moves
from policies.engine.decisions import Effect
from tests.playbooks.postgres_play import (
    ASKING,
    BOUND,
    CLOSED,
    PARSED,
    Play,
    bind,
    complete,
    describe,
    error,
    permitted,
    ready,
)

SET, SELECT = codec.query("set"), codec.query("select")
CLOSES = CLOSED + CLOSED
_CONTROLS = {
    "begin": Control.BEGIN,
    "commit": Control.COMMIT,
    "rollback": Control.ROLLBACK,
    "back": Control.ROLLBACK_TO,
    "declare": Control.DECLARE,
    "hold": Control.DECLARE_HELD,
    "fetch": Control.FETCH,
}


def moving(path: Callable[[], tuple[str, ...] | None] = lambda: None) -> Callable[[str], Ruling]:
    """Rules on texts under the path that was said last."""

    def rule(sql: str) -> Permitted:
        words = [part.strip() for part in sql.split(";")]
        controls = [
            (_CONTROLS.get(word, Control.NONE), "c" if word in ("declare", "fetch", "hold") else "", "")
            for word in words
        ]
        moves = {"set": Moves.ELSEWHERE, "reset": Moves.BACK, "do": Moves.UNKNOWN}.get(words[-1], Moves.NOT)
        changes = {"insert": Effect.WRITE, "asked": Effect.WRITE, "create": Effect.DDL}
        effect = next((changes[word] for word in words if word in changes), Effect.READ)
        asking = ASKING if words[0] == "asked" else None
        found = permitted(sql, effect=effect, controls=controls, moves=moves, asking=asking)
        return replace(found, inspection=replace(found.inspection, path=path()))

    return rule


def moved(home: tuple[str, ...] | None = None) -> Play:
    play = Play(home=home)
    play._rule = moving(lambda: play.path)
    return play


def shown(path: str) -> bytes:
    """How the upstream answers where it is asked for its path."""
    row = codec.message(b"D", b"\0\1" + len(path).to_bytes(4, "big") + path.encode())
    return CLOSES + PARSED + BOUND + row + complete("SHOW") + CLOSES


def gone_elsewhere(play: Play, *, status: str = "I") -> Play:
    """A session that has set a path, which the upstream has said."""
    play.client(SET).upstream(complete("SET"), ready(status))
    play.client(SELECT).upstream(shown('"app", pg_temp'), ready(status))
    play.upstream(complete("SELECT 1"), ready(status))
    play.to_upstream()
    play.to_client()
    assert play.path == ("app",)
    return play


def begun(play: Play) -> Play:
    return play.client(codec.query("begin")).upstream(complete("BEGIN"), ready("T"))


def test_what_follows_is_inspected_under_what_the_server_says_and_not_before() -> None:
    play = moved().client(SET, SELECT)
    assert [one.sql for one in play.inspected] == ["set"]
    assert play.to_upstream() == SET
    play.upstream(complete("SET"), ready())
    assert b"show search_path\0" in play.to_upstream()
    assert [one.sql for one in play.inspected] == ["set"]
    assert play.kinds() == "CZ"
    play.upstream(shown('app, "b ""c", pg_temp'), ready())
    assert play.path == ("app", 'b "c')
    assert [one.sql for one in play.inspected] == ["set", "select"]
    assert play.to_upstream() == SELECT
    assert play.to_client() == b""  # The client hears nothing of it.
    assert play.upstream(complete("SELECT 1"), ready()).client(SELECT).to_upstream() == SELECT  # It is sure by now.
    assert play.records[-1].entries[0].data["search_path"] == ["app", 'b "c']


def test_a_pipeline_that_sets_it_waits_in_its_middle() -> None:
    run = [codec.parse("", "set"), bind(""), codec.execute("")]
    play = moved().client(*run, codec.parse("", "select"), bind(""), codec.execute(""), codec.SYNC)
    sent = play.to_upstream()
    assert b"show search_path\0" in sent
    assert sent.endswith(codec.FLUSH)
    assert [one.sql for one in play.inspected] == ["set"] * 3
    play.upstream(PARSED, BOUND, complete("SET"), shown("app, pg_temp"))
    assert play.path == ("app",)
    assert play.to_upstream().endswith(codec.execute("") + codec.SYNC)
    play.upstream(PARSED, BOUND, complete("SELECT 1"), error(), ready())
    # What nobody began has ended, and perhaps been undone.
    assert b"show search_path\0" in play.client(SELECT).to_upstream()
    play.upstream(shown('"public", pg_temp'), ready())
    assert play.path is None


def test_a_session_that_begins_elsewhere_is_asked_once_it_could_be_back_where_it_began() -> None:
    play = moved(home=("app",)).client(SELECT)
    assert play.to_upstream() == SELECT
    assert play.records[-1].entries[0].data["search_path"] == ["app"]
    play.upstream(complete("SELECT 1"), ready()).client(codec.query("reset")).upstream(complete("RESET"), ready())
    play.to_upstream()
    assert play.client(SELECT).to_upstream() == SELECT  # It has been there all the time.
    play.upstream(complete("SELECT 1"), ready()).client(SET).upstream(complete("SET"), ready()).client(SELECT)
    play.upstream(shown('"public", pg_temp'), ready()).upstream(complete("SELECT 1"), ready())
    assert play.path is None
    play.client(codec.query("reset")).upstream(complete("RESET"), ready())
    play.to_upstream()
    assert b"show search_path\0" in play.client(SELECT).to_upstream()
    play.upstream(shown('"app", pg_temp'), ready())
    assert play.path == ("app",)


def test_a_server_that_reports_a_path_is_asked_and_the_client_hears_what_could_be_set() -> None:
    play = moved().client(SELECT)
    told = codec.parameter_status("search_path", "app, pg_temp")
    play.upstream(complete("SELECT 1"), told, ready())
    assert told in play.to_client()
    play.to_upstream()
    assert b"show search_path\0" in play.client(SELECT).to_upstream()
    play.upstream(shown("app, pg_temp"), ready()).upstream(complete("SELECT 1"), ready())
    assert play.path == ("app",)
    odd = codec.parameter_status("search_path", "123-45-6789")
    play.to_client()
    play.client(SELECT).upstream(complete("SELECT 1"), odd, ready())
    assert b"123-45" not in play.to_client()


@pytest.mark.parametrize("ending", ["rollback", "commit", "back"])
def test_what_ends_a_transaction_or_goes_back_in_it_has_it_asked_again(ending: str) -> None:
    play = gone_elsewhere(begun(moved()), status="T")
    assert play.client(SELECT).to_upstream() == SELECT
    play.upstream(complete("SELECT 1"), ready("T"))
    status = "T" if ending == "back" else "I"
    play.client(codec.query(ending), SELECT).upstream(complete(ending.upper()), ready(status))
    assert play.inspected[-1].sql == ending
    play.upstream(shown('"public", pg_temp'), ready(status))
    assert play.path is None
    assert play.inspected[-1].sql == "select"


def test_nothing_is_asked_of_a_failed_transaction_before_it_is_over() -> None:
    play = begun(moved()).client(SET).upstream(complete("SET"), ready("T"))
    play.client(SELECT).upstream(shown("app, pg_temp"), ready("T")).upstream(error(), ready("E"))
    play.to_upstream()
    assert play.client(codec.query("rollback")).to_upstream() == codec.query("rollback")
    play.upstream(complete("ROLLBACK"), ready())
    assert b"show search_path\0" in play.client(SELECT).to_upstream()


def test_it_is_asked_in_the_segment_that_ends_a_failed_transaction() -> None:
    """The status says that it has failed until the segment is over."""
    play = begun(moved()).client(SET).upstream(error(), ready("E"))
    play.to_upstream()
    run = [bind(""), codec.execute("")]
    play.client(codec.parse("", "rollback"), *run, codec.parse("", "set"), *run, codec.parse("", "select"), *run)
    assert b"show search_path\0" in play.to_upstream()
    play.upstream(PARSED, BOUND, complete("ROLLBACK"), shown('"public", pg_temp'))
    assert b"show search_path\0" in play.to_upstream()
    assert play.inspected[-1].sql == "set"
    play.upstream(PARSED, BOUND, complete("SET"), shown("app, pg_temp"))
    assert (play.path, play.inspected[-1].sql) == (("app",), "select")


@pytest.mark.parametrize("sql", ["insert; set", "hold; set", "fetch; set", "create; set", "begin; insert; set"])
def test_it_is_not_set_behind_anything_else_in_one_text(sql: str) -> None:
    play = moved().client(codec.query(sql))
    assert b"search path is sent by itself" in play.to_client()
    assert play.to_upstream() == b""


@pytest.mark.parametrize("sql", ["rollback; select", "commit; select", "back; select", "reset; select"])
def test_a_text_that_could_change_it_in_its_middle_never_reaches_the_upstream(sql: str) -> None:
    play = gone_elsewhere(begun(moved()), status="T")
    first = sql.partition(";")[0]
    if first == "reset":
        rule = play._rule
        found = rule("reset")
        assert isinstance(found, Permitted)
        second = rule("select")
        assert isinstance(second, Permitted)
        both = replace(found.inspection, statements=found.inspection.statements + second.inspection.statements)
        play._rule = lambda _: replace(found, inspection=both, rules=found.rules * 2)
    assert b"search path is sent by itself" in play.client(codec.query(sql)).upstream(error(), ready("E")).to_client()
    assert codec.query(sql) not in play.to_upstream()


def test_it_is_not_set_behind_a_change_whose_deferred_triggers_are_still_to_run() -> None:
    play = begun(moved()).client(codec.query("insert"), SET)
    assert SET not in play.to_upstream()
    play.upstream(complete("INSERT 0 1"), ready("T"), error(), ready("E"))
    assert b"in a transaction that has changed data" in play.to_client()
    play.client(codec.query("rollback")).upstream(complete("ROLLBACK"), ready())
    play.to_upstream()
    assert play.client(SET).to_upstream() == SET


def test_it_is_set_behind_a_change_of_the_schema_and_not_behind_a_cursor_that_is_still_to_be_filled() -> None:
    play = begun(moved()).client(codec.query("create")).upstream(complete("CREATE SCHEMA"), ready("T"))
    play.to_upstream()
    assert play.client(SET).to_upstream() == SET
    for before in ("hold", "declare"):
        play = begun(moved()).client(codec.query(before), SET)
        play.upstream(complete("DECLARE CURSOR"), ready("T"))
        assert (SET in play.to_upstream()) == (before == "declare")


def test_a_look_that_is_cancelled_is_taken_again() -> None:
    play = moved().client(SET).upstream(complete("SET"), ready()).client(SELECT)
    play.to_upstream()
    play.upstream(error("57014"), ready())
    assert b"not one that may be set here" in play.to_client()
    assert b"show search_path\0" in play.client(SELECT).to_upstream()
    play.upstream(shown("app, pg_temp"), ready())
    assert (play.path, play.to_upstream()) == (("app",), SELECT)


def test_a_look_that_is_cancelled_in_the_middle_of_a_segment_fails_all_of_it() -> None:
    run = [bind(""), codec.execute("")]
    play = moved().client(codec.parse("", "set"), *run, codec.parse("", "select"), *run, codec.SYNC)
    play.upstream(PARSED, BOUND, complete("SET"), error("57014"))
    play.upstream(ready())
    assert play.kinds() == "12CEZ"
    assert b"show search_path\0" in play.client(SELECT).to_upstream()


def test_what_is_put_off_in_a_failed_transaction_is_not_waited_for() -> None:
    play = begun(moved()).client(SET).upstream(error(), ready("E"))
    play.client(codec.parse("", "asked"), bind(""), codec.execute(""), codec.SYNC).upstream(error("25P02"), ready("E"))
    assert play.to_upstream().endswith(codec.SYNC)
    assert play.holds == []
    assert play.client(codec.query("rollback")).to_upstream() == codec.query("rollback")


def test_going_back_from_nowhere_asks_nothing() -> None:
    play = moved().client(codec.query("reset")).upstream(complete("RESET"), ready())
    play.to_upstream()
    assert play.client(SELECT).to_upstream() == SELECT


@pytest.mark.parametrize("path", ["pg_temp, app", "app", "evil, pg_catalog, pg_temp", 'broken"', ""])
def test_under_a_path_that_nobody_may_set_only_the_way_back_is_open(path: str) -> None:
    play = moved().client(codec.query("do")).upstream(complete("DO"), ready())
    play.client(SELECT).upstream(shown(path), ready())
    assert b"not one that may be set here" in play.to_client()
    assert SELECT not in play.to_upstream()
    assert play.client(codec.query("reset")).to_upstream() == codec.query("reset")
    play.upstream(complete("RESET"), ready()).client(SELECT).upstream(shown('"public", pg_temp'), ready())
    assert play.to_upstream().endswith(SELECT)


def test_rows_of_another_path_are_neither_executed_nor_fetched() -> None:
    play = begun(moved()).client(codec.parse("s", "select"), bind("s", "p"), codec.SYNC)
    play.upstream(PARSED, BOUND, ready("T"))
    play.client(codec.query("declare")).upstream(complete("DECLARE CURSOR"), ready("T"))
    gone_elsewhere(play, status="T")
    for messages in (codec.execute("p") + codec.SYNC, codec.query("fetch")):
        play.client(messages).upstream(error(), ready("T"))
        assert b"search path has changed since" in play.to_client()
        assert messages not in play.to_upstream()


def test_a_prepared_statement_is_inspected_anew_before_it_is_described() -> None:
    play = moved().client(codec.parse("s", "select"), codec.SYNC).upstream(PARSED, ready())
    gone_elsewhere(play)
    before = len(play.inspected)
    play.client(describe("S", "s"), codec.SYNC)
    assert len(play.inspected) == before + 1


def test_what_is_known_of_a_text_is_not_asked_while_it_is_not_sure_what_it_means() -> None:
    asked: list[str] = []

    def known(sql: str) -> None:
        asked.append(sql)

    play = Play(moving(), known=known).client(SET).upstream(complete("SET"), ready())
    asked.clear()
    assert play.machine.board(SELECT, 1.0) is None
    assert asked == []
    play.client(SELECT).upstream(shown('"public", pg_temp'), ready()).upstream(complete("SELECT 1"), ready())
    assert play.machine.board(SELECT, 2.0) is None
    assert asked == ["select"]
