"""Equality search: `WHERE ssn = $1` on a masked field that policy lets be searched compares the clear value.

Only one such predicate, AND-ed at the top of a plain SELECT's WHERE, of a table that is joined by inner joins alone,
with one constant or parameter. It moves into the sub-select that stands for the table; what the rest of the statement
sees of the field stays masked, so that a statement tells whether one value exists, and of which rows.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from broker.sql.catalogue import Catalogue, Column, Relation
from broker.sql.masks import quote_name
from broker.sql.relations import Scope
from broker.sql.rewrite import Rewriter, Source, fragment
from broker.sql.tree import Node, called, strings, wrapped

_TYPES = frozenset("text varchar bpchar uuid int2 int4 int8 numeric date".split())
_OUTER = frozenset({"JOIN_LEFT", "JOIN_RIGHT", "JOIN_FULL"})


@dataclass(frozen=True, slots=True)
class Candidate:
    """A predicate `row.field = value` at the top of a WHERE; `node` wraps its expression."""

    node: Node
    column: Node
    value: Node
    row: str
    field: str


def candidates(select: Node, statements: int) -> list[Candidate]:
    """Find the predicates that could be searches; what is none of them compares masked values."""
    if statements != 1 or "larg" in select or "lockingClause" in select or "intoClause" in select:
        return []
    found: list[Candidate] = []
    todo: list[Any] = [select.get("whereClause")]
    while todo:
        node = todo.pop()
        kind, content = wrapped(node) or ("", {})
        if kind == "BoolExpr" and content.get("boolop") == "AND_EXPR":
            todo += content["args"]
        elif kind == "A_Expr" and (one := _candidate(node, content)) is not None:
            found.append(one)
    return found


def _candidate(node: Node, content: Node) -> Candidate | None:
    if content.get("kind") != "AEXPR_OP" or strings(content.get("name", [])) != ["="]:
        return None
    sides = [content.get("lexpr", {}), content.get("rexpr", {})]
    for column, value in (sides, sides[::-1]):
        fields = column.get("ColumnRef", {}).get("fields", [])
        parts = strings(fields)
        plain = "ParamRef" in value or not set(value.get("A_Const", {"isnull": True})) & {"isnull", "boolval", "bsval"}
        if plain and 1 <= len(parts) == len(fields) <= 2:
            return Candidate(node, column["ColumnRef"], value, parts[0] if len(parts) == 2 else "", parts[-1])
    return None


def search(select: Node, found: Sequence[Candidate], scope: Scope, rewriter: Rewriter) -> tuple[tuple[str, int], ...]:
    """Have the one predicate that policy lets search compare clear values; returns its field, and how often an hour.

    To be called before relations are replaced. Where there are several, none is a search (fail closed).
    """
    if not scope.masked or scope.found.targets or scope.found.locks:
        return ()
    tables = list(_tables(select.get("fromClause", [])))
    allowed = [
        (one, content, relation, most)
        for one in found
        for content, relation in _named(one, tables, scope)
        if (most := _most(scope, relation, one.field)) is not None
    ]
    if len(allowed) != 1:
        return ()
    one, content, relation, most = allowed[0]
    _move(one, content, relation, scope, rewriter)
    return ((f"{relation.qualified}.{one.field}", most),)


def _tables(items: list[Node]) -> Iterator[tuple[Node, bool]]:
    """Yield what stands in a FROM, and whether a row of it always is one of the table's own."""
    stack: list[tuple[Any, bool]] = [(item, True) for item in items]
    while stack:
        item, inner = stack.pop()
        kind, content = wrapped(item) or ("", {})
        if kind == "JoinExpr":
            inner = inner and content.get("jointype") not in _OUTER
            stack += [(content["larg"], inner), (content["rarg"], inner)]
        elif kind == "RangeTableSample":
            # A sample is taken before the search, so that what it leaves out is not found.
            yield content["relation"]["RangeVar"], False
        else:
            yield content, inner and kind == "RangeVar"


def _named(one: Candidate, tables: list[tuple[Node, bool]], scope: Scope) -> Iterator[tuple[Node, Relation]]:
    known = {id(content): relation for _, content, _, relation in scope.resolved}
    if not one.row and len(tables) != 1:
        return
    named = [(content, inner) for content, inner in tables if one.row in ("", called(content))]
    if len(named) == 1 and named[0][1] and id(named[0][0]) in known and "colnames" not in named[0][0].get("alias", {}):
        yield named[0][0], known[id(named[0][0])]


def _most(scope: Scope, relation: Relation, field: str) -> int | None:
    """Return how often an hour a field may be searched; None where one of the rules that mask it does not say."""
    column = next((each for each in relation.columns if each.name == field), None)
    if relation.system or relation.kind not in ("r", "p") or column is None or field not in scope.masks_of(relation):
        return None
    if comparing(column, scope.catalogue) is None:
        return None
    heirs = {each.qualified for each in scope.catalogue.heirs.get(relation.oid, ())}
    rules = [scope.seen.fields.get(name) for name in {relation.qualified, *heirs, *scope.sight(relation).through}]
    masking = [each for each in rules if each is not None and each.mask_of(field) is not None]
    if not masking or any(field not in each.searches for each in masking):
        return None
    return min(each.searches[field] for each in masking)


def comparing(column: Column, catalogue: Catalogue) -> tuple[str, str] | None:
    """Return the schema of the operator that compares a column with a value, and the value's cast; None without one."""
    if column.code or column.type.endswith("[]"):
        return None
    if column.typname in _TYPES:
        return "pg_catalog", ""
    schema = column.type.removesuffix(".citext")
    # By the extension's own operator, which no other of users' could stand in for.
    if column.typname != "citext" or (schema.strip('"'), "=") in catalogue.operators:
        return None
    return schema, f"::{column.type}"


def _move(one: Candidate, content: Node, relation: Relation, scope: Scope, rewriter: Rewriter) -> None:
    source = rewriter.source
    ((_, inner),) = [(kind, each) for kind, each in one.value.items()]
    at = source.at(inner["location"])
    first = source.at(one.column["location"])
    last = source.name_end(first, len(one.column["fields"]))
    sides = (*_parenthesised(source, first, last), *_parenthesised(source, at, at))
    token = source.words[at]
    value = source.text[token.start : token.end].decode()
    (column,) = (each for each in relation.columns if each.name == one.field)
    schema, cast = comparing(column, scope.catalogue) or ("pg_catalog", "")
    scope.filters[id(content)] = f"t.{quote_name(one.field)} OPERATOR({schema}.=) {value}{cast}"
    rewriter.replace(source.words[min(sides)].start, source.words[max(sides)].end, "true")

    def move() -> None:
        one.node.clear()
        one.node.update(copy.deepcopy(fragment("SELECT true")["targetList"][0]["ResTarget"]["val"]))

    rewriter.also(move)


def _parenthesised(source: Source, first: int, last: int) -> tuple[int, int]:
    """Widen some words to the parentheses around them alone, which pgJDBC writes around values."""
    while source.word(first - 1) == "(" and source.word(last + 1) == ")":
        first, last = first - 1, last + 1
    return first, last
