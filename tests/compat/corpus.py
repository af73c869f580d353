"""The corpus: what tools and drivers send of themselves, answered byte by byte alike through both doors."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from broker.protocols.postgres import codec
from tests.compat.comparing import Outcomes
from tests.compat.stage import Door
from tests.compat.talks import BEGUN_WITH, TALKS, Turn, extended
from tests.integration.postgres_world import Raw
from tests.integration.test_masking_introspection import DESCRIBING, DRIVERS, SHOWN, tools

SHOP = Path(__file__).with_name("shop.sql")
Answers = dict[str, bytes]
_COUNTED = "pg_catalog.pg_stat_get_numscans(i.indexrelid)", "0"
"""What counts the questions themselves -> what stands for it."""
_LONGEST = 5.0
"""Seconds for an answer."""


class Corpus:
    """One schema for both doors, for what is asked of the catalogue holds its oids."""

    package = "corpus"
    fresh = False

    def __init__(self) -> None:
        self._psql: dict[str, list[str]] = {}
        self._first: Answers = {}

    async def run(self, door: Door, report: Path, seconds: float, chosen: str) -> Outcomes:
        """Ask everything; what the second door answers differently has failed."""
        return await asyncio.wait_for(asyncio.to_thread(self._run, door, report, chosen), seconds)

    def _run(self, door: Door, report: Path, chosen: str) -> Outcomes:
        first = door.sslmode == "disable"
        if first:
            _psql(door, "-f", str(SHOP))
            self._psql = {"psql": [query for what in DESCRIBING for query in SHOWN.findall(_psql(door, "-Ec", what))]}
        found = {name: answer for name, answer in self._answers(door) if chosen in name}
        report.with_suffix(".log").write_bytes(b"\n".join(f"{name}: {found[name]!r}".encode() for name in found))
        if first:
            self._first = found
        return {
            name: ("passed", "")
            if answer == self._first.get(name)
            else ("failed", _difference(self._first, name, answer))
            for name, answer in found.items()
        }

    def _answers(self, door: Door) -> Iterator[tuple[str, bytes]]:
        client, greeting = _connected(door)
        yield from ((f"greeting.{name}", value) for name, value in greeting.items())
        for tool, sent in {**tools(), **{name: [sql] for name, sql in DRIVERS.items()}, **self._psql}.items():
            for sql in (one.replace(*_COUNTED) for one in sent):
                name = f"{tool.partition(':')[0]}.{hashlib.sha256(sql.encode()).hexdigest()[:8]}"
                yield f"{name}.simple", _said(client, Turn(codec.query(sql)))
                yield f"{name}.binary", _said(client, Turn(extended(sql, wanted=1)))
        client.close()
        for name, turns in TALKS.items():
            client, _ = _connected(door, *BEGUN_WITH.get(name, []))
            for number, turn in enumerate(turns, 1):
                yield f"talk.{name}.{number}", _said(client, turn)
            client.close()


def _connected(door: Door, *more: tuple[str, str]) -> tuple[Raw, Answers]:
    client = Raw(door.port)
    if door.sslmode != "disable":
        client.secure()
    client.start([("user", door.user), ("database", door.database), *more])
    client.prove(door.password)
    client.socket.settimeout(_LONGEST)
    told = (codec.read_parameter_status(frame.body) for frame in client.until("Z") if frame.type == ord("S"))
    return client, {name: value.encode() for name, value in told}


def _said(client: Raw, turn: Turn) -> bytes:
    """Return everything that comes in answer to a turn; what is missing is an end of its own."""
    client.send(turn.sent)
    found = b""
    try:
        for kind in turn.until * turn.times:
            found += b"".join(_steady(frame) for frame in client.until(kind))
    except (EOFError, TimeoutError) as error:
        found += f"[{type(error).__name__}]".encode()
    return found


def _steady(frame: codec.Frame) -> bytes:
    """Leave out which process a notification is from."""
    return bytes((frame.type,)) + frame.body[4:] if frame.type == ord("A") else frame.whole()


def _difference(first: Answers, name: str, answer: bytes) -> str:
    """Show both from where they part."""
    before = first.get(name, b"")
    at = next(
        (at for at, (a, b) in enumerate(zip(before, answer, strict=False)) if a != b), min(len(before), len(answer))
    )
    return f"{before[max(0, at - 40) : at + 60]!r} became {answer[max(0, at - 40) : at + 60]!r}"


def _psql(door: Door, *arguments: str) -> str:
    where = f"host=127.0.0.1 port={door.port} user={door.user} dbname={door.database} sslmode={door.sslmode}"
    done = subprocess.run(
        ["psql", "-X", "--set", "ON_ERROR_STOP=1", *arguments, where],
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PGPASSWORD": door.password},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and arguments[0] == "-f":
        raise SystemExit(f"psql failed: {done.stderr}")
    return done.stdout
