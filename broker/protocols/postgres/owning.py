"""Statements of the broker's own on a session's upstream connection: their answers never reach the client.

They go as Parse, Bind and Execute under a secret name, so that the client's unnamed statement and portal stay what they
are, between Closes of it: one that failed left its name. A Sync comes behind them where the client speaks the simple
protocol, a Flush where its segment is still open.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from broker.protocols.postgres import codec
from broker.protocols.postgres.codec import Frame
from broker.protocols.postgres.events import Command, Drain, ToClient, ToUpstream
from broker.protocols.postgres.replies import passed_problem
from broker.protocols.postgres.responses import Expected, Kind, Own
from broker.protocols.postgres.shared import Session

_ANSWERS = 7
"""ParseComplete, BindComplete, CommandComplete, and before and after a CloseComplete for portal and statement."""


@dataclass(slots=True)
class Told:
    """What came of a few statements: the first row and the tag of each, or the error that ended them.

    There is neither where an earlier message of the client's had failed, so that the upstream skipped them.
    """

    rows: list[list[bytes | None]] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    error: Frame | None = None
    skipped: bool = False


def ask_own(session: Session, texts: Sequence[str], *, sync: bool) -> Generator[Command, Any, Told]:
    """Run statements of the broker's own, one after the other, and wait for what they answer."""
    session.way.doubt()
    name = f"{session.nonce}-own"
    closed = codec.close("P", name) + codec.close("S", name)
    run = codec.bind(name, name) + codec.execute(name)
    parts = [closed + codec.parse(name, text) + run + closed for text in texts]
    owned = [Own(_ANSWERS) for _ in texts]
    yield from _sent(session, owned, b"".join(parts), sync=sync)
    error = next((own.error for own in owned if own.error is not None), None)
    if error is not None or any(own.left for own in owned):
        return Told(error=error, skipped=error is None)
    return Told([_first_row(bytes(own.rows)) for own in owned], [own.tag for own in owned])


def ask_when_sure(session: Session, texts: Sequence[str]) -> Generator[Command, Any, Told | None]:
    """Ask what earlier segments could have changed, once they are answered; None where an error has to be over first.

    Where the client's own segment fails with that, its client is told.
    """
    while not session.drained:
        yield Drain()
    if session.skipping or session.fails:
        return None
    told = yield from ask_own(session, texts, sync=not session.touched and not session.deferred)
    if told.error is not None and session.skipping:
        # Nobody else says so.
        yield ToClient(passed_problem(b"E", told.error.body, None, scrub=session.withholds(told.error.body)))
    return told


def fail_own(session: Session, *, sync: bool) -> Generator[Command, Any, None]:
    """Have the upstream's transaction fail, with nothing run: an Execute of a portal that cannot exist."""
    yield from _sent(session, [Own(1)], codec.execute(session.nonce), sync=sync)


def _sent(session: Session, owned: Sequence[Own], data: bytes, *, sync: bool) -> Generator[Command, Any, None]:
    for own in owned:
        session.responses.push(Expected(Kind.OWN, session.segment, own=own))
    if sync:
        session.responses.push(Expected(Kind.SYNC, session.segment, own=Own(1)))
    else:
        session.touched = True
    yield ToUpstream(data + (codec.SYNC if sync else codec.FLUSH))
    while session.responses.queue:
        yield Drain(everything=True)


def _first_row(data: bytes) -> list[bytes | None]:
    return codec.read_data_row(data[5 : 1 + int.from_bytes(data[1:5], "big")]) if data else []
