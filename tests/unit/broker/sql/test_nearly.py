"""A mistyped relation: the nearest that may be read is named, and no other ever is."""

from __future__ import annotations

import pytest

from broker.sql.inspect import inspect
from broker.sql.model import Refusal, Terms
from tests.unit.broker.sql.shop import CATALOGUE, FIELDS

COVERS = ("public.customers", "public.orders", "public.orders_2024", "archive.orders", "public.secrets")


def hint(sql: str, covers: tuple[str, ...] = COVERS, but: tuple[str, ...] = ()) -> str | None:
    with pytest.raises(Refusal) as refused:
        inspect(sql, CATALOGUE, FIELDS, terms=Terms(covers=covers, but=but))
    assert refused.value.rule == "relation-unknown"
    return refused.value.hint


@pytest.mark.parametrize(
    ("named", "meant"),
    [
        ("custmers", "customers"),
        ("customer", "customers"),
        ("cutsomers", "customers"),
        ('"Customers"', "customers"),
        ("public.ordesr", "public.orders"),
        ("archive.orders_2024", "public.orders_2024"),
        ("nowhere.customers", "public.customers"),
        ("orders_2023", "orders_2024"),
    ],
)
def test_mistyped_name_is_answered_with_the_nearest(named: str, meant: str) -> None:
    assert hint(f"select 1 from {named}") == f"did you mean {meant}?"
    assert hint(f"delete from {named}") == f"did you mean {meant}?"


@pytest.mark.parametrize("named", ["nothing", "costumres", "odrer", "archive.customerz", "x", "pg_clas"])
def test_what_is_not_near_has_no_hint(named: str) -> None:
    assert hint(f"select 1 from {named}") is None


def test_what_may_not_be_read_is_never_named() -> None:
    assert hint("select 1 from custmers", covers=("public.orders",)) is None
    assert hint("select 1 from custmers", covers=()) is None
    assert hint("select 1 from custmers", but=("public.customers",)) is None
    assert hint("select 1 from peopl", covers=COVERS) is None
    # Row security, so that nobody reads it through the broker.
    assert hint("select 1 from secrts") is None
    # The nearest of those that may be read, not of all.
    assert hint("select 1 from public.orders_202", covers=("public.orders_2024",)) == "did you mean public.orders_2024?"
    assert hint("select 1 from order_2024", covers=("public.orders",)) is None
