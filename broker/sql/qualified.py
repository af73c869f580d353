"""Names that say their database too (`"crm"."public"."accounts"`, as dbt writes them): it is left out before all else.

A server takes none but its own there. A session's database is called as its ticket calls it, and as the upstream does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from broker.sql.library import TokenKind
from broker.sql.rewrite import Rewriter, Source
from broker.sql.tree import Node, wrapped

_PARTS = {
    **dict.fromkeys((f"OBJECT_{kind}" for kind in "TABLE VIEW MATVIEW INDEX SEQUENCE FOREIGN_TABLE".split()), 3),
    "OBJECT_COLUMN": 4,
}
"""What is dropped or commented on -> the parts of a name of it that says its database."""


def leave_out(databases: frozenset[str], source: Source, rewriter: Rewriter) -> None:
    """Leave the session's own database out of the names in a text and its tree; another one is left where it is."""
    said = source.text.lower()
    if not any(name.lower().encode() in said for name in databases):
        return
    places = dict(_places(databases, source))
    if not places:
        return
    for raw in rewriter.tree.get("stmts", []):
        kind, content = wrapped(raw["stmt"]) or ("", {})
        _leave_out_of(content, places, databases, rewriter)
        if kind in ("DropStmt", "CommentStmt"):
            start = raw.get("stmt_location", 0)
            end = start + (raw.get("stmt_len") or len(source.text) - start)
            _leave_out_of_lists(content, {at: found for at, found in places.items() if start <= at < end}, rewriter)


def _places(databases: frozenset[str], source: Source) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield where a dotted name begins with a database: where it goes on, and how many parts it has."""
    at, words = 0, source.words
    while at < len(words):
        last = at
        while last + 2 < len(words) and words[last + 1].kind == TokenKind.DOT:
            last += 2
        if last - at >= 4 and _name(source, at) in databases:
            yield words[at].start, (words[at + 2].start, (last - at) // 2 + 1)
        at = last + 1


def _name(source: Source, at: int) -> str:
    token = source.words[at]
    text = source.text[token.start : token.end].decode()
    return text[1:-1].replace('""', '"') if text.startswith('"') else text.lower()


def _leave_out_of(
    root: Node, places: dict[int, tuple[int, int]], databases: frozenset[str], rewriter: Rewriter
) -> None:
    stack: list[Any] = [root]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack.extend(value)
        elif isinstance(value, dict):
            start = value.get("location", 0)
            begin, parts = places.get(start, (0, 0))
            if parts == 3 and value.get("catalogname") in databases:
                del value["catalogname"]
            elif parts == 4 and len(value.get("fields", ())) == 4:
                del value["fields"][0]
            else:
                begin = 0
            if begin:
                value["location"] = begin
                rewriter.replace(start, begin, "")
            stack.extend(value.values())


def _leave_out_of_lists(content: Node, places: dict[int, tuple[int, int]], rewriter: Rewriter) -> None:
    """Leave it out of names that are lists, of which the tree does not say where they stand."""
    parts = _PARTS.get(content.get("removeType") or content.get("objtype") or "", 0)
    named = [one for one in (*content.get("objects", []), content.get("object", {})) if "List" in one]
    long = [one["List"]["items"] for one in named if len(one["List"]["items"]) == parts]
    found = {at: begin for at, (begin, count) in places.items() if count == parts}
    # Names of another database would be among the first and not among the second.
    if len(long) == len(found):
        for items, (start, begin) in zip(long, found.items(), strict=True):
            del items[0]
            rewriter.replace(start, begin, "")
