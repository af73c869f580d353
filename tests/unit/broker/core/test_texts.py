"""What the compiled core writes and counts, against Python: the same lines, times, shapes, rows and ids."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.adapters.journal import KINDS, Line, packed, unpacked
from broker.core import compiled, new_ids
from broker.protocols.postgres import codec, scanning
from broker.sessions.eventchain import (
    EVENT,
    RECORD,
    Head,
    checked,
    event_line,
    genesis,
    json_text,
    record_line,
    timestamp,
)
from broker.sql.shapes import shape
from tests.support.require import needs_core

pytestmark = needs_core

DETAILS = st.dictionaries(st.sampled_from(["parameters", "rewritten", "sql"]), st.text() | st.lists(st.text()))

NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=30)


@given(
    st.lists(st.tuples(NAMES, NAMES, st.text(), DETAILS, st.integers(0, 2**40)), min_size=1, max_size=4),
    NAMES,
    NAMES,
    st.integers(0, 2**50),
)
def test_lines_are_sealed_as_python_seals_them(
    said: list[tuple[str, str, str, dict[str, Any], int]], stream: str, grant: str, begun: int
) -> None:
    assert compiled is not None
    at = timestamp(datetime.now(UTC))
    recorded, fed = Head(begun, genesis(RECORD, grant).hash), Head(begun + 7, genesis(EVENT, stream).hash)
    entries, records, events = b"", b"", b""
    heads = recorded, fed
    for session, id_, text, detail, rows in said:
        before, behind = f'"a":{json_text(text)},', f'"rows":{rows},"statement":"{id_}"'
        kind = KINDS[rows % 2]
        line = Line(kind, at, grant, session, id_, before, behind, json_text(detail))
        entries += packed(line)
        assert list(unpacked(entries + bytes(8)))[-1] == line
        record, recorded = record_line(recorded, grant, at, kind, session, f"{{{before}{behind}}}", json_text(detail))
        spoken = f'{{{before}"recorded":"{recorded.seq}:{recorded.hash}",{behind}}}'
        event, fed = event_line(fed, stream, at, kind, grant, session, spoken)
        records, events = records + record, events + event
    found = compiled.seal(stream.encode(), grant.encode(), *heads, entries + bytes(8))
    assert found == (records, recorded, events, fed)
    assert checked(RECORD, found[0].splitlines(keepends=True)[0], heads[0])[0]["grant"] == grant


@given(st.floats(0, 253402300799, allow_nan=False))
def test_a_time_is_written_as_python_writes_it(seconds: float) -> None:
    assert compiled is not None
    assert compiled.timestamp(seconds).decode() == timestamp(datetime.fromtimestamp(seconds, UTC))


def test_a_clock_that_is_anchored_never_goes_behind_the_boot_clock() -> None:
    assert compiled is not None
    ahead = compiled.Anchor(4e9, 0.0)
    assert ahead.seconds() > 4e9
    assert abs(compiled.Anchor(0.0, 1e12).seconds() - datetime.now(UTC).timestamp()) < 60


@settings(max_examples=300)
@given(st.text("a =<>(,\t\n;)0123456789.\0é") | st.from_regex(r"select a from t where b = [0-9]{1,11}( and c>[0-9]+)?"))
def test_numbers_are_marked_as_shapes_marks_them(text: str) -> None:
    assert compiled is not None
    found = compiled.marked(text.encode())
    assert (found.decode() if found is not None else None) == shape(text)


@given(
    st.lists(st.tuples(st.sampled_from(b"DdC"), st.integers(0, 6), st.integers(1, 60)), min_size=1, max_size=8),
    st.integers(0, 3000),
    st.binary(max_size=2),
    st.integers(0, 400),
)
def test_rows_are_counted_as_python_counts_them(
    groups: list[tuple[int, int, int]], spoil: int, put: bytes, cut: int
) -> None:
    assert compiled is not None
    data = b"".join(codec.Frame(kind, bytes(size)).whole() * count for kind, size, count in groups)
    data = data[:spoil] + put + data[spoil + len(put) :]
    data = data[: len(data) - cut] if cut < len(data) else data
    for position in range(len(data)):
        for total in (len(data), max(position + 1, len(data) - 7)):
            found = compiled.whole_rows(data, position, total)
            assert found == scanning._whole_rows(data, position, total)


@given(st.integers(0, 2**63))
def test_ids_are_given_as_python_gives_them(first: int) -> None:
    assert compiled is not None
    ids = compiled.Ids(first)
    assert [ids(), ids()] == [f"q{first:016x}", f"q{first + 1:016x}"]
    assert isinstance(new_ids(first), compiled.Ids)
