"""What the grammar here reads otherwise than some servers do: syntax of newer versions, names in other encodings."""

from __future__ import annotations

from collections.abc import Sequence

from broker.sql.library import Token, TokenKind
from broker.sql.model import Refusal
from broker.sql.tree import Node

_LONGEST = 63
"""Bytes of a name."""

_SINCE = {
    "json_array": 16, "json_arrayagg": 16, "json_object": 16, "json_objectagg": 16,
    "json": 17, "json_exists": 17, "json_query": 17, "json_scalar": 17, "json_serialize": 17, "json_value": 17,
    "merge_action": 17,
}  # fmt: skip
"""Words that name functions like any other for servers before a version, which call them -> that version."""
SYNTAX = {
    "JsonArrayAgg": "json_arrayagg",
    "JsonArrayConstructor": "json_array",
    "JsonArrayQueryConstructor": "json_array",
    "JsonFuncExpr": "",
    "JsonObjectAgg": "json_objectagg",
    "JsonObjectConstructor": "json_object",
    "JsonParseExpr": "json",
    "JsonScalarExpr": "json_scalar",
    "JsonSerializeExpr": "json_serialize",
    "MergeSupportFunc": "merge_action",
}
"""Kind of node -> the word that it begins with; of JsonFuncExpr its operation says it."""


def called(kind: str, content: Node, server_version: int) -> str:
    """Return the function that a node of `SYNTAX` is a call of for a server (server_version_num), or nothing."""
    name = SYNTAX[kind] or content["op"].removesuffix("_OP").lower()
    return name if server_version < _SINCE[name] * 10_000 else ""


def as_called(parts: list[str], server_version: int) -> list[str]:
    """Return a function's name as an older server reads it: the grammar gives `json_object(...)` a schema."""
    older = parts == ["pg_catalog", "json_object"] and server_version < _SINCE["json_object"] * 10_000
    return parts[1:] if older else parts


def is_column(parts: list[str], server_version: int) -> bool:
    """Say whether what reads as a call is the name of a column for an older server: a bare `system_user`."""
    return parts == ["pg_catalog", "system_user"] and server_version < 160_000


def check_names(text: bytes, tokens: Sequence[Token]) -> None:
    """Refuse names that a server whose database is not in UTF-8 could take for others; raises Refusal.

    It may write letters small that are left as they are here, and cuts a long name off where it is too long for it.
    """
    for token in tokens:
        if token.kind not in (TokenKind.IDENT, TokenKind.UIDENT):
            continue
        name = text[token.start : token.end].decode()
        if token.end - token.start > _LONGEST and (token.kind == TokenKind.UIDENT or not name.isascii()):
            raise Refusal("name", f"a name with other letters than ASCII is longer than {_LONGEST} bytes")
        if name[0] != '"' and any(not letter.isascii() and letter.lower() != letter for letter in name):
            hint = "write it in small letters, or in double quotes as it was defined"
            raise Refusal("name", f"{name} has a capital letter that this database may read as a small one", hint)
