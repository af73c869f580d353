"""The records a session writes: an entry before a statement is forwarded, one when it is finished, one when denied."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from broker.protocols.postgres.copying import Copying
from broker.protocols.postgres.explaining import Question
from broker.protocols.postgres.ruling import MAX_SHOWN, Denied, Permitted
from broker.protocols.postgres.values import as_shown
from broker.sessions.eventchain import json_string, json_text
from broker.sessions.holds import Asked
from broker.sessions.model import CloseReason, Entry, Killed, SessionFacts, Written
from broker.sql.model import Statement

MAX_PARAMETERS = 64 * 1024
"""Bytes of parameters that a recording keeps of one statement; beyond, a digest stands for the value."""
MAX_DENIED = 128 * 1024
"""Characters that a recording keeps of a text that was denied. Longer ones are all denied, for none of them is read."""
_QUOTING = re.compile(r' at or near | "')
_MISTYPED = frozenset({"26000", "42601", "42704", "42P01"})
"""What PostgreSQL would have refused as well: text that does not parse, and names of nothing."""


def opened(session: SessionFacts, identity: str | None) -> Entry:
    grant = session.grant
    data = {
        "ticket": session.ticket,
        "person": grant.person,
        "resource": grant.resource,
        "role": grant.role,
        "application": session.application,
        "address": session.address,
    }
    if identity is not None:
        data["identity"] = identity
    return Entry("session.opened", grant.id, session.id, data)


def refused(session: SessionFacts, reason: str) -> Entry:
    data = {"reason": reason, "address": session.address, "application": session.application}
    return Entry("session.refused", session.grant.id, session.id, {key: value for key, value in data.items() if value})


def closed(session: SessionFacts, reason: CloseReason, killed: Killed, seconds: float) -> Entry:
    data = {"reason": reason.value, **killed.facts(), "seconds": round(seconds, 3)}
    return Entry("session.closed", session.grant.id, session.id, data)


def identity_left(session: SessionFacts, identity: str, killed: Killed) -> Entry:
    data = {"identity": identity, "resource": session.grant.resource, "owns": killed.owns}
    return Entry("identity.left", session.grant.id, session.id, data)


def swept(resource: str, identity: str, killed: Killed) -> Entry:
    data = {"identity": identity, "resource": resource, "end": killed.identity.value if killed.identity else "unknown"}
    return Entry("identity.swept", None, None, data | ({"owns": killed.owns} if killed.owns else {}))


def upstream_failed(session: SessionFacts, reason: str) -> Entry:
    data = {"resource": session.grant.resource, "reason": reason}
    return Entry("upstream.failed", session.grant.id, session.id, data)


def allowed(
    session: SessionFacts,
    ids: Sequence[str],
    ruling: Permitted,
    parameters: Sequence[dict[str, Any]] = (),
    hold: str = "",
    shape: str = "",
) -> tuple[Entry, ...]:
    """One entry for each statement of a text; the text itself stands with the first.

    `hold` is what approved it, or `shape` the rule of a shape that was approved before.
    """
    entries = []
    approval = [f"hold:{hold}"] if hold else [shape] if shape else []
    for index, (id_, statement, rules) in enumerate(zip(ids, ruling.inspection.statements, ruling.rules, strict=True)):
        data = {**_said(statement, [*rules, *approval]), **_where(ruling), "statement": id_}
        detail = _texts(ruling) if index == 0 else {}
        if index == 0 and parameters:
            detail["parameters"] = list(parameters)
        entries.append(Entry("statement.allowed", session.grant.id, session.id, data, detail))
    return tuple(entries)


def _said(statement: Statement, rules: Sequence[str]) -> dict[str, Any]:
    """Return what is said of a statement, but for its id."""
    facts = statement.facts
    data: dict[str, Any] = {
        "text": statement.redacted[:MAX_SHOWN],
        "verb": facts.verb,
        "rules": list(rules),
        "masked": sorted(facts.masked),
    }
    if facts.searched:
        data["searched"] = sorted(facts.searched)
    if facts.reveals:
        data["revealed"] = sorted(facts.reveals)
    return data


def _where(ruling: Permitted) -> dict[str, Any]:
    """Return the search path that a text runs under, where that is not the one that is pinned."""
    path = ruling.inspection.path
    return {} if path is None else {"search_path": list(path)}


def _texts(ruling: Permitted) -> dict[str, Any]:
    """Return what was asked, and what is sent for it."""
    rewritten = ruling.inspection.rewritten
    return {"sql": ruling.sql} | ({"rewritten": rewritten} if rewritten != ruling.sql else {})


def texts(ruling: Permitted) -> str:
    """Return the JSON of what was asked and is sent, without its first brace."""
    return json_text(_texts(ruling))[1:]


@dataclass(frozen=True, slots=True)
class Form:
    """What the records of one ruling on one statement have in common, also with one on another text of its shape."""

    ruling: Permitted
    data: dict[str, Any]
    detail: dict[str, Any]
    texts: str
    """The JSON of `detail`, without its first brace."""
    before: str
    between: str
    behind: str
    """What stands before `recorded`, between that and the statement's id, and behind."""

    @classmethod
    def of(cls, ruling: Permitted) -> Form:
        (statement,), (rules,) = ruling.inspection.statements, ruling.rules
        data, detail = _said(statement, rules) | _where(ruling), _texts(ruling)
        fields = {key: f"{json_string(key)}:{json_text(data[key])}," for key in sorted(data)}
        before = "".join(field for key, field in fields.items() if key < "recorded")
        between = "".join(field for key, field in fields.items() if "recorded" < key < "statement")
        behind = "".join(f",{field[:-1]}" for key, field in fields.items() if key > "statement")
        return cls(ruling, data, detail, json_text(detail)[1:], before, f'{between}"statement":', behind)

    def allowed(
        self, session: SessionFacts, id_: str, parameters: Sequence[dict[str, Any]], ruling: Permitted
    ) -> Entry:
        """Return what `allowed` does, with its JSON."""
        detail, texts = self.detail, self.texts
        if ruling is not self.ruling:
            detail = _texts(ruling)
            texts = json_text(detail)[1:]
        if parameters:
            listed = list(parameters)
            detail = {**detail, "parameters": listed}
            # Of its keys, `parameters` sorts first.
            texts = f'"parameters":{json_text(listed)},{texts}'
        written = Written(self.before, f"{self.between}{json_string(id_)}{self.behind}", f"{{{texts}")
        grant = session.grant.id
        return Entry("statement.allowed", grant, session.id, {**self.data, "statement": id_}, detail, written)


def consumed(session: SessionFacts, hold: str, id_: str) -> Entry:
    return Entry("hold.consumed", session.grant.id, session.id, {"hold": hold, "statement": id_})


def undone(session: SessionFacts, hold: str, id_: str, outcome: str) -> Entry:
    return Entry("hold.undone", session.grant.id, session.id, {"hold": hold, "statement": id_, "outcome": outcome})


def bounded(session: SessionFacts, id_: str, most: int, texts: Sequence[str]) -> Entry:
    """Record the statements of the broker's own that are run around a change to count what it touches."""
    return Entry(
        "statement.bounded", session.grant.id, session.id, {"statement": id_, "most": most}, {"own": list(texts)}
    )


def counted(session: SessionFacts, id_: str, rows: int | None, most: int, *, kept: bool) -> Entry:
    """Record what a change touched; `rows` None is more than could be counted."""
    data = {"statement": id_, "rows": rows, "most": most, "kept": kept}
    return Entry("statement.counted", session.grant.id, session.id, data)


def explained(session: SessionFacts, hold: str, id_: str, question: Question) -> Entry:
    data = {**({"hold": hold} if hold else {}), "statement": id_, "text": question.redacted}
    detail: dict[str, Any] = {"sql": f"EXPLAIN {question.sql}"}
    if question.values:
        detail["parameters"] = list(question.values)
    return Entry("hold.explained" if hold else "statement.explained", session.grant.id, session.id, data, detail)


def denied(session: SessionFacts, id_: str, ruling: Denied, sql: str) -> Entry:
    data: dict[str, Any] = {
        "statement": id_,
        "text": ruling.text,
        "verb": ruling.verb,
        "rules": list(ruling.rules),
        # What a syntax error quotes, or stands near, can be the rest of a text, values and all: its author is told.
        "message": _QUOTING.split(ruling.message, maxsplit=1)[0] if "syntax" in ruling.rules else ruling.message,
        "hint": ruling.hint,
    }
    if ruling.sqlstate in _MISTYPED:
        data["mistyped"] = True
    if ruling.hold:
        data["hold"] = ruling.hold
    detail: dict[str, Any] = {"sql": sql[:MAX_DENIED]}
    if len(sql) > MAX_DENIED:
        whole = sql.encode()
        detail |= {"bytes": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}
    return Entry("statement.denied", session.grant.id, session.id, data, detail)


def finished(
    session: SessionFacts,
    id_: str,
    outcome: str,
    rows: int | None,
    seconds: float,
    sqlstate: str | None = None,
    copying: Copying | None = None,
) -> Entry:
    milliseconds = round(max(0.0, seconds) * 1000, 3)
    data = {"statement": id_, "outcome": outcome, "rows": rows, "milliseconds": milliseconds, "sqlstate": sqlstate}
    if copying is not None and copying.size:
        return Entry("statement.finished", session.grant.id, session.id, {**data, "copied": copying.found()})
    state = "null" if sqlstate is None else json_string(sqlstate)
    written = Written(
        f'"milliseconds":{milliseconds!r},"outcome":{json_string(outcome)},',
        f'"rows":{"null" if rows is None else rows},"sqlstate":{state},"statement":{json_string(id_)}',
        "{}",
    )
    return Entry("statement.finished", session.grant.id, session.id, data, {}, written)


def parameters(formats: Sequence[int], values: Sequence[bytes | None]) -> tuple[dict[str, Any], ...]:
    """Return a Bind's parameters for the recording: text as text, binary as hex, what is too long as a digest."""
    found: list[dict[str, Any]] = []
    room = MAX_PARAMETERS
    for index, value in enumerate(values):
        binary = bool(formats) and formats[index if len(formats) > 1 else 0] == 1
        if value is None:
            found.append({"null": True})
        elif len(value) > room:
            found.append({"sha256": hashlib.sha256(value).hexdigest(), "bytes": len(value)})
        elif binary:
            found.append({"hex": value.hex()})
        else:
            found.append({"text": value.decode("utf-8", "backslashreplace")})
        room -= min(room, len(value or b""))
    return tuple(found)


def shown(asked: Asked) -> tuple[str | None, ...] | None:
    """Return parameters as a reviewer sees them, None for NULL; or None where they are too long to be seen whole."""
    if sum(len(value or b"") for value in asked.values) > MAX_PARAMETERS:
        return None
    found: list[str | None] = []
    for index, value in enumerate(asked.values):
        binary = bool(asked.formats) and asked.formats[index if len(asked.formats) > 1 else 0] == 1
        oid = asked.types[index] if index < len(asked.types) else 0
        found.append(None if value is None else as_shown(value, binary=binary, oid=oid))
    return tuple(found)
