"""GROUP BY a primary key: a sub-select has no key, so the columns that follow from it are grouped by as well."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from broker.sql.masks import quote_name
from broker.sql.model import Refusal
from broker.sql.rewrite import Rewriter, Source, fragment
from broker.sql.tree import Node, joined, strings, wrapped

Name = tuple[str, ...]
"""A column, perhaps behind the name of its row."""


@dataclass(frozen=True, slots=True)
class Table:
    """What a table is called in a query, which of its columns can be grouped by, and its key.

    `whole` says that its row as a whole is meant as well, and can be grouped by.
    """

    name: str
    columns: list[str]
    key: frozenset[str]
    whole: bool = False


def group_by_keys(select: Node, keyed: dict[int, Table], rewriter: Rewriter) -> None:
    """Add to a GROUP BY what a primary key in it decides; `keyed` has tables by the id of their RangeVar.

    The groups stay the same: rows that share a key share every column.
    """
    tables = [keyed.get(id(content)) for content in joined(select.get("fromClause", []))]
    grouped = _all(select["groupClause"], select.get("targetList", []))
    there = grouped | set(_any(select["groupClause"]))
    added: list[str] = []
    for table in filter(None, tables):
        if table.key and table.key <= _of(table, grouped):
            names = [quote_name(name) for name in table.columns if name not in _of(table, there)]
            names += ["*"] if table.whole else []
            # The key comes first again, as rows that are sorted by it need no more of an order.
            key = map(quote_name, sorted(table.key))
            added += [f"{quote_name(table.name)}.{one}" for one in ([*key, *names] if names else [])]
    if added:
        _insert(select, added, rewriter)


def _of(table: Table, columns: set[Name]) -> set[str]:
    """Return those that could be a table's: a bare name that two rows have is an error of its own."""
    return {parts[-1] for parts in columns if parts[:-1] in ((table.name,), ())}


def _any(items: list[Node]) -> Iterator[Name]:
    """Yield the columns that some grouping has; they are null where others do not have them."""
    stack: list[Any] = list(items)
    while stack:
        kind, content = wrapped(stack.pop()) or ("", {})
        if kind == "ColumnRef":
            yield from _column(content)
        elif kind in ("RowExpr", "GroupingSet"):
            stack += content.get("args", []) + content.get("content", [])


def _all(items: list[Node], outputs: list[Node]) -> set[Name]:
    """Return the columns that every one of the groupings has, of those whose product a GROUP BY is."""
    found: set[Name] = set()
    for item in items:
        kind, content = wrapped(item) or ("", {})
        if kind == "RowExpr":
            found |= _all(content.get("args", []), [])
        elif kind == "GroupingSet" and content.get("kind") == "GROUPING_SET_SETS":
            # What is rolled up, or cubed, is grouped by nothing too.
            found |= set.intersection(*(_all([one], []) for one in content["content"]))
        elif kind == "A_Const":
            found |= set(_output(content, outputs))
        elif kind == "ColumnRef":
            found |= set(_column(content))
    return found


def _column(content: Node) -> Iterator[Name]:
    fields = content.get("fields", [])
    parts = strings(fields)
    if parts and len(parts) == len(fields):
        yield tuple(parts[-2:])


def _output(content: Node, outputs: list[Node]) -> Iterator[Name]:
    """Yield the column that `GROUP BY 1` means."""
    at = content.get("ival", {}).get("ival", 0)
    starred = any("A_Star" in str(one["ResTarget"].get("val", {}).get("ColumnRef", {})) for one in outputs[:at])
    if 0 < at <= len(outputs) and not starred:
        yield from _column(outputs[at - 1]["ResTarget"].get("val", {}).get("ColumnRef", {}))


def _insert(select: Node, columns: list[str], rewriter: Rewriter) -> None:
    """Write columns in front of a GROUP BY's own."""
    source = rewriter.source
    first = _first(source, min(_places(select["groupClause"][0]), default=-1))
    rewriter.replace(source.words[first].start, source.words[first].start, "".join(f"{one}, " for one in columns))
    nodes = fragment(f"SELECT GROUP BY {', '.join(columns)}")["groupClause"]
    rewriter.also(lambda: select["groupClause"].__setitem__(slice(0, 0), nodes))


def _first(source: Source, location: int) -> int:
    """Return the index of the word behind the GROUP BY that stands before a place."""
    for at in range(source.before(location + 1), 0, -1):
        if (source.word(at - 1), source.word(at)) == ("group", "by"):
            return at + 2 if source.word(at + 1) in ("distinct", "all") else at + 1
    raise Refusal("rewrite", "this form of GROUP BY cannot be masked: write it plainly")


def _places(part: Any) -> Iterator[int]:
    stack = [part]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack += value
        elif isinstance(value, dict):
            if value.get("location", -1) >= 0:
                yield value["location"]
            stack += value.values()
