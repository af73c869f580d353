"""Edits of a statement's own text at the parser's byte offsets, and of its tree, so that both can be compared."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from broker.sql.library import COMMENTS, FULL, Limits, Token, TokenKind, check_tokens, checked, parse, scan
from broker.sql.model import Refusal
from broker.sql.tree import placeless


@dataclass(slots=True)
class Source:
    """A text with its tokens; comments are not among `words`."""

    text: bytes
    words: list[Token]
    _starts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._starts = [word.start for word in self.words]

    @classmethod
    def of(cls, sql: str, limits: Limits = FULL) -> tuple[Source, list[Token]]:
        """Scan a text under the limits; returns every token too, for redaction."""
        text = checked(sql, limits)
        tokens = scan(text, limits)
        check_tokens(text, tokens, limits)
        return cls(text, [token for token in tokens if token.kind not in COMMENTS]), tokens

    def at(self, location: int) -> int:
        """Return the index of the word that starts at a byte; raises Refusal where none does (fail closed)."""
        index = bisect_left(self._starts, location)
        if index == len(self.words) or self.words[index].start != location:
            raise Refusal("rewrite", "this form of the statement cannot be masked: write it in a plainer way")
        return index

    def before(self, location: int) -> int:
        """Return the index of the last word that starts before a byte, or -1."""
        return bisect_left(self._starts, location) - 1

    def first(self, location: int) -> int:
        """Return the index of the first word at or after a byte."""
        return bisect_left(self._starts, location)

    def word(self, index: int) -> str:
        """Return a word in lower case, empty beyond the ends."""
        if not 0 <= index < len(self.words):
            return ""
        token = self.words[index]
        return self.text[token.start : token.end].decode(errors="replace").lower()

    def closing(self, index: int) -> int:
        """Return the index of the parenthesis that closes the one at `index`."""
        depth = 0
        for at in range(index, len(self.words)):
            kind = self.words[at].kind
            depth += (kind == TokenKind.LPAREN) - (kind == TokenKind.RPAREN)
            if depth == 0:
                return at
        raise Refusal("rewrite", "this form of the statement cannot be masked: parentheses do not match")

    def name_end(self, index: int, parts: int) -> int:
        """Return the index of the last word of a dotted name of so many parts that starts at `index`."""
        last = index + 2 * (parts - 1)
        for dot in range(index + 1, last, 2):
            if self.word(dot) != ".":
                raise Refusal("rewrite", "this form of a name cannot be masked: write it in a plainer way")
        return last


@dataclass(slots=True)
class Rewriter:
    """Collects edits; each is made in the text and in the tree."""

    source: Source
    tree: dict[str, Any]
    limits: Limits = FULL
    _edits: dict[tuple[int, int], str] = field(default_factory=dict)
    _moves: list[Callable[[], None]] = field(default_factory=list)
    _written: int = 0

    @property
    def touched(self) -> bool:
        return bool(self._edits)

    def replace(self, start: int, end: int, text: str) -> None:
        """Replace bytes; the same edit twice is one (the grammar repeats the nodes of `SET (a, b) = (...)`)."""
        self._edits[start, end] = text
        self._written += len(text)
        if len(self._edits) > self.limits.edits or self._written > self.limits.written:
            raise self.limits.over("limit-masks", "the statement reads too many masked fields at once")

    def also(self, move: Callable[[], None]) -> None:
        """Make the same change in the tree, when every edit is known."""
        self._moves.append(move)

    def inside(self, start: int, end: int) -> bool:
        """Say whether an edit lies strictly inside a range."""
        return any(start < at < end for at, _ in self._edits)

    def finish(self) -> tuple[str, tuple[tuple[int, int, int], ...]]:
        """Return the rewritten text and its runs; raises Refusal unless it parses to the intended tree."""
        source = self.source.text
        if not self._edits:
            return source.decode(), ((0, 0, len(source.decode())),)
        parts: list[str] = []
        runs: list[tuple[int, int, int]] = []
        at = new = old = 0
        for (start, end), text in sorted(self._edits.items()):
            if start < at:
                raise Refusal("rewrite", "this statement cannot be masked: two of its parts overlap")
            run = source[at:start].decode()
            runs.append((new, old, len(run)))
            parts += [run, text]
            new += len(run) + len(text)
            old += len(run) + len(source[start:end].decode())
            at = end
        tail = source[at:].decode()
        runs.append((new, old, len(tail)))
        rewritten = "".join([*parts, tail])
        for move in self._moves:
            move()
        try:
            intended = placeless(parse(rewritten.encode()))["stmts"] == placeless(self.tree)["stmts"]
        except Refusal:
            intended = False
        if not intended:
            raise Refusal("rewrite", "this form of the statement cannot be masked: write it in a plainer way")
        return rewritten, tuple(runs)


def position_in_user_text(runs: tuple[tuple[int, int, int], ...], position: int) -> int | None:
    """Map a 1-based character of the rewritten text to the user's, or None where it lies in what was written anew."""
    at = bisect_right(runs, (position - 1, 1 << 62, 0)) - 1
    if at < 0:
        return None
    new, old, length = runs[at]
    offset = position - 1 - new
    return old + offset + 1 if offset < length or (offset == length and at == len(runs) - 1) else None


@lru_cache(maxsize=64)
def fragment(sql: str) -> dict[str, Any]:
    """Parse a SELECT that the broker wrote; returns its content, which nobody changes."""
    content: dict[str, Any] = parse(sql.encode())["stmts"][0]["stmt"]["SelectStmt"]
    return content
