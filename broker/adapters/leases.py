"""Leases on disk: what the reaper must know to end sessions with the broker stopped, killed, or its database down.

Under STATE/broker/leases: `leases.ndjson`, which the broker appends to and syncs; `reaped.ndjson`, which the reaper
does; `broker.lock` and `reaper.lock`, each held for as long as its process lives; `reaper.beat`, touched by the reaper.
A line is a lease (the last one of a session counts), a close, or the start of a broker: leases above it are orphans.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import structlog

from broker.adapters.disk import retrieved, tell
from broker.errors import AirlockError, Misconfigured
from broker.sessions.model import Lease, Source

BEAT_SECONDS = 0.5
BEAT_MAX_AGE = 2.0
COMPACT_BYTES = 256 * 1024
_log = structlog.get_logger("leases")


class LeaseFailed(AirlockError):
    """a lease could not be written, so no session opens under it"""


class Lock:
    """A file lock that dies with its process; what holds it can be told from outside."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take the lock; False where another process has it."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def held(self) -> bool:
        """Say whether some process holds it."""
        if self._descriptor is not None:
            return True
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        else:
            return False
        finally:
            os.close(descriptor)

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class ReaperWatch:
    """Tells any process of the broker whether there is a reaper."""

    def __init__(self, home: Path) -> None:
        folder = folder_of(home)
        self._lock = Lock(folder / "reaper.lock")
        self._beat = str(folder / "reaper.beat")

    def alive(self) -> bool:
        """Say whether a reaper holds its lock and has been awake within the last two seconds."""
        try:
            beat = float(_content(self._beat))
        except (OSError, ValueError):
            return False
        return -1.0 < boot_time() - beat < BEAT_MAX_AGE and self._lock.held()


def folder_of(home: Path) -> Path:
    """Return where leases are, made where it is missing."""
    folder = home / "leases"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


class _Line(NamedTuple):
    """What waits to be written; `done` completes when it is, and on disk where it is to be `synced`."""

    data: bytes
    done: asyncio.Future[None]
    synced: bool


class LeaseFile:
    """Implements Leases for the broker; one broker per state folder. Raises Misconfigured where there is another."""

    def __init__(self, home: Path) -> None:
        self._folder = folder_of(home)
        self._path = self._folder / "leases.ndjson"
        self._lock = Lock(self._folder / "broker.lock")
        if not self._lock.acquire():
            raise Misconfigured(f"another broker holds `{self._folder}`")
        self.reaper_alive = ReaperWatch(home).alive
        self._open = dict(LeaseBook.read(self._path).leases)
        self._mine: set[str] = set()
        self._reaped: tuple[int, frozenset[str]] = (0, frozenset())
        """How long the reaper's file was, and what it said."""
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.write(self._descriptor, line({"op": "broker", "pid": os.getpid(), "at": time.time()}))
        os.fdatasync(self._descriptor)
        self._queue: SimpleQueue[_Line | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
        self._thread.start()

    def write(self, lease: Lease) -> asyncio.Future[None]:
        """Write a lease, or what is newly known of it; what it returns completes on disk, or raises LeaseFailed."""
        # In this order: what `_compact` finds open is then known to be ours.
        self._mine.add(lease.session)
        self._open[lease.session] = lease
        return self._append(line({"op": "lease", **written(lease)}), synced=True)

    async def close(self, session: str) -> bool:
        """Say that a session's upstream work is verified gone; False where the reaper has, and recorded the end.

        The reaper sees it at once, and the next lease takes it to the disk: a machine that fails before only has the
        reaper look once more for what is gone.
        """
        self._open.pop(session, None)
        self._mine.discard(session)
        await self._append(line({"op": "close", "session": session}), synced=False)
        return session not in self._ended()

    def of(self, session: str) -> Lease | None:
        """Return what is known of a session that this broker has not closed."""
        return self._open.get(session)

    def sessions(self) -> frozenset[str]:
        """Return the sessions that are not verified gone, also those that earlier brokers left behind."""
        return frozenset(self._open) - self._ended()

    def reaped(self, session: str) -> bool:
        """Say whether the reaper has verified and recorded a session's end."""
        return session in self._ended()

    def _ended(self) -> frozenset[str]:
        """Return what the reaper has ended; its file only grows, and is read again where it has."""
        try:
            size = (self._folder / "reaped.ndjson").stat().st_size
        except OSError:
            size = 0
        if size != self._reaped[0]:
            self._reaped = size, reaped_sessions(self._folder)
        return self._reaped[1]

    def release(self) -> None:
        """Give the folder up, as the end of the process does."""
        self._queue.put(None)
        self._thread.join()
        os.close(self._descriptor)
        self._lock.release()

    def _append(self, data: bytes, *, synced: bool) -> asyncio.Future[None]:
        """Queue a line now; those that wait go together, in their order."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.add_done_callback(retrieved)
        self._queue.put(_Line(data, done, synced))
        return done

    def _run(self) -> None:
        following: _Line | None
        while (following := self._queue.get()) is not None:
            taken = []
            while following is not None:
                taken.append(following)
                if self._queue.empty():
                    break
                following = self._queue.get()
            failed: Callable[[], LeaseFailed] | None = None
            try:
                self._write(b"".join(each.data for each in taken), synced=any(each.synced for each in taken))
            except Exception as error:  # noqa: BLE001  whatever it was, nobody may believe that this is on disk
                said = error.strerror if isinstance(error, OSError) else type(error).__name__
                failed = partial(LeaseFailed, f"{LeaseFailed.__doc__}: {said}")
            tell([each.done for each in taken], failed)
            if following is None:
                return

    def _write(self, data: bytes, *, synced: bool) -> None:
        self._all(self._descriptor, data)
        if synced:
            os.fdatasync(self._descriptor)
        if not self._mine and os.fstat(self._descriptor).st_size > COMPACT_BYTES:
            self._compact()

    @staticmethod
    def _all(descriptor: int, data: bytes) -> None:
        if os.write(descriptor, data) != len(data):
            # A torn line is ended by the next one's newline and then not read.
            os.write(descriptor, b"\n")
            raise OSError(28, "short write")

    def _compact(self) -> None:
        """Start the file anew where nothing of ours is open; what an earlier broker left behind is kept, above us."""
        partial = self._path.with_suffix(".part")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        # One of ours may come meanwhile: above us it would be an orphan, and its own line comes behind.
        left = [lease for lease in list(self._open.values()) if lease.session not in self._mine]
        kept = [line({"op": "lease", **written(lease)}) for lease in left]
        try:
            self._all(descriptor, b"".join(kept) + line({"op": "broker", "pid": os.getpid(), "at": time.time()}))
            os.fsync(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        partial.rename(self._path)
        os.close(self._descriptor)
        self._descriptor = descriptor


@dataclass(slots=True)
class LeaseBook:
    """What a lease file says so far; `orphans` are of brokers that are no more."""

    leases: dict[str, Lease] = field(default_factory=dict)
    orphans: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, path: Path) -> LeaseBook:
        book = cls()
        if path.exists():
            book.take_all(path.read_bytes())
        return book

    def take_all(self, content: bytes) -> None:
        """Take lines; one that does not read is passed over and said, for a crash can tear the last."""
        for text in content.split(b"\n"):
            if (entry := _entry(text)) is not None:
                self.take(entry)
            elif text:
                _log.error("a line of the leases does not read", bytes=len(text))

    def take(self, entry: dict[str, Any]) -> None:
        """Take one line; a lease that is not whole is passed over and said, for nobody can end a session by it."""
        match entry.get("op"):
            case "lease":
                lease = lease_of(entry)
                if lease is None:
                    _log.error("a lease is not whole", session=str(entry.get("session"))[:64])
                    return
                self.leases[lease.session] = lease
                self.orphans.discard(lease.session)
            case "close":
                self.leases.pop(str(entry.get("session")), None)
                self.orphans.discard(str(entry.get("session")))
            case "broker":
                self.orphans.update(self.leases)
            case _:
                pass


def reaped_sessions(folder: Path) -> frozenset[str]:
    """Return the sessions whose end the reaper has verified and recorded."""
    try:
        content = (folder / "reaped.ndjson").read_bytes()
    except OSError:
        return frozenset()
    return frozenset(str(entry.get("session")) for entry in entries(content))


def entries(content: bytes) -> Iterator[dict[str, Any]]:
    return (entry for text in content.split(b"\n") if (entry := _entry(text)) is not None)


def _entry(text: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def line(values: dict[str, Any]) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode() + b"\n"


def written(lease: Lease) -> dict[str, Any]:
    values = {name: getattr(lease, name) for name in Lease.__slots__}
    source = {name: getattr(lease.source, name) for name in Source.__slots__}
    return values | {"source": source, "expires_at": lease.expires_at.isoformat()}


def lease_of(entry: dict[str, Any]) -> Lease | None:
    """Read a lease; None where it is not whole, for one that only looks like a lease would stop what it is asked in."""
    source = entry.get("source")
    if not isinstance(source, dict) or not _fits(entry, _OF_LEASE) or not _fits(source, _OF_SOURCE):
        return None
    values = {name: entry.get(name) for name in Lease.__slots__}
    try:
        expires_at = datetime.fromisoformat(entry["expires_at"])
        if expires_at.tzinfo is None:
            return None
        return Lease(**{**values, "expires_at": expires_at, "source": Source(**source)})  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return None


_INT4, _INT8 = 1 << 31, 1 << 63
_OF_LEASE: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("session", "grant", "protocol", "resource", "role", "expires_at"), (str,)),
    **dict.fromkeys(("broker_pid", "local_port"), (int,)),
    **dict.fromkeys(("pid", "backend_start"), (int, type(None))),
    "identity": (str, type(None)),
}
_OF_SOURCE: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("host", "database", "tls", "credential"), (str,)),
    "port": (int, str),
    "ca": (str, type(None)),
}


def _fits(values: dict[str, Any], kinds: dict[str, tuple[type, ...]]) -> bool:
    """Say whether values are of their kinds, and numbers such as an upstream can be asked about."""
    return all(type(values.get(name)) in kind for name, kind in kinds.items()) and all(
        abs(value) < (_INT8 if name == "backend_start" else _INT4)
        for name, value in values.items()
        if isinstance(value, int)
    )


def _content(path: str) -> bytes:
    """Read a file that is short; each session's opening does."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 64)
    finally:
        os.close(descriptor)


def boot_time() -> float:
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
