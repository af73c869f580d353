"""What may be asked of an upstream's planner about a held statement, and what its answer means.

Planning is not harmless: it runs functions that call themselves immutable, wherever they stand, also in the defaults
and indexes of a relation. So the planner is asked only where nothing of users' could run, and else it is said why not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from broker.protocols.postgres.reaching import events_of
from broker.protocols.postgres.registry import own_types
from broker.protocols.postgres.ruling import Permitted, shown_text
from broker.protocols.postgres.values import is_readable
from broker.sessions.holds import Asked, Settings
from broker.sql.catalogue import allowed_functions
from broker.sql.contrib import computing_names
from broker.sql.model import Control, Inspection
from broker.sql.nodes import QUERIES

LONGEST = 64 * 1024
_VERBS = frozenset(QUERIES.values())


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about a held statement: the sizes of `relations`, its locks `in_transaction`, and a plan of `sql`.

    And what follows from its `writes`, by foreign keys and triggers.

    `sql` is the ruled text, with its parameters as text in `values` and their types by oid; `redacted` is for the feed.
    There is none where `why` says why the planner is not asked.
    """

    relations: tuple[str, ...]
    functions: tuple[str, ...] = ()
    in_transaction: bool = False
    sql: str = ""
    values: tuple[str | None, ...] = ()
    types: tuple[int, ...] = ()
    redacted: str = ""
    why: str = ""
    writes: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    """What may happen to what it writes: `i`, `u`, `d`."""
    settings: Settings = ()
    """Under which its text and its values mean what they do."""


def question(
    rulings: Sequence[Permitted], asked: Asked, shown: tuple[str | None, ...], in_transaction: bool
) -> Question:
    """Make the question about a text, ruled on first, and the bodies that it runs; `shown` are its parameters."""
    inspection = rulings[0].inspection
    facts = [statement.facts for ruling in rulings for statement in ruling.inspection.statements]
    relations = tuple(sorted({relation for fact in facts for relation in fact.relations}))
    functions = tuple(sorted({name for fact in facts for name in fact.functions}))
    writes = tuple(sorted({relation for fact in facts for relation in fact.writes}))
    events = events_of(statement for ruling in rulings for statement in ruling.inspection.statements)
    why = _why_not(inspection, asked)
    if why:
        return Question(relations, functions, in_transaction, why=why, writes=writes, events=events)
    types = tuple(asked.types[index] if index < len(asked.types) else 0 for index in range(len(shown)))
    text = shown_text(inspection)
    return Question(
        *(relations, functions, in_transaction, inspection.rewritten, shown, types, text),
        writes=writes,
        events=events,
        settings=asked.settings,
    )


def _why_not(inspection: Inspection, asked: Asked) -> str:
    """Say why the planner is not asked, or nothing."""
    if len(inspection.statements) != 1:
        return "it is more than one statement"
    statement = inspection.statements[0]
    facts = statement.facts
    if statement.control is not Control.NONE or facts.verb not in _VERBS:
        return f"{facts.verb or 'this statement'} has no plan of its own"
    if facts.masked:
        # What the planner expects follows the values themselves, and everybody in the channel reads the card.
        return "it reads masked fields"
    # Which of a name's functions are of users', or of an extension that is known, is asked with the estimate.
    if unsafe := sorted(facts.functions - allowed_functions() - computing_names()) or sorted(facts.code):
        return f"planning could run {unsafe[0]}"
    if len(inspection.rewritten) > LONGEST:
        return "it is too long"
    if own_types(asked.types):
        return "a parameter has a type of your own"
    for index, value in enumerate(asked.values):
        binary = bool(asked.formats) and asked.formats[index if len(asked.formats) > 1 else 0] == 1
        if value is not None and binary and not is_readable(asked.types[index] if index < len(asked.types) else 0):
            return "a parameter cannot be read"
    return ""


def prepare(name: str, types: Sequence[str], sql: str) -> str:
    """Write the PREPARE of a statement; types that are not known are found by the server."""
    declared = f" ({', '.join(types)})" if types else ""
    return f"prepare {name}{declared} as {sql}"


def explain(name: str, values: Sequence[str | None]) -> str:
    """Write the EXPLAIN of a prepared statement with its values, which runs nothing."""
    listed = ", ".join("null" if value is None else "'" + value.replace("'", "''") + "'" for value in values)
    return f"explain (format json) execute {name}" + (f" ({listed})" if listed else "")


def expected_rows(answer: Any) -> tuple[int, int]:
    """Return how many rows a plan is expected to change, or to return where it changes none; and to return at all.

    Raises LookupError, TypeError or ValueError for what is no plan.
    """
    top = answer[0]["Plan"]
    changing = [node for node in _nodes(top) if node["Node Type"] == "ModifyTable"]
    returned = int(top["Plan Rows"])
    if not changing:
        return returned, returned
    # What changes rows returns none of its own, so its input says how many.
    changed = sum(
        int(child["Plan Rows"])
        for node in changing
        for child in node.get("Plans", [])
        if child.get("Parent Relationship") in ("Outer", "Member")
    )
    return changed, returned


def _nodes(top: Any) -> list[Any]:
    found = [top]
    for node in found:
        found += node.get("Plans", [])
    return found
