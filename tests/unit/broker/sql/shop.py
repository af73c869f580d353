"""The catalogue of an invented shop, and what of it is masked."""

from __future__ import annotations

from broker.sql.building import build
from broker.sql.catalogue import Catalogue
from broker.sql.catalogue_queries import QUERIES
from broker.sql.inspect import inspect
from broker.sql.model import Refusal
from policies.engine.decisions import FieldView, Mask, MaskKind, RelationFields
from tests.support.catalogue import described

FIELDS: FieldView = {
    "public.customers": RelationFields(clear=frozenset({"id", "name"}), masks={"ssn": Mask(MaskKind.PARTIAL, 4)}),
    "public.staff": RelationFields(clear=frozenset({"id"})),
}


def _column(oid: int, attnum: int, name: str, type_: str, typname: str) -> dict[str, object]:
    return {
        "oid": oid, "attnum": attnum, "name": name, "type": type_, "typname": typname, "typschema": "pg_catalog",
        "typtype": "b", "category": "S", "base": None,
    }  # fmt: skip


def _relation(oid: int, name: str, kind: str = "r", schema: str = "public", **flags: bool) -> dict[str, object]:
    return {
        "oid": oid, "schema": schema, "name": name, "kind": kind, "rules": False, "row_security": False, **flags,
    }  # fmt: skip


OWN: dict[tuple[str, str], list[tuple[list[str], bool, int, bool]]] = {
    ("public", "spent"): [(["integer"], False, 0, False), (["text"], True, 0, False)],
    ("archive", "spent"): [(["integer"], False, 0, False)],
    ("public", "everybody"): [([], False, 16400, False)],
    ("public", "upper"): [(["integer"], False, 0, True)],
    ("public", "pg_rotate_logfile"): [(["text"], False, 0, True)],
}
"""Functions of users': argument types, whether they act, whose rows they return, whether one of the name is builtin."""


def catalogue() -> Catalogue:
    rows: dict[str, list[dict[str, object]]] = {name: [] for name in QUERIES}
    relations = [
        {**_relation(16400, "customers"), "key": ["id"]},
        _relation(16401, "orders"),
        _relation(16402, "order_totals", "v"),
        _relation(16403, "orders_2024"),
        _relation(16404, "secrets", row_security=True),
        _relation(16405, "orders", schema="archive"),
        _relation(16406, "people"),
        {**_relation(16407, "staff"), "parents": [16406]},
        _relation(16408, "typed"),
        _relation(1259, "pg_class", schema="pg_catalog"),
        _relation(2619, "pg_statistic", schema="pg_catalog"),
        _relation(2604, "pg_attrdef", schema="pg_catalog"),
    ]
    columns = [
        _column(16400, 1, "id", "integer", "int4"),
        _column(16400, 2, "name", "text", "text"),
        _column(16400, 3, "ssn", "character varying(11)", "varchar"),
        _column(16400, 5, "salary", "numeric(10,2)", "numeric"),
        _column(16401, 1, "id", "integer", "int4"),
        _column(16401, 2, "note", "text", "text"),
        _column(16406, 1, "id", "integer", "int4"),
        _column(16406, 2, "ssn", "text", "text"),
        _column(16407, 1, "id", "integer", "int4"),
        _column(16407, 2, "ssn", "text", "text"),
        {**_column(16408, 1, "checked", "public.checked", "text"), "base": "text", "type_oid": 17001},
        {**_column(16408, 2, "pair", "public.pair", "pair"), "type_oid": 17003},
        _column(16408, 3, "total_of", "integer", "int4"),
        _column(2604, 1, "oid", "oid", "oid"),
        _column(2604, 2, "adbin", "pg_node_tree", "pg_node_tree"),
    ]
    rows["functions"] = [
        {"schema": "public", "name": "total_of", "single": True, "loose": False},
        *({"schema": schema, "name": name, "single": True, "loose": False} for schema, name in OWN),
    ]
    rows["overloads"] = [
        {
            "schema": schema,
            "name": name,
            "arguments": arguments,
            "acting": acting,
            "returns": returns,
            "builtin": builtin,
        }
        for (schema, name), overloads in OWN.items()
        for arguments, acting, returns, builtin in overloads
    ]
    rows["attributes"] = [{"name": "pg_sleep"}, {"name": "upper"}, {"name": "current_setting"}]
    builtins = (
        "pg_sleep upper currval current_setting pg_reload_conf pg_read_file pg_terminate_backend lo_import query_to_xml"
    )
    rows["builtins"] = [{"name": name} for name in builtins.split()]
    rows["operators"] = [{"schema": "public", "name": "<+>"}]
    rows["types"] = [
        {"schema": "public", "name": name, "kind": kind, "oid": oid, "coded": coded, "parts": parts}
        for name, kind, oid, coded, parts in (
            ("mood", "e", 17000, False, []),
            ("checked", "d", 17001, True, [25]),
            ("_checked", "b", 17002, False, [17001]),
        )
    ]
    rows["types"].append({"schema": "pg_catalog", "name": "uuid", "kind": "b", "oid": 2950, "coded": True, "parts": []})
    rows |= described(relations, columns)
    return build(rows, ["public"], 150018)


CATALOGUE = catalogue()


def refused(sql: str) -> Refusal:
    try:
        inspection = inspect(sql, CATALOGUE, FIELDS)
    except Refusal as refusal:
        return refusal
    refusals = [statement.refusal for statement in inspection.statements if statement.refusal]
    assert refusals, f"passed: {inspection.rewritten}"
    return refusals[0]
