"""Which search path a session has upstream: what the server says of it, asked whenever that could have changed.

A path that is set comes and goes with transactions and savepoints. None of that is followed here: after whatever could
have changed it, the next text waits for the server's own word before it is inspected.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from broker.protocols.postgres.events import Command, Move
from broker.protocols.postgres.owning import ask_when_sure
from broker.protocols.postgres.registry import Cursor
from broker.protocols.postgres.ruling import Denied
from broker.protocols.postgres.shared import ENDS, Session
from broker.sql.model import Control, Moves, Statement
from broker.sql.paths import confirmed
from policies.engine.decisions import Effect

SHOW = "show search_path"
"""Takes no snapshot, so that a transaction may still choose its isolation behind it."""
_OPENING = frozenset({Control.NONE, Control.BEGIN, Control.SAVEPOINT, Control.RELEASE, Control.CLOSE})
_HARMLESS = ENDS | {Control.SAVEPOINT, Control.RELEASE}

elsewhere = Denied(
    "0A000", "the search path has changed since this was bound or declared", ("search-path",), "do that again"
)
"""Its rows come of the tables that its names meant then."""
_lost = Denied(
    "0A000",
    "the search path of this session is not one that may be set here",
    ("search-path",),
    "RESET search_path goes back to the one that the session began with",
)


def follow(session: Session) -> Generator[Command, Any, None]:
    """Have the server say which path there is, where that is not sure."""
    way = session.way
    if not way.unsure:
        return
    told = yield from ask_when_sure(session, [SHOW])
    if told is None or told.skipped:
        return  # What ends an error is followed by another look.
    value = told.rows[0][0] if told.rows and told.rows[0] else None
    found = confirmed(value.decode("utf-8", "replace")) if value is not None else None
    before, way.path = way.path, None if found == way.pinned else found
    # What was cancelled in its place is asked again.
    way.lost, way.unsure = found is None, told.error is not None
    if session.status == "I" and not session.touched:
        way.moved = False
    if before != way.path:
        yield Move(way.path)


def misplaced(session: Session, statements: Sequence[Statement]) -> Denied | None:
    """Say why a text may not run as far as the search path goes (fail closed)."""
    way = session.way
    if way.lost and not all(_returns(one) for one in statements):
        return _lost
    for at, one in enumerate(statements):
        moves = way.changed_by(one.moves)
        if at + 1 < len(statements) and (moves or (way.moved and one.control in ENDS)):
            return _denied("what changes the search path is sent by itself", "send what follows by itself", one)
        if moves and not all(_opens(before) for before in statements[:at]):
            # Nothing of the same text is known yet: what it changes, and which cursors are to be filled at its end.
            return _denied(
                "what changes the search path is sent by itself", "only BEGIN, SET and CLOSE stand before it", one
            )
        if moves and session.wrote is not None:
            # What a deferred trigger looks up at the end of the transaction it would find elsewhere.
            why = "the search path is not changed in a transaction that has changed data"
            return _denied(why, "COMMIT first, or set it before the change", one)
        if moves and _held(session):
            why = "the search path is not changed while a cursor WITH HOLD has still to be filled"
            return _denied(why, "COMMIT first, or CLOSE it", one)
    return None


def strayed(statements: Sequence[Statement]) -> Denied | None:
    """Say why a text may not go on behind functions of users', which may set another path (fail closed)."""
    for at, one in enumerate(statements):
        if one.moves is Moves.UNKNOWN and not one.alters and any(_looks_up(after) for after in statements[at + 1 :]):
            why = "functions of this database's own could set another search path for what follows them"
            return _denied(why, "send what follows by itself", one)
    return None


def _looks_up(statement: Statement) -> bool:
    facts = statement.facts
    return bool(facts.relations or facts.calls) or statement.control in (Control.EXECUTE, Control.FETCH)


def _held(session: Session) -> bool:
    """Say whether a cursor is filled at the end of this transaction, by functions that look names up then."""
    cursors = [*session.portals.known.values(), *(change.value for change in session.portals.pending)]
    return any(isinstance(one, Cursor) and one.held and not one.settled for one in cursors)


def _opens(statement: Statement) -> bool:
    """Say whether a statement leaves nothing that is done later, under another path; pools reset so what they lend."""
    facts = statement.facts
    plain = not (facts.relations or facts.calls or facts.code)
    return statement.control in _OPENING and facts.all_effects <= {Effect.SESSION, *({Effect.READ} if plain else ())}


def _returns(statement: Statement) -> bool:
    return statement.moves in (Moves.BACK, Moves.ELSEWHERE) or statement.control in _HARMLESS


def _denied(message: str, hint: str, statement: Statement) -> Denied:
    return Denied("0A000", message, ("search-path",), hint, verb=statement.facts.verb, text=statement.redacted)
