"""Tells a peer that is silently gone from one that only does not read; and one that has left from one that waits.

TCP_USER_TIMEOUT cannot: the kernel also ends connections to a peer that answers every probe but has no room for more,
so a client in a pager, or a COPY that waits for a lock, would lose its session.
"""

from __future__ import annotations

import asyncio
import socket
import struct

SILENT_SECONDS = 10.0
_INFO = getattr(socket, "TCP_INFO", None)
_SIZE = 60
_CLOSED = frozenset({7, 8})
"""Of `tcpi_state`, TCP_CLOSE and TCP_CLOSE_WAIT: the peer has reset or ended its side."""
_PROBES, _UNACKNOWLEDGED, _LAST_ACK = struct.Struct("3xB"), struct.Struct("24xI"), struct.Struct("56xI")
"""Of tcp_info: probes without an answer, segments without one, milliseconds since the last answer."""


class Silence:
    """Looks at one connection now and then; where the kernel does not tell (it is not Linux), nobody is ever silent."""

    def __init__(self) -> None:
        self._unheard = False

    def found(self, transport: asyncio.BaseTransport | None) -> bool:
        """Return whether a peer owes an answer for too long, twice in a row: at one look a probe may be under way."""
        before, self._unheard = self._unheard, transport is not None and _owes(transport)
        return before and self._unheard


def has_left(transport: asyncio.BaseTransport | None) -> bool:
    """Say whether a peer has ended its side, though what it sent before that is not read; False where nobody tells."""
    told = _told(transport) if transport is not None else b""
    return bool(told) and told[0] in _CLOSED


def _owes(transport: asyncio.BaseTransport) -> bool:
    told = _told(transport)
    try:
        probes, unacknowledged, since = (part.unpack_from(told)[0] for part in (_PROBES, _UNACKNOWLEDGED, _LAST_ACK))
    except struct.error:
        # A kernel that tells less.
        return False
    return bool(probes or unacknowledged) and since > SILENT_SECONDS * 1000


def _told(transport: asyncio.BaseTransport) -> bytes:
    """Return the kernel's `tcp_info` of a connection, nothing where there is none."""
    connection = transport.get_extra_info("socket")
    if _INFO is None or connection is None:
        return b""
    try:
        told: bytes = connection.getsockopt(socket.IPPROTO_TCP, _INFO, _SIZE)
    except OSError:
        return b""
    return told
