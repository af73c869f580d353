"""What a client sends at once is looked at whole, in its order, and others are served in between."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.protocols.postgres.turns import PIECE, TURN_SECONDS, Turns


class Client:
    """What its turns are told; a piece takes `seconds`, and from the piece `last` on nothing more is wanted."""

    def __init__(self, seconds: float = 0.0, last: int | None = None) -> None:
        self.turns = Turns(self.take, self.waits, lambda: self.said.append(b"gone"))
        self.said: list[bytes] = []
        self.waiting = False
        self._seconds = seconds
        self._last = last

    def take(self, piece: bytes) -> bool:
        if self._last is not None and len(self.said) >= self._last:
            return False
        time.sleep(self._seconds)
        self.said.append(piece)
        return True

    def waits(self, waits: bool) -> None:
        self.waiting = waits

    def arrived(self, data: bytes) -> None:
        if not self.turns.arrived(data):
            assert not self.waiting
            self.said.append(data)

    def left(self) -> None:
        if not self.turns.lost():
            self.said.append(b"gone")

    async def over(self) -> None:
        while self.waiting:  # noqa: ASYNC110  each turn of the loop is one of others
            await asyncio.sleep(0)


def numbered(size: int) -> bytes:
    return bytes(number * 31 % 251 for number in range(size))


@given(st.lists(st.sampled_from([1, PIECE, PIECE + 1, 5 * PIECE]), max_size=6), st.booleans())
def test_all_of_it_is_taken_in_its_order(sizes: list[int], slow: bool) -> None:
    async def story() -> None:
        client = Client(TURN_SECONDS / 2 if slow else 0.0)
        chunks = [numbered(size) for size in sizes]
        for chunk in chunks:
            client.arrived(chunk)
        client.left()
        await client.over()
        assert b"".join(client.said) == b"".join(chunks) + b"gone"
        assert max(map(len, client.said)) <= max(PIECE, *(size for size in [0, *sizes]))

    asyncio.run(story())


async def test_others_have_their_turn_before_all_of_it_is_taken() -> None:
    client, others = Client(TURN_SECONDS), 0
    client.arrived(numbered(8 * PIECE))
    assert client.waiting
    assert len(client.said) == 1
    while client.waiting:
        others += 1
        await asyncio.sleep(0)
    assert others >= 7
    assert b"".join(client.said) == numbered(8 * PIECE)


async def test_what_comes_while_something_waits_comes_behind_it_however_little_it_is() -> None:
    client = Client(TURN_SECONDS)
    client.arrived(numbered(3 * PIECE))
    client.arrived(b"little")
    client.left()
    assert client.said == [numbered(PIECE)]
    await client.over()
    assert client.said[-2:] == [b"little", b"gone"]
    client.arrived(b"again")
    assert client.said[-1] == b"again"


@pytest.mark.parametrize("last", [0, 2])
async def test_nothing_is_taken_once_nothing_is_wanted(last: int) -> None:
    client = Client(TURN_SECONDS, last)
    client.arrived(numbered(6 * PIECE))
    await client.over()
    assert len(client.said) == last
    client.left()
    assert client.said[last:] == [b"gone"]


async def test_a_client_that_leaves_while_nothing_waits_is_left_to_the_caller() -> None:
    client = Client()
    client.arrived(b"little")
    assert not client.turns.lost()
    assert b"gone" not in client.said
