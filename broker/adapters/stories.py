"""What a grant's recording says so far, entry by entry."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from broker.sessions.eventchain import Head


@dataclass(slots=True)
class Story:
    """What a grant's recording says so far: what its summary counts, and what has no end yet."""

    head: Head
    types: set[str] = field(default_factory=set)
    statements: int = 0
    denied: int = 0
    sessions: int = 0
    masked: set[str] = field(default_factory=set)
    revealed: set[str] = field(default_factory=set)
    searched: set[str] = field(default_factory=set)
    open_sessions: dict[str, str] = field(default_factory=dict)
    """Session -> when it opened."""
    open_statements: dict[tuple[str | None, str], None] = field(default_factory=dict)
    open_holds: dict[str, str | None] = field(default_factory=dict)
    """Hold -> its session, while it can still be used."""
    extended: set[str] = field(default_factory=set)
    """The orders that moved its end."""
    shapes: set[str] = field(default_factory=set)
    """Approved shapes that are not withdrawn."""
    closed: bool = False

    def take(self, kind: str, session: str | None, at: str, data: dict[str, Any]) -> None:
        """Count one entry."""
        self.types.add(kind)
        match kind:
            case "session.opened" if session is not None:
                self.sessions += 1
                self.open_sessions[session] = at
            case "session.closed" | "session.settled" if session is not None:
                self.open_sessions.pop(session, None)
            case "statement.allowed":
                self.statements += 1
                self.count(data)
                self.open_statements[session, str(data.get("statement"))] = None
            case "statement.denied":
                self.statements += 1
                self.denied += 1
            case "statement.finished":
                self.open_statements.pop((session, str(data.get("statement"))), None)
            case "hold.opened":
                self.open_holds[str(data.get("hold"))] = session
            case "hold.refused":
                self.statements += 1
                self.denied += 1
                self.open_holds.pop(str(data.get("hold")), None)
            case "hold.consumed" | "hold.timed_out" | "hold.abandoned":
                self.open_holds.pop(str(data.get("hold")), None)
            case "grant.extended":
                self.extended.add(str(data.get("order")))
            case "shape.approved":
                self.shapes.add(str(data.get("shape")))
            case "shape.withdrawn":
                self.shapes.discard(str(data.get("shape")))
            case "grant.closed":
                self.closed = True
            case _:
                pass

    def count(self, data: dict[str, Any]) -> None:
        """Count what a statement that was allowed touches."""
        self.masked.update(map(str, data.get("masked") or ()))
        self.revealed.update(map(str, data.get("revealed") or ()))
        self.searched.update(map(str, data.get("searched") or ()))

    def totals(self) -> dict[str, Any]:
        """Return what `grant.closed` says."""
        return {
            "statements": self.statements,
            "denied": self.denied,
            "masked": sorted(self.masked),
            "revealed": sorted(self.revealed),
            "searched": sorted(self.searched),
            "sessions": self.sessions,
        }
