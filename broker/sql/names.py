"""Functions, operators and types: a name passes only if every candidate under the pinned path is on the list."""

from __future__ import annotations

from broker.sql.catalogue import Catalogue, allowed_functions
from broker.sql.model import Refusal
from broker.sql.system import LITERAL_FUNCTIONS


def check_function(catalogue: Catalogue, parts: list[str]) -> str | None:
    """Refuse a function outside the list; returns the name of one that must be rewritten, else None."""
    schema, name = (parts[-2], parts[-1]) if len(parts) == 2 else (None, parts[-1])
    if len(parts) > 2 or not name:
        raise Refusal("function", "a function is named by its schema and name only")
    path = (schema,) if schema else catalogue.path
    if any((candidate, name) in catalogue.functions for candidate in path):
        raise Refusal(
            "function-defined",
            f"{'.'.join(parts)} is a function of this database's own, and those are not open yet",
            "use builtin functions, or query the tables directly",
        )
    if schema not in (None, "pg_catalog"):
        raise Refusal("function", f"no function {'.'.join(parts)} that may be called", retry=True)
    if name in LITERAL_FUNCTIONS:
        return name
    if name not in allowed_functions():
        raise Refusal(
            "function",
            f"function {name} is not on the list of functions that only compute",
            "functions that wait, lock, write, read files or run SQL of their own are refused",
            retry=True,
        )
    return None


def check_attribute(catalogue: Catalogue, name: str, columns: frozenset[str]) -> None:
    """Refuse `expression.name` where that could call a function outside the list (functional notation)."""
    if name in catalogue.attributes and name not in columns:
        raise Refusal("function", f"`.{name}` would call the function {name}, which is not on the list")


def check_operator(catalogue: Catalogue, parts: list[str]) -> None:
    """Refuse an operator that users defined, or whose name they overloaded."""
    schema, name = (parts[-2], parts[-1]) if len(parts) == 2 else (None, parts[-1])
    path = (schema,) if schema else catalogue.path
    if len(parts) > 2 or schema not in (None, "pg_catalog") or any((s, name) in catalogue.operators for s in path):
        raise Refusal(
            "operator", f"operator {'.'.join(parts)} is one of this database's own, and those are not open yet"
        )


def check_type(catalogue: Catalogue, parts: list[str]) -> None:
    """Refuse types whose input or cast could run code: domains and base types that users defined."""
    schema, name = (parts[-2], parts[-1]) if len(parts) == 2 else (None, parts[-1])
    if len(parts) > 2:
        raise Refusal("type", f"type {'.'.join(parts)} cannot be named here")
    if schema in ("pg_catalog", "information_schema"):
        return
    for candidate in (schema,) if schema else catalogue.path:
        found = catalogue.types.get((candidate, name)) or catalogue.types.get((candidate, name.removeprefix("_")))
        if found is None:
            continue
        kind, trusted = found
        if kind in ("e", "c", "r", "m") or trusted:
            return
        raise Refusal("type", f"type {'.'.join(parts)} runs code of this database's own, and those are not open yet")
    if schema is not None:
        raise Refusal("type", f'type "{schema}.{name}" does not exist', sqlstate="42704", retry=True)
    # What is left can only be a builtin type (pg_catalog comes first in the path), or does not exist.
