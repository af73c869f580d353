"""Relations in a query: resolved as the server would, and checked."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, field

from broker.sql.cascades import reached
from broker.sql.catalogue import Catalogue, Relation
from broker.sql.collected import Collected
from broker.sql.masks import masked, quote_name
from broker.sql.model import Altered, Refusal
from broker.sql.nearly import meant
from broker.sql.notation import check_notation
from broker.sql.sequences import counted, telling
from broker.sql.sight import Sight, Sights
from broker.sql.system import EMPTY, SYSTEM_SCHEMAS
from broker.sql.tree import Node
from policies.engine.decisions import HIDE


@dataclass(slots=True)
class Scope:
    """A query's relations, resolved; `masked` are those that must be replaced."""

    catalogue: Catalogue
    seen: Sights
    found: Collected
    resolved: list[tuple[Node, Node, Node | None, Relation]] = field(default_factory=list)
    reads: set[str] = field(default_factory=set)
    writes: set[str] = field(default_factory=set)
    through: set[str] = field(default_factory=set)
    """What stands behind them: what views read, the parents and the children of tables."""
    follows: frozenset[str] = frozenset()
    """What foreign keys change beyond what is written: `UPDATE public.lines`."""
    views: bool = False
    scrub: bool = False
    """Masked fields are in scope, shown or not."""
    masked: dict[str, dict[str, str]] = field(default_factory=dict)
    replaced: dict[str, dict[str, str]] = field(default_factory=dict)
    """Relation -> the expressions of its columns that are not read as they are."""
    revealed: dict[int, dict[str, str]] = field(default_factory=dict)
    """id of a relation's node -> names under which it gives columns in clear as well."""
    strict: bool = False
    """What is masked checks in the statement itself that it still is what the catalogue says."""
    altered: Altered = Altered.NOT
    """What the session has done to the schema in this transaction, which the catalogue cannot know of."""
    unknown: str = ""
    """A relation among them that the catalogue does not have."""
    temporary: set[str] = field(default_factory=set)
    """Those that are named as temporary ones."""
    filters: dict[int, str] = field(default_factory=dict)
    """id of a relation's node -> the search that its rows are found by."""

    @classmethod
    def of(
        cls,
        found: Collected,
        catalogue: Catalogue,
        seen: Sights,
        *,
        strict: bool = False,
        altered: Altered = Altered.NOT,
    ) -> Scope:
        """Resolve what a query mentions; raises Refusal for what is unknown or not open."""
        scope = cls(catalogue, seen, found, strict=strict, altered=altered)
        for wrapper, content, sample in found.references:
            scope._reference(wrapper, content, sample)
        written: list[tuple[str, Node, Relation, frozenset[str]]] = []
        for kind, content, statement in found.targets:
            relation = scope.target(content)
            written.append((kind, statement, relation, scope.sight(relation).through))
            scope.writes |= scope.names(content, relation)
            scope._notice(relation, scope.sight(relation), content)
            scope.scrub = scope.scrub or not seen.shows(relation)
            if masks := scope.masks_of(relation):
                scope.masked.setdefault(relation.qualified, masks)
        scope.follows = reached(catalogue, written) if written else frozenset()
        for name in {one.partition(" ")[2] for one in scope.follows}:
            scope._scrub(catalogue.by_name[name])
        if found.counters:
            scope.writes |= counted(found.counters, catalogue, known=not found.in_clear)
        for relation in telling(found.numbers, catalogue, seen):
            scope.reads.add(relation.qualified)
            scope.through |= scope.sight(relation).through
            scope.scrub = scope.scrub or scope.sight(relation).tainted
        check_notation(found, catalogue)
        return scope

    def sight(self, relation: Relation) -> Sight:
        """Return what this person sees of a relation."""
        return self.seen.of(relation)

    def masks_of(self, relation: Relation) -> dict[str, str]:
        """Return the masked expressions of a relation for this person."""
        return dict(self.sight(relation).expressions)

    def _notice(self, relation: Relation, sight: Sight, content: Node) -> None:
        self.through |= sight.through
        if content.get("inh"):
            self.through |= sight.below
        if not relation.oid:
            self.unknown = self.unknown or relation.name
        unsure = not relation.oid or relation.kind in ("v", "m")
        if self.altered is Altered.NAMES or (self.altered is Altered.VIEWS and unsure):
            # It may be a view by now, of anything (fail closed).
            self.through |= {one.qualified for one in self.catalogue.by_oid.values() if not one.system}
        self.views = self.views or (relation.kind == "v" and not relation.system)
        self.scrub = self.scrub or sight.tainted or bool(sight.masks)

    def target(self, content: Node) -> Relation:
        """Resolve the target of a write."""
        relation = self._resolve(content)
        if relation.system:
            raise Refusal("catalogue", f"{relation.qualified} is not written by hand")
        return relation

    def write(self, relations: Iterable[Relation]) -> None:
        """Take note of relations that are changed without being named."""
        for relation in relations:
            self.writes.add(relation.qualified)
            self.through |= self.sight(relation).through
            self._scrub(relation)

    def _scrub(self, relation: Relation) -> None:
        """Have errors rebuilt where they could tell of what is hidden in a relation that is not named."""
        sight = self.sight(relation)
        self.scrub = self.scrub or sight.tainted or bool(sight.masks) or not self.seen.shows(relation)

    def names(self, content: Node, relation: Relation) -> frozenset[str]:
        """Return every relation that a name could mean.

        That is the one it was resolved to; where nothing is masked, and the catalogue does not know it or may not know
        better, one of every schema in which the server would look. A session's own temporary ones are in no list.
        """
        schema = content.get("schemaname")
        if schema == "pg_temp":
            self.temporary.add(f"pg_temp.{relation.name}")
            return frozenset()
        if schema or not self.found.in_clear or (relation.oid and not self.altered):
            return frozenset({relation.qualified})
        return frozenset(f"{one}.{relation.name}" for one in self.catalogue.path if one not in SYSTEM_SCHEMAS)

    def masked_fields(self) -> set[str]:
        """Return the masked fields that the query names, or expands by a star or a whole row."""
        found: set[str] = set()
        for _, content, _, relation in self.resolved:
            if not relation.system:
                masks = self.masked.get(relation.qualified, {})
                found |= {f"{relation.qualified}.{name}" for name in masks if self.mentions(content, name)}
        return found

    def unread(self) -> set[str]:
        """Have every mask that reads its field give a fixed value instead; returns these fields.

        The server carries a field to where its mask is computed: the memory of sorts and joins follows its length.
        """
        found: set[str] = set()
        for _, content, _, relation in self.resolved:
            masks = self.masked.get(relation.qualified, {})
            for column in relation.columns:
                if f"t.{quote_name(column.name)}" in masks.get(column.name, "") and self.mentions(content, column.name):
                    fixed = masked(column, HIDE, "")
                    self.masked[relation.qualified] = masks = masks | {column.name: fixed}
                    self.replaced[relation.qualified] = self.replaced[relation.qualified] | {column.name: fixed}
                    found.add(f"{relation.qualified}.{column.name}")
        return found

    def masked_among(self, columns: Set[tuple[str, str]]) -> set[str]:
        """Return the masked fields that are among columns, each with what its relation is called, or nothing."""
        found: set[str] = set()
        for _, content, _, relation in self.resolved:
            if not relation.system and relation.qualified in self.masked:
                called = {"", self.called(content)}
                named = {name for qualifier, name in columns if qualifier in called}
                found |= {f"{relation.qualified}.{name}" for name in named & set(self.masked[relation.qualified])}
        return found

    def mentions(self, content: Node, column: str) -> bool:
        """Say whether a column is named, or is in a star or a whole row."""
        return column in self.found.names or self.found.whole(content, {self.called(content)})

    def called(self, content: Node) -> str:
        """Return what a relation is called in its query."""
        name: str = content.get("alias", {}).get("aliasname", content["relname"])
        return name

    def empties(self, relation: Relation) -> bool:
        """Say whether a system relation is read as if it had no rows."""
        return relation.system and relation.qualified in EMPTY and not self.seen.in_clear

    def fenced(self, relation: Relation) -> bool:
        """Say whether a view is kept apart: where rows are locked or changed, the server reads whole rows beside them.

        It would compute what nobody reads of the view, in whose order its rows would come.
        """
        return bool(self.sight(relation).stored) and bool(self.found.targets or self.found.locks)

    def _reference(self, wrapper: Node, content: Node, sample: Node | None) -> None:
        relation = self._resolve(content)
        masks = self.masks_of(relation)
        empty = self.empties(relation)
        if relation.system and not empty and not any(self.mentions(content, name) for name in masks):
            return  # Closed columns that are not mentioned need no rewriting.
        self._notice(relation, self.sight(relation), content)
        if not relation.system:
            self.reads |= self.names(content, relation)
        self.resolved.append((wrapper, content, sample, relation))
        if masks:
            self.masked[relation.qualified] = masks
        plain = self._plain(content, relation)
        # Where anything is masked, what has nothing masked now could have by the time that it runs.
        guarded = self.strict and not relation.system and not self.seen.in_clear
        if plain or masks or relation.row_casts or guarded or empty or self.fenced(relation):
            self.replaced[relation.qualified] = plain | masks

    def _plain(self, content: Node, relation: Relation) -> dict[str, str]:
        """Return the columns that are read as their base type, for the checks of their domain are users' code."""
        found: dict[str, str] = {}
        for column in relation.columns:
            if column.code == "domain":
                found[column.name] = f"t.{quote_name(column.name)}::{column.type}"
            elif column.code and self.found.in_clear:
                self.found.coded.add(f"type of {relation.qualified}.{column.name}")
            elif column.code and self.mentions(content, column.name):
                raise Refusal(
                    "type",
                    f"{relation.qualified}.{column.name} has a type that runs code of this database's own",
                    "name the columns that you need, without it",
                )
        return found

    def _resolve(self, content: Node) -> Relation:
        schema, name = content.get("schemaname"), content["relname"]
        shown = f"{schema}.{name}" if schema else name
        if content.get("catalogname"):
            raise Refusal("name", f"{shown} is named without its database")
        relation = self.catalogue.relation(schema, name)
        if relation is None and self.found.in_clear:
            return unknown(self.catalogue, schema, name)
        if relation is None:
            at, hint = content.get("location", 0), meant(self.catalogue, self.seen, schema, name)
            said = f'relation "{shown}" does not exist'
            raise Refusal("relation-unknown", said, hint, sqlstate="42P01", retry=True, at=at)
        sight = self.sight(relation)
        if self.found.in_clear and sight.coded and not relation.system:
            self.found.coded.add(relation.qualified)
            self.found.own |= self.catalogue.native(relation)
        else:
            _check_open(relation, sight)
        return relation


def unknown(catalogue: Catalogue, schema: str | None, name: str) -> Relation:
    """Stand for a relation that the catalogue does not have, where nothing is masked.

    There is no field to mask in it, whatever it is, so that the server may say whether there is one: it could be
    temporary, or have been made in this very transaction, which only its own session sees. Its names have to be
    covered like others.
    """
    if schema and (schema in SYSTEM_SCHEMAS or schema.startswith(("pg_temp_", "pg_toast")) or "." in schema):
        raise Refusal("relation-unknown", f'relation "{schema}.{name}" does not exist', sqlstate="42P01")
    first = next((one for one in catalogue.path if one not in SYSTEM_SCHEMAS), "pg_temp")
    return Relation(0, schema or first, name, "r", False, False, ())


def placed(relation: Relation, sight: Sight) -> Refusal:
    """Return why it is not told in which partition a row is."""
    return Refusal(
        "system-column",
        f"in which partition of {relation.qualified} a row is follows {sight.placed[0]}, which is masked for you",
    )


_VIEW = "query the tables behind it"


def _check_open(relation: Relation, sight: Sight) -> None:
    if sight.problem and relation.system:
        raise Refusal("catalogue", f"{relation.qualified} {sight.problem}", r"\d and its family work")
    if sight.problem:
        hint = _VIEW if relation.kind in ("v", "m") else None
        raise Refusal("relation-kind", f"{relation.qualified} {sight.problem}", hint)
    if sight.rows:
        hint = f"{_VIEW}, or" if relation.kind in ("v", "m") else "classify what it is partitioned by, or"
        raise Refusal(
            "relation-rows",
            f"which rows {relation.qualified} shows, or their order, follows {sight.rows[0]}, which is masked for you",
            f"{hint} have a field rule of its own say `rows: clear`",
        )
