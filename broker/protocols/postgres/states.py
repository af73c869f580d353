"""The states of a session's machine, and which events may come in each."""

from __future__ import annotations

from enum import Enum

from broker.protocols.postgres.events import (
    CancelAsked,
    Cancelled,
    ClientGone,
    Ended,
    FromClient,
    FromUpstream,
    HoldAnswered,
    HoldOpened,
    HoldUsed,
    HoldWaited,
    Matched,
    Recorded,
    RecordingLost,
    Ruled,
    Synced,
    UpstreamGone,
)


class State(Enum):
    OPEN = "open"
    GATED = "gated"
    """A message waits for its ruling or its record."""
    HELD = "held"
    """A message waits for reviewers."""
    DRAINING = "draining"
    """A message waits for what the upstream owes from earlier segments."""
    CLOSED = "closed"


_ALWAYS = frozenset(
    {
        FromClient,
        FromUpstream,
        Synced,
        RecordingLost,
        Ended,
        ClientGone,
        UpstreamGone,
        # A client that gives up and an answer may cross each other; what comes second is void.
        HoldOpened,
        HoldWaited,
        HoldAnswered,
        CancelAsked,
        Cancelled,
    }
)
LEGAL: dict[State, frozenset[type]] = {
    State.OPEN: _ALWAYS,
    State.GATED: _ALWAYS | {Ruled, Recorded, HoldUsed, Matched},
    State.HELD: _ALWAYS,
    State.DRAINING: _ALWAYS,
    State.CLOSED: _ALWAYS | {Ruled, Recorded, HoldUsed, Matched},
}
"""Which events may come in which state; a closed session hears everything and does nothing."""


class EventIllegal(Exception):
    """this event cannot come in this state"""
