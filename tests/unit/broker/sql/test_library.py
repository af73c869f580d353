"""The scanner's tokens and the parser's trees are read as they were written, whatever is in them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from postgast import pg_query_pb2

from broker.sql import rewrite
from broker.sql.library import FULL, ON_THE_SPOT, Costly, Token, _tokens, parse, parsed, read, scan
from broker.sql.model import Refusal
from broker.sql.tree import _PLACES, placeless

tokens = st.builds(Token, st.integers(0, 131072), st.integers(0, 131072), st.integers(0, 900), st.booleans())
TEXTS = [
    "select 1",
    "select  2",
    "select a from t where b >= 1 and c <> 'x' order by 1",
    'select \'"location":1\', \'{"stmt_len":2,"a":3}\', \'\\u003e\'::text as "relname"',
    "select '\\u003e', '>' , '\\\\>', e'\\\\u003c'",
    "select '>', '>' , '\\\\>', e'\\\\u003c'",
    "select 'é\u2028\U0001f600', '\x01\t\x7f', '/'",
    "update t set (a, b) = (select 1, 2) where c in (1, 2, 3)",
    "update t set (a, b) = (select 1, 2) where c in (1, 2, 4)",
    "with q as (select 1) select * from q union all (table x limit 3)",
    "select $1::int[], array[1, 2], row(1, 2), (t).a[1:2], x is null from t, lateral f(1) with ordinality",
    "select * from t, json_table(a, '$' as r columns (nested '$.b' as s columns (c int))) where a = any (array[1])",
]


def written(token: Token) -> bytes:
    """Write a token as protobuf-c does: what is 0 is left out."""
    numbers = ((0x08, token.start), (0x10, token.end), (0x20, token.kind), (0x28, int(token.keyword) * 4))
    body = b"".join(bytes([key]) + varint(number) for key, number in numbers if number)
    return b"\x12" + varint(len(body)) + body


def varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


@given(st.lists(tokens, max_size=50))
def test_tokens_are_read_as_they_were_written(found: list[Token]) -> None:
    assert _tokens(b"\x08" + varint(170004) + b"".join(map(written, found)), FULL) == found


@pytest.mark.parametrize("data", [b"\x12\x02\x18\x01", b"\x12\x04\x08\x80\x80\x80\x01", b"\x12", b"\x1a\x00"])
def test_tokens_of_another_form_are_refused(data: bytes) -> None:
    with pytest.raises(Refusal, match="not understood"):
        _tokens(b"\x08\x01" + written(Token(0, 6, 700, True)) + data, FULL)


def test_too_many_tokens_are_refused_or_left_to_others() -> None:
    with pytest.raises(Refusal, match="words"):
        scan(b"," * 30_000)
    with pytest.raises(Costly):
        scan(b", " * 401, ON_THE_SPOT)
    assert len(scan(b", " * 400, ON_THE_SPOT)) == 400


@pytest.mark.parametrize("one", TEXTS)
def test_trees_are_the_same_where_they_are_but_for_places(one: str) -> None:
    for other in TEXTS:
        same = placeless(parse(one.encode()))["stmts"] == placeless(parse(other.encode()))["stmts"]
        assert rewrite._same(parsed(one.encode()), parse(other.encode())) is same


@pytest.mark.parametrize("text", TEXTS)
def test_text_of_a_tree_without_places_is_that_of_the_tree_without_places(text: str) -> None:
    for tree in (
        parse(text.encode()),
        {"location": 1, "stmt_len": 2, "a": [{"location": 3}, {"b": 1, "list_end": -1}]},
    ):
        plain = rewrite._without_places(rewrite._in_json(tree).encode())
        assert json.loads(plain) == placeless(tree)


def test_every_place_that_a_tree_may_hold_is_known_as_one() -> None:
    known = {
        field.name
        for message in pg_query_pb2.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
        if field.type == field.TYPE_INT32 and field.name.endswith(("location", "_start", "_end", "_len"))
    }
    assert known == _PLACES
    assert rewrite._without_places(json.dumps(dict.fromkeys(known, 1), separators=(",", ":")).encode()) == b"{}"
    for name in known:
        assert rewrite._without_places(b'{"a":1,"%s":-1,"b":2}' % name.encode()) == b'{"a":1,"b":2}'


def test_relations_are_counted_as_the_parser_wrote_them() -> None:
    for text, count in (("select 1", 0), ("""select '"relname":' as "relname" from a, b.c for update of a""", 3)):
        assert read(text.encode())[1] == count
