"""Lineage: of which columns the outputs of a view are made, and which columns decide what rows it has.

Read from the view's stored tree, in which the server has resolved every name. What is not understood raises, and a view
whose lineage is unknown is refused (fail closed). Lineage goes one view deep; views in views are followed by who asks.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import lru_cache
from typing import Any

from broker.sql.nodetree import UnreadableTree, listed, nodes, number, read
from broker.sql.tree import Node

Origin = tuple[int, int]
"""(relation oid, attnum); attnum 0 is the whole row, a negative one a system column."""
Origins = frozenset[Origin]
NONE: Origins = frozenset()

_UNION = 1  # SetOperation
_SIDES = ("larg", "rarg")
_NULLED = {"1": ("rarg",), "3": ("larg",)}
"""JoinType (left, right) -> the side that has NULLs where nothing is joined; a full join has them on both."""
_ROUNDS = 100
_CALLED = ("funcid", "aggfnoid", "winfnoid", "tsmhandler")


class Kind(IntEnum):
    """What stands in a range table (RTEKind)."""

    RELATION = 0
    SUBQUERY = 1
    JOIN = 2
    FUNCTION = 3
    TABLE_FUNCTION = 4
    VALUES = 5
    CTE = 6
    RESULT = 8
    GROUP = 9


@dataclass(frozen=True, slots=True)
class Derived:
    """What a value depends on in any way; `bare` where it is one column as it stands."""

    origins: Origins = NONE
    bare: Origin | None = None


@dataclass(frozen=True, slots=True)
class Lineage:
    """A view's output columns in order, what decides which rows it has and in which order, and what it reads."""

    columns: tuple[Derived, ...]
    rows: Origins
    relations: frozenset[int]
    calls: frozenset[int] = frozenset()
    """oids of the functions that it calls by name."""
    locks: bool = False
    stored: Origins = NONE
    """What decides the same where all of it is computed: the order of windows that nobody reads counts too."""
    keeps: bool = False
    """What it reads, or some of that, is computed whole."""


@lru_cache(maxsize=4096)
def lineage(text: str) -> Lineage | None:
    """Return the lineage of a view from its `_RETURN` rule's action, or None where it is not understood."""
    try:
        (query,) = read(text)
        found = _Query(query, None)
        columns = found.outputs()
        everything = list(nodes(query))
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return Lineage(
        columns,
        found.rows(),
        frozenset(number(each, "relid") for each in everything if each.get("rtekind") == "0" and _in_from(each)),
        frozenset(_calls(everything)),
        any(listed(each, "rowMarks") for each in everything if each[""] == "QUERY"),
        _Query(query, None, kept=True).rows(),
        any(_kept(each) for each in everything),
    )


def computed_whole(found: Lineage) -> Lineage:
    """Return the lineage of a view with side effects: what has some is computed though nobody reads it."""
    return replace(found, rows=found.stored, keeps=True)


@lru_cache(maxsize=4096)
def columns_of_expression(text: str) -> frozenset[int] | None:
    """Return the attnums that a stored expression over one relation reads, or None where it is not understood."""
    try:
        found = read(text)
        return frozenset(number(each, "varattno") for each in nodes(found) if each[""] == "VAR")
    except (ValueError, LookupError, TypeError):
        return None


def _in_from(entry: Node) -> bool:
    # Before 16 the rule's own OLD and NEW stand in the range table too.
    alias = entry.get("alias")
    return not (
        isinstance(alias, dict) and alias.get("aliasname") in ("old", "new") and entry.get("inFromCl") == "false"
    )


def _inlined(entry: Node) -> bool:
    """Say whether the server puts a WITH query where it is named, and computes of it what is read there.

    What calls functions may not be, for they could be volatile.
    """
    once = entry.get("ctematerialized") == "2" or (entry.get("ctematerialized"), entry.get("cterefcount")) == ("0", "1")
    called = any(each[""] == "FUNCEXPR" for each in nodes(entry["ctequery"]))
    return once and entry.get("cterecursive") != "true" and not called


def _kept(node: Node) -> bool:
    if node[""] == "COMMONTABLEEXPR":
        return not _inlined(node)
    return bool(node[""] == "QUERY" and node.get("setOperations", "<>") != "<>")


def _calls(everything: list[Node]) -> list[int]:
    return [int(each[key]) for each in everything for key in _CALLED if key in each]


@dataclass(eq=False)
class _Query:
    """A query's node, and the query around it."""

    node: Node
    around: _Query | None
    kept: bool = False
    """It is computed whole, and not only what is read of it."""
    _outputs: tuple[Derived, ...] | None = None
    _entries: dict[int, tuple[Derived, ...]] = field(default_factory=dict)
    _with: dict[str, tuple[tuple[Derived, ...], Origins]] = field(default_factory=dict)
    _inner: dict[int, _Query] = field(default_factory=dict)
    _known: Origins | None = None

    def __post_init__(self) -> None:
        if self.node.get("") != "QUERY" or self.node.get("commandType") != "1":
            raise UnreadableTree
        self.range: list[Node] = listed(self.node, "rtable")
        self.targets: list[Node] = listed(self.node, "targetList")

    def outputs(self) -> tuple[Derived, ...]:
        """Return what each output column depends on."""
        if self._outputs is None:
            self._outputs = self._combined() if self._leaves() else self._selected()
        return self._outputs

    def _selected(self) -> tuple[Derived, ...]:
        shared = nulled = self._outer_joins()
        if self.node.get("hasAggs") == "true" or listed(self.node, "groupClause") or listed(self.node, "groupingSets"):
            shared |= self._met()
        found = []
        for target in self._shown():
            one = self._derived(target["expr"])
            more = shared
            for each in nodes(target["expr"]):
                if each[""] == "WINDOWFUNC":
                    more = more | self._met() | self._window(number(each, "winref"))
            # What decides itself whether a NULL stands in its place is no longer there as it stands.
            found.append(Derived(one.origins | more, None if one.bare in nulled else one.bare) if more else one)
        return tuple(found)

    def _combined(self) -> tuple[Derived, ...]:
        arms = [self._entry(at) for at in self._leaves()]
        width = len(self._shown())
        return tuple(Derived(frozenset().union(*(arm[at].origins for arm in arms))) for at in range(width))

    def _shown(self) -> list[Node]:
        return [target for target in self.targets if target.get("resjunk") != "true"]

    def rows(self) -> Origins:
        """Return what decides which rows there are, and in which order."""
        if self._known is None:
            self._known = self._rows()
        return self._known

    def _rows(self) -> Origins:
        found = self._met()
        for name in ("havingQual", "limitOffset", "limitCount", "groupingSets"):
            found |= self._of(self.node.get(name))
        for name in ("groupClause", "distinctClause", "sortClause"):
            found |= self._sorted_by(self.node.get(name))
        for target in self.targets:
            if any("true" in (each.get("funcretset"), each.get("opretset")) for each in nodes(target["expr"])):
                found |= self._computed(target["expr"])
        if self._leaves() and self._compares():
            found = found.union(*(one.origins for one in self.outputs()))
        return found | self._sorted() if self.kept else found

    def _sorted(self) -> Origins:
        """Return what rows are sorted by on their way to windows and aggregates, which others then see them in."""
        windows = listed(self.node, "windowClause")
        found = self._of(windows) | self._sorted_by(windows)
        for target in self.targets:
            for each in nodes(target["expr"]):
                if each[""] == "AGGREF" and (listed(each, "aggorder") or listed(each, "aggdistinct")):
                    found |= self._of(each.get("args"))
        return found

    def _met(self) -> Origins:
        """Return what decides which rows FROM and WHERE yield."""
        return self._yielded(self.node.get("jointree")).union(*(self._rows_of(at) for at in self._leaves()))

    def _yielded(self, part: Any) -> Origins:
        """Return what decides which rows a part of FROM yields."""
        used = [number(each, "rtindex") for each in nodes(part) if each[""] == "RANGETBLREF"]
        return self._of(part).union(*(self._rows_of(at) for at in used))

    def _rows_of(self, at: int) -> Origins:
        entry = self.range[at - 1]
        match number(entry, "rtekind"):
            case Kind.RELATION:
                return self._of(entry.get("tablesample"))
            case Kind.SUBQUERY:
                return self._subquery(at).rows()
            case Kind.FUNCTION:
                return self._of(entry["functions"])
            case Kind.TABLE_FUNCTION:
                return self._of(entry["tablefunc"])
            case Kind.VALUES | Kind.RESULT:
                return NONE
            case Kind.CTE:
                return self._named(entry)[1]
        raise UnreadableTree

    def _leaves(self) -> list[int]:
        operations = self.node.get("setOperations", "<>")
        return [number(each, "rtindex") for each in nodes(operations) if each[""] == "RANGETBLREF"]

    def _compares(self) -> bool:
        """Say whether any set operation is more than UNION ALL."""
        operations = [each for each in nodes(self.node["setOperations"]) if each[""] == "SETOPERATIONSTMT"]
        return any(number(each, "op") != _UNION or each.get("all") != "true" for each in operations)

    def _outer_joins(self) -> Origins:
        """Return what decides where outer joins put NULLs: what they compare, and which rows there are to be joined."""
        found = NONE
        for each in nodes(self.node.get("jointree")):
            if each[""] == "JOINEXPR" and each.get("jointype") != "0":
                found |= self._of(each.get("quals"))
                found = found.union(*(self._yielded(each.get(side)) for side in _NULLED.get(each["jointype"], _SIDES)))
        return found

    def _window(self, reference: int) -> Origins:
        """Return what a window is divided and ordered by."""
        clauses = [each for each in listed(self.node, "windowClause") if number(each, "winref") == reference]
        return self._of(clauses) | self._sorted_by(clauses)

    def _sorted_by(self, clauses: Any) -> Origins:
        wanted = {number(each, "tleSortGroupRef") for each in nodes(clauses) if "tleSortGroupRef" in each}
        found = NONE
        for at, target in enumerate(self.targets):
            if number(target, "ressortgroupref") in wanted:
                found |= self.outputs()[at].origins if self._leaves() else self._computed(target["expr"])
        return found

    def _computed(self, expression: Any) -> Origins:
        """Return what the value of an output depends on, beside which rows FROM and WHERE yield: its windows too."""
        windows = [number(each, "winref") for each in nodes(expression) if each[""] == "WINDOWFUNC"]
        return self._of(expression).union(*(self._window(reference) for reference in windows))

    def _derived(self, expression: Any) -> Derived:
        if isinstance(expression, dict) and expression.get("") == "VAR":
            return self._variable(expression)
        return Derived(self._of(expression))

    def _of(self, expression: Any) -> Origins:
        """Return everything that an expression depends on."""
        found: set[Origin] = set()
        stack = [expression]
        while stack:
            value = stack.pop()
            if isinstance(value, list):
                stack.extend(value)
            elif isinstance(value, dict):
                if value[""] == "VAR":
                    found |= self._variable(value).origins
                elif value[""] == "QUERY":
                    inner = _Query(value, self)
                    found |= inner.rows().union(*(one.origins for one in inner.outputs()))
                else:
                    stack.extend(value.values())
        return frozenset(found)

    def _variable(self, node: Node) -> Derived:
        owner = self._up(number(node, "varlevelsup"))
        at, attnum = number(node, "varno"), number(node, "varattno")
        if not 1 <= at <= len(owner.range):
            raise UnreadableTree
        entry = owner.range[at - 1]
        if number(entry, "rtekind") == Kind.RELATION:
            origin = (number(entry, "relid"), attnum)
            return Derived(frozenset({origin}), origin)
        columns = owner._entry(at)
        if attnum == 0:
            return Derived(NONE.union(*(one.origins for one in columns)))
        if not 1 <= attnum <= len(columns):
            raise UnreadableTree
        return columns[attnum - 1]

    def _up(self, levels: int) -> _Query:
        found = self
        for _ in range(levels):
            if found.around is None:
                raise UnreadableTree
            found = found.around
        return found

    def _entry(self, at: int) -> tuple[Derived, ...]:
        """Return what the columns of an entry of the range table depend on."""
        if at not in self._entries:
            self._entries[at] = self._read_entry(at, self.range[at - 1])
        return self._entries[at]

    def _subquery(self, at: int) -> _Query:
        if at not in self._inner:
            kept = self.kept or at in self._leaves()
            self._inner[at] = _Query(self.range[at - 1]["subquery"], self, kept)
        return self._inner[at]

    def _read_entry(self, at: int, entry: Node) -> tuple[Derived, ...]:
        width = len(listed(entry["eref"], "colnames"))
        match number(entry, "rtekind"):
            case Kind.SUBQUERY:
                return self._subquery(at).outputs()
            case Kind.JOIN:
                return tuple(self._derived(one) for one in listed(entry, "joinaliasvars"))
            case Kind.FUNCTION:
                # WITH ORDINALITY has one column more than its functions.
                return (Derived(self._of(entry["functions"])),) * width
            case Kind.TABLE_FUNCTION:
                return (Derived(self._of(entry["tablefunc"])),) * width
            case Kind.VALUES:
                return (Derived(self._of(entry["values_lists"])),) * width
            case Kind.CTE:
                return self._named(entry)[0]
            case Kind.GROUP:
                return tuple(self._derived(one) for one in listed(entry, "groupexprs"))
        raise UnreadableTree

    def _named(self, entry: Node) -> tuple[tuple[Derived, ...], Origins]:
        """Return outputs and rows of a WITH query; a recursive one is gone through until nothing is added."""
        owner, name = self._up(number(entry, "ctelevelsup")), entry["ctename"]
        if name in owner._with:
            return owner._with[name]
        (found,) = [each for each in listed(owner.node, "cteList") if each["ctename"] == name]
        width = len(listed(found, "ctecolnames"))
        last: tuple[tuple[Derived, ...], Origins] = ((Derived(),) * width, NONE)
        for _ in range(_ROUNDS):
            if found.get("cterecursive") == "true":
                owner._with[name] = last
            query = _Query(found["ctequery"], owner, owner.kept or not _inlined(found))
            outputs = query.outputs()
            # SEARCH and CYCLE add columns, which may depend on every other one.
            extra = NONE.union(*(one.origins for one in outputs))
            now = (*outputs, *(Derived(extra),) * (width - len(outputs))), query.rows()
            if found.get("cterecursive") != "true" or now == last:
                owner._with[name] = now
                return now
            last = now
        raise UnreadableTree
