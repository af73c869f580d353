"""What a session's machine says is done in its order; others are served in between, and an end waits for no turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.protocols.postgres import work
from broker.protocols.postgres.events import Command, Ended, Event, FromClient, FromUpstream, ToClient
from broker.protocols.postgres.work import PIECE, TURN_SECONDS, Work
from broker.sessions.model import CloseReason


class Session:
    """Each byte that arrives is a command; one of `?` tells of an event more, one of `!` fails."""

    def __init__(self, seconds: float) -> None:
        self.rests: list[bool] = []
        self.work = Work(self.handle, self.do, self.begin, self.end, self.rests.append, self.fail)
        self.done: list[bytes] = []
        self.turns: list[bytes] = []
        self.told: list[bytes] = []
        self._seconds = seconds

    def handle(self, event: Event) -> Iterator[Command]:
        if isinstance(event, FromClient | FromUpstream):
            self.told.append(event.data)
            for one in event.data:
                yield ToClient(bytes([one]))
        else:
            yield ToClient(b".")

    def do(self, command: Command) -> None:
        assert isinstance(command, ToClient)
        if command.data == b"!":
            raise ValueError
        if command.data == b"?":
            self.work.tell(FromClient(b"more", 0.0))
        self.done.append(bytes(command.data))
        until = time.monotonic() + self._seconds
        while time.monotonic() < until:
            pass

    def begin(self) -> None:
        assert self.work.busy

    def end(self) -> None:
        self.turns.append(b"".join(self.done))

    def fail(self) -> None:
        self.done.append(b"failed")

    async def over(self) -> None:
        while self.work.busy:  # noqa: ASYNC110  each turn of the loop is one of others
            await asyncio.sleep(0)


SLOW = TURN_SECONDS / 2


async def test_a_long_chunk_of_the_upstreams_is_done_in_turns_and_what_comes_meanwhile_behind_it() -> None:
    session = Session(SLOW)
    session.work.tell(FromUpstream(b"?abcdefgh", 0.0))
    assert session.work.busy
    assert session.rests == [True]
    session.work.tell(FromClient(b"later", 0.0))
    assert session.turns[0] == b"".join(session.done)
    assert len(session.done) < 5
    await session.over()
    assert b"".join(session.done) == b"?abcdefghmorelater"
    assert session.rests == [True, False]
    assert len(session.turns) > 3


async def test_what_is_short_is_done_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "TURN_SECONDS", 60.0)
    session = Session(0.0)
    session.work.tell(FromUpstream(b"ab?c", 0.0))
    session.work.tell(FromClient(b"d", 0.0))
    assert b"".join(session.done) == b"ab?cmored"
    assert (session.rests, session.work.busy) == ([], False)


@given(st.lists(st.tuples(st.sampled_from([1, PIECE, PIECE + 1, 3 * PIECE]), st.booleans()), max_size=6))
def test_all_of_it_is_done_in_its_order_however_much_of_it_comes_at_once(chunks: list[tuple[int, bool]]) -> None:
    async def story() -> None:
        session, sent, upstreams = Session(0.0), b"", list[bytes]()
        for number, (size, client) in enumerate(chunks):
            data = bytes(97 + (number + at) % 26 for at in range(size))
            session.work.tell((FromClient if client else FromUpstream)(data, 0.0))
            sent += data
            upstreams += [] if client else [data]
        await session.over()
        assert b"".join(session.done) == sent
        assert all(len(told) <= PIECE for told in session.told if told not in upstreams)

    asyncio.run(story())


async def test_others_have_their_turn_while_a_client_has_sent_much() -> None:
    session, others = Session(SLOW), 0
    session.work.tell(FromClient(b"abcdefgh", 0.0))
    assert session.rests == [True]
    while session.work.busy:
        others += 1
        await asyncio.sleep(0)
    assert others > 2
    assert b"".join(session.done) == b"abcdefgh"


async def test_an_end_waits_for_no_turn_and_drops_what_its_client_sent() -> None:
    session = Session(SLOW)
    session.work.tell(FromUpstream(b"abcdefgh", 0.0))
    session.work.tell(FromClient(b"later", 0.0))
    session.work.tell(Ended(CloseReason.REVOKED, None, 0.0))
    assert b"".join(session.done) == b"abcdefgh."
    assert (session.rests, session.work.busy) == ([True, False], False)
    await asyncio.sleep(0)
    assert b"".join(session.done) == b"abcdefgh."


@pytest.mark.parametrize("chunk", [b"a!b", b"abcdef!g"])
async def test_behind_an_error_nothing_is_done(chunk: bytes) -> None:
    session = Session(SLOW)
    session.work.tell(FromUpstream(chunk, 0.0))
    if session.work.busy:
        session.work.tell(FromClient(b"later", 0.0))
    await session.over()
    assert b"".join(session.done) == chunk.partition(b"!")[0] + b"failed"
    assert session.rests in ([], [True, False])
