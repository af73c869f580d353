"""Edits of a statement's own text at the parser's byte offsets, and of its tree, so that both can be compared."""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from broker.sql.library import COMMENTS, FULL, Limits, Token, TokenKind, check_tokens, checked, parse, parsed, scan
from broker.sql.model import Refusal
from broker.sql.tree import placeless

Run = tuple[int, int, int]
Runs = tuple[Run, ...]
"""See Inspection.edits."""


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
    _edits: dict[tuple[int, int], tuple[str, int]] = field(default_factory=dict)
    _moves: list[Callable[[], None]] = field(default_factory=list)
    _written: int = 0

    @property
    def touched(self) -> bool:
        return bool(self._edits)

    def replace(self, start: int, end: int, text: str, named: int | None = None) -> None:
        """Replace bytes; the same edit twice is one (the grammar repeats the nodes of `SET (a, b) = (...)`).

        `named` is the byte that an error in the new text is said to be at; the first one where it is not given.
        """
        self._edits[start, end] = text, start if named is None else named
        self._written += len(text)
        if len(self._edits) > self.limits.edits or self._written > self.limits.written:
            raise self.limits.over("limit-masks", "the statement reads too many masked fields at once")

    def also(self, move: Callable[[], None]) -> None:
        """Make the same change in the tree, when every edit is known."""
        self._moves.append(move)

    def inside(self, start: int, end: int) -> bool:
        """Say whether an edit lies strictly inside a range."""
        return any(start < at < end for at, _ in self._edits)

    def finish(self) -> tuple[str, Runs]:
        """Return the rewritten text and its runs; raises Refusal unless it parses to the intended tree."""
        rewritten, runs = edited(self.source.text, self._edits)
        if not self._edits:
            return rewritten, runs
        for move in self._moves:
            move()
        try:
            intended = _same(parsed(rewritten.encode()), self.tree)
        except Refusal:
            intended = False
        if not intended:
            raise Refusal("rewrite", "this form of the statement cannot be masked: write it in a plainer way")
        return rewritten, runs


def _same(written: bytes, tree: dict[str, Any]) -> bool:
    """Say whether what the parser has written is a tree, whatever the places in them are.

    Mostly the tree reads the same when it is written in the parser's way; else both are compared node by node.
    """
    # The parser escapes two characters more. Where a backslash stands before one, this gives what is no JSON at all.
    plain = written.replace(b"\\u003e", b">").replace(b"\\u003c", b"<")
    if _without_places(plain) == _without_places(_in_json(tree).encode("utf-8", "surrogatepass")):
        return True
    found = json.loads(written.decode("utf-8", "surrogatepass"))
    return bool(placeless(found)["stmts"] == placeless(tree)["stmts"])


_in_json = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode


def _without_places(written: bytes) -> bytes:
    """Take the places out of a tree in JSON, in whose strings no quote is bare."""
    written = _LOCATION.sub(b"", written)
    if any(place in written for place in _RARE):
        written = _BEHIND.sub(b"", _FIRST.sub(b"{", written))
    return written


_PLACE = rb'"(?:(?:stmt_|name_)?location|stmt_len|(?:rexpr_)?list_(?:start|end))":-?[0-9]+'
# Each begins with plain characters, which are found fast; most places are of the first form.
_LOCATION = re.compile(rb',"location":-?[0-9]+')
_RARE = (b'"location":', b'"stmt_l', b'"name_l', b'"list_', b'"rexpr_list_')
_FIRST = re.compile(rb"\{" + _PLACE + rb"(?:," + _PLACE + rb")*,?")
_BEHIND = re.compile(rb"," + _PLACE)


def edited(source: bytes, edits: Mapping[tuple[int, int], tuple[str, int]]) -> tuple[str, Runs]:
    """Return a text with ranges of its bytes replaced, and its runs; raises Refusal where two of them overlap.

    Each edit has its new text, and the byte of the old one that an error in it is said to be at.
    """
    parts: list[str] = []
    runs: list[tuple[int, int, int]] = []
    at = new = old = 0
    for (start, end), (text, named) in sorted(edits.items()):
        if start < at:
            raise Refusal("rewrite", "this statement cannot be masked: two of its parts overlap")
        run = source[at:start].decode()
        if run:
            runs.append((new, old, len(run)))
        new, old = new + len(run), old + len(run)
        if text:
            runs.append((new, old + len(source[start:named].decode()), 0))
        parts += [run, text]
        new += len(text)
        old += len(source[start:end].decode())
        at = end
    tail = source[at:].decode()
    # An error at the end of a text stands behind its last character.
    runs.append((new, old, len(tail) + 1))
    return "".join([*parts, tail]), tuple(runs)


def whole_run(sql: str) -> Runs:
    """Return the runs of a text that is sent as it came."""
    return ((0, 0, len(sql) + 1),)


def position_in_user_text(runs: Sequence[Run], position: int) -> int | None:
    """Map a 1-based character of the rewritten text to the user's: what was written anew is where its name stands.

    Returns None where there is no such character.
    """
    at = bisect_right(runs, (position - 1, 1 << 62, 0)) - 1
    if at < 0 or position < 1:
        return None
    new, old, length = runs[at]
    offset = position - 1 - new
    return old + 1 if not length else old + offset + 1 if offset < length else None


@lru_cache(maxsize=64)
def fragment(sql: str) -> dict[str, Any]:
    """Parse a SELECT that the broker wrote; returns its content, which nobody changes."""
    content: dict[str, Any] = parse(sql.encode())["stmts"][0]["stmt"]["SelectStmt"]
    return content
