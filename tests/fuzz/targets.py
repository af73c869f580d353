"""What is fuzzed: each target takes one example and asserts what must hold of it, whatever it is."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from broker.adapters.leases import LeaseBook, line, written
from broker.protocols.postgres import codec
from broker.protocols.postgres.codec import Frame, Malformed, ProtocolViolation
from broker.protocols.postgres.events import Close
from broker.protocols.postgres.scanning import BackendScanner, FrontendScanner, Run
from broker.protocols.postgres.scram import ScramClient, ScramFailed, ScramServer, make_verifier
from broker.protocols.postgres.startup import Packet, StartupRefused, packet_kind, read_cancel, read_startup
from broker.sessions import eventchain
from broker.sessions.model import Lease, Source
from broker.sql.paths import listed, setting
from broker.sql.settings import refusal_of_value
from tests.fuzz.inspections import JSON, answers, inspection, redaction, shapes
from tests.fuzz.texts import SECRETIVE, STATEMENTS
from tests.playbooks.postgres_play import Play, but_drop
from tests.unit.broker.protocols.postgres.test_codec import cut

Target = tuple[st.SearchStrategy[Any], Callable[[Any], None]]
_CUTS = st.lists(st.integers(1, 40), max_size=60)
_MESSAGES = (
    codec.query("select 1"),
    codec.query("drop table x"),
    codec.parse("p", "select $1", [23]),
    codec.parse("", "drop table x"),
    codec.message(b"B", b"\0p\0" + bytes(6)),
    codec.message(b"B", b"\0p\0\0\1\0\1\0\1\0\0\0\1x\0\0"),
    codec.message(b"D", b"Sp\0"),
    codec.message(b"C", b"P\0"),
    codec.execute(""),
    codec.message(b"d", b"1\n"),
    codec.message(b"c"),
    codec.message(b"f", b"no\0"),
    codec.message(b"H"),
    codec.SYNC,
)
_ANSWERS = (
    codec.message(b"T", b"\0\1x\0" + bytes(18)),
    codec.message(b"D", b"\0\1\0\0\0\1x"),
    codec.message(b"C", b"SELECT 1\0"),
    codec.fields(b"E", {"S": "ERROR", "C": "42601", "M": "bad"}),
    codec.fields(b"N", {"S": "NOTICE", "C": "00000", "M": "so"}),
    codec.parameter_status("TimeZone", "UTC"),
    *(codec.message(kind) for kind in (b"1", b"2", b"3", b"n", b"s", b"I")),
    codec.message(b"t", b"\0\0"),
    codec.message(b"G", b"\0\0\0"),
    codec.message(b"H", b"\0\0\0"),
    *map(codec.ready_for_query, "ITE"),
)


def _damaged(messages: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Well-formed messages, some with a byte changed, left out or put in."""

    def damage(parts: tuple[list[bytes], list[tuple[int, int, int]]]) -> bytes:
        data = bytearray(b"".join(parts[0]))
        for at, how, byte in parts[1]:
            if data:
                start = at % len(data)
                data[start : start + (how != 1)] = b"" if how == 2 else bytes((byte,))
        return bytes(data)

    changes = st.tuples(st.integers(0, 2**16), st.integers(0, 2), st.integers(0, 255))
    return st.tuples(st.lists(st.sampled_from(messages), max_size=12), st.lists(changes, max_size=3)).map(damage)


_FROM_CLIENT = _damaged(_MESSAGES) | st.binary(max_size=80)
_FROM_UPSTREAM = _damaged(_ANSWERS) | st.binary(max_size=80)


def _front(pieces: list[bytes]) -> tuple[list[Frame], bool]:
    scanner, found = FrontendScanner(), []
    try:
        for piece in pieces:
            scanner.feed(piece)
            while (frame := scanner.next()) is not None:
                found.append(frame)
    except ProtocolViolation:
        return found, True
    return found, False


def client_messages(example: tuple[bytes, list[int]]) -> None:
    """However the bytes are cut, the same messages come of them; every body reads or is refused."""
    data, sizes = example
    found = _front([data])
    assert _front(cut(data, sizes)) == found
    whole = b"".join(frame.whole() for frame in found[0])
    assert data.startswith(whole)
    readers: dict[int, Callable[[bytes], Any]] = {
        ord("Q"): codec.read_query,
        ord("P"): codec.read_parse,
        ord("B"): codec.read_bind,
        ord("D"): codec.read_named,
        ord("C"): codec.read_named,
        ord("E"): codec.read_execute,
    }
    for frame in found[0]:
        with contextlib.suppress(ProtocolViolation, Malformed):
            readers.get(frame.type, len)(frame.body)


def _back(pieces: list[bytes]) -> tuple[bytes, int, bool]:
    scanner, out, rows = BackendScanner(), b"", 0
    try:
        for piece in pieces:
            for found in scanner.feed(piece):
                out += bytes(found.data) if isinstance(found, Run) else found.whole()
                rows += found.rows if isinstance(found, Run) else 0
    except ProtocolViolation:
        return b"", 0, True
    return out, rows, False


def upstream_messages(example: tuple[bytes, list[int]]) -> None:
    """However the bytes are cut, they come out the same."""
    data, sizes = example
    assert _back(cut(data, sizes)) == _back([data])
    for read in (codec.read_row_description, codec.read_fields, codec.read_parameter_description):
        with contextlib.suppress(ProtocolViolation, Malformed):
            read(data)
    codec.rows_of(codec.read_tag(data))
    codec.read_parameter_status(data)


def session(turns: list[tuple[bool, bytes]]) -> None:
    """A session of any bytes from either side ends or goes on, and sends nothing upstream that is denied."""
    play = Play(but_drop)
    for client, data in turns:
        play.client(data) if client else play.upstream(data)
        assert b"drop" not in play.to_upstream()
        if any(isinstance(command, Close) for command in play.said):
            return


def startup(body: bytes) -> None:
    """A startup packet is refused, or asks of the upstream what may be asked."""
    try:
        kind = packet_kind(body)
        if kind is Packet.CANCEL:
            assert len(read_cancel(body).secret) <= 256
        if kind is not Packet.STARTUP:
            return
        found = read_startup(body)
    except (StartupRefused, ProtocolViolation):
        return
    assert all(refusal_of_value(name, value) is None for name, value in found.settings)
    assert all(value.isprintable() and len(value) <= 64 for _, value in found.settings)
    assert found.path is None or listed(setting(found.path).partition(" TO ")[2].strip("'")) == [
        *filter(None, found.path)
    ]
    assert found.user
    assert all(" " <= character <= "~" for character in found.application)


_PAIR = st.tuples(
    st.sampled_from(
        (
            *("user", "database", "application_name", "DateStyle", "timezone", "options", "replication", "_pq_.x", "a"),
            *("", "search_path", "statement_timeout"),
        )
    ),
    st.sampled_from(
        ("", "alice", "ISO", "UTC", "UTF8", "-c x=y", "on", "\x1b[0m", "a\nb", "5s", "a, b", '"a b"', "$user")
    )
    | st.sampled_from(
        ("-csearch_path=a,b", r"-c search_path=\"A\ \" --jit=off", "--statement-timeout=1", "-ctimezone=\x85")
    )
    | st.text(max_size=8),
)
_PACKETS = st.lists(_PAIR, max_size=8).map(
    lambda pairs: bytes((0, 3, 0, 0)) + b"".join(codec.string(k) + codec.string(v) for k, v in pairs) + b"\0"
)
_VERIFIER = make_verifier("right", b"salt-of-16-bytes", 4096)


def scram_server(example: tuple[str, bytes, bytes]) -> None:
    """Nobody comes in who does not know the password."""
    mechanism, first, final = example
    server = ScramServer(_VERIFIER, "nonce", b"binding")
    try:
        server.first(mechanism, first)
        server.final(final)
    except ScramFailed:
        return
    raise AssertionError("let in without the password")


def scram_client(example: tuple[bytes, bytes]) -> None:
    """An upstream that does not know the password is found out, and costs a bounded time."""
    first, final = example
    client = ScramClient("clientnonce")
    client.first()
    try:
        salt, iterations = client.challenged(first)
        assert iterations <= 1_000_000
        assert isinstance(salt, bytes)
        client.final(b"k" * 32)
        client.verify(final)
    except ScramFailed:
        return
    raise AssertionError("believed an upstream that knows nothing")


_SAYS = st.sampled_from(
    (
        *(b"n,,", b"y,,", b"p=tls-server-end-point,,", b"n=,", b"r=", b"clientnonce", b"nonce", b",s=c2FsdA==", b",p="),
        *(b",i=4096", b",i=99999999", b"c=biws", b"v=", b"e=x", b",", b"=", b"m=x,"),
    )
)
_SAID = st.lists(_SAYS | st.binary(max_size=4), max_size=9).map(b"".join)


_LEASE = Lease(
    "s1", "g1", "postgres", "prod-db", "read", datetime(2030, 1, 1, tzinfo=UTC), 1, 4000,
    Source("h", 5432, "shop", "disable", "file:x"),
)  # fmt: skip
_LINES = (
    line({"op": "lease", **written(_LEASE)}),
    line({"op": "close", "session": "s1"}),
    line({"op": "broker"}),
    b"{}\n",
    b"[" * 2000 + b"\n",
    b'{"op": "lease", "session": []}\n',
)


def leases(content: bytes) -> None:
    """A lease file of any content is read, and gives only leases that are whole."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        book = LeaseBook.read(Path(file.name))
    for session_, lease in book.leases.items():
        assert isinstance(lease, Lease)
        assert lease.session == session_
        assert lease.expires_at.tzinfo is not None
    assert book.orphans <= set(book.leases)


_HEAD, _AT = eventchain.genesis(eventchain.EVENT, "s"), datetime(2030, 1, 1, tzinfo=UTC)
_EVENT, _ = eventchain.event_line(_HEAD, "s", _AT, "grant.opened", "g1", None, {"a": 1})


def events(data: bytes) -> None:
    """A line of the event log opens only as it was written."""
    try:
        content, _ = eventchain.opened(eventchain.EVENT, data)
    except eventchain.ChainBroken:
        return
    assert data == _EVENT
    assert content["data"] == {"a": 1}


_FROM_EITHER = st.tuples(st.just(True), _FROM_CLIENT) | st.tuples(st.just(False), _FROM_UPSTREAM)
_MECHANISMS = st.sampled_from(("SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", ""))
TARGETS: dict[str, Target] = {
    "client-messages": (st.tuples(_FROM_CLIENT, _CUTS), client_messages),
    "upstream-messages": (st.tuples(_FROM_UPSTREAM, _CUTS), upstream_messages),
    "session": (st.lists(_FROM_EITHER, max_size=8), session),
    "startup": (_PACKETS | _damaged((bytes((0, 3, 0, 0)) + b"user\0a\0\0",)) | st.binary(max_size=40), startup),
    "scram-server": (st.tuples(_MECHANISMS, _SAID, _SAID), scram_server),
    "scram-client": (st.tuples(_SAID, _SAID), scram_client),
    "inspection": (STATEMENTS, inspection),
    "shapes": (STATEMENTS, shapes),
    "redaction": (SECRETIVE, redaction),
    "leases": (_damaged(_LINES), leases),
    "events": (_damaged((_EVENT,)), events),
    "answers": (JSON, answers),
}
