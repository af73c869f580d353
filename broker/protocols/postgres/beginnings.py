"""Where a transaction has only begun: it keeps no lock, but for those of what its client has prepared in it.

Drivers begin one before a change, some in the same flight, or prepare the change first. While it is reviewed, such a
transaction begins anew: nothing was done in it, and what was prepared stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from broker.sql.model import Control

ANEW = "rollback and chain"
"""Lets go of all locks; what begins has the isolation and the rights to change of what ends."""


@dataclass(slots=True)
class Beginning:
    """What is known of the transaction that was begun last, by numbers of segments."""

    plain: int | None = None
    """The segment of a Query that was BEGIN, and nothing else."""
    fresh: int | None = None
    """The segment in which, and since BEGIN, nothing else was run; what went by express counts as run."""
    ran: int | None = None
    """The last segment in which anything else was run: it may have a transaction open that nobody began."""

    def sent(self, controls: Sequence[Control], segment: int, *, idle: bool, plain: bool) -> None:
        """Take note of statements on their way; `idle` says that the upstream had no transaction open before."""
        if not controls:
            return
        begins = list(controls) == [Control.BEGIN] and idle and self.ran != segment
        self.fresh = segment if begins else None
        if not begins:
            self.ran = segment
        elif plain:
            self.plain = segment

    def ended(self, segment: int) -> None:
        """Take note that a segment ends."""
        if self.fresh == segment:
            self.fresh = segment + 1
