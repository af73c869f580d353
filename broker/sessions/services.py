"""What the HTTP API is given: services as protocols, and the refusals they raise."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal, Protocol

from policies.engine.decisions import Need
from workflows.wire import EventView, GrantView, HoldView, ShapeView, TicketView

EndKind = Literal["end", "revoke"]


class Refusal(Exception):
    """what was asked for is not done; `code` is for programs, the message and the hint for people"""

    def __init__(self, code: str, message: str, hint: str | None = None, needs: tuple[Need, ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.needs = needs


class EndedView(GrantView):
    """What `DELETE /v1/grants/{id}` answers: the grant, and whether all of its upstream work is verified gone."""

    verified: bool


@dataclass(frozen=True, slots=True)
class Accepted:
    """An order's grant; `made` is False where the same order had made it before."""

    grant: GrantView
    made: bool


class Orders(Protocol):
    async def accept(self, token: str) -> Accepted:
        """Open a grant by a signed order; raises Refusal."""
        ...


class Grants(Protocol):
    async def get(self, grant: str) -> GrantView:
        """Return a grant; raises Refusal `not_found`."""
        ...

    async def of_request(self, request: str) -> GrantView:
        """Return the grant that a request gave; raises Refusal `not_found`."""
        ...

    async def end(self, grant: str, by: str, reason: str, kind: EndKind | None) -> EndedView:
        """End a grant and its sessions; one that is over already stays what it is. Raises Refusal.

        Without a kind, its own person ends it and anybody else revokes it.
        """
        ...


class TicketDesk(Protocol):
    async def mint(self, grant: str, by: str) -> TicketView:
        """Make a ticket and void the ones nobody used; raises Refusal."""
        ...


class HoldDesk(Protocol):
    async def get(self, hold: str) -> HoldView:
        """Return a hold with all of its statement; raises Refusal `not_found`."""
        ...

    async def answer(self, hold: str, token: str) -> HoldView:
        """Answer a hold by a signed answer; raises Refusal, of which `over` and `more_reviews` are usual."""
        ...


class ShapeDesk(Protocol):
    async def get(self, shape: str) -> ShapeView:
        """Return an approved shape; raises Refusal `not_found`."""
        ...

    async def withdraw(self, shape: str, by: str, reason: str) -> ShapeView:
        """Withdraw a shape at once; one that is withdrawn stays what it is. Raises Refusal."""
        ...


class EventFeed(Protocol):
    async def read(self, after: str, limit: int, wait: float, *, fold: bool = False) -> list[EventView]:
        """Return events after a cursor, waiting for the first at most so many seconds; raises Refusal.

        `fold` has statements that merely ran told together.
        """
        ...


class Recordings(Protocol):
    def lines(self, grant: str, full: bool, by: str) -> AsyncIterator[bytes]:
        """Yield a recording as NDJSON; without `full` it has no literals. Raises Refusal before the first."""
        ...

    def transcript(self, grant: str, full: bool, by: str) -> AsyncIterator[bytes]:
        """Yield a recording as readable text; without `full` it has no literals. Raises Refusal before the first."""
        ...

    async def held(self, grant: str, hold: str, by: str) -> HoldView:
        """Return a hold that the desk does not know any more, with all of its statement. Raises Refusal."""
        ...


class Callers(Protocol):
    def actor(self, token: str, method: str, path: str) -> str:
        """Return who a signed call is made for; raises Refusal `unauthorized` or `no_order_key`."""
        ...


class Monitor(Protocol):
    def unready(self) -> list[str]:
        """Say what keeps the broker from doing its work; nothing is ready."""
        ...

    def metrics(self) -> bytes:
        """Return the metrics' text exposition."""
        ...

    def called(self, route: str, status: int) -> None:
        """Count a call."""
        ...
