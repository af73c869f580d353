"""The catalogue of a test database, read as the broker reads it."""

from __future__ import annotations

from psycopg.rows import dict_row

from broker.sql.catalogue import QUERIES, Catalogue, build
from tests.support.postgres import Server


def load_catalogue(server: Server, dbname: str, path: tuple[str, ...] = ("public",)) -> Catalogue:
    """Read a database's catalogue over a connection of its own."""
    with server.connect(dbname) as connection:
        connection.execute("set search_path = pg_catalog")
        cursor = connection.cursor(row_factory=dict_row)
        rows = {name: cursor.execute(text.encode()).fetchall() for name, text in QUERIES.items()}
        return build(rows, path, connection.info.server_version)
