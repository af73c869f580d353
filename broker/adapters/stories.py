"""What a grant's recording says so far, entry by entry; and reading that from disk."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker.adapters.eventlog import LogDamaged
from broker.adapters.journal import Line
from broker.adapters.segments import read_lines, segments
from broker.errors import RecordingFailed
from broker.sessions.eventchain import RECORD, ChainBroken, Head, checked, genesis

_SPOKEN = re.compile(rb'"recorded":"([0-9]+:[0-9a-f]{64})"')
_GRANT = re.compile(r"[A-Za-z0-9_-]{4,64}")


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
                # What waits for its review is denied where that denies it.
                self.denied += not data.get("hold")
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


@dataclass(slots=True)
class Loaded:
    """A recording as found on disk; `torn` is how many bytes of a half-written line were cut off."""

    story: Story
    torn: int
    unsealed: list[Line] = field(default_factory=list)
    """What stood in the journal of the last broker, and is not in the recording yet."""
    unspoken: list[tuple[Line, Head]] = field(default_factory=list)
    """What did, and is there, and has no event yet."""


def recording_path(home: Path, grant: str) -> Path:
    """Return where a grant's recording is; raises ValueError for what is not a grant's id."""
    if not _GRANT.fullmatch(grant):
        raise ValueError("not a grant's id")
    return home / "recordings" / f"{grant}.ndjson"


def read_recording(path: Path, grant: str) -> Iterator[tuple[dict[str, Any], Head]]:
    """Yield the lines of a recording, each checked against the one before; raises LogDamaged."""
    head = genesis(RECORD, grant)
    for line in read_lines(path, 0, path.stat().st_size):
        try:
            content, head = checked(RECORD, line, head)
        except ChainBroken as error:
            raise LogDamaged(f"`{path.name}`, line {head.seq + 1}: {error}") from None
        yield content, head


def commitment(head: Head) -> str:
    """Write which line of a recording is meant, and its hash."""
    return f"{head.seq}:{head.hash}"


def read_story(path: Path, grant: str, left: Sequence[Line], torn: int, feed: tuple[Path, str]) -> Loaded:
    """Read what a recording says, and what of the lines `left` in a journal it lacks; raises RecordingFailed.

    `feed` is the folder and the name of the stream that speaks of its lines, `torn` what was cut off it. Safe in a
    thread.
    """
    loaded = Loaded(Story(genesis(RECORD, grant)), torn)
    missing = {(line.kind, line.id): line for line in left}
    sealed: list[tuple[Line, Head]] = []
    try:
        if path.exists():
            for content, head in read_recording(path, grant):
                data = content["data"]
                loaded.story.take(content["type"], content["session"], content["at"], data)
                loaded.story.head = head
                if (line := missing.pop((content["type"], data.get("statement")), None)) is not None:
                    sealed.append((line, head))
                else:
                    # What is written behind it finds it sealed, in the feed as well.
                    sealed.clear()
        loaded.unspoken = _unspoken(sealed, *feed)
    except (LogDamaged, OSError) as error:
        raise RecordingFailed(f"the recording of {grant} does not read: {error}") from None
    loaded.unsealed = list(missing.values())
    return loaded


def _unspoken(sealed: list[tuple[Line, Head]], folder: Path, stream: str) -> list[tuple[Line, Head]]:
    """Return what no event speaks of, as a crash between a recording's lines and the feed's leaves it."""
    if not sealed:
        return []
    # What was written together is in one segment, and what a start writes behind it fills no other.
    last = segments(folder, stream)[-2:]
    spoken = {found[1] for one in last for found in _SPOKEN.finditer(one.path.read_bytes())}
    return [(line, head) for line, head in sealed if commitment(head).encode() not in spoken]
