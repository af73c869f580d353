"""Relations in a query: resolved as the server would, checked, and replaced where they hold masked fields."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Set
from dataclasses import dataclass, field

from broker.sql.catalogue import Catalogue, Relation
from broker.sql.collect import Collected
from broker.sql.grouping import Table, group_by_keys
from broker.sql.guard import unchanged
from broker.sql.masks import quote_name
from broker.sql.model import Refusal
from broker.sql.notation import check_notation
from broker.sql.rewrite import Rewriter, Source, fragment
from broker.sql.sight import Sight, Sights
from broker.sql.system import SYSTEM_SCHEMAS, literal_functions
from broker.sql.tree import Node, strings, walk

SYSTEM_COLUMNS = frozenset({"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"})


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
    """What the views among them read."""
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
    altered: bool = False
    """The session has changed the schema in this transaction, which the catalogue cannot know of."""
    filters: dict[int, str] = field(default_factory=dict)
    """id of a relation's node -> the search that its rows are found by."""

    @classmethod
    def of(
        cls, found: Collected, catalogue: Catalogue, seen: Sights, *, strict: bool = False, altered: bool = False
    ) -> Scope:
        """Resolve what a query mentions; raises Refusal for what is unknown or not open."""
        scope = cls(catalogue, seen, found, strict=strict, altered=altered)
        for name in sorted(found.ctes):
            scope._check_cte(name)
        for wrapper, content, sample in found.references:
            scope._reference(wrapper, content, sample)
        for _, content, _ in found.targets:
            relation = scope.target(content)
            scope.writes |= scope.names(content, relation)
            scope._notice(relation, scope.sight(relation))
            if masks := scope.masks_of(relation):
                scope.masked.setdefault(relation.qualified, masks)
        check_notation(found, catalogue)
        return scope

    @classmethod
    def of_copied(
        cls,
        content: Node,
        catalogue: Catalogue,
        seen: Sights,
        columns: list[Node] | None,
        *,
        strict: bool = False,
        altered: bool = False,
    ) -> Scope:
        """Resolve the one relation of `COPY relation TO`."""
        found = Collected(references=[({}, content, None)], names=set(strings(columns or [])), star=columns is None)
        found.in_clear = seen.in_clear
        return cls.of(found, catalogue, seen, strict=strict, altered=altered)

    def sight(self, relation: Relation) -> Sight:
        """Return what this person sees of a relation."""
        return self.seen.of(relation)

    def masks_of(self, relation: Relation) -> dict[str, str]:
        """Return the masked expressions of a relation for this person."""
        return dict(self.sight(relation).expressions)

    def _notice(self, relation: Relation, sight: Sight) -> None:
        self.through |= sight.through
        self.views = self.views or (relation.kind == "v" and not relation.system)
        self.scrub = self.scrub or sight.tainted or bool(sight.masks)

    def target(self, content: Node) -> Relation:
        """Resolve the target of a write."""
        relation = self._resolve(content)
        if relation.system:
            raise Refusal("catalogue", f"{relation.qualified} is not written by hand")
        return relation

    def names(self, content: Node, relation: Relation) -> frozenset[str]:
        """Return every relation that a name could mean.

        That is the one it was resolved to; where nothing is masked, and the catalogue does not know it or may not know
        better, one of every schema in which the server would look. A session's own temporary ones are in no list.
        """
        schema = content.get("schemaname")
        if schema == "pg_temp":
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
        return self.found.star or self.called(content) in self.found.bare or column in self.found.names

    def called(self, content: Node) -> str:
        """Return what a relation is called in its query."""
        name: str = content.get("alias", {}).get("aliasname", content["relname"])
        return name

    def _reference(self, wrapper: Node, content: Node, sample: Node | None) -> None:
        relation = self._resolve(content)
        masks = self.masks_of(relation)
        if relation.system and not any(self.mentions(content, name) for name in masks):
            return  # Closed columns that are not mentioned need no rewriting.
        self._notice(relation, self.sight(relation))
        if not relation.system:
            self.reads |= self.names(content, relation)
        self.resolved.append((wrapper, content, sample, relation))
        if masks:
            self.masked[relation.qualified] = masks
        plain = self._plain(content, relation)
        guarded = self.strict and not relation.system and self.sight(relation).tainted
        if plain or masks or relation.row_casts or guarded:
            self.replaced[relation.qualified] = plain | masks

    def _check_cte(self, name: str) -> None:
        relation = self.catalogue.relation(None, name)
        if relation is not None and (relation.system or self.masks_of(relation)):
            raise Refusal(
                "cte-name",
                f"the WITH query {name} has the name of a table with masked fields",
                "give the WITH query another name",
            )

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
            at = content.get("location", 0)
            raise Refusal("relation-unknown", f'relation "{shown}" does not exist', sqlstate="42P01", retry=True, at=at)
        sight = self.sight(relation)
        if self.found.in_clear and sight.coded and not relation.system:
            self.found.coded.add(relation.qualified)
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
    first = next(one for one in catalogue.path if one not in SYSTEM_SCHEMAS)
    return Relation(0, schema or first, name, "r", False, False, ())


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


def mask_relations(scope: Scope, rewriter: Rewriter) -> None:
    """Replace each masked relation by a sub-select, and each function that shows literals."""
    for wrapper, content, sample, relation in scope.resolved:
        if relation.qualified in scope.replaced:
            _replace(scope, rewriter, wrapper, content, sample, relation)
    for column in scope.found.columns:
        _unqualify(scope, rewriter, column)
    keyed = {id(content): table for content, table in _keyed(scope)}
    for select in scope.found.groups if keyed else []:
        group_by_keys(select, keyed, rewriter)
    written = literal_functions(in_clear=scope.found.in_clear)
    for wrapper, content, name in scope.found.calls:
        _replace_call(rewriter, wrapper, content, written[name])
    for wrapper, content, call in scope.found.listings:
        _replace_listing(scope, rewriter, wrapper, content, call)


def _keyed(scope: Scope) -> Iterator[tuple[Node, Table]]:
    """Yield what has a primary key and becomes a sub-select."""
    for _, content, _, relation in scope.resolved:
        masked = set(scope.masked.get(relation.qualified, {}))
        # A masked key decides nothing, and other names for columns are not looked through.
        if (
            relation.qualified not in scope.replaced
            or masked & set(relation.key)
            or content.get("alias", {}).get("colnames")
        ):
            continue
        columns = [
            column.name
            for column in relation.columns
            if scope.mentions(content, column.name) and column.category != "G" and column.typname not in ("json", "xml")
        ]
        yield content, Table(scope.called(content), columns, frozenset(relation.key))


def subselect(scope: Scope, content: Node, relation: Relation, *, only: bool, sample: str = "") -> str:
    """Write the sub-select that stands for a relation: the columns that are mentioned, masked where they are masked."""
    masks = scope.replaced[relation.qualified]
    columns = [
        f"{masks[column.name]} AS {quote_name(column.name)}" if column.name in masks else f"t.{quote_name(column.name)}"
        for column in relation.columns
        if scope.mentions(content, column.name)
    ]
    wanted = sorted(SYSTEM_COLUMNS & scope.found.names - {column.name for column in relation.columns})
    if wanted and scope.found.star:
        raise Refusal(
            "system-column", f"{wanted[0]} and * do not go together on tables with masked fields", "name the columns"
        )
    if "tableoid" in wanted and scope.sight(relation).placed:
        raise Refusal(
            "system-column",
            f"in which partition of {relation.qualified} a row is follows {scope.sight(relation).placed[0]}, which is "
            "masked for you",
        )
    columns += [f"t.{name} AS {name}" for name in wanted]
    revealed = scope.revealed.get(id(content), {})
    columns += [f"t.{quote_name(column)} AS {quote_name(name)}" for name, column in revealed.items()]
    name = f"{quote_name(relation.schema)}.{quote_name(relation.name)}"
    conditions = [unchanged(scope.catalogue, relation)] if scope.strict and not relation.system else []
    conditions += [scope.filters[id(content)]] if id(content) in scope.filters else []
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"(SELECT {', '.join(columns)} FROM {'ONLY ' if only else ''}{name} AS t{sample}{where})"


def _replace(
    scope: Scope,
    rewriter: Rewriter,
    wrapper: Node,
    content: Node,
    sample: Node | None,
    relation: Relation,
) -> None:
    source = rewriter.source
    first = source.at(content["location"])
    last = source.name_end(first, 2 if "schemaname" in content else 1)
    only = not content.get("inh")
    if only:
        first, last = _only(source, first, last)
    elif source.word(last + 1) == "*":
        last += 1
    clause = _moved_sample(rewriter, sample) if sample else ""
    written = subselect(scope, content, relation, only=only, sample=clause)
    if "alias" not in content:
        written += f" AS {quote_name(content['relname'])}"
    prefix = ""
    if source.word(first - 1) == "table":
        first, prefix = first - 1, "SELECT * FROM "
    rewriter.replace(source.words[first].start, source.words[last].end, prefix + written, content["location"])

    def move() -> None:
        node: Node = fragment(f"SELECT * FROM {written}")["fromClause"][0]["RangeSubselect"]
        alias = {"alias": content["alias"]} if "alias" in content else {}
        wrapper.clear()
        wrapper["RangeSubselect"] = {**node, **alias}

    rewriter.also(move)


def _only(source: Source, first: int, last: int) -> tuple[int, int]:
    """Widen a name's words to its ONLY, with or without parentheses."""
    if source.word(first - 1) == "only":
        return first - 1, last
    if source.word(first - 1) == "(" and source.word(first - 2) == "only" and source.word(last + 1) == ")":
        return first - 2, last + 1
    raise Refusal("rewrite", "this form of ONLY cannot be masked: write `ONLY name`")


def _moved_sample(rewriter: Rewriter, sample: Node) -> str:
    """Take a TABLESAMPLE clause out of the text and return it, to stand inside the sub-select."""
    source = rewriter.source
    method = source.at(sample["location"])
    last = source.closing(method + 1)
    if source.word(last + 1) == "repeatable":
        last = source.closing(last + 2)
    start, end = source.words[method - 1].start, source.words[last].end
    rewriter.replace(start, end, "")
    return " " + source.text[start:end].decode()


def _unqualify(scope: Scope, rewriter: Rewriter, column: Node) -> None:
    """Turn `schema.table.column` into `table.column` where the table became a sub-select."""
    fields = column.get("fields", [])
    if len(fields) != 3:
        return
    schema, name = strings(fields)[:2]
    named = {relation.qualified for _, content, _, relation in scope.resolved if scope.called(content) == name}
    if f"{schema}.{name}" not in named & set(scope.replaced):
        return
    if len(named) > 1:
        raise Refusal("rewrite", f"two tables are called {name} here", "give each an alias, and name columns after it")
    at = rewriter.source.at(column["location"])
    rewriter.replace(column["location"], rewriter.source.words[at + 2].start, "")
    rewriter.also(lambda: None if len(fields) != 3 else fields.__delitem__(0))


def _replace_call(rewriter: Rewriter, wrapper: Node, content: Node, body: str) -> None:
    """Replace a function that shows literals by a sub-select over its arguments."""
    arguments: list[Node] = content.get("args", [])
    plain = not any(content.get(key) for key in ("agg_order", "agg_filter", "over", "agg_star", "agg_distinct"))
    if not arguments or not plain or content.get("func_variadic") or any("NamedArgExpr" in each for each in arguments):
        raise Refusal("function", "this form of a function that shows definitions is not passed")
    source = rewriter.source
    first = source.at(content["location"])
    opening = source.name_end(first, len(content["funcname"])) + 1
    if source.word(opening) != "(":
        raise Refusal("rewrite", "this form of a function call cannot be masked: write it plainly")
    names = ", ".join(f"a{at + 1}" for at in range(len(arguments)))
    body = body.replace("{args}", names).replace("{rest}", names.removeprefix("a1"))
    before = f"(SELECT {body} FROM (SELECT "
    after = f") AS airlock({names}))"
    closing = source.words[source.closing(opening)]
    rewriter.replace(source.words[first].start, source.words[opening].end, before)
    rewriter.replace(closing.start, closing.end, after)

    def move() -> None:
        text = f"SELECT {before}airlock_arguments{after}"
        node: Node = copy.deepcopy(fragment(text)["targetList"][0]["ResTarget"]["val"])
        for kind, inner, _ in walk(node):
            targets = inner.get("targetList", []) if kind == "SelectStmt" else []
            if [strings(t["ResTarget"]["val"].get("ColumnRef", {}).get("fields", [])) for t in targets] == [
                ["airlock_arguments"]
            ]:
                inner["targetList"] = [{"ResTarget": {"val": argument}} for argument in arguments]
        wrapper.clear()
        wrapper.update(node)

    rewriter.also(move)


def _replace_listing(scope: Scope, rewriter: Rewriter, wrapper: Node, content: Node, call: Node) -> None:
    """Replace `pg_show_all_settings()` by the rows of pg_settings, in which what is private is not shown."""
    settings = scope.catalogue.relation("pg_catalog", "pg_settings")
    source = rewriter.source
    first = source.at(call["location"])
    opening = source.name_end(first, len(call["funcname"])) + 1
    if settings is None or source.word(opening) != "(" or source.word(opening + 1) != ")":
        raise Refusal("rewrite", "this form of pg_show_all_settings is not passed: query pg_settings")
    masks = scope.masks_of(settings)
    columns = (
        f"{masks.get(column.name, f't.{quote_name(column.name)}')} AS {quote_name(column.name)}"
        for column in settings.columns
    )
    written = f"(SELECT {', '.join(columns)} FROM pg_catalog.pg_settings AS t)"
    if "alias" not in content:
        written += " AS pg_show_all_settings"
    rewriter.replace(source.words[first].start, source.words[opening + 1].end, written)

    def move() -> None:
        node: Node = fragment(f"SELECT * FROM {written}")["fromClause"][0]["RangeSubselect"]
        alias = {"alias": content["alias"]} if "alias" in content else {}
        wrapper.clear()
        wrapper["RangeSubselect"] = {**node, **alias}

    rewriter.also(move)


def mask_copied_relation(scope: Scope, content: Node, rewriter: Rewriter) -> None:
    """Turn `COPY relation (columns) TO` into a COPY of a masked query, where the relation has masked fields."""
    _, reference, _, relation = scope.resolved[0] if scope.resolved else ({}, {}, None, None)
    if not relation or relation.qualified not in scope.replaced:
        return
    source = rewriter.source
    first = source.at(reference["location"])
    last = source.name_end(first, 2 if "schemaname" in reference else 1)
    columns = ", ".join(quote_name(name) for name in strings(content.get("attlist", []))) or "*"
    if "attlist" in content:
        last = source.closing(last + 1)
    query = f"SELECT {columns} FROM {subselect(scope, reference, relation, only=True)} AS t"
    rewriter.replace(source.words[first].start, source.words[last].end, f"({query})", reference["location"])

    def move() -> None:
        content.pop("relation")
        content.pop("attlist", None)
        content["query"] = {"SelectStmt": fragment(query)}

    rewriter.also(move)
