"""The access request's state table; nothing else moves a request."""

from __future__ import annotations

from enum import StrEnum


class RequestState(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class RequestEvent(StrEnum):
    APPROVE = "approve"
    """The requirement is met."""
    DENY = "deny"
    EXPIRE = "expire"
    CANCEL = "cancel"
    REOPEN = "reopen"
    """The broker refused the order, or its own policy now demands more."""


class RequestMoveIllegal(Exception):
    """this request cannot do that any more"""


TABLE: dict[tuple[RequestState, RequestEvent], RequestState] = {
    (RequestState.PENDING, RequestEvent.APPROVE): RequestState.APPROVED,
    (RequestState.PENDING, RequestEvent.DENY): RequestState.DENIED,
    (RequestState.PENDING, RequestEvent.EXPIRE): RequestState.EXPIRED,
    (RequestState.PENDING, RequestEvent.CANCEL): RequestState.CANCELLED,
    (RequestState.APPROVED, RequestEvent.REOPEN): RequestState.PENDING,
}

FINAL = frozenset({RequestState.DENIED, RequestState.EXPIRED, RequestState.CANCELLED})


def moved(state: RequestState, event: RequestEvent) -> RequestState:
    """Return the next state; raises RequestMoveIllegal."""
    try:
        return TABLE[state, event]
    except KeyError:
        raise RequestMoveIllegal(f"a request that is {state} cannot {event}") from None
