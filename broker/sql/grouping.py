"""GROUP BY a primary key: a sub-select has no key, so the columns that follow from it are grouped by as well."""

from __future__ import annotations

from dataclasses import dataclass

from broker.sql.masks import quote_name
from broker.sql.rewrite import Rewriter, fragment
from broker.sql.tree import Node, joined, strings


@dataclass(frozen=True, slots=True)
class Table:
    """What a table is called in a query, which of its columns can be grouped by, and its key."""

    name: str
    columns: list[str]
    key: frozenset[str]


def group_by_keys(select: Node, keyed: dict[int, Table], rewriter: Rewriter) -> None:
    """Add to a GROUP BY what a primary key in it decides; `keyed` has tables by the id of their RangeVar.

    The groups stay the same: rows that share a key share every column.
    """
    tables = [keyed.get(id(content)) for content in joined(select.get("fromClause", []))]
    items = [_column(item) for item in select["groupClause"]]
    for table in filter(None, tables):
        prefixes = ([table.name], []) if len(tables) == 1 else ([table.name],)
        found = {parts[-1]: at for at, parts in enumerate(items) if parts[:-1] in prefixes}
        added = [f"{quote_name(table.name)}.{quote_name(name)}" for name in table.columns if name not in found]
        if added and table.key and table.key <= set(found):
            _insert(select, found[min(table.key)], added, rewriter)


def _column(item: Node) -> list[str]:
    fields = item.get("ColumnRef", {}).get("fields", [])
    parts = strings(fields)
    return parts[-2:] if parts and len(parts) == len(fields) else [""]


def _insert(select: Node, at: int, columns: list[str], rewriter: Rewriter) -> None:
    """Write columns behind an item of a GROUP BY, which is a plain column."""
    item = select["groupClause"][at]["ColumnRef"]
    source = rewriter.source
    end = source.words[source.name_end(source.at(item["location"]), len(item["fields"]))].end
    rewriter.replace(end, end, "".join(f", {column}" for column in columns))
    nodes = fragment(f"SELECT GROUP BY {', '.join(columns)}")["groupClause"]

    def move() -> None:
        place = next(index for index, node in enumerate(select["groupClause"]) if node.get("ColumnRef") is item) + 1
        select["groupClause"][place:place] = nodes

    rewriter.also(move)
