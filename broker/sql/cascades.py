"""What foreign keys change beyond what a statement names: ON DELETE and ON UPDATE, followed to their end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from broker.sql.catalogue import Catalogue, Relation
from broker.sql.tree import Node

Columns = frozenset[str] | None
"""Which columns are set, or None where it could be any; of a row that is deleted, none is."""
_DELETED: Columns = frozenset()


def reached(catalogue: Catalogue, targets: Iterable[tuple[str, Node, Relation, frozenset[str]]]) -> frozenset[str]:
    """Return what follows writes, like `UPDATE public.lines`.

    Of each write: its kind, statement and relation, and what else that stands for.
    """
    found: set[tuple[str, int]] = set()
    done: set[tuple[int, bool, Columns]] = set()
    todo = [
        (each, deletes, columns if named or deletes else None)
        for kind, statement, relation, behind in targets
        for deletes, columns in _events(kind, statement)
        for each, named in _family(catalogue, relation, behind)
    ]
    while todo:
        relation, deletes, columns = todo.pop()
        if (relation.oid, deletes, columns) in done:
            continue
        done.add((relation.oid, deletes, columns))
        columns = _with_generated(catalogue, relation, columns)
        for key in relation.referrers:
            child = catalogue.by_oid.get(key.child)
            named = {column.name for column in relation.columns if column.attnum in key.columns}
            action = key.on_delete if deletes else key.on_update
            if child is None or action not in "cnd" or not (deletes or columns is None or columns & named):
                continue
            removes = deletes and action == "c"
            found.add(("DELETE" if removes else "UPDATE", child.oid))
            sets = frozenset(column.name for column in child.columns if column.attnum in key.child_columns)
            todo.append((child, True, _DELETED) if removes else (child, False, sets))
    return frozenset(f"{verb} {catalogue.by_oid[oid].qualified}" for verb, oid in found)


def emptied(catalogue: Catalogue, relations: Iterable[Relation]) -> frozenset[Relation]:
    """Return what TRUNCATE ... CASCADE empties beside some relations: what refers to them, whatever the key says.

    With partitions and children, and what these are of, as keys of theirs lead further: rather too many than too few.
    """
    found: dict[int, Relation] = {}
    todo = [each for one in relations for each in (one, *catalogue.heirs.get(one.oid, ()))]
    while todo:
        relation = todo.pop()
        if relation.oid in found:
            continue
        found[relation.oid] = relation
        children = [catalogue.by_oid[key.child] for key in relation.referrers if key.child in catalogue.by_oid]
        for child in children:
            todo += (child, *catalogue.ancestors.get(child.oid, ()), *catalogue.heirs.get(child.oid, ()))
    return frozenset(found.values())


def _with_generated(catalogue: Catalogue, relation: Relation, columns: Columns) -> Columns:
    """Return what changes where columns are set: what is generated from them too, and a key may refer to that."""
    numbers = {column.attnum: column.name for column in relation.columns}
    return columns and columns.union(
        numbers[at]
        for at, sources in catalogue.generated.get(relation.oid, {}).items()
        if at in numbers and columns & {numbers.get(source, "") for source in sources or numbers}
    )


def _family(catalogue: Catalogue, relation: Relation, behind: frozenset[str]) -> Iterator[tuple[Relation, bool]]:
    """Yield what a target's rows could be of, and whether it has the same names for their columns.

    That is its partitions and children, and what stands behind a view.
    """
    yield from ((each, True) for each in (relation, *catalogue.heirs.get(relation.oid, ())))
    yield from ((catalogue.by_name[name], False) for name in behind if name in catalogue.by_name)


def _events(kind: str, statement: Node) -> Iterator[tuple[bool, Columns]]:
    """Yield what a statement does to rows that are there: (whether it deletes them, what it sets)."""
    match kind:
        case "DeleteStmt":
            yield True, _DELETED
        case "UpdateStmt":
            yield False, _set(statement.get("targetList", []))
        case "InsertStmt" if "onConflictClause" in statement:
            yield False, _set(statement["onConflictClause"].get("targetList", []))
        case "MergeStmt":
            for clause in statement.get("mergeWhenClauses", []):
                content = clause["MergeWhenClause"]
                if content.get("commandType") == "CMD_DELETE":
                    yield True, _DELETED
                elif content.get("commandType") == "CMD_UPDATE":
                    yield False, _set(content.get("targetList", []))


def _set(targets: Iterable[Node]) -> Columns:
    return frozenset(str(target["ResTarget"].get("name", "")) for target in targets)
