"""Shapes that reviewers approve: alike is what differs in nothing but values, and no more than values may differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.sql.library import parse
from broker.sql.placeholders import LONGEST, Parameters, Pattern, pattern
from broker.sql.tree import placeless

NONE = Parameters()


def shaped(sql: str, *values: bytes | None, types: tuple[int, ...] = (), formats: tuple[int, ...] = ()) -> Pattern:
    shown = [None if value is None else value.decode() for value in values]
    found = pattern(sql, Parameters(values, formats, types, shown))
    assert found is not None
    return found


SHOWN = {
    "DELETE FROM t WHERE id = 1": "DELETE FROM t WHERE id = $1",
    "delete from t where 5 < id and d >= date '2026-01-01' -- why\n;": "delete from t where $1 < id and d >= date $2",
    "update t set a = 'x', b = b + 5 where id in (1, 2)": "update t set a = $1, b = b + 5 where id in ($2, $3)",
    "update t set a = -5 where b between 1 and 2.5": "update t set a = -$1 where b between $2 and $3",
    "insert into t values (1, 'x', true, null), (2, E'y', default, now())": (
        "insert into t values ($1, $2, true, null), ($3, $4, default, now())"
    ),
    "insert into t values (1) on conflict (a) do update set b = 'q' where t.c <> 'z'": (
        "insert into t values ($1) on conflict (a) do update set b = $2 where t.c <> $3"
    ),
    "select * from t\nwhere a = 'x'::uuid /* one */ limit 10": "select * from t\nwhere a = $1::uuid limit 10",
}


@pytest.mark.parametrize(("sql", "text"), SHOWN.items())
def test_values_are_what_is_compared_with_a_column_or_assigned_to_one(sql: str, text: str) -> None:
    assert shaped(sql).text == text


SAME = (
    ("delete from t where id = 1", "delete  from t\nwhere id = 2;"),
    ("update t set a = 'x' where b = 1.5 /* c */", "update t set a = E'\\n' where b = 0.25"),
    ("insert into t values ('a'), (U&'b')", "insert into t values ($$q$$), ('')"),
    ("select a from t where b = 99999999999", "select a from t where b = 88888888888"),
)
OTHER = (
    ("delete from t where id = 1", "delete from t where id >= 1"),
    ("delete from t where id = 1", "delete from t where id = '1'"),
    ("delete from t where id = 1", "delete from t where id = 1.0"),
    ("delete from t where id = 1", "delete from t where id = 99999999999"),
    ("delete from t where id = 1", "delete from t where id = -1"),
    ("delete from t where id < -1.5", "delete from t where id < -9223372036854775808"),
    ("delete from t where id < -3000000000", "delete from t where id < -2147483648"),
    ("delete from t where id = 1", "delete from t where id = null"),
    ("delete from t where id = 1", "delete from t where id = 0x1"),
    ("delete from t where id = 1", "delete from t where id = 1e3"),
    ("delete from t where id = 1", 'delete from "t" where id = 1'),
    ("delete from t where id = 1", "delete from t where id = 1 or true"),
    ("delete from t where id = 1 and 1 = 2", "delete from t where id = 1 and 1 = 1"),
    ("delete from t where id in (1)", "delete from t where id in (1, 2)"),
    ("delete from t where a like 'a%'", "delete from t where a like '%'"),
    ("delete from t where id = any ('{1}')", "delete from t where id = any ('{1,2}')"),
    ("delete from t where a = 'x'::regclass", "delete from t where a = 'y'::regclass"),
    ("delete from t where a = '{1}'::int[]", "delete from t where a = '{2}'::int[]"),
    ("delete from t where lower(a) = 'x'", "delete from t where lower(a) = 'y'"),
    ("delete from t where doc ->> 'a' = 'x'", "delete from t where doc ->> 'b' = 'x'"),
    ("delete from t where b'1' = a", "delete from t where b'0' = a"),
    ("delete from t where x operator(s.=) 1", "delete from t where x operator(s.=) 2"),
    ("update t set a = a + 1 where id = 1", "update t set a = a + 2 where id = 1"),
    ("update t set a[1] = 1", "update t set a[1] = 2"),
    ("insert into t values (1)", "insert into t values (1), (1)"),
    ("insert into t select 1", "insert into t select 2"),
    ("select a from t where b = 1 limit 1", "select a from t where b = 1 limit 2"),
    ("select a from t order by 1", "select a from t order by 2"),
    ("select a as b from t", "select a as c from t"),
    ("select a from t where b = 1", "select a from t where b = 1 for update"),
    ("select case when a = 1 then 'x' end from t", "select case when a = 1 then 'y' end from t"),
)


@pytest.mark.parametrize(("one", "other"), SAME)
def test_statements_that_differ_in_values_alone_have_one_shape(one: str, other: str) -> None:
    assert shaped(one).key == shaped(other).key


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_whatever_else_differs_is_another_shape(one: str, other: str) -> None:
    assert shaped(one).key != shaped(other).key


@pytest.mark.parametrize(
    "sql",
    [
        "set role a",
        "do $$ begin end $$",
        "truncate t",
        "execute p(1)",
        "prepare p as delete from t where id = 1",
        "copy t to stdout",
        "explain delete from t where id = 1",
        "declare c cursor for select 1",
        "merge into t using s on t.id = s.id when matched then delete",
        "select 1 into x",
        "delete from t where id = 1; delete from t where id = 2",
        "with s as (select 1 as x) delete from t using s where s.x = 1",
        "delete from t using (select 1 as x) s where s.x = 1",
        "delete from t using generate_series(1, 2) g where g = 1",
        "update t set (a, b) = (1, 2)",
        "delete from t where current of c",
        "select a from t tablesample system (50) where a = 1",
        "delete from t where id = $1",
        "delete from t where id = ",
        "",
        f"delete from t where id = 1 -- {'x' * LONGEST}",
    ],
)
def test_what_is_no_plain_change_or_read_of_named_tables_has_no_shape(sql: str) -> None:
    assert pattern(sql, NONE) is None


def test_a_parameter_is_a_value_where_a_literal_would_be_and_else_belongs_to_the_shape() -> None:
    sql = "select a from t where b = $1 and c like $2 limit $2"
    first, second = shaped(sql, b"1", b"5", types=(23, 20)), shaped(sql, b"2", b"5", types=(23, 20))
    assert first.key == second.key
    assert first.values == ("$1: any value", "$2: 5, as it is")
    assert first.key != shaped(sql, b"1", b"6", types=(23, 20)).key
    assert first.key != shaped(sql, b"1", b"5", types=(25, 20)).key
    assert first.key != shaped(sql, None, b"5", types=(23, 20)).key
    assert first.key != shaped(sql, b"1", b"5", types=(23, 20), formats=(0, 1)).key
    twice = "select a from t where b = $1 and lower($1) = 'x'"
    assert shaped(twice, b"1").key != shaped(twice, b"2").key
    both = shaped("delete from t where a = $1 and b = 'x'", b"1")
    assert (both.text, both.values) == ("delete from t where a = $1 and b = $2", ("$1: any value", "$2: any text"))


POOLS = (
    ("0", "1", "7", "2147483647"),
    ("-1", "-7", "- 3"),
    ("1.5", "0.25", "1e3", "9" * 30),
    ("2147483648", "9223372036854775807"),
    ("'x'", "''", "'it''s'", "E'\\n'", "'%'", "$$q$$", "U&'\\0041'"),
    ("'5'::int8", "'6'::int8", "'t'::regclass"),
    ("date '2026-01-01'", "'{1}'::int[]", "b'1'", "null", "true", "N'n'"),
)
ANY = tuple(literal for pool in POOLS for literal in pool)
COLUMN = st.sampled_from(["a", "b", "t.a", "lower(a)", "a + 1", "(select 1)", "5", "{}"])
COMPARISON = st.sampled_from(["=", "<>", "<", ">=", "like", "||", "@>", "is distinct from"])
CONDITION = st.one_of(
    st.tuples(COLUMN, COMPARISON).map(lambda p: f"{p[0]} {p[1]} {{}}"),
    st.tuples(COMPARISON, COLUMN).map(lambda p: f"{{}} {p[0]} {p[1]}"),
    COLUMN.map(lambda column: f"{column} between {{}} and {{}}"),
    COLUMN.map(lambda column: f"{column} in ({{}}, a, {{}})"),
    COLUMN.map(lambda column: f"{column} = any (array[{{}}])"),
    COLUMN.map(lambda column: f"a in (select {{}} from s where {column} = {{}})"),
)
STATEMENT = st.one_of(
    st.tuples(CONDITION, CONDITION).map(lambda p: f"delete from t where {p[0]} and {p[1]}"),
    CONDITION.map(lambda condition: f"update t set a = {{}}, b = b || {{}} where {condition}"),
    st.just("insert into t values ({}, {}) on conflict (a) do update set b = {}"),
    CONDITION.map(lambda condition: f"select {{}} from t where {condition} limit {{}}"),
)
"""Statements without their literals."""


@st.composite
def alike(draw: st.DrawFn) -> tuple[str, str]:
    """Two statements, of which the second has other literals, mostly of the same kinds, or another word."""
    form = draw(STATEMENT)
    pools = [draw(st.sampled_from(POOLS)) for _ in range(form.count("{}"))]
    strange = draw(st.integers(0, 3)) == 0
    one = form.format(*(draw(st.sampled_from(pool)) for pool in pools))
    other = form.format(*(draw(st.sampled_from(ANY if strange else pool)) for pool in pools))
    if draw(st.integers(0, 3)) == 0:
        words = other.split(" ")
        words[draw(st.integers(0, len(words) - 1))] = draw(st.sampled_from([*ANY, *words]))
        other = " ".join(words)
    return one, other


def _differences(one: Any, other: Any, path: tuple[Any, ...], above: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Yield where two trees differ: the way there, and the nodes on it."""
    if isinstance(one, dict) and isinstance(other, dict) and (one.keys() == other.keys() or path[-1:] == ("ival",)):
        for key in one.keys() | other.keys():
            yield from _differences(one.get(key, 0), other.get(key, 0), (*path, key), (*above, one))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for at, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from _differences(left, right, (*path, at), (*above, one))
    elif one != other:
        yield path, above


def _is_value(path: tuple[Any, ...], above: tuple[Any, ...]) -> bool:
    """Say whether a difference is one between two values: by the tree, and not by the words."""
    at = max((index for index, key in enumerate(path) if key == "A_Const"), default=None)
    if at is None or path[at + 1] not in ("ival", "fval", "sval"):
        return False
    way = [key for key in path[:at] if not isinstance(key, int)]
    while way[-2:] == ["TypeCast", "arg"]:
        way = way[:-2]
    if way[-2:] == ["List", "items"]:
        way = way[:-2]
        if way[-1:] == ["valuesLists"]:
            return True
    if way[-3:] in (["targetList", "ResTarget", "val"],):
        return way[-4] in ("UpdateStmt", "onConflictClause")
    if way[-1:] not in (["rexpr"], ["lexpr"]):
        return False
    inside = max(index for index, key in enumerate(path[:at]) if key == way[-1])
    compares = above[inside]
    return "ColumnRef" in compares["lexpr" if way[-1] == "rexpr" else "rexpr"]


@given(alike())
def test_two_texts_of_one_shape_have_trees_that_differ_in_values_alone(texts: tuple[str, str]) -> None:
    one, other = texts
    first, second = pattern(one, NONE), pattern(other, NONE)
    if first is None or second is None or first.key != second.key:
        return
    left, right = (placeless(parse(text.encode())["stmts"]) for text in (one, other))
    assert all(_is_value(*found) for found in _differences(left, right, (), ()))


@given(alike())
def test_what_is_shown_of_a_shape_is_the_same_for_all_of_it(texts: tuple[str, str]) -> None:
    first, second = (pattern(text, NONE) for text in texts)
    if first is None or second is None:
        return
    if first.key == second.key:
        # Only spaces may differ, which mean nothing.
        assert first.values == second.values
        assert "".join(first.text.split()) == "".join(second.text.split())
    else:
        assert (first.text, first.values) != (second.text, second.values)
