"""Reveal: `airlock.reveal(field)` in a SELECT's target list has one masked field come in clear, once it is approved.

The field's relation gives the clear column a second time, under a name that nothing else in the statement may say, so
that every other part of it still sees the mask. Wherever more than that output could depend on it, it is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from broker.sql.catalogue import Relation
from broker.sql.collected import Collected
from broker.sql.masks import quote_name
from broker.sql.model import Refusal
from broker.sql.relations import Scope
from broker.sql.rewrite import Rewriter
from broker.sql.tree import Node, called, strings, wrapped

FUNCTION = ["airlock", "reveal"]
_NAME = "airlock_reveal_"
_HOW = "write it in a plain SELECT: select id, airlock.reveal(ssn) from customers where id = 1"
_PARTS = {
    "distinctClause": "DISTINCT",
    "groupClause": "GROUP BY",
    "havingClause": "HAVING",
    "lockingClause": "FOR UPDATE",
    "intoClause": "INTO",
    "larg": "UNION, INTERSECT and EXCEPT",
}


@dataclass(frozen=True, slots=True)
class Reveal:
    """One `airlock.reveal(row.field)` at an output position, counted from 0; `target` is its ResTarget."""

    target: Node
    call: Node
    position: int
    row: str
    field: str

    @property
    def output(self) -> str:
        name: str = self.target.get("name", self.field)
        return name


def reveals_in(select: Node, statements: int) -> list[Reveal]:
    """Find what a SELECT reveals in its target list; raises Refusal for what it cannot reveal there."""
    found: list[Reveal] = []
    for position, each in enumerate(select.get("targetList", [])):
        call = each["ResTarget"].get("val", {}).get("FuncCall", {})
        if strings(call.get("funcname", [])) == FUNCTION:
            found.append(_reveal(each["ResTarget"], call, position))
    if not found:
        return []
    if statements > 1:
        raise _refusal("airlock.reveal is sent in a message of its own", "send the SELECT by itself")
    if parts := [words for key, words in _PARTS.items() if key in select]:
        raise _refusal(f"airlock.reveal does not go together with {parts[0]}", _HOW)
    names = {one.output for one in found}
    for item in select.get("sortClause", []):
        kind, content = wrapped(item["SortBy"]["node"]) or ("", {})
        if kind == "A_Const" or (kind == "ColumnRef" and strings(content["fields"])[-1:] in [[name] for name in names]):
            # That would sort by the clear value, and a LIMIT show where it stands among values not shown.
            raise _refusal("ORDER BY cannot name what is revealed", "order by a field that is not masked")
    return found


def _reveal(target: Node, call: Node, position: int) -> Reveal:
    arguments = call.get("args", [])
    plain = not any(call.get(key) for key in ("agg_order", "agg_filter", "over", "agg_star", "agg_distinct"))
    fields = arguments[0].get("ColumnRef", {}).get("fields", []) if len(arguments) == 1 else []
    parts = strings(fields)
    if not plain or call.get("func_variadic") or not parts or len(parts) != len(fields) or len(parts) > 2:
        raise _refusal("airlock.reveal takes one field, by its name or as table.field", _HOW)
    return Reveal(target, call, position, parts[0] if len(parts) == 2 else "", parts[-1])


def reveal(
    select: Node, reveals: Sequence[Reveal], scope: Scope, rewriter: Rewriter
) -> tuple[frozenset[str], tuple[tuple[int, int, int], ...]]:
    """Have each field read in clear at its own output; returns the fields and (position, oid, attnum) of each.

    To be called before relations are replaced.
    """
    _check_rest(scope.found)
    tables = list(_tables(select.get("fromClause", [])))
    fields: set[str] = set()
    places: list[tuple[int, int, int]] = []
    for one in reveals:
        content, relation = _relation(one, tables, scope)
        column = next((each for each in relation.columns if each.name == one.field), None)
        if column is None:
            raise Refusal("reveal", f'column "{one.field}" does not exist', sqlstate="42703", retry=True)
        if relation.system or one.field not in scope.masks_of(relation):
            raise _refusal(f"{one.field} is not masked for you", "write it without airlock.reveal")
        if relation.kind not in ("r", "p"):
            raise _refusal(f"{relation.qualified} is not a table", "reveal the field from the table that holds it")
        if column.code:
            raise _refusal(f"{one.field} has a type that runs code of this database's own", "it cannot be revealed")
        if scope.found.whole(content, {scope.called(content)}):
            raise _refusal(f"airlock.reveal does not go together with all of {scope.called(content)}", _HOW)
        fields |= _masked_by(scope, relation, one.field)
        name = f"{_NAME}{column.attnum}"
        scope.revealed.setdefault(id(content), {})[name] = one.field
        _rewrite(one, scope.called(content), name, rewriter)
        places.append((one.position, relation.oid, column.attnum))
    return frozenset(fields), tuple(places)


def _check_rest(found: Collected) -> None:
    """Refuse whatever could reach the clear column by another way than its name, or by that."""
    if found.targets or found.sets:
        raise _refusal("airlock.reveal does not go together with a change", _HOW)
    if found.star or found.starred or found.spread:
        raise _refusal("airlock.reveal does not go together with *", "name the fields that you need")
    if any(name.startswith(_NAME) for name in found.names | found.bare | found.functions):
        raise _refusal(f"names that begin with {_NAME} are the broker's own here", "use another name")


def _tables(items: list[Node]) -> Iterator[tuple[str, Node]]:
    """Yield (kind, content) of what stands in a FROM, looking through joins."""
    stack: list[Any] = list(items)
    while stack:
        kind, content = wrapped(stack.pop()) or ("", {})
        if kind == "JoinExpr":
            stack += [content["larg"], content["rarg"]]
        elif kind == "RangeTableSample":
            yield wrapped(content["relation"]) or ("", {})
        else:
            yield kind, content


def _relation(one: Reveal, tables: list[tuple[str, Node]], scope: Scope) -> tuple[Node, Relation]:
    if not one.row and len(tables) != 1:
        raise _refusal(f"{one.field} could be of several tables", f"write airlock.reveal(table.{one.field})")
    known = {id(content): relation for _, content, _, relation in scope.resolved}
    named = [content for _, content in tables if one.row in ("", called(content))]
    if len(named) != 1 or id(named[0]) not in known:
        raise _refusal(f"{one.field} is revealed from a table that stands in FROM itself", _HOW)
    return named[0], known[id(named[0])]


def _masked_by(scope: Scope, relation: Relation, field: str) -> set[str]:
    """Return the field in each relation of a family whose rules mask it: all of them must let it be revealed."""
    heirs = {each.qualified for each in scope.catalogue.heirs.get(relation.oid, ())}
    family = {relation.qualified, *heirs, *scope.sight(relation).through}
    rules = {name: scope.seen.fields.get(name) for name in family}
    found = {f"{name}.{field}" for name, each in rules.items() if each is not None and each.mask_of(field) is not None}
    # What is masked for another reason has no rule that could reveal it, and is denied for that.
    return found or {f"{relation.qualified}.{field}"}


def _rewrite(one: Reveal, row: str, name: str, rewriter: Rewriter) -> None:
    source = rewriter.source
    first = source.at(one.call["location"])
    opening = source.name_end(first, 2) + 1
    if source.word(opening) != "(":
        raise Refusal("rewrite", "this form of airlock.reveal cannot be masked: write it plainly")
    label = "" if "name" in one.target else f" AS {quote_name(one.field)}"
    start, end = source.words[first].start, source.words[source.closing(opening)].end
    rewriter.replace(start, end, f"{quote_name(row)}.{quote_name(name)}{label}")

    def move() -> None:
        parts = [{"String": {"sval": part}} for part in (row, name)]
        one.target["val"] = {"ColumnRef": {"fields": parts}}
        one.target.setdefault("name", one.field)

    rewriter.also(move)


def _refusal(message: str, hint: str) -> Refusal:
    return Refusal("reveal", message, hint)
