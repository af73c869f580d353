"""What the upstream still owes: in order, and each portal knows how much of it is its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.protocols.postgres.registry import Portal, Prepared
from broker.protocols.postgres.responses import Expected, Kind, Responses
from broker.sessions.holds import Asked
from tests.playbooks.postgres_play import permitted

STEPS = st.lists(st.sampled_from(["a", "b", "sync", "pop", "put back", "skip"]), max_size=40)


@given(STEPS)
def test_a_portal_knows_how_many_of_its_messages_have_no_answer(steps: list[str]) -> None:
    portals = {name: Portal(Prepared(permitted("select 1")), Asked("select 1")) for name in "ab"}
    responses = Responses()
    for step in steps:
        match step:
            case "sync":
                responses.push(Expected(Kind.SYNC, 0))
            case "skip":
                for skipped in responses.skip_to_sync():
                    # What it is of is asked while the rest is skipped.
                    assert skipped.kind is Kind.EXECUTE
                    assert counted(responses, portals) == {name: one.owed for name, one in portals.items()}
            case "pop" | "put back" if responses.queue:
                expected = responses.pop()
                if step == "put back":
                    responses.put_back(expected)
            case "a" | "b":
                responses.push(Expected(Kind.EXECUTE, 0, portal=portals[step]))
            case _:
                pass
        assert counted(responses, portals) == {name: one.owed for name, one in portals.items()}


def counted(responses: Responses, portals: dict[str, Portal]) -> dict[str, int]:
    return {name: sum(each.portal is portal for each in responses.queue) for name, portal in portals.items()}
