"""Statements that set the search path, and what may run under one that a session has set.

Relations are resolved under the path of the moment like under any other. What cannot be resolved is code of users':
a function's body, a trigger's, looks its names up when it runs. Whoever vouched for it did so under the path that is
pinned, so under another one it is refused, or, where nothing is masked, left to rules about all code.
"""

from __future__ import annotations

from collections.abc import Callable

from broker.sql.catalogue import Catalogue, Relation
from broker.sql.collected import Collected
from broker.sql.ddl import Change
from broker.sql.library import parse
from broker.sql.masks import quote_text
from broker.sql.model import Moves, Refusal
from broker.sql.relations import Scope
from broker.sql.rewrite import Rewriter
from broker.sql.settings import moved_by, untimed
from broker.sql.tree import Node

_UPKEEP = frozenset({"VacuumStmt", "ClusterStmt", "ReindexStmt", "RefreshMatViewStmt"})
"""What runs the functions in indexes and views, with their owners' rights."""
_KEPT_SAFE = 17_00_00
"""From this version on the server runs what upkeep runs under a path of its own."""
_FIRST = (
    "RESET search_path first, and name what it is about with its schema; vacuumdb and the like, which set one, "
    "pass on servers from 17 on"
)
_BACK = "name tables with their schema, under the search path that is pinned; code that sets a path of its own passes"


def rewrite_set(content: Node, start: int, end: int, rewriter: Rewriter) -> Moves:
    """Have a SET of the search path or a timeout sent as the broker writes it; returns what it does to the path."""
    moves, text = moved_by(content)
    if text := text or untimed(content):
        source = rewriter.source
        first, last = source.first(start), source.before(end)
        rewriter.replace(source.words[first].start, source.words[last].end, text)
        written = parse(text.encode())["stmts"][0]["stmt"]["VariableSetStmt"]

        def move() -> None:
            content.clear()
            content.update(written)

        rewriter.also(move)
    return moves


def rewrite_calls(found: Collected, rewriter: Rewriter, *, plain: bool) -> Moves:
    """Have calls that set the search path sent as the broker writes it; returns what they do to the path.

    Only a SELECT of nothing else may call so: what stands beside it could run under the one path or the other.
    """
    if not found.moved:
        return Moves.NOT
    if not plain or found.targets or found.references or found.own or found.coded:
        raise Refusal("settings", "the search path is set by a statement of its own", "SET search_path TO app, public")
    for constant, text in found.moved:
        at = rewriter.source.at(constant["location"])
        word = rewriter.source.words[at]
        rewriter.replace(word.start, word.end, quote_text(text))
        rewriter.also(_setter(constant, text))
    return Moves.ELSEWHERE


def check_code(found: Collected, scope: Scope) -> None:
    """Refuse code of users' that could look its names up in a path that the session has set (fail closed)."""
    following = {str(one.function) for one in found.own if one.follows}
    targets = [scope.target(content) for kind, content, _ in found.targets if kind != "LockStmt"]
    following |= {_what(one) for one in targets if one.oid and one.follows}
    if not found.in_clear:
        read = [relation for *_, relation in scope.resolved if not relation.system]
        following |= {f"what {one.qualified} shows" for one in read if scope.catalogue.looks(one)}
    if not following:
        return
    if not found.in_clear:
        what = sorted(following)[0]
        raise Refusal("search-path", f"{what} could mean other tables under the search path that is set", _BACK)
    found.coded |= {f"{one}, under another search path" for one in following}


def check_change(kind: str, change: Change, catalogue: Catalogue, *, in_clear: bool) -> set[str]:
    """Return what a change of the schema runs of users' code that looks names up; raises Refusal.

    Where anything is masked there may be no change: event triggers run code too, and nothing says which.
    """
    if not in_clear or (kind in _UPKEEP and catalogue.server_version < _KEPT_SAFE):
        raise Refusal("search-path", "this is not passed under a search path that the session has set", _FIRST)
    if kind in _UPKEEP:
        return set()
    known = [catalogue.relation(one.get("schemaname"), one["relname"]) for one in change.touched]
    return {f"{_what(one)}, under another search path" for one in known if one is not None and one.follows}


def _what(relation: Relation) -> str:
    return f"what a change of {relation.qualified} runs"


def _setter(constant: Node, text: str) -> Callable[[], None]:
    return lambda: constant.update(sval={"sval": text})
