"""What all processes of a broker know of upstreams' schemas: names of before, and that sessions have changed one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from broker.sql.drift import Former, Names

Place = tuple[str, int, str]
"""Host, port and database: what all roles of one database share."""
_KEPT = 2
"""Field rules of a database: one process may hear a moment later than another that there are others."""


@dataclass(slots=True)
class KnownNames:
    """Names that things had while the same field rules held; who wrote other rules has seen the names of then.

    What a name of before masks stays masked, so each process tells what it reads before it relies on that: all of it
    under field rules that are new to it, and then what is called otherwise.
    """

    _seen: dict[Place, dict[str, Names]] = field(default_factory=dict)
    """By field rules, those that were looked under last are last."""

    def see(self, place: Place, rules: str, names: Mapping[int, str]) -> Former:
        """Take note of names of now, and return those of before."""
        by_rules = self._seen.setdefault(place, {})
        seen = by_rules.pop(rules, None)
        if seen is None:
            latest = next(reversed(by_rules.values()), None)
            seen = Names(latest.last if latest is not None else None)
        by_rules[rules] = seen
        if len(by_rules) > _KEPT:
            del by_rules[next(iter(by_rules))]
        seen.see(names)
        return dict(seen.former)


class Changes:
    """Tells each process of a broker that a session has changed a database's schema; `by` says whose that was."""

    def __init__(self) -> None:
        self.tell: Callable[[Place, str], None] = lambda place, by: None

    def note(self, place: Place, by: str) -> None:
        self.tell(place, by)
