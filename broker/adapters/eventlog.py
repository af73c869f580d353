"""The event log: one hash-chained, append-only stream per writing process, synced in groups, checkpoints signed."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from broker.adapters.auditkey import PUBLIC, read_public, signed, signing_key
from broker.adapters.disk import AppendFile, Disk, GroupCommit, sync_folder
from broker.adapters.segments import Segment, checkpoint_path, read_lines, segment_path, segments
from broker.errors import AirlockError, Misconfigured, RecordingFailed
from broker.sessions.eventchain import (
    EVENT,
    ChainBroken,
    Checkpoint,
    Head,
    LineUnwritable,
    checked,
    checkpoint_prev,
    event_line,
    genesis,
    opened,
    read_checkpoint,
    timestamp,
)
from broker.sessions.ports import Clock

SEGMENT_BYTES = 64 * 1024 * 1024
CHECKPOINT_SECONDS = 10.0
CHECKPOINT_EVENTS = 1000
_CHUNK = 1024 * 1024


class LogDamaged(AirlockError):
    """the event log is not what was written; `airlock audit verify` names the place"""


class Fact(NamedTuple):
    """What an event says; `data` is a value or its canonical JSON."""

    kind: str
    grant: str | None
    session: str | None
    data: dict[str, Any] | str


@dataclass(slots=True)
class _Mark:
    """How far a stream was when a group was taken."""

    head: Head
    position: int


@dataclass(slots=True)
class _Tail:
    """What a stream's files hold at the start."""

    head: Head
    base: int
    position: int
    torn: int = 0
    last_checkpoint: Checkpoint | None = None
    checkpoint_line: bytes | None = None


class EventLog:
    """Writes one stream under `home`/events; one writer per stream, in one process.

    `write` appends at once and returns a future that completes when the event is on disk; `append` returns when it
    is. Both raise RecordingFailed, after which nothing of the event is in the file.
    """

    def __init__(
        self,
        home: Path,
        stream: str,
        clock: Clock,
        *,
        disk: Disk | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ) -> None:
        self.folder = home / "events"
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.stream = stream
        self.on_synced: Callable[[], None] = lambda: None
        self._clock = clock
        self._disk = disk or Disk()
        self._segment_bytes = segment_bytes
        self._checkpoint_seconds = checkpoint_seconds
        self._key = signing_key(home)
        self._lock = _lock(self.folder, stream)
        try:
            tail = _read_tail(self.folder, stream, home / PUBLIC)
        except BaseException:
            os.close(self._lock)
            raise
        self.head = tail.head
        self._base = tail.base
        self._file = AppendFile(segment_path(self.folder, stream, tail.base), self._disk)
        self._checkpoints = AppendFile(checkpoint_path(self.folder, stream), self._disk)
        self._checkpoint_prev = checkpoint_prev(tail.checkpoint_line, stream)
        self._signed = tail.last_checkpoint.seq if tail.last_checkpoint else 0
        self._signed_at = time.monotonic()
        self._synced = _Mark(tail.head, tail.position)
        self.commit = GroupCommit(stream, self._taken, self._sign_when_due, min(1.0, checkpoint_seconds))
        if tail.torn:
            self.append("log.torn", None, None, {"stream": stream, "bytes": tail.torn, "position": tail.position})

    @property
    def synced_position(self) -> int:
        """The stream's position up to which everything is on disk."""
        return self._synced.position

    @property
    def failure(self) -> str | None:
        """Why nothing can be written any more, or None."""
        return self.commit.failure or self._file.spoilt

    def write(
        self,
        kind: str,
        grant: str | None,
        session: str | None,
        data: dict[str, Any],
        also: AppendFile | None = None,
        *,
        lazy: bool = False,
    ) -> asyncio.Future[None]:
        """Append an event now; `also` is a file to be synced in the same group."""
        return self.write_all([Fact(kind, grant, session, data)], timestamp(self._clock.now()), also, lazy=lazy)

    def write_all(
        self, facts: Sequence[Fact], at: str, also: AppendFile | None = None, *, lazy: bool = False
    ) -> asyncio.Future[None]:
        """Append several events now, all or none; `at` is a timestamp. What a lazy one returns is shared."""
        with self.commit.lock:
            self._append(facts, at)
            if also is not None:
                self.commit.mark(also)
            return self.commit.future(lazy=lazy)

    def ready(self) -> AppendFile:
        """Return the file to append to, the lock held; raises RecordingFailed where nothing can be written."""
        self.commit.check()
        if self._file.size >= self._segment_bytes:
            self._rotate()
        return self._file

    def append(self, kind: str, grant: str | None, session: str | None, data: dict[str, Any]) -> int:
        """Append an event and return its number when it is on disk; for callers without an event loop."""
        with self.commit.lock:
            self._append([Fact(kind, grant, session, data)], timestamp(self._clock.now()))
            seq, ticket = self.head.seq, self.commit.ticket()
        ticket.wait()
        if self.commit.failure is not None:
            raise RecordingFailed(self.commit.failure)
        return seq

    def retire(self, file: AppendFile) -> None:
        """Sync a file of `also` once more and close it."""
        with self.commit.lock:
            self.commit.retire(file)

    def close(self) -> None:
        """Sync and sign what was written; later writes raise RecordingFailed."""
        self.commit.close()
        if self.commit.failure is None:
            # What this cannot sign the next one does.
            with suppress(OSError):
                self._sign()
        self._file.close()
        self._checkpoints.close()
        os.close(self._lock)

    def _append(self, facts: Sequence[Fact], at: str) -> None:
        self.ready()
        head, lines = self.head, []
        for fact in facts:
            try:
                line, head = event_line(head, self.stream, at, *fact)
            except LineUnwritable as error:
                raise RecordingFailed(f"`{fact.kind}` cannot be recorded: {error}") from None
            lines.append(line)
        self._file.append(b"".join(lines))
        self.head = head
        self.commit.mark(self._file)

    def _rotate(self) -> None:
        base = self._base + self._file.size
        try:
            # A lost host must not keep a new segment and lose the end of the one before it.
            self._file.sync()
        except OSError as error:
            self.commit.failure = f"the disk failed to sync: {error}"
            raise RecordingFailed(self.commit.failure) from None
        try:
            file = AppendFile(segment_path(self.folder, self.stream, base), self._disk)
        except OSError as error:
            raise RecordingFailed(f"a new segment cannot be made: {error.strerror}") from None
        self.commit.retire(self._file)
        self._file, self._base = file, base

    def _taken(self) -> Callable[[], None]:
        mark = _Mark(self.head, self._base + self._file.size)

        def safe() -> None:
            moved = mark.position != self._synced.position
            self._synced = mark
            if moved:
                self.on_synced()

        return safe

    def _sign_when_due(self) -> None:
        unsigned = self._synced.head.seq - self._signed
        late = time.monotonic() - self._signed_at >= self._checkpoint_seconds
        if unsigned >= CHECKPOINT_EVENTS or (unsigned and late):
            self._sign()

    def _sign(self) -> None:
        head = self._synced.head
        if head.seq == self._signed:
            return
        checkpoint = Checkpoint(self.stream, head.seq, head.hash, timestamp(self._clock.now()), self._checkpoint_prev)
        line = replace(checkpoint, signature=self._key.sign(checkpoint.message()).hex()).line()
        try:
            self._checkpoints.append(line)
        except RecordingFailed:
            if self._checkpoints.spoilt is not None:
                raise OSError(errno.ESTALE, self._checkpoints.spoilt) from None
            return  # a full disk: the events go on (or fail) by themselves, the next checkpoint covers these too
        self._checkpoints.sync()
        self._checkpoint_prev = checkpoint_prev(line, self.stream)
        self._signed, self._signed_at = head.seq, time.monotonic()


def _lock(folder: Path, stream: str) -> int:
    """Hold a stream's lock file for as long as this process writes it; two writers would fork the chain."""
    fd = os.open(folder / f"{stream}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise Misconfigured(f"another {stream} runs on this state folder; AIRLOCK_STATE names one of its own") from None
    return fd


def _read_tail(folder: Path, stream: str, public: Path) -> _Tail:
    """Check a stream's end against its last checkpoint and cut a torn last line into a side file."""
    checkpoint, checkpoint_line = _last_checkpoint(folder, stream, public)
    found = segments(folder, stream)
    while len(found) > 1 and found[-1].size == 0:
        found.pop().path.unlink()
    if not found:
        if checkpoint is not None:
            raise LogDamaged(f"`{stream}` is signed up to {checkpoint.seq} and has no file")
        return _Tail(genesis(EVENT, stream), 0, 0)
    last = found[-1]
    torn = cut_torn(last.path)
    head = _last_head(found, stream, checkpoint)
    tail = _Tail(head, last.base, last.base + last.size, torn, checkpoint, checkpoint_line)
    if checkpoint is not None and head.seq < checkpoint.seq:
        raise LogDamaged(f"`{stream}` is signed up to {checkpoint.seq} and ends at {head.seq}")
    return tail


def _last_checkpoint(folder: Path, stream: str, public: Path) -> tuple[Checkpoint | None, bytes | None]:
    path = checkpoint_path(folder, stream)
    if not path.exists():
        return None, None
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        _move_tail(path, len(whole))
    if not whole:
        return None, None
    line = whole[whole.rfind(b"\n", 0, -1) + 1 :]
    try:
        checkpoint = read_checkpoint(line)
    except ChainBroken as error:
        raise LogDamaged(f"`{path.name}`: {error}") from None
    if checkpoint.stream != stream or not signed(read_public(public), checkpoint.message(), checkpoint.signature):
        raise LogDamaged(f"`{path.name}`: the last checkpoint is not signed by this broker's key")
    return checkpoint, line


def cut_torn(path: Path) -> int:
    """Cut what a crash left half-written (a last line without its end, a run of zero bytes); return how much it was."""
    whole = size = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            zero = chunk.find(b"\0")
            end = chunk.rfind(b"\n", 0, zero if zero >= 0 else len(chunk)) + 1
            whole, size = size + end if end else whole, size + len(chunk)
            if zero >= 0:
                size = os.fstat(file.fileno()).st_size
                break
    if whole < size:
        _move_tail(path, whole)
    return size - whole


def _move_tail(path: Path, size: int) -> None:
    """Move what is behind a size into a `.torn` file beside it."""
    with path.open("r+b") as file:
        file.seek(size)
        with path.with_name(f"{path.name}.{size}.torn").open("ab") as side:
            shutil.copyfileobj(file, side, _CHUNK)
            side.flush()
            os.fsync(side.fileno())
        file.truncate(size)
        os.fsync(file.fileno())
    sync_folder(path.parent)


def _last_head(found: list[Segment], stream: str, checkpoint: Checkpoint | None) -> Head:
    """Return the head at the end of a stream, after checking every line of its last file."""
    last = found[-1]
    head = genesis(EVENT, stream) if last.base == 0 else None
    if head is None and not last.size and len(found) > 1:
        return _last_head(found[:-1], stream, checkpoint)
    try:
        for line in read_lines(last.path, 0, last.size):
            content, after = opened(EVENT, line) if head is None else checked(EVENT, line, head)
            if content["stream"] != stream:
                raise ChainBroken("the line is of another stream")
            if checkpoint is not None and after.seq == checkpoint.seq and after.hash != checkpoint.hash:
                raise ChainBroken(f"number {after.seq} is not what was signed")
            head = after
    except ChainBroken as error:
        raise LogDamaged(f"`{last.path.name}`: {error}") from None
    if head is None:
        raise LogDamaged(f"`{last.path.name}` is empty")
    return head
