"""The way to the upstream: what each client message goes through before it, or what stands in its place, is sent."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import Any

from broker.protocols.postgres import bounding, codec, records
from broker.protocols.postgres.clearance import clear
from broker.protocols.postgres.codec import Frame, Malformed, NoRoom, Overwhelmed, ProtocolViolation
from broker.protocols.postgres.events import Command, Drain, Gate, Record, ToClient, ToUpstream
from broker.protocols.postgres.holding import Cleared, afresh, narrowest, still_approved
from broker.protocols.postgres.pathway import elsewhere
from broker.protocols.postgres.plan import Plan, Planner, Planning, found_in, stale
from broker.protocols.postgres.registry import Change, Cursor, Portal, Prepared, Registry, own_types
from broker.protocols.postgres.replies import Problem, denial, no_portal, no_statement, too_far
from broker.protocols.postgres.responses import Expected, Kind
from broker.protocols.postgres.ruling import Denied
from broker.protocols.postgres.settings import current
from broker.protocols.postgres.shared import Session
from broker.sessions.holds import Asked
from broker.sessions.model import Durability
from broker.sql.model import Control

_COPY = frozenset(b"dcf")
_CALLED = "functions are not called by number here, as drivers do for large objects: call them in a statement"
_LATE = 64
"""Syncs amid the data of a COPY that are answered where it fails: they are all looked at in one go then."""
_DESCRIBED = {"S": Kind.DESCRIBE_STATEMENT, "P": Kind.DESCRIBE_PORTAL}

Steps = Generator[Command, Any, None]


class FrontPath:
    """Makes a gate for each message; only one of them is open at a time."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._simple = False

    def gate(self, frame: Frame) -> Gate:
        """Return the gate that a message goes through."""
        session = self._session
        self._simple = frame.type == ord("Q")
        if frame.lost and (session.copying or frame.type not in b"QPB"):
            # What is missing cannot be told apart from what was never sent (fail closed).
            raise Overwhelmed(NoRoom(frame.lost).message)
        if session.copying:
            return self._during_copy(frame)
        if frame.type in _COPY and session.copy_failed:
            return _nothing()
        if frame.type in _COPY and not session.copy_settled:
            return self._before_copy(frame)
        session.copy_lost, session.copy_failed = session.copy_lost or session.copy_failed, False
        if session.skipping and frame.type != ord("S"):
            return _nothing()
        if frame.lost:
            return self.malformed(NoRoom(frame.lost))
        match chr(frame.type):
            case "Q":
                return self._query(frame)
            case "P":
                return self._parse(frame)
            case "B":
                return self._bind(frame)
            case "D":
                return self._describe(frame)
            case "E":
                return self._execute(frame)
            case "C":
                return self._close(frame)
            case "S":
                return self._sync(frame)
            case "H":
                session.touched = session.touched or bool(session.deferred)
                return _just(ToUpstream(frame.whole()))
            case "F":
                raise ProtocolViolation(_CALLED)
            case "d" | "c" | "f" if session.copy_lost or (session.copied and frame.type == ord("f")):
                return _nothing()
            case kind:
                raise ProtocolViolation(f"message `{kind}` does not belong here")

    def malformed(self, error: Malformed) -> Gate:
        """Return what answers a message that does not read."""
        return self._refuse(Problem(error.sqlstate, error.message))

    def _query(self, frame: Frame) -> Gate:
        session = self._session
        sql = codec.read_query(frame.body).sql
        if not (yield from self._reached()):
            return
        if session.ledger.allowed and not session.block and not (yield from self._may_end()):
            # The Query would have committed what its segment did: that has failed, and the segment ends here.
            yield from self._sync(Frame(ord("S"), b""))
            return
        plan = yield from self._planned(self._planner().text(sql))
        if isinstance(plan, Denied):
            yield from self._deny(plan, sql)
            return
        cleared = yield from self._cleared(plan, Asked(sql, path=session.way.path), lambda: self._planner().text(sql))
        if cleared is None:
            return
        plan, ids = cleared.plan, cleared.ids
        yield from bounding.settled(session, plan, wrapping=cleared.most is not None)
        expected = Expected(Kind.QUERY, session.segment, plan.ruling, since=session.now)
        expected.statements.extend(plan.running(ids))
        expected.joined = session.touched and not session.block
        if session.skipping:
            yield from session.abandon(expected)
            return
        data = frame.whole() if plan.rewritten == sql else codec.query(plan.rewritten)
        session.tell(expected, plan.compared)
        # A simple query drops the unnamed statement and portal, whatever becomes of it.
        expected.change = session.prepared.expect(Change(session.segment, "", None))
        expected.portal_change = session.portals.expect(Change(session.segment, "", None))
        if bounding.watched(session, plan, cleared.most):
            yield from bounding.query(session, expected, data, cleared.most, cleared.recheck)
            return
        session.expect(expected)
        session.responses.push(expected)
        session.end_segment(joined=expected.joined)
        yield ToUpstream(data)

    def _reached(self) -> Generator[Command, Any, bool]:
        """Say whether the server would look at a Query in the middle of a segment: behind an error it skips it."""
        session = self._session
        if session.touched or session.deferred:
            session.touched = True
            yield ToUpstream(codec.FLUSH)
            while session.responses.queue and not session.skipping:
                yield Drain(everything=True)
        return not session.skipping

    def _parse(self, frame: Frame) -> Gate:
        session = self._session
        message = codec.read_parse(frame.body)
        if session.prepared.full:
            yield from self._refuse(Problem("53400", "too many prepared statements in this session"))
            return
        own = own_types(message.types)
        plan = yield from self._planner().text(message.sql, own)
        if isinstance(plan, Denied):
            yield from self._deny(plan, message.sql)
            return
        under = (yield from current(session)) if plan.ruling.consults else None
        prepared = Prepared(plan.parsed, message.types, own, session.keep_texts(plan.parsed), under)
        change = Change(session.segment, message.name, prepared)
        expected = Expected(Kind.PARSE, session.segment, plan.ruling, change=session.prepared.expect(change))
        same = plan.rewritten == message.sql
        data = frame.whole() if same else codec.parse(message.name, plan.rewritten, message.types)
        yield from self._forward(expected, data, later=plan.ruling.asking is not None)

    def _bind(self, frame: Frame) -> Gate:
        session = self._session
        message = codec.read_bind(frame.body)
        prepared = yield from found_in(session.prepared, message.statement, session.segment)
        if prepared is None:
            yield from self._refuse(no_statement(message.statement))
            return
        if session.portals.full:
            yield from self._refuse(Problem("53400", "too many portals in this session"))
            return
        plan = yield from self._planner().again(prepared)
        if isinstance(plan, Denied):
            yield from self._deny(plan, prepared.sql)
            return
        asked = Asked(prepared.sql, (), message.values, message.formats, prepared.types, message.results)
        asked = replace(asked, path=session.way.path)
        portal = Portal(prepared, asked, records.parameters(message.formats, message.values), path=session.way.path)
        portal.room = frame.room or session.keep(len(frame.body))
        if message.portal or plan.ruling.consults:
            if message.portal and any(statement.control is Control.EXECUTE for statement in plan.statements):
                yield from self._refuse(Problem("0A000", "EXECUTE cannot be bound to a named portal here"))
                return
            # SQL can FETCH from a named portal, so it counts as executed from here on; a review sees the parameters.
            cleared = yield from self._cleared(plan, asked, lambda: self._planner().again(prepared), portal)
            if cleared is None:
                return
            plan = cleared.plan
        portal.since = session.now
        if session.skipping:
            yield from session.finish_portal(portal)
        change = session.portals.expect(Change(session.segment, message.portal, portal))
        yield from self._forward(Expected(Kind.BIND, session.segment, plan.ruling, portal_change=change), frame.whole())

    def _describe(self, frame: Frame) -> Gate:
        session = self._session
        message = codec.read_named(frame.body)
        registry: Registry[Any] = session.prepared if message.kind == "S" else session.portals
        found: Prepared | Portal | Cursor | None = yield from found_in(registry, message.name, session.segment)
        if found is None:
            missing = no_statement if message.kind == "S" else no_portal
            yield from self._refuse(missing(message.name))
            return
        one = found.prepared if isinstance(found, Portal) else found
        if isinstance(one, Prepared) and (session.way.unsure or one.ruling.inspection.path != session.way.path):
            # Upstream its names are looked up anew, under the path that there is now.
            plan = yield from self._planner().again(one)
            if isinstance(plan, Denied):
                yield from self._deny(plan, one.sql)
                return
        session.watch(one.ruling.inspection.tripwire)
        prepared = one if isinstance(one, Prepared) else None
        expected = Expected(_DESCRIBED[message.kind], session.segment, one.ruling, prepared=prepared)
        # A cursor is there already, and with it whatever locks it has.
        later = prepared is not None and prepared.ruling.asking is not None
        yield from self._forward(expected, frame.whole(), later=later)

    def _execute(self, frame: Frame) -> Gate:
        session = self._session
        message = codec.read_execute(frame.body)
        portal = yield from found_in(session.portals, message.portal, session.segment)
        if isinstance(portal, Cursor):
            yield from self._refuse(Problem("0A000", "what DECLARE made is not executed here", hint="use FETCH"))
            return
        if portal is None:
            yield from self._refuse(no_portal(message.portal))
            return
        plan = yield from self._planned(afresh(session, portal, self._planner().again(portal.prepared)))
        if isinstance(plan, Denied):
            yield from self._deny(plan, portal.prepared.sql)
            return
        if portal.path != session.way.path:
            yield from self._deny(elsewhere, portal.prepared.sql)
            return
        approved = yield from still_approved(session, portal, plan)
        if not approved or not portal.statements:
            yield from session.finish_portal(portal)
            prepared = portal.prepared
            cleared = yield from self._cleared(plan, portal.asked, lambda: self._planner().again(prepared), portal)
            if cleared is None:
                return
            plan = cleared.plan
            portal.since = session.now
        else:
            portal.again = True
        yield from bounding.settled(session, plan)
        if plan.statements and not portal.statements:
            # It ended while this waited: by an error, behind which the server skips this, or with its transaction.
            yield from self._refuse(no_portal(message.portal))
            return
        expected = Expected(Kind.EXECUTE, session.segment, plan.ruling, portal=portal, since=portal.since)
        expected.statements.extend(plan.running(portal.statements))
        session.tell(expected, plan.compared)
        session.expect(expected)
        if session.skipping:
            portal.statements = ()
        if not session.skipping and bounding.watched(session, plan, most := narrowest(portal.most, plan)):
            yield from bounding.execute(session, expected, frame.whole(), most, portal.recheck)
            return
        yield from self._forward(expected, frame.whole())

    def _close(self, frame: Frame) -> Gate:
        session = self._session
        message = codec.read_named(frame.body)
        expected = Expected(Kind.CLOSE, session.segment)
        if message.kind == "S":
            expected.change = session.prepared.expect(Change(session.segment, message.name, None))
        else:
            known = session.portals.known.get(message.name)
            expected.portal = known if isinstance(known, Portal) else None
            expected.portal_change = session.portals.expect(Change(session.segment, message.name, None))
        yield from self._forward(expected, frame.whole())

    def _sync(self, frame: Frame) -> Gate:
        session = self._session
        if session.ledger.allowed and not session.block:
            yield from self._may_end()
        session.skipping = False
        session.responses.push(Expected(Kind.SYNC, session.segment))
        session.end_segment()
        yield ToUpstream(frame.whole())

    def _before_copy(self, frame: Frame) -> Gate:
        """Keep the data of a client that does not wait to be asked for it (asyncpg) until the upstream asks."""
        yield Drain(copy=True)
        if self._session.copying:
            yield from self._during_copy(frame)

    def _during_copy(self, frame: Frame) -> Gate:
        """Pass copy data as far as it may go; a server that reads it ignores Flush and Sync, so those stay here."""
        session = self._session
        copying, head = session.responses.copying, session.responses.head
        session.fed = session.fed or frame.type == ord("d")
        if frame.type == ord("d") and copying is not None and not copying.take_in(frame.body):
            # A server that is told that a COPY has failed keeps none of it.
            if head is not None:
                head.problem = too_far(copying)
            session.copying, session.copy_failed = False, True
            yield ToUpstream(codec.copy_fail("over the limit"))
        elif frame.type in _COPY:
            if frame.type != ord("d"):
                session.copying, session.late, session.copied = False, 0, True
                if head is not None:
                    head.given = True
            # Who waits for the count of what is copied does so before any Sync has the server say that it is done.
            counts = frame.type == ord("c") and head is not None and head.withheld is not None
            yield ToUpstream(frame.whole() + (codec.FLUSH if counts else b""))
        elif frame.type == ord("S"):
            session.late = min(session.late + session.fed, _LATE)
        elif frame.type != ord("H"):
            raise ProtocolViolation(f"message `{chr(frame.type)}` in the middle of a COPY")

    def _forward(self, expected: Expected, data: bytes, *, later: bool = False) -> Iterator[Command]:
        """Send what an answer is expected to; what only prepares a segment may be put off until more of it comes."""
        session = self._session
        if session.skipping:
            # An error came while this one waited: the server would skip it.
            yield from session.abandon(expected)
            return
        session.responses.push(expected)
        if later and not session.touched:
            session.deferred.append(data)
            return
        session.touched = True
        yield ToUpstream(data)

    def _may_end(self) -> Generator[Command, Any, bool]:
        """Check what deferred triggers do before a transaction that nobody began ends; say whether it may."""
        session = self._session
        problem = None if session.skipping else (yield from bounding.before_end(session))
        if problem is not None:
            self._simple = False
            yield from self._refuse(problem)
        return not session.skipping

    def _planned(self, planning: Planning) -> Planning:
        """Refuse what could not be watched as it was sent."""
        plan = yield from planning
        if isinstance(plan, Plan) and (denied := bounding.unfit(self._session, plan, simple=self._simple)) is not None:
            return denied
        return plan

    def _planner(self) -> Planner:
        return Planner(self._session)

    def _cleared(
        self, plan: Plan, asked: Asked, again: Callable[[], Planning], portal: Portal | None = None
    ) -> Generator[Command, Any, Cleared | None]:
        """Have a plan cleared; None where it may not run, which the client knows."""
        cleared = yield from clear(self._session, plan, asked, again, portal)
        match cleared:
            case Denied():
                yield from self._deny(cleared, asked.sql)
            case Problem():
                self._expect_data(any(one.control is Control.COPY_IN for one in plan.statements))
                yield from self._refuse(cleared)
            case Cleared():
                return cleared
        return None

    def _deny(self, ruling: Denied, sql: str) -> Steps:
        session = self._session
        if session.skipping:
            return
        self._expect_data(ruling.verb == "COPY")
        if ruling is not stale:
            yield Record((records.denied(session.facts, session.ids(), ruling, sql),), Durability.SYNCED)
        problem = denial(ruling.sqlstate, ruling.message, ruling.rules, ruling.hint, ruling.position)
        yield from self._refuse(replace(problem, routine=ruling.routine))

    def _expect_data(self, copies: bool) -> None:
        """Take note where what is refused is a COPY: its client may have sent the data already."""
        self._session.copy_failed = self._session.copy_failed or copies

    def _refuse(self, problem: Problem) -> Steps:
        """Answer with an error, in place and in order, so that both sides agree on the transaction.

        Where something is open or outstanding upstream, an Execute of a portal that cannot exist fails there instead,
        and its error is replaced by ours: no SQL is run, and what came before in the segment rolls back.
        """
        session = self._session
        if session.skipping:
            return
        if session.clean:
            if self._simple:
                session.prepared.known.pop("", None)
            session.skipping = not self._simple
            yield ToClient(problem.encoded() + (codec.ready_for_query("I") if self._simple else b""))
            return
        poison = Expected(Kind.POISON, session.segment, problem=problem)
        yield from self._forward(poison, codec.execute(session.nonce))
        if self._simple:
            # As upstream, whatever becomes of it.
            change = session.prepared.expect(Change(session.segment, "", None))
            session.responses.push(Expected(Kind.SYNC, session.segment, change=change))
            session.end_segment()
            yield ToUpstream(codec.SYNC)
        else:
            session.skipping = True


def _nothing() -> Gate:
    yield from ()


def _just(command: Command) -> Gate:
    yield command
