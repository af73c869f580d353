"""Extensions that are known: whose members are trusted, as members and not by their names, and which of them reach."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import resources

TRUSTED_EXTENSIONS = (
    "citext",
    "hstore",
    "ltree",
    "pg_trgm",
    "btree_gist",
    "btree_gin",
    "intarray",
    "cube",
    "earthdistance",
    "seg",
    "isn",
    "postgis",
    "vector",
)
"""Extensions whose operators and types are harmless."""

HARMLESS_EXTENSIONS = frozenset(
    """
    btree_gin btree_gist citext cube earthdistance fuzzystrmatch hstore intarray isn ltree pg_trgm pgcrypto postgis seg
    tablefunc unaccent uuid-ossp vector
    """.split()
)
"""Extensions that bring no way out of the database, and read no files."""

REACHING = {
    "dblink": "*",
    "pageinspect": "*",
    "pg_walinspect": "*",
    "postgis": "_postgis_index_extent _postgis_join_selectivity _postgis_selectivity _postgis_stats st_estimatedextent"
    " st_findextent",
    "tablefunc": "connectby crosstab crosstab2 crosstab3 crosstab4",
    "xml2": "xpath_table",
}
"""Functions that run SQL, or read relations, which they are given as texts: nothing inspects or masks that."""


@cache
def computing() -> frozenset[str]:
    """Return `extension.function` for those that only compute, which no rule has to name."""
    text = resources.files("broker.sql").joinpath("contrib.txt").read_text(encoding="utf-8")
    lines = [line.split() for line in text.split("\n") if line and not line.startswith("#")]
    return frozenset(f"{extension}.{name}" for extension, *names in lines for name in names)


@cache
def computing_names() -> frozenset[str]:
    """Return the names of those functions alone, which functions of users' may have too."""
    return frozenset(one.rpartition(".")[2] for one in computing())


def reaching() -> frozenset[str]:
    """Return `extension.function` for those that reach, with `*` for every one of an extension."""
    return frozenset(f"{extension}.{name}" for extension, names in REACHING.items() for name in names.split())


def coded_in() -> frozenset[str]:
    """Return `library.symbol` for the code of those, with nothing behind the dot for every one of a library."""
    return frozenset(f"{library}.{name}" for library, names in LIBRARIES.items() for name in names.split() or [""])


LIBRARIES = {
    "dblink": "",
    "pageinspect": "",
    "pg_walinspect": "",
    "pgxml": "xpath_table",
    "tablefunc": "connectby_text connectby_text_serial crosstab crosstab_hash",
}
"""Where their code is: a library, and what of it; the manual of tablefunc has people name it anew for themselves."""


def quoted(names: Iterable[str]) -> str:
    """Write names as SQL texts, for a list."""
    return ", ".join(f"'{name}'" for name in sorted(names))


TRUSTED = f"""
            select d.classid, d.objid from pg_depend d join pg_extension e on e.oid = d.refobjid
            where d.refclassid = 'pg_extension'::regclass and d.deptype = 'e'
                  and e.extname in ({quoted(TRUSTED_EXTENSIONS)})"""
"""SQL that lists the members of trusted extensions."""

COMPUTING = f"""computing as (
            select d.objid from pg_depend d join pg_extension e on e.oid = d.refobjid
                   join pg_proc p on p.oid = d.objid join pg_language l on l.oid = p.prolang
            where d.classid = 'pg_proc'::regclass and d.refclassid = 'pg_extension'::regclass and d.deptype = 'e'
                  and e.extname || '.' || p.proname in ({quoted(computing())})
                  and not p.prosecdef and l.lanname in ('c', 'internal', 'sql'))"""
"""SQL, a query of a WITH, that lists the functions that only compute: as members, and not by their names alone."""

IMPLIED = """implied (oid, assigning) as (
            select castfunc::oid, castcontext = 'a' from pg_cast
            where castfunc >= 16384 and castcontext <> 'e' and castsource < 16384 and casttarget < 16384
            union select f.oid, false
            from pg_opclass c cross join lateral (
                 select amproc::oid as oid from pg_amproc where amprocfamily = c.opcfamily
                 union all select o.oprcode::oid from pg_amop m join pg_operator o on o.oid = m.amopopr
                           where m.amopfamily = c.opcfamily) f
            where c.oid >= 16384 and c.opcdefault and c.opcintype < 16384 and c.opcmethod in (403, 405))"""
"""SQL, a query of a WITH, that lists the functions that make one builtin type of another, or compare values of one by
default (403 and 405 are B-trees and hashes), where no statement names them; some only where values are `assigning`.
"""
