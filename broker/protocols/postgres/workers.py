"""Worker processes for texts that could stall or crash a parser: killed at a time limit, bounded in memory, replaced.

A worker that dies costs its sender an error and nobody else anything: each person has one at a time, and another is
started in its place at once. What it answers is JSON, never code: whoever takes a worker over through its parser gets
no further.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple
from weakref import WeakValueDictionary

from broker.errors import AirlockError
from broker.sql.catalogue import Catalogue
from broker.sql.model import PLAIN, Altered, Control, CopyForm, Inspection, Moves, Refusal, SearchPath, Statement, Terms
from policies.engine.decisions import Effect, FieldView, OwnFunction, StatementFacts

SECONDS = 1.0
"""For a text alone: an honest one near every limit takes about half of it."""
START_SECONDS = 10.0
COUNT = 2
_LARGEST = 32 * 1024 * 1024
_AT_ONCE = 50
"""How many statements of an answer are read before others have their turn."""
_COMMAND = (sys.executable, "-m", "broker.protocols.postgres.worker")


class WorkerFailed(AirlockError):
    """the statement could not be read within the limits of time and memory"""


class Assignment(NamedTuple):
    """What a worker is asked: a text, and under which rules it is inspected."""

    sql: str
    view: FieldView
    terms: Terms


@dataclass(slots=True, eq=False)
class _Worker:
    process: asyncio.subprocess.Process
    knows: str = ""
    """The version of the catalogue that it was told."""

    async def told(self, version: str, pickled: bytes) -> None:
        """Tell it the catalogue that the next texts are about."""
        if self.knows != version:
            await self._send(pickled)
            await self._reader.readexactly(1)
            self.knows = version

    async def ask(self, assignment: Assignment) -> dict[str, Any]:
        await self._send(pickle.dumps(assignment))
        size = int.from_bytes(await self._reader.readexactly(4), "big")
        if size > _LARGEST:
            raise ValueError("an answer is too long")
        answer: dict[str, Any] = json.loads(await self._reader.readexactly(size))
        return answer

    async def _send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.writelines((len(data).to_bytes(4, "big"), data))
        await self.process.stdin.drain()

    @property
    def _reader(self) -> asyncio.StreamReader:
        assert self.process.stdout is not None
        return self.process.stdout

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()


class Workers:
    """A few workers, started when first needed; a text waits its turn."""

    def __init__(self, count: int = COUNT, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._idle: list[_Worker] = []
        self._turn = asyncio.Semaphore(count)
        self._lanes: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._all: set[_Worker] = set()
        self._restarts: set[asyncio.Task[None]] = set()
        self._pickled = ("", b"")

    async def inspect(
        self,
        sql: str,
        catalogue: Catalogue,
        view: FieldView,
        person: str = "",
        terms: Terms = PLAIN,
    ) -> tuple[Inspection | Refusal, str]:
        """Inspect in a worker, and return the redacted text with it; raises WorkerFailed."""
        # Whoever sends what stalls parsers waits behind themselves, however many sessions they open.
        lane = self._lanes.setdefault(person, asyncio.Lock())
        async with lane:
            await self._turn.acquire()
            try:
                found = await self._asked(catalogue, Assignment(sql, view, terms))
            except BaseException:
                self._restart()
                raise
            self._turn.release()
            return found

    async def _asked(self, catalogue: Catalogue, assignment: Assignment) -> tuple[Inspection | Refusal, str]:
        worker = self._idle.pop() if self._idle else await self._start()
        try:
            async with asyncio.timeout(START_SECONDS):
                await worker.told(catalogue.version, await self._pickle(catalogue))
            async with asyncio.timeout(self._seconds):
                answer = await worker.ask(assignment)
            path = assignment.terms.path
            under = catalogue if path is None else catalogue.under(path)
            found = await decoded(answer, under.version, path), str(answer["redacted"])
        except (TimeoutError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError):
            self._drop(worker)
            raise WorkerFailed(WorkerFailed.__doc__) from None
        except BaseException:
            self._drop(worker)
            raise
        self._idle.append(worker)
        return found

    async def _pickle(self, catalogue: Catalogue) -> bytes:
        """Pickle a catalogue once, however often a worker must be replaced: a large one takes a while."""
        version, pickled = self._pickled
        if version != catalogue.version:
            pickled = await asyncio.to_thread(_pickled, replace(catalogue, stamps={}))
            self._pickled = (catalogue.version, pickled)
        return pickled

    def _restart(self) -> None:
        """Have another worker ready before its turn goes to the next text."""

        async def start() -> None:
            try:
                with contextlib.suppress(WorkerFailed):
                    self._idle.append(await self._start())
            finally:
                self._turn.release()

        task = asyncio.get_running_loop().create_task(start(), name="parser worker")
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)

    async def close(self) -> None:
        for task in list(self._restarts):
            task.cancel()
        await asyncio.gather(*self._restarts, return_exceptions=True)
        for worker in list(self._all):
            self._drop(worker)
            await worker.process.wait()

    async def _start(self) -> _Worker:
        # Nothing of the broker's environment goes in: there may be credentials in it.
        environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ}
        try:
            process = await asyncio.create_subprocess_exec(
                *_COMMAND,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=environment,
                limit=_LARGEST,
                cwd=_root(),
            )
            worker = _Worker(process)
            self._all.add(worker)
            assert process.stdout is not None
            async with asyncio.timeout(START_SECONDS):
                await process.stdout.readexactly(1)
        except (OSError, EOFError, TimeoutError) as error:
            raise WorkerFailed(f"no worker could be started: {type(error).__name__}") from None
        return worker

    def _drop(self, worker: _Worker) -> None:
        worker.kill()
        self._all.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)


class _Pieces(list[bytes]):
    """A file of what it is given. That is Python's code: between two pieces others have their turn."""

    def write(self, piece: bytes) -> None:
        self.append(piece)


def _pickled(catalogue: Catalogue) -> bytes:
    pieces = _Pieces()
    pickle.Pickler(pieces, pickle.HIGHEST_PROTOCOL).dump(catalogue)
    return b"".join(pieces)


def _root() -> str:
    return str(Path(__file__).parents[3])


def encoded(found: Inspection | Refusal, redacted: str) -> dict[str, Any]:
    """Write an answer as plain values."""
    if isinstance(found, Refusal):
        return {"refusal": _refusal_out(found), "redacted": redacted}
    return {
        "redacted": redacted,
        "statements": [_statement_out(statement) for statement in found.statements],
        "rewritten": found.rewritten,
        "edits": [list(edit) for edit in found.edits],
        "scrub": found.scrub,
        "tripwire": sorted(list(pair) for pair in found.tripwire),
        "revealed": [list(place) for place in found.revealed],
        "searches": [list(one) for one in found.searches],
        "means": [list(one) for one in found.means],
    }


async def decoded(answer: dict[str, Any], version: str, path: SearchPath | None = None) -> Inspection | Refusal:
    """Read an answer; raises ValueError, LookupError, TypeError or AttributeError for what is none."""
    if (refusal := answer.get("refusal")) is not None:
        return _refusal_in(refusal)
    statements: list[Statement] = []
    for values in answer["statements"]:
        statements.append(_statement_in(values))
        if len(statements) % _AT_ONCE == 0:
            await asyncio.sleep(0)
    return Inspection(
        tuple(statements),
        str(answer["rewritten"]),
        tuple((int(a), int(b), int(c)) for a, b, c in answer["edits"]),
        bool(answer["scrub"]),
        version,
        frozenset((int(oid), int(attribute)) for oid, attribute in answer["tripwire"]),
        tuple((int(at), int(oid), int(attribute)) for at, oid, attribute in answer["revealed"]),
        tuple((str(name), int(most)) for name, most in answer["searches"]),
        path,
        tuple((str(name), str(stamp)) for name, stamp in answer["means"]),
    )


def _refusal_out(refusal: Refusal) -> dict[str, Any]:
    names = ("rule", "message", "hint", "sqlstate", "position", "verb", "retry")
    return {name: getattr(refusal, name) for name in names}


def _refusal_in(values: dict[str, Any]) -> Refusal:
    rule, message, hint = values.pop("rule"), values.pop("message"), values.pop("hint")
    return Refusal(str(rule), str(message), hint, **values)


_DIRECTIONS: dict[str, Literal["", "in", "out"]] = {"": "", "in": "in", "out": "out"}
_SETS = (
    "does",
    "reads",
    "writes",
    "functions",
    "masked",
    "missing_where",
    "through",
    "follows",
    "reveals",
    "searched",
    "code",
    "settings",
)


def _statement_out(statement: Statement) -> dict[str, Any]:
    facts = statement.facts
    return {
        "verb": facts.verb,
        "effects": sorted(effect.value for effect in facts.effects),
        **{name: sorted(getattr(facts, name)) for name in _SETS},
        "copying": facts.copying,
        "calls": [
            [call.schema, call.name, list(call.arguments), call.acting, call.native, call.computes]
            for call in sorted(facts.calls)
        ],
        "redacted": statement.redacted,
        "control": statement.control.value,
        "name": statement.name,
        "body": statement.body,
        "writable": statement.writable,
        "compared": sorted(statement.compared),
        "form": asdict(statement.form),
        "alters": statement.alters.value,
        "moves": statement.moves.value,
        "lasting": statement.lasting,
        "declared": statement.declared,
        "refusal": _refusal_out(statement.refusal) if statement.refusal is not None else None,
    }


def _statement_in(values: dict[str, Any]) -> Statement:
    sets: dict[str, Any] = {name: frozenset(str(one) for one in values[name]) for name in _SETS}
    effects = frozenset(Effect(effect) for effect in values["effects"])
    calls = frozenset(
        OwnFunction(
            *(str(schema), str(name), tuple(str(one) for one in arguments), bool(acting), bool(native), bool(computes))
        )
        for schema, name, arguments, acting, native, computes in values["calls"]
    )
    copying = _DIRECTIONS[values["copying"]]
    facts = StatementFacts(str(values["verb"]), effects, copying=copying, calls=calls, **sets)
    return Statement(
        facts,
        str(values["redacted"]),
        Control(values["control"]),
        str(values["name"]),
        str(values["body"]),
        _refusal_in(values["refusal"]) if values["refusal"] is not None else None,
        CopyForm(**values["form"]),
        frozenset(str(one) for one in values["compared"]),
        bool(values["writable"]),
        Altered(values["alters"]),
        Moves(values["moves"]),
        int(values["lasting"]),
        str(values["declared"]),
    )
