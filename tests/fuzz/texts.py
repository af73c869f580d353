"""Texts of SQL to inspect: random statements, the corpus's with words moved about, and words in any order."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path

from hypothesis import strategies as st

from tests.integration.sql_grammar import Grammar, mutant

_CORPUS = Path(__file__).parents[1] / "corpus"

CANARY = "731canary946"
_LITERALS = (
    f"'{CANARY}'",
    f"E'\\'{CANARY}'",
    f"U&'{CANARY}'",
    f"$${CANARY}$$",
    f"$q${CANARY}$q$",
    f"/* {CANARY} */",
    f"/* /* */ {CANARY} */",
    f"-- {CANARY}\n",
    f"'a'\n'{CANARY}'",
    f"N'{CANARY}'",
)
_WORDS = (
    *"select from where customers orders staff ssn name id * ( ) , . ; = < + - || :: [ ] $1 as with c o on".split(),
    *"update insert into delete set values returning join lateral union all exists case when then end null row".split(),
    *"explain analyze copy to stdout stdin declare cursor for fetch prepare execute begin commit only table".split(),
    *"public . customers pg_catalog . pg_class pg_statistic secrets order by group limit distinct over".split(),
    *"upper count pg_sleep set_config current_setting pg_get_viewdef total_of row_to_json c.ssn (c).ssn c.*".split(),
    *"'x' 1 2.5 $$a$$ E'\\'' U&\"\\0073sn\" \"ssn\" /*/**/*/ --\n 'a'\n'b' $a$ b'1' :: text int".split(" "),
)


@cache
def _corpus() -> list[str]:
    cases = [json.loads(line) for line in (_CORPUS / "postgres.jsonl").read_text().splitlines()]
    texts = [op[1] if op[0] == "Q" else op[2] for case in cases for op in case["ops"] if op[0] in "QP"]
    return texts + (_CORPUS / "masking.sql").read_text().splitlines()


def _random(seed: int) -> str:
    chance = random.Random(seed)
    if chance.random() < 0.5:
        return Grammar(seed).statement()
    return mutant(_corpus(), chance)


SEEDED = st.integers(0, 2**40).map(_random)
LOOSE = st.lists(st.sampled_from(_WORDS), max_size=25).map(" ".join)
ANY = st.text(max_size=60)
STATEMENTS = SEEDED | LOOSE | ANY | st.tuples(LOOSE, ANY).map(" ".join)
SECRETIVE = st.lists(st.sampled_from(_WORDS + _LITERALS * 6), min_size=1, max_size=20).map(" ".join)
"""Texts in which the canary stands in literals and comments only."""
