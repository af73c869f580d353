"""The grant's state table (opening, active, then ended, expired or revoked; or opening, refused)."""

from __future__ import annotations

from enum import StrEnum


class GrantState(StrEnum):
    OPENING = "opening"
    ACTIVE = "active"
    ENDED = "ended"
    """The requester ended it."""
    EXPIRED = "expired"
    REVOKED = "revoked"
    REFUSED = "refused"


class GrantEvent(StrEnum):
    OPEN = "open"
    EXTEND = "extend"
    """Its end moves; nothing else of it does."""
    REFUSE = "refuse"
    END = "end"
    EXPIRE = "expire"
    REVOKE = "revoke"


class GrantMoveIllegal(Exception):
    """this grant cannot do that any more"""


TABLE: dict[tuple[GrantState, GrantEvent], GrantState] = {
    (GrantState.OPENING, GrantEvent.OPEN): GrantState.ACTIVE,
    (GrantState.OPENING, GrantEvent.REFUSE): GrantState.REFUSED,
    (GrantState.ACTIVE, GrantEvent.EXTEND): GrantState.ACTIVE,
    (GrantState.ACTIVE, GrantEvent.END): GrantState.ENDED,
    (GrantState.ACTIVE, GrantEvent.EXPIRE): GrantState.EXPIRED,
    (GrantState.ACTIVE, GrantEvent.REVOKE): GrantState.REVOKED,
}

LIVE = frozenset({GrantState.OPENING, GrantState.ACTIVE})


def moved(state: GrantState, event: GrantEvent) -> GrantState:
    """Return the next state; raises GrantMoveIllegal."""
    try:
        return TABLE[state, event]
    except KeyError:
        raise GrantMoveIllegal(f"a grant that is {state} cannot {event}") from None
