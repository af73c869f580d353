"""What is checked of a query once its relations are resolved: its effects, and that it cannot read what it may not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from broker.sql.catalogue import Relation
from broker.sql.collect import collect
from broker.sql.collected import Collected
from broker.sql.model import Refusal
from broker.sql.names import own_operator
from broker.sql.nodes import QUERIES
from broker.sql.relations import Scope, placed
from broker.sql.system import SYSTEM_COLUMNS
from broker.sql.tree import Node, called, placeless, strings, wrapped
from policies.engine.decisions import Effect


def effects_of(found: Collected) -> set[Effect]:
    """Return what a query does, by what it targets, locks and sets; RETURNING reads what is changed."""
    effects = {Effect.WRITE} if found.targets or found.locks else set()
    effects |= {Effect.SESSION} if found.sets else set()
    return effects | ({Effect.READ} if any("returningClause" in each for _, _, each in found.targets) else set())


_ACTIONS = {"CMD_INSERT": "INSERT", "CMD_UPDATE": "UPDATE", "CMD_DELETE": "DELETE"}


def does(found: Collected) -> frozenset[str]:
    """Return what changes data in a query, at any depth."""
    verbs: set[str] = set()
    for kind, _, statement in found.targets:
        verbs |= {QUERIES[kind]} if kind in QUERIES else set()
        if statement.get("onConflictClause", {}).get("action") == "ONCONFLICT_UPDATE":
            verbs.add("UPDATE")
        clauses = [one["MergeWhenClause"] for one in statement.get("mergeWhenClauses", [])]
        verbs |= {_ACTIONS[one["commandType"]] for one in clauses if one.get("commandType") in _ACTIONS}
    return frozenset(verbs)


_CONDITIONS = {"UpdateStmt": "whereClause", "DeleteStmt": "whereClause", "MergeStmt": "joinCondition"}


def missing_where(found: Collected, scope: Scope) -> frozenset[str]:
    """Return what is changed under a condition that leaves no row out by a column of its own, such as `true`."""
    return frozenset(
        scope.target(content).qualified
        for kind, content, statement in found.targets
        if kind in _CONDITIONS
        and not all(_narrows(condition, content, scope) for condition in _conditions(kind, statement))
    )


def _conditions(kind: str, statement: Node) -> Iterator[Any]:
    """Yield what says which rows a statement changes; a MERGE may change those that its source does not have."""
    yield statement.get(_CONDITIONS[kind])
    for clause in (one["MergeWhenClause"] for one in statement.get("mergeWhenClauses", [])):
        changes = clause.get("commandType") in ("CMD_UPDATE", "CMD_DELETE")
        if changes and clause.get("matchKind") == "MERGE_WHEN_NOT_MATCHED_BY_SOURCE":
            yield clause.get("condition")


def _narrows(condition: Any, content: Node, scope: Scope, *, negated: bool = False) -> bool:
    """Say whether a condition names a column of a target, and not beside what lets every row pass, or only itself."""
    kind, part = wrapped(condition) or ("", {})
    if kind == "BoolExpr":
        negated ^= part["boolop"] == "NOT_EXPR"
        enough = all if (part["boolop"] == "OR_EXPR") != negated else any
        return enough(_narrows(each, content, scope, negated=negated) for each in part["args"])
    if kind == "A_Expr" and placeless(part.get("lexpr")) == placeless(part.get("rexpr")):
        return False
    return _names_column(condition, content, scope)


def _names_column(condition: Any, content: Node, scope: Scope) -> bool:
    """Say whether a condition names a column of a target, or could: another table's says nothing of its rows."""
    relation, called = scope.target(content), scope.called(content)
    own = SYSTEM_COLUMNS | {column.name for column in relation.columns}
    others = {column.name for _, _, _, other in scope.resolved for column in other.columns}
    stack = [(condition, own)]
    while stack:
        node, bare = stack.pop()
        if isinstance(node, list):
            stack += [(each, bare) for each in node]
        elif isinstance(node, dict):
            fields = node.get("ColumnRef", {}).get("fields", [])
            parts = strings(fields)
            rows = parts[:-1] if 1 < len(parts) == len(fields) else parts
            if parts and (not relation.columns or called in rows or (len(fields) == 1 and parts[0] in bare)):
                return True
            # Within a query of its own, a name is first of what that reads.
            stack += [(each, bare - others if key == "subselect" else bare) for key, each in node.items()]
    return False


_ITSELF = (
    "query the tables themselves: sum(x) FILTER (WHERE ...) does what crosstab does, WITH RECURSIVE what connectby does"
)


def check_calls(found: Collected, scope: Scope) -> None:
    """Refuse functions that return rows of a relation with masked fields, or read what they are told to by a text:
    nothing masks that on its way.
    """
    for overload in sorted(found.own, key=lambda each: each.function):
        if found.apart and not overload.function.computes:
            raise own_operator(min(found.apart))
        if overload.reaches and not found.in_clear:
            # A rule that names it would have every field read that the upstream's role may read.
            message = f"{overload.function} runs or reads what it is told to by a text, where nothing would be masked"
            raise Refusal("function-reaches", message, _ITSELF)
        relation = scope.catalogue.by_oid.get(overload.returns)
        if relation is not None and scope.masks_of(relation):
            message = f"{overload.function} returns rows of {relation.qualified}, which has masked fields"
            raise Refusal("function-defined", message, f"query {relation.qualified} itself")


def _of_target(kind: str, statement: Node, found: Collected, scope: Scope) -> Collected:
    """Return what could name the row that is written: what is in its statement, but for the queries of its WITH.

    Of an INSERT that is what stands behind its source, which cannot name it.
    """
    if kind in ("UpdateStmt", "DeleteStmt", "MergeStmt"):
        own = {kind: {key: value for key, value in statement.items() if key != "withClause"}}
        return collect(own, scope.catalogue, found.passed, in_clear=found.in_clear, named=found.named)
    if kind != "InsertStmt":
        return found
    conflict = statement.get("onConflictClause", {})
    relation = scope.target(statement["relation"])
    items = [
        one
        for one in map(_assigned, conflict.get("targetList", []))
        if not _takes_over(one["ResTarget"], called(statement["relation"]), relation)
    ]
    behind = [{**conflict, "targetList": items}, statement.get("returningClause", [])]
    return collect(behind, scope.catalogue, found.passed, in_clear=found.in_clear, named=found.named)


def _assigned(item: Node) -> Node:
    """Return an item of `SET (a, b) = (x, y)` as if it stood alone."""
    several = item["ResTarget"].get("val", {}).get("MultiAssignRef", {})
    values = several.get("source", {}).get("RowExpr", {}).get("args", [])
    if len(values) != several.get("ncolumns"):
        return item
    return {"ResTarget": {**item["ResTarget"], "val": values[several["colno"] - 1]}}


def _takes_over(target: Node, row: str, relation: Relation) -> bool:
    """Say whether an item of DO UPDATE is `field = excluded.field`, which shows nothing of either.

    Of `coalesce(excluded.field, ...)` its sender alone knows which one it takes: the field itself, or a plain value.
    """
    name, value = target["name"], target.get("val", {})
    if "indirection" in target:
        return False
    first, *others = value.get("CoalesceExpr", {}).get("args", [value])
    if others and not any(column.name == name and not column.code for column in relation.columns):
        return False
    # What stands behind the field's own value is taken where that is null, and could fail; what has a type rounds it.
    last = others[-1:] if others and not _is_column(others[-1], row, name) else []
    return _is_column(first, "excluded", name) and all("A_Const" in one for one in [*others[:-1], *last])


def _is_column(value: Node, row: str, name: str) -> bool:
    fields = value.get("ColumnRef", {}).get("fields", [])
    return strings(fields) == [row, name] and len(fields) == 2


def _tests_masked(relation: Relation, scope: Scope, constraint: str) -> bool:
    """Say whether a row could be in conflict with another by a masked field; by all there is, or by one constraint."""
    if relation.kind not in ("r", "p"):
        return True
    # A constraint's index is called as it is. Those of partitions have its columns, under other names.
    named = [index for index in relation.indexes if index.name == constraint]
    for each in (relation, *(() if named else scope.catalogue.heirs.get(relation.oid, ()))):
        hidden = {0} | {column.attnum for column in each.columns if column.name in scope.masks_of(each)}
        # A condition could be of a masked field as well.
        if hidden != {0} and any(index.partial or index.key & hidden for index in named or each.indexes):
            return True
    return False


def _set_in_part(statement: Node) -> set[str]:
    """Return the columns of which a change sets an element, a key or a field, by what they hold."""
    targets = [*statement.get("targetList", []), *statement.get("onConflictClause", {}).get("targetList", [])]
    for clause in statement.get("mergeWhenClauses", []):
        if clause["MergeWhenClause"].get("commandType") == "CMD_UPDATE":
            targets += clause["MergeWhenClause"].get("targetList", [])
    return {one["ResTarget"]["name"] for one in targets if "indirection" in one["ResTarget"]}


def check_writes(found: Collected, scope: Scope) -> None:
    """Refuse a write that could read a masked field of its own target: names decide, so nothing gets around it."""
    for kind, content, statement in found.targets:
        relation = scope.target(content)
        hidden = set(scope.masks_of(relation))
        masked = bool(hidden) or scope.sight(relation).tainted
        coded = relation.row_casts or any(column.code == "type" for column in relation.columns)
        if not masked and not coded:
            continue
        reads_itself = kind != "InsertStmt" or "returningClause" in statement or "onConflictClause" in statement
        said = _of_target(kind, statement, found, scope) if reads_itself else found
        called_so = {relation.name, called(content), "excluded", "old", "new"}
        whole = reads_itself and said.whole(content, called_so | said.rows)
        arbiter = statement.get("onConflictClause", {"infer": {}}).get("infer", {"conname": ""})
        if masked and "conname" in arbiter and _tests_masked(relation, scope, arbiter["conname"]):
            raise Refusal(
                "write-reads-masked",
                "ON CONFLICT without columns could test a masked field",
                "name the columns that it is about",
            )
        if parts := sorted(hidden & _set_in_part(statement)):
            raise Refusal(
                "write-reads-masked",
                f"setting a part of {relation.qualified}.{parts[0]} would read the rest, and it is masked for you",
                "set the whole field",
            )
        columns = said.names if said is found or kind == "InsertStmt" else _named(said, called_so | said.rows)
        read = sorted(hidden & (columns | said.functions)) if reads_itself else []
        if read or (whole and hidden):
            field = f"{relation.qualified}.{read[0]}" if read else f"every field of {relation.qualified}"
            raise Refusal(
                "write-reads-masked",
                f"this would read {field} while changing it, and it is masked for you",
                f"name only clear fields, or list plain columns in RETURNING; masked: {', '.join(sorted(hidden))}",
            )
        if coded and reads_itself:
            _check_casts(relation, said, found, whole=whole)
        if reads_itself:
            _check_order(kind, relation, said, scope)


def _named(said: Collected, rows: set[str]) -> set[str]:
    """Return the columns that are named and could be of a target, which goes by some names, and not of other rows."""
    others = said.aliases.keys() - rows
    return said.bare | {name for row, name in said.attributes if row not in others}


def _check_order(kind: str, relation: Relation, said: Collected, scope: Scope) -> None:
    """Refuse what would tell masked fields by where a target's rows lie, or by the order in which they are changed."""
    sight = scope.sight(relation)
    if "tableoid" in said.names and sight.placed:
        raise placed(relation, sight)
    if kind != "InsertStmt" and sight.stored:
        # All of a view is computed where a trigger changes its rows: also what nobody reads, and sorts them.
        raise Refusal(
            "relation-rows",
            f"the order in which rows of {relation.qualified} are changed follows {sight.stored[0]}, which is masked "
            "for you",
            "change the tables behind it",
        )


def _check_casts(relation: Relation, said: Collected, found: Collected, *, whole: bool) -> None:
    """Refuse what could call a cast of users' with what is read of a target, which no sub-select gives otherwise.

    Where nothing is masked that is a matter of rules.
    """
    own = "run code of this database's own"
    coded = {
        f"type of {relation.qualified}.{column.name}": f"values of {relation.qualified}.{column.name} {own}"
        for column in relation.columns
        if column.code == "type" and (whole or column.name in said.names | said.functions)
    }
    if relation.row_casts and whole:
        coded[f"casts of {relation.qualified}"] = f"casts of whole rows of {relation.qualified} {own}"
    if coded and not found.in_clear:
        raise Refusal("type", next(iter(coded.values())), "name the columns that you need, without it")
    found.coded |= coded.keys()
