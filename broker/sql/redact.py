"""Redaction: every literal and comment of a statement is replaced, by the scanner's tokens."""

from __future__ import annotations

from bisect import bisect_left
from operator import attrgetter

from broker.sql.library import COMMENTS, LITERALS, Token, check_tokens, checked, scan
from broker.sql.model import Refusal

UNREADABLE = "(a statement that does not scan)"
LONGEST = 2_000
_start = attrgetter("start")
_HIDDEN = LITERALS | COMMENTS


def redact(sql: str) -> str:
    """Return a text without its literals and comments, in one line; what does not scan is not shown at all."""
    try:
        text = checked(sql)
        tokens = scan(text)
        check_tokens(text, tokens)
    except Refusal:
        return UNREADABLE
    return redacted(text, tokens, 0, len(text))


def redacted(text: bytes, tokens: list[Token], start: int, end: int) -> str:
    """Return one statement of a scanned text redacted; bounded, with the number of characters left out."""
    parts: list[bytes] = []
    at = start
    first, last = bisect_left(tokens, start, key=_start), bisect_left(tokens, end, key=_start)
    for token in tokens[first:last]:
        if token.kind not in _HIDDEN:
            continue
        parts += [text[at : token.start], b" " if token.kind in COMMENTS else b"?"]
        at = token.end
    parts.append(text[at:end])
    line = " ".join(b"".join(parts).decode(errors="replace").split()).rstrip("; ")
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}… (+{len(line) - LONGEST} characters)"
