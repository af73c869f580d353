"""PostgreSQL's own parser and scanner: libpg_query, from the library that the `postgast` wheel ships, by ctypes.

The grammar is PostgreSQL 18's. Parse trees come as JSON, tokens as protocol buffers (pg_query.proto, ScanResult).
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import re
import sys
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from broker.core import compiled
from broker.sql.model import Refusal

MAX_BYTES = 128 * 1024
MAX_OPERATORS = 2_000
MAX_NESTING = 100


class Costly(Exception):
    """reading this text takes longer than others may wait for"""


@dataclass(frozen=True, slots=True)
class Limits:
    """What reading a text may cost: bytes of the tree and of what masks add, characters of operators squared."""

    tokens: int
    statements: int
    tree: int
    edits: int
    written: int
    runs: int

    def over(self, rule: str, message: str) -> Exception:
        """Return what to raise for a text beyond a limit: where others wait, it is not refused but read elsewhere."""
        return Costly() if self is ON_THE_SPOT else Refusal(rule, message, sqlstate="54001")


FULL = Limits(tokens=20_000, statements=1_000, tree=6 * 1024 * 1024, edits=1_000, written=256 * 1024, runs=2_000_000)
ON_THE_SPOT = Limits(tokens=400, statements=16, tree=64 * 1024, edits=16, written=8 * 1024, runs=100_000)
"""A few milliseconds, whatever the text: others wait for them."""
_RUN = re.compile(rb"[-+*/<>=~!@#%^&|`?]{32,}")
_ASSIGN = ord("=")


class TokenKind(IntEnum):
    """The scanner's token numbers that matter here (pg_query.proto, enum Token)."""

    LPAREN = 40
    RPAREN = 41
    COMMA = 44
    DOT = 46
    SEMICOLON = 59
    IDENT = 258
    UIDENT = 259
    FCONST = 260
    SCONST = 261
    USCONST = 262
    BCONST = 263
    XCONST = 264
    OP = 265
    ICONST = 266
    PARAM = 267
    SQL_COMMENT = 275
    C_COMMENT = 276


LITERALS = frozenset(
    {
        TokenKind.FCONST,
        TokenKind.SCONST,
        TokenKind.USCONST,
        TokenKind.BCONST,
        TokenKind.XCONST,
        TokenKind.ICONST,
    }
)
_COMPARISONS = frozenset({TokenKind.OP, 272, 273, 274})  # Op, LESS_EQUALS, GREATER_EQUALS, NOT_EQUALS
COMMENTS = frozenset({TokenKind.SQL_COMMENT, TokenKind.C_COMMENT})


class Token(NamedTuple):
    """A token's bytes `start` to `end`; `keyword` is whether the grammar knows the word."""

    start: int
    end: int
    kind: int
    keyword: bool


class _Error(ctypes.Structure):
    _fields_ = (
        ("message", ctypes.c_char_p),
        ("funcname", ctypes.c_char_p),
        ("filename", ctypes.c_char_p),
        ("lineno", ctypes.c_int),
        ("cursorpos", ctypes.c_int),
        ("context", ctypes.c_char_p),
    )


class _ParseResult(ctypes.Structure):
    _fields_ = (
        ("parse_tree", ctypes.c_char_p),
        ("stderr_buffer", ctypes.c_char_p),
        ("error", ctypes.POINTER(_Error)),
    )


class _Protobuf(ctypes.Structure):
    _fields_ = (("len", ctypes.c_size_t), ("data", ctypes.POINTER(ctypes.c_char)))


class _ScanResult(ctypes.Structure):
    _fields_ = (("pbuf", _Protobuf), ("stderr_buffer", ctypes.c_char_p), ("error", ctypes.POINTER(_Error)))


@cache
def _library() -> ctypes.CDLL:
    found = importlib.util.find_spec("postgast")
    if found is None or found.origin is None:
        raise RuntimeError("the package `postgast`, which ships libpg_query, is not installed")
    suffix = {"darwin": "dylib", "win32": "dll"}.get(sys.platform, "so")
    library = ctypes.CDLL(str(Path(found.origin).parent / f"libpg_query.{suffix}"))
    library.pg_query_parse.argtypes = [ctypes.c_char_p]
    library.pg_query_parse.restype = _ParseResult
    library.pg_query_free_parse_result.argtypes = [_ParseResult]
    library.pg_query_scan.argtypes = [ctypes.c_char_p]
    library.pg_query_scan.restype = _ScanResult
    library.pg_query_free_scan_result.argtypes = [_ScanResult]
    return library


def parse(text: bytes, limits: Limits = FULL) -> dict[str, Any]:
    """Return the parse tree of a text as PostgreSQL 18 parses it; raises Refusal where it does not, or is too deep."""
    return read(text, limits)[0]


def read(text: bytes, limits: Limits = FULL) -> tuple[dict[str, Any], int]:
    """Parse a text; returns how many relations are named in it as well."""
    written = parsed(text, limits)
    try:
        tree: dict[str, Any] = json.loads(written.decode("utf-8", "surrogatepass"))
    except RecursionError:
        raise Refusal("limit-nesting", "the statement is nested too deeply", sqlstate="54001") from None
    # In a string of JSON a quote is never bare, so this is always a key.
    return tree, written.count(b'"relname":')


def parsed(text: bytes, limits: Limits = FULL) -> bytes:
    """Return a parse tree as the parser writes it: JSON; raises Refusal."""
    library = _library()
    result = library.pg_query_parse(text)
    try:
        if result.error:
            raise _unparseable(result.error.contents)
        written: bytes = result.parse_tree
        if len(written) > limits.tree:
            # The grammar repeats the source of `SET (a, b) = (...)` for each column.
            raise limits.over("limit-tree", "the statement is too large when it is parsed")
    finally:
        library.pg_query_free_parse_result(result)
    return written


def scan(text: bytes, limits: Limits = FULL) -> list[Token]:
    """Return the tokens of a text, comments included; raises Refusal where it does not scan, or has too many."""
    library = _library()
    result = library.pg_query_scan(text)
    try:
        if result.error:
            raise _unparseable(result.error.contents)
        data = ctypes.string_at(result.pbuf.data, result.pbuf.len)
    finally:
        library.pg_query_free_scan_result(result)
    return _tokens(data, limits)


def refusal_of_length(length: int) -> Refusal | None:
    """Return why a text of so many bytes or characters is refused, or None."""
    if length <= MAX_BYTES:
        return None
    return Refusal("limit-length", f"the statement is longer than {MAX_BYTES // 1024} KiB", sqlstate="54000")


def checked(sql: str, limits: Limits = FULL) -> bytes:
    """Return a text's bytes if the parser may see them: limits come before it (a parser can stall, or overflow)."""
    try:
        text = sql.encode()
    except UnicodeEncodeError:
        raise Refusal("encoding", "the statement is not valid UTF-8", sqlstate="22021") from None
    if (refusal := refusal_of_length(len(text))) is not None:
        raise refusal
    if b"\0" in text:
        raise Refusal("encoding", "the statement holds a zero byte", sqlstate="22021")
    # PostgreSQL's lexer is quadratic in characters of operators that stand together (`+++`, and `/*/*/*` too): it
    # reads all of them, takes one, and begins again with the rest.
    if sum((run.end() - run.start()) ** 2 for run in _RUN.finditer(text)) > limits.runs:
        raise limits.over("limit-operators", "the statement has too many characters of operators in a row")
    return text


def check_tokens(text: bytes, tokens: list[Token], limits: Limits = FULL) -> None:
    """Refuse what would overflow the parser or the reader of its tree."""
    kinds = [token.kind for token in tokens]
    if limits is ON_THE_SPOT and _ASSIGN in kinds:
        for before, kind in pairwise(kinds):
            if kind == _ASSIGN and before == TokenKind.RPAREN:
                # It could be `SET (a, b) = (...)`, whose tree is as large as both sides multiplied.
                raise Costly
    if len(kinds) <= MAX_OPERATORS and sum(map(kinds.count, _opening())) <= MAX_NESTING:
        return  # Neither can be too many.
    depth = deepest = operators = cases = 0
    before = 0
    for token in tokens:
        word = text[token.start : token.end]
        if token.keyword and before != TokenKind.DOT:
            cases = max(0, cases + (word.lower() == b"case") - (word.lower() == b"end"))
        before = token.kind
        if token.kind in (TokenKind.LPAREN, ord("[")):
            depth += 1
        elif token.kind in (TokenKind.RPAREN, ord("]")):
            depth -= 1
        elif (
            (token.keyword and word.lower() in (b"and", b"or", b"not", b"union", b"intersect", b"except", b"join"))
            or token.kind in _COMPARISONS
            or (token.kind < 128 and chr(token.kind) in "+-*/%^<>=")
        ):
            operators += 1
        deepest = max(deepest, depth, cases)
    if deepest > MAX_NESTING:
        raise Refusal("limit-nesting", "the statement is nested too deeply", sqlstate="54001")
    if operators > MAX_OPERATORS:
        raise Refusal("limit-operators", f"the statement has more than {MAX_OPERATORS} operators", sqlstate="54001")


@cache
def _opening() -> tuple[int, ...]:
    """Return the numbers of the tokens that nest what follows."""
    (case,) = scan(b"case")
    return (TokenKind.LPAREN, ord("["), case.kind)


def _unparseable(error: _Error) -> Refusal:
    message = (error.message or b"syntax error").decode(errors="replace")
    # libpg_query's cursor position counts characters from one.
    return Refusal("syntax", message, sqlstate="42601", position=error.cursorpos or None)


_NUMBER = rb"[\x80-\xff]{0,2}+[\x00-\x7f]"
# What was matched once is never given back, which is all that the pluses say, and half of the time.
_SCAN_TOKEN = re.compile(
    rb"(\x12[\x00-\x7f](?:\x08(N))?+(?:\x10(N))?+(?:\x20(N))?+(?:\x28(N))?+)".replace(b"N", _NUMBER), re.DOTALL
)
"""A ScanToken in its frame: start, end, token and keyword_kind; a field that is 0 is left out."""
_LONGEST_TOKEN = 18
_WHOLE = itemgetter(0)
_VERSION = re.compile(rb"\x08[\x80-\xff]{0,4}[\x00-\x7f]", re.DOTALL)


class _Numbers(dict[bytes, int]):
    """Numbers by their bytes (varints of protocol buffers); the short ones are kept."""

    def __missing__(self, data: bytes) -> int:
        value = 0
        for byte in reversed(data):
            value = value << 7 | byte & 0x7F
        if len(data) < 3:
            self[data] = value
        return value


_numbers = _Numbers()


def _tokens(data: bytes, limits: Limits) -> list[Token]:
    version = _VERSION.match(data)
    begin = version.end() if version else 0
    found: list[Token] | None = []
    many = len(data) - begin > limits.tokens * _LONGEST_TOKEN
    if not many:
        found = _read_tokens(data, begin) if compiled is None else compiled.tokens(data, begin, Token)
    if found is None:
        # A library that writes its tokens in another way is not understood (fail closed).
        raise Refusal("syntax-unknown", "this statement is scanned into what is not understood")
    if many or len(found) > limits.tokens:
        raise limits.over("limit-tokens", f"the statement has more than {limits.tokens} words")
    return found


def _read_tokens(data: bytes, begin: int) -> list[Token] | None:
    """Read the ScanTokens of a ScanResult from a place on; None where one is another."""
    found = _SCAN_TOKEN.findall(data, begin)
    if sum(map(len, map(_WHOLE, found))) != len(data) - begin:
        return None
    numbers, token = _numbers, tuple.__new__
    return [
        # As Token(...) does, without a call of Python's for each word.
        token(Token, (numbers[start], numbers[end], numbers[kind], keyword not in _NONE))
        for _, start, end, kind, keyword in found
    ]


_NONE = (b"", b"\0")
