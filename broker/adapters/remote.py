"""The ports as a worker process has them: what all workers share is asked of the broker's own process (`crew.py`).

What a port does here and now, such as writing a record before a statement goes on, the worker waits for here and now:
what it then knows is what a broker of one process would know. Without an answer nothing goes on (fail closed).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from broker.adapters.disk import retrieved
from broker.adapters.leases import ReaperWatch
from broker.adapters.recorder import open_journal
from broker.core import compiled
from broker.errors import RecordingFailed
from broker.sessions.holds import Answer, Estimate, Hold, HoldFacts, Sought
from broker.sessions.model import CloseReason, Entry, GrantFacts, Lease, SessionFacts, TicketFacts
from broker.sessions.ports import LiveSession
from broker.sessions.shapes import ShapeRule
from broker.transport.channel import Channel, ChannelLost
from policies.engine.decisions import Requirement
from policies.engine.model import Policy

if TYPE_CHECKING:
    from datetime import datetime

    from broker.core.lane import Journal


class Promises:
    """What the other process completes later, by numbers that it gives out; each number is one future."""

    def __init__(self) -> None:
        self._open: dict[int, asyncio.Future[Any]] = {}

    def of(self, number: int) -> asyncio.Future[Any]:
        """Return what completes with a number, the same for the same one."""
        future = self._open.get(number)
        if future is None:
            future = self._open[number] = asyncio.get_running_loop().create_future()
            future.add_done_callback(retrieved)
        return future

    def keep(self, number: int, found: Any) -> None:
        """Complete one with what was found, or with what went wrong."""
        future = self.of(number)
        del self._open[number]
        if future.done():
            # Who waited for it has gone.
            return
        if isinstance(found, Exception):
            future.set_exception(found)
        else:
            future.set_result(found)


class RemoteRecorder:
    """Implements Recorder; each record is written by the broker's own process before the call returns."""

    def __init__(self, channel: Channel, promises: Promises, path: Path) -> None:
        self._channel = channel
        self._promises = promises
        self._path = path
        self._journal: Journal | None = None

    def write(self, entry: Entry, *, lazy: bool = False) -> Awaitable[None]:
        """Write a record now; what it returns completes when it is synced. Both may raise RecordingFailed."""
        return self.write_all((entry,), lazy=lazy)

    def write_all(self, entries: Sequence[Entry], *, lazy: bool = False) -> Awaitable[None]:
        """Write records of one grant now, all or none."""
        self.seal()
        return self._promises.of(self._ask("write", tuple(entries), lazy))

    def seal(self) -> None:
        """Have what stands in this process's journal sealed, so that what the broker writes next comes behind it.

        Raises RecordingFailed.
        """
        if self._journal is not None:
            self._journal.flush()

    def journal(self) -> Journal:
        """Return what takes the lazy records of the compiled core's lanes; what stands there outlives this process."""
        if self._journal is None:
            assert compiled is not None
            self._journal = open_journal(self._path, compiled.Courier(self._send))
        return self._journal

    def _send(
        self, records: bytes, urgent: bool, said: list[tuple[str, dict[str, Any]]]
    ) -> tuple[asyncio.Future[None], dict[str, RecordingFailed]]:
        number, failed = self._ask("seal", records, urgent, said)
        return self._promises.of(number), failed

    def _ask(self, method: str, *arguments: Any) -> Any:
        try:
            return self._channel.ask(method, *arguments)
        except ChannelLost as error:
            raise RecordingFailed(str(error)) from None


class RemoteTickets:
    """Implements Tickets."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def find(self, user: str) -> TicketFacts | None:
        """Return the ticket a user name belongs to, also where it opens nothing any more; None is unknown."""
        found: TicketFacts | None = await self._channel.call("tickets.find", user)
        return found

    async def used(self, ticket: TicketFacts) -> GrantFacts | None:
        """Mark a ticket as delivered, after its holder proved it; the grant as it is now, or None if it is over."""
        found: GrantFacts | None = await self._channel.call("tickets.used", ticket)
        return found

    async def over(self, ticket: TicketFacts) -> str:
        """Say why a ticket that was proved opens nothing any more."""
        return str(await self._channel.call("tickets.over", ticket))


class RemoteLive:
    """Implements LiveSessions, and has this process's sessions do what the broker wants of them."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._sessions: dict[str, LiveSession] = {}

    def add(self, session: LiveSession) -> bool:
        """Register a session before its upstream is dialled; False where its grant is over or the broker is full."""
        facts: SessionFacts = session.facts
        # Before it is known elsewhere: its end may be wanted as soon as it is.
        self._sessions[facts.id] = session
        added = bool(self._channel.ask("live.add", facts))
        if not added:
            self._sessions.pop(facts.id, None)
        return added

    def granted(self, grant: str) -> bool:
        """Say whether sessions may open under a grant."""
        return bool(self._channel.ask("live.granted", grant))

    def remove(self, session: LiveSession) -> None:
        """Forget a session whose end is recorded."""
        if self._sessions.pop(session.facts.id, None) is not None:
            self._channel.cast("live.remove", session.facts.id)

    async def cancel(self, session: str) -> None:
        """Cancel what a session runs, wherever in the broker it is; nothing where it is over."""
        await self._channel.call("live.cancel", session)

    async def end_one(self, session: str, reason: CloseReason) -> bool | None:
        """End a session of this process; None where it has ended before."""
        found = self._sessions.get(session)
        return None if found is None else await found.end(reason)

    async def extend_one(self, session: str, until: datetime) -> None:
        """Extend a session of this process."""
        if (found := self._sessions.get(session)) is not None:
            await found.extend(until)

    async def cancel_one(self, session: str) -> None:
        """Cancel what a session of this process runs."""
        if (found := self._sessions.get(session)) is not None:
            await found.cancel()


class RemoteLeases:
    """Implements Leases."""

    def __init__(self, channel: Channel, home: Path) -> None:
        self._channel = channel
        self.reaper_alive = ReaperWatch(home).alive

    def write(self, lease: Lease) -> Awaitable[None]:
        """Write a lease, or what is newly known of it; what it returns completes when that is synced to disk."""
        return self._channel.call("leases.write", lease)

    async def close(self, session: str) -> bool:
        """Say that a session's upstream work is verified gone; False where the reaper has, and recorded the end."""
        return bool(await self._channel.call("leases.close", session))

    def sessions(self) -> frozenset[str]:
        """Return the sessions that are not verified gone, also those that earlier brokers left behind."""
        found: frozenset[str] = self._channel.ask("leases.sessions")
        return found


class RemoteHolds:
    """Implements Holds; what it has recorded comes behind what its session has done before."""

    def __init__(self, channel: Channel, promises: Promises, recorder: RemoteRecorder) -> None:
        self._channel = channel
        self._promises = promises
        self._recorder = recorder

    def open(self, facts: HoldFacts) -> Hold:
        """Have a statement reviewed; raises RecordingFailed, as may what the hold's futures complete with."""
        self._recorder.seal()
        try:
            hold, seconds, fresh, opened, answered = self._channel.ask("holds.open", facts)
        except ChannelLost as error:
            raise RecordingFailed(str(error)) from None
        answer: Awaitable[Answer] = self._promises.of(answered)
        return Hold(hold, seconds, fresh, self._promises.of(opened), answer)

    def estimated(self, hold: str, estimate: Estimate) -> None:
        """Add what the upstream says of a held statement to what its reviewers see."""
        self._cast("holds.estimated", hold, estimate)

    def use(self, hold: str, requirement: Requirement | None) -> bool:
        """Use up an approval, once; False where it is over, or does not meet what policy demands by now."""
        return bool(self._channel.ask("holds.use", hold, requirement))

    def match(self, sought: Sought) -> ShapeRule | None:
        """Return the rule that lets a statement pass because its shape was approved; None where it must be reviewed."""
        found: ShapeRule | None = self._channel.ask("holds.match", sought)
        return found

    def drop(self, hold: str, reason: str) -> None:
        """Abandon a hold; one that is over already stays what it is."""
        self._cast("holds.drop", hold, reason)

    def leave(self, session: str, reason: str) -> None:
        """Abandon every hold that a session which is over waits for."""
        self._cast("holds.leave", session, reason)

    def _cast(self, method: str, *arguments: Any) -> None:
        # What cannot be sealed ends the sessions that it is of, who learn of it.
        with suppress(RecordingFailed):
            self._recorder.seal()
        self._channel.cast(method, *arguments)


class RemotePolicies:
    """Implements Policies: the broker's own process reads the files, and tells of what it obeys."""

    def __init__(self, policy: Policy) -> None:
        self.current = policy
        self.hash = policy.hash

    def obey(self, policy: Policy) -> None:
        """Decide by another policy from now on."""
        self.current, self.hash = policy, policy.hash


class Far:
    """An object of the broker's own process, whose methods are called by their names, here and now."""

    def __init__(self, channel: Channel, *path: str) -> None:
        self._channel = channel
        self._path = path

    def __getattr__(self, name: str) -> Far:
        return Far(self._channel, *self._path, name)

    def __call__(self, *arguments: Any) -> Any:
        return self._channel.ask("common", self._path, arguments)
