from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

from broker.adapters.live import Live
from broker.adapters.tickets import Remembered
from broker.sessions.model import GrantFacts, ScramVerifier, TicketFacts

NOW = datetime(2026, 1, 1, tzinfo=UTC)
VERIFIER = ScramVerifier(b"salt", 4096, b"stored", b"server")


@dataclass
class Open:
    """The grants that are active."""

    grants: set[str] = field(default_factory=set)

    def active(self, grant: str) -> str | None:
        return grant if grant in self.grants else None


def ticket(user: str, grant: str = "g1") -> TicketFacts:
    return TicketFacts(f"t-{user}", user, GrantFacts(grant, "r1", "alice", "prod-db", "read", NOW, NOW), VERIFIER)


def test_used_ticket_is_never_voided_and_others_of_its_grant_are() -> None:
    remembered = Remembered(cast(Live, Open({"g1", "g2"})))
    for one in (ticket("a"), ticket("b"), ticket("c", "g2")):
        remembered.keep(one)
    remembered.use(ticket("a"))
    remembered.void("g1")
    refusals = [found.refusal for user in "abc" if (found := remembered.find(user)) is not None]
    assert refusals == [None, "this ticket was replaced by a newer one", None]
    # The database took this use before the ticket could be voided, however late memory hears of it.
    remembered.use(ticket("b"))
    found = remembered.find("b")
    assert found is not None
    assert found.refusal is None


def test_oldest_ticket_that_opens_nothing_makes_room_for_a_new_one() -> None:
    grants = Open({"g1"})
    remembered = Remembered(cast(Live, grants), most=3)
    for one in (ticket("a"), ticket("b", "g2"), ticket("c", "g2"), ticket("d")):
        remembered.keep(one)
    assert [user for user in "abcd" if remembered.find(user)] == ["a", "c", "d"]
    grants.grants.add("g2")
    remembered.keep(ticket("e"))
    assert [user for user in "acde" if remembered.find(user)] == ["a", "c", "d", "e"]
