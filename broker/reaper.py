"""`python -m broker.reaper`: ends sessions past their end when the broker does not; it needs neither it nor a database.

It tails the broker's leases, which say all that a kill needs: it reads no policy, so a broken one cannot blind it. A
session whose time is over is killed a moment after the broker should have; one whose broker is gone, at once. What it
has ended it says in an event stream of its own, once. Without it no session opens.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from broker.adapters.clock import SystemClock
from broker.adapters.endpoints import resolved
from broker.adapters.eventlog import EventLog
from broker.adapters.leases import (
    BEAT_SECONDS,
    LeaseBook,
    Lock,
    boot_time,
    folder_of,
    line,
    reaped_sessions,
)
from broker.adapters.logs import configure_logs
from broker.adapters.segments import closed_sessions
from broker.config import Settings, read_settings
from broker.errors import AirlockError, Misconfigured
from broker.protocols import offers
from broker.sessions.model import CloseReason, IdentityEnd, Killed, Lease
from broker.sessions.ports import Endpoint

POLL_SECONDS = 0.05
BROKER_GRACE = 0.3
"""Seconds past the end that a live broker has to end a session itself."""
RETRY_SECONDS = 0.5
STREAM = "reaper"
_log = structlog.get_logger("reaper")


@dataclass(slots=True)
class _Watched:
    """A lease with its end by the boot clock, which no step of the wall clock moves."""

    lease: Lease
    boot_end: float
    endpoint: Endpoint | None = None
    killing: asyncio.Task[None] | None = None
    asked_at: float = float("-inf")


class Tail:
    """Reads what was appended to a file, and starts anew where it was replaced or cut; from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._inode = -1
        self._position = 0
        self._rest = b""
        self._book = LeaseBook()

    def look(self) -> LeaseBook:
        """Take what is new; return all that stands there now, which no later look changes."""
        with self._lock:
            self._take()
            return LeaseBook(dict(self._book.leases), set(self._book.orphans))

    def _take(self) -> None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return
        if found.st_ino != self._inode or found.st_size < self._position:
            self._inode, self._position, self._rest, self._book = found.st_ino, 0, b"", LeaseBook()
        if found.st_size == self._position:
            return
        with self._path.open("rb") as file:
            if os.fstat(file.fileno()).st_ino != self._inode:
                return
            file.seek(self._position)
            data = file.read()
        self._position += len(data)
        whole, newline, self._rest = (self._rest + data).rpartition(b"\n")
        self._book.take_all(whole + newline)


class Reaper:
    """Watches leases until it is stopped."""

    def __init__(self, settings: Settings) -> None:
        self._folder = folder_of(settings.home)
        self._lock = Lock(self._folder / "reaper.lock")
        if not self._lock.acquire():
            raise Misconfigured(f"another reaper watches `{self._folder}`")
        self._broker = Lock(self._folder / "broker.lock")
        self._secrets = settings.secrets_path
        self._events = EventLog(settings.home, STREAM, SystemClock())
        self._tail = Tail(self._folder / "leases.ndjson")
        self._watched: dict[str, _Watched] = {}
        self._reaped = set(reaped_sessions(self._folder))
        # A lease whose close a lost host did not keep is looked after once more, and its end not said a second time.
        leases = LeaseBook.read(self._folder / "leases.ndjson").leases
        self._closed = closed_sessions(settings.home / "events") if leases else frozenset()
        self._said = os.open(
            self._folder / "reaped.ndjson", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Watch until `stop` is set."""
        beat_at = 0.0
        while not stop.is_set():
            now = time.monotonic()
            if now - beat_at >= BEAT_SECONDS:
                self._beat()
                beat_at = now
            self._look()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), POLL_SECONDS)
        tasks = [watched.killing for watched in self._watched.values() if watched.killing is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    def _beat(self) -> None:
        try:
            self.beat()
        except OSError as error:
            # A disk that is full keeps new sessions out, since nobody hears the beat; open ones still have to end.
            _log.error("the reaper cannot say that it is awake", error=error.strerror)

    def beat(self) -> None:
        """Say that this process is awake; by the boot clock, which both processes share and nobody sets."""
        partial = self._folder / "reaper.beat.part"
        partial.write_text(repr(boot_time()))
        partial.rename(self._folder / "reaper.beat")

    def close(self) -> None:
        self._events.close()
        os.close(self._said)
        self._lock.release()

    def _look(self) -> None:
        # The lock is looked at before the file: a broker that starts between the two makes its leases' orphans known.
        alive = self._broker.held()
        book = self._tail.look()
        leases = book.leases
        for session in [session for session, watched in self._watched.items() if session not in leases]:
            if self._watched[session].killing is None:
                del self._watched[session]
        for session, lease in leases.items():
            if session not in self._reaped:
                self._judge(lease, orphan=not alive or session in book.orphans)

    def _judge(self, lease: Lease, *, orphan: bool) -> None:
        watched = self._watched.get(lease.session)
        if watched is None or (watched.lease != lease and watched.killing is None):
            watched = self._watch(lease, watched)
        if watched.endpoint is None and time.monotonic() - watched.asked_at >= RETRY_SECONDS:
            watched.asked_at = time.monotonic()
            watched.endpoint = self._endpoint(lease)
        late = (
            time.time() >= lease.expires_at.timestamp() + BROKER_GRACE or boot_time() >= watched.boot_end + BROKER_GRACE
        )
        if (orphan or late) and watched.killing is None:
            reason = CloseReason.EXPIRED if late else CloseReason.ERROR
            watched.killing = asyncio.get_running_loop().create_task(self._kill(watched, reason), name="reap")

    def _watch(self, lease: Lease, before: _Watched | None) -> _Watched:
        left = lease.expires_at.timestamp() - time.time()
        watched = _Watched(lease, boot_time() + left)
        if before is not None:
            watched.endpoint = before.endpoint
            if before.lease.expires_at == lease.expires_at:
                watched.boot_end = before.boot_end
        self._watched[lease.session] = watched
        return watched

    def _endpoint(self, lease: Lease) -> Endpoint | None:
        try:
            return resolved(lease.source, self._secrets)
        except Misconfigured as error:
            _log.error("a lease's upstream cannot be reached", session=lease.session, error=str(error))
            return None

    async def _kill(self, watched: _Watched, reason: CloseReason) -> None:
        lease = watched.lease
        try:
            offer = offers().get(lease.protocol)
            killed = Killed(verified=False)
            if offer is not None and watched.endpoint is not None:
                killed = await offer.kill(lease, watched.endpoint)
            if killed.verified:
                await asyncio.to_thread(self._say, lease, reason, killed)
                _log.info("session reaped", session=lease.session, reason=reason.value)
            else:
                await asyncio.sleep(RETRY_SECONDS)
        except Exception as error:  # noqa: BLE001  whatever one kill meets, it is tried again and the others go on
            _log.error("a session could not be reaped yet", session=lease.session, error=str(error))
            await asyncio.sleep(RETRY_SECONDS)
        finally:
            watched.killing = None

    def _say(self, lease: Lease, reason: CloseReason, killed: Killed) -> None:
        """Record the end, unless the broker has done so in the meantime."""
        if lease.session not in self._tail.look().leases:
            return
        self._reaped.add(lease.session)
        try:
            os.write(self._said, line({"session": lease.session, "at": datetime.now(UTC).isoformat()}))
            os.fdatasync(self._said)
            if killed.identity is IdentityEnd.DISABLED:
                left = {"identity": lease.identity, "resource": lease.resource, "owns": killed.owns}
                self._events.append("identity.left", lease.grant, lease.session, left)
            if lease.session in self._closed:
                return
            data = {"reason": reason.value, **killed.facts(), "by": "reaper"}
            self._events.append("session.closed", lease.grant, lease.session, data)
        except (AirlockError, OSError):
            # What is not on disk is said again; a second line of a session changes nothing.
            self._reaped.discard(lease.session)
            raise


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        reaper = Reaper(settings)
    except OSError as error:
        raise Misconfigured(f"the state folder cannot be used: {error}") from None
    try:
        reaper.beat()
        if settings.ready_file is not None:
            partial = settings.ready_file.with_name(f"{settings.ready_file.name}.part")
            partial.write_text(json.dumps({"pid": os.getpid()}))
            partial.rename(settings.ready_file)
        _log.info("watching", pid=os.getpid())
        await reaper.run(stop)
    finally:
        reaper.close()


def main() -> None:
    """Run a reaper until it is told to stop; exits 2 where it cannot start."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    try:
        settings = read_settings()
        configure_logs(settings.log_level)
        asyncio.run(serve(settings))
    except AirlockError as error:
        sys.stderr.write(f"reaper: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
