"""The options of COPY: which are passed, and how its data is to be read."""

from __future__ import annotations

import re
from typing import Any

from broker.sql.model import CopyForm, Refusal
from broker.sql.tree import Node, wrapped

_OPTIONS = frozenset(
    "format freeze delimiter null default header quote escape force_quote force_not_null force_null encoding on_error"
    " log_verbosity reject_limit".split()
)
_FORMATS = frozenset({"text", "csv", "binary"})
_ENCODINGS = re.compile(r"(utf8|unicode|sqlascii|ascii|latin\d+|iso8859\d+|(win|windows)\d+|koi8[ru]?|euc[a-z0-9]+)")
"""Encodings in which no byte of a longer character looks like a quote, a backslash or a line's end."""


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
