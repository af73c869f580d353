"""What the rows of one relation say of it, for the catalogue that is built of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from sys import intern
from typing import Any

from broker.sql.catalogue import Column, Index, Referrer, View, allowed_functions
from broker.sql.catalogue_queries import LOOKING, LOOKING_WORD
from broker.sql.lineage import columns_of_expression, computed_whole, lineage

Row = Mapping[str, Any]


@dataclass(slots=True)
class Facts:
    """What the parts of a relation say, read once."""

    parents: tuple[int, ...] = ()
    rules: bool = False
    running: bool = False
    primary: tuple[int, ...] = ()
    identified: tuple[str, ...] = ()
    indexes: tuple[Index, ...] = ()
    referrers: tuple[Referrer, ...] = ()
    reads: tuple[int, ...] = ()
    made: tuple[str, ...] = ()
    literals: tuple[tuple[frozenset[int], str], ...] = ()


def facts_in(parts: Iterable[str]) -> Facts:
    found: dict[str, list[str]] = {}
    made = []
    for part in parts:
        what, _, more = part.partition(" ")
        if what in ("trigger", "rule", "key", "referrer", "default", "policy", "unique", "code", "type"):
            made.append(part)
        else:
            found.setdefault(what, []).append(more)
    followers = sorted((one.split() for one in found.get("follower", ())), key=lambda one: int(one[0]))
    return Facts(
        tuple(sorted(map(int, found.get("parent", ())))),
        "rules" in found,
        "running" in found,
        tuple(int(number) for one in found.get("primary", ()) for number in one.split()),
        tuple(found.get("identified", ())),
        tuple(_index(one) for one in found.get("index", ())),
        tuple(_referrer(one) for one in followers),
        tuple(sorted(map(int, found.get("reads", ())))),
        tuple(made),
        tuple(_literals(one) for one in found.get("literal", ())),
    )


def _literals(text: str) -> tuple[frozenset[int], str]:
    columns, _, condition = text.partition(" ")
    return frozenset(map(int, columns.split(","))), condition


def _index(text: str) -> Index:
    numbers, _, name = text.partition(' "')
    count, *columns = map(int, numbers.split())
    order = tuple(columns[: abs(count)])
    return Index(name, frozenset(order), frozenset(columns), partial=count < 0, order=order)


def _referrer(words: Sequence[str]) -> Referrer:
    _, child, on_delete, on_update, *columns = words
    own, theirs = (frozenset(map(int, listed.split(","))) for listed in columns)
    return Referrer(int(child), on_delete, on_update, own, theirs)


_LOOKED_UP = re.compile(r":resulttype (?:24|220[2-6]|3734|3769|4089|4096|4191) ")
"""Where a stored tree makes something of the catalogue out of its name."""


def view_in(row: Row, types: Sequence[str]) -> View:
    """Read a view; one that could run code, or whose builtin functions are not all on the list, is open to nobody.

    `types` are those that run code of users' and that it names.
    """
    found, calls = lineage(row["tree"]), tuple((schema, name) for schema, name in row.get("called", ()))
    if found is None:
        return View(None, calls=calls)
    found = computed_whole(found) if row.get("volatile", True) else found
    names = {int(oid): name for oid, _, name in (each.partition(" ") for each in row["builtins"])}
    unlisted = sorted({names[oid] for oid in found.calls if oid in names} - allowed_functions())
    if defined := sorted([*row["defined"], *types]):
        problem = f"uses {defined[0]}, which this database's own users defined, and those are not open yet"
    elif unlisted:
        problem = f"calls {unlisted[0]}, which is not on the list of functions that only compute"
    else:
        problem = "locks rows whenever it is read" if found.locks else ""
    looks = LOOKING_WORD in row["tree"] or bool(set(names.values()) & LOOKING) or bool(_LOOKED_UP.search(row["tree"]))
    return View(found, problem, row["stamp"], looks, calls)


def generated_in(trees: Iterable[str]) -> Iterable[tuple[int, frozenset[int] | None]]:
    for each in trees:
        number, _, tree = each.split(" ", 2)
        yield int(number), columns_of_expression(tree)


def virtual_in(rows: Iterable[Row]) -> Iterable[tuple[int, int]]:
    for row in rows:
        for each in row["trees"]:
            number, virtual, _ = each.split(" ", 2)
            if virtual == "t":
                yield row["oid"], int(number)


_KEYWORD_TYPES = (
    "bigint", "bit", "boolean", "character", "double precision", "integer", "interval", "numeric", "real", "smallint",
    "time", "timestamp",
)  # fmt: skip


@lru_cache(1024)
def _qualified(text: str) -> str:
    """Return a type as format_type writes it, with its schema; thousands of columns have a few dozen types."""
    bare = text.split("[")[0].split("(")[0]
    plain = any(bare == word or bare.startswith(f"{word} ") for word in _KEYWORD_TYPES)
    return text if plain or "." in bare else f"pg_catalog.{text}"


@lru_cache(65536)
def column_of(name: str, attnum: int, kind: tuple[Any, ...]) -> Column:
    type_, typname, schema, category, base, _ = kind
    # An enum or a composite may have that name too, but is of another category.
    known = schema == "pg_catalog" or (typname == "citext" and category == "S")
    return Column(
        intern(name), attnum, _qualified(base or type_), category, typname if known else f"{schema}.{typname}"
    )
