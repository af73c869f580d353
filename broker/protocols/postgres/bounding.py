"""Row bounds: what a change really touched is counted before it may be committed, and too much is rolled back.

The upstream counts for each table what a transaction inserts, updates and deletes, also in triggers, cascades and
partitions; the broker reads the counters before and after the change, in the same transaction. Where the client has
opened none, the broker wraps the change in one:

```
client      broker                                         upstream
  Query ->  own: BEGIN, count                          ->
            the change                                 ->
        <-  its rows and notices                       <-  its CommandComplete stays here
            own: SET CONSTRAINTS ALL IMMEDIATE, count  ->  deferred triggers have run now
            own: COMMIT, or ROLLBACK above the bound   ->
        <-  CommandComplete, or an error with both counts; ReadyForQuery
```

In the extended protocol, and inside the client's own transaction, no BEGIN is needed: the count is checked when the
change is complete, and what deferred triggers do is checked before Sync or COMMIT ends the transaction, or where SET
CONSTRAINTS has them run.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from broker.protocols.postgres import codec, records
from broker.protocols.postgres.codec import Frame
from broker.protocols.postgres.events import Command, Drain, Note, Settle, ToClient, ToUpstream
from broker.protocols.postgres.owning import Told, ask_own, fail_own
from broker.protocols.postgres.plan import Plan
from broker.protocols.postgres.replies import Problem, Recheck, denial, no_portal, passed_problem
from broker.protocols.postgres.responses import Expected
from broker.protocols.postgres.ruling import Denied, shown_text
from broker.protocols.postgres.shared import Session
from broker.sql.model import Control

COUNT = """select pg_catalog.current_setting('track_counts'),
 (select pg_catalog.sum(n_tup_ins operator(pg_catalog.+) n_tup_upd operator(pg_catalog.+) n_tup_del)
  from pg_catalog.pg_stat_xact_user_tables),
 (select pg_catalog.string_agg(pg_catalog.concat(l.relation, '.', c.relfilenode), ' ')
  from pg_catalog.pg_locks l left join pg_catalog.pg_class c on c.oid operator(pg_catalog.=) l.relation
  where l.pid operator(pg_catalog.=) pg_catalog.pg_backend_pid()
  and l.locktype operator(pg_catalog.=) 'relation' and l.mode operator(pg_catalog.=) 'AccessExclusiveLock'
  and (c.oid is null or c.relkind operator(pg_catalog.=) any (array['r', 'p']::pg_catalog."char"[])
       and c.relpersistence operator(pg_catalog.<>) 't')),
 (select pg_catalog.max(oid) from pg_catalog.pg_class),
 (select pg_catalog.count(*)
  from pg_catalog.pg_locks l join pg_catalog.pg_class c on c.oid operator(pg_catalog.=) l.relation
  where l.pid operator(pg_catalog.=) pg_catalog.pg_backend_pid() and c.relkind operator(pg_catalog.=) 'f'
  and l.locktype operator(pg_catalog.=) 'relation'
  and l.mode operator(pg_catalog.<>) all (array['AccessShareLock', 'RowShareLock']))"""
"""Whether the upstream counts at all, the rows touched so far, the tables that were truncated, altered or dropped, the
newest that there is, and how many foreign tables were changed, whose rows nobody counts.

Counters go on from earlier transactions, so only differences mean something. TRUNCATE, which a trigger may run, sets
them back; its lock shows it, or its new file where the lock was there before. What is dropped has no file.
"""
_BEGIN, _COMMIT, _ROLLBACK = "begin", "commit", "rollback"
_IMMEDIATE = "set constraints all immediate"
OWN = (_BEGIN, COUNT, _IMMEDIATE, _COMMIT, _ROLLBACK)
"""Every text of the broker's own that may be run for a bounded change."""
_ENDS = frozenset(
    {
        Control.BEGIN,
        Control.COMMIT,
        Control.ROLLBACK,
        Control.SAVEPOINT,
        Control.RELEASE,
        Control.ROLLBACK_TO,
    }
)
_EMPTIED = "TRUNCATE"
_COMPLETES = frozenset({Control.COMMIT, Control.CONSTRAINTS})
"""What runs deferred triggers."""
_CHANGED = ("INSERT", "UPDATE", "DELETE", "MERGE", "COPY")
_TRIES = 20

Steps = Generator[Command, Any, None]
Wrong = Problem | Frame
"""Why something does not go on: in our words, or in the upstream's."""


@dataclass(frozen=True, slots=True)
class _Count:
    rows: int
    locks: frozenset[bytes]
    """Tables that nobody else may use now, each with its file."""
    newest: int
    foreign: int
    """Foreign tables that were changed."""


def unfit(session: Session, plan: Plan, *, simple: bool) -> Denied | None:
    """Say why a text cannot be watched as it was sent (fail closed)."""
    controls = {statement.control for statement in plan.statements}
    why: tuple[str, str] | None = None
    if plan.ruling.bound is not None and controls & _ENDS:
        why = "a change with a row bound is not sent in one message with BEGIN or COMMIT", "send them one by one"
    elif plan.ruling.bound is not None and simple and session.touched and not session.block:
        why = "a change with a row bound is not sent by Query while other messages wait for Sync", "send Sync first"
    elif plan.ruling.bound is not None and not simple and any(one.facts.verb == "DO" for one in plan.statements):
        # It may commit by itself, where no BEGIN stands before it.
        why = "a DO with a row bound is not prepared", "send it by Query"
    elif session.ledger.allowed and Control.COMMIT in controls and len(plan.statements) > 1:
        why = "what commits a change with a row bound is sent by itself", "send COMMIT by itself"
    elif session.ledger.allowed and Control.CONSTRAINTS in controls and len(plan.statements) > 1:
        why = "what completes a change with a row bound is sent by itself", "send SET CONSTRAINTS by itself"
    if why is None:
        return None
    verb = plan.statements[0].facts.verb
    return Denied("0A000", why[0], ("row-bound",), why[1], verb=verb, text=shown_text(plan.ruling.inspection))


def watched(session: Session, plan: Plan, most: int | None) -> bool:
    """Say whether a text is sent through here: a bounded change, or what would commit one, or has more come of it."""
    if most is not None:
        return True
    # COMMIT of what has failed rolls back by itself.
    open_changes = bool(session.ledger.allowed) and session.status != "E"
    return open_changes and any(one.control in _COMPLETES for one in plan.statements)


def settled(session: Session, plan: Plan, *, wrapping: bool = False) -> Steps:
    """Wait until it is known which transaction is open, where that says how a text is sent.

    A client need not wait for what its BEGIN, COMMIT or ROLLBACK TO is answered with before it sends the next. A change
    in the extended protocol is wrapped in nothing.
    """
    completes = any(one.control in _COMPLETES for one in plan.statements)
    if not (wrapping or (completes and session.ledger.allowed)) or not session.responses.queue:
        return
    if session.touched:
        yield ToUpstream(codec.FLUSH)
    while session.responses.queue:
        yield Drain(everything=True)


def query(session: Session, expected: Expected, data: bytes, most: int | None, recheck: Recheck | None) -> Steps:
    """Run a simple query that may touch so many rows, or one that commits or completes such changes.

    `recheck` says why it is not what was approved, once it has run.
    """
    later = most is None
    if most is None and (most := _left(session, expected)) is None:
        if (wrong := (yield from _deferred(session, sync=True))) is not None:
            yield from _failed(session, expected, wrong, sync=True, ended=True)
        else:
            yield from _let_through(session, expected, data)
        return
    wrapped, id_ = not session.block, expected.statements[0].id
    told = yield from ask_own(session, [*([_BEGIN] if wrapped else []), COUNT], sync=True)
    before = _read(told)
    if isinstance(before, _Count):
        expected.withheld = []
        session.bounded = expected
        yield from _let_through(session, expected, data)
        while session.responses.queue:
            yield Drain(everything=True)
        if expected.failed:
            if wrapped:
                yield from _rolled_back(session)
            yield Settle(expected, (_ready(session),))
            return
        wrong = yield from _checked(session, expected, id_, before, most, recheck, wrapped=wrapped, later=later)
    else:
        wrong = before or _uncountable()
    if wrong is not None:
        yield from _failed(session, expected, wrong, sync=True, ended=wrapped)
        return
    assert expected.withheld is not None
    yield Settle(expected, (*expected.withheld[:-1], _ready(session)))


def execute(session: Session, expected: Expected, data: bytes, most: int | None, recheck: Recheck | None) -> Steps:
    """Run a portal that may touch so many rows, or what commits or completes such changes; its segment stays open."""
    later = most is None
    if most is None and (most := _left(session, expected)) is None:
        wrong = yield from _deferred(session, sync=False)
        if wrong is not None:
            yield from _failed(session, expected, wrong, sync=False, ended=True)
        elif session.skipping:
            yield from _skipped(session, expected)
        else:
            session.responses.push(expected)
            yield ToUpstream(data)
        return
    before = _read((yield from ask_own(session, [COUNT], sync=False)))
    if before is None:
        yield from _skipped(session, expected)
        return
    if expected.portal is not None and not expected.portal.statements:
        # Its transaction has ended meanwhile, and with it the portal and what was recorded of it.
        for running in expected.statements:
            session.forget(running)
        expected.statements.clear()
        before = no_portal(codec.read_execute(data[5:]).portal)
    if isinstance(before, _Count):
        expected.withheld = []
        session.bounded = expected
        session.responses.push(expected)
        yield ToUpstream(data + codec.FLUSH)
        while session.responses.queue:
            yield Drain(everything=True)
        if expected.failed:
            session.bounded = None
            return
        id_ = expected.statements[0].id
        before = yield from _checked(session, expected, id_, before, most, recheck, wrapped=False, later=later)
    if before is not None:
        yield from _failed(session, expected, before, sync=False, ended=False)
        return
    assert expected.withheld is not None
    yield Settle(expected, tuple(expected.withheld))


def before_end(session: Session) -> Generator[Command, Any, Problem | None]:
    """Check what deferred triggers do before Sync ends a transaction that nobody began.

    A problem is the caller's to answer with; the upstream's own error is passed on here.
    """
    wrong = yield from _deferred(session, sync=False)
    session.ledger.clear()
    if isinstance(wrong, Problem) or wrong is None:
        return wrong
    yield ToClient(passed_problem(b"E", _without_position(wrong).body, None, scrub=session.withholds(wrong.body)))
    session.skipping = True
    return None


def _left(session: Session, expected: Expected) -> int | None:
    """Return how many rows the transaction's changes left over, for what runs their triggers; None for a COMMIT."""
    if any(one.control is Control.COMMIT for one in expected.statements):
        return None
    return max(0, session.ledger.most - session.ledger.total)


def _let_through(session: Session, expected: Expected, data: bytes) -> Steps:
    session.expect(expected)
    session.responses.push(expected)
    session.end_segment(joined=expected.joined)
    yield ToUpstream(data)


def _skipped(session: Session, expected: Expected) -> Steps:
    """Leave out what the upstream would skip, for something of its segment has failed."""
    if expected.portal is not None and not expected.portal.statements:
        # The Bind failed, and with it the portal: that is noted already.
        expected.statements.clear()
    yield from session.abandon(expected)
    if expected.portal is not None:
        expected.portal.statements = ()


def _checked(
    session: Session,
    expected: Expected,
    id_: str,
    before: _Count,
    most: int,
    recheck: Recheck | None,
    *,
    wrapped: bool,
    later: bool,
) -> Generator[Command, Any, Wrong | None]:
    """Count what a change that is complete has touched; where it is wrapped and within its bound, commit it.

    A portal may be executed bit by bit. What came `later` of changes before it is within what those left over.
    """
    ledger = session.ledger
    sync = expected.portal is None
    told = yield from ask_own(session, [*([_IMMEDIATE] if wrapped else []), COUNT], sync=sync)
    after = _read(told)
    if not isinstance(after, _Count):
        return after or _uncountable()
    rows = ledger.spent.get(id_, 0) + max(after.rows - before.rows, _changed(expected))
    if (wrong := _above(rows, most, before, after, emptied=_emptied(expected))) is not None:
        yield Note(records.counted(session.facts, id_, rows if rows > most else None, most, kept=False))
        return wrong
    if recheck is not None and (wrong := (yield from recheck())) is not None:
        yield Note(records.counted(session.facts, id_, rows, most, kept=False))
        return wrong
    if wrapped:
        told = yield from ask_own(session, [_COMMIT], sync=True)
        if told.tags != [_COMMIT.upper()]:
            return told.error or Problem("40000", "this change was rolled back instead of committed")
    else:
        ledger.allowed[id_], ledger.spent[id_] = 0 if later else most, rows
    yield Note(records.counted(session.facts, id_, rows, most, kept=True))
    return None


def _deferred(session: Session, *, sync: bool) -> Generator[Command, Any, Wrong | None]:
    """Run what is deferred to the end of the transaction now, and count it against what its changes left over."""
    told = yield from ask_own(session, [COUNT, _IMMEDIATE, COUNT], sync=sync)
    if told.skipped or told.error is not None:
        return told.error
    ledger = session.ledger
    before, after = _count(told.rows[0]), _count(told.rows[-1])
    if before is None or after is None:
        return _uncountable()
    rows, most = ledger.total + after.rows - before.rows, ledger.most
    if (wrong := _above(rows, most, before, after)) is not None:
        id_ = next(reversed(ledger.allowed))
        yield Note(records.counted(session.facts, id_, rows if rows > most else None, most, kept=False))
    return wrong


def _failed(session: Session, expected: Expected, wrong: Wrong, *, sync: bool, ended: bool) -> Steps:
    """Have the change fail on both sides; `ended` says that its transaction is over with it."""
    if sync and ended:
        yield from _rolled_back(session)
    elif isinstance(wrong, Problem):
        if ended:
            yield from ask_own(session, [_ROLLBACK], sync=False)
            session.block = False
        yield from fail_own(session, sync=sync)
    if isinstance(wrong, Problem):
        expected.problem = wrong
        wrong = Frame(ord("E"), wrong.encoded()[5:])
    yield Settle(expected, (_without_position(wrong), *([_ready(session)] if sync else [])))


def _rolled_back(session: Session) -> Steps:
    """End the transaction that is open; a cancel that came too late for the change may have met this in its place."""
    for _ in range(_TRIES):
        if session.status == "I":
            return
        yield from ask_own(session, [_ROLLBACK], sync=True)


def _read(told: Told) -> _Count | Wrong | None:
    """Return a count, or why there is none; None where an error of the client's own came before."""
    if told.skipped or told.error is not None:
        return told.error
    return _count(told.rows[-1]) or _uncountable()


def _count(row: list[bytes | None]) -> _Count | None:
    """Read a row of COUNT; None where the upstream does not count (fail closed)."""
    if len(row) != 5 or row[0] != b"on":
        return None
    return _Count(int(row[1] or 0), frozenset((row[2] or b"").split()), int(row[3] or 0), int(row[4] or 0))


def _above(rows: int, most: int, before: _Count, after: _Count, *, emptied: bool = False) -> Problem | None:
    if emptied or after.rows < before.rows or any(not _made(one, before) for one in after.locks - before.locks):
        message = (
            "this, or a trigger, emptied, altered or dropped a table, which no row bound covers: it was rolled back"
        )
        return denial("54000", message, ("row-bound",), "only a rule without `max_rows` lets that pass")
    if after.foreign:
        # Those of an earlier change of the transaction too: what this one adds to them shows nowhere.
        message = "this, or a trigger, changed a foreign table, whose rows no bound covers: it was rolled back"
        return denial("54000", message, ("row-bound",), "only a rule without `max_rows` lets that pass")
    if rows <= most:
        return None
    message = f"this touched {rows:,} rows, triggers and cascades included, and may touch {most:,}: it was rolled back"
    return denial("54000", message, ("row-bound",), "change fewer rows at a time")


def _made(lock: bytes, before: _Count) -> bool:
    """Say whether a lock is of a table that was made meanwhile, and dropped again."""
    oid, _, file = lock.partition(b".")
    return not file and int(oid) > before.newest


def _uncountable() -> Problem:
    message = "what this touches cannot be counted here, so it is not let through"
    return denial("55000", message, ("row-bound",), "track_counts must be on at the upstream: tell its owners")


def _changed(expected: Expected) -> int:
    """Return what the change itself says: it knows of tables that the upstream's counters leave out."""
    return sum(codec.rows_of(tag) or 0 for tag in _tags(expected) if tag.startswith(_CHANGED))


def _emptied(expected: Expected) -> bool:
    return any(tag.startswith(_EMPTIED) for tag in _tags(expected))


def _tags(expected: Expected) -> list[str]:
    ends = (*expected.complete, *(expected.withheld or ()))
    return [codec.read_tag(frame.body) for frame in ends if frame.type == ord("C")]


def _ready(session: Session) -> Frame:
    return Frame(ord("Z"), session.status.encode())


def _without_position(frame: Frame) -> Frame:
    """Leave out where an error stands in a text that the client never sent."""
    values = codec.read_fields(frame.body)
    values.pop("P", None)
    return Frame(frame.type, codec.fields(b"E", values)[5:])
