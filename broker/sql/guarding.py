"""The check of a strict role's change: what it reads of the rows that it changes is what the catalogue said.

A change has no sub-select that could check it, so the check stands before its own conditions. It is looked at before
any row is: nothing is changed, counted or returned by names that mean something else by now.
"""

from __future__ import annotations

from collections.abc import Iterator

from broker.sql.guard import unchanged
from broker.sql.library import TokenKind
from broker.sql.model import Refusal
from broker.sql.relations import Scope
from broker.sql.rewrite import Rewriter, Source, fragment
from broker.sql.tree import Node

_DEPTHS: dict[int, int] = {TokenKind.LPAREN: 1, TokenKind.RPAREN: -1}


def guard_changes(scope: Scope, rewriter: Rewriter) -> None:
    """Have each change of rows that are there fail where its target no longer is what it was decided on.

    What only adds rows reads none.
    """
    if not scope.strict or scope.found.in_clear:
        return
    for kind, content, statement in scope.found.targets:
        check = unchanged(scope.catalogue, scope.target(content)) if kind in _GUARDED else ""
        if kind in ("UpdateStmt", "DeleteStmt"):
            _guard_where(_Words.behind(content, rewriter.source), statement, check, rewriter)
        elif kind == "MergeStmt":
            _guard_merge(_Words.behind(content, rewriter.source), statement, check, rewriter)
        elif statement.get("onConflictClause", {}).get("action") == "ONCONFLICT_UPDATE":
            words = _Words.behind(content, rewriter.source)
            words = words.since(words.last("on", "conflict")).since_first("do")
            _guard_where(words, statement["onConflictClause"], check, rewriter)


_GUARDED = frozenset({"UpdateStmt", "DeleteStmt", "MergeStmt", "InsertStmt"})


class _Words:
    """The words of one statement behind the name of its target that stand in no parentheses and in no CASE."""

    def __init__(self, source: Source, indexes: list[int]) -> None:
        self._source, self._indexes = source, indexes

    @classmethod
    def behind(cls, content: Node, source: Source) -> _Words:
        first = source.at(content["location"])
        within = source.word(first - 1) == "(" and source.word(first - 2) == "only"
        return cls(source, list(_plain(source, first, depth=1 if within else 0)))

    def __iter__(self) -> Iterator[tuple[int, str]]:
        """Yield what could be a word of the grammar, with its place: no name of a column or an output."""
        for index in self._indexes:
            if self._source.word(index - 1) not in (".", "as"):
                yield index, self._source.word(index)

    def first(self, *said: str) -> int | None:
        """Return the index of the first of these words, if there is one."""
        return next((index for index, word in self if word in said), None)

    def since(self, index: int) -> _Words:
        return _Words(self._source, [one for one in self._indexes if one >= index])

    def until(self, index: int | None) -> _Words:
        return _Words(self._source, [one for one in self._indexes if index is None or one < index])

    def since_first(self, said: str) -> _Words:
        return self.since(_found(self.first(said)))

    def last(self, said: str, then: str = "") -> int:
        """Return the index of the last of a word, behind which another one stands."""
        found = [index for index, word in self if word == said and then in ("", self._source.word(index + 1))]
        return _found(found[-1] if found else None)

    def arms(self) -> list[int]:
        """Return the index of each WHEN of a MERGE; those of a CASE are not among the words."""
        return [index for index, word in self if word == "when"]

    @property
    def end(self) -> int:
        """Return the byte behind the last of all words."""
        return self._source.words[self._indexes[-1]].end

    def behind_word(self, index: int) -> int:
        return self._source.words[index].end

    def before_word(self, index: int) -> int:
        return self._source.words[index - 1].end


def _found(index: int | None) -> int:
    if index is None:
        raise Refusal("rewrite", "this form of a change cannot be checked as it runs: write it in a plainer way")
    return index


def _plain(source: Source, first: int, depth: int) -> Iterator[int]:
    """Yield the indexes of words up to the end of a statement, but for those within parentheses and CASE."""
    cases = 0
    for index in range(first, len(source.words)):
        word = source.word(index)
        depth += _DEPTHS.get(source.words[index].kind, 0)
        if depth < 0 or (depth == 0 and word == ";"):
            return
        named = source.word(index - 1) in (".", "as")
        if depth == 0 and word in ("case", "end") and not named:
            cases += 1 if word == "case" else -1
        if depth == 0 and not cases:
            yield index


def _guard_where(words: _Words, clause: Node, check: str, rewriter: Rewriter) -> None:
    """Put the check before the condition of a change, or in its place."""
    _guard(words.until(words.first("returning")), clause, "whereClause", "where", check, rewriter)


def _guard_merge(words: _Words, statement: Node, check: str, rewriter: Rewriter) -> None:
    """Put the check before the condition by which rows are joined, and before that of each thing that may be done."""
    words = words.until(words.first("returning"))
    arms, clauses = words.arms(), [one["MergeWhenClause"] for one in statement["mergeWhenClauses"]]
    joined = words.until(arms[0] if arms else None)
    _put_before(joined.last("on"), joined, check, rewriter)
    _and(statement, "joinCondition", check, rewriter)
    if len(arms) != len(clauses):
        raise Refusal("rewrite", "this form of MERGE cannot be checked as it runs: write it in a plainer way")
    for arm, clause in zip(arms, clauses, strict=True):
        then = _found(words.since(arm).first("then"))
        _guard(words.since(arm).until(then), clause, "condition", "and", check, rewriter)


def _guard(words: _Words, clause: Node, key: str, opening: str, check: str, rewriter: Rewriter) -> None:
    """Put the check behind the word that opens a condition; where there is none, behind everything, with that word."""
    if key in clause:
        _put_before(_found(words.first(opening)), words, check, rewriter)
    else:
        rewriter.replace(words.end, words.end, f" {opening.upper()} {check}")
    _and(clause, key, check, rewriter)


def _put_before(index: int, words: _Words, check: str, rewriter: Rewriter) -> None:
    start = words.behind_word(index)
    rewriter.replace(start, start, f" {check} AND (")
    rewriter.replace(words.end, words.end, ")")


def _and(clause: Node, key: str, check: str, rewriter: Rewriter) -> None:
    """Make the same change in the tree."""

    def move() -> None:
        node = fragment(f"SELECT {check}")["targetList"][0]["ResTarget"]["val"]
        there = clause.get(key)
        clause[key] = {"BoolExpr": {"boolop": "AND_EXPR", "args": [node, there]}} if there else node

    rewriter.also(move)
