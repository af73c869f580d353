"""Every payload in and out, for the payload inspector, with tokens blanked."""

import re
import time
from collections import deque
from typing import Any

KEPT = 2000
_TOKEN = re.compile(r"x(oxb|app)-[A-Za-z0-9-]+")


class Journal:
    """Keeps the latest entries in memory, numbered from 1."""

    def __init__(self) -> None:
        self._entries: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._count = 0

    def note(self, direction: str, kind: str, body: Any, answer: Any = None) -> None:
        """Adds an entry; `direction` is `to_app` or `from_app`."""
        self._count += 1
        entry = {
            "seq": self._count,
            "at": round(time.time(), 3),
            "direction": direction,
            "kind": kind,
            "body": redact(body),
        }
        if answer is not None:
            entry["answer"] = redact(answer)
        self._entries.append(entry)

    def since(self, seq: int) -> list[dict[str, Any]]:
        """Gives the entries after a number."""
        return [entry for entry in self._entries if entry["seq"] > seq]


def redact(value: Any) -> Any:
    """Copies a payload with every token blanked."""
    if isinstance(value, str):
        return _TOKEN.sub(r"x\1-***", value)
    if isinstance(value, dict):
        return {key: redact(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [redact(inner) for inner in value]
    return value
