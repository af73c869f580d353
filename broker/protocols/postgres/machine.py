"""The session machine, sans-io: events in, commands out; it never waits, so a hold is an answer that comes late.

Each client message goes through a gate: inspect, decide, record, forward. A gate is a generator that yields commands;
on one that needs an answer (Inspect, Record) the machine keeps it, leaves later messages in the scanner, and resumes
it with the answer. One message is in the gate at a time, so order is kept; the upstream's answers flow meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from broker.protocols.postgres.backpath import BackPath
from broker.protocols.postgres.booking import Booking
from broker.protocols.postgres.codec import Frame, Malformed, Overwhelmed, ProtocolViolation
from broker.protocols.postgres.events import (
    CancelAsked,
    Cancelled,
    ClientGone,
    Close,
    Command,
    Drain,
    Ended,
    Event,
    FromClient,
    FromUpstream,
    Gate,
    Hold,
    HoldAnswered,
    HoldOpened,
    HoldUsed,
    HoldWaited,
    Inspect,
    Match,
    Matched,
    PauseClient,
    Record,
    Recorded,
    RecordingLost,
    ResumeClient,
    Ruled,
    Settle,
    Synced,
    ToClient,
    ToUpstream,
    UpstreamGone,
    Use,
    Weigh,
)
from broker.protocols.postgres.express import ExpressLane
from broker.protocols.postgres.fares import Ride
from broker.protocols.postgres.frontpath import FrontPath
from broker.protocols.postgres.memory import Memory, Share
from broker.protocols.postgres.rationing import Rations
from broker.protocols.postgres.replies import Problem, notice
from broker.protocols.postgres.ruling import Permitted, Ruling
from broker.protocols.postgres.scanning import FrontendScanner
from broker.protocols.postgres.shared import Pathway, Session
from broker.protocols.postgres.states import LEGAL, EventIllegal, State
from broker.sessions.holds import Released
from broker.sessions.model import CloseReason, Durability, Entry, SessionFacts
from broker.sql.model import SearchPath
from workflows.words import series

if TYPE_CHECKING:
    from broker.protocols.postgres.scribe import Scribe

MAX_QUEUED = 1024 * 1024
"""Bytes of later messages that wait behind a gate before the client is no longer read."""


RECORDING_FAILED = Problem(
    "58030", "this session cannot be recorded any more, so it ends", hint="ask an operator of the broker", fatal=True
)


class Machine:
    """One session, from the moment both sides are ready. `ids` makes statement ids; `nonce` is secret and random.

    `known` gives what Inspect would be answered with at this moment, or None where that takes longer than a look.
    `path` is the search path that is pinned, `home` the one that the session begins with, where that is another.
    `longest` is how many milliseconds its client may have a timeout last, `own_settings` what it began with of those.
    """

    def __init__(
        self,
        facts: SessionFacts,
        ids: Callable[[], str],
        nonce: str,
        access_hint: str = "",
        known: Callable[[str], Ruling | None] = lambda _: None,
        rations: Rations | None = None,
        memory: Memory | None = None,
        clear: Callable[[], bool] = lambda: True,
        path: SearchPath = ("public",),
        home: SearchPath | None = None,
        longest: int = 0,
        own_settings: frozenset[str] = frozenset(),
    ) -> None:
        self.state = State.OPEN
        share = Share(memory or Memory())
        self._session = Session(facts, ids, nonce, access_hint, rations or Rations(), share, clear)
        self._session.way, self._session.longest = Pathway(path, home, home), longest
        self._session.own_settings |= own_settings
        self._known = known
        self._scanner = FrontendScanner(share)
        self._front = FrontPath(self._session)
        self._back = BackPath(self._session)
        self.express = ExpressLane(self._session, self._back, self._known_now)
        self._gate: Gate | None = None
        self._draining = Drain()
        self._token = 0
        self._tokens = 0
        self._client_paused = False
        self._hold: Hold | None = None
        self._untold = b""

    def handle(self, event: Event) -> Iterator[Command]:
        """Take an event and yield what is to be done, to its end before the next event; an illegal one raises."""
        if type(event) not in LEGAL[self.state]:
            raise EventIllegal(f"{type(event).__name__} while {self.state.value}")
        if self.state is State.CLOSED:
            return
        self._session.now = event.at
        if self.express.ride is not None and not isinstance(event, Synced):
            self.express.unfold()
        try:
            yield from self._handle(event)
        except Overwhelmed as error:
            yield from self._end(CloseReason.PROTOCOL, Problem("53200", str(error), fatal=True))
        except ProtocolViolation as violation:
            yield from self._end(
                CloseReason.UPSTREAM if isinstance(event, FromUpstream) else CloseReason.PROTOCOL,
                Problem("08P01", f"protocol violation: {violation}", fatal=True),
            )

    @property
    def _sure(self) -> bool:
        """Whether it is known what names mean."""
        return not (self._session.way.unsure or self._session.way.lost)

    def _known_now(self, sql: str) -> Ruling | None:
        """Return what is known of a text while it is sure what its names mean."""
        return self._known(sql) if self._sure else None

    def booking(self, alike: Callable[[str, str], Permitted | None], scribe: Scribe) -> Booking:
        """Return what the compiled core's lane asks."""
        return Booking(self._session, self.express, self._quiet, alike, scribe, self._withhold)

    def _withhold(self, data: bytes) -> int:
        """Have what comes for the client wait for a record, from this on; returns the token of its Synced."""
        self._tokens += 1
        self._back.recording(self._tokens, Durability.RESULTS_WAIT)
        if data:
            self._back.withhold(data)
        return self._tokens

    @property
    def _between(self) -> bool:
        """Whether nothing of the client's waits, and what comes may be looked at."""
        return self.state is State.OPEN and not self._scanner.buffered and not self._client_paused

    def _quiet(self) -> bool:
        """Say whether nothing of the session is under way, so that whatever comes first may board."""
        free = self.express.ride is None and not self._back.holding
        return free and self._between and self._sure and self.express.quiet

    def board(self, data: bytes, at: float) -> tuple[Ride, int] | None:
        """Take a client's chunk at once where it is a known exchange; else it is for `handle`, and nothing is changed.

        What is returned is to be recorded under the token, as for Record, and then sent.
        """
        if not self._between:
            return None
        self._session.now = at
        ride = self.express.board(data)
        if ride is None:
            return None
        self._tokens += 1
        self._back.recording(self._tokens, ride.ruling.durability)
        return ride, self._tokens

    def land(self, data: bytes, at: float) -> tuple[Entry, list[Command]] | None:
        """Take an upstream's chunk at once where it is the whole answer to what boarded; else it is for `handle`.

        What is returned is to be noted, and then done.
        """
        if self.state is not State.OPEN or self.express.ride is None:
            return None
        self._session.now = at
        entry = self.express.land(data)
        return None if entry is None else (entry, list(self._back.to_client(data)))

    def _handle(self, event: Event) -> Iterator[Command]:
        match event:
            case FromClient(data=data):
                self._scanner.feed(data)
                if self.state is State.HELD and self._scanner.leaving:
                    # Nobody waits for the answer any more, though the connection may stay.
                    yield from self._end(CloseReason.CLIENT, None)
                    return
                yield from self._advance()
            case FromUpstream(data=data):
                yield from self._from_upstream(data)
            case Ruled(token=token, ruling=ruling):
                if token == self._token:
                    yield from self._resume(ruling)
            case Recorded(token=token):
                if token == self._token:
                    yield from self._resume(None)
            case HoldUsed(token=token, good=good):
                if token == self._token:
                    yield from self._resume(good)
            case Matched(token=token, rule=rule):
                if token == self._token:
                    yield from self._resume(rule)
            case HoldOpened() | HoldWaited() | HoldAnswered() | CancelAsked():
                if self.state is State.HELD:
                    yield from self._held(event)
            case Cancelled():
                self._session.cancelling = False
                yield from self._advance()
            case Synced(token=token):
                yield from self._back.synced(token)
            case RecordingLost():
                yield from self._end(CloseReason.RECORDING, RECORDING_FAILED)
            case Ended(reason=reason, problem=problem):
                yield from self._end(reason, problem)
            case ClientGone():
                yield from self._end(CloseReason.CLIENT, None)
            case UpstreamGone():
                yield from self._upstream_gone()

    def _advance(self) -> Iterator[Command]:
        """Let the messages that wait into the gate, one by one, until one has to wait there."""
        session = self._session
        while self.state is State.OPEN and not session.cancelling and (frame := self._next()) is not None:
            if frame.type == ord("X"):
                yield from self._end(CloseReason.CLIENT, None)
                return
            yield from self._run(self._front.gate(frame), None, first=True)
        yield from self._copy()
        if self.state is not State.CLOSED:
            yield from self._throttle()

    def _next(self) -> Frame | None:
        """Return the next message: first the Syncs that a failed COPY leaves to be answered."""
        session = self._session
        if session.late and not session.copying:
            session.late -= 1
            return Frame(ord("S"), b"")
        return self._scanner.next()

    @property
    def _drained(self) -> bool:
        session, draining = self._session, self._draining
        if draining.copy:
            return session.copy_settled
        return not session.responses.queue if draining.everything else session.drained

    @property
    def _copies(self) -> bool:
        # Where the gate itself has the first of the data, the rest comes behind it.
        return self.state is State.DRAINING and self._session.copying and not self._draining.copy

    def _copy(self) -> Iterator[Command]:
        """Pass copy data of a change whose gate waits for its end."""
        while self._copies and (frame := self._scanner.next()) is not None:
            if frame.type == ord("X"):
                yield from self._end(CloseReason.CLIENT, None)
                return
            yield from self._front.gate(frame)

    def _throttle(self) -> Iterator[Command]:
        waits = self.state is not State.OPEN or self._session.cancelling
        full = waits and self._scanner.buffered > MAX_QUEUED
        if full and not self._client_paused:
            self._client_paused = True
            yield PauseClient()
        elif self._client_paused and not full:
            self._client_paused = False
            yield ResumeClient()

    def _run(self, gate: Gate, answer: object, *, first: bool = False) -> Iterator[Command]:
        self.state, self._gate = State.OPEN, None
        while True:
            try:
                command = next(gate) if first else gate.send(answer)
            except StopIteration:
                return
            except Malformed as malformed:
                gate = self._front.malformed(malformed)
                first, answer = True, None
                continue
            first, answer = False, None
            match command:
                case Drain():
                    self._draining = command
                    if self._drained:
                        continue
                    self.state, self._gate = State.DRAINING, gate
                    return
                case Settle():
                    yield from self._back.settle(command)
                case Hold(facts=about) if about.waits and self._scanner.leaving:
                    yield from self._end(CloseReason.CLIENT, None)
                    return
                case Inspect() | Record() | Weigh() | Hold() | Use() | Match():
                    self._tokens += 1
                    self.state, self._gate, self._token = State.GATED, gate, self._tokens
                    if isinstance(command, Record):
                        self._back.recording(self._tokens, command.durability)
                    if isinstance(command, Hold):
                        self.state, self._hold = State.HELD, command
                    yield command.with_token(self._tokens)
                    return
                case ToUpstream():
                    yield from self._send(command)
                case ToClient(data=data):
                    yield from self._back.to_client(data)
                case Close(reason=reason):
                    yield from self._end(reason, None)
                    return
                case _:
                    yield command

    def _send(self, command: ToUpstream) -> Iterator[Command]:
        """Send behind what was put off."""
        session = self._session
        if session.deferred:
            put_off, session.deferred = b"".join(session.deferred), []
            yield ToUpstream(put_off)
        yield command

    def _held(self, event: HoldOpened | HoldWaited | HoldAnswered | CancelAsked) -> Iterator[Command]:
        match event:
            case CancelAsked():
                yield from self._resume(None)
            case HoldAnswered(token=token, answer=answer):
                if token == self._token:
                    if isinstance(answer, Released) and answer.by:
                        self._untold = notice(f"approved by {series(answer.by)}")
                        yield from self._tell()
                    yield from self._resume(answer)
            case HoldOpened(token=token, seconds=seconds):
                if token == self._token and self._hold is not None:
                    yield from self._wait_for(f"{self._hold.notice}, up to {_left(seconds)}")
            case HoldWaited(token=token, seconds=seconds):
                if token == self._token and self._hold is not None:
                    yield from self._wait_for(f"still {self._hold.notice}, {_left(seconds)} left")

    def _wait_for(self, whom: str) -> Iterator[Command]:
        self._untold = notice(f"{whom}; Ctrl-C gives up")
        yield from self._tell()

    def _tell(self) -> Iterator[Command]:
        """Say whom the client waits for, unless it is in the middle of another message."""
        if self._untold and not self._back.amid:
            told, self._untold = self._untold, b""
            yield from self._back.to_client(told)

    def _resume(self, answer: object) -> Iterator[Command]:
        gate = self._gate
        if gate is None:
            return
        self._untold = b""
        yield from self._run(gate, answer)
        yield from self._advance()

    def _from_upstream(self, data: bytes) -> Iterator[Command]:
        for command in self._back.handle(data):
            if isinstance(command, Close):
                yield from self._end(command.reason, command.problem)
                return
            yield command
        yield from self._copy()
        yield from self._tell()
        if self.state is State.DRAINING and self._drained:
            yield from self._resume(None)
        elif self._session.late and self.state is State.OPEN:
            yield from self._advance()

    def _upstream_gone(self) -> Iterator[Command]:
        resource = self._session.facts.grant.resource
        problem = Problem("08006", f"{resource} closed the connection", hint="connect again", fatal=True)
        yield from self._end(CloseReason.UPSTREAM, None if self._session.fatal_passed else problem)

    def _end(self, reason: CloseReason, problem: Problem | None) -> Iterator[Command]:
        self.state, self._gate = State.CLOSED, None
        yield from self._back.cut()
        # In the middle of a row the client could not read an error; it sees the connection end.
        if problem is not None and not self._back.amid:
            yield ToClient(problem.encoded())
        yield Close(reason, problem)


def _left(seconds: float) -> str:
    """Write the time that is left as people read it; to the second, so that what is said again is not the same."""
    minutes, rest = divmod(max(1, round(seconds)), 60)
    return " ".join([*([f"{minutes}m"] if minutes else []), *([f"{rest}s"] if rest else [])])
