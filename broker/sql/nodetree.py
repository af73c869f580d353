"""PostgreSQL's stored trees (`pg_node_tree`): what a view or a default means, with every name resolved to an oid.

A node is a dict with its tag under "" and its fields under their names; a list is a list; everything else is a word.
Servers 13 to 18 write them alike, with more or fewer fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from broker.sql.tree import Node

MAX_TEXT = 4 * 1024 * 1024
_WORDS = re.compile(r"[(){}]|(?:\\.|[^\s(){}\\])+", re.S)


class UnreadableTree(ValueError):
    """a stored tree is not of a form that is known here"""


def read(text: str) -> Any:
    """Read a stored tree; raises UnreadableTree."""
    if len(text) > MAX_TEXT:
        raise UnreadableTree
    words = iter(_WORDS.findall(text))
    stack: list[Any] = [[]]
    pending: list[str | None] = [None]
    for word in words:
        if word in ("{", "("):
            stack.append({"": next(words, "")} if word == "{" else [])
            pending.append(None)
        elif word in ("}", ")"):
            if len(stack) < 2 or isinstance(stack[-1], dict) != (word == "}"):
                raise UnreadableTree
            pending.pop()
            _put(stack, pending, stack.pop())
        elif isinstance(stack[-1], dict) and pending[-1] is None and word[0] == ":":
            pending[-1] = word[1:]
        else:
            _put(stack, pending, _unescaped(word))
    if len(stack) != 1 or len(stack[0]) != 1:
        raise UnreadableTree
    return stack[0][0]


def _put(stack: list[Any], pending: list[str | None], value: Any) -> None:
    into, name = stack[-1], pending[-1]
    if isinstance(into, list):
        into.append(value)
    elif name is not None:
        into[name] = value
        pending[-1] = None
    # The bytes of a constant stand loose after its length; nobody needs them.


def _unescaped(word: str) -> str:
    return re.sub(r"\\(.)", r"\1", word, flags=re.S) if "\\" in word else word


def nodes(root: Any) -> Iterator[Node]:
    """Yield every node of a tree."""
    stack = [root]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack.extend(value)
        elif isinstance(value, dict):
            yield value
            stack.extend(value.values())


def number(node: Node, name: str) -> int:
    """Return a field that is a number; raises UnreadableTree."""
    try:
        return int(node[name])
    except (KeyError, TypeError, ValueError):
        raise UnreadableTree from None


def listed(node: Node, name: str) -> list[Any]:
    """Return a field that is a list, or nothing (`<>`)."""
    value = node.get(name, "<>")
    if value == "<>":
        return []
    if not isinstance(value, list):
        raise UnreadableTree
    return value
