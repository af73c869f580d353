"""What a query mentions, as it is found on a walk through its tree."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field

from broker.sql.catalogue import Catalogue
from broker.sql.notation import gives_whole
from broker.sql.overloads import Overload
from broker.sql.tree import Node
from policies.engine.decisions import OwnFunction


@dataclass(slots=True)
class Collected:
    """What a query mentions. `names` are the last parts of column references, `bare` those of one part."""

    references: list[tuple[Node, Node, Node | None]] = field(default_factory=list)
    """(wrapper, RangeVar, its RangeTableSample) of each relation that is read."""
    targets: list[tuple[str, Node, Node]] = field(default_factory=list)
    """(kind of statement, RangeVar, the statement) of each relation that is written."""
    columns: list[Node] = field(default_factory=list)
    clauses: list[tuple[str, Node]] = field(default_factory=list)
    """(key, content of the node) of each clause that compares."""
    groups: list[Node] = field(default_factory=list)
    """Each SELECT with a GROUP BY."""
    calls: list[tuple[Node, Node, str]] = field(default_factory=list)
    """(wrapper, FuncCall, name) of each function that must be rewritten."""
    names: set[str] = field(default_factory=set)
    bare: set[str] = field(default_factory=set)
    attributes: set[tuple[str, str]] = field(default_factory=set)
    """(name of a row or nothing, name) of each `expression.name`."""
    aliases: dict[str, list[tuple[str, Node]]] = field(default_factory=dict)
    """What each row of FROM is called -> (kind, content) of the nodes that are called so."""
    functions: set[str] = field(default_factory=set)
    own: set[Overload] = field(default_factory=set)
    """Functions of users' that a call could mean."""
    apart: set[str] = field(default_factory=set)
    """Operators that mean users' own where a value of a type of theirs stands."""
    builtin: set[OwnFunction] = field(default_factory=set)
    """Builtin functions that a rule has to name."""
    counters: list[Node] = field(default_factory=list)
    """Each call that takes or sets numbers of a sequence."""
    numbers: list[Node] = field(default_factory=list)
    """Each call that says which number its session was given last, where anything is masked."""
    rows: set[str] = field(default_factory=lambda: {"old", "new", "excluded"})
    """Names of the old and new rows of a target."""
    star: bool = False
    """Every column of everything is meant."""
    starred: set[int] = field(default_factory=set)
    """Ids of the RangeVars of which every column is meant, by a star or since a join compares or renames them."""
    spread: set[str] = field(default_factory=set)
    """The name of a row in each `name.*`."""
    placed: set[int] = field(default_factory=set)
    """Ids of the stars of which it is known what they take in."""
    stars: list[Node] = field(default_factory=list)
    """Each SELECT that lists every column of one row."""
    taken: tuple[set[int], set[str]] = field(default_factory=lambda: (set(), set()))
    """What is in `starred` and `spread` for another reason than being listed by a SELECT."""
    locks: bool = False
    sets: bool = False
    """It changes settings."""
    moved: list[tuple[Node, str]] = field(default_factory=list)
    """Values that it gives the search path, and what they are sent as."""
    catalogue: Catalogue | None = None
    passed: frozenset[int] = frozenset()
    """Ids of calls that somebody else looks at."""
    in_clear: bool = False
    """Nothing is masked, and no literal of the catalogue is hidden."""
    settings: set[str] = field(default_factory=set)
    """Those of an application's own that it sets or shows, or could."""
    named: tuple[str, ...] = ()
    """Such settings as rules name them."""
    coded: set[str] = field(default_factory=set)
    """Where nothing is masked: what could run code of users', beside the functions that are known."""
    listings: list[tuple[Node, Node, Node]] = field(default_factory=list)
    """(wrapper, RangeFunction, FuncCall) of each call that lists the settings."""

    @property
    def ruled(self) -> frozenset[OwnFunction]:
        """Return every function that needs a rule of its own."""
        return frozenset(overload.function for overload in self.own) | self.builtin

    def mean_all(self, rows: Set[int], *, listed: bool = False) -> None:
        """Take note that every column of these rows is meant: `listed` where a SELECT lists them, and nothing else."""
        self.starred |= rows
        if not listed:
            self.taken[0].update(rows)

    def whole(self, content: Node, called: Set[str], *, listed: bool = True) -> bool:
        """Say whether every column of a relation is meant, which goes by these names, or only but for being listed.

        What is no column of it in `row.name` is a function or a domain that is given the whole row.
        """
        starred, spread = (self.starred, self.spread) if listed else self.taken
        return (
            self.star
            or id(content) in starred
            or not called.isdisjoint(self.bare | spread)
            or any(row in called and self._gives_whole(content, row, name) for row, name in self.attributes)
        )

    def _gives_whole(self, content: Node, row: str, name: str) -> bool:
        alone = all(each is content for _, each in self.aliases.get(row, ()))
        return gives_whole(self.catalogue, content, name, alone=alone)

    @property
    def code(self) -> set[str] | None:
        return self.coded if self.in_clear else None
