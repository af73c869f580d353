"""What the session machine does with a statement whose shape was approved: recorded under that rule, and not held."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from broker.protocols.postgres import codec
from broker.protocols.postgres.ruling import Permitted, Ruling
from broker.protocols.postgres.states import State
from broker.sessions.model import Durability
from broker.sessions.shapes import ShapeRule
from broker.sql.model import Altered, Control
from policies.engine.decisions import Bound, Effect
from tests.playbooks.postgres_play import ASKING, BOUND, PARSED, Play, complete, denied, permitted, ready

RULE = ShapeRule("shape-0001")
SHAPED = replace(ASKING, shape=True)
ONE, TWO = "select a from t where id = 1", "select a from t where id = 2"
Q = codec.query(ONE)


def ask(sql: str) -> Permitted:
    return permitted(sql, asking=SHAPED)


def test_a_statement_of_an_approved_shape_is_recorded_under_its_rule_and_passes_at_once() -> None:
    play = Play(ask)
    play.shape = RULE
    play.client(Q)
    assert (play.holds, play.uses, play.to_upstream()) == ([], [], Q)
    (record,) = play.records
    assert record.durability is Durability.SYNCED
    assert [(entry.type, entry.data["rules"]) for entry in record.entries] == [
        ("statement.allowed", ["reads", "shape-0001"])
    ]
    assert play.upstream(complete("SELECT 1"), ready()).kinds() == "CZ"
    (match,) = play.matches
    assert (match.sought.rules, match.sought.requirement) == (SHAPED.rules, SHAPED.requirement)
    other = Play(ask).client(codec.query(TWO))
    assert other.matches[0].sought.shape.digest == match.sought.shape.digest


def test_without_a_rule_the_statement_is_held_with_the_shape_that_may_be_approved() -> None:
    play = Play(ask).client(Q)
    assert play.machine.state is State.HELD
    assert play.to_upstream() == b""
    shape = play.holds[0].facts.shape
    assert shape is not None
    assert (shape.text, shape.values) == ("select a from t where id = $1", ("$1: any whole number",))
    assert shape == play.matches[0].sought.shape


def test_other_settings_make_another_shape() -> None:
    digests = set()
    for style in (b"ISO, MDY", b"ISO, DMY"):
        play = Play(ask)
        play.settings[0] = style
        digests.add(play.client(Q).matches[0].sought.shape.digest)
    assert len(digests) == 2


def test_another_schema_makes_another_shape() -> None:
    digests = set()
    for version in ("v1", "v2"):
        ruling = ask(ONE)
        changed = replace(ruling, inspection=replace(ruling.inspection, catalogue=version))
        play = Play(lambda _, changed=changed: changed).client(Q)
        digests.add(play.matches[0].sought.shape.digest)
    assert len(digests) == 2


def test_what_is_temporary_has_no_shape() -> None:
    ruling = ask(ONE)
    unknown = replace(ruling, inspection=replace(ruling.inspection, means=(("public.t", "unknown"),)))
    play = Play(lambda _: unknown).client(Q)
    assert (play.matches, play.holds[0].facts.shape) == ([], None)


def test_an_approval_of_masked_rows_is_none_of_rows_in_clear() -> None:
    digests = set()
    for masked in (True, False):
        play = Play(lambda sql, masked=masked: permitted(sql, asking=SHAPED, masked=masked)).client(Q)
        digests.add(play.matches[0].sought.shape.digest)
    assert len(digests) == 2


def _revealing(sql: str) -> Ruling:
    ruling = ask(sql)
    (statement,) = ruling.inspection.statements
    revealed = replace(statement, facts=replace(statement.facts, reveals=frozenset({"public.t.a"})))
    return replace(ruling, inspection=replace(ruling.inspection, statements=(revealed,)))


@pytest.mark.parametrize(
    ("rule", "sql"),
    [
        (lambda sql: permitted(sql, asking=ASKING), ONE),
        (lambda sql: permitted(sql, asking=SHAPED, compared={"public.t.a"}), ONE),
        (lambda sql: permitted(sql, asking=SHAPED, effect=Effect.WRITE), "delete from t where id = 1"),
        (lambda sql: permitted(sql, asking=SHAPED, controls=[(Control.DECLARE, "c", "")]), ONE),
        (_revealing, ONE),
        (ask, f"{ONE}; {TWO}"),
        (ask, "truncate t"),
    ],
    ids=["not offered", "compares what is masked", "unbounded", "cursor", "reveals", "two statements", "no shape"],
)
def test_what_has_no_shape_to_approve_is_held_whatever_was_approved(rule: Callable[[str], Ruling], sql: str) -> None:
    play = Play(rule)
    play.shape = RULE
    play.client(codec.query(sql))
    assert play.machine.state is State.HELD
    assert (play.matches, play.holds[0].facts.shape) == ([], None)


def test_where_the_transaction_has_changed_the_schema_no_shape_lets_a_statement_pass() -> None:
    """Else what was approved of one table would be of any that is renamed to it."""

    def rule(sql: str) -> Ruling:
        if sql.startswith("alter"):
            return permitted(sql, effect=Effect.DDL, alters=Altered.SCHEMA)
        return permitted(sql, controls=[(Control.BEGIN, "", "")]) if sql == "begin" else ask(sql)

    play = Play(rule)
    play.shape = RULE
    play.client(codec.query("begin")).upstream(complete("BEGIN"), ready("T"))
    play.client(codec.query("alter table other rename to t")).upstream(complete("ALTER TABLE"), ready("T"))
    play.client(Q)
    assert play.machine.state is State.HELD
    assert (play.matches, play.holds[0].facts.shape) == ([], None)


def test_what_is_denied_is_denied_whatever_was_approved() -> None:
    play = Play(lambda _: denied())
    play.shape = RULE
    play.client(Q)
    assert play.to_upstream() == b""
    assert play.matches == []


PARAMETRIC = "select a from t where id = $1"


def bound(value: bytes) -> bytes:
    body = b"\0\0" + bytes(2) + b"\0\1" + len(value).to_bytes(4, "big") + value + bytes(2)
    return codec.message(b"B", body)


def test_a_bound_portal_passes_by_the_shape_and_asks_again_once_that_is_withdrawn() -> None:
    play = Play(ask)
    play.shape = RULE
    play.client(codec.parse("", PARAMETRIC, [23]) + bound(b"1") + codec.execute("") + codec.SYNC)
    assert play.upstream(PARSED, BOUND, complete("SELECT 1"), ready()).kinds() == "12CZ"
    assert [len(record.entries) for record in play.records] == [1]
    assert play.holds == []
    play.shape = ShapeRule("shape-0001")
    play.client(bound(b"2"))
    play.shape = None
    play.client(codec.execute("") + codec.SYNC)
    assert play.machine.state is State.HELD
    assert play.holds[0].facts.shown == ("2",)


def test_what_passed_by_a_shape_is_not_fetched_by_name_where_nobody_asks_whether_it_is_still_approved() -> None:
    def rule(sql: str) -> Ruling:
        control = {"begin": Control.BEGIN, "fetch": Control.FETCH}.get(sql.split()[0])
        return ask(sql) if control is None else permitted(sql, controls=[(control, "p", "")])

    play = Play(rule)
    play.shape = RULE
    play.client(codec.query("begin"))
    play.upstream(complete("BEGIN"), ready("T"))
    portal = codec.message(b"B", b"p\0" + bound(b"1")[6:])
    play.client(codec.parse("", PARAMETRIC, [23]) + portal + codec.SYNC)
    play.upstream(PARSED, BOUND, ready("T"))
    play.to_upstream()
    play.shape = None
    play.client(codec.query("fetch all from p"))
    assert b"fetch" not in play.to_upstream()
    assert play.records[-1].entries[0].type == "statement.denied"


def test_a_rule_bounds_each_run_by_what_was_shown_or_by_less() -> None:
    for most, now, told in ((5, 100, 5), (100, 5, 5)):
        play = Play(lambda sql, now=now: replace(permitted(sql, asking=SHAPED, effect=Effect.WRITE), bound=Bound(now)))
        play.shape = ShapeRule("shape-0001", most)
        play.client(codec.query("delete from t where id = 1"))
        entries = [entry for record in play.records for entry in record.entries]
        assert [(one.type, one.data.get("most")) for one in entries][:2] == [
            ("statement.allowed", None),
            ("statement.bounded", told),
        ]
