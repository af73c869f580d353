"""A recording as readable text: who, what, why, until when, then every line of the timeline; purely.

Text that people or upstreams wrote cannot move the cursor, reverse the line or pretend to be a line of the timeline.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from string import Formatter
from typing import Any

from workflows.words import CLOSED, REFUSED

Record = dict[str, Any]


@dataclass(slots=True)
class Outcomes:
    """What is known only later in a recording than where the transcript says it."""

    statements: dict[tuple[str | None, str], Record] = field(default_factory=dict)
    """Session and statement -> the data of its `statement.finished`."""
    end: Record | None = None
    """The record that says how the access ended."""
    latest: str = ""
    """The newest end that an extension has set."""


_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_INDENT = "              "
_FURTHER = f"\n{_INDENT}| "
"""Before each further line of a text, so that none can pretend to be what the transcript says of it."""
_MAX_TEXT = 20_000
_BOOKKEEPING = frozenset(
    {"request", "order", "recording", "ticket", "state", "hold", "statement", "digest", "waits", "shape"}
)
_ENDS = ("grant.expired", "grant.ended", "grant.revoked")
_WORDS = {
    "grant.refused": "the access was not opened: {reason}",
    "order.deferred": "policy asked for more reviews: {needs}",
    "recording.torn": "a half-written last line of {bytes} bytes was cut off when the broker started",
    "ticket.minted": "a line for {user} was handed to {by}",
    "session.opened": "session opened by {person} as {role} on {resource}, from {address} with {application}",
    "session.closed": "session closed: {reason}",
    "session.settled": "session closed: {reason}",
    "session.refused": "connection refused: {reason}",
    "upstream.failed": "{resource} could not be used: {reason}",
    "identity.left": "the role {identity} of this session could not be dropped on {resource}, and is disabled",
    "statement.explained": "the planner was asked what a statement would do: {text}",
    "statement.bounded": "it may change at most {most} rows",
    "statement.counted": "rows that it changed: {rows}, of at most {most}",
    "hold.explained": "the planner was asked what this would do: {text}",
    "hold.estimated": "estimated for the reviewers",
    "hold.prolonged": "the held statement may wait until {expires_at}, as the access was extended",
    "hold.released": "approved by {by}; the held statement may run, once",
    "hold.refused": "denied by {by}; the held statement did not run",
    "hold.consumed": "the approval was used; the held statement runs",
    "hold.undone": "the approved statement is not kept: {outcome}",
    "hold.timed_out": "its time ran out; the held statement did not run",
    "hold.abandoned": "given up: {reason}; the held statement did not run",
    "shape.approved": "{by} approved this shape until the access ends, as rule {shape}: {text}",
    "shape.refused": "the shape was not approved: {reason}",
    "shape.withdrawn": "rule {shape} was withdrawn by {by}",
    "grant.extended": "extended until {expires_at}",
    "extension.refused": "more time was refused: {reason}",
    "grant.expired": "the time was over",
    "grant.ended": "ended by {by}",
    "grant.revoked": "revoked by {by}",
    "grant.closed": "closed",
}
"""What a record says in words; what else it holds follows them, and a record without what they name is listed raw."""
_VALUES = {
    ("session.closed", "reason"): CLOSED,
    ("session.settled", "reason"): CLOSED,
    ("session.refused", "reason"): REFUSED,
    ("hold.abandoned", "reason"): {
        "client": "its client left",
        "cancelled": "its client cancelled it",
        "crowded": "newer ones took its place",
        "ended": "the access was ended",
        "error": "its session failed",
        "expired": "the access ran out",
        "policy": "the policy changed",
        "revoked": "the access was revoked",
        "schema": "what it names was changed",
        "shutdown": "the broker stopped",
        "upstream": "the resource went away",
    },
    ("hold.undone", "outcome"): {
        "failed": "it failed",
        "not_run": "it was not run",
        "rolled_back": "it was rolled back",
        "unknown": "nobody heard what became of it",
    },
}
"""Of some records, what one of their values says in words."""


def plain(text: object, *, lines: bool = False) -> str:
    """Write what cannot be seen, or changes how the rest is seen, as `\\u{...}`; newlines only where `lines`."""
    out: list[str] = []
    for char in str(text):
        if char == "\n" and lines:
            out.append(_FURTHER)
        elif char == "\t" and lines:
            out.append("    ")
        elif unicodedata.category(char) in _HIDDEN:
            out.append(f"\\u{{{ord(char):x}}}")
        else:
            out.append(char)
    return "".join(out)


def outcomes(records: Iterable[Record]) -> Outcomes:
    """Return what became of each statement, and of the access."""
    found = Outcomes()
    for record in records:
        match record["type"]:
            case "statement.finished":
                found.statements[_key(record)] = record["data"]
            case "grant.extended":
                found.latest = str(record["data"].get("expires_at") or found.latest)
            case kind if kind in _ENDS:
                found.end = record
    return found


def transcript(records: Iterable[Record], finished: Outcomes, full: bool) -> Iterator[str]:
    """Yield the transcript's lines; with `full` literals and parameters are shown, without they are redacted."""
    day = ""
    for record in records:
        if day not in ("", today := _day(record)):
            yield from ("", today)
        day = today
        match record["type"]:
            case "grant.opened":
                yield from _header(record, finished, full)
            case "statement.allowed":
                yield from _statement(record, "allowed", full)
                yield from _outcome(finished.statements.get(_key(record)))
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


def _day(record: Record) -> str:
    return plain(str(record["at"])[:10])


def _key(record: Record) -> tuple[str | None, str]:
    return record.get("session"), str(record["data"].get("statement"))


def _header(record: Record, known: Outcomes, full: bool) -> Iterator[str]:
    data, order = record["data"], record.get("detail", {}).get("order", {})
    yield f"Airlock transcript of grant {plain(record['grant'])}"
    yield f"who       {plain(data.get('person'))}"
    yield f"what      {plain(data.get('role'))} on {plain(data.get('resource'))}"
    yield f"why       {plain(order.get('reason') or '(no reason given)', lines=True)}"
    approved = ", ".join(plain(person) for person in data.get("by", ())) or "nobody needed to"
    yield f"approved  {approved}"
    yield f"from      {_moment(record['at'], '')}; every time here is in UTC"
    yield f"until     {_until(record, known)}"
    yield f"policy    {plain(data.get('policy'))}"
    yield f"texts     {'in full' if full else 'literals redacted'}"
    yield ""


def _until(record: Record, known: Outcomes) -> str:
    since, latest = str(record["at"]), known.latest or str(record["data"].get("expires_at") or "")
    if known.end is None:
        return f"{_moment(latest, since)} at the latest"
    how = _other(known.end["type"], {key: known.end["data"][key] for key in ("by",) if key in known.end["data"]})
    ended = f"{_moment(known.end['at'], since)}: {how}"
    early = known.end["type"] != "grant.expired" and latest
    return f"{ended}; it would have lasted until {_moment(latest, since)}" if early else ended


def _moment(at: object, since: str) -> str:
    """Write a time of day, with its date where that is not the one it began on."""
    text = str(at)
    return plain(text[11:19] if since and text[:10] == since[:10] else f"{text[:10]} {text[11:19]}")


def _statement(record: Record, verdict: str, full: bool) -> Iterator[str]:
    data, detail = record["data"], record.get("detail", {})
    shown = str(detail.get("sql", data.get("text", "")) if full else data.get("text", ""))
    if len(shown) > _MAX_TEXT and not full:
        shown = f"{shown[:_MAX_TEXT]}\n({len(shown) - _MAX_TEXT} more characters)"
    yield _line(record, f"{verdict} {plain(data.get('verb', ''))}".rstrip())
    yield f"{_INDENT}{plain(shown, lines=True)}"
    if full and "sha256" in detail:
        yield _note(
            f"only its beginning is kept, of {plain(detail.get('bytes'))} bytes, sha256 {plain(detail['sha256'])}"
        )
    if full and (rewritten := detail.get("rewritten")):
        yield _note(f"sent as: {plain(rewritten, lines=True)}")
    if full and (parameters := detail.get("parameters")):
        yield _note(f"parameters: {plain(parameters)}")
    if rules := data.get("rules"):
        yield _note(f"rules: {', '.join(plain(rule) for rule in rules)}")
    if masked := data.get("masked"):
        yield _note(f"masked: {', '.join(plain(field) for field in masked)}")
    if searched := data.get("searched"):
        yield _note(f"searched in clear: {', '.join(plain(field) for field in searched)}")
    if revealed := data.get("revealed"):
        yield _note(f"revealed: {', '.join(plain(field) for field in revealed)}")


def _outcome(data: Record | None) -> Iterator[str]:
    if data is None:
        yield _note("outcome unknown")
        return
    parts = [str(data.get("outcome", "unknown"))]
    if (rows := data.get("rows")) is not None:
        parts.append(f"{rows} row{'' if rows == 1 else 's'}")
    if isinstance(copied := data.get("copied"), dict):
        parts.append(f"copied {copied.get('direction')} {copied.get('bytes')} bytes, sha256 {copied.get('sha256')}")
    if (milliseconds := data.get("milliseconds")) is not None:
        parts.append(f"{milliseconds} ms")
    if sqlstate := data.get("sqlstate"):
        parts.append(f"sqlstate {sqlstate}")
    yield _note(plain(", ".join(parts)))


def _other(kind: str, data: Record) -> str:
    words = _WORDS.get(kind, kind)
    data = {key: _VALUES.get((kind, key), {}).get(str(value), value) for key, value in data.items()}
    named = [name for _, name, _, _ in Formatter().parse(words) if name]
    if any(data.get(name) is None for name in named):
        words, named = kind, []
    shown = {
        key: value
        for key, value in data.items()
        if key not in (*_BOOKKEEPING, *named) and value not in (None, "", [], {})
    }
    said = words.format_map({name: _told(name, data[name]) for name in named}) if named else plain(words)
    if kind == "grant.extended" and named:
        approved = shown.pop("by", None)
        said += f", approved by {_fact(approved)}" if approved else ", as policy gives it at once"
    facts = ", ".join(f"{plain(key).replace('_', ' ')} {_told(key, value)}" for key, value in shown.items())
    return f"{said}{f' ({facts})' if facts else ''}"


def _told(key: str, value: object) -> str:
    return _moment(value, "") if key.endswith("_at") or key == "before" else _fact(value)


def _fact(value: object) -> str:
    if isinstance(value, dict):
        name = f"{plain(value['name'])}: " if "name" in value else ""
        return name + ", ".join(f"{_fact(item)} {plain(key)}" for key, item in value.items() if key != "name")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return " and ".join(_fact(item) for item in value)
    return plain(value)


def _line(record: Record, text: str) -> str:
    session = record.get("session")
    return f"{plain(str(record['at'])[11:23])}  {text}{f'  [{plain(session)}]' if session else ''}"


def _note(text: str) -> str:
    return f"{_INDENT}- {text}"
