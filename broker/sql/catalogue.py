"""The upstream's catalogue as inspection needs it: relations, columns, and whatever users defined, with oids.

`building.py` makes it. Builtin functions, operators and types are known by lists beside this file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources

from broker.sql.lineage import Lineage
from broker.sql.model import SearchPath
from broker.sql.overloads import Overload
from broker.sql.system import SYSTEM_SCHEMAS


@dataclass(frozen=True, slots=True)
class Column:
    """`type` is what a cast needs (a domain's is its base type's), `category` is pg_type.typcategory.

    `code` says whether values of its type can run code of users': "domain" for one that its base type cannot.
    """

    name: str
    attnum: int
    type: str
    category: str
    typname: str
    code: str = ""
    former: tuple[str, ...] = ()
    """Names that it had before, under the same field rules."""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.former)


@dataclass(frozen=True, slots=True)
class Index:
    """An index by attnums: what it is ordered by, and all that can be read of it alone; 0 is an expression."""

    name: str
    key: frozenset[int]
    columns: frozenset[int]
    partial: bool = False
    """It has the rows that meet a condition."""
    order: tuple[int, ...] = ()
    """What it is ordered by, one after the other."""


@dataclass(frozen=True, slots=True)
class Referrer:
    """A foreign key to a relation whose rows follow; what happens is pg_constraint's letter, columns are attnums."""

    child: int
    on_delete: str
    on_update: str
    columns: frozenset[int]
    child_columns: frozenset[int]


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation by its oid; `kind` is pg_class.relkind."""

    oid: int
    schema: str
    name: str
    kind: str
    rules: bool
    row_security: bool
    columns: tuple[Column, ...]
    row_casts: bool = False
    """Its row type has casts."""
    key: tuple[str, ...] = ()
    """Columns of its primary key."""
    partition_key: tuple[int, ...] = ()
    """attnums by which it is partitioned; 0 is an expression."""
    indexes: tuple[Index, ...] = ()
    referrers: tuple[Referrer, ...] = ()
    owner: int = 0
    """oid of the table that a sequence belongs to."""
    former: tuple[str, ...] = ()
    """Qualified names that it had before, under the same field rules."""
    follows: bool = True
    """What a change of it runs may look names up in its session's search path."""
    made: str = ""
    """A stamp of its triggers, rules, keys and defaults."""
    numbers: int = 0
    """attnum of the column that a sequence belongs to, where no other one has its numbers by default."""
    literals: tuple[tuple[frozenset[int], str], ...] = ()
    """Conditions of its indexes that have literals, each with the attnums of what they compare; 0 and no text stand for
    expressions in them that have some."""

    @property
    def qualified(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def system(self) -> bool:
        return self.schema in SYSTEM_SCHEMAS


@dataclass(frozen=True, slots=True)
class View:
    """What a view is made of, as far as it is understood, and why it is open to nobody."""

    lineage: Lineage | None
    problem: str = ""
    stamp: str = ""
    """The transaction that defined it."""
    looks: bool = True
    """What it shows follows the search path of who reads it."""
    calls: tuple[tuple[str, str], ...] = ()
    """(schema, name) of the functions that users defined and that it calls itself."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A snapshot of an upstream's catalogue under a pinned search path (pg_catalog comes first, as in the server)."""

    version: str
    path: tuple[str, ...]
    relations: Mapping[tuple[str, str], Relation]
    """Those whose schema the role may use."""
    functions: frozenset[tuple[str, str]]
    """(schema, name) of functions that users defined, procedures too."""
    attributes: frozenset[str]
    """Names of functions outside the list that `expression.name` could call."""
    operators: frozenset[tuple[str, str]]  # of users', and their operator classes
    types: Mapping[tuple[str, str], tuple[str, bool]]
    """(schema, name) of users' types -> (typtype, whether it runs no code of theirs)."""
    type_names: Mapping[int, tuple[str, bool]] = field(default_factory=dict)
    """oid of users' types -> (its name, whether it runs no code of theirs)."""
    apart: frozenset[tuple[str, str]] = frozenset()
    """Those of `operators` that are only found where a value of a type of users' stands."""
    own: frozenset[str] = frozenset()
    """Names of functions that users defined, and of types that run code of theirs."""
    loose: frozenset[str] = frozenset()
    """Those of them that could take a row of any type."""
    heirs: Mapping[int, tuple[Relation, ...]] = field(default_factory=dict)
    """oid -> the partitions and inheritance children, at any depth, whose rows a relation shows."""
    ancestors: Mapping[int, tuple[Relation, ...]] = field(default_factory=dict)
    """oid -> the relations, at any height, that show its rows."""
    by_oid: Mapping[int, Relation] = field(default_factory=dict)
    """Every relation, also those that the role cannot name, for views may read them."""
    views: Mapping[int, View] = field(default_factory=dict)
    generated: Mapping[int, Mapping[int, frozenset[int] | None]] = field(default_factory=dict)
    """oid -> attnum of each generated column -> the attnums that it is made of (None: not understood)."""
    virtual: frozenset[tuple[int, int]] = frozenset()
    """(oid, attnum) of each generated column that is computed where it is read."""
    overloads: Mapping[tuple[str, str], tuple[Overload, ...]] = field(default_factory=dict)
    """(schema, name) -> the functions of users' that are called so."""
    implied: frozenset[Overload] = frozenset()
    """Those of them that any statement may call without a word: they make builtin types of others, or compare them."""
    builtins: frozenset[str] = frozenset()
    """Names of every builtin function."""
    server_version: int = 0
    database: str = ""
    """What the server calls it."""
    utf8: bool = True
    """The database is in the encoding that statements are read in here."""
    schemas: frozenset[str] = field(default_factory=frozenset)
    by_name: Mapping[str, Relation] = field(default_factory=dict)
    indexed: Mapping[str, str] = field(default_factory=dict)
    """schema.index -> schema.table."""
    definitions: Mapping[str, str] = field(default_factory=dict)
    """Functions of users' as they are written in rules -> a stamp of their definition."""
    stamps: dict[str, str] = field(default_factory=dict, compare=False, repr=False)
    """What `meaning` has found of relations."""

    def relation(self, schema: str | None, name: str) -> Relation | None:
        """Resolve a name as the server would."""
        for candidate in (schema,) if schema else self.path:
            if found := self.relations.get((candidate, name)):
                return found
        return None

    def native(self, relation: Relation) -> frozenset[Overload]:
        """Return the functions that a rule has to name and that a view calls, itself or by what stands behind it."""
        calls = {key for view in self._views_of(relation) if view is not None for key in view.calls}
        return frozenset(one for key in calls for one in self.overloads.get(key, ()) if one.function.native)

    def looks(self, relation: Relation) -> bool:
        """Say whether what a relation shows follows the search path: a view, itself or by what stands behind it."""
        return any(view is None or view.lineage is None or view.looks for view in self._views_of(relation))

    def _views_of(self, relation: Relation) -> Iterator[View | None]:
        """Yield what is known of a view and of each view behind it, None where nothing is."""
        seen: set[int] = set()
        todo = [relation.oid]
        while todo:
            oid = todo.pop()
            found, view = self.by_oid.get(oid), self.views.get(oid)
            if oid in seen or found is None or found.kind != "v":
                continue
            seen.add(oid)
            yield view
            todo += view.lineage.relations if view is not None and view.lineage is not None else ()

    def under(self, path: SearchPath) -> Catalogue:
        """Return the same catalogue under a path that its session has set."""
        return replace(
            self,
            version=hashlib.sha256(f"{self.version} {path!r}".encode()).hexdigest()[:16],
            path=tuple(dict.fromkeys(("pg_catalog", *path))),
            # Whatever users defined, wherever it stands (fail closed): which of it the path finds makes no difference.
            attributes=self.attributes | self.own,
        )


@cache
def allowed_functions() -> frozenset[str]:
    """Return the names of builtin functions whose every overload neither changes nor reveals anything of its own."""
    text = resources.files("broker.sql").joinpath("functions.txt").read_text(encoding="utf-8")
    return frozenset(line for line in text.split("\n") if line and not line.startswith("#"))
