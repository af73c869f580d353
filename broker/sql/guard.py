"""The check that a strict role's statement makes as it runs: that what it reads is what the catalogue said.

Names are looked up by the server's own caches, which are current once the statement has locked the relation, whatever
its transaction's snapshot is; a view's definition is compared as the snapshot has it.
"""

from __future__ import annotations

from broker.sql.catalogue import Catalogue, Relation
from broker.sql.masks import quote_text

FAILS = "2201G"
"""The SQLSTATE with which a statement ends that no longer reads what it was decided on (width_bucket's)."""


def unchanged(catalogue: Catalogue, relation: Relation) -> str:
    """Write a condition that holds while every column has its name; otherwise the statement fails."""
    names = ", ".join(f"({column.attnum}, {quote_text(column.name)})" for column in relation.columns)
    checks = []
    if names:
        schema, name = quote_text(relation.schema), quote_text(relation.name)
        checks.append(
            "(SELECT pg_catalog.bool_and((pg_catalog.pg_identify_object("
            f"{_CLASS}::pg_catalog.oid, {relation.oid}::pg_catalog.oid, c.attnum)).identity"
            f" IS NOT DISTINCT FROM pg_catalog.format('%I.%I.%I', {schema}, {name}, c.attname))"
            f" FROM (VALUES {names}) AS c (attnum, attname))"
        )
    stamps = sorted(_definitions(catalogue, relation))
    if stamps:
        listed = ", ".join(quote_text(stamp) for stamp in stamps)
        checks.append(
            "(SELECT pg_catalog.count(*) FROM pg_catalog.pg_rewrite AS r WHERE"
            " pg_catalog.concat(r.ev_class, ' ', r.xmin) OPERATOR(pg_catalog.=)"
            f" ANY (ARRAY[{listed}]::pg_catalog.text[])) OPERATOR(pg_catalog.=) {len(stamps)}"
        )
    holds = " AND ".join(checks) or "true"
    return (
        "pg_catalog.width_bucket(0::pg_catalog.float8, 0::pg_catalog.float8, 1::pg_catalog.float8,"
        f" CASE WHEN {holds} THEN 1 ELSE 0 END) OPERATOR(pg_catalog.=) 1"
    )


_CLASS = 1259
"""The oid of pg_class itself."""


def _definitions(catalogue: Catalogue, relation: Relation) -> set[str]:
    """Return who defined a view and the views behind it, as `oid transaction`."""
    found: set[str] = set()
    seen: set[int] = set()
    todo = [relation.oid]
    while todo:
        oid = todo.pop()
        view = catalogue.views.get(oid)
        if view is None or view.lineage is None or oid in seen:
            continue
        seen.add(oid)
        found.add(f"{oid} {view.stamp}")
        todo += view.lineage.relations
    return found
