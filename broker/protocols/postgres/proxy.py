"""One session: its opening, what it lasts, and its end, after which the upstream's work is gone for sure."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from datetime import datetime

import structlog

from broker.errors import AirlockError, RecordingFailed, UpstreamUnavailable
from broker.protocols.postgres import codec, outset, records
from broker.protocols.postgres.backend import Backend
from broker.protocols.postgres.flow import Flow
from broker.protocols.postgres.house import House, SessionRefused, ended_early, greeting, no_reaper
from broker.protocols.postgres.login import LoggedIn
from broker.protocols.postgres.replies import Problem
from broker.protocols.postgres.spares import Kind, Spare
from broker.protocols.postgres.startup import CancelKey, Startup
from broker.sessions.model import CloseReason, Entry, IdentityEnd, Killed, SessionFacts
from broker.transport.silence import Silence, has_left
from broker.transport.stream import Stream

GRACE_SECONDS = 0.05
"""What an upstream that was told Terminate gets before it is terminated."""
_log = structlog.get_logger("postgres")


class Session:
    """One client connection under a grant; implements LiveSession."""

    def __init__(self, house: House, facts: SessionFacts, client: Stream, kind: Kind, spare: Spare | None) -> None:
        self._house = house
        self._client = client
        self._kind = kind
        self._backend = Backend(house, facts, kind, spare)
        self._upstream = self._backend.upstream
        self._flow = Flow(house, facts, client, self._backend, kind, self._finish_soon)
        self._again = self._flow.again
        self._key: CancelKey | None = None
        self._begun = time.monotonic()
        self._begins_with: tuple[Entry, ...] = ()
        """What records the search path that its client asked for as it connected."""
        self._recorded: Awaitable[None] | None = None
        """That its opening is recorded; from then on its end has to be."""
        self._opened = False
        self._cut = False
        self._settled: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._ending: asyncio.Task[bool] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._silences = (Silence(), Silence())

    @property
    def facts(self) -> SessionFacts:
        return self._flow.facts

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
            _log.error("a session cannot be recorded", session=self.facts.id, error=f"{type(error).__name__}: {error}")
            said, hint = "this session cannot be recorded, so it does not open", "tell an operator of the broker"
            raise SessionRefused(Problem("58030", said, hint=hint, fatal=True), "it cannot be recorded") from None
        except BaseException:
            await asyncio.shield(self._forget())
            raise
        self._opened = True
        self._key = self._house.common.keys.issue(self.facts.id, logged_in.pid)
        return greeting(self._key, logged_in, startup)

    def _record_opened(self) -> Awaitable[None]:
        """Record the opening, once; what it returns completes when that is synced."""
        if self._recorded is None:
            identity = self._backend.identity
            entry = records.opened(self.facts, identity.name if identity is not None else None)
            self._recorded = self._house.broker.recorder.write(entry)
        return self._recorded

    def start(self) -> None:
        """Let both sides flow."""
        self._arm(anew=True)
        self._flow.start()
        self._backend.replenish()

    async def extend(self, until: datetime) -> None:
        """Let the session live until a later time, once its lease says so; one that is ending goes on ending."""
        if self._cut or self._ending is not None:
            return
        await self._backend.extend(until)
        self._flow.extend(until)

    async def end(self, reason: CloseReason) -> bool:
        """Cut the session and return whether its upstream work is verified gone; ending twice awaits the first."""
        if not self._opened:
            # It is still being opened: whoever opens it finds out and leaves nothing behind.
            self._cut = True
            self._upstream.abort()
            return await asyncio.shield(self._settled)
        self._flow.end(reason)
        self._finish_soon(reason)
        assert self._ending is not None
        return await asyncio.shield(self._ending)

    async def cancel(self) -> None:
        """Cancel what the session runs, or waits for, as its client asked."""
        await self._flow.cancel()

    def _arm(self, *, anew: bool = False) -> None:
        """Wake up at the grant's end, and each second before: timers stand still while a machine sleeps."""
        left = (self.facts.grant.expires_at - self._house.broker.clock.now()).total_seconds()
        if left <= 0:
            self._flow.end(CloseReason.EXPIRED)
            return
        for stream, silence in zip((self._client, self._upstream.stream), self._silences, strict=True):
            if not anew and stream is not None and silence.found(stream.transport):
                stream.abort()
        if self._flow.waiting and has_left(self._client.transport):
            # An approval must not run a statement for nobody: its end stands behind what is not read before the answer.
            self._client.abort()
        self._timer = asyncio.get_running_loop().call_later(min(left, 1.0), self._arm)

    def _finish_soon(self, reason: CloseReason) -> None:
        if self._ending is None:
            self._flow.ending = True
            self._ending = asyncio.get_running_loop().create_task(self._finish(reason), name=f"end {self.facts.id}")

    async def _finish(self, reason: CloseReason) -> bool:
        """Kill and verify first; then say so."""
        self._flow.stop(reason)
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
                self._house.common.keys.revoke(self._key)
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
                broker.recorder.write(records.upstream_failed(self.facts, "its connection was lost"))
            if not said:
                seconds = time.monotonic() - self._begun
                if killed.identity is IdentityEnd.DISABLED and (own := self._backend.identity) is not None:
                    broker.recorder.write(records.identity_left(self.facts, own.name, killed))
                closed = records.closed(self.facts, reason, killed, seconds)
                # Where the client has left nobody waits: the next record takes this one to the disk, or a moment does.
                recorded = broker.recorder.write(closed, lazy=reason is CloseReason.CLIENT)
                if reason is not CloseReason.CLIENT:
                    await recorded
        except (AirlockError, OSError) as error:
            _log.error("a session's end is not recorded", session=self.facts.id, error=str(error))

    async def _open_upstream(self, startup: Startup) -> LoggedIn:
        broker, grant = self._house.broker, self.facts.grant
        try:
            await self._flow.ruler.ready()
            if startup.path is not None:
                named = (self._house, self.facts, self._kind, self._flow.ruler, startup.path, self._flow.ids())
                self._begins_with = await outset.begin(*named)
            for name, value in startup.own:
                own = (self._house, self.facts, self._flow.ruler, name, value, self._flow.ids())
                self._begins_with += await outset.set_own(*own)
            return await self._backend.open(self._record_opened)
        except UpstreamUnavailable as error:
            if self._cut:
                raise SessionRefused(ended_early(self._again), "ended while it was opening") from None
            if (problem := outset.untaken(error, startup)) is not None:
                raise SessionRefused(problem, "a setting") from None
            _log.warning("upstream failed", resource=grant.resource, error=str(error))
            try:
                broker.recorder.write(records.upstream_failed(self.facts, error.plainly))
            except RecordingFailed as failure:
                _log.error("not recorded", error=str(failure))
            said = f"{grant.resource} cannot be used now: {error.plainly}"
            owners = f"tell its owners, to whom `airlock doctor {grant.resource}` says more"
            hint = f"try again in a moment; if it stays so, {owners} (your access stays open meanwhile)"
            raise SessionRefused(Problem("08006", said, hint=hint, fatal=True), "upstream down") from None

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
            _log.error("a session that did not open is not forgotten", session=self.facts.id, error=str(error))
        finally:
            self._house.broker.live.remove(self)
            self._house.leave(self)
            if not self._settled.done():
                self._settled.set_result(gone)
        return gone
