"""Schema drift: how a change of an upstream's schema is noticed, and what names meant before it.

Field rules speak of names. A column that is renamed is still the column that it was, so a name that it had while the
same field rules held counts as well: whatever any of its names would mask stays masked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

_WATCHED = {
    "pg_namespace t": "t.nspname !~ '^pg_(toast|temp)'",
    "pg_proc t": "t.oid >= 16384",
    "pg_operator t": "t.oid >= 16384",
    "pg_opclass t": "t.oid >= 16384",
    "pg_type t": "t.oid >= 16384 and t.typrelid = 0 and t.typelem = 0",
    "pg_class c join pg_attribute t on t.attrelid = c.oid": "c.relkind = 'c' and c.relpersistence <> 't'",
    "pg_class t": "t.relkind = 'c' and t.relpersistence <> 't'",
    # Arrays of those, which get out of the way of other names: of tables, too.
    "pg_type e join pg_type t on t.oid = e.typarray": "e.oid >= 16384 and e.typrelid = 0",
    "pg_class c join pg_type e on e.oid = c.reltype join pg_type t on t.oid = e.typarray": "c.relkind = 'c' "
    "and c.relpersistence <> 't'",
    "pg_enum t": "true",
    "pg_cast t": "t.oid >= 16384",
    "pg_range t": "t.rngtypid >= 16384",
    "pg_constraint t": "t.contypid <> 0",
    "pg_extension t": "true",
    # Members of extensions, which may come and go while neither changes.
    "pg_depend t": "t.refclassid = 'pg_extension'::regclass and t.deptype = 'e'",
    "pg_language t": "true",
    "pg_amop t": "t.oid >= 16384",
    "pg_amproc t": "t.oid >= 16384",
}
"""What is no relation's own."""

_KINDS = "t.relkind in ('r', 'p', 'v', 'm', 'f', 'S')"
_OWNED = {
    # Whose it is, what tells it from others, the version that it has, and where it is.
    ("t.oid", "0", "t.xmin"): f"pg_class t where t.oid >= 16384 and {_KINDS}",
    ("t.inhrelid", "t.inhparent", "t.xmin"): "pg_inherits t where true",
    ("t.inhparent", "t.inhrelid", "t.xmin"): "pg_inherits t where true",
    ("t.ev_class", "t.oid", "t.xmin"): "pg_rewrite t where t.ev_class >= 16384",
    ("x.indrelid", "t.oid", "t.xmin"): "pg_index x join pg_class t on t.oid = x.indexrelid where x.indrelid >= 16384",
    ("t.conrelid", "t.oid", "t.xmin"): "pg_constraint t where t.conrelid <> 0",
    ("t.confrelid", "t.oid", "t.xmin"): "pg_constraint t where t.confrelid <> 0",
    ("t.tgrelid", "t.oid", "t.xmin"): "pg_trigger t where not t.tgisinternal",
    ("t.polrelid", "t.oid", "t.xmin"): "pg_policy t where true",
}
_GOING = {
    ("t.indrelid", "t.indexrelid", "t.xmin"): "pg_index t where t.indrelid >= 16384",
    ("t.attrelid", "t.attnum", "t.xmin"): "pg_attribute t where t.attrelid >= 16384 and t.attnum > 0",
    ("t.adrelid", "t.oid", "t.xmin"): "pg_attrdef t where true",
    ("t.partrelid", "1", "t.xmin"): "pg_partitioned_table t where true",
    ("t.seqrelid", "2", "t.xmin"): "pg_sequence t where true",
    # Arrays of a relation's rows, which get out of the way of other names.
    ("r.typrelid", "t.oid", "t.xmin"): "pg_type r join pg_type t on t.oid = r.typarray "
    "where r.oid >= 16384 and r.typrelid <> 0",
}
"""What goes with its relation or index, or has its column changed: new ones tell all, and most are old."""

_USABLE = """(select sum(hashtextextended(n.oid::text, 0)) from pg_namespace n
    where n.nspname !~ '^pg_(toast|temp)' and has_schema_privilege(n.oid, 'usage'))"""
"""Which schemas the role may use, for names are looked up in no other: a membership is in no database's catalogue."""

DRAWERS = 512
"""Relations are watched together with those whose oids have the same rest."""

_SERVER = "case when pg_is_in_recovery() then '' else pg_postmaster_start_time()::text end"
"""Since when it is this server: one that took over with less of the log gives transactions' numbers out again."""

_REST = "concat_ws(' ', {}, {}, {})".format(
    _SERVER,
    _USABLE,
    ", ".join(
        f"(select concat(count(*), '/', sum(hashtextextended(t.ctid::text || ' ' || t.xmin::text, 0))) "
        f"from {source} where {condition})"
        for source, condition in _WATCHED.items()
    ),
)


def _summed(whose: str, what: str, version: str, source: str, *, new: bool = False) -> str:
    # A transaction's number as a number, whatever the one is that will come next; what was frozen long ago has none.
    number = f"case age({version}) when 2147483647 then 0 else (latest.number - age({version})) & 4294967295 end"
    old = f"and age({version}) <= (select age from horizon)" if new else ""
    return (
        f"select {whose}::int8 % {DRAWERS} as drawer, count(*) as many, "
        f"sum(hashint8extended(({whose}::int8 << 31) # ({what})::int8, {number})) as versions "
        f"from (select age('3'::xid)::int8 as number offset 0) latest, {source} {old} "
        # What is temporary belongs to other sessions, and comes and goes with them.
        f"and {whose} not in (table temporary) group by 1"
    )


_DRAWERS = (
    "(with temporary (oid) as materialized (select oid from pg_class where relpersistence = 't') "
    "select string_agg(concat(drawer, ':', many, '/', versions), ' ' order by drawer) from (select drawer, "
    "sum(many) as many, sum(versions) as versions from ({}) s group by 1) s)"
).format(
    " union all ".join(
        [
            *(_summed(*whose, source) for whose, source in _OWNED.items()),
            *(_summed(*whose, source, new=True) for whose, source in _GOING.items()),
        ]
    )
)

PROBE = f"""
with moment (moment, first) as materialized (
    select case when pg_is_in_recovery() then ''
                else concat(pg_postmaster_start_time(), ' ', pg_current_snapshot()) end,
           coalesce(nullif($2, ''), (pg_snapshot_xmin(pg_current_snapshot())::text::numeric % 4294967296)::text)),
horizon (age) as materialized (select age(first::xid) from moment)
select moment, first, case when moment is distinct from nullif($1, '') then {_REST} end as rest,
       case when moment is distinct from nullif($1, '') then {_DRAWERS} end as drawers from moment"""
"""Stamps that change with every committed change of what a catalogue is read from, and not with VACUUM or ANALYZE.

Where the same server says the same moment as before ($1), no transaction has ended since, and there is nothing to look
at. A standby does not say all of that. New is what a transaction has made that was under way when all was read, or came
later: the first of them is $2.
"""


class Stamp(NamedTuple):
    """What a probe has said: what is no relation's own, and each drawer of relations; the moment says nothing more."""

    rest: str
    drawers: str

    def opened(self, before: Stamp) -> frozenset[int] | None:
        """Return the drawers in which something has changed; None where it is more than that."""
        if self.rest != before.rest:
            return None
        return frozenset(int(one.partition(":")[0]) for one in {*self.drawers.split()} ^ {*before.drawers.split()})


Key = tuple[int, int]
"""(relation oid, attnum), or (relation oid, 0) for the relation itself."""
Former = Mapping[Key, tuple[str, ...]]


class Names:
    """What the relations and columns of an upstream were called under the same field rules; `last` is from before."""

    def __init__(self, last: Mapping[int, str] | None = None) -> None:
        self.last = dict(last or {})
        self.former: dict[Key, tuple[str, ...]] = {}

    def see(self, names: Mapping[int, str]) -> None:
        """Take note of what they are called now."""
        for oid, text in names.items():
            last = self.last.setdefault(oid, text)
            if last == text:
                continue
            before, now = _named(last), _named(text)
            for number, (name, _) in now.items():
                if number in before and before[number][0] != name:
                    key = (oid, number)
                    self.former[key] = tuple(dict.fromkeys((*self.former.get(key, ()), before[number][0])))
            self.last[oid] = "\n".join([text, *(line for number, (_, line) in before.items() if number not in now)])


def names_in(
    rows: Mapping[str, Iterable[Mapping[str, Any]]], but: Mapping[str, Iterable[Mapping[str, Any]]] | None = None
) -> dict[int, str]:
    """Return the names in the rows of a catalogue, by relation; without those whose rows are in others too."""
    before = {id(row) for kind in ("relations", "columns") for row in but[kind]} if but is not None else set()
    columns = {row["oid"]: row for row in rows["columns"]}
    found = {}
    for row in rows["relations"]:
        listed = columns.get(row["oid"])
        if id(row) in before and (listed is None or id(listed) in before):
            continue
        qualified = f"{row['schema']}.{row['name']}".replace("\\", "\\\\").replace("\n", "\\n")
        found[row["oid"]] = f"0 0 0 {qualified}\n{listed['columns'] if listed is not None else ''}"
    return found


def attributes(columns: str) -> Iterator[tuple[int, int, int, str]]:
    """Yield number, type, modifier and name of each column of a relation, as its row has them."""
    for line in columns.split("\n") if columns else ():
        number, type_, modifier, name = line.split(" ", 3)
        yield int(number), int(type_), int(modifier), _unescaped(name) if "\\" in name else name


def _named(text: str) -> dict[int, tuple[str, str]]:
    """Return the names in a text of names by number, each with its line."""
    found = {}
    for line in text.split("\n"):
        if line:
            number, _, _, name = line.split(" ", 3)
            found[int(number)] = (_unescaped(name), line)
    return found


def _unescaped(name: str) -> str:
    return "\\".join(part.replace("\\n", "\n") for part in name.split("\\\\"))
