"""What a card says beside a held statement's text, however long that is, and of what could be overlooked in it."""

from __future__ import annotations

import json

import pytest

from bot.hold_card import hold_card
from bot.statement_text import PARAMETERS_SHOWN, TEXT_SHOWN
from policies.engine.decisions import Need, Requirement
from tests.unit.bot.test_cards import valid
from tests.unit.bot.test_hold_card import facts, hold, view
from workflows.wire import EstimateView, SizedRelation

LABELS = ("What it does", "Reveals", "Estimate", "Size", "Cascade", "Triggers", "May touch", "Waits until")


def test_no_statement_is_so_long_that_what_it_reveals_or_changes_is_left_out() -> None:
    found = EstimateView(
        relations=[SizedRelation(name=f"{'&' * 79}{n}", rows=10**9, bytes=10**12) for n in range(9)],
        rows=10**9,
        locks=["&" * 120] * 9,
        cascades=["&" * 160] * 9,
        triggers=["&" * 160] * 9,
    )
    shown = view(
        f"{'x' * (TEXT_SHOWN - 40)}\u0430\u0431\u0432\u0433\u0434\u202e",
        parameters=["y" * (PARAMETERS_SHOWN - 8)],
        in_transaction=True,
        reveals=[f"public.{'&' * 90}.{n}" for n in range(20)],
        effects=["write"],
        estimate=found,
        most=7,
    )
    held = hold(
        relations=tuple(f"{'&' * 79}{n}" for n in range(30)),
        requirement=Requirement(tuple(Need(n + 1, ("dbas", "security")) for n in range(9))),
        note="n" * 300,
    )
    payload = valid(hold_card(facts(shown, held)))
    labels = [field["text"].split("\n")[0] for block in payload["blocks"] for field in block.get("fields", ())]
    assert labels == [f"*{name}*" for name in LABELS]


@pytest.mark.parametrize(
    ("text", "values", "wide"),
    [
        (f"delete from orders where id = 4{' ' * 400}or true", [], True),
        ("delete from orders where id = 4" + "\t \n" * 12 + "or true", [], True),
        ("delete from orders where name = $1", ["a" + "\u00a0" * 200 + "b"], True),
        ("delete from orders\n\n\n" + " " * 60 + "where id = 4" + " " * 400 + "\n" * 20, [], False),
    ],
)
def test_what_stands_behind_a_wide_gap_is_not_overlooked(text: str, values: list[str], wide: bool) -> None:
    shown = json.dumps(valid(hold_card(facts(view(text, parameters=values)))))
    assert ("it has wide gaps, and what stands behind them counts too" in shown) is wide
