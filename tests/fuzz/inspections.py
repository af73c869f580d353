"""Targets of what is said of a text: its inspection, its shape, what is shown of it, and a worker's answer."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Coroutine
from typing import Any

from hypothesis import strategies as st

from broker.protocols.postgres.workers import decoded, encoded
from broker.sql.catalogue import allowed_functions
from broker.sql.inspect import inspect, tripwire
from broker.sql.library import FULL, ON_THE_SPOT, Costly, Limits, parse
from broker.sql.model import Inspection, Refusal
from broker.sql.names import CHECKED
from broker.sql.placeholders import Parameters, pattern
from broker.sql.redact import redact
from broker.sql.tree import strings, walk
from tests.fuzz.texts import CANARY
from tests.unit.broker.sql.shop import CATALOGUE, FIELDS


def _found(sql: str, limits: Limits) -> Inspection | Refusal:
    try:
        return inspect(sql, CATALOGUE, FIELDS, limits)
    except Refusal as refusal:
        return refusal


def _same(left: Inspection | Refusal, right: Inspection | Refusal) -> bool:
    return encoded(left, "") == encoded(right, "")


def _awaited(answer: Coroutine[Any, Any, Inspection | Refusal]) -> Inspection | Refusal:
    """Run what only ever lets others have their turn."""
    try:
        while True:
            answer.send(None)
    except StopIteration as stop:
        found: Inspection | Refusal = stop.value
        return found


def inspection(sql: str) -> None:
    """Inspection never raises but to refuse, and what it passes has nothing in it that is not listed."""
    found = _found(sql, FULL)
    with contextlib.suppress(Costly):
        assert _same(_found(sql, ON_THE_SPOT), found), "on the spot it is ruled otherwise"
    through = _awaited(decoded(json.loads(json.dumps(encoded(found, ""))), CATALOGUE.version))
    assert _same(through, found), "a worker would say otherwise"
    if isinstance(found, Refusal):
        return
    tree = parse(found.rewritten.encode())
    statements = tree.get("stmts", [])
    assert len(statements) == len(found.statements)
    for raw, statement in zip(statements, found.statements, strict=True):
        if statement.refusal is None:
            _check(raw["stmt"])


def shapes(sql: str) -> None:
    """Whatever a text is, it has a shape or none; what is shown of one reads as a statement of that shape."""
    found = pattern(sql, Parameters((b"1", None), shown=("1", None)))
    if found is not None:
        again = pattern(found.text, Parameters((b"1",) * len(found.values)))
        assert again is not None
        assert again.text == found.text


_OWN = frozenset({"_pg_expandarray"})


def _check(root: Any) -> None:
    """Look at a statement that would be sent, without the collector's help."""
    wires = tripwire(CATALOGUE, FIELDS)
    masked = {
        relation.name: {column.name for column in relation.columns if (relation.oid, column.attnum) in wires}
        for relation in CATALOGUE.relations.values()
        if relation.schema == "public" and relation.kind == "r" and (relation.oid, 0) in wires
    }
    safe: set[int] = set()
    called = {query["ctename"] for kind, query, _ in walk(root) if kind == "CommonTableExpr"}
    for kind, content, _ in walk(root):
        if kind in ("InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "CopyStmt") and "relation" in content:
            safe.add(id(content["relation"]))
        if kind == "SelectStmt":
            safe |= _masking(content, masked)
        if kind == "FuncCall":
            name = strings(content["funcname"])[-1]
            assert name in allowed_functions() | CHECKED | _OWN or name in _SHOWING, f"the function {name} passes"
    for kind, content, _ in walk(root):
        if kind == "RangeVar":
            name = content["relname"]
            assert name not in ("secrets", "pg_statistic"), f"{name} passes"
            named = name in called and "schemaname" not in content
            assert name not in masked or named or id(content) in safe, f"{name} passes without its masks"


_SHOWING = frozenset(
    "pg_get_indexdef pg_get_constraintdef pg_get_function_identity_arguments current_setting pg_relation_size "
    "pg_table_size set_config".split()
)
"""What masks of catalogue functions themselves call."""


def _masking(select: Any, masked: dict[str, set[str]]) -> set[int]:
    """Return the relation that a SELECT reads, where it is a mask's own: one relation, called t, with masks."""
    sources = select.get("fromClause", [])
    if len(sources) != 1:
        return set()
    only = sources[0].get("RangeTableSample", {}).get("relation", sources[0])
    source = only.get("RangeVar")
    if not source or source.get("schemaname") != "public" or source["relname"] not in masked:
        return set()
    if source.get("alias", {}).get("aliasname") != "t":
        return set()
    for target in select.get("targetList", []):
        value = target["ResTarget"]["val"]
        fields = value.get("ColumnRef", {}).get("fields", [])
        if any("A_Star" in field for field in fields) or masked[source["relname"]] & set(strings(fields)):
            return set()
    return {id(source)}


def redaction(sql: str) -> None:
    """What is shown to others has no literal and no comment in it."""
    assert CANARY not in redact(sql)
    try:
        found = inspect(sql, CATALOGUE, FIELDS)
    except Refusal:
        return
    for statement in found.statements:
        assert CANARY not in statement.redacted
        for told in (statement.refusal.message, statement.refusal.hint) if statement.refusal else ():
            assert CANARY not in (told or "")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ("refusal", "statements", "rewritten", "edits", "scrub", "tripwire", "verb", "rule", "message")
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


def answers(value: Any) -> None:
    """Whatever a worker says that was taken over reads as an answer, or as none."""
    with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError):
        assert isinstance(_awaited(decoded(value, "v")), (Inspection, Refusal))
