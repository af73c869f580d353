"""The policy engine: answers with reasons, deny beats ask beats allow, and files that say where they are wrong."""

from __future__ import annotations

from datetime import timedelta

import pytest

from policies.engine.cases import failure, load_cases
from policies.engine.decide import decide_access, decide_statement, field_view, may_ask
from policies.engine.decisions import (
    HIDE,
    Allow,
    Ask,
    Bound,
    Decision,
    Deny,
    Effect,
    MaskKind,
    Need,
    Requirement,
    StatementFacts,
    combine,
)
from policies.engine.load import PolicyUnreadable, load
from policies.engine.problems import warnings
from tests.unit.policies.small import POLICIES, policy

HALF_HOUR = timedelta(minutes=30)


def test_the_shipped_policy_answers_as_its_cases_say() -> None:
    shipped = load(POLICIES)
    failures = {case.name: failure(shipped, case) for case in load_cases(POLICIES / "cases")}
    assert {name: text for name, text in failures.items() if text} == {}
    assert len(failures) >= 15


def test_what_no_rule_speaks_of_is_denied() -> None:
    decision = decide_access(policy(), "ann", "db", "read", HALF_HOUR)
    assert isinstance(decision, Deny)
    facts = StatementFacts("SELECT", frozenset({Effect.READ}))
    assert isinstance(decide_statement(policy(), "ann", "db", "read", facts), Deny)


def test_deny_beats_ask_beats_allow_in_any_order() -> None:
    allow, deny = Allow(("a",)), Deny("no", ("d",))
    ask = Ask(Requirement((Need(1, ("ops",)),)), ("q",))
    orders: list[tuple[list[Decision], type[Decision]]] = [
        ([allow, ask, deny], Deny),
        ([deny, ask, allow], Deny),
        ([ask, allow], Ask),
        ([allow, allow], Allow),
        ([], Deny),
    ]
    for decisions, expected in orders:
        assert isinstance(combine(decisions), expected)


def test_two_asks_demand_what_either_demands() -> None:
    one, two = Requirement((Need(1, ("ops",)),)), Requirement((Need(2, ("ops",)), Need(1, ("sec",))))
    decision = combine([Ask(one, ("a",)), Ask(two, ("b",))])
    assert isinstance(decision, Ask)
    assert str(decision.requirement) == "2 of ops and 1 of sec"
    assert decision.rules == ("a", "b")


def test_inactive_and_unknown_people_get_nothing() -> None:
    rules = "access: [{id: all, decision: allow}]\nstatements: [{id: any, decision: allow}]"
    facts = StatementFacts("SELECT", frozenset({Effect.READ}))
    for person in ("gone", "nobody", ""):
        assert isinstance(decide_access(policy(rules), person, "db", "read", HALF_HOUR), Deny)
        assert isinstance(decide_statement(policy(rules), person, "db", "read", facts), Deny)
        assert may_ask(policy(rules), person) == []


def test_every_effect_needs_a_rule_of_its_own() -> None:
    rules = "statements: [{id: reads, decision: allow, effects: [read]}]"
    both = StatementFacts("UPDATE", frozenset({Effect.READ, Effect.WRITE}), writes=frozenset({"public.t"}))
    decision = decide_statement(policy(rules), "ann", "db", "read", both)
    assert isinstance(decision, Deny)
    assert decision.rules == ("default-write",)


def test_a_deny_that_touches_any_relation_wins() -> None:
    rules = """
statements:
  - {id: reads, decision: allow, effects: [read]}
  - {id: closed, decision: deny, relations: [public.wages], message: wages are closed, hint: ask HR}
"""
    facts = StatementFacts("SELECT", frozenset({Effect.READ}), reads=frozenset({"public.wages", "public.t"}))
    assert decide_statement(policy(rules), "ann", "db", "read", facts) == Deny(
        "wages are closed", ("closed",), "ask HR"
    )


def test_what_is_said_of_a_table_holds_behind_a_view_and_its_coverage_does_not() -> None:
    rules = """
statements:
  - {id: reads, decision: allow, effects: [read]}
  - {id: closed, decision: deny, relations: [hidden.wages]}
  - {id: asked, decision: ask, relations: [hidden.cards], reviewers: {count: 1, groups: [ops]}}
"""

    def decided(*through: str) -> Decision:
        facts = StatementFacts("SELECT", frozenset({Effect.READ}), frozenset({"public.v"}), through=frozenset(through))
        return decide_statement(policy(rules), "ann", "db", "read", facts)

    assert decided("hidden.wages", "hidden.other").rules == ("closed",)
    assert isinstance(decided("hidden.cards"), Ask)
    assert decided("hidden.other") == Allow(("reads",))


def test_what_foreign_keys_have_follow_is_under_the_rules_that_deny_or_ask_about_writing_it() -> None:
    rules = """
statements:
  - {id: writes, decision: allow, effects: [read, write], relations: [public.orders, public.stock]}
  - {id: kept, decision: deny, effects: [write], relations: [public.ledger]}
  - {id: unread, decision: deny, effects: [read], relations: [public.lines]}
  - {id: asked, decision: ask, effects: [write], relations: [public.cards], reviewers: {count: 1, groups: [ops]}}
"""

    def decided(*reaches: str, writes: str = "public.orders") -> Decision:
        effects, written = frozenset({Effect.READ, Effect.WRITE}), frozenset({writes})
        facts = StatementFacts("DELETE", effects, writes=written, follows=frozenset(f"DELETE {one}" for one in reaches))
        return decide_statement(policy(rules), "ann", "db", "read", facts)

    assert decided("public.lines", "public.other") == Allow(("writes",))
    assert decided("public.lines", "public.ledger").rules == ("kept",)
    assert isinstance(decided("public.cards"), Ask)
    # What asks about them lets nothing pass that no rule lets.
    assert isinstance(decided("public.cards", writes="public.prices"), Deny)


def test_what_foreign_keys_do_is_a_verb_to_rules_about_the_relations_that_they_do_it_to() -> None:
    def decided(rule: str, *follows: str) -> Decision:
        effects, written = frozenset({Effect.READ, Effect.WRITE}), frozenset({"public.orders"})
        facts = StatementFacts("DELETE", effects, writes=written, follows=frozenset(follows))
        writes = "{id: writes, decision: allow, effects: [read, write], relations: [public.orders]}"
        rules = f"statements:\n  - {writes}\n  - {{id: rule, {rule}}}\n"
        return decide_statement(policy(rules), "ann", "db", "read", facts)

    deny = "decision: deny, relations: [public.ledger], verbs: [UPDATE]"
    assert isinstance(decided(deny, "UPDATE public.ledger"), Deny)
    assert isinstance(decided(deny, "DELETE public.ledger", "UPDATE public.lines"), Allow)
    # Without relations a rule's verbs are those that were written.
    assert isinstance(decided("decision: deny, verbs: [UPDATE]", "UPDATE public.ledger"), Allow)
    ask = "decision: ask, relations: [public.ledger], verbs: [UPDATE], reviewers: {count: 1, groups: [ops]}"
    assert isinstance(decided(ask, "UPDATE public.ledger"), Ask)
    assert isinstance(decided(ask, "DELETE public.ledger"), Allow)


def test_rows_of_a_view_are_shown_where_a_rule_says_so_with_a_warning() -> None:
    rules = "fields: [{id: f, resource: db, relation: public.v, clear: [id], rows: clear}]"
    assert field_view(policy(rules), "ann", "db")["public.v"].rows
    assert any("rows: clear" in warning for warning in warnings(policy(rules)))
    assert not field_view(policy(rules.replace(", rows: clear", "")), "ann", "db")["public.v"].rows


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("{mask: keys}", "`show` goes with"),
        ("{mask: hide, show: [a]}", "`show` goes with"),
        ("{mask: keys, show: [a, a.b]}", "`a` is shown twice"),
        ("{mask: keys, show: [a.*, a.b]}", "`a` is shown twice"),
        ("{mask: keys, show: [b, b]}", "`b` is shown twice"),
        ("{mask: keys, show: [tags.0.name]}", "`0` is a number"),
        ("{mask: keys, show: ['a.*.b']}", "masks.doc.show"),
        ("{mask: keys, show: ['']}", "masks.doc.show"),
    ],
)
def test_paths_into_a_document_are_keys_that_are_shown_once(spec: str, said: str) -> None:
    with pytest.raises(PolicyUnreadable) as unread:
        policy(f"fields: [{{id: f, resource: db, relation: public.t, masks: {{doc: {spec}}}}}]")
    assert said in str(unread.value)


def test_shown_paths_of_a_document_are_part_of_its_mask() -> None:
    rules = "fields: [{id: f, resource: db, relation: public.t, masks: {doc: {mask: keys, show: [name, a.b, c.*]}}}]"
    mask = field_view(policy(rules), "ann", "db")["public.t"].mask_of("doc")
    assert mask is not None
    assert (mask.kind, mask.show) == (MaskKind.KEYS, ("name", "a.b", "c.*"))


def test_statements_without_effects_pass_unless_denied() -> None:
    begin = StatementFacts("BEGIN", frozenset())
    assert isinstance(decide_statement(policy(), "ann", "db", "read", begin), Allow)
    closed = policy("statements: [{id: none, decision: deny, message: closed}]")
    assert isinstance(decide_statement(closed, "ann", "db", "read", begin), Deny)


def test_whitelists_of_groups_add_up_and_the_rest_is_hidden() -> None:
    rules = """
fields:
  - {id: base, resource: db, relation: public.t, clear: [id], masks: {ssn: {mask: partial, tail: 2}}}
  - {id: ops, resource: db, relation: public.t, groups: [ops], clear: [ssn]}
  - {id: only-ops, resource: db, relation: public.u, groups: [ops], others: clear}
"""
    ann, ola = (field_view(policy(rules), person, "db") for person in ("ann", "ola"))
    assert ann["public.t"].mask_of("id") is None
    assert (mask := ann["public.t"].mask_of("ssn")) is not None
    assert (mask.kind, mask.tail) == (MaskKind.PARTIAL, 2)
    assert ann["public.t"].mask_of("new") == HIDE
    assert ola["public.t"].mask_of("ssn") is None
    assert ola["public.u"].mask_of("anything") is None
    assert ann["public.u"].mask_of("anything") == HIDE


def test_others_clear_is_warned_of() -> None:
    rules = "fields: [{id: f, resource: db, relation: public.t, others: clear}]"
    assert any("others: clear" in warning for warning in warnings(policy(rules)))


def test_the_narrowest_bound_of_the_rules_that_let_a_change_run_holds() -> None:
    rules = policy(
        "statements:\n"
        "  - {id: reads, decision: allow, effects: [read]}\n"
        "  - {id: wide, decision: allow, effects: [write], max_rows: 100}\n"
        "  - {id: narrow, decision: ask, effects: [write], reviewers: {groups: [ops]}, max_rows: 200, rows_factor: 3}\n"
    )
    facts = StatementFacts("UPDATE", frozenset({Effect.READ, Effect.WRITE}), writes=frozenset({"public.t"}))
    decision = decide_statement(rules, "ann", "db", "read", facts)
    assert isinstance(decision, Ask)
    assert decision.bound == Bound(100, 3.0)
    reading = decide_statement(rules, "ann", "db", "read", StatementFacts("SELECT", frozenset({Effect.READ})))
    assert reading == Allow(("reads",))


@pytest.mark.parametrize(
    ("bound", "expected", "most"),
    [(Bound(10), 3, 10), (Bound(10, 2), None, 10), (Bound(10, 2), 3, 6), (Bound(10, 2), 30, 10), (Bound(10, 2), 0, 1)],
)
def test_bound_follows_what_was_expected_up_to_its_most(bound: Bound, expected: int | None, most: int) -> None:
    assert bound.rows(expected) == most


REVEALING = """
fields:
  - {id: shown, resource: db, relation: public.t, groups: [ops], clear: [id, a]}
  - {id: t, resource: db, relation: public.t, clear: [id],
     masks: {a: {mask: partial, reveal: ask, reviewers: {groups: [ops]}}, b: hide}}
statements: [{id: reads, decision: allow, effects: [read]}]
"""


@pytest.mark.parametrize(
    ("person", "field", "expected"),
    [
        ("ann", "a", Ask(Requirement((Need(1, ("ops",)),)), ("t",))),
        ("ann", "b", None),
        ("ann", "c", None),
        ("ann", "id", None),
        ("ola", "a", None),
    ],
)
def test_masked_field_is_revealed_only_where_its_own_rule_names_who_must_agree(
    person: str, field: str, expected: Decision | None
) -> None:
    reveals = frozenset({f"public.t.{field}"})
    facts = StatementFacts("SELECT", frozenset({Effect.READ}), reads=frozenset({"public.t"}), reveals=reveals)
    decision = decide_statement(policy(REVEALING), person, "db", "read", facts)
    if expected is None:
        assert isinstance(decision, Deny)
        assert "not revealed to anybody" in decision.message
    else:
        assert isinstance(decision, Ask)
        assert decision.requirement == expected.requirement
        assert "t" in decision.rules


def test_field_is_searched_as_the_rule_that_masks_it_says() -> None:
    rules = policy(
        "fields:\n"
        "  - {id: ops, resource: db, relation: public.t, groups: [ops], clear: [a]}\n"
        "  - {id: t, resource: db, relation: public.t, clear: [id],\n"
        "     masks: {a: {mask: hide, search: equality, searches_per_hour: 3},\n"
        "             b: {mask: hide, search: equality}, c: hide}}\n"
    )
    assert field_view(rules, "ann", "db")["public.t"].searches == {"a": 3, "b": 10}
    assert field_view(rules, "ola", "db")["public.t"].searches == {"b": 10}
    with pytest.raises(PolicyUnreadable):
        policy("fields: [{id: f, resource: db, relation: public.t, masks: {a: {mask: hide, searches_per_hour: 3}}}]")
