"""Functions of users', as a catalogue knows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policies.engine.decisions import OwnFunction


@dataclass(frozen=True, slots=True)
class Overload:
    """One function that users defined; `returns` is the oid of the relation whose rows it returns, or 0.

    `builtin` says that there is a builtin function of its name, `follows` that its code may look names up in its
    session's search path, `planned` that a plan may have its code in the place of its call, or defaults of
    its arguments in it, `reaches` that it runs SQL or reads relations which it is given as texts, `implied` that it
    makes one builtin type of another, or compares values of one, wherever a statement has them.
    """

    function: OwnFunction
    returns: int = 0
    builtin: bool = False
    follows: bool = True
    planned: bool = True
    reaches: bool = False
    implied: bool = False


def overloads(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], tuple[Overload, ...]]:
    """Return the functions that are called so, by schema and name."""
    found: dict[tuple[str, str], tuple[Overload, ...]] = {}
    for row in rows:
        function = OwnFunction(
            row["schema"],
            row["name"],
            tuple(row["arguments"]),
            row["acting"],
            row.get("native", False),
            row.get("computes", False),
        )
        one = Overload(
            function,
            row["returns"],
            row["builtin"],
            row.get("follows", True),
            row.get("planned", True),
            row.get("reaches", False),
            row.get("implied", False),
        )
        key = (row["schema"], row["name"])
        found[key] = (*found.get(key, ()), one)
    return found


def definitions(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return a stamp of each function's definition, by how rules write it."""
    return {
        str(OwnFunction(row["schema"], row["name"], tuple(row["arguments"]), row["acting"])): row.get("made", "")
        for row in rows
    }
