"""Functional notation: `row.name` is a column of the row, or a call of the function `name` with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.sql.catalogue import Catalogue, allowed_functions
from broker.sql.names import CHECKED, check_attribute, check_function
from broker.sql.system import MEASURING, SYSTEM_COLUMNS
from broker.sql.tree import Node

if TYPE_CHECKING:
    from broker.sql.collected import Collected

_RECORDS = frozenset({"RangeSubselect", "CommonTableExpr", "JoinExpr"})
"""What makes rows of no named type, so that few functions could take them."""


def check_notation(found: Collected, catalogue: Catalogue) -> None:
    """Refuse every `expression.name` that could call a function outside the list."""
    for row, name in found.attributes:
        if name not in catalogue.attributes:
            continue
        nodes = list(found.aliases.get(row, []))
        if row in found.rows:
            nodes += [("RangeVar", content) for _, content, _ in found.targets]
        if row in found.functions or any(kind not in _RECORDS and kind != "RangeVar" for kind, _ in nodes):
            nodes = []  # The rows of a function can have a table's type.
        others = [content for kind, content in nodes if kind != "RangeVar" or not has_column(catalogue, content, name)]
        if others or not nodes:
            if name in MEASURING and not found.in_clear:
                check_function(catalogue, [name])
            record = all(kind in _RECORDS for kind, content in nodes if content in others)
            check_attribute(catalogue, name, row=bool(nodes), record=record)


def gives_whole(catalogue: Catalogue | None, content: Node, name: str, *, alone: bool) -> bool:
    """Say whether `row.name` of a relation could give all of the row to a function, or to a domain over its type.

    Where nothing else goes by the row's name, whatever is no column does: a session may have made the domain just now.
    """
    if name in SYSTEM_COLUMNS or has_column(catalogue, content, name):
        return False
    return (
        alone
        or catalogue is None
        or name in allowed_functions()
        or name in CHECKED
        or name in catalogue.own
        or name in catalogue.attributes
        or any(name == known for _, known in catalogue.types)
    )


def has_column(catalogue: Catalogue | None, content: Node, name: str) -> bool:
    """Say whether a relation, as it stands in a query, is known to have a column of a name."""
    relation = catalogue.relation(content.get("schemaname"), content["relname"]) if catalogue is not None else None
    return (
        relation is not None
        and "colnames" not in content.get("alias", {})
        and any(column.name == name for column in relation.columns)
    )
