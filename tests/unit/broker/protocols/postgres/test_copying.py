"""What a COPY is counted as, however its data is cut into pieces."""

import csv
import hashlib
import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.protocols.postgres import codec
from broker.protocols.postgres.copying import Copying, Rows
from broker.protocols.postgres.scanning import BackendScanner, Run
from broker.sql.model import CopyForm
from policies.engine.decisions import Limits

VALUES = st.lists(st.lists(st.text("a,\"'\\\n\r\t;x", max_size=6), min_size=2, max_size=2), max_size=6)
CUTS = st.lists(st.integers(1, 7), min_size=1, max_size=20)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        size = cuts[len(found) % len(cuts)]
        found.append(data[at : at + size])
        at += size
    return found


def counted(form: CopyForm, data: bytes, cuts: list[int]) -> int:
    rows = Rows(form)
    for piece in pieces(data, cuts):
        rows.take(piece)
    return rows.count


def as_text(value: str, end: bytes) -> bytes:
    """PostgreSQL's text format; a newline in a value as an escaped one, which it reads too."""
    escaped = value.replace("\\", "\\\\").replace("\t", "\\t").replace("\r", "\\r")
    return escaped.encode().replace(b"\n", b"\\" + end if end == b"\n" else b"\\n")


@given(VALUES, CUTS, st.sampled_from([b"\n", b"\r\n", b"\r"]), st.booleans())
def test_text_is_counted_by_its_unescaped_line_ends(
    values: list[list[str]], cuts: list[int], end: bytes, heading: bool
) -> None:
    lines = [b"\t".join(as_text(value, end) for value in row) + end for row in values]
    data = b"".join([b"a\tb" + end, *lines] if heading else lines)
    # A lone \r at the very end may be half of a line's end, so it is counted with what follows it.
    tail = b"" if end != b"\r" else b"x"
    assert counted(CopyForm(header=heading), data + tail, cuts) == len(values)


@given(VALUES, CUTS, st.booleans(), st.sampled_from(['"', "\\", "'"]))
def test_csv_is_counted_by_its_line_ends_outside_quotes(
    values: list[list[str]], cuts: list[int], heading: bool, escape: str
) -> None:
    quote = '"'
    out = io.StringIO(newline="")
    doubled = {"doublequote": True} if escape == quote else {"doublequote": False, "escapechar": escape}
    writer = csv.writer(out, quotechar=quote, quoting=csv.QUOTE_ALL, lineterminator="\n", **doubled)  # type: ignore[arg-type]
    if heading:
        writer.writerow(["a", "b"])
    writer.writerows(values)
    form = CopyForm("csv", heading, quote, escape)
    assert counted(form, out.getvalue().encode(), cuts) == len(values)


@given(VALUES, CUTS, st.booleans(), st.integers(0, 5))
def test_binary_is_counted_by_its_tuples(values: list[list[str]], cuts: list[int], ended: bool, extension: int) -> None:
    data = b"PGCOPY\n\xff\r\n\0" + struct.pack(">II", 0, extension) + bytes(extension)
    for row in values:
        data += struct.pack(">h", len(row) + 1) + struct.pack(">i", -1)
        data += b"".join(struct.pack(">i", len(value.encode())) + value.encode() for value in row)
    data += b"\xff\xff" if ended else b""
    assert counted(CopyForm("binary"), data, cuts) == len(values)


def test_pieces_of_escapes_take_no_memory() -> None:
    rows = Rows(CopyForm())
    for _ in range(50):
        rows.take(b"\\" * 100_001)
    assert len(rows._rest) <= 1


@given(
    st.lists(st.tuples(st.binary(max_size=200), st.integers(1, 40)), max_size=20),
    st.lists(st.integers(1, 90) | st.integers(500, 4000), min_size=1, max_size=10),
)
def test_what_goes_out_is_counted_and_hashed_without_its_framing(
    alike: list[tuple[bytes, int]], cuts: list[int]
) -> None:
    rows = [row for row, times in alike for _ in range(times)]
    copying, scanner = Copying(incoming=False), BackendScanner()
    for piece in pieces(b"".join(codec.message(b"d", row) for row in rows), cuts):
        for found in scanner.feed(piece):
            assert isinstance(found, Run)
            copying.take_out(found.data, found.rows)
    assert (copying.rows, copying.size) == (len(rows), sum(map(len, rows)))
    assert copying.found()["sha256"] == hashlib.sha256(b"".join(rows)).hexdigest()


def test_a_message_in_pieces_is_hashed_whole() -> None:
    copying, scanner = Copying(incoming=False), BackendScanner()
    big = bytes(200_000) + b"end"
    for piece in pieces(codec.message(b"d", big) + codec.message(b"d", b"x"), [70_000]):
        for found in scanner.feed(piece):
            assert isinstance(found, Run)
            copying.take_out(found.data, found.rows)
    assert (copying.rows, copying.size) == (2, len(big) + 1)
    assert copying.found()["sha256"] == hashlib.sha256(big + b"x").hexdigest()


@pytest.mark.parametrize(
    ("limits", "within"),
    [
        (Limits(), True),
        (Limits(rows=2), True),
        (Limits(rows=1), False),
        (Limits(bytes=4), True),
        (Limits(bytes=3), False),
        (Limits(rows=2, bytes=3), False),
    ],
)
def test_a_limit_is_what_may_be_reached(limits: Limits, within: bool) -> None:
    assert Copying(incoming=True, limits=limits).take_in(b"1\n2\n") is within
    assert Copying(incoming=False, limits=limits).take_out(codec.message(b"d", b"1\n") * 2, 2) is within
