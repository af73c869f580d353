"""Reading recordings: as NDJSON or as a transcript, with literals only for who asks for them, which is an event."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from broker.adapters.held import recorded_view
from broker.adapters.recorder import FileRecorder
from broker.adapters.segments import read_lines
from broker.adapters.stories import recording_path
from broker.errors import RecordingFailed
from broker.sessions.model import Entry
from broker.sessions.services import Refusal
from broker.sessions.transcript import outcomes, transcript
from workflows.wire import HoldView

_BATCH = 500


class FileRecordings:
    """Implements Recordings over the recorder's files; reads in a thread, in batches, whatever their size."""

    def __init__(self, home: Path, recorder: FileRecorder) -> None:
        self._home = home
        self._recorder = recorder

    async def lines(self, grant: str, full: bool, by: str) -> AsyncIterator[bytes]:
        """Yield a recording as NDJSON; without `full` it has no literals. Raises Refusal before the first."""
        path, size = await self._found(grant, full, by)
        async for batch in _batches(read_lines(path, 0, size)):
            yield b"".join(batch) if full else b"".join(_without_detail(line) for line in batch)

    async def transcript(self, grant: str, full: bool, by: str) -> AsyncIterator[bytes]:
        """Yield a recording as readable text; without `full` it has no literals. Raises Refusal before the first."""
        path, size = await self._found(grant, full, by)
        finished = await asyncio.to_thread(lambda: outcomes(_records(path, size)))
        async for batch in _batches(transcript(_records(path, size), finished, full)):
            yield ("\n".join(batch) + "\n").encode("utf-8", "backslashreplace")

    async def held(self, grant: str, hold: str, by: str) -> HoldView:
        """Return a hold that the desk does not know any more, with all of its statement. Raises Refusal."""
        path, size = await self._found(grant, True, by)
        own = hold.encode()
        lines = (line for line in read_lines(path, 0, size) if own in line or b'"type":"grant.opened"' in line)
        found = await asyncio.to_thread(lambda: recorded_view(map(json.loads, lines), hold))
        if found is None:
            raise Refusal("not_found", "there is no such hold")
        return found

    async def _found(self, grant: str, full: bool, by: str) -> tuple[Path, int]:
        with contextlib.suppress(RecordingFailed):
            # What cannot be sealed is in no recording; what is there can be read.
            self._recorder.seal()
        try:
            path = recording_path(self._home, grant)
            size = path.stat().st_size
        except (ValueError, FileNotFoundError):
            raise Refusal("not_found", "there is no such recording") from None
        if full:
            try:
                await self._recorder.write(Entry("recording.read", None, None, {"recording": grant, "by": by}))
            except RecordingFailed as error:
                raise Refusal("recording", f"nothing can be recorded: {error}") from None
        return path, size


async def _batches(items: Iterator[Any]) -> AsyncIterator[list[Any]]:
    while batch := await asyncio.to_thread(lambda: list(islice(items, _BATCH))):
        yield batch


def _records(path: Path, size: int) -> Iterator[dict[str, Any]]:
    for line in read_lines(path, 0, size):
        yield json.loads(line)


def _without_detail(line: bytes) -> bytes:
    content = json.loads(line)
    content.pop("detail", None)
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode() + b"\n"
