"""What a change reaches beyond the rows it names: children by foreign key, and triggers, as the catalogue says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from broker.sql.model import Statement
from policies.engine.decisions import Effect

MOST = 30
"""How many of each are told."""
_EVENTS = {"DELETE": "d", "UPDATE": "u", "INSERT": "i"}
_WORDS = {"i": "insert", "u": "update", "d": "delete"}
_ACTIONS = {"c": "cascade", "n": "set null", "d": "set default"}

_REACHED = """
    with recursive named as (
        select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname || '.' || c.relname = any($1::text[])),
    tree (oid) as (select oid from named union select i.inhrelid from tree t join pg_inherits i on i.inhparent = t.oid),
    reached (oid, event) as (
        select t.oid, e.event from tree t, unnest($2::text[]) e (event)
        union
        select k.conrelid, case when r.event = 'd' and k.confdeltype = 'c' then 'd' else 'u' end
        from reached r join pg_constraint k on k.confrelid = r.oid and k.contype = 'f'
        where r.event = 'd' and k.confdeltype in ('c', 'n', 'd') or r.event = 'u' and k.confupdtype in ('c', 'n', 'd'))
"""
"""Every relation that a change reaches with what happens there; ON DELETE and ON UPDATE are followed to their end."""
CASCADES = """REACHED
    select distinct cn.nspname || '.' || child.relname as child, pn.nspname || '.' || parent.relname as parent, r.event,
           case r.event when 'd' then k.confdeltype::text else k.confupdtype::text end as action
    from reached r join pg_constraint k on k.confrelid = r.oid and k.contype = 'f' and k.conparentid = 0
         join pg_class child on child.oid = k.conrelid join pg_namespace cn on cn.oid = child.relnamespace
         join pg_class parent on parent.oid = k.confrelid join pg_namespace pn on pn.oid = parent.relnamespace
    where r.event = 'd' and k.confdeltype in ('c', 'n', 'd') or r.event = 'u' and k.confupdtype in ('c', 'n', 'd')
    order by 2, 1, 3""".replace("REACHED", _REACHED)
TRIGGERS = """REACHED
    select distinct n.nspname || '.' || c.relname as relation, t.tgname::text as name, r.event,
           fn.nspname || '.' || f.proname as function, t.tgdeferrable as deferrable
    from reached r join pg_trigger t on t.tgrelid = r.oid and t.tgenabled in ('O', 'A')
         -- To 13 what a partition has of its parent is internal.
         and (not t.tgisinternal or t.tgparentid <> 0 and t.tgconstraint = 0)
         join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
         join pg_proc f on f.oid = t.tgfoid join pg_namespace fn on fn.oid = f.pronamespace
    where t.tgtype & case r.event when 'i' then 4 when 'd' then 8 else 16 end <> 0
    order by 1, 2, 3""".replace("REACHED", _REACHED)


def events_of(statements: Iterable[Statement]) -> tuple[str, ...]:
    """Return what may happen to what a text writes: `i`, `u`, `d`; all of it where a verb does not say."""
    found: set[str] = set()
    for statement in statements:
        facts = statement.facts
        if Effect.WRITE not in facts.effects:
            continue
        found |= set(_EVENTS.get(facts.verb, "iud"))
        if facts.verb == "INSERT" and "conflict" in statement.redacted.lower():
            found.add("u")
    return tuple(sorted(found))


def cascade_words(rows: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Say which rows of other relations follow: `public.pets: deleted with public.owners (on delete cascade)`."""
    return _listed(
        f"{row['child']}: {'deleted with' if (row['event'], row['action']) == ('d', 'c') else 'changed with'} "
        f"{row['parent']} (on {_WORDS[row['event']]} {_ACTIONS[row['action']]})"
        for row in rows
    )


def trigger_words(rows: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Say which triggers run: `public.pets: audited on delete runs public.audits, at the end of the transaction`."""
    return _listed(
        f"{row['relation']}: {row['name']} on {_WORDS[row['event']]} runs {row['function']}"
        + (", perhaps at the end of the transaction" if row["deferrable"] else "")
        for row in rows
    )


def _listed(words: Iterable[str]) -> tuple[str, ...]:
    found = list(words)
    left = len(found) - MOST
    return (*found[:MOST], f"and {left} more") if left > 0 else tuple(found)
