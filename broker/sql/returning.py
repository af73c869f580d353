"""RETURNING of masked fields: where it lists plain columns of the row that is written, they come masked, as in SELECT.

What else RETURNING may say of a row with masked fields is refused with the rest of what could read them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from broker.sql.catalogue import Catalogue, Column, Relation
from broker.sql.masks import masked, quote_name
from broker.sql.rewrite import Rewriter, fragment
from broker.sql.sight import Sight, Sights
from broker.sql.system import SYSTEM_COLUMNS
from broker.sql.tree import Node, called, strings, walk, wrapped

_WRITES = frozenset({"InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"})
_VERSIONS = ("old", "new")


def mask_returned(root: Any, catalogue: Catalogue, seen: Sights, rewriter: Rewriter) -> frozenset[str]:
    """Write masks in place of the masked fields that RETURNING lists; returns these fields.

    To be called first: what is left in the tree for others to look at is what comes as it is.
    """
    found: set[str] = set()
    for kind, statement, _ in list(walk(root)):
        if kind in _WRITES and "returningClause" in statement:
            found |= _masked(statement, catalogue, seen, rewriter)
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class _Target:
    """What is written: what its row is called, and what rows there are before and behind it in `*`."""

    content: Node
    relation: Relation
    sight: Sight
    row: str
    before: list[str] | None
    behind: list[str] | None

    def columns(self, fields: list[Node]) -> tuple[str, list[Column]]:
        """Return the row of its that a reference names, and the columns; none where it is no plain list of these."""
        star = bool(fields) and "A_Star" in fields[-1]
        parts = strings(fields)
        if not fields or len(parts) + star != len(fields):
            return "", []
        qualifier = parts if star else parts[:-1]
        schema = [] if "alias" in self.content else [self.relation.schema]
        row = self.row if qualifier in ([], [self.row], [*schema, self.row]) else self._version(qualifier)
        if not row or (star and any(column.code == "type" for column in self.relation.columns)):
            return "", []
        if star and not qualifier and (self.before is None or self.behind is None):
            return "", []
        return row, [column for column in self.relation.columns if star or column.name == parts[-1]]

    def asks_where(self, value: Node) -> bool:
        """Say whether an output is a system column, which is left with all that is beside it."""
        names = strings(value.get("ColumnRef", {}).get("fields", []))[-1:]
        return bool(SYSTEM_COLUMNS & {*names} - {column.name for column in self.relation.columns})

    def _version(self, qualifier: list[str]) -> str:
        """Return `old` or `new`, where that can only mean the row as it was or is."""
        name = qualifier[0] if len(qualifier) == 1 else ""
        others = None if self.before is None or self.behind is None else [*self.before, *self.behind]
        return name if name in _VERSIONS and others is not None and name not in others else ""


def _masked(statement: Node, catalogue: Catalogue, seen: Sights, rewriter: Rewriter) -> set[str]:
    content, clause = statement["relation"], statement["returningClause"]
    if "catalogname" in content or "options" in clause:
        return set()
    relation = catalogue.relation(content.get("schemaname"), content["relname"])
    sight = seen.of(relation) if relation is not None and not relation.system else None
    if relation is None or sight is None or not sight.masks:
        return set()
    source = [statement["sourceRelation"]] if "sourceRelation" in statement else []
    beside = statement.get("fromClause") or statement.get("usingClause") or []
    before, behind = _rows(source), _rows(beside)
    target = _Target(content, relation, sight, called(content), before, behind)
    if any(target.asks_where(node["ResTarget"].get("val", {})) for node in clause["exprs"]):
        return set()
    hidden: set[str] = set()
    kept: list[Node] = []
    written: list[Node] = []
    for node in clause["exprs"]:
        row, columns = target.columns(node["ResTarget"].get("val", {}).get("ColumnRef", {}).get("fields", []))
        names = {column.name for column in columns} & set(sight.masks)
        hidden |= names
        others, nodes = _write(node["ResTarget"], row, columns, target, rewriter) if names else ([node], [node])
        kept += others
        written += nodes
    if hidden:
        clause["exprs"] = kept
        rewriter.also(lambda: clause.update(exprs=written))
    return {f"{relation.qualified}.{name}" for name in hidden}


def _rows(items: list[Node]) -> list[str] | None:
    """Return what the rows of a FROM are called, in the order of `*`; None where it lists columns otherwise."""
    found: list[str] = []
    stack = list(reversed(items))
    while stack:
        kind, content = wrapped(stack.pop()) or ("", {})
        if kind == "JoinExpr" and not {"usingClause", "isNatural", "alias"} & set(content):
            stack += [content["rarg"], content["larg"]]
            continue
        kind, content = wrapped(content["relation"]) or ("", {}) if kind == "RangeTableSample" else (kind, content)
        name = called(content)
        if kind not in ("RangeVar", "RangeSubselect", "RangeFunction") or not name or name in found:
            return None
        found.append(name)
    return found


def _write(
    item: Node, row: str, columns: list[Column], target: _Target, rewriter: Rewriter
) -> tuple[list[Node], list[Node]]:
    """Write the outputs of one item anew; returns the nodes that others have to look at, and all of them."""
    reference = item["val"]["ColumnRef"]
    own = list(_outputs(item, row, columns, target.sight))
    every = len(reference["fields"]) == 1 and "A_Star" in reference["fields"][0]
    before, behind = (
        [f"{quote_name(name)}.*" for name in (rows if every else None) or []] for rows in (target.before, target.behind)
    )
    words = rewriter.source
    first = words.at(reference["location"])
    last = words.name_end(first, len(reference["fields"]))
    while words.word(first - 1) == "(" and words.word(last + 1) == ")":
        first, last = first - 1, last + 1
    rewriter.replace(words.words[first].start, words.words[last].end, ", ".join([*before, *own, *behind]))
    others = [*_nodes(before, {}), *_nodes(behind, {})]
    label = {"name": item["name"]} if "name" in item else {}
    return others, [*others[: len(before)], *_nodes(own, label), *others[len(before) :]]


def _outputs(item: Node, row: str, columns: list[Column], sight: Sight) -> Iterator[str]:
    for column in columns:
        source = f"{quote_name(row)}.{quote_name(column.name)}"
        if column.name in sight.masks:
            source = f"({masked(column, sight.masks[column.name], source)})"
        yield source if "name" in item else f"{source} AS {quote_name(column.name)}"


def _nodes(outputs: list[str], label: Node) -> Iterator[Node]:
    for node in copy.deepcopy(fragment(f"SELECT {', '.join(outputs)}")["targetList"]) if outputs else ():
        node["ResTarget"].update(label)
        yield node
