"""What comes back: results, errors and copy data, watched and passed on, or not."""

from dataclasses import replace

import pytest

from broker.protocols.postgres import codec
from broker.protocols.postgres.events import (
    Close,
    PauseUpstream,
    Recorded,
    ResumeUpstream,
    Synced,
)
from broker.protocols.postgres.ruling import Permitted
from broker.sessions.model import CloseReason
from broker.sql.model import Control
from policies.engine.decisions import Effect
from tests.playbooks.postgres_play import (
    BOUND,
    PARSED,
    ROW,
    Play,
    Q,
    bind,
    columns,
    complete,
    denied,
    describe,
    error,
    permitted,
    ready,
)


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


def test_what_others_notify_passes_once_a_listen_was_let_pass_and_done() -> None:
    told = codec.message(b"A", bytes(4) + b"ch\0hello\0")

    def rule(sql: str) -> Permitted:
        return permitted(sql, controls=[(Control.LISTEN, "", "")] if sql.startswith("listen") else None)

    play = Play(rule).client(codec.query("listen ch")).upstream(told, error("42501"), ready(), told)
    assert told not in play.to_client()
    play.client(codec.query("listen ch")).upstream(complete("LISTEN"), ready(), told)
    assert play.to_client() == complete("LISTEN") + ready() + told
    play.clear = False
    assert play.upstream(told).to_client() == b""


def test_where_anything_is_masked_by_now_of_notices_only_warnings_pass() -> None:
    said = [codec.fields(b"N", {"S": one, "V": one, "C": "00000", "M": "123-45"}) for one in ("INFO", "NOTICE", "LOG")]
    warned = codec.fields(b"N", {"S": "WARNUNG", "V": "WARNING", "C": "25P01", "M": "there is no transaction"})
    play = Play().client(Q).upstream(*said, warned, complete("SELECT 1"), ready())
    assert play.to_client() == b"".join(said) + warned + complete("SELECT 1") + ready()
    play.clear = False
    play.client(Q).upstream(*said, warned, complete("SELECT 1"), ready())
    assert play.to_client() == warned + complete("SELECT 1") + ready()


@pytest.mark.parametrize(
    ("context", "said"),
    [
        ("PL/pgSQL function tell() line 1 at RAISE", False),
        ("PL/pgSQL-Funktion tell() Zeile 1 bei RAISE", False),
        ("PL/pgSQL function tell() line 1 at RAISE\nCOPY notes, line 1", False),
        ('COPY notes, line 1, column id: "123-45"', True),
        ("unnamed portal parameter $1 = '123-45'", True),
        ("", True),
    ],
)
def test_what_a_trigger_says_when_it_fails_is_withheld_where_anything_is_masked(context: str, said: bool) -> None:
    for clear in (True, False):
        play = Play()
        play.clear = clear
        play.client(Q).upstream(error("P0001", "ssn 123-45", **({"W": context} if context else {})), ready())
        assert (b"123-45" in play.to_client()) == (said or clear)


@pytest.mark.parametrize(
    ("sql", "table", "state", "said"),
    [
        ("insert", "notes", "23505", True),
        ("create index", "notes", "23505", True),
        ("create index", "people", "23505", False),
        ("insert", "parted_1", "23505", True),
        ("insert", "people", "23505", False),
        ("insert", "people", "23502", False),
        ("insert", "people", "23503", True),
        ("select 1", "notes", "23505", False),
        ("commit", "notes", "23505", False),
    ],
)
def test_what_is_said_of_a_table_that_nobody_named_is_withheld_where_anything_is_masked(
    sql: str, table: str, state: str, said: bool
) -> None:
    def ruled(text: str) -> Permitted:
        changes = {"insert": Effect.WRITE, "create index": Effect.DDL}
        ruling = permitted(text, effect=changes.get(text, Effect.READ))
        (statement,) = ruling.inspection.statements
        behind = {"writes": frozenset({"public.notes"}), "through": frozenset({"public.parted_1"})}
        facts = replace(statement.facts, **(behind if text in changes else {}))
        return replace(ruling, inspection=replace(ruling.inspection, statements=(replace(statement, facts=facts),)))

    for clear in (True, False):
        play = Play(ruled)
        play.clear = clear
        about = {"D": "Key (ssn)=(123-45)", "s": "public", "t": table}
        play.client(codec.query(sql)).upstream(error(state, "duplicate", **about), ready())
        assert (b"123-45" in play.to_client()) == (said or clear)


def into_notes(text: str) -> Permitted:
    """Inserts change one table."""
    ruling = permitted(text, effect=Effect.WRITE if text == "insert" else Effect.READ)
    (statement,) = ruling.inspection.statements
    facts = replace(statement.facts, writes=frozenset({"public.notes"} if text == "insert" else ()))
    return replace(ruling, inspection=replace(ruling.inspection, statements=(replace(statement, facts=facts),)))


def test_what_waits_for_its_record_has_named_its_table_whatever_ends_meanwhile() -> None:
    play = Play(into_notes, slow=True)
    play.clear = False
    play.client(Q).hear(Recorded(play.machine._token, play.at)).client(codec.query("insert"))
    play.upstream(complete("SELECT 1"), ready()).hear(Recorded(play.machine._token, play.at)).to_client()
    about = {"D": "Key (id)=(1)", "s": "public", "t": "notes"}
    assert b"Key (id)=(1)" in play.upstream(error("23505", "duplicate", **about), ready()).to_client()
    assert not play.machine._session.named


def test_what_is_said_at_a_transactions_end_of_a_table_that_it_changed_is_passed() -> None:
    about = {"D": "Key (id)=(123-45)", "s": "public", "t": "notes"}
    play = Play(into_notes)
    play.clear = False
    play.client(codec.query("insert")).upstream(complete("INSERT 0 1"), ready("T"))
    play.client(codec.query("end")).upstream(error("23505", "duplicate", **about), ready())
    assert b"123-45" in play.to_client()
    play.client(codec.query("end")).upstream(error("23505", "duplicate", **about), ready())
    assert b"123-45" not in play.to_client()


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


def revealing(sql: str) -> Permitted:
    ruling = permitted(sql, masked=True, tripwire=[(16400, 0), (16400, 3)])
    return replace(ruling, inspection=replace(ruling.inspection, revealed=((1, 16400, 3),)))


@pytest.mark.parametrize(
    ("shown", "trips"),
    [
        ([("id", 16400, 1), ("ssn", 16400, 3)], False),
        ([("ssn", 16400, 3), ("id", 16400, 1)], True),
        ([("id", 16400, 1), ("ssn", 16400, 3), ("again", 16400, 3)], True),
        ([("id", 16400, 1), ("row", 16400, 0)], True),
    ],
)
def test_revealed_field_may_come_at_its_own_place_and_nowhere_else(
    shown: list[tuple[str, int, int]], trips: bool
) -> None:
    play = Play(revealing).client(Q)
    play.upstream(columns(*shown))
    assert any(isinstance(command, Close) for command in play.said) is trips
    if not trips:
        play.upstream(complete("SELECT 0"), ready())
        plain = Play(lambda sql: permitted(sql, tripwire=[(16400, 3)])).client(Q).upstream(columns(*shown))
        assert any(isinstance(command, Close) for command in plain.said)


def copying(sql: str) -> Permitted:
    control = Control.COPY_IN if sql.startswith("copy") else Control.NONE
    return permitted(sql, effect=Effect.WRITE, controls=[(control, "", "")])


def test_copy_data_that_comes_before_it_is_asked_for_waits_for_the_upstream() -> None:
    data, done = codec.message(b"d", b"1"), codec.message(b"c")
    play = Play(copying).client(codec.query("copy t from stdin"), data, data, done, Q)
    assert play.to_upstream() == codec.query("copy t from stdin")
    play.upstream(codec.message(b"G", bytes(3)))
    assert play.to_upstream() == data + data + done + Q
    play.upstream(complete("COPY 2"), ready(), complete("SELECT 1"), ready())
    assert play.outcomes() == [("q1", "ok"), ("q2", "ok")]


def test_copy_data_of_a_copy_that_never_begins_is_dropped() -> None:
    data, done = codec.message(b"d", b"1"), codec.message(b"c")
    play = Play(copying).client(codec.query("copy t from stdin"), data, done, Q)
    play.to_upstream()
    play.upstream(error(), ready())
    assert play.to_upstream() == Q
    assert play.outcomes() == [("q1", "failed")]


def test_copy_data_behind_a_denied_copy_is_dropped() -> None:
    data, done = codec.message(b"d", b"1"), codec.message(b"c")
    play = Play(lambda sql: replace(denied(), verb="COPY") if sql.startswith("copy") else permitted(sql))
    play.client(codec.query("copy t from stdin"), data, done, Q)
    assert play.to_upstream() == Q
    assert play.kinds() == "EZ"


def test_an_error_that_comes_while_a_later_execution_is_recorded_skips_that_one() -> None:
    play = Play(slow=True).client(codec.parse("", "select 1"), bind(""), codec.execute(""))
    play.hear(Recorded(play.records[0].token, play.at))
    play.client(bind(""), codec.execute(""), codec.SYNC)
    play.upstream(PARSED, BOUND, error())
    assert len(play.records) == 2
    play.hear(Recorded(play.records[1].token, play.at)).upstream(ready())
    assert play.kinds() == "12EZ"
    assert dict(play.outcomes()) == {"q1": "failed", "q2": "cut"}


def test_a_client_is_told_once_of_each_masked_field_that_it_compares_before_the_answer() -> None:
    def rule(sql: str) -> Permitted:
        return permitted(sql, compared=[f"public.people.{name}" for name in sql.split()[1:]])

    play = Play(rule).client(codec.query("select ssn"), codec.query("select ssn email"))
    play.upstream(columns(("x", 0, 0)), ROW, complete("SELECT 1"), ready(), columns(("x", 0, 0)))
    told = play.to_client()
    first, second = (told.index(f"not what is stored: public.people.{name}\0".encode()) for name in ("ssn", "email"))
    assert told.startswith(b"N")
    assert told.count(b"not what is stored") == 2
    assert told.index(ROW) in range(first, second)
    play.upstream(complete("SELECT 0"), ready())
    play.to_client()
    play.client(codec.parse("", "select email"), bind(""), codec.execute(""), codec.SYNC)
    play.upstream(PARSED, BOUND, ROW, complete("SELECT 1"), ready())
    assert play.kinds() == "12DCZ"
    play.client(codec.parse("", "select phone"), bind(""), codec.execute(""), codec.SYNC)
    play.upstream(PARSED, BOUND, ROW, complete("SELECT 1"), ready())
    assert play.kinds() == "12NDCZ"
