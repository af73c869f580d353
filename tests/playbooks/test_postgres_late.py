"""What waited for long before it could be sent: it is decided anew, and sent only as it would be now."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from broker.protocols.postgres import codec
from broker.protocols.postgres.clearance import LATE
from broker.protocols.postgres.events import HoldAnswered, Recorded
from broker.protocols.postgres.ruling import Permitted, Ruling
from broker.sessions.holds import Released
from tests.playbooks.express_sides import Policy, Side
from tests.playbooks.postgres_play import ASKING, BOUND, PARSED, RUN, Play, Q, denied, permitted, ready
from tests.support.require import needs_core

MASKED = "select a mask"


def one_by_one(*rulings: Ruling) -> Callable[[str], Ruling]:
    coming: Iterator[Ruling] = iter(rulings)
    return lambda _: next(coming)


def recorded(play: Play, after: float) -> Play:
    """What was recorded last is written, so many seconds later."""
    return play.hear(Recorded(play.records[-1].token, play.at + after))


def kinds(play: Play) -> list[list[str]]:
    return [[entry.type for entry in record.entries] for record in play.records]


def test_what_is_recorded_in_time_is_decided_once() -> None:
    play = Play(one_by_one(permitted("select 1")), slow=True).client(Q)
    assert recorded(play, LATE - 0.1).to_upstream() == Q


def test_what_was_recorded_late_is_sent_where_it_is_decided_alike() -> None:
    play = Play(one_by_one(permitted("select 1"), permitted("select 1")), slow=True).client(Q)
    assert recorded(play, LATE + 0.1).to_upstream() == Q
    assert kinds(play) == [["statement.allowed"]]
    assert play.outcomes() == []


def test_what_was_recorded_late_is_sent_and_recorded_as_it_is_decided_now() -> None:
    play = Play(one_by_one(permitted("select 1"), permitted("select 1", rewritten=MASKED)), slow=True).client(Q)
    assert recorded(play, LATE + 0.1).to_upstream() == b""
    assert play.outcomes() == [("q1", "cut")]
    assert recorded(play, 0.0).to_upstream() == codec.query(MASKED)
    assert [record.entries[0].detail.get("rewritten") for record in play.records] == [None, MASKED]
    play.upstream(codec.message(b"C", codec.string("SELECT 1")), ready())
    assert play.outcomes() == [("q1", "cut"), ("q2", "ok")]


def test_what_was_recorded_late_and_is_denied_by_now_is_not_sent() -> None:
    play = Play(one_by_one(permitted("select 1"), denied()), slow=True).client(Q)
    recorded(play, LATE + 0.1)
    assert kinds(play) == [["statement.allowed"], ["statement.denied"]]
    assert recorded(play, 0.0).to_upstream() == b""
    assert play.kinds() == "EZ"
    assert play.outcomes() == [("q1", "cut")]


def test_what_was_recorded_late_is_reviewed_where_policy_asks_by_now() -> None:
    play = Play(one_by_one(permitted("select 1"), permitted("select 1", asking=ASKING)), slow=True).client(Q)
    assert recorded(play, LATE + 0.1).to_upstream() == b""
    assert len(play.holds) == 1
    assert play.outcomes() == [("q1", "cut")]


def test_what_was_bound_and_recorded_late_is_to_be_prepared_again_where_it_is_other_words_by_now() -> None:
    first, now = permitted("select 1"), permitted("select 1", rewritten=MASKED)
    play = Play(one_by_one(first, first, first, now), slow=True)
    play.client(codec.parse("", "select 1", ())).upstream(PARSED).to_upstream()
    play.client(RUN).upstream(BOUND)
    assert codec.execute("") not in recorded(play, LATE + 0.1).to_upstream()
    assert play.outcomes() == [("q1", "cut")]
    assert kinds(play) == [["statement.allowed"]]


def test_what_alights_from_the_express_lane_leaves_nothing_behind() -> None:
    side = Side(policy := Policy(), lane=True)
    policy.rule("select 1")
    before = repr(side.machine._session)
    assert side.machine.board(Q, 1.0) is not None
    assert side.machine.express.alight().data["outcome"] == "cut"
    assert repr(side.machine._session).replace("now=1.0", "now=0.0") == before
    assert side.machine.board(Q, 2.0) is not None


@needs_core
@pytest.mark.parametrize(("takes", "outcomes"), [(LATE - 0.1, [None]), (LATE + 0.1, [None, "cut", None])])
def test_what_the_compiled_lane_recorded_late_is_left_to_the_gate(takes: float, outcomes: list[str | None]) -> None:
    side = Side(policy := Policy(), lane=True)
    policy.rule("select 1")
    side.quick = side.compiled_lane(takes=takes)
    side.from_client(Q, 1.0)
    assert [entry.data.get("outcome") for entry in side.log] == outcomes
    assert side.upstream == Q


@pytest.mark.parametrize(("means", "sent"), [("it", Q), ("another", b"")])
def test_what_was_approved_and_recorded_late_is_sent_while_it_means_the_same(means: str, sent: bytes) -> None:
    def asked(stamp: str) -> Permitted:
        ruling = permitted("select 1", asking=ASKING)
        return replace(ruling, inspection=replace(ruling.inspection, means=(("public.people", stamp),)))

    play = Play(one_by_one(asked("it"), asked("it"), asked(means), asked(means)), slow=True).client(Q)
    play.hear(HoldAnswered(play.holds[-1].token, Released("h1"), play.at))
    assert recorded(play, LATE + 0.1).to_upstream() == sent
    assert len(play.holds) == (1 if sent else 2)
    assert [note["outcome"] for note in play.notes] == ([] if sent else ["cut", "not_run"])
