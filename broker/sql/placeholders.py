"""The shape of a statement that reviewers may approve: its values replaced by placeholders, and everything else of it.

A value is a number, a text or a parameter that stands where nothing but a value can: compared with a column, or
assigned to one. Everything else belongs to the shape: names, operators, how many items a list has, NULL and true, what
LIMIT, LIKE and functions are given, and what is compared with anything but a column. Not libpg_query's fingerprint:
that makes statements equal which mean different things. Here two are alike where the scanner reads the same words,
but for those values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from broker.sql.library import COMMENTS, ON_THE_SPOT, Token, TokenKind, check_tokens, checked, parse, scan
from broker.sql.model import Refusal
from broker.sql.tree import Node, strings, walk, wrapped

LONGEST = 4_096
_LIMITS = replace(ON_THE_SPOT)
"""The same, but that `f(x) = 1` is not taken for what could be costly."""
_LARGEST = 2**63 - 1
_LEAST = frozenset({2**31, 2**63})
"""With a sign before them, numbers of a type by themselves: each is the least of its own."""
_KINDS = frozenset({"SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt"})
_PARTS = _KINDS | frozenset(
    """
    A_ArrayExpr A_Const A_Expr A_Indices A_Indirection A_Star BooleanTest BoolExpr CaseExpr CaseWhen CoalesceExpr
    CollateClause ColumnRef FuncCall GroupingSet IndexElem Integer JoinExpr List LockingClause MinMaxExpr
    NamedArgExpr NullTest ParamRef RangeVar ResTarget RowExpr SetToDefault SortBy SQLValueFunction String SubLink
    TypeCast TypeName WindowDef
    """.split()
)
"""What a statement with a shape is made of.

No WITH, no sub-select or function in FROM, no sample: what looks like a column of one of those may be a constant that
is written beside it, and comparing it would decide about every row.
"""
_COMPARISONS = frozenset({"=", "<>", "<", "<=", ">", ">="})
_TYPES = frozenset(
    """
    bpchar date float4 float8 int2 int4 int8 interval numeric text time timestamp timestamptz timetz uuid varchar
    """.split()
)
"""A value may be cast to one of these; what is cast to another, as to regclass, may be a name."""
_NUMBERS = frozenset({TokenKind.ICONST, TokenKind.FCONST})
_TEXTS = frozenset({TokenKind.SCONST, TokenKind.USCONST})
_MINUS = ord("-")
_DECIMAL = re.compile(rb"\d+(\.\d*)?|\.\d+")
"""Servers before 16 read other ways to write a number as more than one word."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """Two statements have the same shape where their `key` is the same.

    `text` is for people, with `$1` for the first value; `values` say of each what may stand there.
    """

    key: tuple[Any, ...]
    text: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a statement's `$1` stand for: raw values with their formats and types, and as people read them."""

    values: Sequence[bytes | None] = ()
    formats: Sequence[int] = ()
    types: Sequence[int] = ()
    shown: Sequence[str | None] = ()

    def described(self, at: int, free: bool) -> tuple[list[Any], str]:
        """Return what belongs to a shape of one parameter, and what that means in words."""
        oid = self.types[at] if at < len(self.types) else 0
        binary = self.formats[at if len(self.formats) > 1 else 0] if self.formats else 0
        value = self.values[at]
        if value is None:
            return [oid, "null"], "NULL, as it is"
        if free:
            return [oid, "value"], "any value"
        return [oid, "exactly", binary, value.hex()], f"{self.shown[at] if at < len(self.shown) else '?'}, as it is"


def pattern(sql: str, parameters: Parameters) -> Pattern | None:
    """Return a statement's shape; None where it has none, or where that is not plain (fail closed)."""
    try:
        text = checked(sql, _LIMITS)
        if len(text) > LONGEST:
            return None
        tokens = scan(text, _LIMITS)
        check_tokens(text, tokens, _LIMITS)
        if _multiplies(text, tokens):
            return None
        found = parse(text, _LIMITS)["stmts"]
    except Refusal:
        return None
    top = wrapped(found[0]["stmt"]) if len(found) == 1 else None
    if top is None or top[0] not in _KINDS:
        return None
    nodes = [(kind, content) for kind, content, _ in walk(found[0]["stmt"])]
    if any(kind not in _PARTS or "intoClause" in content for kind, content in nodes):
        return None
    numbers = [int(content.get("number", 0)) for kind, content in nodes if kind == "ParamRef"]
    if not all(0 < number <= len(parameters.values) for number in numbers):
        return None
    places = {place for value in _values(top, nodes) if (place := _place(value)) is not None}
    return _written(text, tokens, places, parameters)


def _multiplies(text: bytes, tokens: Sequence[Token]) -> bool:
    """Say whether a text could hold `SET (a, b) = (...)`, whose tree is as large as both sides multiplied."""
    before: list[bool] = []
    assigns = closed = last = False
    for token in tokens:
        if token.kind in COMMENTS:
            continue
        if token.kind == TokenKind.LPAREN:
            before.append(last)
        assigns = token.kind == TokenKind.RPAREN and bool(before) and before.pop()
        if closed and token.kind == ord("="):
            return True
        closed = assigns
        last = token.kind == TokenKind.COMMA or text[token.start : token.end].lower() == b"set"
    return False


def _values(top: tuple[str, Node], nodes: Sequence[tuple[str, Node]]) -> Iterator[Any]:
    """Yield what stands where nothing but a value can."""
    kind, content = top
    if kind == "UpdateStmt":
        yield from _assigned(content.get("targetList"))
    elif kind == "InsertStmt":
        yield from _assigned(content.get("onConflictClause", {}).get("targetList"))
        rows = content.get("selectStmt", {}).get("SelectStmt", {}).get("valuesLists", [])
        yield from (item for row in rows for item in row.get("List", {}).get("items", []))
    for kind, content in nodes:
        if kind == "A_Expr":
            yield from _compared(content)


def _assigned(targets: list[Node] | None) -> Iterator[Any]:
    for target in targets or []:
        found = target.get("ResTarget", {})
        if "indirection" not in found:
            yield found.get("val")


def _compared(content: Node) -> Iterator[Any]:
    """Yield what one comparison compares a column with."""
    left, right, name = content.get("lexpr"), content.get("rexpr"), strings(content.get("name", []))
    match content.get("kind"):
        case "AEXPR_OP" if len(name) == 1 and name[0] in _COMPARISONS:
            if _is_column(left):
                yield right
            elif _is_column(right):
                yield left
        case "AEXPR_IN" | "AEXPR_BETWEEN" | "AEXPR_NOT_BETWEEN" if _is_column(left):
            yield from (right or {}).get("List", {}).get("items", [])


def _is_column(node: Node | None) -> bool:
    fields = (node or {}).get("ColumnRef", {}).get("fields", [])
    return bool(fields) and all("String" in field for field in fields)


def _place(node: Any) -> int | None:
    """Return where a plain value stands; None for anything else."""
    found = wrapped(node)
    if found is not None and found[0] == "TypeCast":
        names = strings(found[1].get("typeName", {}).get("names", []))
        plain = names[-1:] if names[:-1] in ([], ["pg_catalog"]) else []
        if not plain or plain[0] not in _TYPES or "arrayBounds" in found[1]["typeName"]:
            return None
        found = wrapped(found[1].get("arg"))
    if found is None or (found[0] != "ParamRef" and not {"ival", "fval", "sval"} & found[1].keys()):
        return None
    return int(found[1].get("location", -1)) if found[0] in ("A_Const", "ParamRef") else None


def _written(text: bytes, tokens: list[Token], places: set[int], parameters: Parameters) -> Pattern:
    """Write a statement's words with its values left out."""
    words = [token for token in tokens if token.kind not in COMMENTS]
    while words and words[-1].kind == TokenKind.SEMICOLON:
        words.pop()
    bound = {int(text[one.start + 1 : one.end]) for one in words if _is_bound(one, places)}
    key: list[Any] = []
    described: list[str] = []
    for at in range(len(parameters.values)):
        part, meaning = parameters.described(at, free=at + 1 not in bound)
        key.append(part)
        described.append(f"${at + 1}: {meaning}")
    shown: list[bytes] = []
    end = 0
    for index, token in enumerate(words):
        word, value = text[token.start : token.end], _value_of(text, words, index, places)
        gap = text[end : token.start]
        shown.append(b" " if gap.strip() else gap)  # a comment may be another one the next time
        if value is None:
            key.append(word.hex())
            shown.append(word)
        else:
            described.append(f"${len(described) + 1}: any {value}")
            key.append([value])
            shown.append(b"$%d" % len(described))
        end = token.end
    return Pattern(tuple(key), b"".join(shown).decode(errors="replace").strip(), tuple(described))


def _is_bound(token: Token, places: set[int]) -> bool:
    """Say whether a parameter stands where its value belongs to the shape."""
    return token.kind == TokenKind.PARAM and token.start not in places


def _value_of(text: bytes, words: list[Token], index: int, places: set[int]) -> str | None:
    """Return what a literal may be replaced by; None where the word itself belongs to the shape.

    The sign of a number does: the parser says that a negative one begins there.
    """
    token = words[index]
    signed = index > 0 and words[index - 1].kind == _MINUS and words[index - 1].start in places
    if token.kind in _TEXTS and token.start in places:
        return "text"
    word = text[token.start : token.end]
    if token.kind not in _NUMBERS or not (token.start in places or signed) or not _DECIMAL.fullmatch(word):
        return None
    if signed and word.isdigit() and int(word) in _LEAST:
        return None
    if token.kind == TokenKind.ICONST:
        return "whole number"
    return "large whole number" if word.isdigit() and int(word) <= _LARGEST else "number"
