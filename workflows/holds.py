"""The hold's state table: a statement waiting on an Ask (waiting; then released and consumed, or refused, or over)."""

from __future__ import annotations

from enum import StrEnum


class HoldState(StrEnum):
    WAITING = "waiting"
    RELEASED = "released"
    """Approved, and not used yet."""
    CONSUMED = "consumed"
    REFUSED = "refused"
    TIMED_OUT = "timed_out"
    ABANDONED = "abandoned"
    """Nobody waits for it any more: the client left or cancelled, or the grant is over. It is not a denial."""


class HoldEvent(StrEnum):
    RELEASE = "release"
    CONSUME = "consume"
    REFUSE = "refuse"
    TIME_OUT = "time_out"
    ABANDON = "abandon"


class HoldMoveIllegal(Exception):
    """this hold cannot do that any more"""


TABLE: dict[tuple[HoldState, HoldEvent], HoldState] = {
    (HoldState.WAITING, HoldEvent.RELEASE): HoldState.RELEASED,
    (HoldState.WAITING, HoldEvent.REFUSE): HoldState.REFUSED,
    (HoldState.WAITING, HoldEvent.TIME_OUT): HoldState.TIMED_OUT,
    (HoldState.WAITING, HoldEvent.ABANDON): HoldState.ABANDONED,
    (HoldState.RELEASED, HoldEvent.CONSUME): HoldState.CONSUMED,
    (HoldState.RELEASED, HoldEvent.ABANDON): HoldState.ABANDONED,
    (HoldState.RELEASED, HoldEvent.TIME_OUT): HoldState.TIMED_OUT,
}


def moved(state: HoldState, event: HoldEvent) -> HoldState:
    """Return the next state; raises HoldMoveIllegal."""
    try:
        return TABLE[state, event]
    except KeyError:
        raise HoldMoveIllegal(f"a hold that is {state} cannot {event}") from None
