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

from broker.sql.drift import Former
from broker.sql.lineage import Lineage, columns_of_expression, lineage
from broker.sql.system import CLOSED_COLUMNS, SYSTEM_SCHEMAS
from policies.engine.decisions import OwnFunction

_TRUSTED = """
        trusted as (
            select d.classid, d.objid from pg_depend d join pg_extension e on e.oid = d.refobjid
            where d.refclassid = 'pg_extension'::regclass and d.deptype = 'e' and e.extname in ({trusted}))"""

_CODED = (
    _TRUSTED
    + """,
        part (whole, part) as (
            select oid, typelem from pg_type where typelem <> 0
            union all select oid, typbasetype from pg_type where typtype = 'd'
            union all select c.reltype, a.atttypid from pg_attribute a join pg_class c on c.oid = a.attrelid
                      where a.attnum > 0 and not a.attisdropped and c.reltype <> 0
            union all select rngtypid, rngsubtype from pg_range
            -- Servers before 14 have no multiranges.
            union all select (to_jsonb(r) ->> 'rngmultitypid')::oid, rngtypid from pg_range r),
        start (oid) as (
            select oid from pg_type where oid >= 16384 and typelem = 0 and typtype in ('b', 'p') and oid not in
                (select objid from trusted where classid = 'pg_type'::regclass)
            union select k.contypid from pg_constraint k join pg_depend d on d.objid = k.oid
                  where k.contypid <> 0 and d.classid = 'pg_constraint'::regclass and d.refobjid >= 16384
                        and d.refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass)
            union select t.oid from pg_cast k join pg_type t on t.oid in (k.castsource, k.casttarget)
                  where castfunc >= 16384
                        and k.oid not in (select objid from trusted where classid = 'pg_cast'::regclass)
                        -- A range becomes a multirange by the server's own code.
                        and castfunc not in (select oid from pg_proc where oid >= 16384 and prolang = 12
                                             and prosrc like 'multirange_constructor_')
                        -- Between two builtin types it is the target that a statement names.
                        and (t.oid >= 16384 or t.oid = casttarget and castsource < 16384)
            union select rngtypid from pg_range where rngcanonical::oid >= 16384 or rngsubdiff::oid >= 16384),
        coded (oid) as (
            select oid from start where oid >= 16384
            union select p.whole from coded c join part p on p.part = c.oid)"""
)
"""Types whose input, output, checks or casts run code of users', and what is made of such types."""

CALLS = ":(?:funcid|aggfnoid|winfnoid|tsmhandler) ([0-9]+)"
"""Where a stored tree names the functions that it calls."""

QUERIES: dict[str, str] = {
    "relations": """
        select c.oid::int8 as oid, n.nspname::text as schema, c.relname::text as name, c.relkind::text as kind,
               exists (select from pg_rewrite r where r.ev_class = c.oid and r.rulename <> '_RETURN') as rules,
               c.relrowsecurity as row_security,
               array(select i.inhparent::int8 from pg_inherits i where i.inhrelid = c.oid order by 1) as parents,
               exists (select from pg_cast k where c.reltype in (k.castsource, k.casttarget)) as row_casts,
               array(select a.attname::text from pg_index x join pg_attribute a on a.attrelid = x.indrelid
                     where x.indrelid = c.oid and x.indisprimary and x.indimmediate and a.attnum = any (x.indkey)
                     order by 1) as key,
               (select p.partattrs::int2[]::int4[] from pg_partitioned_table p
                where p.partrelid = c.oid) as partition_key,
               -- A name without its schema is never looked up in a schema that the role may not use.
               has_schema_privilege(n.oid, 'usage') as usable
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and n.nspname !~ '^pg_(toast|temp)'
        order by 1""",
    "columns": f"""
        with recursive {_CODED},
        base (oid, type, typmod) as (
            select oid, typbasetype, typtypmod from pg_type where typtype = 'd'
            union all select b.oid, t.typbasetype, t.typtypmod from base b join pg_type t on t.oid = b.type
                      where t.typtype = 'd')
        select a.attrelid::int8 as oid, a.attnum::int4 as attnum, a.attname::text as name,
               format_type(a.atttypid, a.atttypmod) as type, t.typname::text as typname, n.nspname::text as typschema,
               t.typcategory::text as category, format_type(b.type, b.typmod) as base,
               case when a.atttypid not in (table coded) then ''
                    when b.type is not null and b.type not in (table coded) then 'domain' else 'type' end as code
        from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace r on r.oid = c.relnamespace
             left join base b on b.oid = a.atttypid
                  and not exists (select from pg_type d where d.oid = b.type and d.typtype = 'd')
             join pg_type t on t.oid = coalesce(b.type, a.atttypid) join pg_namespace n on n.oid = t.typnamespace
        where a.attnum > 0 and not a.attisdropped and c.relkind in ('r', 'p', 'v', 'm', 'f')
              and (r.nspname !~ '^pg_(toast|temp)' and r.nspname not in ('pg_catalog', 'information_schema')
                   or r.nspname || '.' || c.relname in ({{closed}}))
        order by 1, 2""",
    "functions": """
        select n.nspname::text as schema, p.proname::text as name,
               coalesce(bool_or(p.pronargs - p.pronargdefaults <= 1 and (p.pronargs > 0)), false) as single,
               coalesce(bool_or(t.typtype = 'p'), false) as loose
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace left join pg_type t on t.oid = p.proargtypes[0]
        where p.oid >= 16384 group by 1, 2 order by 1, 2""",
    "overloads": """
        select n.nspname::text as schema, p.proname::text as name,
               array(select format_type(u.t, null) from unnest(p.proargtypes) with ordinality u (t, i) order by u.i)
                   as arguments,
               p.provolatile = 'v' or p.prosecdef
                   or exists (select from pg_aggregate a join pg_proc t on t.oid in (a.aggtransfn, a.aggfinalfn,
                                  a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn,
                                  a.aggmfinalfn)
                              where a.aggfnoid = p.oid and (t.provolatile = 'v' or t.prosecdef)) as acting,
               not l.lanpltrusted and not exists (
                   select from pg_depend d join pg_extension e on e.oid = d.refobjid
                   where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
                         and d.refclassid = 'pg_extension'::regclass and e.extname in ({harmless})) as native,
               coalesce(r.typrelid, 0)::int8 as returns,
               exists (select from pg_proc b where b.oid < 16384 and b.proname = p.proname) as builtin
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_language l on l.oid = p.prolang
             left join pg_type r on r.oid = p.prorettype
        where p.oid >= 16384 and p.prokind <> 'p' order by 1, 2, 3""",
    "attributes": """
        select distinct p.proname::text as name from pg_proc p
        where p.oid < 16384 and p.pronargs > 0 and p.pronargs - p.pronargdefaults <= 1 and p.prorettype <> 2279
        order by 1""",
    "builtins": "select distinct proname::text as name from pg_proc where oid < 16384 order by 1",
    "operators": f"""
        with {_TRUSTED}
        select distinct n.nspname::text as schema, o.oprname::text as name
        from pg_operator o join pg_namespace n on n.oid = o.oprnamespace
        where o.oid >= 16384 and o.oid not in (select objid from trusted where classid = 'pg_operator'::regclass)
        order by 1, 2""",
    "views": f"""
        with recursive {_CODED}
        select r.ev_class::int8 as oid, r.xmin::text as stamp, r.ev_action::text as tree,
               array(select distinct p.oid::int8 || ' ' || p.proname from pg_proc p
                     where p.oid < 16384 and p.oid in
                         (select m[1]::oid from regexp_matches(r.ev_action::text, '{CALLS}', 'g') m)
                     order by 1) as builtins,
               array(select distinct coalesce(p.proname, o.oprname, t.typname)::text from pg_depend d
                     left join pg_proc p on d.refclassid = 'pg_proc'::regclass and p.oid = d.refobjid
                     left join pg_operator o on d.refclassid = 'pg_operator'::regclass and o.oid = d.refobjid
                          and o.oid not in (select objid from trusted where classid = 'pg_operator'::regclass)
                     left join pg_type t on d.refclassid = 'pg_type'::regclass and t.oid = d.refobjid
                          and t.oid in (table coded)
                     where d.classid = 'pg_rewrite'::regclass and d.objid = r.oid and d.refobjid >= 16384
                           and coalesce(p.oid, o.oid, t.oid) is not null order by 1) as defined
        from pg_rewrite r where r.rulename = '_RETURN' and r.ev_class >= 16384 order by 1""",
    "generated": """
        select d.adrelid::int8 as oid, d.adnum::int4 as attnum, d.adbin::text as tree
        from pg_attrdef d join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
        where a.attgenerated <> '' order by 1, 2""",
    "types": f"""
        with recursive {_CODED}
        select n.nspname::text as schema, t.typname::text as name, t.typtype::text as kind,
               t.oid not in (select oid from coded union select oid from start) as trusted
        from pg_type t join pg_namespace n on n.oid = t.typnamespace
        where t.oid >= 16384 or t.oid in (table start) order by 1, 2""",
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
    "postgis",
    "vector",
)
"""Extensions whose operators and types are harmless; their functions need a rule like any other."""

HARMLESS_EXTENSIONS = frozenset(
    """
    btree_gin btree_gist citext cube earthdistance fuzzystrmatch hstore intarray isn ltree pg_trgm pgcrypto postgis seg
    tablefunc unaccent uuid-ossp vector
    """.split()
)
"""Extensions that bring no way out of the database, and read no files."""


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


for _name, _text in QUERIES.items():
    QUERIES[_name] = (
        _text.replace("{closed}", _quoted(sorted(CLOSED_COLUMNS)))
        .replace("{trusted}", _quoted(TRUSTED_EXTENSIONS))
        .replace("{harmless}", _quoted(sorted(HARMLESS_EXTENSIONS)))
    )


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
    former: tuple[str, ...] = ()
    """Qualified names that it had before, under the same field rules."""

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


@dataclass(frozen=True, slots=True)
class Overload:
    """One function that users defined; `returns` is the oid of the relation whose rows it returns, or 0.

    `builtin` says that there is a builtin function of its name.
    """

    function: OwnFunction
    returns: int = 0
    builtin: bool = False


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
    operators: frozenset[tuple[str, str]]
    types: Mapping[tuple[str, str], tuple[str, bool]]
    """(schema, name) of users' types -> (typtype, whether it runs no code of theirs)."""
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
    overloads: Mapping[tuple[str, str], tuple[Overload, ...]] = field(default_factory=dict)
    """(schema, name) -> the functions of users' that are called so."""
    builtins: frozenset[str] = frozenset()
    """Names of every builtin function."""
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
    by_oid = {row["oid"]: _relation(row, tuple(columns.get(row["oid"], ())), former) for row in rows["relations"]}
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
        types={(row["schema"], row["name"]): (row["kind"], row["trusted"]) for row in rows["types"]},
        own=frozenset(row["name"] for row in rows["functions"]) | coded,
        loose=frozenset(row["name"] for row in rows["functions"] if row.get("loose", True)) | coded,
        heirs=heirs,
        ancestors=ancestors,
        by_oid=by_oid,
        views={row["oid"]: _view(row) for row in rows["views"]},
        generated=_generated(rows["generated"]),
        overloads=_overloads(rows["overloads"]),
        builtins=frozenset(row["name"] for row in rows["builtins"]),
        server_version=server_version,
        schemas=frozenset(schema for schema, _ in relations),
    )


def _overloads(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], tuple[Overload, ...]]:
    found: dict[tuple[str, str], tuple[Overload, ...]] = {}
    for row in rows:
        function = OwnFunction(
            row["schema"], row["name"], tuple(row["arguments"]), row["acting"], row.get("native", False)
        )
        key = (row["schema"], row["name"])
        found[key] = (*found.get(key, ()), Overload(function, row["returns"], row["builtin"]))
    return found


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
        former.get((row["oid"], 0), ()),
    )


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


def _view(row: Mapping[str, Any]) -> View:
    """Read a view; one that could run code, or whose builtin functions are not all on the list, is open to nobody."""
    found = lineage(row["tree"])
    if found is None:
        return View(None)
    names = {int(oid): name for oid, _, name in (each.partition(" ") for each in row["builtins"])}
    unlisted = sorted({names[oid] for oid in found.calls if oid in names} - allowed_functions())
    if row["defined"]:
        problem = f"uses {row['defined'][0]}, which this database's own users defined, and those are not open yet"
    elif unlisted:
        problem = f"calls {unlisted[0]}, which is not on the list of functions that only compute"
    else:
        problem = "locks rows whenever it is read" if found.locks else ""
    return View(found, problem, row["stamp"])


def _generated(rows: Sequence[Mapping[str, Any]]) -> dict[int, dict[int, frozenset[int] | None]]:
    found: dict[int, dict[int, frozenset[int] | None]] = {}
    for row in rows:
        found.setdefault(row["oid"], {})[row["attnum"]] = columns_of_expression(row["tree"])
    return found


_KEYWORD_TYPES = (
    "bigint", "bit", "boolean", "character", "double precision", "integer", "interval", "numeric", "real", "smallint",
    "time", "timestamp",
)  # fmt: skip


def _column(row: Mapping[str, Any], former: Former) -> Column:
    text = row["base"] or row["type"]
    bare = text.split("[")[0].split("(")[0]
    plain = any(bare == word or bare.startswith(f"{word} ") for word in _KEYWORD_TYPES)
    qualified = text if plain or "." in bare else f"pg_catalog.{text}"
    known = row["typschema"] == "pg_catalog" or row["typname"] == "citext"
    typname = row["typname"] if known else f"{row['typschema']}.{row['typname']}"
    return Column(
        row["name"],
        row["attnum"],
        qualified,
        row["category"],
        typname,
        row.get("code", ""),
        former.get((row["oid"], row["attnum"]), ()),
    )
