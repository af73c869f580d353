"""What goes through one session: the machine is fed with what arrives, and what it says is done."""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

import structlog

from broker.core import compiled, new_ids
from broker.errors import RecordingFailed
from broker.protocols.postgres import pins, records
from broker.protocols.postgres.backend import Backend
from broker.protocols.postgres.catalogues import Key
from broker.protocols.postgres.clearance import LATE
from broker.protocols.postgres.estimator import Estimator
from broker.protocols.postgres.events import (
    Cancel,
    CancelAsked,
    Cancelled,
    ClientGone,
    Close,
    Command,
    Drop,
    Ended,
    Event,
    FromClient,
    FromUpstream,
    Hold,
    Inspect,
    Match,
    Move,
    Note,
    PauseClient,
    PauseUpstream,
    Record,
    Reload,
    ResumeClient,
    ResumeUpstream,
    ToClient,
    ToUpstream,
    UpstreamGone,
    Use,
    Weigh,
)
from broker.protocols.postgres.explaining import Question
from broker.protocols.postgres.holder import Holder
from broker.protocols.postgres.house import House, words
from broker.protocols.postgres.inspector import Matter
from broker.protocols.postgres.machine import Machine
from broker.protocols.postgres.ruler import Ruler
from broker.protocols.postgres.ruling import Subject
from broker.protocols.postgres.scribe import Scribe
from broker.protocols.postgres.sinks import ClientSink, UpstreamSink
from broker.protocols.postgres.spares import Kind
from broker.protocols.postgres.states import State
from broker.protocols.postgres.work import Work
from broker.sessions.holds import Estimate
from broker.sessions.model import CloseReason, SessionFacts
from broker.sql.settings import is_own
from broker.transport.stream import Sink, Stream

if TYPE_CHECKING:
    from broker.core.lane import Lane, Side

_log = structlog.get_logger("postgres")


class Flow:
    """One session's; `finish` has it ended, and may be called again."""

    def __init__(
        self,
        house: House,
        facts: SessionFacts,
        client: Stream,
        backend: Backend,
        kind: Kind,
        finish: Callable[[CloseReason], None],
    ) -> None:
        self._house = house
        self.facts = facts
        self._client = client
        self._backend = backend
        self._upstream = backend.upstream
        self._kind = kind
        self._finish = finish
        self._search_path = kind.home
        grant = facts.grant
        matter = Matter(Subject(grant.person, grant.resource, grant.role), Key((kind.endpoint, kind.search_path)))
        self.ruler = Ruler(house.inspector, matter, facts.id, self.feed)
        self.ids = new_ids(secrets.randbits(62))
        self.again = house.terms(grant).again
        """The line that asks for another access."""
        self._machine = Machine(
            facts,
            self.ids,
            f"airlock-{secrets.token_hex(12)}",
            known=self.ruler.known,
            rations=house.common.rations,
            memory=house.memory,
            clear=lambda: house.terms(grant).clear,
            path=kind.search_path,
            home=kind.path,
            longest=pins.remaining(kind.until, house.broker.clock.now()),
            own_settings=frozenset(name for name, _ in kind.settings if is_own(name)),
        )
        self._scribe = Scribe(house.broker.recorder, self.feed, house.notes)
        self._quick: Lane | None = None
        """The compiled core's lane, where there is one."""
        self._failed = False
        """Something went wrong in the middle: nothing that arrives is looked at any more."""
        self.ending = False
        """The session is being ended: nothing goes another way than the gate's."""
        self._holder = Holder(house.broker.holds, self.feed, self._estimate)
        self._work = Work(self._handle, self._do, self._begin, self._flush, self._rest, self._fail)
        self._sides: tuple[Side, ...] = ()
        self._to_client: list[bytes | memoryview] = []
        self._to_upstream: list[bytes | memoryview] = []
        self._tasks: set[asyncio.Future[None]] = set()

    @property
    def _over(self) -> bool:
        """Whether the grant's end has come."""
        return self._house.broker.clock.now() >= self.facts.grant.expires_at

    def start(self) -> None:
        """Let both sides flow."""
        assert self._upstream.stream is not None
        upstream, client = self._sinks()
        self._upstream.stream.attach(upstream)
        self._client.attach(client)

    def extend(self, until: datetime) -> None:
        """Let everything pass until a later time."""
        self.facts = replace(self.facts, grant=replace(self.facts.grant, expires_at=until))
        if self._quick is not None and not self._failed:
            self._quick.expires = until.timestamp()
        self._holder.extend((until - self._house.broker.clock.now()).total_seconds())

    def end(self, reason: CloseReason) -> None:
        """Tell the machine, and with it the client, that the session ends."""
        self.feed(Ended(reason, words(reason, self.again), time.monotonic()))

    @property
    def waiting(self) -> bool:
        """Whether the client waits for reviewers, so that what it sends may stay unread."""
        return self._holder.waiting

    def stop(self, reason: CloseReason) -> None:
        """Send what is still to be sent, and give up what is held."""
        self._flush()
        self._holder.drop(reason.value)

    async def cancel(self) -> None:
        """Cancel what the session runs, or waits for, as its client asked."""
        if self._machine.state is State.HELD:
            self.feed(CancelAsked(time.monotonic()))
            return
        await self._upstream.cancel()

    def feed(self, event: Event) -> None:
        """Give the machine an event and do what it says; events that come of it follow in order."""
        if not self._failed:
            self._work.tell(event)

    def _handle(self, event: Event) -> Iterator[Command]:
        """Have the machine handle an event; what a client sent may have waited for its turn until the grant's end."""
        if isinstance(event, FromClient) and self._over:
            self.end(CloseReason.EXPIRED)
            return iter(())
        return self._machine.handle(event)

    def _begin(self) -> None:
        """Leave the compiled core's lane, and what it kept."""
        if self._quick is not None:
            self._quick.leave()
        self._scribe.settle()

    def derailed(self, error: Exception) -> None:
        """End the session over what went wrong in the compiled core's lane."""
        if isinstance(error, RecordingFailed):
            self._scribe.lost()
        else:
            self._fail()

    def arrived(self, data: bytes, *, client: bool) -> None:
        """Take bytes of either side; none passes after the grant's end, however late this process wakes up."""
        if self._failed:
            return
        if self._over:
            self.end(CloseReason.EXPIRED)
            return
        now = time.monotonic()
        if not self._work.busy and (self._depart(data, now) if client else self._land(data, now)):
            return
        self.feed(FromClient(data, now) if client else FromUpstream(data, now))

    def _rest(self, waits: bool) -> None:
        """Read nothing more while something waits for its turn, and have nothing overtake it."""
        for side in self._sides:
            side.behind = waits
        for stream in (self._client, self._upstream.stream):
            if stream is not None:
                (stream.pause if waits else stream.resume)("turn")

    def lost(self, *, client: bool) -> None:
        now = time.monotonic()
        self.feed(ClientGone(now) if client else UpstreamGone(now))

    def throttle(self, *, client: bool, full: bool) -> None:
        """A side that does not take what it is sent: stop reading the other."""
        other = self._upstream.stream if client else self._client
        if other is None:
            return
        if full:
            other.pause("peer is slow")
        else:
            other.resume("peer is slow")

    def _fail(self) -> None:
        """Whatever happened, the session's state is not known any more (fail closed)."""
        _log.exception("a session failed", session=self.facts.id)
        self._failed = True
        if self._quick is not None:
            self._quick.expires = 0.0
        self._work.clear()
        self._to_upstream.clear()
        self._finish(CloseReason.ERROR)

    def _sinks(self) -> tuple[Sink, Sink]:
        """Return what the streams push to: through the compiled core's lane, where there is one."""
        stream = self._upstream.stream
        if compiled is None or stream is None or stream.transport is None or self._client.transport is None:
            return UpstreamSink(self), ClientSink(self)
        sides = compiled.Side(self, self._lane, False), compiled.Side(self, self._lane, True)
        self._sides = sides
        return sides

    def _lane(self) -> Lane:
        """Return the compiled core's lane, made once the client has said something: one that idles has none."""
        if self._quick is not None:
            return self._quick
        stream = self._upstream.stream
        assert compiled is not None
        assert stream is not None
        broker, grant = self._house.broker, self.facts.grant
        booking = self._machine.booking(self.ruler.alike, self._scribe)
        lane: Lane = compiled.Lane(
            booking,
            self.derailed,
            broker.recorder.journal(),
            grant.id,
            self.facts.id,
            self.ids,
            broker.clock,
            # Elsewhere Python's clock is not the system's of that name.
            None if sys.platform == "linux" else time.monotonic,
            self.ruler.basis,
            broker.policies,
            (self._house.inspector.moves, self.ruler.moves),
            stream.transport,
            self._client.transport,
            0.0 if self._failed else grant.expires_at.timestamp(),
        )
        self._quick = lane
        return lane

    def _depart(self, data: bytes, now: float) -> bool:
        """Send a known exchange on its way, recorded, or leave it to `feed`."""
        upstream = self._upstream.stream
        if self.ending or upstream is None:
            return False
        try:
            boarded = self._machine.board(data, now)
            if boarded is None:
                return False
            if not self._scribe.board(*boarded):
                return True
            if time.monotonic() - now > LATE:
                self._scribe.note(self._machine.express.alight())
                return False
            upstream.write([boarded[0].data])
        except Exception:  # noqa: BLE001  _fail ends the session
            self._fail()
        return True

    def _land(self, data: bytes, now: float) -> bool:
        """Give the client the whole answer to a known exchange, or leave it to `feed`."""
        if self.ending:
            return False
        try:
            landed = self._machine.land(data, now)
            if landed is None:
                return False
            self._scribe.land(landed[0])
            for command in landed[1]:
                self._do(command)
        except Exception:  # noqa: BLE001  _fail ends the session
            self._fail()
        self._flush()
        return True

    def _do(self, command: Command) -> None:
        match command:
            case ToClient(data=data):
                self._to_client.append(data)
            case ToUpstream(data=data):
                self._to_upstream.append(data)
            case Inspect(sql=sql, altered=altered, types=types, token=token):
                self.ruler.inspect(sql, token, altered=altered, types=types)
            case Record():
                self._scribe.record(command)
            case Hold(facts=facts):
                # With the grant's end as it is now: the machine began before it was extended.
                self._holder.hold(replace(command, facts=replace(facts, session=self.facts)))
            case Use():
                self._holder.use(command)
            case Match():
                self._holder.match(command)
            case Weigh(ruling=ruling, question=question, token=token):
                self.ruler.weigh(ruling, self._estimate("", question), token)
            case Drop(reason=reason):
                self._holder.drop(reason)
            case Note(entry=entry):
                self._scribe.note(entry)
            case Move(path=path):
                self._search_path = path if path is not None else self._kind.search_path
                self.ruler.move(path)
            case Reload(own=own):
                self.ruler.forget(own=own)
            case Cancel():
                self._soon(self._cancel_upstream())
            case PauseClient():
                self._client.pause("gate")
            case ResumeClient():
                self._client.resume("gate")
            case PauseUpstream() if self._upstream.stream is not None:
                self._upstream.stream.pause("unsynced")
            case ResumeUpstream() if self._upstream.stream is not None:
                self._upstream.stream.resume("unsynced")
            case Close(reason=reason):
                self._to_upstream.clear()
                self._finish(reason)
            case _:
                raise AssertionError(f"a command that nobody does: {command}")

    def _soon(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _cancel_upstream(self) -> None:
        await self._upstream.cancel()
        self.feed(Cancelled(time.monotonic()))

    def _flush(self) -> None:
        if self._to_upstream and self._upstream.stream is not None and not self._failed:
            pieces, self._to_upstream = self._to_upstream, []
            self._upstream.stream.write(pieces)
        if self._to_client:
            pieces, self._to_client = self._to_client, []
            self._client.write(pieces)

    async def _estimate(self, hold: str, question: Question) -> Estimate:
        """Ask the upstream about a statement, held or not, recorded first as a statement of its own."""

        async def record() -> None:
            entry = records.explained(self.facts, hold, self.ids(), question)
            await self._house.broker.recorder.write(entry)

        admin = self._house.admins.of(self._backend.level)
        return await Estimator(admin, self._search_path, self._backend.pid).estimate(question, record)
