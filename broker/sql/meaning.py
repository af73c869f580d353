"""What a statement is about, so that it can be told later whether that is still the same: an approval holds for it.

Names and bytes may stay what they are while somebody renames tables under them, or has a trigger do something else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from broker.sql.catalogue import Catalogue
from broker.sql.model import Meaning, Statement

UNKNOWN = "unknown"
"""A stamp of what the catalogue does not have: it may be the session's own, as what is temporary."""


def meaning(catalogue: Catalogue, statements: Sequence[Statement], temporary: Iterable[str] = ()) -> Meaning:
    """Return everything that statements name or run, each with a stamp of what it is.

    That is a relation's columns, triggers, rules, keys and defaults, those of what stands behind or below it and of
    what foreign keys have follow, and the definition of a function of users'. `temporary` is what they name as that.
    """
    names: set[str] = set()
    calls: set[str] = set()
    for statement in statements:
        names |= statement.facts.relations | statement.facts.through | statement.facts.reaches
        calls |= {str(call) for call in statement.facts.calls if call.schema}
    found = {name: _stamp(catalogue, name) for name in names if not name.endswith(".*")}
    found |= {name: catalogue.definitions.get(name, UNKNOWN) for name in calls}
    if any(statement.facts.code for statement in statements):
        # Which function an operator, a cast or a type runs is not looked up here: it is one of them.
        every = repr(sorted(catalogue.definitions.items()))
        found["users' code"] = hashlib.sha256(every.encode()).hexdigest()[:16]
    found |= dict.fromkeys(temporary, UNKNOWN)
    return tuple(sorted(found.items()))


def _stamp(catalogue: Catalogue, name: str) -> str:
    known = catalogue.stamps.get(name)
    if known is None:
        relation = catalogue.by_name.get(name)
        if relation is None:
            return UNKNOWN
        view = catalogue.views.get(relation.oid)
        behind = view.lineage.relations if view is not None and view.lineage is not None else ()
        family = [
            *catalogue.heirs.get(relation.oid, ()),
            *(catalogue.by_oid[oid] for oid in behind if oid in catalogue.by_oid),
        ]
        parts = [
            (
                one.oid,
                one.qualified,
                one.kind,
                one.row_security,
                one.made,
                [(c.attnum, c.name, c.type) for c in one.columns],
            )
            for one in (relation, *sorted(family, key=lambda one: one.oid))
        ]
        known = catalogue.stamps[name] = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    return known


def changed(before: Iterable[tuple[str, str]], after: Meaning) -> str:
    """Return the first thing that is not what it was, or nothing."""
    differing = set(before) ^ set(after)
    return min((name for name, _ in differing), default="")
