"""What EXPLAIN may show where something is masked: no hidden literal, no count that follows a masked field."""

from __future__ import annotations

import pytest

from broker.sql.inspect import inspect
from broker.sql.model import Refusal, Terms
from tests.integration.two_worlds import FIELDS, World, worlds

__all__ = ["worlds"]

SHOWN = [
    "explain select id, note, amount from tiers where id = 5",
    "explain select * from tiers order by note",
    "explain select note, count(*) from tiers group by note",
    "explain select * from tiers t where t.kind = 'kind1'",
    "explain select * from tiers join orders using (id)",
    "explain select * from tiers t join orders o on o.id = t.at where t.kind = 'kind1'",
    "explain select * from tiers where id in (select customer_id from orders)",
    "explain update tiers set note = 'x' where id = 5",
    "explain analyze select count(*) from steps",
    "explain analyze select id from customers where id = 5",
    "explain analyze select grp from steps where grp = 5",
]
REFUSED = [
    "explain select * from tiers where amount > 2990",
    "explain select id from tiers where note = 'zzz'",
    "explain select id from tiers where kind = 'kind2'",
    "explain select id from tiers where kind = 'kind1' and note = 'zzz'",
    "explain select id from (select * from tiers) t where at = 3",
    "explain select 1 from tiers t where t = row(1, '', 2, '', 3)",
    "explain select * from tiers natural join hubs",
    "explain update tiers set at = 1 where amount = 3000",
    "explain select padded(1)",
]


@pytest.mark.parametrize("sql", SHOWN)
def test_a_plan_shows_what_its_statement_says_itself(worlds: tuple[World, World], sql: str) -> None:
    left, right = (world.write(sql) for world in worlds)
    assert isinstance(left, list)
    assert repr(left).replace("rows=0.00", "") == repr(right).replace("rows=0.00", "")


@pytest.mark.parametrize("sql", REFUSED)
def test_no_plan_shows_the_condition_of_an_index_or_a_default(worlds: tuple[World, World], sql: str) -> None:
    with pytest.raises(Refusal, match=r"the condition of an index|would show its definition") as raised:
        inspect(sql, worlds[0].catalogue, FIELDS)
    assert raised.value.rule == "explain"
    inspect(sql, worlds[0].catalogue, {}, terms=Terms(covers=("*.*",)))


def test_no_count_of_searches_tells_how_many_values_a_field_has(worlds: tuple[World, World]) -> None:
    sql = "explain analyze select grp from steps where id = 5"
    answers = [world.run(sql) for world in worlds]
    assert answers[0] == answers[1]
    assert (answers[0] == ("refused", "explain")) == (worlds[0].server.major >= 18)
