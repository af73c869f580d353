"""An approved shape: what it is bound to, and the rule that it makes until its grant ends."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from broker.sessions.eventchain import canonical
from broker.sessions.model import GrantFacts


@dataclass(frozen=True, slots=True)
class Shape:
    """What is equal of statements that differ in their values alone, under one grant and one state of the schema.

    `text` is the statement with `$1` for its first value; `values` say of each what may stand there.
    """

    digest: str
    text: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShapeRule:
    """A rule that an approval made: it lets statements of one shape pass, each within `most` rows."""

    id: str
    most: int | None = None


def shape_digest(
    key: tuple[Any, ...],
    grant: GrantFacts,
    catalogue: str,
    settings: Iterable[tuple[str, str]] = (),
    masked: Iterable[str] = (),
) -> str:
    """Return what an approval of a shape is bound to.

    `catalogue` is the version of the schema, with the search path, by which names were resolved; `settings` say what
    its values mean; `masked` are the fields that arrived masked: whoever approved it has not approved them in clear.
    """
    bound = {
        "key": key,
        "resource": grant.resource,
        "role": grant.role,
        "grant": grant.id,
        "person": grant.person,
        "catalogue": catalogue,
        "settings": list(settings),
        "masked": sorted(masked),
    }
    return hashlib.sha256(canonical(bound)).hexdigest()
