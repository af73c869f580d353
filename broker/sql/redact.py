"""Redaction: every literal and comment of a statement is replaced, by the scanner's tokens."""

from __future__ import annotations

from bisect import bisect_left
from operator import attrgetter

from broker.sql.library import COMMENTS, LITERALS, Token, TokenKind, check_tokens, checked, scan
from broker.sql.model import Refusal

UNREADABLE = "(a statement that does not scan)"
LONGEST = 2_000
_start = attrgetter("start")
_HIDDEN = LITERALS | COMMENTS
_MADE, _ROLES = frozenset({b"create", b"alter"}), frozenset({b"role", b"user", b"group"})


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
    words: list[bytes] = []
    passwords = b"password" in text[start:end].lower()
    first, last = bisect_left(tokens, start, key=_start), bisect_left(tokens, end, key=_start)
    for token in tokens[first:last]:
        if token.start < at:
            continue
        if token.kind not in _HIDDEN:
            if not passwords:
                continue
            word = text[token.start : token.end].lower()
            if _bare_password(words, word):
                # Its author forgot the quotes: where it ends nobody knows, so the rest is hidden too.
                parts.append(text[at : token.start] + b"?")
                at = end
            words = [] if token.kind == TokenKind.SEMICOLON else [*words[:2], word]
            continue
        words = [*words[:2], b"?"] if token.kind in LITERALS else words
        parts += [text[at : token.start], b" " if token.kind in COMMENTS else b"?"]
        at = token.end
    parts.append(text[at:end])
    line = " ".join(b"".join(parts).decode(errors="replace").split()).rstrip("; ")
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}… (+{len(line) - LONGEST} characters)"


def _bare_password(words: list[bytes], word: bytes) -> bool:
    """Say whether a word stands where a role's password does; `words` are its statement's first two, and the last."""
    if len(words) < 3 or words[0] not in _MADE or words[1] not in _ROLES:
        return False
    return words[2] == b"password" and word not in (b"null", b";")
