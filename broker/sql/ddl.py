"""Statements that change the schema, taken apart: what each makes, changes or removes, and the expressions in it.

Every kind of statement, every form of it and every node is listed; what is in no list is refused (fail closed). Names
of what is not a relation (types, functions, schemas) count like relations: a role's list has to cover them. A schema is
`name.*`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from broker.sql.contrib import HARMLESS_EXTENSIONS
from broker.sql.model import Refusal
from broker.sql.nodes import EXPRESSIONS, QUERIES, words_of
from broker.sql.tree import Node, strings, wrapped
from policies.engine.decisions import Effect

Name = tuple[str | None, str]
"""(schema or nothing, name)."""


@dataclass(slots=True)
class Change:
    """One such statement. `touched` are the relations' nodes in it, `named` the names of everything else."""

    effects: set[Effect] = field(default_factory=lambda: {Effect.DDL})
    touched: list[Node] = field(default_factory=list)
    named: list[Name] = field(default_factory=list)
    schemas: list[str] = field(default_factory=list)
    """Schemas that are made, changed or removed, with all that is in them."""
    everything: bool = False
    """It is about every relation that there is."""
    parts: list[Node] = field(default_factory=list)
    """Queries and expressions, in which every name has to be looked up like anywhere else."""
    types: list[Node] = field(default_factory=list)
    code: set[str] = field(default_factory=set)
    """What of it runs code of users' from then on, or takes such away."""
    stored: bool = True
    """Its queries are kept, and run again later."""
    indexes: bool = False
    """What it names are indexes."""
    keeps: bool = False
    """It changes nothing of what its tables hold: VACUUM and ANALYZE, of the server's own too."""
    cascades: bool = False
    """What rests on something that it removes goes too."""


_STRUCTURE = frozenset(
    """
    ATAlterConstraint AccessPriv AlterTableCmd Boolean ColumnDef Constraint DefElem Float FunctionParameter IndexElem
    Integer List ObjectWithArgs PartitionCmd PartitionElem RangeVar ReplicaIdentityStmt ReturnStmt RoleSpec StatsElem
    String TableLikeClause TriggerTransition VacuumRelation VariableSetStmt
    """.split()
)
_TYPES = frozenset({"typeName", "argType", "returnType", "ofTypename", "sourcetype", "targettype"})
_COMMANDS = frozenset(
    f"AT_{name}"
    for name in """
    AddColumn AddConstraint AddIdentity AddIndexConstraint AddInherit AddOf AlterColumnType AlterConstraint
    AttachPartition ClusterOn ColumnDefault DetachPartition DetachPartitionFinalize DropCluster DropColumn
    DropConstraint DropExpression DropIdentity DropInherit DropNotNull DropOf ReplicaIdentity ResetOptions
    ResetRelOptions SetAccessMethod SetCompression SetExpression SetIdentity SetLogged SetNotNull SetOptions
    SetRelOptions SetStatistics SetStorage SetTableSpace SetUnLogged ValidateConstraint
    """.split()
)
_GUARDS = frozenset(
    f"AT_{name}"
    for name in """
    ChangeOwner DisableRowSecurity DisableRule DisableTrig DisableTrigAll DisableTrigUser EnableAlwaysRule
    EnableAlwaysTrig EnableReplicaRule EnableReplicaTrig EnableRowSecurity EnableRule EnableTrig EnableTrigAll
    EnableTrigUser ForceRowSecurity NoForceRowSecurity
    """.split()
)
"""What decides who may do what with a table, or what guards it."""
_RELATIONS = frozenset(
    f"OBJECT_{name}" for name in "TABLE VIEW MATVIEW SEQUENCE INDEX STATISTIC_EXT COLLATION TYPE DOMAIN".split()
)
_ROUTINES = frozenset(f"OBJECT_{name}" for name in "FUNCTION PROCEDURE ROUTINE AGGREGATE OPERATOR".split())
_PARTS = frozenset(f"OBJECT_{name}" for name in "COLUMN TABCONSTRAINT TRIGGER RULE POLICY".split())
"""What is named after the table that it belongs to."""
_CODE = frozenset(f"OBJECT_{name}" for name in "TRIGGER RULE POLICY".split())
LANGUAGES = frozenset({"sql", "plpgsql"})
_FUNCTION_OPTIONS = frozenset(
    "as language volatility strict cost rows parallel window leakproof security set reset".split()
)
_INDEX = ("OBJECT_INDEX", "REINDEX_OBJECT_INDEX")
_KINDS = ("removeType", "objtype", "renameType", "objectType", "kind")
"""Where a statement says what kind of thing it is about."""
_WHOLE = frozenset({"CreateSchemaStmt", "CreateTableAsStmt"})
"""Kinds of which a form is refused in its own words, before what is in it is."""
_ASK = "ask whoever runs the database"


def change_of(kind: str, content: Node) -> Change | None:
    """Take a statement apart; None for a kind that is in no list. Raises Refusal for a form that is not passed."""
    if kind == "SelectStmt":
        return Change(touched=[content["intoClause"]["rel"]], parts=[{kind: content}], stored=False)
    reader = _READERS.get(kind)
    if reader is None:
        return None
    change = Change(indexes=any(content.get(key) in _INDEX for key in _KINDS))
    for step in (reader, _walk) if kind in _WHOLE else (_walk, reader):
        step(change, content)
    return change


def _refuse(what: str, hint: str = _ASK) -> Refusal:
    return Refusal("statement-kind", f"{what} is not passed by this broker", hint)


def _walk(change: Change, root: Any) -> None:
    """Find the relations, types and expressions of a statement."""
    stack: list[Any] = [root]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack.extend(value)
        if not isinstance(value, dict):
            continue
        kind, content = wrapped(value) or ("", value)
        if kind in QUERIES or (kind and kind in EXPRESSIONS and kind not in _STRUCTURE):
            change.parts.append(value)
            continue
        if kind and kind not in _STRUCTURE:
            raise Refusal("syntax-unknown", f"this statement has a part ({kind}) that is not passed")
        if "relname" in content:
            change.touched.append(content)
            continue
        for key, child in content.items():
            if key in _TYPES and isinstance(child, dict):
                change.types.append({"TypeName": child} if wrapped(child) is None else child)
            elif isinstance(child, (dict, list)):
                stack.append(child)


def _name(parts: list[str]) -> Name:
    if not 0 < len(parts) <= 2:
        raise Refusal("name", "a name has its schema and name at most")
    return (parts[0], parts[1]) if len(parts) == 2 else (None, parts[0])


def _object(node: Any) -> Name:
    """Return the name in a node that names an object."""
    kind, content = wrapped(node) or ("", node if isinstance(node, dict) else {})
    match kind:
        case "List":
            return _name(strings(content["items"]))
        case "TypeName":
            return _name(strings(content["names"]))
        case "ObjectWithArgs" | "":
            return _name(strings(content["objname"]))
        case "String":
            return None, str(content.get("sval", ""))
        case _:
            raise Refusal("syntax-unknown", f"this statement names something by {kind}, which is not passed")


def _parts(node: Any) -> list[str]:
    _, content = wrapped(node) or ("", {})
    return strings(content["items"])


def _of_kind(change: Change, kind: str, node: Any) -> None:
    """Take note of an object by its kind; raises Refusal for kinds that are not passed."""
    match kind:
        case "OBJECT_SCHEMA":
            change.schemas.append(_object(node)[1])
        case _ if kind in _RELATIONS | _ROUTINES:
            change.named.append(_object(node))
        case _ if kind in _PARTS:
            change.named.append(_name(_parts(node)[:-1]))
            if kind in _CODE:
                change.code.add(".".join(_parts(node)))
        case _:
            raise _refuse(f"work on {words_of(kind)}")


def _create(change: Change, content: Node) -> None:
    """CREATE TABLE, INDEX, VIEW, SEQUENCE, TYPE and the like: `_walk` has found all there is."""
    for key in ("typeName", "domainname", "defnames"):
        if isinstance(content.get(key), list):
            change.named.append(_name(strings(content[key])))
    for option in _options(content):
        if option.get("defname") == "owned_by" and _parts(option["arg"]) != ["none"]:
            change.named.append(_name(_parts(option["arg"])[:-1]))


def _view(change: Change, content: Node) -> None:
    name = content["view"]["relname"]
    if content["view"].get("relpersistence") == "t" or content["view"].get("schemaname") == "pg_temp":
        # Known to its own session alone: nobody could say later what is behind it.
        change.code.add(f"the temporary view {name}")


def _options(content: Node) -> Iterator[Node]:
    for option in content.get("options", []):
        yield option["DefElem"]


def _alter_table(change: Change, content: Node) -> None:
    if content.get("objtype") not in _RELATIONS:
        raise _refuse(f"ALTER {words_of(str(content.get('objtype'))).upper()}")
    for command in content["cmds"]:
        name = command["AlterTableCmd"]["subtype"]
        change.cascades = change.cascades or command["AlterTableCmd"].get("behavior") == "DROP_CASCADE"
        if name in _GUARDS:
            change.effects.add(Effect.ADMIN)
        elif name not in _COMMANDS:
            raise _refuse("this form of ALTER TABLE")
        if "Rule" in name or "Trig" in name or "RowSecurity" in name:
            change.code.add(name.removeprefix("AT_"))


def _drop(change: Change, content: Node) -> None:
    kind = content["removeType"]
    if kind == "OBJECT_EXTENSION":
        change.effects.add(Effect.ADMIN)
        change.code.update(f"extension {_object(one)[1]}" for one in content["objects"])
        return
    change.cascades = content["behavior"] == "DROP_CASCADE"
    for one in content["objects"]:
        if kind == "OBJECT_CAST":
            change.code.add("a cast")
        else:
            _of_kind(change, kind, one)


def _subjects(change: Change, content: Node) -> list[Name]:
    """Return the names of what a statement renames or moves: of the relations in it, and of its object."""
    names: list[Name] = [(one.get("schemaname"), one["relname"]) for one in change.touched]
    return [*names, _object(content["object"])] if "object" in content else names


def _rename(change: Change, content: Node) -> None:
    kind, new = content["renameType"], str(content["newname"])
    if kind == "OBJECT_SCHEMA":
        change.schemas += [str(content["subname"]), new]
        return
    if kind not in _RELATIONS | _ROUTINES | _PARTS | {"OBJECT_ATTRIBUTE", "OBJECT_DOMCONSTRAINT"}:
        raise _refuse(f"renaming {words_of(kind)}")
    before = _subjects(change, content)
    change.named += before[len(change.touched) :]
    if kind in _ROUTINES | _CODE:
        change.code.add(new)
    if kind in _RELATIONS | _ROUTINES and kind not in _INDEX:
        change.named += [(schema, new) for schema, _ in before]


def _move(change: Change, content: Node) -> None:
    kind, schema = content["objectType"], str(content["newschema"])
    if kind not in _RELATIONS | _ROUTINES:
        raise _refuse(f"moving {words_of(kind)}")
    before = _subjects(change, content)
    if kind in _ROUTINES:
        change.code.update(name for _, name in before)
    change.named += [*before[len(change.touched) :], *((schema, name) for _, name in before)]


def _own(change: Change, content: Node) -> None:
    change.effects = {Effect.ADMIN}
    _of_kind(change, content["objectType"], content["object"])


def _comment(change: Change, content: Node) -> None:
    if content["objtype"] == "OBJECT_EXTENSION":
        return
    _of_kind(change, content["objtype"], content["object"])
    change.code.clear()  # What is said of a trigger changes nothing of it.


def _select(change: Change, content: Node) -> None:
    """CREATE TABLE AS, and CREATE MATERIALIZED VIEW."""
    if (wrapped(content["query"]) or ("",))[0] != "SelectStmt":
        raise _refuse("CREATE TABLE AS EXECUTE", "write the SELECT itself")
    change.stored = content.get("objtype") != "OBJECT_TABLE"


def _schema(change: Change, content: Node) -> None:
    if "schemaElts" in content or "schemaname" not in content:
        raise _refuse("this form of CREATE SCHEMA", "name the schema, and create what it holds by itself")
    change.schemas.append(str(content["schemaname"]))
    if "authrole" in content:
        change.effects.add(Effect.ADMIN)


def _range(change: Change, content: Node) -> None:
    change.named.append(_name(strings(content["typeName"])))
    change.code.add(".".join(strings(content["typeName"])))


def _function(change: Change, content: Node) -> None:
    """CREATE or ALTER FUNCTION: in languages whose code can do no more than its caller, with the caller's rights."""
    name = content["funcname"] if "funcname" in content else content["func"]["objname"]
    change.named.append(_name(strings(name)))
    change.code.add(".".join(strings(name)))
    language = "sql" if "sql_body" in content or "func" in content else ""
    for option in (one["DefElem"] for one in content.get("options", []) + content.get("actions", [])):
        called, value = option["defname"], (wrapped(option.get("arg")) or ("", {}))[1]
        if called == "language":
            language = str(value.get("sval", "")).lower()
        if called not in _FUNCTION_OPTIONS or (called in ("security", "leakproof") and value.get("boolval")):
            what = {"security": "SECURITY DEFINER"}.get(called, called.upper())
            raise _refuse(f"a function with {what}", "without it a function runs with the rights of who calls it")
        if called in ("set", "reset") and value.get("name") != "search_path":
            raise _refuse("a function that changes settings other than search_path")
    if language not in LANGUAGES:
        raise _refuse(f"a function in {language or 'a language that is not named'}", "sql and plpgsql are passed")


def _code(change: Change, content: Node) -> None:
    """CREATE TRIGGER, RULE, POLICY, CAST."""
    name = content.get("trigname") or content.get("rulename") or content.get("policy_name") or "a cast"
    change.code.add(str(name))


def _define(change: Change, content: Node) -> None:
    kind = content["kind"]
    if kind not in ("OBJECT_AGGREGATE", "OBJECT_OPERATOR", "OBJECT_COLLATION"):
        raise _refuse(f"CREATE {words_of(kind).upper()}")
    change.named.append(_name(strings(content["defnames"])))
    if kind != "OBJECT_COLLATION":
        change.code.add(".".join(strings(content["defnames"])))


def _upkeep(change: Change, content: Node) -> None:
    """VACUUM, ANALYZE, CLUSTER, REINDEX."""
    change.effects = {Effect.ADMIN}
    change.everything = not change.touched and "kind" not in content
    change.keeps = "rels" in content
    match content.get("kind", ""):
        case "REINDEX_OBJECT_SCHEMA":
            change.schemas.append(str(content["name"]))
        case "" | "REINDEX_OBJECT_TABLE" | "REINDEX_OBJECT_INDEX":
            pass
        case _:
            raise _refuse("REINDEX of a whole database")


def _grant(change: Change, content: Node) -> None:
    change.effects = {Effect.ADMIN}
    kind, target = content["objtype"], content["targtype"]
    if kind == "OBJECT_SCHEMA" or target == "ACL_TARGET_ALL_IN_SCHEMA":
        change.schemas += [_object(one)[1] for one in content["objects"]]
    elif kind in _RELATIONS | _ROUTINES and target == "ACL_TARGET_OBJECT":
        change.named += [_object(one) for one in content["objects"] if "RangeVar" not in one]
    else:
        raise _refuse(f"GRANT on {words_of(kind)}")


def _default_rights(change: Change, content: Node) -> None:
    change.effects = {Effect.ADMIN}
    named = [one["arg"] for one in _options(content) if one.get("defname") == "schemas"]
    if not named:
        raise _refuse("ALTER DEFAULT PRIVILEGES for every schema", "name the schema")
    change.schemas += [name for one in named for name in strings(one["List"]["items"])]


def _extension(change: Change, content: Node) -> None:
    change.effects = {Effect.ADMIN}
    name = str(content["extname"])
    # A language is an extension too: schemas that Rails writes, and dumps, begin with plpgsql where there is none.
    if name not in HARMLESS_EXTENSIONS | LANGUAGES:
        raise _refuse(f"the extension {name}")
    change.code.add(f"extension {name}")
    for option in _options(content):
        if option["defname"] == "schema":
            change.named.append((str(option["arg"]["String"]["sval"]), name))


_READERS: dict[str, Callable[[Change, Node], None]] = {
    **dict.fromkeys(
        (
            "AlterDomainStmt", "AlterEnumStmt", "AlterSeqStmt", "CompositeTypeStmt", "CreateDomainStmt",
            "CreateEnumStmt", "CreateSeqStmt", "CreateStatsStmt", "CreateStmt", "IndexStmt", "RefreshMatViewStmt",
        ),
        _create,
    ),
    **dict.fromkeys(("ClusterStmt", "ReindexStmt", "VacuumStmt"), _upkeep),
    **dict.fromkeys(("CreateFunctionStmt", "AlterFunctionStmt"), _function),
    **dict.fromkeys(("CreateTrigStmt", "RuleStmt", "CreatePolicyStmt", "AlterPolicyStmt", "CreateCastStmt"), _code),
    **dict.fromkeys(("CreateExtensionStmt", "AlterExtensionStmt"), _extension),
    "AlterDefaultPrivilegesStmt": _default_rights,
    "AlterObjectSchemaStmt": _move,
    "AlterOwnerStmt": _own,
    "AlterTableStmt": _alter_table,
    "CommentStmt": _comment,
    "CreateRangeStmt": _range,
    "CreateSchemaStmt": _schema,
    "CreateTableAsStmt": _select,
    "DefineStmt": _define,
    "DropStmt": _drop,
    "GrantStmt": _grant,
    "RenameStmt": _rename,
    "ViewStmt": _view,
}  # fmt: skip
