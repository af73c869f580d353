"""A recorder on a folder, a compiled lane that records with it, and what they leave there."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from broker.adapters.clock import SystemClock
from broker.adapters.disk import Disk
from broker.adapters.eventlog import EventLog
from broker.adapters.journal import (
    Line,
    journal_path,
)
from broker.adapters.metrics import Metrics
from broker.adapters.recorder import FileRecorder
from broker.adapters.stories import recording_path
from broker.core import compiled, new_moves
from broker.protocols.postgres import codec
from broker.sessions.model import Entry

if TYPE_CHECKING:
    from broker.core.lane import Lane


def make(home: Path, disk: Disk | None = None) -> tuple[EventLog, FileRecorder]:
    log = EventLog(home, "broker", SystemClock(), disk=disk)
    recorder = FileRecorder(home, log, SystemClock(), Metrics(), disk)
    recorder.resume("grant1")
    return log, recorder


def allowed(number: int, grant: str = "grant1") -> Entry:
    return Entry(
        "statement.allowed", grant, "s1", {"statement": str(number), "text": "select ?"}, {"sql": "select 'x'"}
    )


def lane_of(
    recorder: FileRecorder,
    sent: list[str],
    said: dict[str, Any] | None = None,
    grant: str = "grant1",
    *,
    waits: bool = False,
    begun: int = 1,
) -> Lane:
    """A lane on which `select 1` and `select 2` are known."""
    assert compiled is not None
    before = json.dumps(said)[1:-1].encode() + b"," if said else b""
    known = {
        "said": said,
        "waits": waits,
        "before": before,
        "between": b'"statement":',
        "behind": b"",
        "scrub": False,
        "ruling": None,
    }
    quiet = ("I", 0, frozenset(), {}, {})
    booking: Any = SimpleNamespace(
        quiet=lambda: quiet,
        ticket=lambda text, _: SimpleNamespace(**known, texts=b'{"sql":"%b"}' % text, send=text),
        tripwire=frozenset(),
        alike=lambda *_: None,
        watch=lambda _: None,
        landed=lambda *_: None,
        shows=lambda *_: True,
    )
    policies: Any = SimpleNamespace(hash="policy")
    end: Any = SimpleNamespace(is_closing=lambda: False, write=lambda data: sent.append(data.decode()))
    lane: Lane = compiled.Lane(
        booking,
        lambda error: sent.append(str(error)),
        recorder.journal(),
        grant,
        "s1",
        compiled.Ids(begun),
        SystemClock(),
        None,
        lambda: (1, 9e9),
        policies,
        (new_moves(), new_moves()),
        end,
        end,
        9e9,
    )
    return lane


ANSWER = codec.message(b"T", b"\0\0") + codec.message(b"C", b"SELECT 0\0") + codec.ready_for_query("I")


def ride(lane: Lane, *, land: bool = True) -> None:
    assert lane.depart(codec.query("select 1"))
    if land:
        assert lane.land(ANSWER)


def lines_of(home: Path, grant: str = "grant1") -> list[tuple[str, str]]:
    lines = [json.loads(line) for line in recording_path(home, grant).read_bytes().splitlines()]
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    return [(line["type"], line["data"].get("statement", "")) for line in lines]


Q = [f"q{number:016x}" for number in range(10)]


ALLOWED, FINISHED = "statement.allowed", "statement.finished"


def left_line(number: int, grant: str = "grant1", data: str = "") -> Line:
    """An invented record, as a killed broker leaves it."""
    behind = data or f'"statement":"{Q[number]}","text":"x"'
    return Line(ALLOWED, "2026-01-01T00:00:00.000000Z", grant, "s1", Q[number], "", behind, "{}")


def leave(home: Path, content: bytes) -> Path:
    path = journal_path(home, "broker")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
