"""Schema drift: how a change of an upstream's schema is noticed, and what names meant before it.

Field rules speak of names. A column that is renamed is still the column that it was, so a name that it had while the
same field rules held counts as well: whatever any of its names would mask stays masked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_WATCHED = {
    # What is temporary belongs to other sessions, and comes and goes with them.
    "pg_class t": "t.oid >= 16384 and t.relpersistence <> 't'",
    "pg_attribute t join pg_class c on c.oid = t.attrelid": "t.attrelid >= 16384 and c.relpersistence <> 't' "
    "and c.relkind in ('r', 'p', 'v', 'm', 'f', 'c')",
    "pg_attrdef t": "true",
    "pg_inherits t": "true",
    "pg_partitioned_table t": "true",
    "pg_rewrite t": "t.ev_class >= 16384",
    "pg_index t": "t.indisprimary and t.indrelid >= 16384",
    "pg_namespace t": "t.nspname !~ '^pg_(toast|temp)'",
    "pg_proc t": "t.oid >= 16384",
    "pg_operator t": "t.oid >= 16384",
    "pg_opclass t": "t.oid >= 16384",
    "pg_type t": "t.oid >= 16384 and t.typrelid = 0 and t.typelem = 0",
    "pg_enum t": "true",
    "pg_cast t": "t.oid >= 16384",
    "pg_range t": "t.rngtypid >= 16384",
    "pg_constraint t": "t.contypid <> 0 or t.contype in ('c', 'f')",
    "pg_trigger t": "not t.tgisinternal",
    "pg_policy t": "true",
    "pg_extension t": "true",
}

_USABLE = """(select sum(hashtextextended(n.oid::text, 0)) from pg_namespace n
    where n.nspname !~ '^pg_(toast|temp)' and has_schema_privilege(n.oid, 'usage'))"""
"""Which schemas the role may use, for names are looked up in no other: a membership is in no database's catalogue."""

PROBE = "select concat_ws(' ', {}, {}) as stamp".format(
    _USABLE,
    ", ".join(
        f"(select concat(count(*), '/', sum(hashtextextended(t.ctid::text || ' ' || t.xmin::text, 0))) "
        f"from {source} where {condition})"
        for source, condition in _WATCHED.items()
    ),
)
"""A stamp that changes with every committed change of what a catalogue is read from, and not with VACUUM or ANALYZE."""

Key = tuple[int, int]
"""(relation oid, attnum), or (relation oid, 0) for the relation itself."""
Former = Mapping[Key, tuple[str, ...]]


class Names:
    """What the relations and columns of an upstream were called under the same field rules; `last` is from before."""

    def __init__(self, last: Mapping[Key, str] | None = None) -> None:
        self.last = dict(last or {})
        self.former: dict[Key, tuple[str, ...]] = {}

    def see(self, names: Mapping[Key, str]) -> None:
        """Take note of what they are called now."""
        for key, name in names.items():
            last = self.last.setdefault(key, name)
            if last != name:
                self.former[key] = tuple(dict.fromkeys((*self.former.get(key, ()), last)))
                self.last[key] = name


def names_in(rows: Mapping[str, Iterable[Mapping[str, Any]]]) -> dict[Key, str]:
    """Return the names in the rows of a catalogue."""
    relations = {(row["oid"], 0): f"{row['schema']}.{row['name']}" for row in rows["relations"]}
    return relations | {(row["oid"], row["attnum"]): row["name"] for row in rows["columns"]}
