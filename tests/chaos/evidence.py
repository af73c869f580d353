"""What can be seen from outside of what happened: both databases, the event log, recordings, leases, all as files."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.rig import Rig

POLL = 0.02


@dataclass(slots=True)
class Fact:
    """An event of the log, and when it was first there to be read."""

    kind: str
    grant: str | None
    session: str | None
    data: dict[str, Any]
    stream: str
    seen: float


@dataclass(slots=True)
class _File:
    inode: int = -1
    position: int = 0
    rest: bytes = b""


@dataclass
class Watch:
    """Follows the broker's files while everything runs."""

    rig: Rig
    facts: list[Fact] = field(default_factory=list)
    leases: dict[str, str] = field(default_factory=dict)
    """Session -> grant, of every lease that was ever written."""
    _files: dict[Path, _File] = field(default_factory=dict)

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(POLL)

    def look(self) -> None:
        """Take in what is new."""
        home = self.rig.state / "broker"
        for path in sorted((home / "events").glob("*.ndjson")) if (home / "events").exists() else ():
            if "checkpoint" in path.name:
                continue
            for line in self._new(path):
                self.facts.append(
                    Fact(line["type"], line["grant"], line["session"], line["data"], path.name, time.time())
                )
        for line in self._new(home / "leases" / "leases.ndjson"):
            if line.get("op") == "lease":
                self.leases[str(line["session"])] = str(line["grant"])

    def _new(self, path: Path) -> Iterator[dict[str, Any]]:
        try:
            found = path.stat()
        except FileNotFoundError:
            return
        file = self._files.setdefault(path, _File())
        if found.st_ino != file.inode or found.st_size < file.position:
            file.inode, file.position, file.rest = found.st_ino, 0, b""
        if found.st_size == file.position:
            return
        with path.open("rb") as opened:
            opened.seek(file.position)
            data = opened.read()
        file.position += len(data)
        whole, newline, file.rest = (file.rest + data).rpartition(b"\n")
        for text in (whole + newline).splitlines():
            try:
                yield json.loads(text)
            except ValueError:
                continue

    def of(self, grant: str) -> list[Fact]:
        """Return what is recorded of a grant."""
        return [fact for fact in self.facts if fact.grant == grant]


def rows(database: Path, query: str, *values: Any) -> list[dict[str, Any]]:
    """Ask a SQLite database of a process that runs, without writing to it."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(query, values)]


def bot_rows(rig: Rig, query: str, *values: Any) -> list[dict[str, Any]]:
    """Ask the bot's database."""
    return rows(rig.state / "bot" / "bot.db", query, *values)


def broker_rows(rig: Rig, query: str, *values: Any) -> list[dict[str, Any]]:
    """Ask the broker's database."""
    return rows(rig.state / "broker" / "broker.sqlite", query, *values)


def recording(rig: Rig, grant: str) -> list[dict[str, Any]]:
    """Return the lines of a grant's recording."""
    path = rig.state / "broker" / "recordings" / f"{grant}.ndjson"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().splitlines()]
