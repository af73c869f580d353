"""The express lane against the gate: the same bytes, records and state, whatever comes and however it is cut."""

from __future__ import annotations

import random
import struct
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.protocols.postgres import codec, records
from broker.protocols.postgres.express import quick_bind
from broker.protocols.postgres.fares import boards
from broker.protocols.postgres.registry import Prepared
from broker.protocols.postgres.ruling import Denied, Permitted
from broker.protocols.postgres.states import State
from broker.sessions.eventchain import json_text
from broker.sessions.model import Durability, Entry
from broker.sql.model import Control
from policies.engine.decisions import Effect, Limits
from tests.playbooks.postgres_play import (
    ASKING,
    BOUND,
    NONCE,
    PARSED,
    ROW,
    Play,
    bind,
    columns,
    complete,
    facts,
    permitted,
    ready,
)
from tests.support.require import needs_core

if TYPE_CHECKING:
    pass
from tests.playbooks.express_peers import EXECUTE, SYNC, TEXTS, FakeServer, cut, exchange
from tests.playbooks.express_sides import PLAIN, Policy, Side


def assert_written(entry: Entry) -> None:
    """What is written of an entry beforehand is what the encoder would write of it, with `recorded` in its place."""
    if (written := entry.written) is not None:
        assert f"{{{written.before}{written.behind}}}" == json_text(entry.data)
        assert f'{{{written.before}"recorded":"7:a",{written.behind}}}' == json_text({**entry.data, "recorded": "7:a"})
        assert written.detail == json_text(entry.detail)


def play(chance: random.Random, *, core: bool = False) -> tuple[Side, Side]:
    """Play one session on both, and hold them against each other after each step; `core` plays the compiled lane."""
    policy = Policy(chance.choice([None, ("app",)]))
    for text in TEXTS:
        policy.rule(text)
    fast, slow = Side(policy, lane=True, core=core), Side(policy, lane=False)
    server = FakeServer(chance)
    coming: list[bytes] = []
    at, checked, steady = 0.0, 0, 0
    for _ in range(chance.randrange(5, 80)):
        at += 0.25
        odd = chance.random()
        if odd < 0.03:
            policy.version = (policy.version + 1) % 3
        elif odd < 0.2:
            fast.sync(at)
            slow.sync(at)
        elif coming and odd < 0.9:
            # Mostly all of it, before the client goes on.
            for piece in [coming.pop(0) for _ in range(len(coming) if odd < 0.8 else 1)]:
                fast.from_upstream(piece, at)
                slow.from_upstream(piece, at)
        else:
            # In runs, so that a transaction may come to its end.
            steady = steady - 1 if steady else chance.choice([0, 0, 0, 30])
            for piece in cut(exchange(chance, steady=steady > 0), chance):
                fast.from_client(piece, at)
                if chance.random() < 0.5:
                    fast.turn()
                slow.from_client(piece, at)
        fast.turn()
        assert fast.upstream == slow.upstream
        assert fast.client == slow.client
        assert fast.written == slow.written
        for entry in (*fast.log[checked:], *slow.log[checked:]):
            assert_written(entry)
        checked = len(fast.log)
        assert (fast.over, fast.machine.state) == (slow.over, slow.machine.state)
        if slow.over:
            break
        coming += cut(server.answer(slow.upstream), chance)
    assert fast.settled() == slow.settled()
    return fast, slow


WAYS = pytest.mark.parametrize("core", [False, pytest.param(True, marks=needs_core)])


@WAYS
@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_both_ways_give_the_same_bytes_records_and_state(seed: int, core: bool) -> None:
    play(random.Random(seed), core=core)


@WAYS
def test_the_plays_take_the_lane_and_leave_it_again(core: bool) -> None:
    sides = [play(random.Random(seed), core=core)[0] for seed in range(60)]
    assert sum(side.rides for side in sides) > sum(side.landed for side in sides) > 20
    assert any(side.over for side in sides)
    assert sum(side.landed_in_blocks for side in sides) > 5
    assert sum(side.rides for side in sides if side.policy.home is not None) > 20


@given(
    st.text(),
    st.text(),
    st.lists(st.text(), max_size=3),
    st.sets(st.text(), max_size=3),
    st.lists(st.binary() | st.none()),
)
def test_records_written_beforehand_are_the_same_records(
    sql: str, rewritten: str, rules: list[str], masked: list[str], values: list[bytes | None]
) -> None:
    ruling = permitted("select 1")
    (one,), names = ruling.inspection.statements, frozenset(masked)
    one = replace(
        one, redacted=sql, facts=replace(one.facts, verb=rewritten, masked=names, searched=names, reveals=names)
    )
    found = replace(ruling.inspection, statements=(one,), rewritten=rewritten, path=tuple(rules) or None)
    ruling = replace(ruling, sql=sql, inspection=found, rules=(tuple(rules),))
    parameters = records.parameters((1,) if rules else (), values)
    entry = records.Form.of(ruling).allowed(facts(), "q1", parameters, ruling)
    assert (entry,) == records.allowed(facts(), ("q1",), ruling, parameters)
    assert_written(entry)
    like = replace(ruling, sql=f"{sql}!", inspection=replace(found, rewritten=f"{rewritten}!"))
    entry = records.Form.of(ruling).allowed(facts(), "q1", parameters, like)
    assert (entry,) == records.allowed(facts(), ("q1",), like, parameters)
    assert_written(entry)


@given(st.text(), st.none() | st.integers(), st.floats(-1, 1e9), st.none() | st.text())
def test_ends_written_beforehand_are_the_same_records(
    outcome: str, rows: int | None, seconds: float, state: str | None
) -> None:
    assert_written(records.finished(facts(), "q1", outcome, rows, seconds, state))


MESSAGES = st.builds(
    lambda portal, name, formats, values, results: (
        codec.string(portal)
        + codec.string(name)
        + struct.pack(f">h{len(formats)}h", len(formats), *formats)
        + struct.pack(">H", len(values))
        + b"".join(struct.pack(">i", -1) if one is None else struct.pack(">i", len(one)) + one for one in values)
        + struct.pack(f">h{len(results)}h", len(results), *results)
    ),
    st.sampled_from(["", "", "", "p"]),
    st.text(max_size=70),
    st.lists(st.sampled_from([0, 1, 1, 2]), max_size=3),
    st.lists(st.none() | st.binary(max_size=5), max_size=3),
    st.lists(st.sampled_from([0, 1, -1]), max_size=2),
)


@settings(max_examples=500)
@given(MESSAGES, st.integers(0, 300), st.binary(max_size=3))
def test_a_bind_that_reads_quickly_reads_the_same(body: bytes, spoil: int, put: bytes) -> None:
    for each in (body, body[:spoil] + put + body[spoil + len(put) :], body[:spoil]):
        data = b"B...." + each + EXECUTE + SYNC
        try:
            found = quick_bind(data, 5, 5 + len(each))
        except (IndexError, struct.error, UnicodeDecodeError):
            continue
        if found is not None:
            assert found == codec.read_bind(each)
            assert found.portal == ""


def test_a_bind_as_drivers_send_it_reads_quickly() -> None:
    body = bind("s")[5:]
    assert quick_bind(b"B...." + body + EXECUTE, 5, 5 + len(body)) == codec.read_bind(body)


@pytest.mark.parametrize(
    "ruling",
    [
        permitted("insert", effect=Effect.WRITE),
        permitted("set", effect=Effect.SESSION),
        permitted("select 1; select 2"),
        permitted("fetch", controls=[(Control.FETCH, "c", "")]),
        permitted("select 1", asking=ASKING),
        permitted("select 1", estimating=True),
        permitted("select 1", compared=["public.people.ssn"]),
        permitted("copy", copying="out", limits=Limits(rows=1)),
        replace(permitted("select 1"), durability=Durability.SYNCED),
    ],
)
def test_what_is_more_than_one_plain_read_takes_the_gate(ruling: Permitted) -> None:
    assert not boards(ruling)
    assert boards(permitted("select 1"))


BOUND_RUN = codec.parse("", "select 1") + bind("") + EXECUTE + SYNC
RAN = PARSED + BOUND + ROW + complete("SELECT 1")
SIMPLE = codec.query("select 1"), columns(("a", 7, 2)) + ROW + complete("SELECT 1") + ready("T")
BEGUN = codec.query("begin"), complete("BEGIN") + ready("T")


@WAYS
@pytest.mark.parametrize("cuts", [(), (1,), (2,), (1, 2)])
def test_a_simple_query_on_the_lane_ends_the_portal_that_was_bound_before_it(core: bool, cuts: tuple[int, ...]) -> None:
    policy = Policy()
    for text in TEXTS:
        policy.rule(text)
    fast, slow = Side(policy, lane=True, core=core), Side(policy, lane=False)
    script = [BEGUN, (BOUND_RUN, RAN + ready("T")), SIMPLE, (EXECUTE + SYNC, b"")]
    for at, (sent, answered) in enumerate(script):
        for side in (fast, slow):
            # What comes in pieces goes through the gate.
            for piece in (sent[:7], sent[7:]) if at in cuts else (sent,):
                side.from_client(piece, float(at))
            if answered:
                side.from_upstream(answered, at + 0.5)
            side.turn()
        assert fast.upstream == slow.upstream
        assert fast.client == slow.client
    assert fast.landed == 2 - len(cuts)
    assert fast.upstream.endswith(codec.execute(NONCE) + SYNC)
    assert fast.settled() == slow.settled()


@WAYS
def test_while_a_cursor_outlives_its_transaction_the_ends_of_others_are_left_to_the_gate(core: bool) -> None:
    policy = Policy()
    for text in ("select 1", "declare held"):
        policy.rule(text)
    fast, slow = Side(policy, lane=True, core=core), Side(policy, lane=False)
    for side in (fast, slow):
        side.from_client(codec.query("declare held"), 1.0)
        side.from_upstream(complete("DECLARE CURSOR") + ready(), 2.0)
        for at in (3.0, 5.0):
            side.from_client(BOUND_RUN, at)
            side.from_upstream(RAN + ready(), at + 1)
        side.turn()
    assert (fast.rides, fast.landed) == (2, 0)
    assert fast.written == slow.written
    assert fast.settled() == slow.settled()
    assert list(fast.machine._session.portals.known) == ["c"]


def test_a_denial_that_is_known_takes_the_gate() -> None:
    side = Side(policy := Policy(), lane=True)
    assert isinstance(policy.rule("drop"), Denied)
    side.from_client(codec.query("drop"), 1.0)
    assert (side.rides, side.upstream, side.log[0].type) == (0, b"", "statement.denied")


def test_a_wire_that_trips_on_the_lane_ends_the_session_before_a_row_shows() -> None:
    side = Side(policy := Policy(), lane=True)
    policy.version = 1
    policy.rule("select 2")
    side.from_client(codec.query("select 2"), 1.0)
    assert side.rides == 1
    side.from_upstream(columns(("a", 7, 3)) + ROW + complete("SELECT 1") + ready(), 2.0)
    assert side.over
    assert side.machine.state is State.CLOSED
    assert ROW not in side.client


def test_what_was_put_on_the_lane_is_cut_with_the_session() -> None:
    side = Side(policy := Policy(), lane=True)
    policy.rule("select 1")
    side.from_client(codec.query("select 1"), 1.0)
    side.from_client(codec.message(b"X"), 2.0)
    assert [entry.data.get("outcome") for entry in side.log] == [None, "cut"]


def test_a_play_without_rulings_at_hand_never_boards() -> None:
    play = Play()
    assert play.machine.board(codec.query("select 1"), 1.0) is None


def test_no_ticket_is_given_where_a_parse_has_declared_types_of_users() -> None:
    policy = Policy()
    ruling = policy.rule("select 1")
    assert isinstance(ruling, Permitted)
    side = Side(policy, lane=True)
    booking = side.machine.booking(lambda _sql, _marked: None, side)  # type: ignore[arg-type]  # a scribe, as far as it goes
    assert booking.ticket(None, Prepared(ruling)) is not None
    assert booking.ticket(None, Prepared(ruling, (PLAIN,), (PLAIN,))) is None
