"""What may be asked of the planner, how it is written, and how a plan is read."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.protocols.postgres.explaining import expected_rows, explain, prepare, question
from broker.protocols.postgres.ruling import Permitted
from broker.sessions.holds import Asked, Estimate
from broker.sessions.model import Durability
from broker.sql.library import scan
from broker.sql.model import Control, Inspection, Statement
from policies.engine.decisions import Effect, StatementFacts


def ruled(verb: str = "DELETE", text: str = "delete from a", control: Control = Control.NONE, **more: Any) -> Permitted:
    sets = {"reads": frozenset({"public.a"}), **{key: frozenset(value) for key, value in more.items()}}
    facts = StatementFacts(verb, frozenset({Effect.WRITE}), **sets)
    inspection = Inspection((Statement(facts, "delete from a", control),), text, (), False, "v")
    return Permitted(text, inspection, ((),), Durability.SYNCED)


@pytest.mark.parametrize(
    ("ruling", "asked", "why"),
    [
        (ruled(), Asked("x"), ""),
        (ruled(functions={"lower", "now"}), Asked("x"), ""),
        (ruled(functions={"lower", "own_function"}), Asked("x"), "planning could run own_function"),
        (ruled(masked={"public.a.ssn"}), Asked("x"), "it reads masked fields"),
        (ruled("EXECUTE", control=Control.EXECUTE), Asked("x"), "EXECUTE has no plan of its own"),
        (ruled("DECLARE"), Asked("x"), "DECLARE has no plan of its own"),
        (ruled("COPY"), Asked("x"), "COPY has no plan of its own"),
        (ruled(text="x" * 70_000), Asked("x"), "it is too long"),
        (ruled(), Asked("x", values=(b"1",), types=(16_400,)), "a parameter has a type of your own"),
        (ruled(), Asked("x", values=(b"\0\1",), formats=(1,), types=(21,)), ""),
        (ruled(), Asked("x", values=(b"\0\1",), formats=(1,), types=(869,)), "a parameter cannot be read"),
        (ruled(), Asked("x", values=(None,), formats=(1,), types=(869,)), ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_planner_is_asked_only_where_it_is_harmless(ruling: Permitted, asked: Asked, why: str) -> None:
    found = question([ruling], asked, tuple("v" for _ in asked.values), False)
    assert found.why == why
    assert bool(found.sql) == (not why)
    assert found.relations == ("public.a",)


@given(st.lists(st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=5))
def test_values_cannot_leave_their_quotes(values: list[str | None]) -> None:
    text = explain("airlock_1", values)
    raw = text.encode()
    pieces = [raw[token.start : token.end].decode() for token in scan(raw)]
    literals = [piece for piece in pieces if piece.startswith("'")]
    assert [piece[1:-1].replace("''", "'") for piece in literals] == [value for value in values if value is not None]
    assert pieces[:7] == ["explain", "(", "format", "json", ")", "execute", "airlock_1"]


def test_types_are_declared_where_they_are_known() -> None:
    assert prepare("p", [], "select 1") == "prepare p as select 1"
    assert prepare("p", ["integer", "unknown"], "select $1, $2") == "prepare p (integer, unknown) as select $1, $2"


def plan(kind: str, rows: int, *children: dict[str, Any], parent: str = "Outer") -> dict[str, Any]:
    found = {"Node Type": kind, "Plan Rows": rows, "Parent Relationship": parent}
    return {**found, "Plans": list(children)} if children else found


@pytest.mark.parametrize(
    ("top", "rows", "returned"),
    [
        (plan("Seq Scan", 42), 42, 42),
        (plan("ModifyTable", 0, plan("Seq Scan", 42)), 42, 0),
        (plan("ModifyTable", 7, plan("Seq Scan", 7), plan("Result", 99, parent="InitPlan")), 7, 7),
        (plan("Aggregate", 1, plan("ModifyTable", 10, plan("Seq Scan", 10), parent="InitPlan")), 10, 1),
        (plan("Seq Scan", 900, plan("ModifyTable", 1, plan("Result", 1), parent="InitPlan")), 1, 900),
        (plan("ModifyTable", 0, plan("Seq Scan", 2, parent="Member"), plan("Seq Scan", 3, parent="Member")), 5, 0),
    ],
)
def test_rows_are_those_that_would_change_or_else_return(top: dict[str, Any], rows: int, returned: int) -> None:
    found = expected_rows(json.loads(json.dumps([{"Plan": top}])))
    assert found == (rows, returned)
    # Rules hold a statement against both: what changes one row may return every row of another table.
    assert Estimate(rows=found[0], returned=found[1]).touched == max(rows, returned)


@pytest.mark.parametrize("answer", [None, [], {}, [{}], [{"Plan": {}}], [{"Plan": {"Node Type": "X"}}]])
def test_what_is_no_plan_says_nothing(answer: Any) -> None:
    with pytest.raises((LookupError, TypeError, ValueError)):
        expected_rows(answer)
