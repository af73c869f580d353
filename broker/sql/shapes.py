"""Shapes: texts that differ in nothing but plain numbers which a column is compared with, or which limit the rows.

Inspection looks at no such number, so what it found of one text of a shape holds for every other; its rewriting too,
with the other's numbers in their places. Not libpg_query's
fingerprint: that makes texts equal which mean different things. Here every byte counts but those digits, and they are
marked only where the parser has said of one text that each of them is such a number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import accumulate

from broker.sql.library import parse
from broker.sql.rewrite import Runs
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


@dataclass(frozen=True, slots=True)
class Template:
    """The rewriting of one text of a shape, from which that of the others is made.

    `parts` stand around the numbers; `runs` are its runs, each with how many numbers come before it, and are inside.
    """

    parts: tuple[str, ...]
    sizes: tuple[int, ...]
    runs: tuple[tuple[int, int, int, int, int], ...]

    @classmethod
    def of(cls, sql: str, rewritten: str, runs: Runs) -> Template | None:
        """Learn it; None where a number is not deep in what was left as it was."""
        parts: list[str] = []
        counted = [[0, 0] for _ in runs]
        at, places = 0, [found.span() for found in _NUMBER.finditer(sql)]
        for start, end in places:
            # With what ends its token on both sides, or it might be read in another way.
            kept = [n for n, (_, old, length) in enumerate(runs) if old < start and end < old + length]
            if len(kept) != 1:
                return None
            new, old, _ = runs[kept[0]]
            parts.append(rewritten[at : new + start - old])
            at = new + end - old
            counted[kept[0]][1] += 1
            for later in counted[kept[0] + 1 :]:
                later[0] += 1
        counts = tuple((*run, before, inside) for run, (before, inside) in zip(runs, counted, strict=True))
        return cls((*parts, rewritten[at:]), tuple(end - start for start, end in places), counts)

    def fit(self, sql: str) -> tuple[str, Runs]:
        """Return the rewriting of another text of the shape, and its runs."""
        numbers = _NUMBER.findall(sql)
        written = [word for pair in zip(self.parts, (*numbers, ""), strict=True) for word in pair]
        moved = (0, *accumulate(len(one) - size for one, size in zip(numbers, self.sizes, strict=True)))
        runs = [
            (new + moved[before], old + moved[before], length + moved[before + inside] - moved[before])
            for new, old, length, before, inside in self.runs
        ]
        return "".join(written), tuple(runs)
