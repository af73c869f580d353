"""Which changes of the schema may pass, and as what they are put before the policy.

Where nothing is masked and a role covers every relation, each kind that `ddl.py` knows is a matter of rules. Elsewhere
only what is harmless passes: what can neither read a masked field, nor keep an expression that would, nor give a name
to something else than rules know it for.
"""

from __future__ import annotations

from collections.abc import Iterable

from broker.sql.catalogue import Catalogue, Relation
from broker.sql.checking import check_calls, check_writes, does, effects_of, missing_where
from broker.sql.collect import collect
from broker.sql.collected import Collected
from broker.sql.ddl import Change, change_of
from broker.sql.defaults import is_plain, is_plain_type
from broker.sql.inquiry import Inquiry
from broker.sql.model import Altered, Refusal
from broker.sql.moving import check_change
from broker.sql.nearly import meant
from broker.sql.nodes import refused_kind
from broker.sql.relations import Scope
from broker.sql.sequences import owner_of
from broker.sql.sight import Sights
from broker.sql.system import SYSTEM_SCHEMAS
from broker.sql.tree import Node, strings, walk, wrapped
from policies.engine.decisions import Effect, StatementFacts

_CONSTRAINTS = frozenset(
    f"CONSTR_{name}"
    for name in "NULL NOTNULL PRIMARY UNIQUE IDENTITY DEFAULT ATTR_DEFERRABLE ATTR_NOT_DEFERRABLE".split()
)
_COLUMN = frozenset("colname typeName is_local constraints location".split())
_CONSTRAINT = frozenset(
    "contype location raw_expr generated_when keys is_enforced initially_valid skip_validation conname".split()
)
_TABLE = frozenset("relation tableElts oncommit if_not_exists".split())
_INDEX = frozenset(
    "idxname relation accessMethod indexParams indexIncludingParams unique concurrent if_not_exists nulls_not_distinct"
    .split()
)  # fmt: skip
_METHODS = frozenset("btree hash gin gist spgist brin".split())
_INDEXED = frozenset("name ordering nulls_ordering".split())
_MASKED = "this change of the schema is not passed where fields are masked or relations hidden"
_LASTING = (
    "CREATE TABLE ... AS without TEMPORARY keeps what you see of the tables, sent by itself; "
    "WITH x AS (SELECT ...) stands for it in one statement"
)
COMMIT_FIRST = "COMMIT first, or use autocommit: then it is seen what the change did"


def change(inquiry: Inquiry, kind: str, content: Node, verb: str) -> tuple[StatementFacts, Refusal | None]:
    """Inspect what is no query: facts for the policy, and why the broker itself does not pass it."""
    effect, refusal = refused_kind("CreateTableAsStmt" if kind == "SelectStmt" else kind, verb)
    asked: Change | None = None
    try:
        asked = change_of(kind, content)
        if asked is None:
            return StatementFacts(verb, frozenset({effect})), refusal
        if not inquiry.seen.in_clear and Effect.ADMIN in asked.effects:
            # Fail closed: rights, owners and upkeep reach what is masked, and what is hidden.
            return StatementFacts(verb, frozenset(asked.effects)), refusal
        return _inspected(inquiry, kind, content, verb, asked), None
    except Refusal as found:
        # What the policy itself says of such a statement goes before.
        effects = asked.effects if asked is not None else {effect}
        return StatementFacts(verb, frozenset(effects)), found


def _inspected(inquiry: Inquiry, kind: str, content: Node, verb: str, change: Change) -> StatementFacts:
    catalogue, seen = inquiry.catalogue, inquiry.seen
    if inquiry.terms.path is not None:
        change.code |= check_change(kind, change, catalogue, in_clear=seen.in_clear)
    change.code |= _classes_of(content, catalogue)
    names = _names_of(change, catalogue, altered=inquiry.altered is not Altered.NOT)
    if not seen.in_clear:
        _check_harmless(kind, content, catalogue, seen)
        if inquiry.count > 1:
            raise Refusal("ddl-masked", "a change of the schema is sent by itself here", "send it by itself")
    parts, named = [*change.parts, *change.types], inquiry.terms.settings
    found = collect(parts, catalogue, frozenset({id(content)}), in_clear=seen.in_clear, named=named)
    # What it sorts, compares or makes another type of is nowhere said.
    found.own |= catalogue.implied
    if kind == "RefreshMatViewStmt":
        _note_refreshed(content["relation"], found, inquiry)
    scope = inquiry.scope(found)
    check_writes(found, scope)
    check_calls(found, scope)
    if change.stored:
        _check_stored(scope)
    inquiry.compare(found, scope)
    inquiry.mask(found, scope)
    if kind == "ViewStmt" and inquiry.altered is Altered.NOT and (stranger := scope.unknown):
        # The server makes a view temporary that reads something temporary.
        change.code.add(f"a view of {stranger}, which is temporary")
    inquiry.alters = Altered.CODE if change.code else _alters(kind, change, catalogue)
    return StatementFacts(
        verb=verb,
        effects=frozenset(change.effects | effects_of(found) | ({Effect.READ} if scope.reads else set())),
        reads=frozenset(scope.reads),
        writes=names | scope.writes,
        functions=frozenset(found.functions),
        through=frozenset(scope.through | _kin_of(change, catalogue)),
        follows=scope.follows,
        masked=frozenset(scope.masked_fields()),
        does=does(found),
        missing_where=missing_where(found, scope),
        calls=found.ruled,
        code=frozenset(change.code | found.coded),
        settings=frozenset(found.settings),
    )


def _note_refreshed(content: Node, found: Collected, inquiry: Inquiry) -> None:
    """Take note of the code that a materialized view is filled by: refreshing it runs what reading a view would."""
    relation = inquiry.catalogue.relation(content.get("schemaname"), content["relname"])
    view = inquiry.catalogue.views.get(relation.oid) if relation is not None else None
    if relation is None or view is None:
        return  # The server says that it is none, or whoever has made it in this transaction was asked about its code.
    if view.lineage is None or inquiry.seen.of(relation).coded:
        found.coded.add(relation.qualified)
        found.own |= inquiry.catalogue.native(relation)


def _classes_of(content: Node, catalogue: Catalogue) -> set[str]:
    """Return the operator classes of users' that an index or a partitioned table compares by, from then on."""
    named = {strings(inner["opclass"])[-1] for _, inner, _ in walk(content) if inner.get("opclass")}
    return {f"operator class {name}" for _, name in catalogue.operators if name in named}


def _names_of(change: Change, catalogue: Catalogue, *, altered: bool) -> frozenset[str]:
    """Return what a role has to cover for a change: each name in every schema in which the server would look."""
    found: set[str] = set()
    for content in change.touched:
        known = catalogue.relation(content.get("schemaname"), content["relname"])
        if known is not None and known.system:
            if not change.keeps:
                raise Refusal("catalogue", f"{known.qualified} is not changed by hand")
            found.add(known.qualified)
            continue
        if content.get("relpersistence") == "t" and not content.get("schemaname"):
            continue  # A session's own temporary table is in no list.
        plain = known is not None and not altered and "schemaname" not in content
        found |= {known.qualified} if plain and known is not None else _names(content, catalogue)
    for schema, name in change.named:
        found |= _names({"schemaname": schema, "relname": name}, catalogue)
    for schema in change.schemas:
        _check_schema(schema)
        found.add(f"{schema}.*")
        found |= {one.qualified for one in catalogue.by_oid.values() if one.schema == schema}
    if change.everything:
        found |= {one.qualified for one in catalogue.by_oid.values() if not one.system}
    return _of_tables(found, change, catalogue, altered=altered)


def _of_tables(found: set[str], change: Change, catalogue: Catalogue, *, altered: bool) -> frozenset[str]:
    """Have an index count as the table that it is of; its own name is in no list, like that of a new one.

    A sequence counts as the table of the column that owns it, beside its own name.
    """
    found |= {owner_of(one, catalogue) for name in found if (one := catalogue.by_name.get(name)) and one.kind == "S"}
    indexes = {name for name in found if name in catalogue.indexed}
    tables = {catalogue.indexed[name] for name in indexes}
    return frozenset((found - indexes if change.indexes and not altered else found) | tables)


def _alters(kind: str, change: Change, catalogue: Catalogue) -> Altered:
    """Return what a change that is no code does to the schema, as far as what follows in its transaction goes."""
    if kind in ("RenameStmt", "AlterObjectSchemaStmt"):
        known = [catalogue.relation(one.get("schemaname"), one["relname"]) for one in change.touched]
        return Altered.NAMES if any(one is not None and one.kind in ("v", "m") for one in known) else Altered.SCHEMA
    return Altered.VIEWS if kind == "ViewStmt" else Altered.SCHEMA


def _kin_of(change: Change, catalogue: Catalogue) -> frozenset[str]:
    """Return what a change of a table is about as well: its partitions and children, and those whose one it is.

    And where it cascades, the views over what it removes, and the tables with keys that refer to it.
    """
    found: set[str] = set()
    gone: set[int] = {one.oid for one in catalogue.by_oid.values() if one.schema in change.schemas}
    named = [{"schemaname": schema, "relname": name, "inh": True} for schema, name in change.named]
    for content in (*change.touched, *named):
        relation = catalogue.relation(content.get("schemaname"), content["relname"])
        if relation is not None:
            below = catalogue.heirs.get(relation.oid, ()) if content.get("inh") else ()
            found |= {one.qualified for one in (*below, *catalogue.ancestors.get(relation.oid, ()))}
            gone |= {relation.oid, *(one.oid for one in below)}
    return frozenset(found | (_resting(gone, catalogue) | _referring(gone, catalogue) if change.cascades else set()))


def _referring(gone: set[int], catalogue: Catalogue) -> set[str]:
    """Return the tables that lose a foreign key with what it refers to."""
    removed = [catalogue.by_oid[oid] for oid in gone if oid in catalogue.by_oid]
    children = {key.child for relation in removed for key in relation.referrers}
    return {catalogue.by_oid[oid].qualified for oid in children if oid in catalogue.by_oid}


def _resting(gone: set[int], catalogue: Catalogue) -> set[str]:
    """Return the views that rest on some relations, or on such views; one that is not understood may rest on any."""
    while True:
        more = {
            oid
            for oid, view in catalogue.views.items()
            if oid in catalogue.by_oid and (view.lineage is None or view.lineage.relations & gone)
        } - gone
        if not more:
            return {catalogue.by_oid[oid].qualified for oid in gone & set(catalogue.views)}
        gone = gone | more


def _names(content: Node, catalogue: Catalogue) -> set[str]:
    schema, name = content.get("schemaname"), content["relname"]
    if content.get("catalogname"):
        raise Refusal("name", f"{name} is named without its database")
    if schema == "pg_temp":
        return set()
    if schema:
        _check_schema(schema)
    schemas: Iterable[str] = [schema] if schema else [one for one in catalogue.path if one not in SYSTEM_SCHEMAS]
    return {f"{one}.{name}" for one in schemas}


def _check_schema(schema: str) -> None:
    """Refuse schemas of the server's, of other sessions, and names that would read like a schema and a name."""
    if "." in schema:
        raise Refusal("name", f"the schema {schema} has a dot in its name", "only schemas without one are changed here")
    if schema in SYSTEM_SCHEMAS or schema.startswith("pg_"):
        raise Refusal("catalogue", f"the schema {schema} is not changed by hand")


def _check_stored(scope: Scope) -> None:
    """Refuse to have kept what would be rewritten: it would mean something else later, or to others."""
    if scope.replaced or scope.found.calls or scope.found.listings:
        raise Refusal(
            "ddl-stored",
            "this would keep an expression in another form, for what it reads is not shown as it is",
            "leave settings and columns of a domain's type out of it; current_setting of an application's own may be "
            "in it where a rule names that in `settings`",
        )


def _check_harmless(kind: str, content: Node, catalogue: Catalogue, seen: Sights) -> None:
    """Refuse a change that could show a masked field, or have a name stand for something else; raises Refusal."""
    match kind:
        case "CreateStmt":
            _check_table(content, catalogue, seen)
        case "CreateTableAsStmt" | "SelectStmt":
            into = content["into"] if kind == "CreateTableAsStmt" else content["intoClause"]
            if content.get("objtype", "OBJECT_TABLE") != "OBJECT_TABLE":
                raise _refusal("a materialized view would keep a query, and run it with its owner's rights")
            _check_new(into["rel"], catalogue, seen)
        case "AlterTableStmt":
            if content.get("objtype") != "OBJECT_TABLE":
                raise _refusal("only tables are altered")
            _check_known(content["relation"], catalogue, seen)
            for one in content["cmds"]:
                _check_command(one["AlterTableCmd"], catalogue)
        case "DropStmt" if content["removeType"] == "OBJECT_TABLE" and content["behavior"] == "DROP_RESTRICT":
            for one in content["objects"]:
                _check_dropped(_node(strings(one["List"]["items"])), content, catalogue, seen)
        case "IndexStmt":
            _check_known(content["relation"], catalogue, seen)
            _check_index(content)
        case "CommentStmt" if content["objtype"] in ("OBJECT_TABLE", "OBJECT_COLUMN"):
            parts = strings(content["object"]["List"]["items"])
            _check_known(_node(parts[:-1] if content["objtype"] == "OBJECT_COLUMN" else parts), catalogue, seen)
        case _:
            raise _refusal("it could keep an expression that reads them, or give a name to something else")


def _refusal(why: str) -> Refusal:
    return Refusal(
        "ddl-masked",
        f"{_MASKED}: {why}",
        "on tables without masked fields, CREATE TABLE with plain columns, ADD and DROP COLUMN, CREATE INDEX on plain "
        "columns, DROP TABLE and COMMENT pass; a role under which nothing is masked may do the rest",
    )


def _node(parts: list[str]) -> Node:
    if not 0 < len(parts) <= 2:
        raise Refusal("name", "a table is named by its schema and name only")
    return {"relname": parts[-1], **({"schemaname": parts[0]} if len(parts) == 2 else {})}


def _check_table(content: Node, catalogue: Catalogue, seen: Sights) -> None:
    if set(content) - _TABLE or content.get("oncommit", "ONCOMMIT_NOOP") != "ONCOMMIT_NOOP":
        raise _refusal("a new table is passed with plain columns only")
    _check_new(content["relation"], catalogue, seen)
    for one in content.get("tableElts", []):
        element, inner = wrapped(one) or ("", {})
        if element == "ColumnDef":
            _check_column(inner, catalogue)
        elif element == "Constraint" and inner["contype"] in ("CONSTR_PRIMARY", "CONSTR_UNIQUE"):
            _check_constraint(inner, catalogue)
        else:
            raise _refusal("a new table is passed with plain columns only")


def _check_new(content: Node, catalogue: Catalogue, seen: Sights) -> None:
    """Refuse names that rules know, or that others would then be hidden behind."""
    name, schema = content["relname"], content.get("schemaname")
    if content.get("relpersistence") == "t" or (schema or "").startswith("pg_"):
        said = "what a temporary table holds could not be told later, for its columns are in no catalogue"
        raise Refusal("ddl-masked", f"{_MASKED}: {said}", _LASTING)
    _check_free(name, None, catalogue, seen)


def _check_dropped(named: Node, content: Node, catalogue: Catalogue, seen: Sights) -> None:
    """Refuse to remove what stands before a relation that is hidden, which its name would mean at once.

    Another session's statement may be on its way that was decided on while the name meant this one.
    """
    missing = content.get("missing_ok") and catalogue.relation(named.get("schemaname"), named["relname"]) is None
    _check_free(named["relname"], None if missing else _check_known(named, catalogue, seen), catalogue, seen)


def _check_free(name: str, but: Relation | None, catalogue: Catalogue, seen: Sights) -> None:
    others = [one for one in catalogue.by_oid.values() if one.name == name and one is not but and not one.system]
    ruled = any(each.partition(".")[2] == name for each in seen.fields)
    if ruled or any(_guarded(one, catalogue, seen) for one in others):
        raise _refusal(f"{name} is a name that field rules speak of, or that a relation has which is not all clear")


def _check_known(content: Node, catalogue: Catalogue, seen: Sights) -> Relation:
    """Return an ordinary table that has nothing masked about it; raises Refusal for all others."""
    schema, name = content.get("schemaname"), content["relname"]
    relation = catalogue.relation(schema, name)
    if relation is None:
        shown = f"{schema}.{name}" if schema else name
        hint = meant(catalogue, seen, schema, name)
        raise Refusal("relation-unknown", f'relation "{shown}" does not exist', hint, sqlstate="42P01", retry=True)
    if relation.system or relation.kind != "r" or catalogue.heirs.get(relation.oid):
        raise _refusal(f"{relation.qualified} is no ordinary table")
    if _guarded(relation, catalogue, seen):
        raise _refusal(f"{relation.qualified} has masked fields, or belongs to what has some")
    return relation


def _guarded(relation: Relation, catalogue: Catalogue, seen: Sights) -> bool:
    """Say whether anything is masked about a relation, or could be: any rule of any of its names counts."""
    sight = seen.of(relation)
    named = any(name in seen.fields for name in (relation.qualified, *relation.former))
    named = named or not seen.freely_read(relation)
    return named or sight.tainted or bool(sight.masks or sight.problem or catalogue.ancestors.get(relation.oid))


def _check_command(command: Node, catalogue: Catalogue) -> None:
    match command["subtype"]:
        case "AT_AddColumn":
            _check_column(command["def"]["ColumnDef"], catalogue)
        case "AT_DropColumn" if command.get("behavior") == "DROP_RESTRICT":
            # Where the column is gone, `row.name` calls a function of that name.
            if command["name"] in catalogue.own | catalogue.attributes:
                raise _refusal(f"{command['name']} is also the name of a function")
        case _:
            raise _refusal("ADD COLUMN with a plain type and DROP COLUMN are what passes of ALTER TABLE")


def _check_column(content: Node, catalogue: Catalogue) -> None:
    if set(content) - _COLUMN:
        raise _refusal("a column is passed with its name, its type and plain constraints")
    if not is_plain_type(content["typeName"], catalogue):
        raise _refusal("a column is passed with a plain type")
    for one in content.get("constraints", []):
        _check_constraint(one["Constraint"], catalogue)


def _check_constraint(content: Node, catalogue: Catalogue) -> None:
    value = content.get("raw_expr", {"A_Const": {}})
    if content["contype"] not in _CONSTRAINTS or set(content) - _CONSTRAINT or not is_plain(value, catalogue):
        raise _refusal(
            "NOT NULL, PRIMARY KEY, UNIQUE, identity and a DEFAULT that is written out, the time or a new uuid "
            "are what passes"
        )


def _check_index(content: Node) -> None:
    elements = [one["IndexElem"] for one in content["indexParams"] + content.get("indexIncludingParams", [])]
    if (
        set(content) - _INDEX
        or content.get("accessMethod", "btree") not in _METHODS
        or any(set(one) - _INDEXED or "name" not in one for one in elements)
    ):
        raise _refusal("an index is passed on plain columns")
