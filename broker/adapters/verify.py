"""Checks a state folder's events and recordings offline, with nothing but the public key; names whatever is not right.

Found: any changed, lost, added, repeated or moved byte or line up to the last signed checkpoint, and any change behind
it that does not also recompute every hash. Not found without a copy of checkpoints kept elsewhere (`kept`): a state
folder cut back, with its checkpoints, to an earlier moment. With one, nothing up to its last checkpoint is missed.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from broker.adapters.auditkey import PUBLIC, public_pem, read_public, signed
from broker.adapters.eventlog import CHECKPOINT_EVENTS
from broker.adapters.journal import left_behind
from broker.adapters.segments import checkpoint_path, home_in, segments, streams
from broker.errors import Misconfigured
from broker.sessions.eventchain import (
    EVENT,
    RECORD,
    ChainBroken,
    Checkpoint,
    Head,
    checked,
    checkpoint_prev,
    genesis,
    opened,
    read_checkpoint,
)

_SETTLE_SECONDS = 0.3
_UNSIGNED = 2 * CHECKPOINT_EVENTS
_FIRST_CHECKPOINT_SECONDS = 30.0
_RECORDED = re.compile(r"([0-9]{1,15}):([0-9a-f]{64})")
_KEPT = "*.checkpoints.ndjson"
_LONGEST = 4096


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, and where: `line` counts from 1; `missing` says that it is not there, and no damage was seen."""

    file: str
    line: int | None
    problem: str
    missing: bool = False

    def __str__(self) -> str:
        return f"{self.file}{f':{self.line}' if self.line else ''}: {self.problem}"


@dataclass(slots=True)
class Report:
    """What was checked and what is wrong; `unsigned` events are behind the last checkpoint of their stream."""

    findings: list[Finding] = field(default_factory=list)
    events: int = 0
    records: int = 0
    checkpoints: int = 0
    unsigned: int = 0
    unsealed: int = 0
    """Records that stand in a journal alone: the broker seals them in a moment, or the next one as it starts."""
    aside: int = 0
    """Files that keep what a crash left half-written, or no recording took."""
    heads: dict[str, Head] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        return not self.findings

    def add(self, file: str, line: int | None, problem: str, *, missing: bool = False) -> None:
        """Note a finding."""
        self.findings.append(Finding(file, line, problem, missing))


Commitments = dict[str, dict[int, str]]
"""Grant -> number of a recording's line -> its hash, as the events say."""


def verify(state: Path, public_key: Path | None = None, kept: Path | None = None) -> Report:
    """Check everything under a state folder; a running broker may write meanwhile.

    `kept` is a copy of its checkpoints from elsewhere: a file, or a folder of them.
    """
    report = Report()
    try:
        _verify(state, public_key, kept, report)
    except PermissionError as error:
        said = "this account may not read it, so not everything was checked: run this as the broker's own"
        report.add(str(error.filename or state), None, said, missing=True)
    return report


def _verify(state: Path, public_key: Path | None, kept: Path | None, report: Report) -> None:
    home = home_in(state)
    folder = home / "events"
    if not folder.is_dir():
        said = "there is no event log here" if state.is_dir() else "there is no such folder"
        report.add(
            str(folder if state.is_dir() else state), None, f"{said}; --state names a state folder", missing=True
        )
        return
    for each in filter(Path.is_dir, (folder, home / "recordings")):
        os.listdir(each)  # A pattern finds nothing in what may not be read, and a recording would be called gone.
    copies = [(_stream_of(path), path) for path in _copies(kept, report)]
    signed_only = {path.name.removesuffix(_KEPT[1:]) for path in folder.glob(_KEPT)}
    if not (found := sorted({*streams(folder), *signed_only, *(stream for stream, _ in copies)})):
        report.add(
            str(folder), None, "the event log is empty: nothing was ever recorded here, or it is gone", missing=True
        )
    key = _key(public_key or home / PUBLIC, home, report)
    recordings = _sizes(home / "recordings")
    journals = [path for path in home.glob("recordings/*.journal") if path.is_file()]
    left = {(line.grant, line.kind, line.id) for path in journals for line in left_behind(path).lines}
    report.aside = sum(1 for _ in home.glob("*/*.torn"))
    commitments: Commitments = {}
    for stream in found:
        _Stream(folder, stream, key, report, commitments).check([path for of, path in copies if of == stream])
    for path, size in recordings.items():
        _check_recording(path, size, commitments.pop(path.stem, {}), report, left)
    for grant in commitments:
        report.add(f"recordings/{grant}.ndjson", None, "the recording is gone")
    report.unsealed = len(left)


def _stream_of(checkpoints: Path) -> str:
    """Return of which stream a copy of checkpoints is, whatever it is called by now."""
    try:
        with checkpoints.open("rb") as file:
            return read_checkpoint(file.readline(_LONGEST)).stream
    except (ChainBroken, IsADirectoryError):
        return checkpoints.name.partition(".")[0]


def _copies(kept: Path | None, report: Report) -> list[Path]:
    """Return the files of checkpoints that were kept elsewhere."""
    if kept is None:
        return []
    found = [kept] if kept.is_file() else sorted(kept.rglob(_KEPT))
    if not found:
        said = f"no checkpoints are kept there: it is neither a file nor a folder with {_KEPT}"
        report.add(str(kept), None, said, missing=True)
    return found


def _key(path: Path, home: Path, report: Report) -> Ed25519PublicKey | None:
    shown = str(path.relative_to(home) if path.is_relative_to(home) else path)
    try:
        key = read_public(path)
        if path.read_bytes() != public_pem(key):
            report.add(shown, None, "the public key is not in the form it was written in")
        return key
    except Misconfigured as error:
        said = "the public key is not there" if not path.exists() else str(error)
        absent = not os.access(path, os.R_OK) or not path.is_relative_to(home)
        report.add(shown, None, f"{said}, so no signature was checked; --key names a copy of it", missing=absent)
        return None


def _sizes(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_size if path.is_file() else 0 for path in sorted(folder.glob("*.ndjson"))}


def _lines(path: Path, report: Report, name: str) -> Iterator[bytes]:
    """Yield a file's lines; a last one without its end is a finding, unless a writer is just finishing it."""
    if not path.is_file():
        report.add(name, None, "this is no file")
        return
    with path.open("rb") as file:
        left = os.fstat(file.fileno()).st_size
        number = 0
        while left > 0 and (line := file.readline()):
            number += 1
            left -= len(line)
            if not line.endswith(b"\n"):
                time.sleep(_SETTLE_SECONDS)
                line += file.readline()
            if not line.endswith(b"\n"):
                report.add(name, number, "the line has no end")
                return
            yield line


class _Stream:
    """One stream: its segments as one chain, its checkpoints, and what its events say of recordings."""

    def __init__(
        self, folder: Path, stream: str, key: Ed25519PublicKey | None, report: Report, commitments: Commitments
    ) -> None:
        self._folder = folder
        self._stream = stream
        self._key = key
        self._report = report
        self._commitments = commitments
        self._signed: dict[int, tuple[str, Checkpoint]] = {}

    def check(self, copies: list[Path]) -> None:
        """Check the whole stream, also against copies of its checkpoints that were kept elsewhere."""
        for path in (checkpoint_path(self._folder, self._stream), *copies):
            self._read_checkpoints(path, str(path) if path in copies else f"events/{path.name}")
        head = genesis(EVENT, self._stream)
        position = 0
        for segment in segments(self._folder, self._stream):
            if segment.base != position:
                self._report.add(f"events/{segment.path.name}", None, f"begins at {segment.base}, not at {position}")
            head, size = self._check_segment(segment.path, head)
            position = segment.base + size
        self._report.heads[self._stream] = head
        last = max(self._signed, default=0)
        self._report.unsigned += max(head.seq - last, 0)
        checkpoints = f"events/{checkpoint_path(self._folder, self._stream).name}"
        if head.seq < last:
            self._report.add(f"events/{self._stream}.ndjson", None, f"ends at {head.seq}, but {last} was signed")
        elif head.seq and not last and self._settled():
            self._report.add(checkpoints, None, f"none of {head.seq} events is signed")
        elif head.seq - last > _UNSIGNED:
            self._report.add(checkpoints, None, f"{head.seq - last} events behind the last checkpoint")

    def _settled(self) -> bool:
        """Say whether the first checkpoint is long due; a time to come is nobody's who writes now."""
        first = segments(self._folder, self._stream)[0].path
        return abs(time.time() - first.stat().st_mtime) > _FIRST_CHECKPOINT_SECONDS

    def _check_segment(self, path: Path, head: Head) -> tuple[Head, int]:
        name, size = f"events/{path.name}", 0
        for number, line in enumerate(_lines(path, self._report, name), 1):
            size += len(line)
            self._report.events += 1
            try:
                content, head = checked(EVENT, line, head)
            except ChainBroken as error:
                self._report.add(name, number, f"event {head.seq + 1}: {error}")
                content, head = _resumed(EVENT, line, head)
            if content.get("stream") != self._stream and content:
                self._report.add(name, number, f"event {head.seq} is of another stream")
            self._compare(name, number, head)
            self._commit(name, number, content)
        return head, size

    def _compare(self, name: str, number: int, head: Head) -> None:
        found = self._signed.get(head.seq)
        if found is not None and found[1].hash != head.hash:
            self._report.add(name, number, f"event {head.seq} is not what {found[0]} signed")

    def _commit(self, name: str, number: int, content: dict[str, Any]) -> None:
        data = content.get("data")
        if not isinstance(data, dict) or "recorded" not in data or not content.get("grant"):
            return
        found = _RECORDED.fullmatch(str(data["recorded"]))
        said = self._commitments.setdefault(str(content["grant"]), {})
        if found is None or said.setdefault(int(found[1]), found[2]) != found[2]:
            self._report.add(name, number, "says something else of a recording than an event before it")

    def _read_checkpoints(self, path: Path, name: str) -> None:
        if not path.exists():
            return
        before: bytes | None = None
        for number, line in enumerate(_lines(path, self._report, name), 1):
            try:
                self._read_checkpoint(f"checkpoint {number} of {name}", line, before)
            except ChainBroken as error:
                self._report.add(name, number, str(error))
            before = line

    def _read_checkpoint(self, place: str, line: bytes, before: bytes | None) -> None:
        found = read_checkpoint(line)
        if found.stream != self._stream:
            raise ChainBroken("the checkpoint is of another stream")
        if self._key is not None and not signed(self._key, found.message(), found.signature):
            raise ChainBroken("the checkpoint's signature does not fit")
        if found.prev != checkpoint_prev(before, self._stream):
            raise ChainBroken("the checkpoint does not follow the one before it")
        known = self._signed.get(found.seq)
        if known is None:
            self._report.checkpoints += 1
            self._signed[found.seq] = (place, found)
        elif known[1].hash != found.hash:
            raise ChainBroken(f"the checkpoint signs something else of event {found.seq} than {known[0]}")


def _resumed(domain: bytes, line: bytes, head: Head) -> tuple[dict[str, Any], Head]:
    """Go on behind a broken line as well as can be, so that one flipped byte is one finding."""
    try:
        return opened(domain, line)
    except ChainBroken:
        stored = line[-67:-3].decode("ascii", "replace")
        return {}, Head(head.seq + 1, stored)


def _check_recording(
    path: Path, size: int, commitments: dict[int, str], report: Report, left: set[tuple[str, str, str]]
) -> None:
    """Check a recording against what the events say of it; `size` is what it had before the events were read.

    What of the `left` has a line is taken out there.
    """
    name = f"recordings/{path.name}"
    head = genesis(RECORD, path.stem)
    last, offset, unspoken = max(commitments, default=0), 0, 0
    for number, line in enumerate(_lines(path, report, name), 1):
        report.records += 1
        try:
            content, head = checked(RECORD, line, head)
            if left and isinstance(content.get("data"), dict):
                left.discard((path.stem, str(content.get("type")), str(content["data"].get("statement"))))
            if content.get("grant") != path.stem:
                report.add(name, number, "the line is of another grant")
        except ChainBroken as error:
            report.add(name, number, str(error))
            _, head = _resumed(RECORD, line, head)
        if commitments.pop(head.seq, head.hash) != head.hash:
            report.add(name, number, "the line is not the one that its event speaks of")
        elif head.seq > last and offset < size:
            # Lines before the last one spoken of are in its hash; these are in none.
            unspoken += 1
            if unspoken == 1:
                report.add(name, number, "no event speaks of this line, nor of what follows it")
        offset += len(line)
    if lost := [count for count in sorted(commitments) if count > head.seq]:
        report.add(name, None, f"line {lost[0]} is missing")
