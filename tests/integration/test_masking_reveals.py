"""Reveals and searches judged by two worlds: shown in clear, or compared, is what a rule lets and nothing else."""

from __future__ import annotations

import itertools

import pytest

from broker.sql.inspect import inspect
from broker.sql.model import Refusal
from tests.integration.masking_cases import FOUND, NEVER_REVEALED, NOT_SEARCHED, REVEALED, SEARCHED
from tests.integration.two_worlds import FIELDS, World, worlds

__all__ = ["worlds"]


@pytest.mark.parametrize("sql", [line.strip() for line in REVEALED])
def test_reveal_shows_its_own_output_in_clear_and_nothing_else(worlds: tuple[World, World], sql: str) -> None:
    left, right = worlds
    clear = [world.run(sql) for world in worlds]
    assert isinstance(clear[0], list), clear
    assert clear[0] != clear[1]
    assert left.reveal(sql) == right.reveal(sql)


@pytest.mark.parametrize("sql", [line.strip() for line in NEVER_REVEALED])
def test_reveal_is_refused_where_more_than_its_output_could_depend_on_it(worlds: tuple[World, World], sql: str) -> None:
    answers = {str(world.run(sql)) for world in worlds}
    assert len(answers) == 1
    assert "refused" in answers.pop()


def raw_ssn(world: World, id_: int) -> str:
    return str(world.server.execute(f"select ssn from customers where id = {id_}", "world")[0][0])


@pytest.mark.parametrize("sql", [line.strip() for line in FOUND])
def test_search_finds_the_rows_of_one_clear_value_and_shows_them_masked(worlds: tuple[World, World], sql: str) -> None:
    for world in worlds:
        there, absent = (inspect(sql.format(ssn=ssn), world.catalogue, SEARCHED) for ssn in (raw_ssn(world, 1), "none"))
        assert there.searches == (("public.customers.ssn", 10),)
        found, nothing = (world._rows(each.rewritten, world.connection) for each in (there, absent))
        by_id = sql
        for column, value in itertools.product(
            ("c.ssn", "(c.ssn)", "((ssn))", "ssn"), ("'{ssn}'", "('{ssn}')", "(('{ssn}'))")
        ):
            named = column.replace("ssn", "id")
            by_id = by_id.replace(f"{column} = {value}", f"{named} = 1").replace(f"{value} = {column}", f"{named} = 1")
        same = world.run(by_id)
        assert found == same
        assert found != nothing


@pytest.mark.parametrize("sql", [line.strip() for line in NOT_SEARCHED])
def test_what_is_no_plain_equality_still_compares_masked_values(worlds: tuple[World, World], sql: str) -> None:
    asked = sql.format(ssn=raw_ssn(worlds[0], 1))
    answers: list[object] = []
    for world in worlds:
        try:
            found = inspect(asked, world.catalogue, SEARCHED)
        except Refusal as refusal:
            answers.append(refusal.rule)
            continue
        assert found.searches == ()
        plain = inspect(asked, world.catalogue, FIELDS)
        assert found.rewritten == plain.rewritten
        answers.append(world.run(asked))
    assert answers[0] == answers[1]
