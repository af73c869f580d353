"""The compiled core's lane against what it stands in for: the same records and state, and no peer believed."""

from __future__ import annotations

import ctypes
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.adapters.journal import unpacked
from broker.core import compiled
from broker.errors import RecordingFailed
from broker.protocols.postgres import codec, registry
from broker.protocols.postgres.events import UpstreamGone
from broker.sql import library
from broker.sql.shapes import shape
from tests.playbooks.express_peers import EXECUTE, SYNC, bind_to
from tests.playbooks.express_sides import Policy, Side
from tests.playbooks.postgres_play import bind, columns, complete, describe, ready
from tests.support.require import needs_core

pytestmark = needs_core

STATEMENTS = [
    f"select a, 'x', $1, 1.5e3, \"B\" from t{number} where a.b = {number} -- {'c' * number}"
    for number in (0, 7, 200, 99999)
]


@settings(max_examples=300)
@given(st.text("ab1 '\"$-+/*(),.;é\n", max_size=80) | st.sampled_from(STATEMENTS), st.integers(0, 2**32))
def test_tokens_are_read_as_python_reads_them_or_not_at_all(text: str, seed: int) -> None:
    assert compiled is not None
    result = library._library().pg_query_scan(text.encode())
    data = ctypes.string_at(result.pbuf.data, result.pbuf.len) if not result.error else b""
    library._library().pg_query_free_scan_result(result)
    begin = library._VERSION.match(data)
    at = begin.end() if begin else 0
    assert compiled.tokens(data, at, library.Token) == library._read_tokens(data, at)
    data = spoilt(data, random.Random(seed))
    if at <= len(data):
        assert compiled.tokens(data, at, library.Token) in (None, library._read_tokens(data, at))


def prepared(*, core: bool) -> Side:
    """A machine with `select 1` prepared as `s`."""
    policy = Policy()
    policy.rule("select 1")
    side = Side(policy, lane=True, core=core)
    side.from_client(codec.parse("s", "select 1") + SYNC, 0.0)
    side.from_upstream(codec.message(b"1") + ready("I"), 0.0)
    return side


VALUES = st.lists(
    st.none() | st.binary(max_size=12) | st.text('ab"\\\n\x01\x7f', max_size=9).map(str.encode), max_size=4
)


def bound(values: list[bytes | None], formats: list[int], results: list[int], name: str = "s") -> bytes:
    return codec.message(
        b"B",
        b"\0"
        + codec.string(name)
        + b"".join(one.to_bytes(2, "big") for one in (len(formats), *formats))
        + len(values).to_bytes(2, "big")
        + b"".join(b"\xff\xff\xff\xff" if one is None else len(one).to_bytes(4, "big") + one for one in values)
        + b"".join(one.to_bytes(2, "big") for one in (len(results), *results)),
    )


def spoilt(data: bytes, chance: random.Random) -> bytes:
    """Mostly as it is; sometimes with bytes changed, cut or doubled."""
    spoil = bytearray(data)
    for _ in range(chance.choice([0, 0, 1, 1, 2, 4])):
        if not spoil:
            break
        at = chance.randrange(len(spoil))
        match chance.randrange(4):
            case 0:
                spoil[at] = chance.choice([0, 1, 2, 5, 127, 128, 255, chance.randrange(256)])
            case 1:
                del spoil[at : at + chance.randrange(1, 6)]
            case 2:
                spoil[at:at] = spoil[at : at + chance.randrange(1, 6)]
            case _:
                del spoil[at:]
    return bytes(spoil)


@settings(max_examples=400, deadline=None)
@given(VALUES, st.lists(st.integers(0, 2), max_size=4), st.lists(st.integers(0, 2), max_size=2), st.integers(0, 2**32))
def test_whatever_a_client_sends_it_boards_with_the_same_record_or_not_at_all(
    values: list[bytes | None], formats: list[int], results: list[int], seed: int
) -> None:
    chance = random.Random(seed)
    end = chance.choice([EXECUTE + SYNC, describe("P", "") + EXECUTE + SYNC])
    name = chance.choice(["s", "s", "", "t"])
    parse = codec.parse(chance.choice([name, name, "s"]), "select 1", chance.choice([(), (23,), (23, 25)]))
    data = spoilt(chance.choice([b"", parse]) + bound(values, formats, results, name) + end, chance)
    if not data:
        return
    quick, gate = prepared(core=True), prepared(core=False)
    for side in (quick, gate):
        side.from_client(data, 1.0)
        side.turn()
    assert (quick.upstream, quick.client, quick.log) == (gate.upstream, gate.client, gate.log)
    assert quick.settled() == gate.settled()


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_an_upstream_answers_it_lands_as_in_python_or_not_at_all(seed: int) -> None:
    chance = random.Random(seed)
    described = chance.random() < 0.5
    rows = chance.randrange(4)
    row = codec.message(b"D", b"\0\1" + (3).to_bytes(4, "big") + b"abc")
    parse = codec.parse("", "select 1") if chance.random() < 0.5 else b""
    answer = codec.message(b"1") if parse else b""
    answer += codec.message(b"2") + (columns(("a", 7, 2)) if described else b"") + row * rows
    end = codec.message(b"s") if chance.random() < 0.3 else complete(f"SELECT {rows}")
    answer = spoilt(answer + end + ready("I"), chance)
    quick, gate = prepared(core=True), prepared(core=False)
    for side in (quick, gate):
        name = "" if parse else "s"
        run = codec.execute("", 2) + SYNC
        side.from_client(parse + bind(name) + (describe("P", "") if described else b"") + run, 1.0)
        side.turn()
        if answer:
            side.from_upstream(answer, 2.0)
    assert quick.settled() == gate.settled()
    assert (quick.upstream, quick.client, quick.log) == (gate.upstream, gate.client, gate.log)


def test_a_plain_run_is_boarded_and_landed() -> None:
    side = prepared(core=True)
    assert side.quick is not None
    for number in (1, 2):
        assert side.quick.depart(bound([b"7"], [], []) + EXECUTE + SYNC)
        assert side.quick.land(codec.message(b"2") + complete("SELECT 0") + ready("I"))
        assert (side.rides, side.landed) == (number, number)
    assert side.log == []
    side.turn()
    assert [entry.type for entry in side.log] == ["statement.allowed", "statement.finished"] * 2
    assert side.log[0].detail == {"parameters": [{"text": "7"}], "sql": "select 1"}


def test_what_cannot_be_sealed_ends_the_session_and_stays_in_the_journal_and_nothing_departs_any_more() -> None:
    side = prepared(core=True)
    errors: list[Exception] = []
    sealed = side.pen

    def fails(_: object) -> None:
        raise RecordingFailed("the disk is full")

    side.pen = fails  # type: ignore[method-assign]  # a full disk's
    side.quick = side.compiled_lane(errors.append)
    ride = bound([], [], []) + EXECUTE + SYNC
    assert side.quick.depart(ride)
    sent = side.upstream
    side.turn()
    assert [str(error) for error in errors] == ["the disk is full"]
    assert not side.quick.depart(ride)
    with pytest.raises(RecordingFailed):
        side.journal.flush()
    assert side.upstream == sent
    assert [line.kind for line in unpacked(side.memory)] == ["statement.allowed"]
    # Once there is room again, it is sealed, and before whatever comes then.
    side.pen = sealed  # type: ignore[method-assign]  # a disk with room again
    side.journal.flush()
    assert [entry.type for entry in side.log] == ["statement.allowed"]


def test_nothing_boards_or_lands_after_the_end() -> None:
    side = prepared(core=True)
    assert side.quick is not None
    ride = bound([], [], []) + EXECUTE + SYNC
    assert side.quick.depart(ride)
    side.turn()
    side.quick.expires = 0.5
    assert not side.quick.land(codec.message(b"2") + complete("SELECT 0") + ready("I"))
    side.quick.leave()
    side = prepared(core=True)
    assert side.quick is not None
    side.quick.expires = 0.5
    assert not side.quick.depart(ride)
    assert (side.upstream.count(ride), list(unpacked(side.memory))) == (0, [])
    side.quick.expires = 1.0
    assert side.quick.depart(ride)


def test_what_does_not_fit_into_the_journal_is_sealed_before_or_takes_the_gate() -> None:
    side = prepared(core=True)
    assert side.quick is not None
    sent = 0
    for number in range(300):
        long = b"a" * (number * 300)
        sent += side.quick.depart(bound([long], [], []) + EXECUTE + SYNC)
        if not side.quick.land(codec.message(b"2") + complete("SELECT 0") + ready("I")):
            break
    side.turn()
    assert number == sent == len(side.log) // 2 > 150
    assert [entry.detail["parameters"][0]["text"] for entry in side.log[::2]] == [
        "a" * one * 300 for one in range(sent)
    ]


def test_what_a_lane_keeps_is_bounded_however_many_long_texts_come() -> None:
    side = Side(policy := Policy(), lane=True, core=True)
    assert side.quick is not None
    answer = columns(*((f"c{number:059}", 7, 2) for number in range(100))) + complete("SELECT 0") + ready("I")
    most = 0
    for number in range(300):
        text = f"select '{number:05}{'é' * 3000}'"
        policy.rule(text)
        assert side.quick.depart(codec.query(text))
        side.turn()
        assert side.quick.land(answer)
        most = max(most, side.quick.kept)
    assert 0 < most < 1024 * 1024


def test_a_parse_with_its_bind_is_boarded_and_landed_and_what_it_made_is_there() -> None:
    side = Side(policy := Policy(), lane=True, core=True)
    policy.version = 1
    policy.rule("select 1")
    assert side.quick is not None
    chunk = codec.parse("", "select 1", (23,)) + bound([b"7"], [], [], "") + EXECUTE + SYNC
    for number in (1, 2):
        assert side.quick.depart(chunk)
        assert side.quick.land(codec.message(b"1") + codec.message(b"2") + complete("SELECT 0") + ready("I"))
        side.sync(1.0)
        assert side.upstream.count(codec.parse("", "select 1 of a mask", (23,)) + bound([b"7"], [], [], "")) == number
    assert side.quick.depart(bound([b"7"], [], [], "") + EXECUTE + SYNC)
    assert not side.quick.depart(codec.parse("", "select 1", (99999,)) + bound([b"7"], [], [], "") + EXECUTE + SYNC)
    assert registry.MAX_ENTRIES == 5000


def test_a_later_policy_is_asked_again() -> None:
    side = prepared(core=True)
    assert side.quick is not None
    ride = bound([], [], []) + EXECUTE + SYNC
    assert side.quick.depart(ride)
    side.turn()
    assert side.quick.land(codec.message(b"2") + complete("SELECT 0") + ready("I"))
    side.policy.version = 1
    assert not side.quick.depart(ride)


def test_texts_of_a_shape_board_alike_each_with_its_own_record() -> None:
    policy = Policy()
    like = policy.rule("select a where b = 1")
    side = Side(policy, lane=True, core=True, alike=lambda sql, marked: like if shape(sql) == marked else None)
    assert side.quick is not None
    for number in ("22", "333"):
        assert side.quick.depart(codec.query(f"select a where b = {number}"))
        side.turn()
        assert side.quick.land(columns(("a", 7, 2)) + complete("SELECT 0") + ready("I"))
    side.quick.leave()
    texts = [entry.detail["sql"] for entry in side.log if entry.type == "statement.allowed"]
    assert texts == ["select a where b = 22", "select a where b = 333"]
    assert side.upstream == codec.query(texts[0]) + codec.query(texts[1])
    assert replace(like, sql="") is not like


def test_the_end_of_what_went_another_way_is_recorded_before_what_goes_by_the_lane() -> None:
    side = prepared(core=True)
    answer = codec.message(b"2") + complete("SELECT 0") + ready("I")
    for value in ("é", "e"):
        side.from_client(bind_to(value, "s") + EXECUTE + SYNC, 1.0)
        side.turn()
        side.from_upstream(answer, 2.0)
    assert side.rides == 2
    side.turn()
    assert [entry.type for entry in side.written] == ["statement.allowed", "statement.finished"] * 2
    assert [entry.data["statement"][-1] for entry in side.written] == ["1", "1", "2", "2"]


MASKED_ANSWER = columns(("a", 7, 2)) + complete("SELECT 0") + ready("I")


def withholding(*, landed: bool = True) -> Side:
    """A session whose answer waits for its record, which stands in the journal alone."""
    side = Side(policy := Policy(), lane=True, core=True)
    policy.rule("masked")
    assert side.quick is not None
    assert side.quick.depart(codec.query("masked"))
    if landed:
        assert side.quick.land(MASKED_ANSWER)
    assert (side.client, side.log) == (b"", [])
    return side


def test_an_answer_that_waited_for_its_record_beyond_the_end_is_not_given() -> None:
    for expires, given_ in ((1.0, MASKED_ANSWER), (0.5, b"")):
        side = withholding()
        assert side.quick is not None
        side.turn()
        side.quick.expires = expires
        side.sync(1.0)
        assert side.client == given_


@pytest.mark.parametrize("landed", [True, False])
def test_what_waits_for_its_record_goes_on_waiting_in_the_gate(landed: bool) -> None:
    side = withholding(landed=landed)
    side.from_client(codec.query("masked"), 1.0)
    assert [entry.type for entry in side.log][:1] == ["statement.allowed"]
    if not landed:
        side.from_upstream(MASKED_ANSWER, 1.0)
    assert side.client == b""
    # The record of what came first, and then of what came behind it.
    side.sync(2.0)
    side.sync(2.0)
    assert side.client == MASKED_ANSWER


def test_what_waits_for_its_record_is_not_given_to_who_is_told_of_the_end() -> None:
    side = withholding()
    side.lose(UpstreamGone(1.0))
    side.sync(2.0)
    assert codec.message(b"C", b"SELECT 0\0") not in side.client
    assert [entry.data.get("outcome") for entry in side.log] == [None, "ok"]
    side = withholding(landed=False)
    side.lose(UpstreamGone(1.0))
    assert [entry.data.get("outcome") for entry in side.log] == [None, "cut"]


def test_what_was_sealed_is_not_read_again_behind_what_comes_after() -> None:
    side = prepared(core=True)
    assert side.quick is not None
    for number in (1, 2):
        assert side.quick.depart(bound([b"7"], [], []) + EXECUTE + SYNC)
        found = [line.kind for line in unpacked(side.memory)]
        assert found == ["statement.allowed"]
        assert side.quick.land(codec.message(b"2") + complete("SELECT 0") + ready("I"))
        side.turn()
        assert not list(unpacked(side.memory))
        # The session is to hear where it does not come to be synced.
        assert len(side.watched) == number
