"""Hash-chained lines, purely: how an event, a recording's line and a checkpoint are written, and how each is checked.

A line is canonical JSON (sorted keys, no spaces, ASCII) with `hash` put last: SHA-256 over the domain's tag and the
line without `hash`. `prev` is the hash of the line before; the first line's is the hash of the chain's own name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from json import encoder
from typing import Any, NamedTuple

EVENT = b"airlock.event.v1\0"
RECORD = b"airlock.recording.v1\0"
CHECKPOINT = b"airlock.checkpoint.v1\0"
MAX_LINE_BYTES = 16 * 1024 * 1024
_GENESIS = b"airlock.genesis.v1\0"
_HASH_HEAD = b',"hash":"'
_HASH_TAIL = b'"}\n'
_SUFFIX = len(_HASH_HEAD) + 64 + len(_HASH_TAIL)


class ChainBroken(Exception):
    """a line is not what was written"""


class LineUnwritable(Exception):
    """a record cannot be written as a line: it is too long, or not JSON"""


class Head(NamedTuple):
    """Where a chain stands: the last line's number (0: none yet) and hash."""

    seq: int
    hash: str


def genesis(domain: bytes, name: str) -> Head:
    """Return the head of an empty chain."""
    return Head(0, hashlib.sha256(_GENESIS + domain + name.encode()).hexdigest())


def timestamp(at: datetime) -> str:
    """Write a time as RFC 3339 in UTC, to the microsecond, so that it sorts as text."""
    # An offset of zero is written as `+00:00`, whatever the zone is called.
    return f"{at.astimezone(UTC).isoformat(timespec='microseconds')[:-6]}Z"


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return timestamp(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _encoder() -> Callable[[Any], str]:
    """Return what writes a value as canonical JSON; the standard library makes its C encoder anew for each value."""
    make = getattr(encoder, "c_make_encoder", None)
    if make is None:
        return json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain).encode
    kept = make(None, _plain, encoder.encode_basestring_ascii, None, ":", ",", True, False, False)
    return lambda value: "".join(kept(value, 0))


_encode = _encoder()
json_string: Callable[[str], str] = encoder.encode_basestring_ascii
"""Writes a string as canonical JSON."""


def canonical(value: dict[str, Any]) -> bytes:
    """Write a value as canonical JSON; raises LineUnwritable."""
    return json_text(value).encode("ascii")


def json_text(value: Any) -> str:
    """Write a value as canonical JSON in text; raises LineUnwritable."""
    try:
        return _encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise LineUnwritable(f"{type(error).__name__}: {error}") from None


def _content(value: dict[str, Any] | str) -> str:
    return value if isinstance(value, str) else json_text(value)


def _string(value: str | None) -> str:
    return "null" if value is None else json_string(value)


def _sealed(domain: bytes, number: int, text: str) -> tuple[bytes, Head]:
    """Return the line of a chain that a canonical text makes, its newline included, and the head after it."""
    body = text.encode("ascii")
    if len(body) > MAX_LINE_BYTES:
        raise LineUnwritable(f"{len(body)} bytes, at most {MAX_LINE_BYTES}")
    digest = hashlib.sha256(domain + body).hexdigest()
    return b"%b%b%b%b" % (body[:-1], _HASH_HEAD, digest.encode(), _HASH_TAIL), Head(number, digest)


def event_line(
    head: Head, stream: str, at: str, kind: str, grant: str | None, session: str | None, data: dict[str, Any] | str
) -> tuple[bytes, Head]:
    """Return an event's line and the head after it; `at` is a timestamp, `data` a value or its canonical JSON."""
    number = head.seq + 1
    text = (
        f'{{"at":"{at}","data":{_content(data)},"grant":{_string(grant)},"prev":"{head.hash}","seq":{number},'
        f'"session":{_string(session)},"stream":{json_string(stream)},"type":{json_string(kind)}}}'
    )
    return _sealed(EVENT, number, text)


def record_line(
    head: Head,
    grant: str,
    at: str,
    kind: str,
    session: str | None,
    data: dict[str, Any] | str,
    detail: dict[str, Any] | str,
) -> tuple[bytes, Head]:
    """Return a line of a grant's recording and the head after it; as `event_line`."""
    number = head.seq + 1
    text = (
        f'{{"at":"{at}","data":{_content(data)},"detail":{_content(detail)},"grant":{json_string(grant)},'
        f'"prev":"{head.hash}","seq":{number},"session":{_string(session)},"type":{json_string(kind)}}}'
    )
    return _sealed(RECORD, number, text)


def opened(domain: bytes, line: bytes) -> tuple[dict[str, Any], Head]:
    """Read a line and check its own hash; raises ChainBroken. Its place in the chain is not checked."""
    if line[-len(_HASH_TAIL) :] != _HASH_TAIL or line[-_SUFFIX : -_SUFFIX + len(_HASH_HEAD)] != _HASH_HEAD:
        raise ChainBroken("the line is not whole")
    digest = hashlib.sha256(domain + line[:-_SUFFIX] + b"}").hexdigest()
    if line[-_SUFFIX + len(_HASH_HEAD) : -len(_HASH_TAIL)] != digest.encode():
        raise ChainBroken("the hash does not fit the line")
    try:
        content = json.loads(line)
        number = content["seq"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ChainBroken("the line does not read") from None
    if type(number) is not int:
        raise ChainBroken("the line has no number")
    return content, Head(number, digest)


def checked(domain: bytes, line: bytes, before: Head) -> tuple[dict[str, Any], Head]:
    """Read a line that must follow a head; raises ChainBroken."""
    content, head = opened(domain, line)
    if head.seq != before.seq + 1:
        raise ChainBroken(f"number {head.seq} follows {before.seq}")
    if content.get("prev") != before.hash:
        raise ChainBroken("it does not follow the line before it")
    return content, head


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed statement of where a stream stood; `prev` chains the checkpoints."""

    stream: str
    seq: int
    hash: str
    at: str
    prev: str
    signature: str = ""

    def message(self) -> bytes:
        """Return what is signed."""
        unsigned = {"stream": self.stream, "seq": self.seq, "hash": self.hash, "at": self.at, "prev": self.prev}
        return CHECKPOINT + canonical(unsigned)

    def line(self) -> bytes:
        """Return the checkpoint as a line."""
        fields = {"stream": self.stream, "seq": self.seq, "hash": self.hash, "at": self.at, "prev": self.prev}
        return canonical({**fields, "signature": self.signature}) + b"\n"


def checkpoint_prev(line: bytes | None, stream: str) -> str:
    """Return the `prev` of the checkpoint after a line, or of a stream's first."""
    text = b"first:" + stream.encode() if line is None else line
    return hashlib.sha256(CHECKPOINT + text).hexdigest()


def read_checkpoint(line: bytes) -> Checkpoint:
    """Read a checkpoint's line, every byte of which must be the canonical one; raises ChainBroken."""
    try:
        found = Checkpoint(**json.loads(line))
        if found.line() != line:
            raise ChainBroken("the checkpoint is not in its canonical form")
    except (ValueError, TypeError, RecursionError, LineUnwritable):
        raise ChainBroken("the checkpoint does not read") from None
    return found
