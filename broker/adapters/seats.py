"""One worker process as the broker has it: its sessions, and what it asks for (`remote.py` is its side)."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce
from itertools import count
from pathlib import Path
from typing import Any

import structlog

from broker.adapters.endpoints import resolved
from broker.adapters.journal import worker_journal
from broker.adapters.leases import LeaseFile
from broker.adapters.process import Process
from broker.core import compiled
from broker.errors import AirlockError, Misconfigured, RecordingFailed
from broker.sessions.holds import HoldFacts
from broker.sessions.model import CloseReason, Entry, Killed, Lease, SessionFacts
from broker.sessions.ports import Common
from broker.transport.channel import Channel, ChannelLost
from broker.transport.handing import handing_pair
from broker.transport.listener import Known

START_SECONDS = 30.0
END_SECONDS = 2.0
"""How long a worker has to end a session, beyond which it is ended from here as well; or to extend one."""
RETRY_SECONDS = 0.5
_log = structlog.get_logger("workers")


class WorkerFailed(AirlockError):
    """a worker process of this broker does not start"""


async def kill(process: Process, lease: Lease) -> Killed:
    """End a session's upstream work as the reaper does."""
    try:
        endpoint = resolved(lease.source, process.settings.secrets_path)
        return await process.outside.offers[lease.protocol].kill(lease, endpoint)
    except Misconfigured as error:
        _log.error("a lease's upstream cannot be reached", session=lease.session, error=str(error))
        return Killed(verified=False)


def _environment() -> dict[str, str]:
    """Return this process's, such that another finds the same program from wherever it was started."""
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


@dataclass(eq=False, slots=True)
class RemoteSession:
    """A session that lives in a worker; implements LiveSession."""

    facts: SessionFacts
    worker: Worker
    leases: LeaseFile
    gone: asyncio.Future[bool]
    """Whether its upstream work is verified gone, where its worker has died."""
    begun: float = field(default_factory=time.monotonic)

    async def extend(self, until: datetime) -> None:
        told = self.worker.channel.call("extend", self.facts.id, until)
        # One that stands still hears of it later, or ends when it would have: nobody waits for that.
        if (await asyncio.wait({told}, timeout=END_SECONDS))[0]:
            told.result()

    async def end(self, reason: CloseReason) -> bool:
        asked = self.worker.channel.call("end", self.facts.id, reason)
        try:
            while not (await asyncio.wait({asked}, timeout=END_SECONDS))[0]:
                # It stands still: its process at the upstream does not wait for it. Where nobody knows that yet, it may
                # be about to come: then only the worker can say that it is gone, or its burial.
                lease = self.leases.of(self.facts.id)
                if lease is not None and lease.pid is not None and (await self.worker.kill(lease)).verified:
                    return True
            verified: bool | None = asked.result()
        except ChannelLost:
            return await asyncio.shield(self.gone)
        return self.facts.id not in self.leases.sessions() if verified is None else verified

    async def cancel(self) -> None:
        # Waited for: who asked takes the answer's end as a sign that what runs next is not meant.
        with suppress(ChannelLost):
            await self.worker.channel.call("cancel", self.facts.id)

    def settle(self, *, verified: bool) -> None:
        """Say how it ended, to who waits for that."""
        if not self.gone.done():
            self.gone.set_result(verified)


class Worker:
    """One worker process as long as it lives, and what it is asked and asks; `lost` is called when it is gone."""

    def __init__(
        self, process: Process, common: Mapping[str, Common], number: int, lost: Callable[[Worker], None]
    ) -> None:
        self.number = number
        self.sessions: dict[str, RemoteSession] = {}
        self.visits: dict[int, tuple[Known, asyncio.Future[None]]] = {}
        self.journal = worker_journal(process.settings.home, number)
        self.child: asyncio.subprocess.Process | None = None
        self.ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._process = process
        self._common = common
        self._numbers = count(1)
        self._promised: dict[asyncio.Future[Any], int] = {}
        self._asking: asyncio.Future[Any] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.missed = 0
        """How often it has been looked at since its last answer."""
        self.sealed = b""
        """What of its journal was sealed last."""
        self._carrier = process.recorder.carrier() if compiled is not None else None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.over, over = handing_pair()
        self.over.setblocking(False)
        self._given = (theirs, over)
        self.channel = Channel(ours, self._asked, lambda: lost(self))
        tickets, live, holds, leases = process.tickets, process.live, process.holds, process.outside.leases
        self._methods: dict[str, Callable[..., Any]] = {
            "ready": self._ready,
            "known": self._known,
            "left": self._left,
            "write": self._write,
            "seal": self._seal,
            "tickets.find": tickets.find,
            "tickets.used": tickets.used,
            "tickets.over": tickets.over,
            "live.add": self._add,
            "live.granted": live.granted,
            "live.remove": self._remove,
            "live.cancel": live.cancel,
            "leases.write": leases.write,
            "leases.close": leases.close,
            "leases.sessions": leases.sessions,
            "holds.open": self._open,
            "holds.estimated": holds.estimated,
            "holds.use": holds.use,
            "holds.match": holds.match,
            "holds.drop": holds.drop,
            "holds.leave": holds.leave,
            "common": self._call_common,
        }

    async def kill(self, lease: Lease) -> Killed:
        """End from here what a session of this worker has at its upstream."""
        return await kill(self._process, lease)

    @property
    def load(self) -> int:
        return len(self.sessions) + len(self.visits)

    async def start(self) -> None:
        """Start the process and wait until it serves; raises WorkerFailed."""
        theirs, over = self._given
        arguments = [str(self.number), str(theirs.fileno()), str(over.fileno())]
        try:
            self.child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "broker.worker", *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), over.fileno()),
                env=_environment(),
                # Ctrl-C in a terminal is for the broker alone, which ends all in order.
                start_new_session=True,
            )
        finally:
            theirs.close()
            over.close()
        anchor = self._process.clock.anchored
        self.channel.cast("begin", self._process.policies.current, anchor.wall, anchor.boot)
        ended: asyncio.Future[Any] = asyncio.ensure_future(self.child.wait())
        await asyncio.wait({self.ready, ended}, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not self.ready.done():
            self.end()
            raise WorkerFailed(f"{WorkerFailed.__doc__}: what it said stands above")

    def end(self) -> None:
        """End the process at once."""
        if self.child is not None and self.child.returncode is None:
            with suppress(ProcessLookupError):
                self.child.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Give up what connects this process with it, and whatever waits for it."""
        self.channel.close()
        self.over.close()
        for _, served in self.visits.values():
            if not served.done():
                served.set_result(None)
        self.visits.clear()
        self._promised.clear()

    def look(self) -> None:
        """See whether it answers."""
        if self._asking is None or self._asking.done():
            self._asking, self.missed = self.channel.call("alive"), 0
        else:
            self.missed += 1

    def _asked(self, method: str, arguments: tuple[Any, ...]) -> Any:
        return self._methods[method](*arguments)

    def _ready(self) -> None:
        if not self.ready.done():
            self.ready.set_result(None)

    def _known(self, visit: int) -> None:
        if (found := self.visits.get(visit)) is not None:
            found[0].known()

    def _left(self, visit: int) -> None:
        found = self.visits.pop(visit, None)
        if found is not None and not found[1].done():
            found[1].set_result(None)

    def _promise(self, future: Awaitable[Any]) -> int:
        """Return the number that this worker hears of when a future completes; the same for the same one."""
        future = asyncio.ensure_future(future)
        number = self._promised.get(future)
        if number is None:
            number = self._promised[future] = next(self._numbers)
            future.add_done_callback(self._keep)
        return number

    def _keep(self, future: asyncio.Future[Any]) -> None:
        number = self._promised.pop(future, None)
        if number is not None and not future.cancelled():
            self.channel.cast("kept", number, future.exception() or future.result())

    def _write(self, entries: tuple[Entry, ...], lazy: bool) -> int:
        return self._promise(self._process.recorder.write_all(entries, lazy=lazy))

    def _seal(
        self, records: bytes, urgent: bool, said: list[tuple[str, dict[str, Any]]]
    ) -> tuple[int, dict[str, RecordingFailed]]:
        assert self._carrier is not None
        pending, failed = self._carrier.deliver(records, urgent, said)
        self.sealed = records
        return self._promise(pending), {grant: RecordingFailed(str(error)) for grant, error in failed.items()}

    def _add(self, facts: SessionFacts) -> bool:
        leases = self._process.outside.leases
        assert isinstance(leases, LeaseFile)
        session = RemoteSession(facts, self, leases, asyncio.get_running_loop().create_future())
        added = self._process.live.add(session)
        if added:
            self.sessions[facts.id] = session
            # An extension may have come between the look at its ticket and now.
            task = asyncio.get_running_loop().create_task(self._process.live.catch_up(session))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return added

    def _remove(self, session: str) -> None:
        if (found := self.sessions.pop(session, None)) is not None:
            self._process.live.remove(found)

    def _open(self, facts: HoldFacts) -> tuple[str, float, bool, int, int]:
        hold = self._process.holds.open(facts)
        return hold.id, hold.seconds, hold.fresh, self._promise(hold.opened), self._promise(hold.answered)

    def _call_common(self, path: tuple[str, ...], arguments: tuple[Any, ...]) -> Any:
        protocol, *names = path
        found: Any = self._common[protocol]
        return reduce(getattr, names, found)(*arguments)
