from asyncio import BaseProtocol, Future, Transport
from collections.abc import Awaitable, Callable
from mmap import mmap
from ssl import SSLContext
from typing import Any, TypeVar

from broker.adapters.eventlog import EventLog
from broker.adapters.metrics import Metrics
from broker.adapters.recorder import FileRecorder
from broker.core import Moves as Moves
from broker.errors import RecordingFailed
from broker.protocols.postgres.booking import Booking
from broker.protocols.postgres.flow import Flow
from broker.sessions.ports import Clock, Policies

Chain = tuple[int, str]
T = TypeVar("T")

class Anchor:
    wall: float
    boot: float
    def __init__(self, wall: float, boot: float) -> None: ...
    def seconds(self) -> float: ...

class Ids:
    def __init__(self, first: int) -> None: ...
    def __call__(self) -> str: ...

class Writer:
    grant: str

class Lane(Writer):
    expires: float
    armed: bool
    kept: int
    def __init__(
        self,
        booking: Booking,
        derailed: Callable[[Exception], None],
        journal: Journal,
        grant: str,
        session: str,
        ids: Ids,
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

class Side:
    behind: bool
    def __init__(self, flow: Flow, make: Callable[[], Lane], client: bool) -> None: ...
    def arrived(self, data: bytes) -> None: ...
    def lost(self) -> None: ...
    def full(self) -> None: ...
    def free(self) -> None: ...

class RecordLayer:
    def __init__(self, context: SSLContext, server_side: bool, host: str | None) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def write(self, data: bytes | bytearray | memoryview) -> None: ...
    def is_closing(self) -> bool: ...
    def set_protocol(self, protocol: BaseProtocol) -> None: ...
    def get_protocol(self) -> BaseProtocol: ...

class Journal:
    def __init__(
        self,
        memory: mmap | bytearray,
        write: Callable[[Journal], Awaitable[None]],
        later: Callable[[Callable[[], None]], object] | None,
        soon: Callable[[Callable[[], None]], object] | None,
    ) -> None: ...
    urgent: bool
    def flush(self) -> None: ...
    def deliver(
        self, records: bytes, urgent: bool, said: list[tuple[str, dict[str, Any]]]
    ) -> tuple[Future[None], dict[str, Exception]]: ...

class Pen:
    def __init__(self, recorder: FileRecorder, log: EventLog, metrics: Metrics) -> None: ...
    def __call__(self, journal: Journal) -> Future[None]: ...

class Courier:
    def __init__(
        self,
        send: Callable[
            [bytes, bool, list[tuple[str, dict[str, Any]]]], tuple[Future[None], dict[str, RecordingFailed]]
        ],
    ) -> None: ...
    def __call__(self, journal: Journal) -> Future[None]: ...

def seal(
    stream: bytes, grant: bytes, recording: Chain, feed: Chain, entries: bytes
) -> tuple[bytes, Chain, bytes, Chain]: ...
def sync(files: list[int]) -> None: ...
def timestamp(seconds: float) -> bytes: ...
def marked(text: bytes) -> bytes | None: ...
def whole_rows(data: bytes, position: int, total: int) -> tuple[int, int]: ...
def tokens(data: bytes, at: int, token: type[T]) -> list[T] | None: ...
