"""Uploaded files: reserved, filled, shared, and read back."""

import mimetypes
import secrets
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .directory import BOT_USER_ID, TEAM_ID
from .ids import make_id
from .store import Store

LARGEST = 50 * 1024 * 1024
_TEXT_TYPES = {"txt", "log", "md", "sql", "json", "jsonl", "csv", "yaml", "yml", "cast", "diff", "patch", "sh", "py"}


class Files:
    """Keeps file records in the store and bytes beside it."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._records: dict[str, dict[str, Any]] = dict(store.all("file"))
        self._uploads: dict[str, str] = {r["upload"]: i for i, r in self._records.items() if r.get("upload")}

    def reserve(self, name: str, size: int) -> tuple[str, str]:
        """Makes the id of a file to come, and the secret part of its upload URL."""
        name = name.replace("/", "_").replace("\\", "_")
        file_id, upload = make_id("F"), secrets.token_urlsafe(24)
        self._records[file_id] = {"id": file_id, "name": name, "size": size, "upload": upload, "channels": []}
        self._uploads[upload] = file_id
        self._store.put("file", file_id, self._records[file_id])
        return file_id, upload

    def fill(self, upload: str, content: bytes) -> bool:
        """Stores the bytes sent to an upload URL; says whether the URL is good."""
        file_id = self._uploads.get(upload)
        if file_id is None:
            return False
        (self._folder / file_id).write_bytes(content)
        self._records[file_id] |= {"size": len(content), "filled": True}
        self._store.put("file", file_id, self._records[file_id])
        return True

    def record(self, file_id: Any) -> dict[str, Any] | None:
        """Finds a file's record."""
        return self._records.get(str(file_id))

    def complete(self, file_id: str, title: str | None, channel: str | None) -> dict[str, Any]:
        """Ends an upload and shares the file into a channel."""
        record = self._records[file_id]
        self._uploads.pop(str(record.pop("upload", "")), None)
        record["title"] = title or record["name"]
        record.setdefault("created", int(time.time()))
        if channel and channel not in record["channels"]:
            record["channels"].append(channel)
        self._store.put("file", file_id, record)
        return record

    def content(self, file_id: str) -> bytes:
        """Reads a file's bytes."""
        return (self._folder / file_id).read_bytes()

    def as_api(self, record: dict[str, Any], origin: str) -> dict[str, Any]:
        """Gives a file as the Web API carries it."""
        name = str(record["name"])
        suffix = name.rpartition(".")[2].lower() if "." in name else "txt"
        guessed = "text/plain" if suffix in _TEXT_TYPES else mimetypes.guess_type(name)[0]
        url = f"{origin}/files/{record['id']}/{quote(name)}"
        return {
            "id": record["id"],
            "created": record.get("created", 0),
            "timestamp": record.get("created", 0),
            "name": name,
            "title": record.get("title", name),
            "mimetype": guessed or "application/octet-stream",
            "filetype": suffix,
            "pretty_type": suffix.upper(),
            "user": BOT_USER_ID,
            "user_team": TEAM_ID,
            "editable": False,
            "size": record["size"],
            "mode": "hosted",
            "is_external": False,
            "is_public": True,
            "url_private": url,
            "url_private_download": url,
            "permalink": url,
            "channels": record["channels"],
            "groups": [],
            "ims": [],
        }
