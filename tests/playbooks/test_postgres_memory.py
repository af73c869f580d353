"""What a session keeps is bounded, and what there is no room for is refused with nothing of it sent."""

import pytest

from broker.protocols.postgres import codec
from broker.protocols.postgres.memory import MOST_OF_ONE, Memory
from tests.playbooks.postgres_play import BOUND, PARSED, RUN, Play, Q, bind, complete, error, ready

MIB = 1024 * 1024
LONG = b"x" * (2 * MIB)


def valued(portal: str, value: bytes) -> bytes:
    lengths = b"\0\0\0\1" + len(value).to_bytes(4, "big")
    return codec.message(b"B", codec.string(portal) + codec.string("s") + lengths + value + b"\0\0")


def pieces(data: bytes) -> list[bytes]:
    return [data[at : at + 60_000] for at in range(0, len(data), 60_000)]


def sent(play: Play, data: bytes) -> Play:
    for piece in pieces(data):
        play.client(piece)
    return play


def test_a_query_without_room_is_refused_and_the_session_goes_on() -> None:
    memory = Memory(MIB)
    play = sent(Play(memory=memory), codec.query(LONG.decode()) + Q)
    told = play.to_client()
    assert b"C53200\0" in told
    assert b"send less at a time" in told
    assert play.to_upstream() == Q
    assert play.inspected[-1].sql == "select 1"
    assert memory.used == 0


def test_a_query_without_room_fails_the_transaction_that_is_open() -> None:
    play = Play(memory=Memory(MIB)).client(codec.query("begin")).upstream(complete("BEGIN"), ready("T"))
    play.to_client(), play.to_upstream()
    sent(play, codec.query(LONG.decode()))
    assert play.to_client() == b""
    play.upstream(error("34000"), ready("E"))
    told = play.to_client()
    assert b"C53200\0" in told
    assert told.endswith(ready("E"))


def test_a_bind_without_room_skips_to_sync() -> None:
    play = Play(memory=Memory(MIB)).client(codec.parse("s", "select 1"), codec.SYNC).upstream(PARSED, ready())
    play.to_client(), play.to_upstream()
    sent(play, valued("", LONG) + codec.execute("") + codec.SYNC + codec.parse("", "select 2"))
    assert play.kinds() == "E"
    assert play.to_upstream() == codec.SYNC + codec.parse("", "select 2")


@pytest.mark.parametrize("kind", [b"d", b"p", b"C"])
def test_any_other_message_without_room_ends_the_session(kind: bytes) -> None:
    play = sent(Play(memory=Memory(MIB)), codec.message(kind, LONG))
    assert b"C53200\0" in play.to_client()
    assert play.machine.state.value == "closed"


def test_values_of_portals_count_until_they_are_closed() -> None:
    memory = Memory()
    play = Play(memory=memory).client(codec.parse("s", "select 1"), codec.SYNC).upstream(PARSED, ready())
    play.client(codec.query("begin")).upstream(complete("BEGIN"), ready("T"))
    most = MOST_OF_ONE // len(LONG)
    for number in range(most - 1):
        sent(play, valued(f"p{number}", LONG) + codec.FLUSH)
        play.upstream(BOUND)
    assert memory.used > (most - 1) * len(LONG)
    play.to_client()
    sent(play, valued("more", LONG) + codec.SYNC)
    play.upstream(error("34000"), ready("E"))
    assert b"C53200\0" in play.to_client()
    play.client(codec.query("rollback")).upstream(complete("ROLLBACK"), ready())
    assert memory.used == 0


def test_texts_of_prepared_statements_count() -> None:
    memory = Memory(MIB)
    play = Play(memory=memory)
    text = f"select {'1' * 100_000}"
    for number in range(5):
        play.client(codec.parse(f"s{number}", text), codec.SYNC).upstream(PARSED, ready())
    assert b"C53200\0" not in play.to_client()
    play.client(codec.parse("more", text), codec.SYNC).upstream(ready())
    assert b"C53200\0" in play.to_client()
    play.client(codec.close("S", "s1"), codec.SYNC).upstream(codec.message(b"3"), ready())
    play.client(codec.parse("again", text), codec.SYNC).upstream(PARSED, ready())
    assert b"C53200\0" not in play.to_client()


def test_what_is_small_is_not_counted() -> None:
    memory = Memory(0)
    play = Play(memory=memory).client(codec.parse("", "select 1"), bind(""), RUN)
    assert play.to_upstream() == codec.parse("", "select 1") + bind("") + RUN
