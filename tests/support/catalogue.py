"""The catalogue of a test database, read as the broker reads it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import psycopg
from psycopg.rows import dict_row

from broker.sql.building import build
from broker.sql.catalogue import Catalogue
from broker.sql.catalogue_queries import QUERIES
from tests.support.postgres import Server


def load_catalogue(server: Server, dbname: str, path: tuple[str, ...] = ("public",)) -> Catalogue:
    """Read a database's catalogue over a connection of its own."""
    with server.connect(dbname) as connection:
        return read_catalogue(connection, path)


def read_catalogue(connection: psycopg.Connection[Any], path: tuple[str, ...] = ("public",)) -> Catalogue:
    """Read a catalogue as a connection sees it, in the middle of a transaction too."""
    (before,) = connection.execute("show search_path").fetchone() or ("",)
    connection.execute("set search_path = pg_catalog")
    cursor = connection.cursor(row_factory=dict_row)
    rows = {name: cursor.execute(text.encode()).fetchall() for name, text in QUERIES.items()}
    connection.execute("select set_config('search_path', %s, false)", (before,))
    return build(rows, path, connection.info.server_version)


def described(
    relations: Iterable[Mapping[str, Any]], columns: Iterable[Mapping[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """Rows of the queries that tell of relations, from what is shorter to write."""
    kinds: dict[tuple[Any, ...], int] = {}
    lines: dict[int, list[str]] = {}
    for column in columns:
        facts = tuple(column[name] for name in ("type", "typname", "typschema", "category", "base"))
        number = kinds.setdefault(facts, column.get("type_oid", 100 + len(kinds)))
        lines.setdefault(column["oid"], []).append(f"{column['attnum']} {number} -1 {column['name']}")
    parts = {
        row["oid"]: [
            *(f"parent {parent}" for parent in row.get("parents", ())),
            *(f"identified {name}" for name in row.get("key", ())),
            *(["running"] if row.get("follows") else []),
        ]
        for row in relations
    }
    names = ("type", "typname", "typschema", "category", "base")
    return {
        "relations": [dict(row) for row in relations],
        "parts": [{"oid": oid, "parts": said} for oid, said in parts.items()],
        "columns": [{"oid": oid, "columns": "\n".join(found)} for oid, found in lines.items()],
        "kinds": [
            dict(zip(names, facts, strict=True), oid=number, typmod=-1, base_type=25 if facts[-1] else 0)
            for facts, number in kinds.items()
        ],
    }
