"""Masks as SQL: an expression of the column's own type, everything in it qualified, that cannot fail on any value.

Where a type has no neutral value the mask is NULL. Partial shows its tail only where the value is at least twice as
long. Keys are shown of jsonb only: `json` is text, of which not even a path can be read for certain.
"""

from __future__ import annotations

import re

from broker.sql.catalogue import Column, Relation
from broker.sql.system import (
    CLOSED_IN_CLEAR,
    HIDDEN,
    HIDDEN_WHERE_SAID,
    IN_PART,
    SHOWN_AS,
    SHOWN_WHERE,
)
from policies.engine.decisions import Mask, MaskKind

STARS = "***"
_TEXT = frozenset({"text", "varchar", "bpchar", "name", "citext"})
_NEUTRAL = {
    "bytea": "'\\x'",
    "json": f"'\"{STARS}\"'",
    "jsonb": f"'\"{STARS}\"'",
    "uuid": "'00000000-0000-0000-0000-000000000000'",
}
_LITERALS = {
    "int2": r"-?\d{1,4}",
    "int4": r"-?\d{1,9}",
    "int8": r"-?\d{1,18}",
    "numeric": r"-?\d{1,9}(\.\d{1,2})?",
    "float4": r"-?\d{1,9}(\.\d{1,6})?",
    "float8": r"-?\d{1,9}(\.\d{1,9})?",
    "bool": r"true|false",
    "date": r"(19|20)\d\d-(0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])",
}
"""The fixed values that a type accepts for certain; numeric ones are checked against the precision by PostgreSQL."""


def quote_name(name: str) -> str:
    """Quote an identifier."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(text: str) -> str:
    """Quote a literal under standard_conforming_strings, which is pinned."""
    return "'" + text.replace("'", "''") + "'"


def masked(column: Column, mask: Mask, source: str) -> str:
    """Return the masked expression of a column that is read as `source`."""
    if mask.kind is MaskKind.NULL:
        return f"NULL::{column.type}"
    if mask.kind is MaskKind.HIDE or not shows(column, mask):
        return _hidden(column, _is_text(column))
    match mask.kind:
        case MaskKind.KEYS:
            return _cast(_document(source, _tree(mask.show)), column)
        case MaskKind.PARTIAL:
            return _cast(_partial(source, mask.tail), column)
        case _:
            return _cast(quote_text(mask.value), column)


def shows(column: Column, mask: Mask) -> bool:
    """Say whether a column's type has what a mask shows; what has not is hidden."""
    match mask.kind:
        case MaskKind.KEYS:
            return column.typname == "jsonb" and not column.type.endswith("[]")
        case MaskKind.PARTIAL:
            return _is_text(column)
        case MaskKind.FIXED if not _is_text(column):
            # A numeric's precision may be too small for the value, and a cast that fails would fail every query.
            literal = _LITERALS.get(column.typname, r"(?!)")
            return re.fullmatch(literal, mask.value) is not None and not {"(", "["} & set(column.type)
        case _:
            return True


def _is_text(column: Column) -> bool:
    return column.typname in _TEXT and not column.type.endswith("[]")


_Tree = dict[str, "_Tree | None"]
"""Keys of a document, with what is shown below each: `*` is everything, None a value that stands there."""


def _tree(paths: tuple[str, ...]) -> _Tree:
    root: _Tree = {}
    for path in paths:
        *above, last = path.split(".")
        at = root
        for key in above:
            below = at.setdefault(key, {})
            assert below is not None  # No path goes on where another ends.
            at = below
        at[last] = None
    return root


def _document(source: str, tree: _Tree, path: tuple[str, ...] = ()) -> str:
    """Write a document anew, of what is shown of it; what is not there, or is no value, is null."""
    here = f"({source})" if not path else f"({source} OPERATOR(pg_catalog.#>) {_path(path)})"
    if "*" in tree:
        return here
    parts = []
    for key, below in tree.items():
        value = f"({source} OPERATOR(pg_catalog.#>) {_path((*path, key))})"
        if below is None:
            shown = f"CASE WHEN {_is_one_of(value, 'object', 'array')} THEN NULL ELSE {value} END"
        else:
            shown = _document(source, below, (*path, key))
        parts.append(f"{quote_text(key)}::pg_catalog.text, {shown}")
    return f"CASE WHEN {_is_one_of(here, 'object')} THEN pg_catalog.jsonb_build_object({', '.join(parts)}) END"


def _path(keys: tuple[str, ...]) -> str:
    return f"ARRAY[{', '.join(quote_text(key) for key in keys)}]::pg_catalog.text[]"


def _is_one_of(value: str, *types: str) -> str:
    listed = ", ".join(quote_text(each) for each in types)
    return f"pg_catalog.jsonb_typeof({value}) OPERATOR(pg_catalog.=) ANY (ARRAY[{listed}]::pg_catalog.text[])"


def _hidden(column: Column, text: bool) -> str:
    if text:
        return _cast(quote_text(STARS), column)
    if column.category == "A":
        return f"'{{}}'::{column.type}"
    neutral = _NEUTRAL.get(column.typname, "NULL")
    return f"{neutral}::{column.type}"


def _partial(source: str, tail: int) -> str:
    value = f"{source}::pg_catalog.text"
    return (
        f"CASE WHEN pg_catalog.length({value}) OPERATOR(pg_catalog.>=) {2 * tail}"
        f" THEN '{STARS}'::pg_catalog.text OPERATOR(pg_catalog.||) pg_catalog.right({value}, {tail})"
        f" ELSE '{STARS}'::pg_catalog.text END"
    )


def _cast(expression: str, column: Column) -> str:
    return f"({expression})::{column.type}"


def closed(relation: Relation, column: Column, *, in_clear: bool = False) -> str:
    """Return what a closed column of the system catalogue is read as; `t` is the relation's alias."""
    among = CLOSED_IN_CLEAR.get(relation.qualified, {}).get(column.name) if in_clear else None
    if shown := among or (None if in_clear else SHOWN_WHERE.get(relation.qualified)):
        return f"CASE WHEN {shown} THEN t.{quote_name(column.name)} END"
    if column.name in HIDDEN_WHERE_SAID:
        return _said(column)
    said = SHOWN_AS.get(column.name)
    return _cast(quote_text(said), column) if said is not None else f"NULL::{column.type}"


def _said(column: Column) -> str:
    """Return a fixed text where there is a definition, or what may be shown of it.

    An expression's tree becomes a text, which is what `pg_get_expr` gives of it.
    """
    kind = "pg_catalog.text" if column.typname == "pg_node_tree" else column.type
    hidden = f"WHEN t.{quote_name(column.name)} IS NOT NULL THEN {quote_text(HIDDEN)}"
    return f"(CASE {IN_PART.get(column.name, '')} {hidden} END)::{kind}"
