"""Collecting what a query mentions: relations, names, functions, targets; every node of it is checked on the way."""

from __future__ import annotations

from typing import Any

from broker.sql.catalogue import Catalogue
from broker.sql.collected import Collected
from broker.sql.comparing import CLAUSES
from broker.sql.grammar import SYNTAX, as_called, called, is_column
from broker.sql.model import Refusal
from broker.sql.names import called_builtin, check_function, check_operator, check_type, own_candidates
from broker.sql.nodes import EXPRESSIONS
from broker.sql.sequences import FUNCTIONS as SEQUENCED
from broker.sql.sequences import TELLING
from broker.sql.settings import moved_by_call, own_called, own_read, refusal_of_call, shows_only_settings
from broker.sql.tree import Node, joined, strings, wrapped

MAX_QUERIES = 500
_COMPARED = ["<", "<=", ">=", ">"]
_LEAVES = frozenset("String A_Star A_Const Integer Float Boolean BitString ParamRef".split())
"""Nodes that hold nothing but a value, or its number."""
_PLAIN = frozenset("ResTarget BoolExpr List TypeCast NullTest Alias CommonTableExpr".split())
"""Nodes of which no note is taken, but of what is in them."""
assert (_LEAVES | _PLAIN) <= EXPRESSIONS
_NOTED = frozenset({"typeName", "larg", "rarg", "withClause", "intoClause", *CLAUSES})
"""Keys of a node that mean more than that something is in it."""
assert len(_NOTED) == 5 + len(CLAUSES)


def collect(
    root: Any,
    catalogue: Catalogue,
    passed: frozenset[int] = frozenset(),
    *,
    in_clear: bool = False,
    relations: int | None = None,
    named: tuple[str, ...] = (),
) -> Collected:
    """Walk a query with a stack; raises Refusal for a node, function, operator or type outside the lists.

    `passed` are ids of calls that somebody else looks at, `relations` is how many the parser wrote where the query is
    all of its text, `named` are settings of an application's own as rules name them.
    """
    found = Collected(catalogue=catalogue, passed=passed, in_clear=in_clear, named=named)
    read = 0
    # What sees other WITH queries stands with their names, and all else on the stack.
    others: list[tuple[Any, frozenset[str]]] = []
    stack: list[Any] = [root]
    seen: frozenset[str] = frozenset()
    while stack or others:
        if not stack:
            value, seen = others.pop()
        else:
            value = stack.pop()
        if isinstance(value, list):
            stack += value
            continue
        if not isinstance(value, dict):
            continue
        # As `wrapped`, written out: most values are no node, or one of which nothing is to be noted.
        kind, content = next(iter(value.items())) if len(value) == 1 else ("", value)
        if not (kind and kind[0].isupper() and isinstance(content, dict)):
            kind, content = "", value
        if kind in _LEAVES:
            continue
        if kind and kind not in EXPRESSIONS:
            raise Refusal("syntax-unknown", f"this statement has a part ({kind}) that is not passed")
        if kind == "RangeVar" and "schemaname" not in content and content["relname"] in seen:
            # A WITH query of this name stands before whatever table has it.
            _row(found, "CommonTableExpr", content)
            read += 1
            continue
        if kind and kind not in _PLAIN and not _seen(found, catalogue, kind, content, value):
            continue
        below = stack
        if "withClause" in content:
            below = []
            others.append((below, _with(others, content["withClause"], seen)))
        for key, child in content.items():
            if key in _NOTED:
                if key == "typeName":
                    _type(found, catalogue, child)
                elif key in ("larg", "rarg"):
                    # The arms of a set operation have no tag; those of a join do.
                    child = {"SelectStmt": child} if wrapped(child) is None else child
                elif key in ("withClause", "intoClause"):
                    continue
                elif kind and isinstance(child, (dict, list)):
                    found.clauses.append((key, content))
            if isinstance(child, (dict, list)):
                below.append(child)
    if root:
        found.own |= catalogue.implied
    collected = len(found.references) + len(found.targets) + read
    if collected != relations and collected != _relation_count(root):
        raise Refusal("syntax-unknown", "this statement names a table in a place that is not passed")
    return found


def _with(others: list[tuple[Any, frozenset[str]]], clause: Node, seen: frozenset[str]) -> frozenset[str]:
    """Put the queries of a WITH by with the names that each sees; returns what its statement sees."""
    queries = clause["ctes"]
    if len(queries) > MAX_QUERIES:
        raise Refusal("limit-queries", f"WITH has more than {MAX_QUERIES} queries", sqlstate="54000")
    if clause.get("recursive"):
        seen |= {query["CommonTableExpr"]["ctename"] for query in queries}
    for query in queries:
        others.append((query, seen))
        seen |= {query["CommonTableExpr"]["ctename"]}
    return seen


def _relation_count(root: Any) -> int:
    """Count everything that looks like a relation, wherever it stands: a second opinion on what was collected."""
    count = 0
    stack: list[Any] = [root]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            count += "relname" in value
            stack.extend(child for key, child in value.items() if key not in ("lockedRels", "intoClause"))
        elif isinstance(value, list):
            stack.extend(value)
    return count


def _seen(found: Collected, catalogue: Catalogue, kind: str, content: Node, wrapper: Node) -> bool:
    """Take note of one node; returns whether to go on into its children. The most frequent ones come first."""
    match kind:
        case "ColumnRef":
            return _column(found, content)
        case "A_Expr" | "SubLink" | "SortBy" | "CaseExpr":
            for name in _operators(kind, content):
                check_operator(catalogue, name, found.code, found.apart)
        case "RangeVar":
            found.references.append((wrapper, content, None))
            _row(found, kind, content)
        case "RangeTableSample":
            _sample(found, content, wrapper)
            return False
        case "SelectStmt":
            _select(found, content)
        case "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt":
            found.targets.append((kind, content["relation"], content))
        case "LockingClause":
            found.locks = True
            return False
        case "A_Indirection":
            _indirection(found, content)
        case "JoinExpr":
            _join(found, catalogue, content)
        case "RangeFunction" if (call := _listing(content)) is not None:
            found.listings.append((wrapper, content, call))
            _row(found, kind, content)
            return False
        case "RangeSubselect" | "RangeFunction" | "RangeTableFunc" | "JsonTable":
            _row(found, kind, content)
        case "ColumnDef":
            if set(content) - {"colname", "typeName", "is_local", "collClause", "location"}:
                raise Refusal("syntax-unknown", "a column definition is passed with its name and type only")
        case "FuncCall" if id(content) in found.passed:
            return False
        case "FuncCall":
            _call(found, catalogue, content, wrapper)
        case "TypeName":
            _type(found, catalogue, content)
        case "ReturningOption":
            found.rows.add(content.get("value", ""))
        case "IndexElem":
            found.names.add(content.get("name", ""))
        case _ if kind in SYNTAX:
            _own_call(found, catalogue, called(kind, content, catalogue.server_version))
        case "CurrentOfExpr":
            raise Refusal("cursor-write", "WHERE CURRENT OF is not passed: name the row by its key")
    return True


def _select(found: Collected, content: Node) -> None:
    if "intoClause" in content and id(content) not in found.passed:
        raise Refusal("statement-kind", "SELECT INTO would copy data into a table that no rule knows")
    if "groupClause" in content:
        found.groups.append(content)
    for target in content.get("targetList", ()):
        column = target["ResTarget"].get("val", {}).get("ColumnRef", {})
        fields = column.get("fields", ())
        if not fields or "A_Star" not in fields[-1] or len(fields) > 2:
            continue
        found.placed.add(id(column))
        found.stars.append(content)
        if len(fields) == 1:
            rows = {id(each) for each in joined(content.get("fromClause", []))}
            found.mean_all(rows, listed=len(rows) == 1)


def _listing(content: Node) -> Node | None:
    """Return the call of `FROM pg_show_all_settings()`, which pgAdmin connects with."""
    if set(content) - {"functions", "alias"} or len(content.get("functions", [])) != 1:
        return None
    call = content["functions"][0].get("List", {}).get("items", [{}])[0].get("FuncCall", {})
    names = strings(call.get("funcname", []))
    plain = not set(call) - {"funcname", "funcformat", "location"}
    return call if plain and names in (["pg_show_all_settings"], ["pg_catalog", "pg_show_all_settings"]) else None


def _column(found: Collected, content: Node) -> bool:
    """Take note of a column; returns whether there is more in it than names."""
    found.columns.append(content)
    fields = content.get("fields", [])
    parts = strings(fields)
    if len(fields) > 3:
        raise Refusal("name", "a column is named by its schema, table and name at most")
    if fields and "A_Star" in fields[-1]:
        found.spread.update(parts[-1:])
        if id(content) not in found.placed:
            found.taken[1].update(parts[-1:])
            found.star = found.star or not parts
    elif parts:
        found.names.add(parts[-1])
        if len(parts) == 1:
            found.bare.add(parts[0])
        else:
            found.attributes.add((parts[-2], parts[-1]))
    return len(parts) + ("A_Star" in fields[-1] if fields else 0) != len(fields)


def _call(found: Collected, catalogue: Catalogue, content: Node, wrapper: Node) -> None:
    parts = as_called(strings(content.get("funcname", [])), catalogue.server_version)
    rewritten = check_function(catalogue, parts, found.code)
    found.functions.add(parts[-1])
    if is_column(parts, catalogue.server_version):
        found.names.add(parts[-1])
        found.bare.add(parts[-1])
    found.own.update(own_candidates(catalogue, parts[0] if len(parts) > 1 else None, parts[-1], found.code))
    if (builtin := called_builtin(parts)) is not None:
        found.builtin.add(builtin)
        if builtin.name in SEQUENCED:
            found.counters.append(content)
    if parts[-1] in TELLING and not found.in_clear:
        found.numbers.append(content)
    if parts[-1] == "set_config":
        found.sets = True
        if (moved := moved_by_call(content)) is not None:
            found.moved.append(moved)
        if (refusal := refusal_of_call(content, found.named)) is not None:
            raise refusal
        own, written = own_called(content, found.named)
        found.settings |= own
        if not written:
            found.calls.append((wrapper, content, "set_config"))
    # Only a type that is written out is known to run no code of users' when it is filled.
    if "_populate_record" in parts[-1] and "TypeCast" not in (content.get("args") or [{}])[0]:
        raise Refusal("function", f"{parts[-1]} is passed with a type written out", "write null::type")
    if rewritten is None or shows_only_settings(parts[-1], content.get("args", []), in_clear=found.in_clear):
        return
    if (name := own_read(parts[-1], content, found.named)) is not None:
        found.settings.add(name)
    else:
        found.calls.append((wrapper, content, rewritten))


def _own_call(found: Collected, catalogue: Catalogue, name: str) -> None:
    """Take note of what is a call of a function of users' to a server that does not know it as syntax."""
    own = own_candidates(catalogue, None, name, found.code) if name else ()
    if own:
        check_function(catalogue, [name], found.code)
        found.functions.add(name)
        found.own.update(own)


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
    _row(found, *inner)


def _flat(values: list[Any]) -> list[Node]:
    return [each for value in values for each in (value if isinstance(value, list) else [value] if value else [])]


def _row(found: Collected, kind: str, content: Node) -> None:
    """Take note of what a row of FROM is called."""
    alias = content.get("alias", {})
    found.aliases.setdefault(alias.get("aliasname", content.get("relname", "")), []).append((kind, content))
    if alias.get("colnames") and kind == "RangeVar":
        # Masked columns have other names, so every column counts as named.
        found.mean_all({id(content)})


def _indirection(found: Collected, content: Node) -> None:
    """Take note of `(expression).name.name`: only the first name can be of a row of FROM."""
    fields = content.get("arg", {}).get("ColumnRef", {}).get("fields", [])
    row = strings(fields)[0] if len(fields) == 1 and strings(fields) else ""
    for part in content.get("indirection", []):
        found.star = found.star or "A_Star" in part
        for name in strings([part]):
            found.names.add(name)
            found.attributes.add((row, name))
        row = ""


def _join(found: Collected, catalogue: Catalogue, content: Node) -> None:
    found.names.update(strings(content.get("usingClause", [])))
    if "usingClause" in content or content.get("isNatural"):
        check_operator(catalogue, ["="], found.code, found.apart)
    # The row of a join has every column, and calls them as it likes.
    if content.get("isNatural") or "alias" in content:
        found.mean_all({id(each) for each in joined([content["larg"], content["rarg"]])})
    if "alias" in content:
        _row(found, "JoinExpr", content)


def _operators(kind: str, content: Node) -> list[list[str]]:
    """Return the operators that a node uses, those that the grammar leaves out too."""
    named = [strings(content[key]) for key in ("name", "operName", "useOp") if key in content]
    if "BETWEEN" in content.get("kind", ""):
        return [[name] for name in _COMPARED]
    implied = (kind == "CaseExpr" and "arg" in content) or content.get("subLinkType") in ("ANY_SUBLINK", "ALL_SUBLINK")
    return named or ([["="]] if implied else [])


def _type(found: Collected, catalogue: Catalogue, content: Node) -> None:
    if content.get("pct_type"):
        raise Refusal("type", "%TYPE is not passed")
    if names := strings(content.get("names", [])):
        check_type(catalogue, names, found.code)
