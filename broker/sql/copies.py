"""COPY: what it is about, which of its options are passed, and how its data is to be read."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from broker.sql.checking import check_calls, check_writes
from broker.sql.collect import collect
from broker.sql.collected import Collected
from broker.sql.inquiry import Inquiry
from broker.sql.masking import mask_copied_relation
from broker.sql.model import Control, CopyForm, Refusal
from broker.sql.tree import Node, strings, wrapped
from policies.engine.decisions import Effect, StatementFacts

_OPTIONS = frozenset(
    "format freeze delimiter null default header quote escape force_quote force_not_null force_null encoding on_error"
    " log_verbosity reject_limit".split()
)
_FORMATS = frozenset({"text", "csv", "binary"})
_ENCODINGS = re.compile(r"(utf8|unicode|sqlascii|ascii|latin\d+|iso8859\d+|(win|windows)\d+|koi8[ru]?|euc[a-z0-9]+)")
"""Encodings in which no byte of a longer character looks like a quote, a backslash or a line's end."""


def copy(inquiry: Inquiry, content: Node) -> tuple[StatementFacts, Control]:
    """Inspect a COPY, and return its facts and which way it goes; raises Refusal."""
    if content.get("is_program") or content.get("filename"):
        direction = "from" if content.get("is_from") else "to"
        raise Refusal("copy-server", f"COPY {direction} the server's own files or programs is not passed", r"use \copy")
    if content.get("query"):
        return replace(inquiry.query(content["query"], "COPY"), copying="out"), Control.COPY_OUT
    if content.get("is_from"):
        return _copy_in(inquiry, content), Control.COPY_IN
    return _copy_out(inquiry, content), Control.COPY_OUT


def _copy_out(inquiry: Inquiry, content: Node) -> StatementFacts:
    columns = content.get("attlist")
    found = Collected(names=set(strings(columns or [])), star=columns is None, in_clear=inquiry.seen.in_clear)
    found.references.append(({}, content["relation"], None))
    scope = inquiry.scope(found)
    check_calls(found, scope)
    mask_copied_relation(scope, content, inquiry.rewriter)
    inquiry.scrub = inquiry.scrub or scope.scrub
    return StatementFacts(
        "COPY",
        frozenset({Effect.READ}),
        frozenset(scope.reads),
        masked=frozenset(scope.masked_fields()),
        through=frozenset(scope.through),
        copying="out",
        calls=found.ruled,
        code=frozenset(found.coded),
    )


def _copy_in(inquiry: Inquiry, content: Node) -> StatementFacts:
    found = collect(content.get("whereClause", {}), inquiry.catalogue, in_clear=inquiry.seen.in_clear)
    found.targets.append(("CopyStmt", content["relation"], content))
    scope = inquiry.scope(found)
    check_writes(found, scope)
    check_calls(found, scope)
    inquiry.mask(found, scope)
    relation = scope.target(content["relation"])
    filled = set(strings(content["attlist"])) if "attlist" in content else {one.name for one in relation.columns}
    return StatementFacts(
        "COPY",
        frozenset({Effect.WRITE, Effect.SESSION} if found.sets else {Effect.WRITE}),
        frozenset(scope.reads),
        frozenset(scope.writes),
        through=frozenset(scope.through),
        functions=frozenset(found.functions),
        calls=found.ruled,
        code=frozenset(found.coded),
        masked=frozenset(f"{relation.qualified}.{name}" for name in scope.masks_of(relation) if name in filled),
        copying="in",
        settings=frozenset(found.settings),
    )


def form_of(options: list[Node]) -> CopyForm:
    """Return how a COPY's data is to be read; raises Refusal for options outside the list."""
    given: dict[str, Any] = {}
    for option in options:
        element = option["DefElem"]
        name = element["defname"]
        if name not in _OPTIONS:
            raise Refusal("copy-option", f"COPY option {name} is not passed")
        if name in given:
            raise Refusal("copy-option", f"COPY option {name} is given twice", sqlstate="42601")
        given[name] = _value(element)
    encoding = re.sub(r"[^a-z0-9]", "", str(given.get("encoding", "utf8")).lower())
    if not _ENCODINGS.fullmatch(encoding):
        raise Refusal("copy-option", "COPY in this encoding is not passed", "use ENCODING 'UTF8'")
    format_ = str(given.get("format", "text"))
    if format_ not in _FORMATS:
        raise Refusal("copy-option", f'COPY format "{format_}" not recognized', sqlstate="22023")
    quote = _character(given, "quote", '"')
    header = str(given.get("header", "false")).lower() not in ("false", "off", "0")
    return CopyForm(format_, header, quote, _character(given, "escape", quote))


def _value(element: Node) -> Any:
    kind, content = wrapped(element.get("arg")) or ("", {})
    match kind:
        case "":
            return "true"
        case "String":
            return content.get("sval", "")
        case "Boolean":
            return str(content.get("boolval", False)).lower()
        case "Integer":
            return str(content.get("ival", 0))
        case _:
            return ""


def _character(given: dict[str, Any], name: str, usual: str) -> str:
    value = str(given.get(name, usual))
    if len(value) != 1 or not value.isascii():
        raise Refusal("copy-option", f"COPY {name} must be a single one-byte character", sqlstate="0A000")
    return value
