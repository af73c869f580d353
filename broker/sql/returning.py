"""RETURNING of masked fields: where it lists plain columns of the row that is written, they come masked, as in SELECT.

What else RETURNING may say of a row with masked fields is refused with the rest of what could read them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from broker.sql.catalogue import Catalogue, Relation
from broker.sql.masks import masked, quote_name
from broker.sql.rewrite import Rewriter, fragment
from broker.sql.sight import Sight, Sights
from broker.sql.tree import Node, strings, walk

_WRITES = frozenset({"InsertStmt", "UpdateStmt", "DeleteStmt"})


def mask_returned(root: Any, catalogue: Catalogue, seen: Sights, rewriter: Rewriter) -> frozenset[str]:
    """Write masks in place of the masked fields that RETURNING lists; returns these fields.

    To be called first: what is left in the tree for others to look at is what comes as it is.
    """
    found: set[str] = set()
    for kind, statement, _ in list(walk(root)):
        if kind in _WRITES and "returningClause" in statement:
            found |= _masked(statement, catalogue, seen, rewriter)
    return frozenset(found)


def _masked(statement: Node, catalogue: Catalogue, seen: Sights, rewriter: Rewriter) -> set[str]:
    target, clause = statement["relation"], statement["returningClause"]
    if "catalogname" in target or {"fromClause", "usingClause"} & set(statement) or "options" in clause:
        return set()
    relation = catalogue.relation(target.get("schemaname"), target["relname"])
    sight = seen.of(relation) if relation is not None and not relation.system else None
    if relation is None or sight is None or not sight.masks:
        return set()
    row = target.get("alias", {}).get("aliasname", target["relname"])
    listed = [_columns(one["ResTarget"], target, row, relation) for one in clause["exprs"]]
    if any(columns is None for columns in listed):
        return set()
    hidden: set[str] = set()
    kept: list[Node] = []
    written: list[Node] = []
    for node, columns in zip(clause["exprs"], listed, strict=True):
        names = [column.name for column in columns or ()]
        if not set(names) & set(sight.masks):
            kept.append(node)
            written.append(node)
            continue
        hidden |= set(names) & set(sight.masks)
        written += _write(node["ResTarget"], names, row, relation, sight, rewriter)
    if hidden:
        clause["exprs"] = kept
        rewriter.also(lambda: clause.update(exprs=written))
    return {f"{relation.qualified}.{name}" for name in hidden}


def _columns(target: Node, content: Node, row: str, relation: Relation) -> list[Any] | None:
    """Return the columns that an output gives; None where it is no plain list of the written row's."""
    fields = target.get("val", {}).get("ColumnRef", {}).get("fields", [])
    star = bool(fields) and "A_Star" in fields[-1]
    parts = strings(fields)
    qualifier = parts if star else parts[:-1]
    schema = [] if "alias" in content else [relation.schema]
    if not fields or len(parts) + star != len(fields) or qualifier not in ([], [row], [*schema, row]):
        return None
    if star:
        return None if any(column.code == "type" for column in relation.columns) else list(relation.columns)
    return [column for column in relation.columns if column.name == parts[-1]] or None


def _write(
    target: Node, names: list[str], row: str, relation: Relation, sight: Sight, rewriter: Rewriter
) -> Iterator[Node]:
    """Write the outputs of one item anew, and yield their nodes."""
    reference = target["val"]["ColumnRef"]
    parts: list[str] = []
    for column in (column for column in relation.columns if column.name in names):
        source = f"{quote_name(row)}.{quote_name(column.name)}"
        if column.name in sight.masks:
            source = f"({masked(column, sight.masks[column.name], source)})"
        parts.append(source if "name" in target else f"{source} AS {quote_name(column.name)}")
    text = ", ".join(parts)
    words = rewriter.source
    first = words.at(reference["location"])
    last = words.name_end(first, len(reference["fields"]))
    rewriter.replace(words.words[first].start, words.words[last].end, text)
    for node in copy.deepcopy(fragment(f"SELECT {text}")["targetList"]):
        if "name" in target:
            node["ResTarget"]["name"] = target["name"]
        yield node
