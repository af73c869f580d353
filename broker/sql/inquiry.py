"""One text's inspection, as far as it has come: what its queries are about, and what hides their masked fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from broker.sql.catalogue import Catalogue
from broker.sql.checking import (
    check_calls,
    check_writes,
    does,
    effects_of,
    missing_where,
)
from broker.sql.collect import collect
from broker.sql.collected import Collected
from broker.sql.comparing import compared
from broker.sql.explained import check_explained, check_fired, check_measured, check_searched
from broker.sql.guarding import guard_changes
from broker.sql.library import Token
from broker.sql.masking import mask_relations
from broker.sql.model import Altered, Moves, Terms
from broker.sql.moving import check_code, rewrite_calls
from broker.sql.relations import Scope
from broker.sql.returning import mask_returned
from broker.sql.revealing import Reveal, reveal
from broker.sql.rewrite import Rewriter, Source
from broker.sql.searching import Candidate, search
from broker.sql.sight import Sights
from policies.engine.decisions import Effect, FieldView, StatementFacts


@dataclass(slots=True)
class Inquiry:
    """What a text is inspected with, and what has been found in it; `scrub` grows as statements are seen."""

    source: Source
    tokens: list[Token]
    catalogue: Catalogue
    fields: FieldView
    rewriter: Rewriter
    seen: Sights
    count: int
    """How many statements the text has."""
    relations: int | None
    """How many the parser wrote, where the text is one statement."""
    terms: Terms
    altered: Altered
    """What its transaction has done to the schema before the statement that is looked at."""
    scrub: bool = False
    revealed: tuple[tuple[int, int, int], ...] = ()
    searches: tuple[tuple[str, int], ...] = ()
    alters: Altered = Altered.NOT
    """What the statement that is looked at does to the schema."""
    moves: Moves = Moves.NOT
    """What the statement that is looked at does to the search path."""
    compared: set[str] = field(default_factory=set)
    """Masked fields that the statement that is looked at compares."""
    temporary: set[str] = field(default_factory=set)
    """Relations that are named as temporary ones."""

    def scope(self, found: Collected, *, plain: bool = False) -> Scope:
        """Resolve what a statement names."""
        scope = Scope.of(found, self.catalogue, self.seen, strict=self.terms.strict, altered=self.altered)
        self.temporary |= scope.temporary
        self.moves = rewrite_calls(found, self.rewriter, plain=plain)
        if self.terms.path is not None:
            check_code(found, scope)
        return scope

    def compare(self, found: Collected, scope: Scope) -> None:
        """Take note of the masked fields that a statement compares."""
        if scope.masked:
            self.compared |= scope.masked_among(compared(found.clauses))

    def mask(self, found: Collected, scope: Scope) -> None:
        """Replace what has masked fields, and have errors rebuilt that could tell of them."""
        mask_relations(scope, self.rewriter)
        guard_changes(scope, self.rewriter)
        # What a function says when it fails can be what it has read by itself.
        own = any(not overload.function.computes for overload in found.own)
        self.scrub = self.scrub or scope.scrub or (own and bool(self.fields))

    def query(
        self,
        root: Any,
        verb: str,
        reveals: Sequence[Reveal] = (),
        sought: Sequence[Candidate] = (),
        *,
        plain: bool = False,
        measured: bool = False,
    ) -> StatementFacts:
        """Inspect a query, or expressions that stand by themselves, and return its facts; raises Refusal.

        What is `measured` is run by EXPLAIN, which says how much memory it took.
        """
        returned: frozenset[str] = frozenset()
        if not self.seen.in_clear and not (plain and "withClause" not in root["SelectStmt"]):
            returned = mask_returned(root, self.catalogue, self.seen, self.rewriter)
        passed = frozenset(id(one.call) for one in reveals)
        found = collect(
            root,
            self.catalogue,
            passed,
            in_clear=self.seen.in_clear,
            relations=self.relations,
            named=self.terms.settings,
        )
        scope = self.scope(found, plain=plain)
        if verb == "EXPLAIN" and not self.seen.in_clear:
            check_explained(root, found, scope)
        check_writes(found, scope)
        revealed: frozenset[str] = frozenset()
        if reveals:
            revealed, self.revealed = reveal(root["SelectStmt"], reveals, scope, self.rewriter)
        check_calls(found, scope)
        self.compare(found, scope)
        if measured:
            check_fired(found, scope)
            check_searched(root, found, scope)
            check_measured(scope.unread(), self.compared)
        if sought:
            self.searches = search(root["SelectStmt"], sought, scope, self.rewriter)
            self.compared -= {name for name, _ in self.searches}
        self.mask(found, scope)
        effects = effects_of(found)
        if scope.reads or verb in ("SELECT", "EXPLAIN", "COPY", "DECLARE", "PREPARE") or not effects:
            effects.add(Effect.READ)
        return StatementFacts(
            verb=verb,
            effects=frozenset(effects),
            reads=frozenset(scope.reads),
            writes=frozenset(scope.writes),
            functions=frozenset(found.functions),
            through=frozenset(scope.through),
            follows=scope.follows,
            masked=frozenset(scope.masked_fields()) | returned,
            does=does(found),
            missing_where=missing_where(found, scope),
            reveals=revealed,
            calls=found.ruled,
            searched=frozenset(name for name, _ in self.searches) if sought else frozenset(),
            code=frozenset(found.coded),
            settings=frozenset(found.settings),
        )
