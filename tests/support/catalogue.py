"""The catalogue of a test database, read as the broker reads it."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import dict_row

from broker.sql.catalogue import Catalogue, build
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
