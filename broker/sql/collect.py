"""Collecting what a query mentions: relations, names, functions, targets; every node of it is checked on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from broker.sql.catalogue import Catalogue
from broker.sql.model import Refusal
from broker.sql.names import check_function, check_operator, check_type
from broker.sql.nodes import EXPRESSIONS
from broker.sql.settings import refusal_of_current_setting
from broker.sql.tree import Node, strings, wrapped

_OPERATOR_SUBLINKS = frozenset({"ANY_SUBLINK", "ALL_SUBLINK"})


@dataclass(slots=True)
class Collected:
    """What a query mentions. `names` are the last parts of column references, `bare` those of one part."""

    references: list[tuple[Node, Node, Node | None]] = field(default_factory=list)
    """(wrapper, RangeVar, its RangeTableSample) of each relation that is read."""
    targets: list[tuple[str, Node, Node]] = field(default_factory=list)
    """(kind of statement, RangeVar, the statement) of each relation that is written."""
    columns: list[Node] = field(default_factory=list)
    calls: list[tuple[Node, Node, str]] = field(default_factory=list)
    """(wrapper, FuncCall, name) of each function that must be rewritten."""
    names: set[str] = field(default_factory=set)
    bare: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)
    ctes: set[str] = field(default_factory=set)
    rows: set[str] = field(default_factory=set)
    """Names that RETURNING WITH gives to the old and new rows of a target."""
    star: bool = False
    locks: bool = False


def collect(root: Any, catalogue: Catalogue) -> Collected:
    """Walk a query with a stack; raises Refusal for a node, function, operator or type outside the lists."""
    found = Collected()
    stack: list[Any] = [root]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack.extend(value)
            continue
        if not isinstance(value, dict):
            continue
        node = wrapped(value)
        if node is None:
            content = value
        else:
            kind, content = node
            if kind not in EXPRESSIONS:
                raise Refusal("syntax-unknown", f"this statement has a part ({kind}) that is not passed")
            if not _seen(found, catalogue, kind, content, value):
                continue
        for key, child in content.items():
            if key == "typeName":
                _type(catalogue, child)
            elif key in ("larg", "rarg") and wrapped(child) is None:
                child = {"SelectStmt": child}  # the arms of a set operation have no tag; those of a join do
            if isinstance(child, (dict, list)):
                stack.append(child)
    if _relation_count(root) != len(found.references) + len(found.targets):
        raise Refusal("syntax-unknown", "this statement names a table in a place that is not passed")
    return found


def _relation_count(root: Any) -> int:
    """Count everything that looks like a relation, wherever it stands: a second opinion on what was collected."""
    count = 0
    stack: list[Any] = [root]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            count += "relname" in value
            stack.extend(child for key, child in value.items() if key != "lockedRels")
        elif isinstance(value, list):
            stack.extend(value)
    return count


def _seen(found: Collected, catalogue: Catalogue, kind: str, content: Node, wrapper: Node) -> bool:
    """Take note of one node; returns whether to go on into its children."""
    match kind:
        case "RangeVar":
            found.references.append((wrapper, content, None))
            _renamed(found, content)
        case "RangeTableSample":
            _sample(found, content, wrapper)
            return False
        case "SelectStmt" if "intoClause" in content:
            raise Refusal("statement-kind", "SELECT INTO would copy data into a table that no rule knows")
        case "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt":
            found.targets.append((kind, content["relation"], content))
        case "LockingClause":
            found.locks = True
            return False
        case "CommonTableExpr":
            found.ctes.add(content["ctename"])
        case "ColumnRef":
            _column(found, content)
        case "A_Indirection":
            for part in content.get("indirection", []):
                found.star = found.star or "A_Star" in part
            named = set(strings(content.get("indirection", [])))
            found.names |= named
            found.attributes |= named
        case "JoinExpr":
            found.names.update(strings(content.get("usingClause", [])))
            found.star = found.star or bool(content.get("isNatural"))
        case "FuncCall":
            _call(found, catalogue, content, wrapper)
        case "A_Expr" | "SubLink" | "SortBy":
            for key in ("name", "operName", "useOp"):
                if kind != "SubLink" or content.get("subLinkType") in _OPERATOR_SUBLINKS:
                    _operator(catalogue, content.get(key))
        case "TypeName":
            _type(catalogue, content)
        case "ReturningOption":
            found.rows.add(content.get("value", ""))
        case "IndexElem":
            found.names.add(content.get("name", ""))
        case "CurrentOfExpr":
            raise Refusal("cursor-write", "WHERE CURRENT OF is not passed: name the row by its key")
    return True


def _column(found: Collected, content: Node) -> None:
    found.columns.append(content)
    fields = content.get("fields", [])
    parts = strings(fields)
    if len(fields) > 3:
        raise Refusal("name", "a column is named by its schema, table and name at most")
    if fields and "A_Star" in fields[-1]:
        found.star = True
    elif parts:
        found.names.add(parts[-1])
        if len(parts) == 1:
            found.bare.add(parts[0])
        else:
            found.attributes.add(parts[-1])


def _call(found: Collected, catalogue: Catalogue, content: Node, wrapper: Node) -> None:
    parts = strings(content.get("funcname", []))
    rewritten = check_function(catalogue, parts)
    found.functions.add(parts[-1])
    if parts[-1] == "current_setting" and (refusal := refusal_of_current_setting(content.get("args", []))):
        raise refusal
    if rewritten is not None:
        found.calls.append((wrapper, content, rewritten))


def _sample(found: Collected, content: Node, wrapper: Node) -> None:
    method = strings(content.get("method", []))
    if method not in (["system"], ["bernoulli"]):
        raise Refusal("function", "TABLESAMPLE is passed with system and bernoulli")
    numbers = [content.get("args", []), content.get("repeatable", {})]
    if any(
        wrapped(each) is None or (wrapped(each) or ("",))[0] not in ("A_Const", "ParamRef") for each in _flat(numbers)
    ):
        raise Refusal("function", "TABLESAMPLE is passed with plain numbers")
    inner = wrapped(content["relation"])
    if inner is None or inner[0] != "RangeVar":
        raise Refusal("rewrite", "TABLESAMPLE is passed on tables")
    found.references.append((wrapper, inner[1], content))
    _renamed(found, inner[1])


def _flat(values: list[Any]) -> list[Node]:
    return [each for value in values for each in (value if isinstance(value, list) else [value] if value else [])]


def _renamed(found: Collected, content: Node) -> None:
    # Column aliases give masked columns other names, so every column counts as named.
    if content.get("alias", {}).get("colnames"):
        found.star = True


def _operator(catalogue: Catalogue, names: list[Node] | None) -> None:
    if names:
        check_operator(catalogue, strings(names))


def _type(catalogue: Catalogue, content: Node) -> None:
    if content.get("pct_type"):
        raise Refusal("type", "%TYPE is not passed")
    if names := strings(content.get("names", [])):
        check_type(catalogue, names)
