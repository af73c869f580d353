"""Sequences that a call of nextval or setval is about: they count as the tables whose columns own them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from broker.sql.catalogue import Catalogue, Relation
from broker.sql.system import SYSTEM_SCHEMAS
from broker.sql.tree import Node, strings

FUNCTIONS = frozenset({"nextval", "setval"})
_PART = r'(?:"(?:[^"]|"")+"|[a-z_][a-z0-9_$]*)'
_NAME = re.compile(rf"\s*(?:({_PART})\s*\.\s*)?({_PART})\s*", re.IGNORECASE | re.ASCII)
_SERIAL = (["pg_get_serial_sequence"], ["pg_catalog", "pg_get_serial_sequence"])


def counted(calls: Iterable[Node], catalogue: Catalogue, *, known: bool) -> frozenset[str]:
    """Return the relations whose numbers calls take or set; without a name written out, those of every sequence.

    `known` says that the catalogue has every sequence that there could be: what it does not have is then counted as
    any, too (fail closed), and else by its name in every schema in which the server would look.
    """
    found: set[str] = set()
    for call in calls:
        found |= _counted((call.get("args") or [{}])[0], catalogue, known=known)
    return frozenset(found)


def _counted(argument: Node, catalogue: Catalogue, *, known: bool) -> set[str]:
    while "TypeCast" in argument:
        argument = argument["TypeCast"]["arg"]
    call = argument.get("FuncCall", {})
    serial = strings(call.get("funcname", [])) in _SERIAL
    name = _name(call["args"][0]) if serial and call.get("args") else _name(argument)
    if name is None:
        return {owner_of(each, catalogue) for each in catalogue.by_oid.values() if each.kind == "S"}
    relation = catalogue.relation(*name)
    if relation is not None:
        return {owner_of(relation, catalogue)}
    if known:
        return _counted({}, catalogue, known=known)
    schemas = [name[0]] if name[0] else [one for one in catalogue.path if one not in SYSTEM_SCHEMAS]
    return {f"{schema}.{name[1]}" for schema in schemas}


def owner_of(sequence: Relation, catalogue: Catalogue) -> str:
    """Return the table of the column that a sequence belongs to, or its own name."""
    owner = catalogue.by_oid.get(sequence.owner)
    return owner.qualified if owner is not None else sequence.qualified


def _name(argument: Any) -> tuple[str | None, str] | None:
    """Read a name as the server reads one that stands in a text; None for what is none, such as an oid."""
    text = argument.get("A_Const", {}).get("sval", {}).get("sval", "") if isinstance(argument, dict) else ""
    found = _NAME.fullmatch(text)
    if found is None:
        return None
    return _plain(found[1]) if found[1] else None, _plain(found[2])


def _plain(part: str) -> str:
    return part[1:-1].replace('""', '"') if part[0] == '"' else part.lower()
