"""Asks an upstream about held statements over the broker's own read-only connection; within a second, or not at all."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import asyncpg

from broker.errors import RecordingFailed, UpstreamUnavailable
from broker.protocols.postgres.admin import Admin
from broker.protocols.postgres.explaining import Question, expected_rows, explain, prepare
from broker.protocols.postgres.reaching import CASCADES, TRIGGERS, cascade_words, trigger_words
from broker.sessions.holds import Estimate, Sized
from broker.sql.contrib import COMPUTING, IMPLIED, TRUSTED
from broker.sql.paths import written

SECONDS = 1.0
_LIMITS = "set local statement_timeout = '700ms'; set local lock_timeout = '200ms'"
_SET = "select set_config(name, value, true) from unnest($1::text[], $2::text[]) as one (name, value)"
_OWN_PATH = "set local search_path = pg_catalog, pg_temp"

_TREE = """
    with recursive named as (
        select n.nspname || '.' || c.relname as name, c.oid
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname || '.' || c.relname = any($1::text[])),
    tree (name, oid) as (
        select name, oid from named
        union select t.name, i.inhrelid from tree t join pg_inherits i on i.inhparent = t.oid)"""
"""Relations by name, with every partition and inheritance child."""
_SIZES = """
    TREE
    select t.name,
           -- Before 14, no rows and never counted are the same.
           case when bool_and(c.relkind = 'p' or c.reltuples > 0
                              or c.reltuples = 0 and current_setting('server_version_num')::int >= 140000)
                then sum(c.reltuples) filter (where c.relkind <> 'p') end::int8 as rows,
           sum(pg_total_relation_size(c.oid)) filter (where c.relkind <> 'p')::int8 as bytes
    from tree t join pg_class c on c.oid = t.oid where c.relkind in ('r', 'p', 'm', 'f')
    group by t.name order by 1""".replace("TREE", _TREE)
_LOCKS = """
    select n.nspname || '.' || c.relname as name, array_agg(distinct l.mode order by l.mode) as modes
    from pg_locks l join pg_class c on c.oid = l.relation join pg_namespace n on n.oid = c.relnamespace
    where l.pid = $1 and l.granted and l.locktype = 'relation' and c.relkind in ('r', 'p', 'm', 'f', 'v', 'S')
          and l.database = (select oid from pg_database where datname = current_database())
          and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
    group by 1 order by 1 limit 20"""
_CODED = (
    """
    TREE,
    part (name, classid, objid) as (
        select name, 'pg_class'::regclass, oid from tree
        union select t.name, 'pg_class'::regclass, i.indexrelid from tree t join pg_index i on i.indrelid = t.oid
        union select t.name, 'pg_attrdef'::regclass, d.oid from tree t join pg_attrdef d on d.adrelid = t.oid
        union select t.name, 'pg_constraint'::regclass, k.oid from tree t join pg_constraint k on k.conrelid = t.oid
        union select t.name, 'pg_policy'::regclass, p.oid from tree t join pg_policy p on p.polrelid = t.oid
        union select t.name, 'pg_statistic_ext'::regclass, s.oid from tree t
              join pg_statistic_ext s on s.stxrelid = t.oid),
    COMPUTING,
    IMPLIED,
    trusted (classid, objid) as (
        TRUSTED and d.classid <> 'pg_proc'::regclass
        union all select 'pg_proc'::regclass, objid from computing),
    plain (oid) as (
        select oid from pg_type where typtype = 'e'
        union select objid from trusted where classid = 'pg_type'::regclass),
    typed (oid) as (table plain union select a.oid from pg_type a where a.typelem in (table plain))
    select t.name from tree t join pg_class c on c.oid = t.oid where c.relkind not in ('r', 'p') or c.relhasrules
    union all
    select p.name from part p join pg_depend d using (classid, objid)
    where d.refobjid >= 16384 and d.refclassid not in (
              'pg_class'::regclass, 'pg_constraint'::regclass, 'pg_namespace'::regclass, 'pg_attrdef'::regclass,
              'pg_extension'::regclass)
          and not (d.refclassid = 'pg_type'::regclass and d.refobjid in (table typed))
          and (d.refclassid, d.refobjid) not in (table trusted)
    union all
    select proname::text from pg_proc where oid >= 16384 and proname::text = any($2::text[])
           and oid not in (table computing)
    union all
    select p.proname::text from implied join pg_proc p using (oid) where oid >= 16384 and oid not in (table computing)
    limit 1""".replace("TREE", _TREE)
    .replace("COMPUTING", COMPUTING)
    .replace("IMPLIED", IMPLIED)
    .replace("TRUSTED", TRUSTED)
)
"""Names of what could run code of users' while a statement on these relations, with these functions, is planned."""
_TYPES = "select case when o = 0 then 'unknown' else format_type(o, null) end as name from unnest($1::oid[]) o"
_OWN_TYPES = """
    with trusted as (TRUSTED),
    plain (oid) as (select objid from trusted where classid = 'pg_type'::regclass)
    select count(*) from pg_prepared_statements s, unnest(s.parameter_types::oid[]) o join pg_type t on t.oid = o
    where s.name = $1 and o::int8 >= 16384 and o not in (table plain) and t.typelem not in (table plain)
""".replace("TRUSTED", TRUSTED)


@dataclass(slots=True)
class _Found:
    relations: tuple[Sized, ...] = ()
    rows: int | None = None
    returned: int = 0
    why: str = "the database did not say in time"
    locks: tuple[str, ...] | None = None
    cascades: tuple[str, ...] = ()
    triggers: tuple[str, ...] = ()
    prepared: str = ""
    """The name of what is prepared on the connection, which a rollback leaves there."""

    def estimate(self) -> Estimate:
        why = "" if self.rows is not None else self.why
        return Estimate(self.relations, self.rows, why, self.locks, self.cascades, self.triggers, self.returned)


Recording = Callable[[], Awaitable[None]]
"""Records that the planner is about to be asked; raises RecordingFailed."""


class Estimator:
    """Asks for one session; `pid` is its upstream process."""

    def __init__(self, admin: Admin, search_path: Sequence[str], pid: int) -> None:
        self._admin = admin
        self._path = written(search_path)
        self._pid = pid

    async def estimate(self, question: Question, record: Recording) -> Estimate:
        """Return what the upstream says within a second; whatever goes wrong is a reason, never an error."""
        found = _Found()

        async def run(connection: asyncpg.Connection) -> None:
            await self._ask(connection, question, record, found)

        with suppress(UpstreamUnavailable, TimeoutError):
            async with asyncio.timeout(SECONDS):
                await self._admin.aside(run)
        return found.estimate()

    async def _ask(self, connection: asyncpg.Connection, question: Question, record: Recording, found: _Found) -> None:
        try:
            async with connection.transaction(readonly=True):
                await connection.execute(_LIMITS)
                if question.in_transaction:
                    found.locks = tuple(_lock(row) for row in await connection.fetch(_LOCKS, self._pid))
                rows = await connection.fetch(_SIZES, list(question.relations))
                found.relations = tuple(Sized(row["name"], row["rows"], row["bytes"]) for row in rows)
                if question.writes and question.events:
                    asked = (list(question.writes), list(question.events))
                    found.cascades = cascade_words(await connection.fetch(CASCADES, *asked))
                    found.triggers = trigger_words(await connection.fetch(TRIGGERS, *asked))
                if question.why:
                    found.why = question.why
                else:
                    await self._explain(connection, question, record, found)
        except RecordingFailed:
            found.why = "asking for it cannot be recorded"
        except (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError):
            found.why = "a lock is in the way, or planning takes too long"
        except (asyncpg.PostgresError, LookupError, TypeError, ValueError):
            # In words of our own: the server's could carry values.
            found.why = "the planner gives none"
        finally:
            if found.prepared:
                with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                    await connection.execute(f"deallocate {found.prepared}")

    async def _explain(
        self, connection: asyncpg.Connection, question: Question, record: Recording, found: _Found
    ) -> None:
        coded = await connection.fetchval(_CODED, list(question.relations), list(question.functions))
        if coded is not None:
            found.why = f"planning could run code of your own, through {coded}"
            return
        types = [row["name"] for row in await connection.fetch(_TYPES, list(question.types))]
        await record()
        await connection.fetch(_SET, [name for name, _ in question.settings], [value for _, value in question.settings])
        await connection.execute(f"set local search_path = {self._path}")
        name = found.prepared = f"airlock_{secrets.token_hex(8)}"
        # One statement whatever the text holds: the extended protocol takes no second one.
        await connection.fetch(prepare(name, types, question.sql))
        await connection.execute(_OWN_PATH)
        if question.types and await connection.fetchval(_OWN_TYPES, name):
            found.why = "a parameter has a type of your own"
            return
        await connection.execute(f"set local search_path = {self._path}")
        answer = await connection.fetchval(explain(name, question.values))
        found.rows, found.returned = expected_rows(json.loads(answer))


def _lock(row: dict[str, Any]) -> str:
    modes = ", ".join(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", mode.removesuffix("Lock")).lower() for mode in row["modes"])
    return f"{row['name']} ({modes})"
