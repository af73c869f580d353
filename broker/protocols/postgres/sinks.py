"""The two ends of a session's streams: what arrives on either, and how full it is, goes to the session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.protocols.postgres.proxy import Session


@dataclass(frozen=True, slots=True)
class ClientSink:
    session: Session

    def arrived(self, data: bytes) -> None:
        self.session.arrived(data, client=True)

    def lost(self) -> None:
        self.session.lost(client=True)

    def full(self) -> None:
        self.session.throttle(client=True, full=True)

    def free(self) -> None:
        self.session.throttle(client=True, full=False)


@dataclass(frozen=True, slots=True)
class UpstreamSink:
    session: Session

    def arrived(self, data: bytes) -> None:
        self.session.arrived(data, client=False)

    def lost(self) -> None:
        self.session.lost(client=False)

    def full(self) -> None:
        self.session.throttle(client=False, full=True)

    def free(self) -> None:
        self.session.throttle(client=False, full=False)
