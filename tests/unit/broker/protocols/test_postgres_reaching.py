"""What a text may make happen to the relations it writes, for the question of what follows from it."""

import pytest

from broker.protocols.postgres.reaching import MOST, events_of, trigger_words
from broker.sql.model import Statement
from policies.engine.decisions import Effect, StatementFacts


@pytest.mark.parametrize(
    ("verb", "text", "events"),
    [
        ("DELETE", "delete from t", "d"),
        ("UPDATE", "update t set a = ?", "u"),
        ("INSERT", "insert into t values (?)", "i"),
        ("INSERT", "insert into t values (?) ON CONFLICT (id) do update set a = ?", "iu"),
        ("MERGE", "merge into t", "diu"),
        ("SELECT", "with gone as (delete from t) select ?", "diu"),
    ],
)
def test_verb_says_what_may_happen_and_what_does_not_say_may_be_anything(verb: str, text: str, events: str) -> None:
    writes = Statement(StatementFacts(verb, frozenset({Effect.WRITE})), text)
    reads = Statement(StatementFacts("DELETE", frozenset({Effect.READ})), text)
    assert "".join(events_of([writes])) == events
    assert events_of([reads]) == ()


def test_long_list_of_triggers_is_cut_and_counted() -> None:
    row = {"relation": "public.t", "name": "x", "event": "d", "function": "public.f", "deferrable": False}
    words = trigger_words([row] * (MOST + 3))
    assert len(words) == MOST + 1
    assert words[-1] == "and 3 more"
