"""Replaces what a query mentions: relations with masked fields by sub-selects, functions that show literals."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

from broker.sql.catalogue import Relation
from broker.sql.grouping import Table, group_by_keys
from broker.sql.guard import unchanged
from broker.sql.masks import quote_name, quote_text
from broker.sql.model import Refusal
from broker.sql.relations import Scope, placed
from broker.sql.rewrite import Rewriter, Source, fragment
from broker.sql.settings import own_called, set_among
from broker.sql.stars import list_columns
from broker.sql.system import SYSTEM_COLUMNS, UNCOUNTED, literal_functions
from broker.sql.tree import Node, strings, walk


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
        if name == "set_config":
            body = set_among(own_called(content, scope.found.named)[0])
        else:
            body = written.get(f"{name}/{len(content.get('args', []))}", written[name])
        if UNCOUNTED in body:
            body = body.replace(UNCOUNTED, _uncounted(scope))
        _replace_call(rewriter, wrapper, content, body)
    for wrapper, content, call in scope.found.listings:
        _replace_listing(scope, rewriter, wrapper, content, call)


def _uncounted(scope: Scope) -> str:
    """Write the oids of the relations whose rows follow masked fields: their sizes would tell how many there are."""
    found = {one.oid for one in scope.seen.concerned() if scope.sight(one).rows}
    return quote_text(f"{{{','.join(map(str, sorted(found)))}}}")


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
        equal = [one.name for one in relation.columns if one.category != "G" and one.typname not in ("json", "xml")]
        columns = [name for name in equal if scope.mentions(content, name)]
        name = scope.called(content)
        whole = len(equal) == len(relation.columns) and scope.found.whole(content, {name}, listed=False)
        yield content, Table(name, columns, frozenset(relation.key), whole)


def subselect(scope: Scope, content: Node, relation: Relation, *, only: bool, sample: str = "") -> str:
    """Write the sub-select that stands for a relation: the columns that are mentioned, masked where they are masked."""
    masks = scope.replaced[relation.qualified]
    columns = [
        f"{masks[column.name]} AS {quote_name(column.name)}" if column.name in masks else f"t.{quote_name(column.name)}"
        for column in relation.columns
        if scope.mentions(content, column.name)
    ]
    wanted = _asked_for(scope, content, relation)
    if wanted and scope.found.whole(content, {scope.called(content)}, listed=False):
        raise Refusal(
            "system-column",
            f"{wanted[0]} does not go together with * or the whole row of {relation.name}, which has masked fields",
            "name the columns",
        )
    if "tableoid" in wanted and (sight := scope.sight(relation)).placed:
        raise placed(relation, sight)
    columns += [f"t.{name} AS {name}" for name in wanted]
    revealed = scope.revealed.get(id(content), {})
    columns += [f"t.{quote_name(column)} AS {quote_name(name)}" for name, column in revealed.items()]
    name = f"{quote_name(relation.schema)}.{quote_name(relation.name)}"
    conditions = [unchanged(scope.catalogue, relation)] if scope.strict and not relation.system else []
    conditions += ["false"] if scope.empties(relation) else []
    conditions += [scope.filters[id(content)]] if id(content) in scope.filters else []
    conditions += [_FETCHED] if _ordered(scope, content, relation) else []
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    fence = " OFFSET 0" if scope.fenced(relation) else ""
    return f"(SELECT {', '.join(columns)} FROM {'ONLY ' if only else ''}{name} AS t{sample}{where}{fence})"


def _asked_for(scope: Scope, content: Node, relation: Relation) -> list[str]:
    """Return the system columns that a relation could be asked for: by their bare names, or by that of its row."""
    if relation.kind == "v":
        return []  # It has none, whatever else of the query is asked for them.
    rows: dict[str, set[str]] = {}
    for row, name in scope.found.attributes:
        rows.setdefault(name, set()).add(row)
    mine = {scope.called(content), ""}
    named = (SYSTEM_COLUMNS & scope.found.names) - {column.name for column in relation.columns}
    return sorted(name for name in named if name in scope.found.bare or not rows.get(name, mine).isdisjoint(mine))


_FETCHED = "t.ctid OPERATOR(pg_catalog.<>) '(4294967295,65535)'::pg_catalog.tid"
"""True of every row, and not to be told from an index alone."""


def _ordered(scope: Scope, content: Node, relation: Relation) -> bool:
    """Say whether an index alone could give what is read, and so in the order of a masked field."""
    if relation.kind == "v" or relation.system:
        return False
    masks = scope.masked.get(relation.qualified, {})
    read = {
        column.name
        for column in relation.columns
        if scope.mentions(content, column.name)
        and (column.name not in masks or f"t.{quote_name(column.name)}" in masks[column.name])
    }
    read |= set(scope.revealed.get(id(content), {}).values())
    for each in (relation, *scope.catalogue.heirs.get(relation.oid, ())):
        numbers = {column.name: column.attnum for column in each.columns}
        masked = {0} | {numbers[name] for name in masks if name in numbers}
        wanted = {numbers[name] for name in read if name in numbers}
        # What is named here may be more than the planner needs in the end.
        if any(index.key & masked and wanted & index.columns for index in each.indexes):
            return True
    return False


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
    _stand_in(rewriter, wrapper, content, written)
    if _asked_for(scope, content, relation):
        list_columns(scope, content, relation, rewriter)


def _stand_in(rewriter: Rewriter, wrapper: Node, content: Node, written: str) -> None:
    """Put a sub-select in the tree where its text was put, under the alias that was there."""

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
    # A result's column is called as the function is, which clients find it by.
    before = f"(SELECT {body} AS {quote_name(strings(content['funcname'])[-1])} FROM (SELECT "
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
    _stand_in(rewriter, wrapper, content, written)


def show_all(wrapper: Node, masks: Mapping[str, str], start: int, end: int, rewriter: Rewriter) -> None:
    """Replace SHOW ALL by the same rows of pg_settings, in which what is private is not shown."""
    column = 't."setting"'
    value = masks.get("setting", column).replace(column, "pg_catalog.current_setting(t.name)")  # It has units then.
    text = (
        f"SELECT t.name, {value} AS setting, t.short_desc AS description"
        ' FROM pg_catalog.pg_settings AS t ORDER BY pg_catalog.lower(t.name) COLLATE pg_catalog."C"'
    )
    source = rewriter.source
    first, last = source.first(start), source.before(end)
    rewriter.replace(source.words[first].start, source.words[last].end, text)

    def move() -> None:
        wrapper.clear()
        wrapper["SelectStmt"] = fragment(text)

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
