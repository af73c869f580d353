"""The two ends of a session's streams: what arrives on either, and how full it is, goes to its flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.protocols.postgres.flow import Flow


@dataclass(frozen=True, slots=True)
class ClientSink:
    flow: Flow

    def arrived(self, data: bytes) -> None:
        self.flow.arrived(data, client=True)

    def lost(self) -> None:
        self.flow.lost(client=True)

    def full(self) -> None:
        self.flow.throttle(client=True, full=True)

    def free(self) -> None:
        self.flow.throttle(client=True, full=False)


@dataclass(frozen=True, slots=True)
class UpstreamSink:
    flow: Flow

    def arrived(self, data: bytes) -> None:
        self.flow.arrived(data, client=False)

    def lost(self) -> None:
        self.flow.lost(client=False)

    def full(self) -> None:
        self.flow.throttle(client=False, full=True)

    def free(self) -> None:
        self.flow.throttle(client=False, full=False)
