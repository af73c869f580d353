"""The state table of an approved shape: its rule is in force until somebody withdraws it, or the grant ends."""

from __future__ import annotations

from enum import StrEnum


class ShapeState(StrEnum):
    ACTIVE = "active"
    WITHDRAWN = "withdrawn"


class ShapeEvent(StrEnum):
    WITHDRAW = "withdraw"


class ShapeMoveIllegal(Exception):
    """this shape cannot do that any more"""


TABLE: dict[tuple[ShapeState, ShapeEvent], ShapeState] = {
    (ShapeState.ACTIVE, ShapeEvent.WITHDRAW): ShapeState.WITHDRAWN,
}


def moved(state: ShapeState, event: ShapeEvent) -> ShapeState:
    """Return the next state; raises ShapeMoveIllegal."""
    try:
        return TABLE[state, event]
    except KeyError:
        raise ShapeMoveIllegal(f"a shape that is {state} cannot {event}") from None
