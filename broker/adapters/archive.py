"""Recordings as an auditor reads them, offline: which there are, and each as a transcript without literals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker.adapters.segments import home_in, read_lines
from broker.adapters.stories import read_recording
from broker.errors import AirlockError
from broker.sessions.transcript import outcomes, transcript


class NoRecording(AirlockError):
    """there is no such recording"""


@dataclass(frozen=True, slots=True)
class Kept:
    """A recording by its first line: whose access it is of, from when."""

    grant: str
    request: str
    at: str
    person: str
    role: str
    resource: str
    path: Path


def kept(state: Path) -> list[Kept]:
    """Return the recordings under a state folder, the newest last; what does not read is left out."""
    found = [one for path in (home_in(state) / "recordings").glob("*.ndjson") if (one := _kept(path)) is not None]
    return sorted(found, key=lambda one: one.at)


def told(state: Path, name: str) -> Iterator[str]:
    """Yield the transcript of the access that a grant's id, or its request's, names.

    Raises NoRecording, and LogDamaged where a line is not what was written.
    """
    found = next((one for one in kept(state) if name in (one.grant, one.request)), None)
    if found is None:
        raise NoRecording(f"there is no recording of `{name}`")
    # Twice through the file, so that a long recording is never in memory whole.
    ends = outcomes(content for content, _ in read_recording(found.path, found.grant))
    yield from transcript((content for content, _ in read_recording(found.path, found.grant)), ends, full=False)


def _kept(path: Path) -> Kept | None:
    try:
        first: dict[str, Any] = json.loads(next(read_lines(path, 0, path.stat().st_size)))
        data, names = first["data"], ("person", "role", "resource")
        about = {name: str(data.get(name, "unknown")) for name in names}
        return Kept(path.stem, str(data.get("request", "")), str(first["at"]), **about, path=path)
    except (OSError, ValueError, KeyError, StopIteration):
        return None
