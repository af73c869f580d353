"""The tripwire: a result that would show a masked field ends its session, whatever was made of its statement."""

from __future__ import annotations

from collections.abc import Set

from broker.protocols.postgres import codec
from broker.protocols.postgres.replies import Problem
from broker.protocols.postgres.ruling import Permitted

TRIPPED = Problem(
    "57P01",
    "a masked field was about to be shown, so this session ends",
    hint="report this statement to an operator of the broker",
    fatal=True,
)


def trips(wires: Set[tuple[int, int]], description: bytes, ruling: Permitted | None) -> bool:
    """Say whether a result shows a masked field, or a whole row of a relation that has one (attribute 0).

    What its statement reveals may come at its own place, and nowhere else.
    """
    if not wires:
        return False
    relations = {relation for relation, _ in wires}
    revealed = ruling.inspection.revealed if ruling is not None else ()
    return any(
        column.relation in relations
        and (not column.attribute or (column.relation, column.attribute) in wires)
        and (at, column.relation, column.attribute) not in revealed
        for at, column in enumerate(codec.read_row_description(description))
    )
