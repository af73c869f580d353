"""Folding: statements that merely ran, one after the other in a stream, are told as one count for each grant.

Whoever follows the feed to tell people needs no event of each; what the log has is untouched.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from workflows.wire import FOLDED

_TAIL = len(',"hash":""}\n') + 64
_ALLOWED, _FINISHED = b',"type":"statement.allowed"', b',"type":"statement.finished"'
# As records write it, with names that need no escape: the keys before `rules`, of which `revealed` is one.
_HEAD = re.compile(
    rb'\{"at":"([^"]+)","data":\{"masked":\[((?:"[\w.$ -]+",?)*)\],"recorded":"[\w:]+",'
    rb'"rules":\[((?:"[\w:.-]+",?)*)\],"s'
)
_GRANT = re.compile(rb'\},"grant":"([\w-]+)","prev":"[0-9a-f]{64}","seq":([0-9]+),"session":')


@dataclass(slots=True)
class _Share:
    statements: int = 0
    masked: set[str] = field(default_factory=set)
    rules: Counter[str] = field(default_factory=Counter)


class Run:
    """Lines that follow each other in a stream and are told as one."""

    def __init__(self) -> None:
        self._shares: dict[str, _Share] = {}
        self._at = ""
        self._seq = 0
        self.lines = 0

    def add(self, line: bytes) -> bool:
        """Take a line that is folded; any other changes nothing."""
        if line.endswith(_FINISHED, 0, -_TAIL):
            if not self.lines:
                # Nobody is told of it; it is passed by with what comes before or behind.
                content = json.loads(line)
                self._at, self._seq = content["at"], content["seq"]
            self.lines += 1
            return True
        if not line.endswith(_ALLOWED, 0, -_TAIL):
            return False
        head, place = _HEAD.match(line), line.rfind(b'},"grant":"')
        found = _GRANT.match(line, place) if place >= 0 else None
        if head is None or found is None:
            return self._read(line)
        names = (json.loads(b"[%b]" % part) if part else [] for part in head.group(2, 3))
        self._count(head[1].decode(), int(found[2]), found[1].decode(), *names)
        return True

    def event(self) -> dict[str, Any]:
        """Return what is told of the lines."""
        grants = {
            grant: {"statements": share.statements, "masked": sorted(share.masked), "rules": dict(share.rules)}
            for grant, share in self._shares.items()
        }
        facts = {"at": self._at, "seq": self._seq, "type": FOLDED, "grant": None, "session": None}
        return {**facts, "data": {"grants": grants}}

    def _read(self, line: bytes) -> bool:
        content = json.loads(line)
        data = content["data"]
        if data.get("revealed") or content["grant"] is None:
            return False
        self._count(content["at"], content["seq"], content["grant"], data.get("masked") or [], data.get("rules") or [])
        return True

    def _count(self, at: str, seq: int, grant: str, masked: list[str], rules: list[str]) -> None:
        share = self._shares.setdefault(grant, _Share())
        share.statements += 1
        share.masked.update(masked)
        share.rules.update(set(rules))
        self._at, self._seq = at, seq
        self.lines += 1
