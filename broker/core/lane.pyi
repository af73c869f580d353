from asyncio import Future, Transport
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from broker.adapters.eventlog import EventLog
from broker.adapters.metrics import Metrics
from broker.adapters.recorder import FileRecorder
from broker.core import Moves as Moves
from broker.protocols.postgres.booking import Booking
from broker.protocols.postgres.proxy import Session
from broker.sessions.ports import Clock, Policies

Chain = tuple[int, str]

class Anchor:
    wall: float
    boot: float
    def __init__(self, wall: float, boot: float) -> None: ...
    def seconds(self) -> float: ...

class Line:
    kind: str
    session: str
    id: str
    said: dict[str, Any] | None
    at: bytes
    before: bytes
    behind: bytes
    detail: bytes
    def __init__(
        self,
        kind: str,
        session: str,
        id: str,
        said: dict[str, Any] | None,
        at: bytes,
        before: bytes,
        behind: bytes,
        detail: bytes,
    ) -> None: ...

class Lane:
    expires: float
    armed: bool
    noted: bool
    kept: int
    def __init__(
        self,
        booking: Booking,
        derailed: Callable[[Exception], None],
        press: Press,
        grant: str,
        session: str,
        ids: Callable[[], str],
        clock: Clock,
        monotonic: Callable[[], float] | None,
        basis: Callable[[], tuple[object | None, float]],
        policies: Policies,
        moves: tuple[Moves, Moves],
        upstream: Transport,
        client: Transport,
        expires: float,
    ) -> None: ...
    def depart(self, data: bytes) -> bool: ...
    def land(self, data: bytes) -> bool: ...
    def leave(self) -> None: ...
    def settle(self) -> None: ...

class Side:
    def __init__(self, session: Session, make: Callable[[], Lane], client: bool) -> None: ...
    def arrived(self, data: bytes) -> None: ...
    def lost(self) -> None: ...
    def full(self) -> None: ...
    def free(self) -> None: ...

class Press:
    def __init__(
        self, write: Callable[[str, list[Line]], Awaitable[None]], soon: Callable[[Callable[[], None]], object]
    ) -> None: ...
    def flush(self) -> None: ...

class Pen:
    def __init__(self, recorder: FileRecorder, log: EventLog, metrics: Metrics) -> None: ...
    def __call__(self, grant: str, lines: list[Line]) -> Future[None]: ...

def seal(
    stream: bytes, grant: bytes, recording: Chain, feed: Chain, lines: Sequence[Line]
) -> tuple[bytes, Chain, bytes, Chain]: ...
def timestamp(seconds: float) -> bytes: ...
def marked(text: bytes) -> bytes | None: ...
