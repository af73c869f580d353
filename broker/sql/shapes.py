"""Shapes: texts that differ in nothing but plain numbers which a column is compared with, or which limit the rows.

Inspection looks at no such number, so what it found of one text of a shape holds for every other. Not libpg_query's
fingerprint: that makes texts equal which mean different things. Here every byte counts but those digits, and they are
marked only where the parser has said of one text that each of them is such a number.
"""

from __future__ import annotations

import re

from broker.sql.library import parse
from broker.sql.tree import Node, walk

LONGEST = 4096
# Nine digits are always an integer of one size. What may stand around them ends a token, so that a text of the same
# marks is read in the same tokens, whatever the digits are.
_NUMBER = re.compile(r"(?<=[ =<>(,\t\n])[0-9]{1,9}(?=[ ;),\t\n]|\Z)")
_MARK = "\0"


def shape(sql: str) -> str | None:
    """Return a text with a mark for each number, or None where it has none, or is not plainly read."""
    if len(sql) > LONGEST or not sql.isascii() or _MARK in sql:
        return None
    marked, count = _NUMBER.subn(_MARK, sql)
    return marked if count else None


def only_compares(sql: str) -> bool:
    """Say whether every number that `shape` marks is compared with a column, or limits the rows, of one SELECT."""
    statements = parse(sql.encode("ascii"))["stmts"]
    if len(statements) != 1 or "SelectStmt" not in statements[0]["stmt"]:
        return False
    places: set[int] = set()
    for kind, content, _ in walk(statements):
        if kind == "A_Expr" and content.get("kind") == "AEXPR_OP" and "ColumnRef" in content.get("lexpr", {}):
            places |= _place(content.get("rexpr"))
        elif kind == "SelectStmt":
            places |= _place(content.get("limitCount")) | _place(content.get("limitOffset"))
    return {found.start() for found in _NUMBER.finditer(sql)} <= places


def _place(node: Node | None) -> set[int]:
    """Return where an integer stands."""
    constant = (node or {}).get("A_Const", {})
    return {constant["location"]} if "ival" in constant and "location" in constant else set()
