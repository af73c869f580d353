"""What a relation that is not there could have been meant to be, among those that a person may read."""

from __future__ import annotations

import re

from broker.sql.catalogue import Catalogue, Relation
from broker.sql.masks import quote_name
from broker.sql.sight import Sights

_MOST = 2_000
"""How many relations are looked through: that takes a few milliseconds, and others wait."""
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")


def meant(catalogue: Catalogue, seen: Sights, schema: str | None, name: str) -> str | None:
    """Return a hint that names the nearest relation, or nothing; one that may not be read is never named.

    Near is the same name in another schema or in capitals, or one that differs in one place by at most two letters.
    """
    if len(catalogue.by_name) > _MOST:
        return None
    found: list[tuple[int, str, Relation]] = []
    for relation in catalogue.by_name.values():
        far = None if relation.system else _far(name, relation.name)
        # A name that is in doubt twice is none that was meant: of another schema only the very same one counts.
        if far is not None and (far == 0 or schema in (None, relation.schema)):
            found.append((far, relation.qualified, relation))
    for _, _, relation in sorted(found, key=lambda one: one[:2]):
        if seen.freely_read(relation) and not seen.of(relation).problem:
            return f"did you mean {_written(catalogue, schema, relation)}?"
    return None


def _far(name: str, other: str) -> int | None:
    """Say how many letters make one name the other, in one place; nothing where it is more than looks like a slip."""
    if abs(len(name) - len(other)) > 2:
        return None
    name, other = name.lower(), other.lower()
    most = min(len(name), len(other)) // 3
    start = _alike(name, other)
    name, other = name[start:], other[start:]
    far = max(len(name), len(other)) - _alike(name[::-1], other[::-1])
    return far if far <= min(most, 2) else None


def _alike(one: str, other: str) -> int:
    """Count how many letters two names begin alike with."""
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count


def _written(catalogue: Catalogue, schema: str | None, relation: Relation) -> str:
    """Write a relation as the statement could, with its schema where that is needed."""
    bare = schema is None and catalogue.relation(None, relation.name) == relation
    parts = (relation.name,) if bare else (relation.schema, relation.name)
    return ".".join(part if _PLAIN.fullmatch(part) else quote_name(part) for part in parts)
