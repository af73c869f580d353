"""Reads a libpq connection out of a message: strictly, and never as something for a shell."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_LINE = re.compile(
    r"PGPASSWORD=(?P<quote>'?)(?P<password>[A-Za-z0-9_~.+/=-]{1,256})(?P=quote) "
    r'psql "(?P<pairs>[A-Za-z0-9_.:= -]{1,512})"'
)
_PAIR = re.compile(r"([a-z]+)=([A-Za-z0-9_.:-]{1,128})")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_SSLMODES = ("disable", "allow", "prefer", "require")
_KEYS = frozenset({"host", "port", "dbname", "user", "sslmode"})


@dataclass(frozen=True, slots=True)
class Connection:
    """Where one psql connects, and as whom."""

    host: str
    port: int
    dbname: str
    user: str
    sslmode: str
    password: str

    def environment(self) -> dict[str, str]:
        """Gives libpq's own variables, so that nothing of it is ever an argument."""
        return {
            "PGHOST": self.host,
            "PGPORT": str(self.port),
            "PGDATABASE": self.dbname,
            "PGUSER": self.user,
            "PGSSLMODE": self.sslmode,
            "PGPASSWORD": self.password,
        }


@dataclass(frozen=True, slots=True)
class Origin:
    """The message that a psql was opened from: its place, its first sentence, and what it names in bold."""

    channel: str = ""
    ts: str = ""
    text: str = ""
    name: str = ""


NOWHERE = Origin()


def connection_in(blocks: Any, text: str = "") -> Connection | None:
    """Gives the one connection that a message's code blocks name; of several, or a strange one, nothing."""
    found = {connection for code in _codes(blocks, text) if (connection := read_line(code)) is not None}
    return found.pop() if len(found) == 1 else None


def read_line(line: str) -> Connection | None:
    """Reads a line of the one form that is understood; anything else is None."""
    matched = _LINE.fullmatch(line.strip())
    if matched is None:
        return None
    pairs = [_PAIR.fullmatch(word) for word in matched["pairs"].split(" ")]
    known = {pair[1]: pair[2] for pair in pairs if pair is not None}
    if None in pairs or len(known) != len(pairs) or set(known) != _KEYS:
        return None
    names = known["dbname"], known["user"]
    if known["host"] not in LOOPBACK or known["sslmode"] not in _SSLMODES or not all(map(_NAME.fullmatch, names)):
        return None
    if not _PORT.fullmatch(known["port"]) or int(known["port"]) > 65535:
        return None
    return Connection(known["host"], int(known["port"]), *names, known["sslmode"], matched["password"])


def name_in(blocks: Any) -> str:
    """Gives the first words that a message sets in bold: what its line is for; empty where it sets none."""
    todo = list(blocks) if isinstance(blocks, list) else []
    while todo:
        item = todo.pop(0)
        if not isinstance(item, dict):
            continue
        if isinstance(item.get("style"), dict) and item["style"].get("bold") is True:
            return str(item.get("text", ""))[:60]
        todo = [*(item["elements"] if isinstance(item.get("elements"), list) else []), *todo]
    return ""


def _codes(blocks: Any, text: str) -> Iterator[str]:
    """Gives what is set as code: preformatted rich text, and fences in mrkdwn."""
    todo = list(blocks) if isinstance(blocks, list) else []
    texts = [text]
    while todo:
        item = todo.pop()
        if isinstance(item, list):
            todo.extend(item)
        elif isinstance(item, dict) and item.get("type") == "rich_text_preformatted":
            yield "".join(str(part.get("text", "")) for part in item.get("elements", []))
        elif isinstance(item, dict):
            if item.get("type") == "mrkdwn":
                texts.append(str(item.get("text", "")))
            todo.extend(value for value in item.values() if isinstance(value, dict | list))
    for one in texts:
        yield from one.split("```")[1::2]
