"""Drives one session: feeds the machine with what arrives, does what it says, and ends the upstream's work for sure."""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections import deque
from collections.abc import Awaitable, Coroutine
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

import structlog

from broker.core import compiled, new_ids
from broker.errors import AirlockError, RecordingFailed, UpstreamUnavailable
from broker.protocols.postgres import codec, outset, pins, records
from broker.protocols.postgres.backend import Backend
from broker.protocols.postgres.catalogues import Key
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
from broker.protocols.postgres.house import House, SessionRefused, ended_early, greeting, no_reaper, words
from broker.protocols.postgres.inspector import Matter
from broker.protocols.postgres.login import LoggedIn
from broker.protocols.postgres.machine import Machine, State
from broker.protocols.postgres.replies import Problem
from broker.protocols.postgres.ruler import Ruler
from broker.protocols.postgres.ruling import Subject
from broker.protocols.postgres.scribe import Scribe
from broker.protocols.postgres.sinks import ClientSink, UpstreamSink
from broker.protocols.postgres.spares import Kind, Spare
from broker.protocols.postgres.startup import CancelKey, Startup
from broker.sessions.holds import Estimate
from broker.sessions.model import CloseReason, Entry, IdentityEnd, Killed, SessionFacts
from broker.transport.silence import Silence
from broker.transport.stream import Sink, Stream

if TYPE_CHECKING:
    from broker.core.lane import Lane

GRACE_SECONDS = 0.05
"""What an upstream that was told Terminate gets before it is terminated."""
SLICE_SECONDS = 0.005
"""How long a session goes on deciding before others have their turn: a client may send many messages at once."""
_log = structlog.get_logger("postgres")


class Session:
    """One client connection under a grant; implements LiveSession."""

    def __init__(self, house: House, facts: SessionFacts, client: Stream, kind: Kind, spare: Spare | None) -> None:
        self._house = house
        self._facts = facts
        self._client = client
        self._backend = Backend(house, facts, kind, spare)
        self._upstream = self._backend.upstream
        self._key: CancelKey | None = None
        grant = facts.grant
        self._kind = kind
        self._search_path = kind.home
        matter = Matter(Subject(grant.person, grant.resource, grant.role), Key((kind.endpoint, kind.search_path)))
        self._ruler = Ruler(house.inspector, matter, facts.id, self.feed)
        self._again = house.terms(grant).again
        nonce = f"airlock-{secrets.token_hex(12)}"
        self._ids = new_ids(secrets.randbits(62))
        self._machine = Machine(
            facts,
            self._ids,
            nonce,
            known=self._ruler.known,
            rations=house.rations,
            memory=house.memory,
            clear=lambda: house.terms(grant).clear,
            path=kind.search_path,
            home=kind.path,
            longest=pins.remaining(kind.until, house.broker.clock.now()),
        )
        self._scribe = Scribe(house.broker.recorder, self.feed, house.notes)
        self._quick: Lane | None = None
        """The compiled core's lane, where there is one."""
        self._failed = False
        """Something went wrong in the middle: nothing that arrives is looked at any more."""
        self._holder = Holder(house.broker.holds, self.feed, self._estimate)
        self._begun = time.monotonic()
        self._begins_with: tuple[Entry, ...] = ()
        """What records the search path that its client asked for as it connected."""
        self._recorded: Awaitable[None] | None = None
        """That its opening is recorded; from then on its end has to be."""
        self._opened = False
        self._cut = False
        self._settled: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._ending: asyncio.Task[bool] | None = None
        self._events: deque[Event] = deque()
        self._busy = False
        self._slice = 0.0
        """When the deciding that goes on now began."""
        self._to_client: list[bytes | memoryview] = []
        self._to_upstream: list[bytes | memoryview] = []
        self._tasks: set[asyncio.Future[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._silences = (Silence(), Silence())

    @property
    def facts(self) -> SessionFacts:
        return self._facts

    @property
    def over(self) -> bool:
        """Whether the grant's end has come."""
        return self._house.broker.clock.now() >= self._facts.grant.expires_at

    async def open(self, startup: Startup) -> bytes:
        """Open the upstream, and return what greets the client; raises SessionRefused, after which nothing is left."""
        broker = self._house.broker
        if not broker.leases.reaper_alive():
            self._backend.leave()
            raise SessionRefused(no_reaper(), "no reaper watches the sessions")
        if not broker.live.add(self):
            self._backend.leave()
            problem = Problem("53300", "this access is over, or the broker is full", hint=self._again, fatal=True)
            raise SessionRefused(problem, "over or full")
        self._house.enter(self)
        try:
            logged_in = await self._open_upstream(startup)
            # Begun before the lease is waited for, where they are not under way already.
            recorded = [self._record_opened(), *map(broker.recorder.write, self._begins_with)]
            await self._backend.known()
            for each in recorded:
                await each
            if self._cut:
                raise SessionRefused(ended_early(self._again), "ended while it was opening")
        except SessionRefused as refusal:
            await self._forget()
            raise refusal from None
        except (RecordingFailed, AirlockError) as error:
            await self._forget()
            problem = Problem("58030", "this session cannot be recorded, so it does not open", fatal=True)
            raise SessionRefused(problem, f"{type(error).__name__}: {error}") from None
        except BaseException:
            await asyncio.shield(self._forget())
            raise
        self._opened = True
        self._key = self._house.keys.issue(self, logged_in.pid)
        return greeting(self._key, logged_in, startup)

    def _record_opened(self) -> Awaitable[None]:
        """Record the opening, once; what it returns completes when that is synced."""
        if self._recorded is None:
            identity = self._backend.identity
            entry = records.opened(self._facts, identity.name if identity is not None else None)
            self._recorded = self._house.broker.recorder.write(entry)
        return self._recorded

    def start(self) -> None:
        """Let both sides flow."""
        assert self._upstream.stream is not None
        self._arm(anew=True)
        upstream, client = self._sinks()
        self._upstream.stream.attach(upstream)
        self._client.attach(client)
        self._backend.replenish()

    async def extend(self, until: datetime) -> None:
        """Let the session live until a later time, once its lease says so; one that is ending goes on ending."""
        if self._cut or self._ending is not None:
            return
        await self._backend.extend(until)
        self._facts = replace(self._facts, grant=replace(self._facts.grant, expires_at=until))
        if self._quick is not None and not self._failed:
            self._quick.expires = until.timestamp()

    async def end(self, reason: CloseReason) -> bool:
        """Cut the session and return whether its upstream work is verified gone; ending twice awaits the first."""
        if not self._opened:
            # It is still being opened: whoever opens it finds out and leaves nothing behind.
            self._cut = True
            self._upstream.abort()
            return await asyncio.shield(self._settled)
        self.feed(Ended(reason, words(reason, self._again), time.monotonic()))
        self._finish_soon(reason)
        assert self._ending is not None
        return await asyncio.shield(self._ending)

    async def cancel(self) -> None:
        """Cancel what the session runs, or waits for, as its client asked."""
        if self._machine.state is State.HELD:
            self.feed(CancelAsked(time.monotonic()))
            return
        await self._upstream.cancel()

    def feed(self, event: Event) -> None:
        """Give the machine an event and do what it says; events that come of it follow in order."""
        if self._failed:
            return
        self._events.append(event)
        if self._busy:
            return
        self._busy = True
        self._slice = time.monotonic()
        try:
            if self._quick is not None:
                self._quick.leave()
            self._scribe.settle()
            while self._events:
                for command in self._machine.handle(self._events.popleft()):
                    self._do(command)
        except Exception:  # noqa: BLE001  _fail ends the session
            self._fail()
        finally:
            self._busy = False
        self._flush()

    def _fail(self) -> None:
        """Whatever happened, the session's state is not known any more (fail closed)."""
        _log.exception("a session failed", session=self._facts.id)
        self._failed = True
        if self._quick is not None:
            self._quick.expires = 0.0
        self._events.clear()
        self._to_upstream.clear()
        self._finish_soon(CloseReason.ERROR)

    def _sinks(self) -> tuple[Sink, Sink]:
        """Return what the streams push to: through the compiled core's lane, where there is one."""
        stream = self._upstream.stream
        if compiled is None or stream is None or stream.transport is None or self._client.transport is None:
            return UpstreamSink(self), ClientSink(self)
        return compiled.Side(self, self._lane, False), compiled.Side(self, self._lane, True)

    def _lane(self) -> Lane:
        """Return the compiled core's lane, made once the client has said something: one that idles has none."""
        if self._quick is not None:
            return self._quick
        stream = self._upstream.stream
        assert compiled is not None
        assert stream is not None
        broker, grant = self._house.broker, self._facts.grant
        booking = self._machine.booking(self._ruler.alike, self._scribe)
        lane: Lane = compiled.Lane(
            booking,
            self.derailed,
            broker.recorder.journal(),
            grant.id,
            self._facts.id,
            self._ids,
            broker.clock,
            # Elsewhere Python's clock is not the system's of that name.
            None if sys.platform == "linux" else time.monotonic,
            self._ruler.basis,
            broker.policies,
            (self._house.inspector.moves, self._ruler.moves),
            stream.transport,
            self._client.transport,
            0.0 if self._failed else grant.expires_at.timestamp(),
        )
        self._quick = lane
        return lane

    def derailed(self, error: Exception) -> None:
        """End the session over what went wrong in the compiled core's lane."""
        if isinstance(error, RecordingFailed):
            self._scribe.lost()
        else:
            self._fail()

    def _depart(self, data: bytes, now: float) -> bool:
        """Send a known exchange on its way, recorded, or leave it to `feed`."""
        upstream = self._upstream.stream
        if self._ending is not None or upstream is None:
            return False
        try:
            boarded = self._machine.board(data, now)
            if boarded is None:
                return False
            if self._scribe.board(*boarded):
                upstream.write([boarded[0].data])
        except Exception:  # noqa: BLE001  _fail ends the session
            self._fail()
        return True

    def _land(self, data: bytes, now: float) -> bool:
        """Give the client the whole answer to a known exchange, or leave it to `feed`."""
        if self._ending is not None:
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

    def arrived(self, data: bytes, *, client: bool) -> None:
        """Take bytes of either side; none passes after the grant's end, however late this process wakes up."""
        if self._failed:
            return
        if self.over:
            self._expire()
            return
        now = time.monotonic()
        if not self._busy and (self._depart(data, now) if client else self._land(data, now)):
            return
        self.feed(FromClient(data, now) if client else FromUpstream(data, now))

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

    def _do(self, command: Command) -> None:
        match command:
            case ToClient(data=data):
                self._to_client.append(data)
            case ToUpstream(data=data):
                self._to_upstream.append(data)
            case Inspect(sql=sql, altered=altered, types=types, token=token):
                crowding = time.monotonic() - self._slice > SLICE_SECONDS
                self._ruler.inspect(sql, token, crowding=crowding, altered=altered, types=types)
            case Record():
                self._scribe.record(command)
            case Hold():
                self._holder.hold(command)
            case Use():
                self._holder.use(command)
            case Match():
                self._holder.match(command)
            case Weigh(ruling=ruling, question=question, token=token):
                self._ruler.weigh(ruling, self._estimate("", question), token)
            case Drop(reason=reason):
                self._holder.drop(reason)
            case Note(entry=entry):
                self._scribe.note(entry)
            case Move(path=path):
                self._search_path = path if path is not None else self._kind.search_path
                self._ruler.move(path)
            case Reload():
                self._ruler.forget()
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
                self._finish_soon(reason)
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
            entry = records.explained(self._facts, hold, self._ids(), question)
            await self._house.broker.recorder.write(entry)

        admin = self._house.admins.of(self._backend.level)
        return await Estimator(admin, self._search_path, self._backend.pid).estimate(question, record)

    def _arm(self, *, anew: bool = False) -> None:
        """Wake up at the grant's end, and each second before: timers stand still while a machine sleeps."""
        left = (self._facts.grant.expires_at - self._house.broker.clock.now()).total_seconds()
        if left <= 0:
            self._expire()
            return
        for stream, silence in zip((self._client, self._upstream.stream), self._silences, strict=True):
            if not anew and stream is not None and silence.found(stream.transport):
                stream.abort()
        self._timer = asyncio.get_running_loop().call_later(min(left, 1.0), self._arm)

    def _expire(self) -> None:
        reason = CloseReason.EXPIRED
        self.feed(Ended(reason, words(reason, self._again), time.monotonic()))

    def _finish_soon(self, reason: CloseReason) -> None:
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._finish(reason), name=f"end {self._facts.id}")

    async def _finish(self, reason: CloseReason) -> bool:
        """Kill and verify first; then say so."""
        self._flush()
        self._holder.drop(reason.value)
        if self._timer is not None:
            self._timer.cancel()
        polite = reason is CloseReason.CLIENT and self._upstream.stream is not None
        if polite and self._upstream.stream is not None:
            self._upstream.stream.write([codec.TERMINATE])
        self._client.close()
        killed = Killed(verified=False)
        try:
            killed = await self._backend.kill(GRACE_SECONDS if polite else 0.0)
        finally:
            self._upstream.abort()
            if self._key is not None:
                self._house.keys.revoke(self._key)
            await self._say_closed(reason, killed)
            self._house.broker.live.remove(self)
            self._house.leave(self)
        return killed.verified

    async def _say_closed(self, reason: CloseReason, killed: Killed) -> None:
        broker = self._house.broker
        said = False
        try:
            if killed.verified:
                said = not await self._backend.close_lease()
            if reason is CloseReason.UPSTREAM:
                broker.recorder.write(records.upstream_failed(self._facts, "its connection was lost"))
            if not said:
                seconds = time.monotonic() - self._begun
                if killed.identity is IdentityEnd.DISABLED and (own := self._backend.identity) is not None:
                    broker.recorder.write(records.identity_left(self._facts, own.name, killed))
                closed = records.closed(self._facts, reason, killed, seconds)
                # Where the client has left nobody waits: the next record takes this one to the disk, or a moment does.
                recorded = broker.recorder.write(closed, lazy=reason is CloseReason.CLIENT)
                if reason is not CloseReason.CLIENT:
                    await recorded
        except (AirlockError, OSError) as error:
            _log.error("a session's end is not recorded", session=self._facts.id, error=str(error))

    async def _open_upstream(self, startup: Startup) -> LoggedIn:
        broker, grant = self._house.broker, self._facts.grant
        try:
            await self._ruler.ready()
            if startup.path is not None:
                named = (self._house, self._facts, self._kind, self._ruler, startup.path, self._ids())
                self._begins_with = await outset.begin(*named)
            return await self._backend.open(self._record_opened)
        except UpstreamUnavailable as error:
            if self._cut:
                raise SessionRefused(ended_early(self._again), "ended while it was opening") from None
            if (problem := outset.untaken(error, startup)) is not None:
                raise SessionRefused(problem, "a setting") from None
            _log.warning("upstream failed", resource=grant.resource, error=str(error))
            try:
                broker.recorder.write(records.upstream_failed(self._facts, error.plainly))
            except RecordingFailed as failure:
                _log.error("not recorded", error=str(failure))
            hint = "try again in a moment; if it stays so, tell its owners (your access stays open meanwhile)"
            raise SessionRefused(
                Problem("08006", f"{grant.resource} does not answer", hint=hint, fatal=True), "upstream down"
            ) from None

    async def _forget(self) -> bool:
        """Undo a session that did not open."""
        self._cut = True
        self._backend.leave()
        self._upstream.abort()
        gone = False
        try:
            killed = await self._backend.kill(GRACE_SECONDS)
            gone = killed.verified
            if self._recorded is not None:
                await self._say_closed(CloseReason.ERROR, killed)
            elif gone:
                await self._backend.close_lease()
        except (AirlockError, OSError) as error:
            _log.error("a session that did not open is not forgotten", session=self._facts.id, error=str(error))
        finally:
            self._house.broker.live.remove(self)
            self._house.leave(self)
            if not self._settled.done():
                self._settled.set_result(gone)
        return gone
