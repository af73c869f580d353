"""Frames are found whatever the chunking, and what is found is what was written."""

import contextlib
import tracemalloc
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.protocols.postgres import codec
from broker.protocols.postgres.codec import Frame, Malformed, ProtocolViolation
from broker.protocols.postgres.memory import Memory, Share
from broker.protocols.postgres.scanning import BackendScanner, FrontendScanner, Run

FRONTEND = st.builds(
    Frame,
    st.sampled_from([ord(kind) for kind in "QPBDECdcfpF"]),
    st.binary(max_size=200),
) | st.builds(Frame, st.sampled_from([ord(kind) for kind in "SHX"]), st.just(b""))
BACKEND = st.builds(Frame, st.sampled_from([ord(kind) for kind in "TDCZENSdDDd1"]), st.binary(max_size=200))


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    return [*pieces, data[at:]]


SIZES = st.lists(st.integers(1, 50), max_size=80)


@given(st.lists(FRONTEND, max_size=20), SIZES)
def test_client_messages_come_out_as_they_went_in(frames: list[Frame], sizes: list[int]) -> None:
    scanner, found = FrontendScanner(), []
    for piece in cut(b"".join(frame.whole() for frame in frames), sizes):
        scanner.feed(piece)
        while (frame := scanner.next()) is not None:
            found.append(frame)
    assert found == frames
    assert scanner.buffered == 0


_GOODBYE = Frame(ord("X"), b"")


@given(st.lists(FRONTEND | st.just(_GOODBYE), max_size=20), SIZES, st.lists(st.booleans(), min_size=81, max_size=81))
def test_a_goodbye_is_seen_among_what_waits_as_soon_as_it_is_there(
    frames: list[Frame], sizes: list[int], takes: list[bool]
) -> None:
    scanner, fed, taken = FrontendScanner(), b"", 0
    ends = list(accumulate(len(frame.whole()) for frame in frames))
    for piece, take in zip(cut(b"".join(frame.whole() for frame in frames), sizes), takes, strict=False):
        scanner.feed(piece)
        fed += piece
        here = [frame for frame, end in zip(frames, ends, strict=True) if end <= len(fed)]
        assert scanner.leaving == (_GOODBYE in here[taken:])
        taken += take and scanner.next() is not None


@given(
    st.lists(st.tuples(st.sampled_from(b"QBd"), st.integers(0, 300_000)), max_size=8),
    st.lists(st.integers(1, 200_000), max_size=30),
    st.integers(0, 400_000),
    st.booleans(),
)
def test_a_message_without_room_is_lost_whole_and_leaves_no_other_out_of_step(
    kinds: list[tuple[int, int]], sizes: list[int], most: int, keeps: bool
) -> None:
    memory = Memory(most)
    frames = [Frame(kind, bytes([number]) * length) for number, (kind, length) in enumerate(kinds)]
    scanner, found, kept = FrontendScanner(Share(memory)), [], []
    for piece in cut(b"".join(frame.whole() for frame in frames), sizes):
        scanner.feed(piece)
        while (frame := scanner.next()) is not None:
            assert (frame.lost == 0) or (frame.body == b"" and frame.room is None)
            assert frame.room is None or frame.room.size <= memory.used <= most
            found.append((frame.type, frame.lost or len(frame.body) + 4))
            kept += [frame] if keeps else []
    assert found == [(frame.type, len(frame.body) + 4) for frame in frames]
    assert all(frame.body == frames[found_at].body for found_at, frame in enumerate(kept) if not frame.lost)
    assert scanner.buffered == 0
    frame, kept = None, []
    assert memory.used == 0


@given(st.lists(BACKEND, max_size=20), SIZES)
def test_upstream_messages_come_out_in_order_and_rows_byte_by_byte(frames: list[Frame], sizes: list[int]) -> None:
    scanner, out, rows = BackendScanner(), b"", 0
    for piece in cut(b"".join(frame.whole() for frame in frames), sizes):
        for found in scanner.feed(piece):
            if isinstance(found, Run):
                out += bytes(found.data)
                rows += found.rows
            else:
                out += found.whole()
    assert out == b"".join(frame.whole() for frame in frames)
    assert rows == sum(frame.type in b"Dd" for frame in frames)
    assert not scanner.amid


@given(
    st.lists(st.tuples(st.sampled_from(b"DdC"), st.integers(0, 6), st.integers(1, 60)), max_size=8),
    st.lists(st.integers(1, 500), min_size=1, max_size=5),
    st.integers(0, 3000),
    st.binary(max_size=2),
)
def test_rows_that_are_alike_are_told_apart_as_any_others(
    groups: list[tuple[int, int, int]], sizes: list[int], spoil: int, put: bytes
) -> None:
    data = b"".join(Frame(kind, bytes(size)).whole() * count for kind, size, count in groups)
    data = data[:spoil] + put + data[spoil + len(put) :]
    wanted, position = [], 0
    while len(data) - position >= 5:
        length = int.from_bytes(data[position + 1 : position + 5], "big")
        if not 4 <= length < 9999:
            return
        if position + 1 + length > len(data):
            break
        wanted.append((data[position], length))
        position += 1 + length
    found: list[tuple[int, int]] = []
    rows, scanner = 0, BackendScanner()
    for piece in cut(data, sizes):
        for one in scanner.feed(piece):
            if isinstance(one, Run):
                rows += one.rows
            else:
                found.append((one.type, len(one.body) + 4))
    assert rows == sum(kind in b"Dd" for kind, _ in wanted)
    assert found == [one for one in wanted if one[0] not in b"Dd"]


@given(st.binary(max_size=300), SIZES)
def test_any_bytes_are_messages_or_a_violation(data: bytes, sizes: list[int]) -> None:
    front, back = FrontendScanner(), BackendScanner()
    try:
        for piece in cut(data, sizes):
            front.feed(piece)
            while front.next() is not None:
                pass
    except ProtocolViolation:
        pass
    try:
        for piece in cut(data, sizes):
            back.feed(piece)
    except ProtocolViolation:
        pass


READERS = (codec.read_query, codec.read_parse, codec.read_bind, codec.read_named, codec.read_execute)


@given(st.sampled_from(READERS), st.binary(max_size=200))
def test_any_body_reads_or_is_refused(read, body: bytes) -> None:  # type: ignore[no-untyped-def]
    with contextlib.suppress(ProtocolViolation, Malformed):
        read(body)


@given(st.binary(max_size=200))
def test_any_answer_reads_or_is_refused(body: bytes) -> None:
    for read in (codec.read_row_description, codec.read_fields, codec.read_parameter_status, codec.read_tag):
        with contextlib.suppress(ProtocolViolation):
            read(body)


@pytest.mark.parametrize("length", [0, 3, 16 * 1024 * 1024 + 1, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_a_lying_length_is_refused_without_allocating(length: int) -> None:
    tracemalloc.start()
    scanner = FrontendScanner()
    scanner.feed(b"Q" + length.to_bytes(4, "big"))
    with pytest.raises(ProtocolViolation):
        scanner.next()
    assert tracemalloc.get_traced_memory()[1] < 64 * 1024
    tracemalloc.stop()


def test_a_huge_row_streams_in_bounded_memory() -> None:
    scanner, total = BackendScanner(), 0
    head = b"D" + (256 * 1024 * 1024 + 4).to_bytes(4, "big")
    chunk = bytes(1024 * 1024)
    tracemalloc.start()
    for piece in (head, *[chunk] * 256):
        total += sum(len(found.data) for found in scanner.feed(piece) if isinstance(found, Run))
    assert total == 256 * 1024 * 1024 + 5
    assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    tracemalloc.stop()
    assert not scanner.amid


def test_rows_that_fill_a_chunk_are_not_copied() -> None:
    data = codec.message(b"D", b"abc") * 100
    (run,) = BackendScanner().feed(data)
    assert isinstance(run, Run)
    assert run.data is data
    assert run.rows == 100


@given(
    st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40),
    st.lists(st.integers(0, 2**32 - 1), max_size=5),
)
def test_parse_reads_what_parse_writes(sql: str, types: list[int]) -> None:
    frame = FrontendScanner()
    frame.feed(codec.parse("name", sql, types))
    found = frame.next()
    assert found is not None
    assert codec.read_parse(found.body) == codec.Parse("name", sql, tuple(types))


def test_a_statement_has_as_many_parameters_as_the_server_lets_it_have() -> None:
    types, values = (23,) * 65_535, (b"1",) * 65_535
    assert codec.read_parse(codec.parse("", "select 1", types)[5:]).types == types
    formats = b"\xff\xff" + b"\0\0" * 65_535
    listed = b"\xff\xff" + b"\0\0\0\0011" * 65_535
    found = codec.read_bind(b"\0\0" + formats + listed + formats)
    assert (found.formats, found.values, found.results) == ((0,) * 65_535, values, (0,) * 65_535)


@pytest.mark.parametrize(
    ("tag", "rows"),
    [("SELECT 5", 5), ("INSERT 0 3", 3), ("COPY 10", 10), ("BEGIN", None), ("CREATE TABLE", None), ("", None)],
)
def test_rows_are_read_from_the_tag(tag: str, rows: int | None) -> None:
    assert codec.rows_of(tag) == rows
