"""What a statement is about: it stays the same while that does, and nothing else counts."""

from dataclasses import replace

import pytest

from broker.sql.catalogue import Catalogue, Referrer
from broker.sql.inspect import inspect
from broker.sql.meaning import changed
from broker.sql.model import Terms
from tests.unit.broker.sql.shop import CATALOGUE


def with_relation(name: str, **change: object) -> Catalogue:
    """The catalogue with one relation that has changed."""
    before = CATALOGUE.by_name[name]
    after = replace(before, **change)  # type: ignore[arg-type]  # any field of it
    return replace(
        CATALOGUE,
        version=f"{name}{change}",
        by_oid={**CATALOGUE.by_oid, before.oid: after},
        relations={**CATALOGUE.relations, (before.schema, before.name): after},
        by_name={**CATALOGUE.by_name, name: after},
        stamps={},
    )


def test_what_foreign_keys_have_follow_counts_too() -> None:
    key = Referrer(16406, "c", "a", frozenset({1}), frozenset({1}))
    parent = with_relation("public.orders", referrers=(key,))
    child = replace(parent.by_name["public.people"], made="another trigger")
    later = replace(
        parent, by_oid={**parent.by_oid, 16406: child}, by_name={**parent.by_name, "public.people": child}, stamps={}
    )
    for sql, named in (("delete from orders where id = 1", "public.people"), ("select * from orders", "")):
        before, after = (inspect(sql, one, {}, terms=Terms(covers=("*.*",))).means for one in (parent, later))
        assert changed(before, after) == named


@pytest.mark.parametrize(
    "sql", ["select * from orders", "delete from orders where id = 1", "alter table orders add x int"]
)
def test_a_relation_that_a_statement_names_counts_with_all_that_is_told_of_it(sql: str) -> None:
    def means(catalogue: Catalogue) -> tuple[tuple[str, str], ...]:
        return inspect(sql, catalogue, {}, terms=Terms(covers=("*.*",))).means

    before, orders = means(CATALOGUE), CATALOGUE.by_name["public.orders"]
    assert [name for name, _ in before] == ["public.orders"]
    for change in ({"oid": 77}, {"columns": orders.columns[1:]}, {"made": "another trigger"}, {"row_security": True}):
        assert changed(before, means(with_relation("public.orders", **change))) == "public.orders", change
    assert changed(before, means(with_relation("public.customers", made="x"))) == ""
    assert changed(before, means(CATALOGUE.under(("public",)))) == ""


def test_what_stands_behind_a_view_counts_and_what_is_not_known_does_when_it_comes() -> None:
    sql = "select * from nothing"
    unknown = inspect(sql, CATALOGUE, {}, terms=Terms(covers=("*.*",))).means
    assert unknown == (("public.nothing", "unknown"),)
    temporary = inspect("delete from pg_temp.nothing", CATALOGUE, {}, terms=Terms(covers=("*.*",))).means
    assert temporary == (("pg_temp.nothing", "unknown"),)
    orders = CATALOGUE.by_name["public.orders"]
    come = replace(CATALOGUE, by_name={**CATALOGUE.by_name, "public.nothing": orders}, version="v", stamps={})
    assert changed(unknown, inspect(sql, come, {}, terms=Terms(covers=("*.*",))).means) == "public.nothing"
    assert changed((), unknown) == "public.nothing"


def test_code_that_a_statement_does_not_name_counts_as_all_of_users() -> None:
    """An operator, a cast or a type runs a function that its name does not say."""

    def means(catalogue: Catalogue) -> tuple[tuple[str, str], ...]:
        sql = "select * from orders order by id using operator(public.<+>)"
        return inspect(sql, catalogue, {}, terms=Terms(covers=("*.*",))).means

    before = means(CATALOGUE)
    assert [name for name, _ in before] == ["public.orders", "users' code"]
    name = next(iter(CATALOGUE.definitions))
    after = replace(CATALOGUE, definitions={**CATALOGUE.definitions, name: "another body"}, version="v")
    assert changed(before, means(after)) == "users' code"


def test_a_function_of_users_counts_by_its_definition() -> None:
    calls = sorted(map(str, inspect("select spent(1)", CATALOGUE, {}).statements[0].facts.calls))
    before = inspect("select spent(1)", CATALOGUE, {}).means
    assert [name for name, _ in before] == calls
    after = replace(CATALOGUE, definitions={**CATALOGUE.definitions, calls[0]: "another body"}, version="v")
    assert changed(before, inspect("select spent(1)", after, {}).means) == calls[0]
