"""The upstream's catalogue as inspection needs it: relations, columns, and whatever users defined, with oids.

`QUERIES` are run by an adapter under `search_path = pg_catalog` (so that every type of a user's is written qualified)
and their rows given to `build`. Builtin functions, operators and types are known by the lists beside this file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from broker.sql.system import CLOSED_COLUMNS, SYSTEM_SCHEMAS

FIRST_USER_OID = 16384

QUERIES: dict[str, str] = {
    "relations": """
        select c.oid::int8 as oid, n.nspname::text as schema, c.relname::text as name, c.relkind::text as kind,
               c.relhasrules as rules, c.relrowsecurity as row_security,
               c.relispartition or exists (select from pg_inherits i where i.inhrelid = c.oid) as child
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and n.nspname !~ '^pg_(toast|temp)'
        order by 1""",
    "columns": """
        select a.attrelid::int8 as oid, a.attnum::int4 as attnum, a.attname::text as name,
               format_type(a.atttypid, a.atttypmod) as type, t.typname::text as typname, n.nspname::text as typschema,
               t.typtype::text as typtype, t.typcategory::text as category,
               case when t.typtype = 'd' then format_type(t.typbasetype, t.typtypmod) end as base
        from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace r on r.oid = c.relnamespace
             join pg_type t on t.oid = a.atttypid join pg_namespace n on n.oid = t.typnamespace
        where a.attnum > 0 and not a.attisdropped and c.relkind in ('r', 'p', 'v', 'm', 'f')
              and (r.nspname !~ '^pg_(toast|temp)' and r.nspname not in ('pg_catalog', 'information_schema')
                   or r.nspname || '.' || c.relname in ({closed}))
        order by 1, 2""",
    "functions": """
        select n.nspname::text as schema, p.proname::text as name,
               coalesce(bool_or(p.pronargs - p.pronargdefaults <= 1 and (p.pronargs > 0)), false) as single
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where p.oid >= 16384 group by 1, 2 order by 1, 2""",
    "attributes": """
        select distinct p.proname::text as name from pg_proc p
        where p.oid < 16384 and p.pronargs > 0 and p.pronargs - p.pronargdefaults <= 1 and p.prorettype <> 2279
        order by 1""",
    "operators": """
        select distinct n.nspname::text as schema, o.oprname::text as name
        from pg_operator o join pg_namespace n on n.oid = o.oprnamespace
        where o.oid >= 16384 and not exists (
            select from pg_depend d join pg_extension e on e.oid = d.refobjid
            where d.classid = 'pg_operator'::regclass and d.objid = o.oid and d.deptype = 'e'
                  and e.extname in ({trusted}))
        order by 1, 2""",
    "types": """
        select n.nspname::text as schema, t.typname::text as name, t.typtype::text as kind,
               exists (select from pg_depend d join pg_extension e on e.oid = d.refobjid
                       where d.classid = 'pg_type'::regclass and d.objid = t.oid and d.deptype = 'e'
                             and e.extname in ({trusted})) as trusted
        from pg_type t join pg_namespace n on n.oid = t.typnamespace
        where t.oid >= 16384 and t.typelem = 0 order by 1, 2""",
}

TRUSTED_EXTENSIONS = (
    "citext",
    "hstore",
    "ltree",
    "pg_trgm",
    "btree_gist",
    "btree_gin",
    "intarray",
    "cube",
    "seg",
    "isn",
)
"""Extensions whose operators and types are harmless; their functions need a rule like any other."""


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


for _name, _text in QUERIES.items():
    QUERIES[_name] = _text.replace("{closed}", _quoted(sorted(CLOSED_COLUMNS))).replace(
        "{trusted}", _quoted(TRUSTED_EXTENSIONS)
    )


@dataclass(frozen=True, slots=True)
class Column:
    """`type` is what a cast needs (a domain's is its base type's), `category` is pg_type.typcategory."""

    name: str
    attnum: int
    type: str
    category: str
    typname: str


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation by its oid; `kind` is pg_class.relkind."""

    oid: int
    schema: str
    name: str
    kind: str
    rules: bool
    row_security: bool
    child: bool
    columns: tuple[Column, ...]

    @property
    def qualified(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def system(self) -> bool:
        return self.schema in SYSTEM_SCHEMAS


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A snapshot of an upstream's catalogue under a pinned search path (pg_catalog comes first, as in the server)."""

    version: str
    path: tuple[str, ...]
    relations: Mapping[tuple[str, str], Relation]
    functions: frozenset[tuple[str, str]]
    """(schema, name) of functions that users defined."""
    attributes: frozenset[str]
    """Names of functions outside the list that `expression.name` could call."""
    operators: frozenset[tuple[str, str]]
    types: Mapping[tuple[str, str], tuple[str, bool]]
    """(schema, name) of users' types -> (typtype, from a trusted extension)."""
    server_version: int = 0
    schemas: frozenset[str] = field(default_factory=frozenset)

    def relation(self, schema: str | None, name: str) -> Relation | None:
        """Resolve a name as the server would."""
        for candidate in (schema,) if schema else self.path:
            if found := self.relations.get((candidate, name)):
                return found
        return None


@cache
def allowed_functions() -> frozenset[str]:
    """Return the names of builtin functions whose every overload neither changes nor reveals anything of its own."""
    text = resources.files("broker.sql").joinpath("functions.txt").read_text(encoding="utf-8")
    return frozenset(line for line in text.split("\n") if line and not line.startswith("#"))


def build(
    rows: Mapping[str, Sequence[Mapping[str, Any]]], search_path: Sequence[str], server_version: int
) -> Catalogue:
    """Make a catalogue from the rows of QUERIES; its version is a digest of them."""
    digest = hashlib.sha256(json.dumps({name: [dict(row) for row in rows[name]] for name in QUERIES}).encode())
    digest.update(repr((tuple(search_path), server_version)).encode())
    columns: dict[int, list[Column]] = {}
    for row in rows["columns"]:
        columns.setdefault(row["oid"], []).append(_column(row))
    relations = {
        (row["schema"], row["name"]): Relation(
            row["oid"],
            row["schema"],
            row["name"],
            row["kind"],
            row["rules"],
            row["row_security"],
            row["child"],
            tuple(columns.get(row["oid"], ())),
        )
        for row in rows["relations"]
    }
    single = {row["name"] for row in rows["attributes"]} | {row["name"] for row in rows["functions"] if row["single"]}
    defined = frozenset((row["schema"], row["name"]) for row in rows["functions"])
    path = tuple(dict.fromkeys(("pg_catalog", *search_path)))
    return Catalogue(
        version=digest.hexdigest()[:16],
        path=path,
        relations=relations,
        functions=defined,
        attributes=frozenset(
            name for name in single if name not in allowed_functions() or any((s, name) in defined for s in path)
        ),
        operators=frozenset((row["schema"], row["name"]) for row in rows["operators"]),
        types={(row["schema"], row["name"]): (row["kind"], row["trusted"]) for row in rows["types"]},
        server_version=server_version,
        schemas=frozenset(schema for schema, _ in relations),
    )


_KEYWORD_TYPES = (
    "bigint", "bit", "boolean", "character", "double precision", "integer", "interval", "numeric", "real", "smallint",
    "time", "timestamp",
)  # fmt: skip


def _column(row: Mapping[str, Any]) -> Column:
    text = row["base"] or row["type"]
    bare = text.split("[")[0].split("(")[0]
    plain = any(bare == word or bare.startswith(f"{word} ") for word in _KEYWORD_TYPES)
    qualified = text if plain or "." in bare else f"pg_catalog.{text}"
    return Column(row["name"], row["attnum"], qualified, row["category"], row["typname"])
