"""Reads what a catalogue is built of: all of it, or what has changed since it was read last.

What a row of `OF_RELATIONS` says is in the stamp of its relation's drawer, or of what is no relation's own. So where
only drawers have changed, the rows of the relations in them are read, and all others stay the objects that they were.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

from broker.protocols.postgres.admin import Admin, Fetch
from broker.sql.building import OWN, Rows
from broker.sql.catalogue_queries import AGAIN, OF_RELATIONS, OF_SOME, QUERIES
from broker.sql.drift import DRAWERS, PROBE, Stamp

_MOST = DRAWERS // 4
"""How many drawers are read by themselves."""


@dataclass(slots=True)
class Reading:
    """Rows of QUERIES, and the stamp that they have; `moment` is the server's own word for when that was.

    `first` is the first transaction of which something may have been missing when all of it was read.
    """

    rows: Rows
    stamp: Stamp
    moment: str
    first: str


async def read(fetch: Fetch, known: Reading | None) -> Reading:
    """Return what is known where that holds, and else what is to be known now; `fetch` sees one moment."""
    about = (known.moment, known.first) if known is not None else ("", "")
    ((moment, first, rest, drawers),) = (tuple(row.values()) for row in await fetch(PROBE, *about))
    if known is not None and rest is None:
        return known
    stamp = Stamp(rest, drawers or "")
    if known is None:
        return Reading(await _whole(fetch), stamp, moment, first)
    if stamp == known.stamp:
        known.moment = moment
        return known
    opened = stamp.opened(known.stamp)
    if opened is None or len(opened) > _MOST:
        return Reading(await _whole(fetch), stamp, moment, first)
    return Reading(await _again(fetch, known.rows, opened), stamp, moment, first)


async def _whole(fetch: Fetch) -> Rows:
    return await asyncio.to_thread(_theirs, {name: await fetch(sql) for name, sql in QUERIES.items()})


async def _again(fetch: Fetch, rows: Rows, opened: Set[int]) -> Rows:
    oids = [row["oid"] for row in await fetch(OF_SOME, sorted(opened))]
    known = [row["oid"] for row in rows["kinds"]], [row["typmod"] for row in rows["kinds"]]
    # Types of arguments are written by name, and may be those of relations' rows.
    found: dict[str, list[Any]] = {"overloads": await fetch(QUERIES["overloads"])}
    for name, sql in AGAIN.items():
        found[name] = await fetch(sql, oids, *known) if name == "kinds" else await fetch(sql, oids)
    return await asyncio.to_thread(_joined, rows, found, opened)


def _joined(rows: Rows, found: Rows, opened: Set[int]) -> Rows:
    joined: dict[str, Sequence[Any]] = {**rows, **found}
    for name in OF_RELATIONS:
        kept = [row for row in rows[name] if row["oid"] < OWN or row["oid"] % DRAWERS not in opened]
        joined[name] = [*kept, *found[name]]
    return _theirs(joined)


def _theirs(rows: Rows) -> Rows:
    """Leave out what is said of what is no relation here: of what is temporary, and of what holds long values."""
    oids = {row["oid"] for row in rows["relations"]}
    return {**rows, **{name: [row for row in rows[name] if row["oid"] in oids] for name in OF_RELATIONS}}


async def read_rows(admin: Admin) -> tuple[Rows, int]:
    """Read what a catalogue is built of, and the server's version; raises UpstreamUnavailable."""
    version = await admin.version()
    return (await admin.snapshot(lambda fetch: read(fetch, None))).rows, version
