"""What all processes of a broker know of upstreams' schemas: names of before, and that sessions have changed one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from broker.sql.drift import Former, Key, Names

Place = tuple[str, int, str]
"""Host, port and database: what all roles of one database share."""
_KEPT = 2
"""Field rules of a database: one process may hear a moment later than another that there are others."""


@dataclass(slots=True)
class _Seen:
    """Names under some field rules; `stamp` tells those that were seen last from others."""

    names: Names
    stamp: str = ""


@dataclass(slots=True)
class KnownNames:
    """Names that things had while the same field rules held; who wrote other rules has seen the names of then.

    What a name of before masks stays masked, so each process tells what it reads before it relies on that.
    """

    _seen: dict[Place, dict[str, _Seen]] = field(default_factory=dict)
    """By field rules, the latest last."""

    def former(self, place: Place, rules: str, stamp: str) -> Former | None:
        """Return the names of before, where those of this stamp are the last that were seen; else None."""
        seen = self._seen.get(place, {}).get(rules)
        return dict(seen.names.former) if seen is not None and seen.stamp == stamp else None

    def see(self, place: Place, rules: str, stamp: str, names: Mapping[Key, str]) -> Former:
        """Take note of the names of now, and return those of before."""
        by_rules = self._seen.setdefault(place, {})
        seen = by_rules.get(rules)
        if seen is None:
            latest = next(reversed(by_rules.values()), None)
            seen = by_rules[rules] = _Seen(Names(latest.names.last if latest is not None else None))
            if len(by_rules) > _KEPT:
                del by_rules[next(iter(by_rules))]
        seen.names.see(names)
        seen.stamp = stamp
        return dict(seen.names.former)


class Changes:
    """Tells each process of a broker that a session has changed a database's schema; `by` says whose that was."""

    def __init__(self) -> None:
        self.tell: Callable[[Place, str], None] = lambda place, by: None

    def note(self, place: Place, by: str) -> None:
        self.tell(place, by)


def stamp_of(names: Mapping[Key, str]) -> str:
    """Return what tells names from others: they are many, and hardly ever new."""
    return hashlib.sha256(repr(sorted(names.items())).encode()).hexdigest()
