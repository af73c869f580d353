"""TLS on a connection, against the standard library's own sockets: whole both ways, however it comes in pieces."""

import asyncio
import contextlib
import hashlib
import importlib.util
import socket
import ssl
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.transport import secured
from broker.transport.stream import PeerGone, Stream
from broker.transport.tls import certificate, server_context
from tests.support.require import needs_core


def in_python() -> ModuleType:
    """The module as it is where no core is compiled."""
    spec = importlib.util.spec_from_file_location("secured_in_python", secured.__file__)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    with patch("broker.core.compiled", None):
        spec.loader.exec_module(made)
    return made


class Sides(NamedTuple):
    """How each side speaks TLS, and by what ours does."""

    ours: ssl.SSLContext
    theirs: ssl.SSLContext
    by: ModuleType


@pytest.fixture(
    scope="module", params=[pytest.param(secured, marks=needs_core), in_python()], ids=["compiled", "python"]
)
def sides(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sides:
    ours, _ = server_context(*certificate(tmp_path_factory.mktemp("tls"), "localhost"), ["postgresql"])
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    theirs.check_hostname, theirs.verify_mode = False, ssl.CERT_NONE
    return Sides(ours, theirs, request.param)


class Kept(asyncio.Protocol):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")


class Wire:
    """A socket's transport that keeps what is written, and says whether it was closed."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.closed = ""

    def write(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = self.closed or "closed"

    def abort(self) -> None:
        self.closed = "aborted"

    def is_closing(self) -> bool:
        return bool(self.closed)

    def taken(self) -> bytes:
        sent, self.sent = bytes(self.sent), bytearray()
        return sent


class Peer:
    """The other side, by the standard library, on memory."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing)

    def sent(self, call: Callable[[], Any]) -> bytes:
        with contextlib.suppress(ssl.SSLWantReadError):
            call()
        return self.outgoing.read()

    def read(self, data: bytes) -> bytes:
        self.incoming.write(data)
        found = b""
        while True:
            try:
                piece = self.tls.read(100_000)
            except ssl.SSLWantReadError:
                return found
            if not piece:
                return found
            found += piece


def begun(sides: Sides) -> tuple[Any, Kept, Wire, Peer]:
    kept, wire, peer = Kept(), Wire(), Peer(sides.theirs)
    made = sides.by.Secured(sides.ours, kept, server_side=True)
    made.connection_made(wire)
    return made, kept, wire, peer


def agree(made: Any, wire: Wire, peer: Peer, cut: Callable[[bytes], list[bytes]] = lambda data: [data]) -> None:
    while not made.ready.done():
        peer.incoming.write(wire.taken())
        for piece in cut(peer.sent(peer.tls.do_handshake)):
            made.data_received(piece)


def cutter(sizes: list[int]) -> Callable[[bytes], list[bytes]]:
    turn = 0

    def cut(data: bytes) -> list[bytes]:
        nonlocal turn
        found = []
        while data:
            size = sizes[turn % len(sizes)]
            found.append(data[:size])
            data, turn = data[size:], turn + 1
        return found

    return cut


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 20_000), min_size=1, max_size=8),
    st.lists(st.integers(0, 100_000), min_size=1, max_size=4),
    st.lists(st.integers(0, 100_000), min_size=1, max_size=4),
)
def test_everything_arrives_once_and_in_order_however_it_is_cut(
    sides: Sides, sizes: list[int], there: list[int], back: list[int]
) -> None:
    async def play() -> None:
        made, kept, wire, peer = begun(sides)
        cut = cutter(sizes)
        agree(made, wire, peer, cut)
        assert kept.told == ["made"]
        said, answered = b"", b""
        for turn, size in enumerate(there):
            said += bytes([turn]) * size
            for piece in cut(peer.sent(lambda turn=turn, size=size: peer.tls.write(bytes([turn]) * size))):  # type: ignore[misc]
                made.data_received(piece)
        assert kept.data == said
        for turn, size in enumerate(back):
            answered += bytes([turn]) * size
            made.writelines([bytes([turn]) * (size // 2), memoryview(bytes([turn]) * (size - size // 2))])
        assert peer.read(wire.taken()) == answered

    asyncio.run(play())


async def test_what_comes_with_the_last_of_the_handshake_is_not_lost(
    sides: Sides,
) -> None:
    made, kept, wire, peer = begun(sides)
    made.data_received(peer.sent(peer.tls.do_handshake))
    peer.incoming.write(wire.taken())
    last = peer.sent(peer.tls.do_handshake) + peer.sent(lambda: peer.tls.write(b"at once"))
    made.data_received(last)
    assert (kept.told, kept.data) == (["made"], b"at once")


@pytest.mark.parametrize("place", [0, 30, -1])
async def test_a_byte_that_was_changed_on_its_way_is_given_to_nobody(sides: Sides, place: int) -> None:
    made, kept, wire, peer = begun(sides)
    agree(made, wire, peer)
    data = bytearray(peer.sent(lambda: peer.tls.write(b"a secret that is long enough")))
    data[place] ^= 1
    made.data_received(bytes(data))
    made.data_received(peer.sent(lambda: peer.tls.write(b"more")))
    assert (kept.data, wire.closed) == (b"", "aborted")
    before = bytes(wire.sent)
    made.write(b"nothing more")
    assert bytes(wire.sent) == before


async def test_a_goodbye_closes_and_what_stood_before_it_arrives(
    sides: Sides,
) -> None:
    made, kept, wire, peer = begun(sides)
    agree(made, wire, peer)
    last = peer.sent(lambda: peer.tls.write(b"the last")) + peer.sent(peer.tls.unwrap)
    made.data_received(last)
    assert (kept.data, wire.closed) == (b"the last", "closed")
    made.connection_lost(None)
    assert kept.told == ["made", "lost"]


async def test_who_closes_says_goodbye_first(sides: Sides) -> None:
    made, _, wire, peer = begun(sides)
    agree(made, wire, peer)
    made.write(b"the last")
    made.close()
    assert made.is_closing()
    assert peer.read(wire.taken()) == b"the last"
    assert wire.closed == "closed"
    # What `read` returned nothing for was the goodbye, not the end of the connection.
    assert peer.tls.read(10) == b""


@pytest.mark.parametrize("rubbish", [b"GET / HTTP/1.0\r\n\r\n", bytes(100), b"\x16\x03\x01\x00\x05hello"])
async def test_what_is_no_handshake_is_refused_and_its_protocol_hears_nothing(sides: Sides, rubbish: bytes) -> None:
    made, kept, wire, _ = begun(sides)
    made.data_received(rubbish)
    with pytest.raises(OSError, match="SSL"):
        await made.ready
    made.connection_lost(None)
    assert (kept.told, wire.closed) == ([], "closed")


async def test_a_peer_that_leaves_during_the_handshake_is_said(
    sides: Sides,
) -> None:
    made, kept, _, peer = begun(sides)
    made.data_received(peer.sent(peer.tls.do_handshake)[:50])
    made.connection_lost(None)
    with pytest.raises(ConnectionResetError):
        await made.ready
    assert kept.told == []


async def test_both_sides_of_a_socket_carry_much_with_pauses(sides: Sides) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    here, there = Stream(), Stream()
    await asyncio.gather(
        sides.by.secured(ours, sides.ours, here, server_side=True),
        sides.by.secured(theirs, sides.theirs, there, server_side=False, host="localhost"),
    )
    assert there.ssl_object is not None
    content = bytes(range(256)) * 16_000
    there.write([content[:100], memoryview(content)[100:]])
    read = hashlib.sha256()
    for at in range(0, len(content), 50_000):
        read.update(await here.read(min(50_000, len(content) - at)))
        if at % 500_000 == 0:
            here.pause("a test")
            await asyncio.sleep(0)
            here.resume("a test")
    assert read.digest() == hashlib.sha256(content).digest()
    there.close()
    with pytest.raises(PeerGone):
        await here.read(1)
    here.close()


async def test_a_certificate_that_is_not_trusted_ends_it_for_both(
    sides: Sides,
) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    doubting = ssl.create_default_context()
    found = await asyncio.gather(
        sides.by.secured(ours, sides.ours, Stream(), server_side=True),
        sides.by.secured(theirs, doubting, Stream(), server_side=False, host="localhost"),
        return_exceptions=True,
    )
    assert [type(one) for one in found] == [ssl.SSLError, ssl.SSLCertVerificationError]
