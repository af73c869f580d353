"""Makes a catalogue of the rows of `QUERIES`, and makes again only what other rows have come for.

A row of `OF_RELATIONS` says what there is about one relation alone; what one relation means for another (whose rows it
shows, whose code a change of it runs, of which types its rows are) is found here, of all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from sys import intern
from typing import Any

from broker.sql.catalogue import Catalogue, Column, Relation, View, allowed_functions
from broker.sql.catalogue_queries import OF_RELATIONS, QUERIES
from broker.sql.drift import Former, attributes
from broker.sql.facts import Facts, Row, column_of, facts_in, generated_in, view_in, virtual_in
from broker.sql.overloads import definitions, overloads

Rows = Mapping[str, Sequence[Row]]
Kind = tuple[int, int]
"""A column's type and its modifier."""
OWN = 16384
"""From where on oids are users'."""
_CASCADING = frozenset("cnd")


@dataclass(slots=True)
class _Columns:
    """The columns of relations that have the same."""

    columns: tuple[Column, ...]
    kinds: frozenset[Kind]
    own: frozenset[int]
    """Types of users' among them."""


@dataclass(frozen=True, slots=True)
class _Type:
    """A type, as a catalogue has it where it runs no code of users'."""

    oid: int
    key: tuple[str, str]
    kind: tuple[str, bool]
    named: tuple[str, bool]

    @classmethod
    def of(cls, oid: int, schema: str, name: str, kind: str, *, trusted: bool = True) -> _Type:
        return cls(oid, (schema, name), _TRUSTED[kind] if trusted else (kind, False), (f"{schema}.{name}", trusted))


_TRUSTED = {kind: (kind, True) for kind in "bcdemrp"}


@dataclass(slots=True)
class _Kept:
    """What was made of a relation's rows, and of what."""

    rows: tuple[Row | None, ...]
    key: tuple[str, str]
    types: tuple[_Type, ...]
    """The type of its rows, and that of arrays of them."""
    facts: Facts
    digest: bytes
    given: tuple[Any, ...] = ()
    relation: Relation | None = None


def build(rows: Rows, search_path: Sequence[str], server_version: int, former: Former | None = None) -> Catalogue:
    """Make a catalogue from the rows of QUERIES and names of before; its version is a digest of them."""
    return Builder().build(rows, search_path, server_version, former)


@dataclass(eq=False)
class Builder:
    """Makes the catalogues of one database, one after the other; rows that are the same are not read again."""

    _kept: dict[int, _Kept] = field(default_factory=dict)
    _columns: dict[str, _Columns] = field(default_factory=dict)
    _views: dict[int, tuple[Row, tuple[str, ...], View]] = field(default_factory=dict)
    _kinds: dict[Kind, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How much is kept for the next catalogue, in relations, views and different lists of columns."""
        return len(self._kept) + len(self._columns) + len(self._views)

    def build(
        self, rows: Rows, search_path: Sequence[str], server_version: int, former: Former | None = None
    ) -> Catalogue:
        former = former or {}
        by_oid = {name: {row["oid"]: row for row in rows.get(name, ())} for name in OF_RELATIONS}
        kept = self._kept = {oid: self._read(oid, list(by_oid.values())) for oid in by_oid["relations"]}
        texts = {oid: row["columns"] for oid, row in by_oid["columns"].items()}
        coded = self._coded(rows, texts)
        used = frozenset[Kind]().union(*(one.kinds for one in self._columns.values()))
        relations = self._relations(rows, by_oid["relations"], texts, coded, former)
        usable = [oid for oid, row in by_oid["relations"].items() if row.get("usable", True)]
        by_name = {kept[oid].key: relations[oid] for oid in usable}
        heirs, ancestors = _families(kept, relations)
        types, type_names = _types(rows, kept, coded)
        views = self._made_views(by_oid["views"], coded, type_names)
        defined = frozenset((row["schema"], row["name"]) for row in rows["functions"])
        own_types = frozenset(name for (_, name), (_, trusted) in types.items() if not trusted)
        path = tuple(dict.fromkeys(("pg_catalog", *search_path)))
        called = overloads(rows["overloads"])
        return Catalogue(
            version=self._version(rows, used, (tuple(search_path), server_version, sorted(former.items()))),
            path=path,
            relations=by_name,
            functions=defined,
            attributes=_attributes(rows, own_types, defined, path),
            operators=frozenset((row["schema"], row["name"]) for row in rows["operators"]),
            apart=frozenset((row["schema"], row["name"]) for row in rows["operators"] if row.get("apart")),
            types=types,
            type_names=type_names,
            own=frozenset(row["name"] for row in rows["functions"]) | own_types,
            loose=frozenset(row["name"] for row in rows["functions"] if row.get("loose", True)) | own_types,
            heirs=heirs,
            ancestors=ancestors,
            by_oid=relations,
            views=views,
            generated={oid: dict(generated_in(row["trees"])) for oid, row in by_oid["generated"].items()},
            virtual=frozenset(virtual_in(by_oid["generated"].values())),
            overloads=called,
            implied=frozenset(one for each in called.values() for one in each if one.implied),
            builtins=frozenset(row["name"] for row in rows["builtins"]),
            server_version=server_version,
            utf8=all(row["utf8"] for row in rows["encoding"]),
            database=next((row.get("name", "") for row in rows["encoding"]), ""),
            schemas=frozenset(schema for schema, _ in by_name),
            by_name={relation.qualified: relation for relation in relations.values()},
            indexed={
                f"{one.schema}.{index.name}": one.qualified for one in relations.values() for index in one.indexes
            },
            definitions=definitions(rows["overloads"]),
        )

    def _read(self, oid: int, by_oid: Sequence[Mapping[int, Row]]) -> _Kept:
        found = tuple([rows.get(oid) for rows in by_oid])
        known = self._kept.get(oid)
        if known is not None and known.rows == found:
            return known
        row, parts = by_oid[0][oid], by_oid[1].get(oid)
        schema, name = row["schema"], row["name"]
        types = []
        if (type_ := row.get("row_type") or 0) >= OWN:
            types.append(_Type.of(type_, schema, name, "c"))
            if row["array_type"]:
                types.append(_Type.of(row["array_type"], schema, row["array_name"], "b"))
        digest = hashlib.sha256(repr([tuple(row.values()) if row is not None else None for row in found]).encode())
        facts = facts_in(parts["parts"] if parts is not None else ())
        return _Kept(found, (schema, name), tuple(types), facts, digest.digest())

    def _coded(self, rows: Rows, texts: Mapping[int, str]) -> frozenset[int]:
        """Read the columns, and return the types that run code of users': their own, or of what they are made of."""
        kinds = {
            (row["oid"], row["typmod"]): tuple(
                row[name] for name in ("type", "typname", "typschema", "category", "base", "base_type")
            )
            for row in rows["kinds"]
        }
        if any(kinds.get(kind, facts) != facts for kind, facts in self._kinds.items()):
            self._columns.clear()
        self._kinds = kinds
        self._columns = {text: self._columns.get(text) or self._listed(text) for text in {*texts.values(), ""}}
        known = {0, *(row["oid"] for row in rows["types"])}
        known.update(type_.oid for one in self._kept.values() for type_ in one.types)
        told_of = frozenset(part for row in rows["types"] for part in row["parts"])
        told_of = told_of.union(*(one.own for one in self._columns.values()))
        start = [row["oid"] for row in rows["types"] if row["coded"] and row["oid"] >= OWN]
        # What nobody tells of could be anything.
        start += [type_ for type_ in told_of if type_ >= OWN and type_ not in known]
        if not start:
            return frozenset()
        wholes: dict[int, list[int]] = {}
        for row in rows["types"]:
            for part in row["parts"]:
                wholes.setdefault(part, []).append(row["oid"])
        for oid, one in self._kept.items():
            if one.types:
                first, *arrays = (type_.oid for type_ in one.types)
                for part in self._columns[texts.get(oid, "")].own:
                    wholes.setdefault(part, []).append(first)
                for array in arrays:
                    wholes.setdefault(first, []).append(array)
        return _above(start, wholes)

    def _listed(self, text: str) -> _Columns:
        found = []
        kinds = set()
        for number, type_, modifier, name in attributes(text):
            kinds.add(kind := (type_, modifier))
            found.append(column_of(name, number, self._kinds[kind]))
        return _Columns(tuple(found), frozenset(kinds), frozenset(type_ for type_, _ in kinds if type_ >= OWN))

    def _relations(
        self,
        rows: Rows,
        by_oid: Mapping[int, Row],
        texts: Mapping[int, str],
        coded: frozenset[int],
        former: Former,
    ) -> dict[int, Relation]:
        kept = self._kept
        casts = {row["oid"] for row in rows.get("casts", ())}
        following = _following(kept)
        renamed = {oid for oid, _ in former}
        rowed = {type_.oid: oid for oid, one in kept.items() for type_ in one.types}
        made_of = {row["oid"]: row["parts"] for row in rows["types"]}
        found = {}
        for oid, one in kept.items():
            row, held = by_oid[oid], self._columns[texts.get(oid, "")]
            columns = held.columns if row["kind"] != "S" else _SEQUENCE
            if coded and held.own & coded:
                columns = self._with_code(texts[oid], columns, coded)
            if oid in renamed:
                columns = tuple(replace(each, former=former.get((oid, each.attnum), ())) for each in columns)
            rows_of: tuple[tuple[str, str], ...] = ()
            if held.own:
                parts = [part for type_ in held.own for part in (type_, *made_of.get(type_, ()))]
                shown = sorted(rowed[part] for part in parts if part in rowed)
                rows_of = tuple((kept[each].key[1], texts.get(each, "")) for each in shown)
            given = (columns, row.get("row_type") in casts, oid in following, former.get((oid, 0), ()), rows_of)
            if one.relation is None or one.given != given:
                one.given, one.relation = given, _relation(row, one.facts, *given)
            found[oid] = one.relation
        return found

    def _with_code(self, text: str, columns: tuple[Column, ...], coded: frozenset[int]) -> tuple[Column, ...]:
        found = []
        for column, (_, type_, modifier, _) in zip(columns, attributes(text), strict=True):
            base = self._kinds[type_, modifier][-1]
            code = "" if type_ not in coded else "domain" if base and base not in coded else "type"
            found.append(replace(column, code=code))
        return tuple(found)

    def _made_views(
        self, rows: Mapping[int, Row], coded: frozenset[int], names: Mapping[int, tuple[str, bool]]
    ) -> dict[int, View]:
        views = {}
        for oid, row in rows.items():
            types = tuple(
                names.get(type_, ("",))[0].partition(".")[2] for type_ in row.get("types", ()) if type_ in coded
            )
            known = self._views.get(oid)
            if known is None or known[0] != row or known[1] != types:
                known = (row, types, view_in(row, types))
            views[oid] = known
        self._views = views
        return {oid: view for oid, (_, _, view) in views.items()}

    def _version(self, rows: Rows, used: frozenset[Kind], under: tuple[Any, ...]) -> str:
        digest = hashlib.sha256()
        for oid in sorted(self._kept):
            digest.update(self._kept[oid].digest)
        whole = {name: rows.get(name, ()) for name in QUERIES if name not in (*OF_RELATIONS, "kinds")}
        said = [[tuple(row.values()) for row in whole[name]] for name in sorted(whole)]
        digest.update(repr((said, sorted((kind, self._kinds[kind]) for kind in used), under)).encode())
        return digest.hexdigest()[:16]


def _attributes(
    rows: Rows, coded: frozenset[str], defined: frozenset[tuple[str, str]], path: Iterable[str]
) -> frozenset[str]:
    single = (
        coded
        | {row["name"] for row in rows["attributes"]}
        | {row["name"] for row in rows["functions"] if row["single"]}
    )
    return frozenset(
        name
        for name in single
        if name not in allowed_functions() or name in coded or any((s, name) in defined for s in path)
    )


def _types(
    rows: Rows, kept: Mapping[int, _Kept], coded: frozenset[int]
) -> tuple[dict[tuple[str, str], tuple[str, bool]], dict[int, tuple[str, bool]]]:
    """Return users' types by name and by oid, those of relations' rows among them."""
    found = [
        _Type.of(row["oid"], row["schema"], row["name"], row["kind"], trusted=not row["coded"]) for row in rows["types"]
    ]
    found += [type_ for one in kept.values() for type_ in one.types]
    if coded:
        named = [(one, one.key, one.kind[0]) for one in found]
        found = [_Type.of(one.oid, *key, kind, trusted=False) if one.oid in coded else one for one, key, kind in named]
    return {one.key: one.kind for one in found}, {one.oid: one.named for one in found}


def _following(kept: Mapping[int, _Kept]) -> frozenset[int]:
    """Return the relations of which a change may run code that looks names up.

    It is their own, or that of a partition, of what refers to them, or of what stands behind a view.
    """
    running = [oid for oid, one in kept.items() if one.facts.running]
    if not running:
        return frozenset()
    touching: dict[int, list[int]] = {}
    for oid, one in kept.items():
        for parent in one.facts.parents:
            touching.setdefault(oid, []).append(parent)
        for read in one.facts.reads:
            touching.setdefault(read, []).append(oid)
        for referrer in one.facts.referrers:
            if _CASCADING & {referrer.on_delete, referrer.on_update}:
                touching.setdefault(referrer.child, []).append(oid)
    return _above(running, touching)


def _above(start: Iterable[int], edges: Mapping[int, Iterable[int]]) -> frozenset[int]:
    """Return what is reached, with where that starts."""
    found: set[int] = set()
    todo = list(start)
    while todo:
        one = todo.pop()
        if one not in found:
            found.add(one)
            todo += edges.get(one, ())
    return frozenset(found)


_SEQUENCE = (
    Column("last_value", 1, "bigint", "N", "int8"),
    Column("log_cnt", 2, "bigint", "N", "int8"),
    Column("is_called", 3, "boolean", "B", "bool"),
)
"""What every sequence has; they are too many to be read."""


def _relation(
    row: Row,
    facts: Facts,
    columns: tuple[Column, ...],
    row_casts: bool,
    follows: bool,
    former: tuple[str, ...],
    rows_of: tuple[tuple[str, str], ...],
) -> Relation:
    names = {column.attnum: column.name for column in columns}
    made = repr((facts.made, rows_of)) if facts.made or rows_of else ""
    owner, numbers, shared = row.get("owner") or (0, 0, 0)
    return Relation(
        row["oid"],
        intern(row["schema"]),
        row["name"],
        row["kind"],
        facts.rules,
        row["row_security"],
        columns,
        row_casts,
        tuple(sorted({*facts.identified, *(names[number] for number in facts.primary if number in names)})),
        tuple(row.get("partition_key") or ()),
        facts.indexes,
        facts.referrers,
        owner,
        former,
        follows or facts.rules or any(column.code for column in columns),
        hashlib.sha256(made.encode()).hexdigest()[:32] if made else "",
        0 if shared else numbers,
        facts.literals,
    )


_Family = dict[int, tuple[Relation, ...]]


def _families(kept: Mapping[int, _Kept], by_oid: Mapping[int, Relation]) -> tuple[_Family, _Family]:
    """Return the heirs and the ancestors of each relation, at any distance."""
    heirs: dict[int, dict[int, Relation]] = {}
    ancestors: dict[int, dict[int, Relation]] = {}
    for oid, one in kept.items():
        above = list(one.facts.parents)
        while above:
            ancestor = above.pop()
            heirs.setdefault(ancestor, {})[oid] = by_oid[oid]
            if ancestor in by_oid:
                ancestors.setdefault(oid, {})[ancestor] = by_oid[ancestor]
                above.extend(kept[ancestor].facts.parents)
    return (
        # In the order of a whole reading.
        {oid: tuple(found[each] for each in sorted(found)) for oid, found in heirs.items()},
        {oid: tuple(found.values()) for oid, found in ancestors.items()},
    )
