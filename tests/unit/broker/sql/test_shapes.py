"""Shapes: what was found of one text holds for every text of its shape, and no number that means more is marked."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.sql.inspect import inspect
from broker.sql.library import parse
from broker.sql.model import Refusal
from broker.sql.shapes import Template, only_compares, shape
from broker.sql.tree import placeless
from tests.unit.broker.sql.shop import CATALOGUE, FIELDS

LIKE = (
    "select id from orders where id = {}",
    "select id from orders where id={} or id<{} limit {} offset {};",
    "select count(*) from orders o join archive.orders a on a.id = o.id where o.id >= {} and a.id <> {}",
    "select * from (select id from orders where id = {}) x where x.id in (select id from orders where id > {})",
    "select id, id = {}, 'id = 7x' from orders -- why\n where\tid = {} fetch first {} rows only",
    "with x as (select id from orders where id = {}) select id from x where id = {} union select {}",
    "select * from customers where id = {}",
    "select *, c.id = {}, public.customers.ssn from customers where customers.id = {} and id <{} limit {};",
    "select c.ssn, to_json(c), c from public.customers c join customers d on c.id = d.id where d.id = {}\n offset {} ",
    "select upper(ssn) from customers where id = {} or exists (select from customers c where c.id = {}) limit {}",
)
NUMBERS = st.lists(st.integers(0, 999_999_999) | st.sampled_from([0, 1, 999_999_999]), min_size=4, max_size=4)


@given(st.sampled_from(LIKE), NUMBERS, NUMBERS)
def test_texts_of_one_shape_are_found_to_be_the_same_but_for_their_text(
    form: str, first: list[int], second: list[int]
) -> None:
    one, other = form.format(*first), form.format(*second)
    assert shape(one) == shape(other)
    if not only_compares(one):
        assert not only_compares(other)
        return
    known, found = inspect(one, CATALOGUE, FIELDS), inspect(other, CATALOGUE, FIELDS)
    template = Template.of(one, known.rewritten, known.edits)
    assert template is not None
    rewritten, edits = template.fit(other)
    assert replace(known, rewritten=rewritten, edits=edits) == found


def test_a_number_beside_what_was_written_anew_makes_no_template() -> None:
    sql = "select id from orders where id = 5"
    for runs in (((0, 0, 33), (33, 33, 2)), ((0, 0, 34), (34, 34, 1)), ((0, 0, 33), (40, 33, 0), (47, 34, 1))):
        assert Template.of(sql, sql, runs) is None


FRAGMENTS = st.lists(
    st.sampled_from(
        [
            *("select", "id", "from", "orders", "where", "and", "=", "<", "<>", "in", "(", ")", ",", ";", "limit"),
            *(
                "5",
                "17",
                "$1",
                "'",
                '"',
                "$$",
                "--",
                "/*",
                "*/",
                "\n",
                "e'",
                "\\",
                "::",
                "varchar",
                "interval",
                "x",
                ".",
            ),
            *("order by", "group by", "between", "-", "offset", "id = 5", "where id = 7", "array[", "]", "case", "end"),
        ]
    ),
    max_size=14,
)


@given(FRAGMENTS, st.sampled_from([" ", " ", ""]), st.integers(0, 999_999_999))
def test_other_numbers_in_the_marked_places_leave_the_tree_the_same(parts: list[str], glue: str, number: int) -> None:
    sql = f"select id from orders where id = 3 and {glue.join(parts)}"
    marked = shape(sql)
    assert marked is not None
    try:
        if not only_compares(sql):
            return
    except Refusal:
        return
    other = marked.replace("\0", str(number))
    assert shape(other) == marked
    assert only_compares(other)
    assert _without_numbers(sql) == _without_numbers(other)


def _without_numbers(sql: str) -> str:
    tree = str(placeless(parse(sql.encode())["stmts"]))
    return re.sub(r"\{'ival': \{('ival': \d+)?\}", "{'ival'", tree)


@pytest.mark.parametrize(
    "sql",
    [
        "select 5",
        "select id from orders order by 1",
        "select id from orders where 5 = id",
        "select id::varchar(5) from orders where id = 3",
        "select 'id = 5 x' from orders where id = 3",
        "select $$ id = 5 $$ from orders where id = 3",
        "/* id = 5 */ select id from orders where id = 3",
        "select id from orders where id in (1, 2)",
        "select id from orders where id between 1 and 5",
        "select generate_series( 1 , 5 )",
        "select set_config('work_mem', 'x' , id = 3 ) from orders where id = 3 or 5 < 6",
        "select id from orders tablesample system ( 5 ) where id = 3",
        "update orders set id = 5 where id = 3",
        "delete from orders where id = 3",
        "select id from orders where id = 3; select id from orders where id = 4",
        "set work_mem = 5",
        "prepare p as select id from orders where id = 5",
        "explain select id from orders where id = 5",
    ],
)
def test_numbers_that_could_mean_more_make_no_shape(sql: str) -> None:
    assert shape(sql) is None or not only_compares(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "select id from orders where id = -5",
        "select id from orders where id = 5.0",
        "select id from orders where id = 1234567890",
        "select id from orders where id = $1",
        "select id from orders where name = 'é' and id = 5",
        "select id from orders where id = 5\0",
        "select id5 from orders",
        f"select id from orders where id = 5 {' ' * 5000}",
    ],
)
def test_what_is_not_plainly_a_short_number_is_not_marked(sql: str) -> None:
    assert shape(sql) is None
