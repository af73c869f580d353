"""What hostile clients get, and strangers who say nothing: security.md A1 through the real listener."""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.protocols.postgres import codec
from broker.protocols.postgres.frontdoor import FrontDoor
from broker.transport.listener import TcpListener
from tests.integration.postgres_world import Raw, backends, enter, kinds, make_world, problem, raw, still_serves
from tests.support.broker import TestBroker, serving
from tests.support.postgres import Server


@pytest.fixture
async def served(wheel_postgres: Server, tmp_path: Path) -> AsyncIterator[TestBroker]:
    async with serving(tmp_path, make_world(wheel_postgres)) as broker:
        yield broker


HOSTILE = {
    "length 3": b"Q\0\0\0\3",
    "length -1": b"Q\xff\xff\xff\xff",
    "length 2^31-1": b"Q\x7f\xff\xff\xff",
    "16 MiB and one": b"Q" + (16 * 1024 * 1024 + 1).to_bytes(4, "big"),
    "unknown type": b"z\0\0\0\4",
    "a server's type": b"T\0\0\0\6\0\0",
    "function call": codec.message(b"F", bytes(10)),
    "stray copy data": codec.message(b"d", b"x"),
    "stray copy done": codec.message(b"c"),
    "stray copy fail": codec.message(b"f", b"x\0"),
    "stray password": codec.message(b"p", b"x\0"),
    "bind with -1 formats": codec.message(b"B", b"\0\0\xff\xff"),
    "bind with 65535 parameters": codec.message(b"B", b"\0\0\0\0\xff\xff"),
    "bind with a parameter of -2": codec.message(b"B", b"\0\0\0\0\0\1\xff\xff\xff\xfe\0\0"),
    "bind with a parameter longer than itself": codec.message(b"B", b"\0\0\0\0\0\1\x7f\0\0\0\0\0"),
    "parse with 32767 types": codec.message(b"P", b"\0select 1\0\x7f\xff"),
    "sync with a body": b"S\0\0\0\5x",
}


async def test_hostile_frames_end_the_session_and_nobody_elses(
    served: TestBroker, wheel_postgres: Server, subtests: pytest.Subtests
) -> None:
    with raw(served.port) as other:
        await asyncio.to_thread(enter, other, served.ticket())
        for name, frame in HOSTILE.items():
            with subtests.test(name), raw(served.port) as client:
                closed = len(served.recorder.of("session.closed"))
                await asyncio.to_thread(enter, client, served.ticket())
                if name.startswith("bind"):
                    client.send(codec.parse("", "select 1"))
                client.send(frame)
                last = [frame async for frame in _all(client)][-1]
                assert (problem(last)["S"], problem(last)["C"]) == ("FATAL", "08P01")
                await served.until(lambda: len(backends(wheel_postgres)) == 1)
                other.send(codec.query("select 1"))
                assert kinds(await asyncio.to_thread(other.until, "Z")) == "TDCZ"
                await served.until(lambda closed=closed: len(served.recorder.of("session.closed")) > closed)
                assert served.recorder.of("session.closed")[-1]["reason"] == "protocol"


MALFORMED = {
    "NUL inside": codec.message(b"Q", b"select 1\0;drop table people\0"),
    "no terminator": codec.message(b"Q", b"select 1"),
    "not UTF-8": codec.message(b"Q", b"select E'\x95\x5c'; delete from notes --'\0"),
}


async def test_malformed_queries_are_answered_and_the_session_goes_on(
    served: TestBroker, subtests: pytest.Subtests
) -> None:
    for name, query in MALFORMED.items():
        with subtests.test(name):
            with raw(served.port) as client:
                await asyncio.to_thread(enter, client, served.ticket())
                client.send(query)
                answers = await asyncio.to_thread(client.until, "Z")
                assert kinds(answers) == "EZ"
                assert problem(answers[0])["C"] in ("08P01", "22021")
                client.send(codec.parse("", "select 1")[:-2] + b"")
                client.socket.close()
            await still_serves(served)


async def test_trailing_bytes_and_long_names_are_refused_in_place(served: TestBroker) -> None:
    with raw(served.port) as client:
        await asyncio.to_thread(enter, client, served.ticket())
        for message, state in (
            (codec.message(b"P", b"\0select 1\0\0\0x"), "08P01"),
            (codec.parse("n" * 64, "select 1"), "42622"),
            (codec.message(b"B", b"\0nonesuch\0" + bytes(6)), "26000"),
            (codec.execute("nonesuch"), "34000"),
        ):
            client.send(message + codec.SYNC)
            answers = await asyncio.to_thread(client.until, "Z")
            assert kinds(answers) == "EZ"
            assert problem(answers[0])["C"] == state


async def test_messages_split_at_every_byte_mean_the_same(served: TestBroker) -> None:
    script = (
        codec.query("select 1")
        + codec.parse("", "select $1::text")
        + codec.message(b"B", b"\0\0\0\0\0\1\0\0\0\2hi\0\0")
        + codec.message(b"D", b"P\0")
        + codec.execute("")
        + codec.SYNC
        + codec.query("drop table people")
    )

    def run(pieces: list[bytes]) -> list[tuple[int, bytes]]:
        with raw(served.port) as client:
            client.socket.settimeout(10)
            enter(client, ticket)
            for piece in pieces:
                client.send(piece)
            return [(f.type, f.body) for _ in range(3) for f in client.until("Z")]

    ticket = served.ticket()
    whole = await asyncio.to_thread(run, [script])
    assert "".join(chr(kind) for kind, _ in whole) == "TDCZ12TDCZEZ"
    assert await asyncio.to_thread(run, [script[i : i + 1] for i in range(len(script))]) == whole
    for at in range(1, len(script), 17):
        assert await asyncio.to_thread(run, [script[:at], script[at:]]) == whole


async def test_silent_strangers_are_closed_and_capped(wheel_postgres: Server, tmp_path: Path) -> None:
    async with serving(tmp_path, make_world(wheel_postgres)) as broker:
        silent = [socket.create_connection(("127.0.0.1", broker.port)) for _ in range(60)]

        def closed() -> int:
            return sum(_is_closed(one) for one in silent)

        for _ in range(400):
            if closed() >= 10:
                break
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)
        assert closed() == 10
        for one in silent:
            one.close()
        await asyncio.sleep(0.2)
        await still_serves(broker)


def _is_closed(one: socket.socket) -> bool:
    one.setblocking(False)
    try:
        return one.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


async def test_a_stranger_that_says_nothing_is_closed_at_the_deadline(served: TestBroker) -> None:
    door = FrontDoor(served.listener._house, ssl.create_default_context(), b"", b"")
    assert door.deadline == 10.0
    door.deadline = 0.5
    tcp = TcpListener(door.serve)
    await tcp.open("127.0.0.1", 0)
    begun = time.monotonic()
    with raw(tcp.port) as client:
        client.send(b"\0")
        assert await asyncio.to_thread(client.rest) == b""
    assert time.monotonic() - begun > 0.45
    await tcp.close()


async def _all(client: Raw) -> AsyncIterator[codec.Frame]:
    while True:
        try:
            yield await asyncio.to_thread(client.message)
        except EOFError:
            return
