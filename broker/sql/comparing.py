"""Which columns a query compares: those that it filters, joins, groups or sorts by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from broker.sql.tree import Node, strings, walk, wrapped

_CLAUSES = ("whereClause", "havingClause", "joinCondition", "quals", "distinctClause")

Named = tuple[str, str]
"""What a column's relation is called here, empty where nothing is said, and the column."""


def compared(root: Any) -> set[Named]:
    """Return the columns that are compared anywhere in a query; by position or by an output's name too."""
    found: set[Named] = set()
    for _, content, _ in walk(root):
        for clause in _CLAUSES:
            found.update(_columns(content.get(clause)))
        found.update(("", name) for name in strings(content.get("usingClause", [])))
        outputs = content.get("targetList", [])
        for clause in ("sortClause", "groupClause"):
            for part in content.get(clause, []):
                found.update(_columns(part))
                found.update(_columns(_output(part, outputs)))
    return found


def _columns(part: Any) -> Iterator[Named]:
    for kind, content, _ in walk(part):
        names = strings(content.get("fields", [])) if kind == "ColumnRef" else []
        if names:
            yield names[-2] if len(names) > 1 else "", names[-1]


def _output(part: Node, outputs: list[Node]) -> Any:
    """Return the output column that `order by 1`, or `order by its_name`, means."""
    kind, content = wrapped(part) or ("", {})
    kind, content = wrapped(content.get("node")) or ("", {}) if kind == "SortBy" else (kind, content)
    if kind == "A_Const":
        at = content.get("ival", {}).get("ival", 0)
        return outputs[at - 1] if 0 < at <= len(outputs) else None
    names = strings(content.get("fields", [])) if kind == "ColumnRef" else []
    return [one for one in outputs if names == [one.get("ResTarget", {}).get("name")]]
