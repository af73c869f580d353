"""The upstream's catalogue as inspection needs it: relations, columns, and whatever users defined, with oids.

`build` makes it of the rows of `QUERIES`. Builtin functions, operators and types are known by lists beside this file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from importlib import resources
from typing import Any

from broker.sql.catalogue_queries import LOOKING, LOOKING_WORD, QUERIES
from broker.sql.drift import Former
from broker.sql.lineage import Lineage, columns_of_expression, computed_whole, lineage
from broker.sql.model import SearchPath
from broker.sql.overloads import Overload, definitions, overloads
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


def build(
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    search_path: Sequence[str],
    server_version: int,
    former: Former | None = None,
) -> Catalogue:
    """Make a catalogue from the rows of QUERIES and names of before; its version is a digest of them."""
    former = former or {}
    digest = hashlib.sha256(json.dumps({name: [dict(row) for row in rows[name]] for name in QUERIES}).encode())
    digest.update(repr((tuple(search_path), server_version, sorted(former.items()))).encode())
    columns: dict[int, list[Column]] = {}
    for row in rows["columns"]:
        columns.setdefault(row["oid"], []).append(_column(row, former))
    by_oid = {
        row["oid"]: _relation(row, _SEQUENCE if row["kind"] == "S" else tuple(columns.get(row["oid"], ())), former)
        for row in rows["relations"]
    }
    usable = (by_oid[row["oid"]] for row in rows["relations"] if row.get("usable", True))
    relations = {(relation.schema, relation.name): relation for relation in usable}
    heirs, ancestors = _families(rows["relations"], by_oid)
    coded = frozenset(row["name"] for row in rows["types"] if not row["trusted"])
    single = (
        coded
        | {row["name"] for row in rows["attributes"]}
        | {row["name"] for row in rows["functions"] if row["single"]}
    )
    defined = frozenset((row["schema"], row["name"]) for row in rows["functions"])
    path = tuple(dict.fromkeys(("pg_catalog", *search_path)))
    found = overloads(rows["overloads"])
    return Catalogue(
        version=digest.hexdigest()[:16],
        path=path,
        relations=relations,
        functions=defined,
        attributes=frozenset(
            name
            for name in single
            if name not in allowed_functions() or name in coded or any((s, name) in defined for s in path)
        ),
        operators=frozenset((row["schema"], row["name"]) for row in rows["operators"]),
        apart=frozenset((row["schema"], row["name"]) for row in rows["operators"] if row.get("apart")),
        types={(row["schema"], row["name"]): (row["kind"], row["trusted"]) for row in rows["types"]},
        type_names={row.get("oid", 0): (f"{row['schema']}.{row['name']}", row["trusted"]) for row in rows["types"]},
        own=frozenset(row["name"] for row in rows["functions"]) | coded,
        loose=frozenset(row["name"] for row in rows["functions"] if row.get("loose", True)) | coded,
        heirs=heirs,
        ancestors=ancestors,
        by_oid=by_oid,
        views={row["oid"]: _view(row) for row in rows["views"]},
        generated=_generated(rows["generated"]),
        virtual=frozenset((row["oid"], row["attnum"]) for row in rows["generated"] if row["virtual"]),
        overloads=found,
        implied=frozenset(one for each in found.values() for one in each if one.implied),
        builtins=frozenset(row["name"] for row in rows["builtins"]),
        server_version=server_version,
        utf8=all(row["utf8"] for row in rows["encoding"]),
        schemas=frozenset(schema for schema, _ in relations),
        by_name={relation.qualified: relation for relation in by_oid.values()},
        indexed={f"{one.schema}.{index.name}": one.qualified for one in by_oid.values() for index in one.indexes},
        definitions=definitions(rows["overloads"]),
    )


_SEQUENCE = (
    Column("last_value", 1, "bigint", "N", "int8"),
    Column("log_cnt", 2, "bigint", "N", "int8"),
    Column("is_called", 3, "boolean", "B", "bool"),
)
"""What every sequence has; they are too many to be read."""


def _relation(row: Mapping[str, Any], columns: tuple[Column, ...], former: Former) -> Relation:
    return Relation(
        row["oid"],
        row["schema"],
        row["name"],
        row["kind"],
        row["rules"],
        row["row_security"],
        columns,
        row.get("row_casts", False),
        tuple(row.get("key") or ()),
        tuple(row.get("partition_key") or ()),
        tuple(_index(text) for text in row.get("indexes") or ()),
        tuple(_referrer(text) for text in row.get("referrers") or ()),
        row.get("owner") or 0,
        former.get((row["oid"], 0), ()),
        row.get("follows", True) or row["rules"] or any(column.code for column in columns),
        row.get("made") or "",
    )


def _index(text: str) -> Index:
    numbers, _, name = text.partition(' "')
    count, *columns = map(int, numbers.split())
    return Index(name, frozenset(columns[: abs(count)]), frozenset(columns), partial=count < 0)


def _referrer(text: str) -> Referrer:
    child, on_delete, on_update, *columns = text.split()
    own, theirs = (frozenset(map(int, listed.split(","))) for listed in columns)
    return Referrer(int(child), on_delete, on_update, own, theirs)


_Family = dict[int, tuple[Relation, ...]]


def _families(rows: Sequence[Mapping[str, Any]], by_oid: Mapping[int, Relation]) -> tuple[_Family, _Family]:
    """Return the heirs and the ancestors of each relation, at any distance."""
    parents = {row["oid"]: tuple(row.get("parents") or ()) for row in rows}
    heirs: dict[int, dict[int, Relation]] = {}
    ancestors: dict[int, dict[int, Relation]] = {}
    for oid in parents:
        above = list(parents[oid])
        while above:
            ancestor = above.pop()
            heirs.setdefault(ancestor, {})[oid] = by_oid[oid]
            if ancestor in by_oid:
                ancestors.setdefault(oid, {})[ancestor] = by_oid[ancestor]
            above.extend(parents.get(ancestor, ()))
    return (
        {oid: tuple(found.values()) for oid, found in heirs.items()},
        {oid: tuple(found.values()) for oid, found in ancestors.items()},
    )


_LOOKED_UP = re.compile(r":resulttype (?:24|220[2-6]|3734|3769|4089|4096|4191) ")
"""Where a stored tree makes something of the catalogue out of its name."""


def _view(row: Mapping[str, Any]) -> View:
    """Read a view; one that could run code, or whose builtin functions are not all on the list, is open to nobody."""
    found, calls = lineage(row["tree"]), tuple((schema, name) for schema, name in row.get("called", ()))
    if found is None:
        return View(None, calls=calls)
    found = computed_whole(found) if row.get("volatile", True) else found
    names = {int(oid): name for oid, _, name in (each.partition(" ") for each in row["builtins"])}
    unlisted = sorted({names[oid] for oid in found.calls if oid in names} - allowed_functions())
    if row["defined"]:
        problem = f"uses {row['defined'][0]}, which this database's own users defined, and those are not open yet"
    elif unlisted:
        problem = f"calls {unlisted[0]}, which is not on the list of functions that only compute"
    else:
        problem = "locks rows whenever it is read" if found.locks else ""
    looks = LOOKING_WORD in row["tree"] or bool(set(names.values()) & LOOKING) or bool(_LOOKED_UP.search(row["tree"]))
    return View(found, problem, row["stamp"], looks, calls)


def _generated(rows: Sequence[Mapping[str, Any]]) -> dict[int, dict[int, frozenset[int] | None]]:
    found: dict[int, dict[int, frozenset[int] | None]] = {}
    for row in rows:
        found.setdefault(row["oid"], {})[row["attnum"]] = columns_of_expression(row["tree"])
    return found


_KEYWORD_TYPES = (
    "bigint", "bit", "boolean", "character", "double precision", "integer", "interval", "numeric", "real", "smallint",
    "time", "timestamp",
)  # fmt: skip


@lru_cache(1024)
def _qualified(text: str) -> str:
    """Return a type as format_type writes it, with its schema; thousands of columns have a few dozen types."""
    bare = text.split("[")[0].split("(")[0]
    plain = any(bare == word or bare.startswith(f"{word} ") for word in _KEYWORD_TYPES)
    return text if plain or "." in bare else f"pg_catalog.{text}"


def _column(row: Mapping[str, Any], former: Former) -> Column:
    # An enum or a composite may have that name too, but is of another category.
    known = row["typschema"] == "pg_catalog" or (row["typname"] == "citext" and row["category"] == "S")
    typname = row["typname"] if known else f"{row['typschema']}.{row['typname']}"
    return Column(
        row["name"],
        row["attnum"],
        _qualified(row["base"] or row["type"]),
        row["category"],
        typname,
        row.get("code", ""),
        former.get((row["oid"], row["attnum"]), ()),
    )
