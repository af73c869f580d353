"""Calls between processes of one broker: in order, both ways, whatever a socket makes of them."""

import asyncio
import pickle
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import AirlockError, RecordingFailed
from broker.transport.channel import Channel, ChannelLost, Frames, framed

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.binary(max_size=300) | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(st.lists(st.tuples(st.integers(0, 3), VALUES), max_size=6), st.lists(st.integers(1, 400), min_size=1))
def test_messages_are_whole_however_they_are_cut(messages: list[tuple[Any, ...]], cuts: list[int]) -> None:
    data, frames, found, at, turn = b"".join(map(framed, messages)), Frames(), [], 0, 0
    while at < len(data):
        size = cuts[turn % len(cuts)]
        found += frames.take(data[at : at + size])
        at, turn = at + size, turn + 1
    assert found == messages


class OfTwo(AirlockError):
    """made of two words, and says one: it pickles, and does not read"""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


class Ends:
    """A worker's end in a thread with a loop of its own, and the broker's end here."""

    def __init__(self, here: Callable[..., Any], there: Callable[..., Any]) -> None:
        ours, theirs = socket.socketpair()
        self.lost: list[str] = []
        self.here = Channel(ours, here, lambda: self.lost.append("here"))
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.there = self.run(lambda: Channel(theirs, there, lambda: self.lost.append("there")))

    def run(self, call: Callable[[], Any]) -> Any:
        async def made() -> Any:
            return call()

        return asyncio.run_coroutine_threadsafe(made(), self.loop).result(20)

    async def asked(self, method: str, *arguments: Any) -> Any:
        """What a call that stops the worker for its answer finds."""
        return await asyncio.to_thread(self.run, lambda: self.there.ask(method, *arguments))

    def end(self) -> None:
        self.here.close()
        self.run(self.there.close)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


async def test_who_waits_here_and_now_gets_the_answer_and_handles_afterwards_what_came_meanwhile() -> None:
    told: list[Any] = []

    def here(method: str, arguments: tuple[Any, ...]) -> Any:
        if method == "write":
            ends.here.cast("told", 1)
            ends.here.cast("told", 2)
        return method, arguments

    def there(method: str, arguments: tuple[Any, ...]) -> Any:
        told.append(arguments[0])
        if arguments[0] == 1:
            told.append(ends.there.ask("again"))

    ends = Ends(here, there)
    try:
        assert await ends.asked("write", b"x" * 1_000_000, None) == ("write", (b"x" * 1_000_000, None))
        # Asked for while the first was handled: the answer stands before the second.
        async with asyncio.timeout(10):
            while len(told) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert told == [1, ("again", ()), 2]
    finally:
        ends.end()


async def test_what_takes_time_there_keeps_nobody_else_waiting() -> None:
    gate = asyncio.Event()

    async def slow() -> str:
        await gate.wait()
        return "slow"

    ends = Ends(lambda method, _: slow() if method == "slow" else method, lambda *_: None)
    try:
        waiting = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_called(ends.there, "slow"), ends.loop))
        assert await ends.asked("quick") == "quick"
        assert not waiting.done()
        gate.set()
        assert await waiting == "slow"
    finally:
        ends.end()


async def test_errors_cross_as_what_they_are_and_strange_ones_by_name() -> None:
    def here(method: str, _: tuple[Any, ...]) -> Any:
        raise RecordingFailed("the disk is full") if method == "write" else ValueError("a number")

    ends = Ends(here, lambda *_: None)
    try:
        with pytest.raises(RecordingFailed, match="the disk is full"):
            await ends.asked("write")
        with pytest.raises(AirlockError, match="ValueError: a number"):
            await ends.asked("else")
    finally:
        ends.end()


async def test_without_the_other_end_every_call_fails_at_once_and_so_does_each_later_one() -> None:
    ends = Ends(lambda *_: asyncio.get_running_loop().create_future(), lambda *_: None)
    try:
        waiting = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_called(ends.there, "never"), ends.loop))
        asking = asyncio.create_task(ends.asked("never"))
        await asyncio.sleep(0.1)
        ends.here.close()
        with pytest.raises(ChannelLost):
            await asking
        with pytest.raises(ChannelLost):
            await waiting
        with pytest.raises(ChannelLost):
            await ends.asked("later")
        assert ends.lost == ["there"]
    finally:
        ends.end()


async def test_an_answer_that_cannot_be_sent_fails_the_call_and_no_other() -> None:
    class Strange(AirlockError):
        """nothing that pickles"""

    def here(method: str, _: tuple[Any, ...]) -> Any:
        if method == "raise":
            raise Strange("no")
        if method == "raise two":
            raise OfTwo("one", "two")
        return (lambda: None) if method == "return" else method

    ends = Ends(here, lambda *_: None)
    try:
        for method in ("raise", "raise two", "return"):
            with pytest.raises(AirlockError, match="the answer cannot be sent"):
                await ends.asked(method)
        with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
            await ends.asked("else", lambda: None)
        assert await ends.asked("else") == "else"
    finally:
        ends.end()


async def test_an_end_that_says_what_does_not_read_is_given_up_and_nobody_waits_for_it() -> None:
    ours, theirs = socket.socketpair()
    lost: list[bool] = []
    channel = Channel(ours, lambda *_: None, lambda: lost.append(True))
    theirs.sendall(struct.pack("=I", 3) + b"???")
    with pytest.raises(ChannelLost):
        channel.ask("anything")
    assert lost == [True]
    theirs.close()


async def _called(channel: Channel, method: str) -> Any:
    return await channel.call(method)
