"""A recording as readable text: who, what, why, until when, then every line of the timeline; purely.

Text that people or upstreams wrote cannot move the cursor, reverse the line or pretend to be a line of the timeline.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

Record = dict[str, Any]
Outcomes = dict[tuple[str | None, str], Record]
"""Session and statement -> the data of its `statement.finished`."""
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_INDENT = "              "
_MAX_TEXT = 20_000
_BOOKKEEPING = frozenset({"request", "order", "recording", "ticket", "state"})


def plain(text: object, *, lines: bool = False) -> str:
    """Write what cannot be seen, or changes how the rest is seen, as `\\u{...}`; newlines only where `lines`."""
    out: list[str] = []
    for char in str(text):
        if char == "\n" and lines:
            out.append(f"\n{_INDENT}")
        elif char == "\t" and lines:
            out.append("    ")
        elif unicodedata.category(char) in _HIDDEN:
            out.append(f"\\u{{{ord(char):x}}}")
        else:
            out.append(char)
    return "".join(out)


def outcomes(records: Iterable[Record]) -> Outcomes:
    """Return what became of each statement: the data of its `statement.finished`."""
    return {_key(record): record["data"] for record in records if record["type"] == "statement.finished"}


def transcript(records: Iterable[Record], finished: Outcomes, full: bool) -> Iterator[str]:
    """Yield the transcript's lines; with `full` literals and parameters are shown, without they are redacted."""
    for record in records:
        match record["type"]:
            case "grant.opened":
                yield from _header(record, full)
            case "statement.allowed":
                yield from _statement(record, "allowed", full)
                yield from _outcome(finished.get(_key(record)))
            case "statement.denied":
                yield from _statement(record, "BLOCKED", full)
                yield _note(f"because {plain(record['data'].get('message', ''))}")
                if hint := record["data"].get("hint"):
                    yield _note(f"hint: {plain(hint)}")
            case "hold.opened":
                yield from _statement(record, "HELD", full)
            case "statement.finished":
                continue
            case kind:
                yield _line(record, _other(kind, record["data"]))


def _key(record: Record) -> tuple[str | None, str]:
    return record.get("session"), str(record["data"].get("statement"))


def _header(record: Record, full: bool) -> Iterator[str]:
    data, order = record["data"], record.get("detail", {}).get("order", {})
    yield f"Airlock transcript of grant {plain(record['grant'])}"
    yield f"who       {plain(data.get('person'))}"
    yield f"what      {plain(data.get('role'))} on {plain(data.get('resource'))}"
    yield f"why       {plain(order.get('reason') or '(no reason given)', lines=True)}"
    approved = ", ".join(plain(person) for person in data.get("by", ())) or "nobody needed to"
    yield f"approved  {approved}"
    yield f"from      {plain(record['at'])}"
    yield f"until     {plain(data.get('expires_at'))}"
    yield f"policy    {plain(data.get('policy'))}"
    yield f"texts     {'in full' if full else 'literals redacted'}"
    yield ""


def _statement(record: Record, verdict: str, full: bool) -> Iterator[str]:
    data, detail = record["data"], record.get("detail", {})
    shown = str(detail.get("sql", data.get("text", "")) if full else data.get("text", ""))
    if len(shown) > _MAX_TEXT and not full:
        shown = f"{shown[:_MAX_TEXT]}\n({len(shown) - _MAX_TEXT} more characters)"
    yield _line(record, f"{verdict} {plain(data.get('verb', ''))}".rstrip())
    yield f"{_INDENT}{plain(shown, lines=True)}"
    if full and (rewritten := detail.get("rewritten")):
        yield _note(f"sent as: {plain(rewritten, lines=True)}")
    if full and (parameters := detail.get("parameters")):
        yield _note(f"parameters: {plain(parameters)}")
    if rules := data.get("rules"):
        yield _note(f"rules: {', '.join(plain(rule) for rule in rules)}")
    if masked := data.get("masked"):
        yield _note(f"masked: {', '.join(plain(field) for field in masked)}")
    if revealed := data.get("revealed"):
        yield _note(f"revealed: {', '.join(plain(field) for field in revealed)}")


def _outcome(data: Record | None) -> Iterator[str]:
    if data is None:
        yield _note("outcome unknown")
        return
    parts = [str(data.get("outcome", "unknown"))]
    if (rows := data.get("rows")) is not None:
        parts.append(f"{rows} rows")
    if (milliseconds := data.get("milliseconds")) is not None:
        parts.append(f"{milliseconds} ms")
    if sqlstate := data.get("sqlstate"):
        parts.append(f"sqlstate {sqlstate}")
    yield _note(plain(", ".join(parts)))


def _other(kind: str, data: Record) -> str:
    shown = {key: value for key, value in data.items() if key not in _BOOKKEEPING and value not in (None, "", [], {})}
    facts = ", ".join(f"{plain(key)} {_fact(value)}" for key, value in shown.items())
    return f"{plain(kind)}{f': {facts}' if facts else ''}"


def _fact(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{plain(key)}={plain(item)}" for key, item in value.items())
    return ", ".join(_fact(item) for item in value) if isinstance(value, list) else plain(value)


def _line(record: Record, text: str) -> str:
    session = record.get("session")
    return f"{plain(str(record['at'])[11:23])}  {text}{f'  [{plain(session)}]' if session else ''}"


def _note(text: str) -> str:
    return f"{_INDENT}- {text}"
