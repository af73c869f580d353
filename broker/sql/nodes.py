"""What kinds of statement there are, and which nodes an expression may hold; what is in no list here is refused."""

from __future__ import annotations

from broker.sql.model import Control, Refusal
from policies.engine.decisions import Effect

QUERIES = {
    "SelectStmt": "SELECT",
    "InsertStmt": "INSERT",
    "UpdateStmt": "UPDATE",
    "DeleteStmt": "DELETE",
    "MergeStmt": "MERGE",
}

EXPRESSIONS = frozenset(
    """
    A_ArrayExpr A_Const A_Expr A_Indices A_Indirection A_Star Alias BitString BoolExpr Boolean BooleanTest
    CTECycleClause CTESearchClause CaseExpr CaseWhen CoalesceExpr CollateClause ColumnDef ColumnRef CommonTableExpr
    CurrentOfExpr DefElem DeleteStmt Float FuncCall GroupingFunc GroupingSet IndexElem InferClause InsertStmt Integer
    JoinExpr JsonAggConstructor JsonArgument JsonArrayAgg JsonArrayConstructor JsonArrayQueryConstructor JsonBehavior
    JsonFormat JsonFuncExpr JsonIsPredicate JsonKeyValue JsonObjectAgg JsonObjectConstructor JsonOutput JsonParseExpr
    JsonReturning JsonScalarExpr JsonSerializeExpr JsonTable JsonTableColumn JsonTablePathSpec JsonValueExpr List
    LockingClause MergeStmt MergeSupportFunc MergeWhenClause MinMaxExpr MultiAssignRef NamedArgExpr NullTest
    OnConflictClause ParamRef RangeFunction RangeSubselect RangeTableFunc RangeTableFuncCol RangeTableSample RangeVar
    ResTarget ReturningClause ReturningOption RowExpr SQLValueFunction SelectStmt SetToDefault SortBy String SubLink
    TypeCast TypeName UpdateStmt WindowDef WithClause XmlExpr XmlSerialize
    """.split()
)

TRANSACTION_CONTROL = {
    "TRANS_STMT_BEGIN": Control.BEGIN,
    "TRANS_STMT_START": Control.BEGIN,
    "TRANS_STMT_COMMIT": Control.COMMIT,
    "TRANS_STMT_ROLLBACK": Control.ROLLBACK,
    "TRANS_STMT_SAVEPOINT": Control.SAVEPOINT,
    "TRANS_STMT_RELEASE": Control.RELEASE,
    "TRANS_STMT_ROLLBACK_TO": Control.ROLLBACK_TO,
}

EXPLAIN_OPTIONS = frozenset(
    "analyze verbose costs settings generic_plan buffers serialize wal timing summary memory format".split()
)
TELLING_OPTIONS = frozenset("costs buffers serialize wal timing summary memory".split())
"""What EXPLAIN must not show over masked relations: estimates and measures follow the raw values."""

_ADMIN = (
    "AlterSystem", "AlterRole", "CreateRole", "DropRole", "Grant", "AlterDatabase", "Createdb", "Dropdb", "DropdbStmt",
    "CreatedbStmt", "CheckPoint", "Vacuum", "Cluster", "Reindex", "Load", "Reassign", "DropOwned",
    "CreateTableSpace", "DropTableSpace", "AlterTableSpace", "CreateSubscription", "AlterSubscription",
    "DropSubscription", "CreateExtension", "AlterExtension", "CreatePLang", "SecLabel",
    "CreateUserMapping", "AlterUserMapping", "DropUserMapping",
)  # fmt: skip
_ASK = "ask whoever runs the database"
_SAID = {
    "SecLabelStmt": ("SECURITY LABEL is work on the server, and not passed by this broker", _ASK),
    "AlterRoleStmt": (
        "roles and their passwords are not changed through this broker",
        "your ticket is the only password that you need here",
    ),
}


_SHORT = {
    "domconstraint": "domain constraint",
    "fdw": "foreign data wrapper",
    "largeobject": "large object",
    "matview": "materialized view",
    "opclass": "operator class",
    "opfamily": "operator family",
    "parameter acl": "parameter",
    "statistic ext": "statistics",
    "tabconstraint": "constraint",
}


def words_of(kind: str) -> str:
    """Return what PostgreSQL calls a kind of object in its own statements, of the grammar's name for it."""
    words = kind.removeprefix("OBJECT_").replace("_", " ").lower()
    return f"text search {words[2:]}" if words.startswith("ts") else _SHORT.get(words, words)


def refused_kind(kind: str, verb: str) -> tuple[Effect, Refusal]:
    """Return the effect of a statement that is not a query, and why the broker itself never passes it."""
    effect = Effect.ADMIN if kind.startswith(_ADMIN) else Effect.DDL
    what = "is work on the server, and not passed" if effect is Effect.ADMIN else "is not passed"
    message, hint = _SAID.get(kind, (f"{verb} {what} by this broker", _ASK))
    return effect, Refusal("statement-kind", message, hint, verb=verb)
