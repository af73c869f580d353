"""The way back: the upstream's answers, matched with what was sent, watched, recorded and passed to the client."""

from __future__ import annotations

from collections.abc import Iterator

from broker.protocols.postgres import codec
from broker.protocols.postgres.codec import Frame, ProtocolViolation
from broker.protocols.postgres.copying import Copying
from broker.protocols.postgres.events import (
    Cancel,
    Close,
    Command,
    Note,
    PauseUpstream,
    Reload,
    ResumeUpstream,
    Settle,
    ToClient,
)
from broker.protocols.postgres.replies import OVER_LIMIT, passed_problem, passes_status, too_far
from broker.protocols.postgres.responses import ROWS, Act, Expected, Kind
from broker.protocols.postgres.scanning import BackendScanner, Run
from broker.protocols.postgres.shared import Session
from broker.protocols.postgres.tripwire import TRIPPED, trips
from broker.sessions.model import CloseReason, Durability
from broker.sql.model import Altered, Control
from broker.sql.rewrite import whole_run

MAX_HELD = 1024 * 1024
"""Bytes of results that wait for their record to be on disk before the upstream is no longer read."""

_ENDS = frozenset({Act.COMPLETE, Act.SUSPEND, Act.READY})
_WITH_POSITION = frozenset({Kind.QUERY, Kind.PARSE, Kind.BIND, Kind.EXECUTE})


class BackPath:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._scanner = BackendScanner()
        self._unsynced: set[int] = set()
        self._held: list[bytes | memoryview] = []
        self._held_size = 0
        self._paused = False
        self._eaten = 0

    @property
    def amid(self) -> bool:
        """Whether the client is in the middle of a message that arrives in pieces."""
        return self._scanner.amid

    @property
    def idle(self) -> bool:
        """Whether nothing of the upstream's is half read, and no answer of its is to be swallowed."""
        return self._scanner.idle and not self._eaten

    @property
    def holding(self) -> bool:
        """Whether what comes for the client waits for a record to be on disk."""
        return bool(self._unsynced)

    def recording(self, token: int, durability: Durability) -> None:
        if durability is Durability.RESULTS_WAIT:
            self._unsynced.add(token)

    def synced(self, token: int) -> Iterator[Command]:
        """Let out what waited, once no record is missing."""
        self._unsynced.discard(token)
        if self._unsynced:
            return
        held, self._held, self._held_size = self._held, [], 0
        yield from map(ToClient, held)
        if self._paused:
            self._paused = False
            yield ResumeUpstream()

    def to_client(self, data: bytes | memoryview) -> Iterator[Command]:
        """Send to the client, behind what waits."""
        if not self._unsynced:
            yield ToClient(data)
            return
        self.withhold(data)
        if self._held_size > MAX_HELD and not self._paused:
            self._paused = True
            yield PauseUpstream()

    def withhold(self, data: bytes | memoryview) -> None:
        """Keep what is for the client until its record is on disk."""
        self._held.append(data)
        self._held_size += len(data)

    def cut(self) -> Iterator[Note]:
        """Note that everything under way is cut."""
        yield from self._session.cut_unsent()
        bounded = [self._session.bounded] if self._session.bounded is not None else []
        if bounded or self._session.responses.queue:
            # What was sent may have been done, and a COMMIT among it.
            yield from self._session.fates.lost()
        for expected in (*bounded, *self._session.responses.queue):
            yield from self._session.abandon(expected)
            if expected.portal is not None:
                expected.portal.statements = ()
        yield from self._session.end_transaction(committed=False)

    def handle(self, data: bytes) -> Iterator[Command]:
        """Take the upstream's bytes; a Close among the commands ends the session."""
        for piece in self._scanner.feed(data):
            if isinstance(piece, Run):
                yield from self._rows(piece)
                continue
            match chr(piece.type):
                case "E":
                    yield from self._error(piece)
                case "N" if not self._is_own_notice(piece) and self._may_say(piece):
                    yield from self.to_client(self._passed(piece))
                case "N":
                    pass
                case "S":
                    name, value = codec.read_parameter_status(piece.body)
                    if name == "search_path":
                        self._session.way.told()
                    if passes_status(name, value):
                        yield from self.to_client(piece.whole())
                case "A":
                    # Where nothing of ours has asked, an upstream that notifies is not to be believed.
                    if self._session.listening and self._session.clear():
                        yield from self.to_client(piece.whole())
                case kind:
                    yield from self._answer(kind, piece)

    def _is_own_notice(self, frame: Frame) -> bool:
        """Say whether a notice speaks of a statement of the broker's own: SET CONSTRAINTS where nobody said BEGIN."""
        head = self._session.responses.head
        return head is not None and head.own is not None and codec.read_fields(frame.body).get("C") == "25P01"

    def _may_say(self, frame: Frame) -> bool:
        """Say whether a notice may pass: where anything is masked, only warnings.

        The pins keep notices back only of who logged in under masks, and never what code of users' says as INFO.
        """
        values = codec.read_fields(frame.body)
        return values.get("V", values.get("S")) == "WARNING" or self._session.clear()

    def _rows(self, run: Run) -> Iterator[Command]:
        head = self._session.responses.head
        if head is None or head.kind not in ROWS:
            raise ProtocolViolation("upstream sent rows that nobody asked for")
        if head.own is not None:
            head.own.gather(run.data)
            return
        head.rows += run.rows
        yield from self._tell(head)
        copying = self._session.responses.copying
        if copying is not None and not head.muted and not copying.take_out(run.data, run.rows):
            yield from self._stop(head, copying)
        if not head.muted:
            yield from self.to_client(run.data)

    def _tell(self, head: Expected) -> Iterator[Command]:
        told, head.notice = head.notice, b""
        if told:
            yield from self.to_client(told)

    def _stop(self, head: Expected, copying: Copying) -> Iterator[Command]:
        """Stop a COPY that goes too far: its client hears so at once, and nothing more of this segment."""
        session = self._session
        session.cancelling = session.failed = True
        session.skipping = session.skipping or (head.kind is not Kind.QUERY and head.segment == session.segment)
        for expected in session.responses.queue:
            if expected.segment == head.segment and expected.kind is not Kind.SYNC:
                expected.muted = True
        head.problem = too_far(copying)
        yield from self.to_client(head.problem.encoded())
        yield Cancel()

    def _answer(self, kind: str, frame: Frame) -> Iterator[Command]:
        session = self._session
        if kind == "Z" and self._eaten and (session.responses.head is None):
            # A Sync that the server was to swallow during COPY, and did not, for the COPY failed first.
            self._eaten -= 1
            return
        head, act = session.responses.act(kind)
        if head.own is not None:
            self._own(head, act, kind, frame)
            return
        if head.withheld is not None and act in _ENDS:
            self._withhold(head, act, frame)
            return
        yield from self._earlier(head)
        if head.ruling is not None and head.ruling.inspection.scrub:
            session.scrub = True
        yield from self._tell(head)
        match act:
            case Act.DESCRIBE:
                if trips(session.tripwire, frame.body, head.ruling):
                    yield Close(CloseReason.TRIPWIRE, TRIPPED)
                    return
                if head.kind is not Kind.QUERY:
                    session.responses.pop()
            case Act.COPY_IN:
                self._begin_copy()
            case Act.COMPLETE:
                yield from self._complete(head, codec.read_tag(frame.body) if kind == "C" else "")
            case Act.SUSPEND:
                session.responses.pop()
                if head.portal is not None:
                    head.portal.rows += head.rows
            case Act.DONE:
                yield from self._done(session.responses.pop())
            case Act.READY:
                yield from self._ready(session.responses.pop(), frame.body[:1].decode("ascii", "replace"))
            case Act.PASS:
                if kind == "t" and head.prepared is not None:
                    head.prepared.types = codec.read_parameter_description(frame.body)
        if not head.muted or act is Act.READY:
            yield from self.to_client(frame.whole())

    def settle(self, command: Settle) -> Iterator[Command]:
        """Take answers to what was withheld as if they came now."""
        expected = command.expected
        expected.withheld, self._session.bounded = None, None
        self._session.responses.put_back(expected)
        for frame in command.frames:
            if frame.type == ord("E"):
                yield from self._error(frame)
            else:
                yield from self._answer(chr(frame.type), frame)

    def _own(self, head: Expected, act: Act, kind: str, frame: Frame) -> None:
        """Keep an answer to a statement of the broker's own."""
        if act is Act.READY:
            self._stands(frame)
        if head.own is not None and head.own.take(kind, frame):
            self._session.responses.pop()

    def _withhold(self, head: Expected, act: Act, frame: Frame) -> None:
        """Keep back how a bounded change completes."""
        assert head.withheld is not None
        head.withheld.append(frame)
        self._session.copying = False
        if act is Act.READY:
            self._stands(frame)
        if act is Act.READY or head.kind is Kind.EXECUTE:
            self._session.responses.pop()

    def _earlier(self, head: Expected) -> Iterator[Command]:
        """Let out how earlier statements of a text completed, before what the next one answers."""
        if not head.withheld:
            return
        earlier, head.withheld = head.withheld, None
        head.complete += earlier
        for one in earlier:
            yield from self._answer(chr(one.type), one)
        head.withheld = []

    def _stands(self, frame: Frame) -> None:
        self._session.status = frame.body[:1].decode("ascii", "replace")
        self._session.block = self._session.status != "I"

    def _begin_copy(self) -> None:
        session = self._session
        session.copying, session.fed = True, False
        queue = session.responses.queue
        queue[0].given = False
        while len(queue) > 1 and queue[1].kind is Kind.SYNC:
            # A server that reads copy data swallows the Sync behind it.
            del queue[1]
            self._eaten += 1

    def _complete(self, head: Expected, tag: str) -> Iterator[Command]:
        session = self._session
        session.copying = False
        running = head.statements[0] if head.statements else None
        rows = codec.rows_of(tag)
        if head.portal is not None:
            rows = rows + head.portal.rows if rows is not None else None
            head.portal.statements, head.portal.rows = (), 0
        if head.muted:
            yield from session.finish(head, "failed", rows, OVER_LIMIT)
        else:
            yield from session.finish(head, "ok", rows)
        if running is not None:
            yield from session.confirm(running)
            if running.control is Control.BEGIN:
                session.block = True
            if running.control in (Control.COMMIT, Control.ROLLBACK):
                session.block = False
                # COMMIT of a failed transaction says ROLLBACK, and with AND CHAIN none of it shows in the status.
                yield from session.end_transaction(committed=tag == "COMMIT")
                if session.changed:
                    yield Reload()
            session.changed = session.changed or bool(running.alters)
        if head.kind is Kind.EXECUTE:
            session.responses.pop()

    def _done(self, expected: Expected) -> Iterator[Note]:
        if expected.change is not None:
            self._session.prepared.confirm(expected.change)
        if expected.portal_change is not None:
            yield from self._session.confirm_portal(expected.portal_change)
            if expected.kind is Kind.CLOSE and expected.portal is not None:
                yield from self._session.finish_portal(expected.portal)

    def _ready(self, expected: Expected, status: str) -> Iterator[Command]:
        session = self._session
        if status not in ("I", "T", "E"):
            raise ProtocolViolation("upstream is in no known transaction state")
        yield from self._done(expected)
        yield from session.abandon(expected)
        # Where a Query joined a transaction that nobody began, only a BEGIN of its own says that Sync does not end it.
        session.status, session.block = status, status != "I" and (session.block or not expected.joined)
        session.copying = False
        if status == "I":
            yield from session.end_transaction(committed=not session.failed)
            if expected.segment >= session.altered_in:
                session.altered = Altered.NOT
            if session.wrote is not None and expected.segment >= session.wrote:
                session.wrote = None
            if session.changed:
                session.changed = False
                yield Reload()
            session.named = {name: since for name, since in session.named.items() if since > expected.segment}
            if not session.responses.queue:
                session.scrub = False
        session.failed = False

    def _error(self, frame: Frame) -> Iterator[Command]:
        session = self._session
        values = codec.read_fields(frame.body)
        head, state = session.responses.head, values.get("C", "")
        if values.get("V", values.get("S")) in ("FATAL", "PANIC"):
            session.fatal_passed = True
        session.failed = True
        if session.copying:
            session.copying, session.copy_failed = False, True
        if head is not None and head.own is not None and not session.fatal_passed:
            head.own.error = frame
            for _ in session.responses.skip_to_sync():
                pass
            session.skipping = session.skipping or not session.responses.queue
            return
        if head is not None:
            yield from self._earlier(head)
            head.failed = True
        data = self._passed(frame)
        match head:
            case None | Expected(kind=Kind.SYNC):
                pass
            case Expected(kind=Kind.QUERY):
                yield from self._failed(head, state)
            case _:
                yield from self._skip(head, state)
        if head is not None:
            data = _instead(head, data, fatal=session.fatal_passed)
        if head is None or not head.muted or session.fatal_passed:
            yield from self.to_client(data)

    def _skip(self, head: Expected, state: str) -> Iterator[Note]:
        """Forget what the upstream skips: the rest of the segment, sent or not."""
        session = self._session
        if head.kind is Kind.PARSE and head.change is not None and head.change.name == "":
            # A Parse without a name drops its predecessor before it looks at the text.
            session.prepared.known.pop("", None)
        yield from self._failed(head, state)
        for skipped in session.responses.skip_to_sync():
            yield from session.abandon(skipped)
        session.skipping = session.skipping or not session.responses.queue

    def _failed(self, head: Expected, state: str) -> Iterator[Note]:
        session = self._session
        if head.portal is not None:
            head.portal.statements = ()
        for running in head.statements:
            session.forget(running)
            # Its client may have sent the data already.
            session.copy_failed = session.copy_failed or (running.control is Control.COPY_IN and not head.given)
        yield from session.finish(head, "failed", None, head.problem.sqlstate if head.problem else state)
        yield from session.abandon(head)

    def _passed(self, frame: Frame) -> bytes:
        head = self._session.responses.head
        inspection = head.ruling.inspection if head is not None and head.ruling is not None else None
        scrub = self._session.withholds(frame.body) or (inspection is not None and inspection.scrub)
        edits: tuple[tuple[int, int, int], ...] | None = None
        if head is not None and head.ruling is not None and head.kind in _WITH_POSITION:
            same = head.ruling.inspection.rewritten == head.ruling.sql
            edits = whole_run(head.ruling.sql) if same else head.ruling.inspection.edits
        return passed_problem(bytes((frame.type,)), frame.body, edits, scrub=scrub)


def _instead(head: Expected, data: bytes, *, fatal: bool) -> bytes:
    """Return what the client is told of an error: our own words where we had it fail."""
    return head.problem.encoded() if head.problem is not None and not fatal else data
