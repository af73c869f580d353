"""The recorder: every entry is a line of the feed and, under a grant, a line of that grant's recording with its detail.

The feed's line has `recorded`, the number and hash of the recording's line, so neither can change without the other.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from broker.adapters.disk import AppendFile, Disk
from broker.adapters.eventlog import EventLog, Fact, cut_torn
from broker.adapters.journal import (
    DELAY_SECONDS,
    SIZE,
    Line,
    journal_path,
    left_behind,
    mapped,
    packed,
    stranded_path,
    unpacked,
)
from broker.adapters.metrics import Metrics
from broker.adapters.stories import Loaded, Story, commitment, read_story, recording_path
from broker.core import compiled
from broker.errors import RecordingFailed
from broker.sessions.eventchain import Head, LineUnwritable, record_line, timestamp
from broker.sessions.model import Entry, Written
from broker.sessions.ports import Clock

if TYPE_CHECKING:
    from broker.core.lane import Journal

OPEN_FILES = 128
_log = structlog.get_logger("recorder")


def open_journal(path: Path, write: Callable[[Journal], Awaitable[None]]) -> Journal:
    """Return an empty journal that outlives this process, or where it cannot, one that keeps nothing back."""
    assert compiled is not None
    loop = asyncio.get_running_loop()
    try:
        memory = mapped(path)
    except OSError as error:
        _log.warning("there is no journal, so each record is sealed at once", error=error.strerror)
        unmapped: Journal = compiled.Journal(bytearray(SIZE), write, None, None)
        return unmapped

    def later(call: Callable[[], None]) -> None:
        loop.call_later(DELAY_SECONDS, call)

    made: Journal = compiled.Journal(memory, write, later, loop.call_soon)
    return made


def _spoken(written: Written | Line, head: Head) -> str:
    """Write what the feed says of a record whose line is at a head."""
    return f'{{{written.before}"recorded":"{commitment(head)}",{written.behind}}}'


class FileRecorder:
    """Writes the feed and the recordings from one event loop; at most OPEN_FILES recordings are open at a time.

    A grant has a recording from `resume` to `forget`.
    """

    def __init__(self, home: Path, log: EventLog, clock: Clock, metrics: Metrics, disk: Disk | None = None) -> None:
        self._home = home
        self._log = log
        self._clock = clock
        self._metrics = metrics
        self._journal_path = journal_path(home, log.stream)
        self._stranded_path = stranded_path(home, log.stream)
        self._disk = disk or Disk()
        self.stories: dict[str, Story] = {}
        self.files: OrderedDict[str, AppendFile] = OrderedDict()
        self._journal: Journal | None = None
        self._stranded: set[str] = set()
        """Grants whose recordings are read anew, and given what they lack of the journal, before anything else."""
        (home / "recordings").mkdir(parents=True, exist_ok=True, mode=0o700)
        self._left = self._left_behind()

    def write(self, entry: Entry, *, lazy: bool = False) -> asyncio.Future[None]:
        """Write a record now; what it returns completes when it is synced. Both may raise RecordingFailed."""
        return self.write_all((entry,), lazy=lazy)

    def write_all(self, entries: Sequence[Entry], *, lazy: bool = False) -> asyncio.Future[None]:
        """Write records of one grant now, all or none, with one write to each file."""
        self.seal()
        try:
            future = self._write(entries, lazy)
        except RecordingFailed:
            self._metrics.failures.inc()
            raise
        for entry in entries:
            self._metrics.recorded(entry.type)
        return future

    def seal(self) -> None:
        """Seal what stands in the journal, so that what is written next comes behind it; raises RecordingFailed."""
        if self._journal is not None:
            self._journal.flush()

    def journal(self) -> Journal:
        """Return what takes the lazy records of the compiled core's lanes; raises RecordingFailed."""
        if self._journal is None:
            assert compiled is not None
            self.put_aside()
            self._journal = open_journal(self._journal_path, compiled.Pen(self, self._log, self._metrics))
        return self._journal

    def carrier(self) -> Journal:
        """Return what seals what other processes have in their journals (`Journal.deliver`)."""
        assert compiled is not None
        made: Journal = compiled.Journal(bytearray(SIZE), compiled.Pen(self, self._log, self._metrics), None, None)
        return made

    def take_up(self, path: Path, sealed: bytes) -> None:
        """Seal what a process that is no more left in its journal; raises RecordingFailed.

        `sealed` is what was sealed for it last: it may have died before it heard so.
        """
        try:
            left = left_behind(path)
        except OSError as error:
            raise RecordingFailed(f"`{path.name}` does not read: {error.strerror}") from None
        if left.lines and left.records != sealed:
            touched = [(line.grant, line.data) for line in left.lines]
            self.carrier().deliver(left.records, True, touched)
        # Where it stays, whoever has it next empties it, and a start finds that its lines are sealed.
        with suppress(OSError):
            path.unlink(missing_ok=True)

    def open(self, grant: str) -> AppendFile:
        """Return the file of a grant's recording; raises RecordingFailed where it has none."""
        if self.story(grant) is None:
            raise RecordingFailed("records belong in a recording, and their grant has none open")
        return self._file(grant)

    def strand(self, records: Mapping[str, bytes | bytearray]) -> None:
        """Keep records of the journal aside, by their grants, until these grants' recordings take them.

        All or none; raises RecordingFailed. The log's lock is held. What comes late, under a grant whose recording is
        closed, the next start finds.
        """
        lines = [line for some in records.values() for line in unpacked(some)]
        try:
            file = AppendFile(self._stranded_path, self._disk)
            try:
                file.append(b"".join(map(packed, lines)))
                file.sync()
            finally:
                file.close()
        except OSError as error:
            raise RecordingFailed(f"`{self._stranded_path.name}` cannot be written: {error.strerror}") from None
        for line in lines:
            self._left.setdefault(line.grant, []).append(line)
        for grant in records:
            if self.stories.pop(grant, None) is not None:
                self._stranded.add(grant)
            if (open_file := self.files.pop(grant, None)) is not None:
                self._log.commit.retire(open_file)
        _log.error("recordings do not take their records, which are kept aside", grants=sorted(records))

    def load(self, grant: str) -> Loaded:
        """Read what a grant's recording says from disk; raises RecordingFailed. Safe in a thread."""
        return self._read(grant, self._cut(grant))

    def _cut(self, grant: str) -> int:
        """Cut a half-written line off a grant's recording; returns its bytes, raises RecordingFailed."""
        path = recording_path(self._home, grant)
        try:
            return cut_torn(path) if path.exists() else 0
        except OSError as error:
            raise RecordingFailed(f"the recording of {grant} does not read: {error}") from None

    def _read(self, grant: str, torn: int) -> Loaded:
        feed = self._log.folder, self._log.stream
        return read_story(recording_path(self._home, grant), grant, self._left.get(grant, ()), torn, feed)

    def adopt(self, grant: str, loaded: Loaded) -> Story:
        """Go on with a recording where it ended; raises RecordingFailed, after which it is not gone on with."""
        stranded = grant in self._stranded
        self._stranded.discard(grant)
        try:
            story = self._adopt(grant, loaded)
        except RecordingFailed:
            # What stood in the journal is not all in it: the next one reads it anew.
            self._let_go(grant)
            if stranded:
                self._stranded.add(grant)
            raise
        if stranded and not self._left:
            # What stays there has its lines: a later start finds that out.
            with suppress(OSError):
                self._stranded_path.unlink()
        return story

    def _adopt(self, grant: str, loaded: Loaded) -> Story:
        story = self.stories.setdefault(grant, loaded.story)
        for line, head in loaded.unspoken:
            self._log.write_all([Fact(line.kind, grant, line.session, _spoken(line, head))], line.at)
        if story.head.seq:
            # A crash between a recording's line and its event leaves a line that no event speaks of; this one does.
            self._log.write("recording.resumed", grant, None, {"recorded": commitment(story.head)})
        if loaded.torn:
            self._write((Entry("recording.torn", grant, None, {"bytes": loaded.torn}),), lazy=False)
        for line in loaded.unsealed:
            written = Written(line.before, line.behind, line.detail)
            entry = Entry(line.kind, grant, line.session, line.data, written=written)
            self._write((entry,), lazy=False, at=line.at)
        self._left.pop(grant, None)
        return story

    def resume(self, grant: str) -> Story:
        """Return what a grant's recording says, read from disk where this process has not written it."""
        self.seal()
        story = self.stories.get(grant)
        return self.adopt(grant, self.load(grant)) if story is None else story

    def forget(self, grant: str) -> None:
        """Let go of a grant whose recording is complete."""
        # What cannot be sealed stays in the journal, and ends the sessions that it is of.
        with suppress(RecordingFailed):
            self.seal()
        self._let_go(grant)

    def _let_go(self, grant: str) -> None:
        self.stories.pop(grant, None)
        if (file := self.files.pop(grant, None)) is not None:
            self._log.retire(file)

    def _left_behind(self) -> dict[str, list[Line]]:
        """Read what the last broker recorded and did not come to seal, by its grants."""
        found: dict[str, list[Line]] = {}
        try:
            left = [left_behind(path) for path in self._journals()]
        except OSError as error:
            raise RecordingFailed(f"the journal does not read: {error.strerror}") from None
        self._torn = any(one.torn for one in left)
        for line in [line for one in left for line in one.lines]:
            found.setdefault(line.grant, []).append(line)
        return found

    def _journals(self) -> list[Path]:
        """Return what this process or others may have left something in: of the same lines, the oldest first."""
        return sorted((self._home / "recordings").glob("*.journal"), key=lambda path: path != self._stranded_path)

    def put_aside(self) -> None:
        """Keep what no grant of today has taken up, for its recording did not read, or is gone; and what is torn.

        Afterwards there is no journal.
        """
        lost = sorted(grant for grant in self._left if self._unsealed(grant))
        for path in self._journals():
            if lost or self._torn:
                aside = path.with_suffix(f".journal.{time.time_ns()}.torn")
                path.rename(aside)
                _log.error("not all that stood in the journal is sealed", grants=lost, torn=self._torn, file=aside.name)
            path.unlink(missing_ok=True)

    def _unsealed(self, grant: str) -> bool:
        """Say whether a grant's recording lacks what stood in the journal."""
        try:
            loaded = self.load(grant)
        except RecordingFailed:
            return True
        return bool(loaded.unsealed or loaded.unspoken)

    def _write(self, entries: Sequence[Entry], lazy: bool, at: str | None = None) -> asyncio.Future[None]:
        grant, late = entries[0].grant, at is not None
        at = at or timestamp(self._clock.now())
        story = self.story(grant) if grant is not None else None
        # What stood in a journal was recorded before; nothing else comes behind a recording's last line.
        if grant is None or story is None or (story.closed and not late):
            for entry in entries:
                if entry.detail:
                    raise RecordingFailed(f"`{entry.type}` belongs in a recording, and its grant has none open")
            # A refused connection under a grant that is over is a fact for the feed; its recording stays closed.
            facts = [Fact(entry.type, entry.grant, entry.session, entry.data) for entry in entries]
            return self._log.write_all(facts, at, lazy=lazy)
        file = self._file(grant)
        head, lines, facts = story.head, [], []
        for entry in entries:
            if entry.grant != grant:
                raise RecordingFailed("records of two grants are not written together")
            written = entry.written
            data: dict[str, Any] | str = entry.data if written is None else f"{{{written.before}{written.behind}}}"
            detail: dict[str, Any] | str = entry.detail if written is None else written.detail
            try:
                line, head = record_line(head, grant, at, entry.type, entry.session, data, detail)
            except LineUnwritable as error:
                raise RecordingFailed(f"`{entry.type}` cannot be recorded: {error}") from None
            lines.append(line)
            data = {**entry.data, "recorded": commitment(head)} if written is None else _spoken(written, head)
            facts.append(Fact(entry.type, grant, entry.session, data))
        future = self._appended(grant, file, b"".join(lines), facts, at, lazy)
        story.head = head
        for entry in entries:
            story.take(entry.type, entry.session, at, entry.data)
        return future

    def _appended(
        self, grant: str, file: AppendFile, lines: bytes, facts: Sequence[Fact], at: str, lazy: bool
    ) -> asyncio.Future[None]:
        before = file.size
        try:
            file.append(lines)
            try:
                return self._log.write_all(facts, at, file, lazy=lazy)
            except RecordingFailed:
                file.cut(before)
                raise
        except RecordingFailed:
            if file.spoilt is not None:
                # Its story is not what it holds: it is read anew before anything else is written.
                _log.error("a recording is not what was written", grant=grant, problem=file.spoilt)
                self._let_go(grant)
                self._stranded.add(grant)
            raise

    def story(self, grant: str) -> Story | None:
        """Return what a grant's recording says so far, where it has one; raises RecordingFailed."""
        return self.adopt(grant, self.load(grant)) if grant in self._stranded else self.stories.get(grant)

    def _file(self, grant: str) -> AppendFile:
        file = self.files.get(grant)
        if file is None:
            try:
                file = AppendFile(recording_path(self._home, grant), self._disk)
            except OSError as error:
                raise RecordingFailed(f"a recording cannot be opened: {error.strerror}") from None
            self.files[grant] = file
            if len(self.files) > OPEN_FILES:
                self._log.retire(self.files.popitem(last=False)[1])
        else:
            self.files.move_to_end(grant)
        return file
