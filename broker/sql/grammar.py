"""Syntax that the grammar here knows and an older server does not: to that one it is a call of a function."""

from __future__ import annotations

from broker.sql.tree import Node

_SINCE = {
    "json_array": 16, "json_arrayagg": 16, "json_object": 16, "json_objectagg": 16,
    "json": 17, "json_exists": 17, "json_query": 17, "json_scalar": 17, "json_serialize": 17, "json_value": 17,
    "merge_action": 17,
}  # fmt: skip
"""Words that were the names of functions like any other -> the version that has them as syntax."""
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
