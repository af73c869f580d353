"""Sequences that a call is about: they count as the tables whose columns own them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from broker.sql.catalogue import Catalogue, Relation
from broker.sql.model import Refusal
from broker.sql.sight import Sights
from broker.sql.system import SYSTEM_SCHEMAS
from broker.sql.tree import Node, strings

FUNCTIONS = frozenset({"nextval", "setval"})
TELLING = frozenset({"currval", "lastval"})
"""What says which number its own session was given last: of one sequence, or of any."""
_PART = r'(?:"(?:[^"]|"")+"|[a-z_][a-z0-9_$]*)'
_NAME = re.compile(rf"\s*(?:({_PART})\s*\.\s*)?({_PART})\s*", re.IGNORECASE | re.ASCII)
_RETURNING = "INSERT ... RETURNING gives the number that a row got"
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
    argument = _uncast(argument)
    call = argument.get("FuncCall", {})
    serial = strings(call.get("funcname", [])) in _SERIAL
    name = _name(call["args"][0]) if serial and call.get("args") else _name(argument)
    if name is None:
        return {owner_of(each, catalogue) for each in _every(catalogue)}
    relation = catalogue.relation(*name)
    if relation is not None:
        return {owner_of(relation, catalogue)}
    if known:
        return _counted({}, catalogue, known=known)
    schemas = [name[0]] if name[0] else [one for one in catalogue.path if one not in SYSTEM_SCHEMAS]
    return {f"{schema}.{name[1]}" for schema in schemas}


def telling(calls: Iterable[Node], catalogue: Catalogue, seen: Sights) -> list[Relation]:
    """Return the tables whose columns calls tell the last numbers of; raises Refusal where such a column is masked.

    Without a name written out that is every sequence. One that belongs to no column could number a masked one.
    """
    found: dict[int, Relation] = {}
    for call in calls:
        for sequence in _told(call, catalogue):
            table = catalogue.by_oid.get(sequence.owner)
            masks = seen.of(table).masks if table is not None else {}
            named = [one.name for one in table.columns if one.attnum == sequence.numbers] if table is not None else []
            if table is None or not named:
                said = f"{sequence.qualified} belongs to no column alone, so its numbers could be of masked ones"
                raise Refusal("function", said, _RETURNING)
            if named[0] in masks:
                said = f"{sequence.qualified} numbers {table.qualified}.{named[0]}, which is masked for you"
                raise Refusal("function", said, _RETURNING)
            found[table.oid] = table
    return [found[oid] for oid in sorted(found)]


def _told(call: Node, catalogue: Catalogue) -> list[Relation]:
    """Return the sequences that a call could be about."""
    arguments = call.get("args", [])
    if not arguments:
        return _every(catalogue)
    argument = _uncast(arguments[0])
    inner = argument.get("FuncCall", {})
    serial = strings(inner.get("funcname", [])) in _SERIAL and len(inner.get("args", [])) == 2
    name = _name(_uncast(inner["args"][0])) if serial else _name(argument)
    if name is None:
        return _every(catalogue)
    relation = catalogue.relation(*name)
    if relation is None:
        said = f'relation "{".".join(filter(None, name))}" does not exist'
        raise Refusal("relation-unknown", said, sqlstate="42P01", retry=True)
    if not serial:
        return [relation] if relation.kind == "S" else _every(catalogue)
    return [each for each in _every(catalogue) if each.owner == relation.oid]


def _every(catalogue: Catalogue) -> list[Relation]:
    return [each for each in catalogue.by_oid.values() if each.kind == "S"]


def _uncast(argument: Node) -> Node:
    while "TypeCast" in argument:
        argument = argument["TypeCast"]["arg"]
    return argument


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
