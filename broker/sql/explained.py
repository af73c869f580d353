"""What EXPLAIN must not show or count: hidden literals of the catalogue, and what follows masked fields."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Any

from broker.sql.catalogue import Relation
from broker.sql.collected import Collected
from broker.sql.comparing import compared
from broker.sql.model import Refusal
from broker.sql.relations import Scope
from broker.sql.rewrite import fragment
from broker.sql.tree import Node, walk

_SKIPPING = 18_00_00
"""From this version on an index is searched once for each value of a column that stands before those compared."""
_WITHIN = frozenset({"RangeSubselect", "SubLink", "CommonTableExpr"})
"""Queries in a query: what they list may be compared around them, under other names."""
_LEFT_OUT = {"sval": "", "ival": 0, "fval": "", "bsval": ""}
"""Kinds of literals that tell something, and the value that the parser leaves out of each."""
_NAMING = frozenset({"alias", "isNatural"})
_ARRANGING = frozenset({"distinctClause", "groupClause", "sortClause"})


def check_explained(root: Any, found: Collected, scope: Scope) -> None:
    """Refuse to explain what a plan would show the definition of, whose literals the catalogue hides."""
    if scope.views:
        raise Refusal("explain", "EXPLAIN of a view would show its definition", "explain a query on its tables")
    if planned := sorted(str(overload.function) for overload in found.own if overload.planned):
        raise Refusal("explain", f"EXPLAIN of {planned[0]} would show its definition", "explain the query without it")
    tests = _Tests.of(root, found)
    said = _constants(root)
    read = [(content, relation) for _, content, _, relation in scope.resolved]
    for content, relation in [*read, *((content, scope.target(content)) for _, content, _ in found.targets)]:
        for each in (relation, *scope.catalogue.heirs.get(relation.oid, ())):
            for columns, condition in each.literals:
                if tests.any_of(columns, each, scope.called(content), content) and not _known(condition, said):
                    raise Refusal(
                        "explain",
                        f"EXPLAIN could show the condition of an index of {each.qualified}, whose values are hidden",
                        "compare other columns, or the same values",
                    )
            for column in each.columns:
                if (each.oid, column.attnum) in scope.catalogue.virtual and scope.mentions(content, column.name):
                    shown = f"{each.qualified}.{column.name}"
                    raise Refusal("explain", f"EXPLAIN of {shown} would show its definition", "name other columns")


def check_measured(unread: Set[str], compared: Set[str]) -> None:
    """Refuse to have run, for EXPLAIN, what compares fields that are left out of it: it would be another query."""
    if both := sorted(unread & compared):
        raise Refusal(
            "explain",
            f"EXPLAIN ANALYZE of what compares {both[0]} would tell its length, and it is masked for you",
            "leave ANALYZE out, or the comparison",
        )


def check_fired(found: Collected, scope: Scope) -> None:
    """Refuse to have a change run for EXPLAIN, which counts calls of triggers, where masked fields decide these.

    A condition may be of them, and a foreign key's trigger is called where its columns are set to something else.
    """
    targets = [scope.target(content) for _, content, _ in found.targets]
    below = [each for target in targets for each in scope.catalogue.heirs.get(target.oid, ())]
    following = [scope.catalogue.by_name[one.partition(" ")[2]] for one in sorted(scope.follows)]
    for each in (*targets, *below, *following):
        if (sight := scope.sight(each)).masks or sight.tainted:
            raise Refusal(
                "explain",
                f"EXPLAIN ANALYZE counts the calls of triggers and foreign keys of {each.qualified}, and those follow "
                "fields that are masked for you",
                "leave ANALYZE out",
            )


def check_searched(root: Any, found: Collected, scope: Scope) -> None:
    """Refuse to have the searches of an index counted that is ordered by a masked field before what is compared."""
    if scope.catalogue.server_version < _SKIPPING:
        return
    tests = _Tests.of(root, found)
    for _, content, _, relation in scope.resolved:
        masks = scope.masked.get(relation.qualified, {})
        for each in (relation, *scope.catalogue.heirs.get(relation.oid, ())) if masks else ():
            hidden = {0} | {column.attnum for column in each.columns if column.name in masks}
            for index in each.indexes:
                skipped = next((at for at, number in enumerate(index.order) if number in hidden), len(index.order))
                if tests.any_of({*index.order[skipped:]} - hidden, each, scope.called(content), content):
                    raise Refusal(
                        "explain",
                        f"EXPLAIN ANALYZE counts the searches of {index.name}, and those follow fields of "
                        f"{each.qualified} that are masked for you",
                        "leave ANALYZE out",
                    )


@dataclass(frozen=True, slots=True)
class _Tests:
    """The columns by which a query finds rows, by name; where other names may stand for them, every one it has."""

    found: Collected
    names: Set[str]
    plain: bool
    listed: bool = False
    """One that a star lists counts too."""

    @classmethod
    def of(cls, root: Any, found: Collected) -> _Tests:
        if any(kind in _WITHIN or (kind == "JoinExpr" and _NAMING & set(content)) for kind, content, _ in walk(root)):
            # Around what the outermost query lists there is nothing that could compare it.
            listed = any(each is not root.get("SelectStmt") for each in found.stars)
            return cls(found, found.names, plain=False, listed=listed)
        tests = [(clause, content) for clause, content in found.clauses if clause not in _ARRANGING]
        return cls(found, {name for _, name in compared(tests)}, plain=True)

    def any_of(self, columns: Set[int], relation: Relation, called: str, content: Node) -> bool:
        """Say whether any of some columns of a relation is compared, or could be."""
        if not columns or any(one.attnum in columns and one.name in self.names for one in relation.columns):
            return bool(columns)
        if self.plain:
            return called in self.names or "colnames" in content.get("alias", {})
        return self.found.whole(content, {called}, listed=self.listed)


def _known(condition: str, said: Set[str]) -> bool:
    """Say whether a condition has no other literals than a statement that it is shown to."""
    try:
        return _constants(fragment(f"SELECT {condition}")) <= said
    except Refusal:
        return False


def _constants(root: Any) -> set[str]:
    found = set()
    for _, content, _ in (each for each in walk(root) if each[0] == "A_Const"):
        found |= {str(content[key].get(key, _LEFT_OUT[key])) for key in _LEFT_OUT if key in content}
    return found
