"""Walking libpg_query's JSON trees with a stack, never by recursion."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Node = dict[str, Any]


def wrapped(value: Any) -> tuple[str, Node] | None:
    """Return the type and content of a tagged node (`{"ColumnRef": {...}}`), or None for anything else."""
    if isinstance(value, dict) and len(value) == 1:
        ((name, content),) = value.items()
        if name[0].isupper() and isinstance(content, dict):
            return name, content
    return None


def walk(root: Any) -> Iterator[tuple[str, Node, Node]]:
    """Yield (type, content, wrapper) of every tagged node, and of the SELECTs that stand untagged in set operations."""
    stack: list[Any] = [root]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack.extend(reversed(value))
        elif isinstance(value, dict):
            node = wrapped(value)
            if node is not None:
                yield node[0], node[1], value
                stack.extend(_children(node[1]))
            else:
                stack.extend(_children(value))


def _children(content: Node) -> Iterator[Any]:
    for key, child in reversed(content.items()):
        if isinstance(child, (dict, list)):
            # The arms of a set operation are SELECTs without a tag.
            yield {"SelectStmt": child} if key in ("larg", "rarg") and wrapped(child) is None else child


def strings(names: list[Node]) -> list[str]:
    """Return the parts of a qualified name."""
    return [part["String"].get("sval", "") for part in names if "String" in part]


def called(content: Node) -> str:
    """Return the name by which the rest of a statement calls what stands in its FROM."""
    name: str = content.get("alias", {}).get("aliasname", content.get("relname", ""))
    return name


def joined(items: list[Node]) -> list[Node]:
    """Return the content of what stands in a FROM, looking through joins; a table's RangeVar, sampled or not."""
    found: list[Node] = []
    stack: list[Any] = list(items)
    while stack:
        kind, content = wrapped(stack.pop()) or ("", {})
        if kind == "JoinExpr":
            stack += [content["larg"], content["rarg"]]
        else:
            found.append(content["relation"]["RangeVar"] if kind == "RangeTableSample" else content)
    return found


_PLACES = frozenset(
    "location stmt_location name_location stmt_len list_start list_end rexpr_list_start rexpr_list_end".split()
)


def placeless(value: Any) -> Any:
    """Return a tree without its byte positions, for comparing two."""
    if isinstance(value, dict):
        return {key: placeless(child) for key, child in value.items() if key not in _PLACES}
    if isinstance(value, list):
        return [placeless(child) for child in value]
    return value
