"""Append-only files: whole appends or none, and one thread that syncs many of them together.

That thread shares an interpreter with the loop, which stands still at each change between them: it wakes seldom, and
syncs without the interpreter's lock where the core is compiled.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from broker.core import compiled
from broker.errors import RecordingFailed

LAZY_SECONDS = 0.04
"""How long a record that nobody waits for may stay unsynced, beside what it stood in a journal."""

LEFT_BEHIND = 1024 * 1024
"""Bytes behind the end of a file that stay in the system's cache, for those who read what is new. Older ones are let go
once they are on disk: their memory is taken for what is appended next, and not from what else runs on the machine."""

_fdatasync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


@dataclass(frozen=True, slots=True)
class Disk:
    """The two calls that can fail when a disk is full or dying; tests put failing ones here."""

    write: Callable[[int, bytes | memoryview], int] = os.write
    fsync: Callable[[int], None] = _fdatasync


class AppendFile:
    """A file that only grows by whole appends; one that fails half-way is cut back.

    Nothing is appended to one that is `spoilt`: it holds what should have been taken back, or others have had a hand in
    it. What went there would be in no chain, or in no file.
    """

    def __init__(self, path: Path, disk: Disk) -> None:
        self.path = path
        self.spoilt: str | None = None
        """Why nothing more is appended, or None."""
        self._made = not path.exists()
        self._disk = disk
        self.plain = disk == Disk()
        """Nothing stands in for the system's own calls."""
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        found = os.fstat(self.fd)
        self.size = found.st_size
        self._place = found.st_dev, found.st_ino
        self._let_go = self.size

    def check(self) -> None:
        """Look whether the file is what it was left as; raises RecordingFailed."""
        if self.spoilt is None:
            try:
                found = os.stat(self.path)
            except OSError as error:
                self.spoilt = f"`{self.path.name}` is not there any more: {error.strerror}"
            else:
                if (found.st_dev, found.st_ino) != self._place:
                    self.spoilt = f"`{self.path.name}` is another file than it was"
                elif found.st_size != self.size:
                    self.spoilt = f"`{self.path.name}` was written to, or cut, by somebody else"
        if self.spoilt is not None:
            raise RecordingFailed(self.spoilt)

    def append(self, data: bytes) -> None:
        """Append all of it or nothing; raises RecordingFailed."""
        self.check()
        try:
            written = self._disk.write(self.fd, data)
            while written < len(data):
                written += self._disk.write(self.fd, memoryview(data)[written:])
        except OSError as error:
            self.cut(self.size)
            raise RecordingFailed(f"`{self.path.name}` cannot be written: {error.strerror}") from None
        self.size += len(data)

    def cut(self, size: int) -> None:
        """Take back what was appended after a size; where that fails, the file is spoilt."""
        try:
            os.ftruncate(self.fd, size)
        except OSError as error:
            self.spoilt = f"`{self.path.name}` cannot be cut back: {error.strerror}"
            return
        self.size = size
        self._let_go = min(self._let_go, size)

    def sync(self) -> None:
        """Wait until what was appended is on disk; raises OSError."""
        size = self.size
        self._disk.fsync(self.fd)
        self.synced(size)

    def synced(self, size: int) -> None:
        """Learn that what stood before a size is on disk, and let go of what is old there."""
        if self._made:
            sync_folder(self.path.parent)
            self._made = False
        # Up to a multiple: a page that two ranges share would stay for ever.
        start, end = self._let_go, (size // LEFT_BEHIND - 1) * LEFT_BEHIND
        if end > start and hasattr(os, "posix_fadvise"):
            # Nothing that is not on disk yet: the system would begin to write it, and tell nobody that it failed.
            with contextlib.suppress(OSError):
                os.posix_fadvise(self.fd, start, end - start, os.POSIX_FADV_DONTNEED)
            self._let_go = end

    def close(self) -> None:
        """Close the file."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def sync_all(files: Collection[AppendFile]) -> None:
    """Wait until what was appended to files is on disk; raises OSError."""
    if compiled is None or not all(file.plain for file in files):
        for file in files:
            file.sync()
        return
    # More may be appended meanwhile.
    sizes = [file.size for file in files]
    compiled.sync([file.fd for file in files])
    for file, size in zip(files, sizes, strict=True):
        file.synced(size)


def sync_folder(folder: Path) -> None:
    """Make a new or renamed file's name last."""
    fd = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class GroupCommit:
    """Syncs whatever was marked since the last time, then tells everybody who waits.

    A failed sync is final: what the kernel did with those pages is unknown, so nothing is tried again and everything
    after raises RecordingFailed. `before` is called with the lock held when a group is taken and returns what to call
    when it is safe; `idle` is called at least every `interval` seconds.
    """

    def __init__(
        self, name: str, before: Callable[[], Callable[[], None]], idle: Callable[[], None], interval: float
    ) -> None:
        self.lock = threading.Lock()
        self.failure: str | None = None
        self._wake = threading.Condition(self.lock)
        self._before = before
        self._idle = idle
        self._interval = interval
        self._dirty: dict[AppendFile, None] = {}
        self._retired: list[AppendFile] = []
        self._futures: list[asyncio.Future[None]] = []
        self._shared: asyncio.Future[None] | None = None
        self._events: list[threading.Event] = []
        self._closing = False
        self._since: float | None = None
        self._urgent = False
        self._resting = False
        self._thread = threading.Thread(target=self._run, name=f"sync-{name}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise RecordingFailed where nothing can be written any more."""
        if self.failure is not None:
            raise RecordingFailed(self.failure)
        if self._closing:
            raise RecordingFailed("the log is closed")

    def mark(self, file: AppendFile) -> None:
        """Have a file synced with the next group; the lock is held."""
        self._dirty[file] = None

    def future(self, *, lazy: bool = False) -> asyncio.Future[None]:
        """Return what completes with the next group; the lock is held.

        A lazy one lets others join, and is theirs too: whoever awaits it shields it.
        """
        loop = asyncio.get_running_loop()
        if lazy and self._shared is not None and self._shared.get_loop() is loop:
            return self._shared
        future: asyncio.Future[None] = loop.create_future()
        future.add_done_callback(retrieved)
        self._futures.append(future)
        if not lazy:
            self._hurry()
            return future
        self._shared = future
        if self._since is None:
            self._since = time.monotonic()
            if self._resting:
                self._wake.notify()
        return future

    def _hurry(self) -> None:
        if not self._urgent:
            self._urgent = True
            self._wake.notify()

    def ticket(self) -> threading.Event:
        """Return what is set after the next group, for callers without a loop; the lock is held."""
        event = threading.Event()
        self._events.append(event)
        self._hurry()
        return event

    def retire(self, file: AppendFile) -> None:
        """Sync a file once more with the next group, then close it; the lock is held."""
        self._dirty[file] = None
        self._retired.append(file)
        self._hurry()

    def close(self) -> None:
        """Sync what is left and end the thread."""
        with self.lock:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self.lock:
                self._wait()
                closing = self._closing
                self._urgent, self._since = False, None
                dirty, self._dirty = self._dirty, {}
                retired, self._retired = self._retired, []
                futures, self._futures, self._shared = self._futures, [], None
                events, self._events = self._events, []
                safe = self._before()
            self._sync(dirty, retired, safe)
            tell(futures, None if self.failure is None else partial(RecordingFailed, self.failure))
            for event in events:
                event.set()
            if self.failure is None:
                try:
                    self._idle()
                except OSError as error:
                    self.failure = f"a checkpoint cannot be written: {error.strerror}"
            if closing:
                return

    def _wait(self) -> None:
        """Wait for something urgent, for lazy records to be old enough, or for the next idle moment.

        While lazy ones keep coming it looks for them by itself, and nobody wakes it.
        """
        began = time.monotonic()
        idle = began + self._interval
        # Those that came during the last sync have waited for as long as it took.
        look = min(idle, (began if self._since is None else self._since) + LAZY_SECONDS)
        while not self._urgent and not self._closing:
            now = time.monotonic()
            if now < look:
                self._wake.wait(look - now)
            elif self._since is not None or now >= idle:
                return
            else:
                self._resting = True
                self._wake.wait(idle - now)
                self._resting = False
                if self._since is not None:
                    look = min(idle, self._since + LAZY_SECONDS)

    def _sync(self, dirty: dict[AppendFile, None], retired: list[AppendFile], safe: Callable[[], None]) -> None:
        try:
            with contextlib.ExitStack() as after:
                for file in retired:
                    after.callback(file.close)
                if self.failure is None:
                    sync_all(dirty)
                    safe()
        except Exception as error:  # noqa: BLE001  whatever it was, nobody may believe that this is on disk
            self.failure = f"the disk failed to sync: {error}"


def retrieved(future: asyncio.Future[None]) -> None:
    """Take what a future raises: nobody need wait for it, for where it counts somebody does."""
    if not future.cancelled():
        future.exception()


def tell(futures: Sequence[asyncio.Future[None]], failed: Callable[[], Exception] | None) -> None:
    """Complete futures in their loops, from any thread; `failed` makes what each of them raises."""

    def settle(group: list[asyncio.Future[None]]) -> None:
        for future in group:
            if future.done():
                continue
            if failed is None:
                future.set_result(None)
            else:
                future.set_exception(failed())

    loops: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for future in futures:
        loops.setdefault(future.get_loop(), []).append(future)
    for loop, group in loops.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, group)
