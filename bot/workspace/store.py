"""What survives a restart: JSON documents by kind and key, in one SQLite file."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Store:
    """Keeps documents; a write survives the process's death, and a lasting one the machine's too."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS documents "
            "(kind TEXT NOT NULL, key TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID"
        )

    def put(self, kind: str, key: str, body: Any, *, lasting: bool = True) -> None:
        """Writes a document, replacing the one of the same kind and key."""
        self._db.execute("PRAGMA synchronous=FULL" if lasting else "PRAGMA synchronous=NORMAL")
        text = json.dumps(body, ensure_ascii=True, separators=(",", ":"))
        self._db.execute("INSERT OR REPLACE INTO documents VALUES (?, ?, ?)", (kind, key, text))

    def drop(self, kind: str, key: str) -> None:
        """Removes a document, if it is there."""
        self._db.execute("DELETE FROM documents WHERE kind = ? AND key = ?", (kind, key))

    def all(self, kind: str) -> Iterator[tuple[str, Any]]:
        """Gives every document of a kind, by key."""
        rows = self._db.execute("SELECT key, body FROM documents WHERE kind = ? ORDER BY key", (kind,)).fetchall()
        for key, body in rows:
            yield key, json.loads(body)

    def close(self) -> None:
        """Ends the connection; nothing may be written afterwards."""
        self._db.close()
