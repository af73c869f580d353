"""`row.*` and `*` beside system columns: what stands for a relation has these too then, and a star would list them."""

from __future__ import annotations

from collections.abc import Iterator

from broker.sql.catalogue import Relation
from broker.sql.masks import quote_name
from broker.sql.model import Refusal
from broker.sql.relations import Scope
from broker.sql.rewrite import Rewriter, fragment
from broker.sql.tree import Node, joined, strings


def list_columns(scope: Scope, content: Node, relation: Relation, rewriter: Rewriter) -> None:
    """Name a relation's columns in the place of each star of a SELECT that means all of them."""
    row = quote_name(scope.called(content))
    text = ", ".join(f"{row}.{quote_name(column.name)}" for column in relation.columns)
    for select, target in _stars(scope, content):
        if not text:
            raise Refusal("system-column", f"{relation.name} has no columns that * could list", "leave out the *")
        fields = target["ResTarget"]["val"]["ColumnRef"]["fields"]
        words = rewriter.source
        first = words.at(target["ResTarget"]["val"]["ColumnRef"]["location"])
        last = words.name_end(first, len(fields))
        rewriter.replace(words.words[first].start, words.words[last].end, text)
        _list(select, target, text, rewriter)


def _list(select: Node, target: Node, text: str, rewriter: Rewriter) -> None:
    def move() -> None:
        at = next(index for index, node in enumerate(select["targetList"]) if node is target)
        select["targetList"][at : at + 1] = fragment(f"SELECT {text}")["targetList"]

    rewriter.also(move)


def _stars(scope: Scope, content: Node) -> Iterator[tuple[Node, Node]]:
    """Yield (SELECT, item of its list) of each star that means a relation; raises Refusal where it only could."""
    name = scope.called(content)
    for select in {id(each): each for each in scope.found.stars}.values():
        rows = joined(select.get("fromClause", []))
        here = any(row is content for row in rows)
        for target in select["targetList"]:
            fields = target["ResTarget"].get("val", {}).get("ColumnRef", {}).get("fields", [])
            if not fields or "A_Star" not in fields[-1] or strings(fields) not in ([], [name]):
                continue
            if here:
                yield select, target
            elif strings(fields) and not any(scope.called(row) == name for row in rows if "relname" in row):
                # It stands in a query within that of the relation, perhaps.
                raise Refusal("system-column", f"{name}.* could be of several rows here", "name the columns")
