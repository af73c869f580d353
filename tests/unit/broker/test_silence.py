"""A peer that has no room lives; one that owes an answer does not, at the second look."""

import socket
import struct
from types import SimpleNamespace
from typing import Any

import pytest

from broker.transport.listener import tune
from broker.transport.silence import Silence, has_left

linux = pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="only Linux tells")


@linux
def test_the_kernel_is_not_asked_to_end_connections_to_those_who_have_no_room() -> None:
    with socket.socket() as connection:
        tune(connection)
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0


class Told:
    """A transport whose kernel tells what a test wants."""

    def __init__(self, probes: int, unacknowledged: int, since: int) -> None:
        self.info = struct.pack("3xB20xI28xI", probes, unacknowledged, since)

    def get_extra_info(self, _name: str) -> "Told":
        return self

    def getsockopt(self, *_: int) -> bytes:
        return self.info


@linux
@pytest.mark.parametrize("ended", [False, True])
def test_a_peer_that_has_ended_its_side_has_left_whatever_of_it_is_unread(ended: bool) -> None:
    ours, theirs = socket.create_server(("127.0.0.1", 0)), socket.socket()
    with ours, theirs:
        theirs.connect(ours.getsockname())
        accepted, _ = ours.accept()
        with accepted:
            theirs.sendall(b"x" * 100)
            if ended:
                theirs.close()
            transport: Any = SimpleNamespace(get_extra_info=lambda _: accepted)
            assert has_left(transport) is ended
        assert not has_left(transport)
    assert not has_left(None)


@linux
@pytest.mark.parametrize(
    ("told", "silent"),
    [((0, 3, 20_000), True), ((2, 0, 20_000), True), ((0, 3, 500), False), ((0, 0, 60_000), False)],
)
def test_a_peer_is_silent_where_it_owes_an_answer_for_long(told: tuple[int, int, int], silent: bool) -> None:
    look = Silence()
    assert not look.found(Told(*told))  # type: ignore[arg-type]
    assert look.found(Told(*told)) is silent  # type: ignore[arg-type]
    assert not look.found(None)
    assert not look.found(Told(*told))  # type: ignore[arg-type]
