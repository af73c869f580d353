"""Which columns a query compares: those that it filters, joins, groups or sorts by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from broker.sql.tree import Node, strings, wrapped

CLAUSES = frozenset(
    "whereClause havingClause joinCondition quals distinctClause usingClause sortClause groupClause".split()
)
_BY_OUTPUT = frozenset({"sortClause", "groupClause"})

Named = tuple[str, str]
"""What a column's relation is called here, empty where nothing is said, and the column."""


def compared(clauses: Sequence[tuple[str, Node]]) -> set[Named]:
    """Return the columns that are compared in clauses, each with its node; by position or by an output's name too."""
    found: set[Named] = set()
    for clause, content in clauses:
        if clause == "usingClause":
            found.update(("", name) for name in strings(content[clause]))
        else:
            found.update(_columns(content[clause]))
        if clause in _BY_OUTPUT:
            outputs = content.get("targetList", [])
            for part in content[clause]:
                found.update(_columns(_output(part, outputs)))
    return found


def _columns(part: Any) -> Iterator[Named]:
    stack: list[Any] = [part]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack += value
        elif isinstance(value, dict):
            if isinstance(column := value.get("ColumnRef"), dict) and (names := strings(column.get("fields", []))):
                yield names[-2] if len(names) > 1 else "", names[-1]
            else:
                stack += value.values()


def _output(part: Node, outputs: list[Node]) -> Any:
    """Return the output column that `order by 1`, or `order by its_name`, means."""
    kind, content = wrapped(part) or ("", {})
    kind, content = wrapped(content.get("node")) or ("", {}) if kind == "SortBy" else (kind, content)
    if kind == "A_Const":
        at = content.get("ival", {}).get("ival", 0)
        return outputs[at - 1] if 0 < at <= len(outputs) else None
    names = strings(content.get("fields", [])) if kind == "ColumnRef" else []
    return [one for one in outputs if names == [one.get("ResTarget", {}).get("name")]]
