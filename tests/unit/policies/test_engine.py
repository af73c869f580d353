"""The policy engine: answers with reasons, deny beats ask beats allow, and files that say where they are wrong."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from policies.engine.load import PolicyUnreadable, load, read_texts
from policies.engine.model import Policy
from policies.engine.problems import warnings

POLICIES = Path(__file__).parents[3] / "policies"
HALF_HOUR = timedelta(minutes=30)

SMALL = """
resources:
  db:
    protocol: postgres
    upstream: {host: h, port: 5432, database: d}
    roles:
      read: {credential: "file:x", relations: ["public.*"]}
groups: {devs: "", ops: ""}
people:
  ann: {name: Ann, groups: [devs]}
  ola: {name: Ola, groups: [ops]}
  gone: {name: Gone, groups: [devs], active: false}
"""


BOMB = "\n".join(
    ["a0: &a0 [" + ", ".join("1" * 10) + "]"]
    + [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 10) + "]" for n in range(1, 8)]
)
"""A few lines of aliases that stand for a hundred million values."""


@cache
def policy(extra: str = "") -> Policy:
    return read_texts({"small.yaml": SMALL, "extra.yaml": extra})


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
        facts = StatementFacts("DELETE", effects, writes=written, reaches=frozenset(reaches))
        return decide_statement(policy(rules), "ann", "db", "read", facts)

    assert decided("public.lines", "public.other") == Allow(("writes",))
    assert decided("public.lines", "public.ledger").rules == ("kept",)
    assert isinstance(decided("public.cards"), Ask)
    # What asks about them lets nothing pass that no rule lets.
    assert isinstance(decided("public.cards", writes="public.prices"), Deny)


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


def test_sessions_with_roles_of_their_own_need_who_makes_them() -> None:
    ephemeral = SMALL.replace('read: {credential: "file:x"', 'read: {identity: ephemeral, credential: "file:x"')
    with pytest.raises(PolicyUnreadable, match="an ephemeral role needs a `provisioner` on its resource"):
        read_texts({"small.yaml": ephemeral})
    named = ephemeral.replace("    roles:", '    provisioner: "file:{}"\n    roles:')
    with pytest.raises(PolicyUnreadable, match="it is the provisioner's"):
        read_texts({"small.yaml": named.replace("{}", "x")})
    good = named.replace("{}", "m")
    assert read_texts({"small.yaml": good}).resources["db"].roles["read"].identity == "ephemeral"
    with pytest.raises(PolicyUnreadable, match="cannot be ahead of it"):
        read_texts({"small.yaml": good.replace("identity: ephemeral", "identity: ephemeral, spares: 1")})


def test_resource_that_the_doctor_would_take_for_slack_is_warned_of() -> None:
    made = policy()
    named = made.model_copy(update={"resources": {"slack": next(iter(made.resources.values()))}})
    assert any("doctor slack" in warning for warning in warnings(named))
    assert not any("doctor slack" in warning for warning in warnings(made))


@pytest.mark.parametrize(
    ("extra", "where", "what"),
    [
        ("access:\n  - {id: a, decision: ask}", "extra.yaml:2", "reviewers"),
        ("access:\n  - {id: a, decision: allow, roles: [root]}", "extra.yaml:2", "no role `root`"),
        ("access:\n  - {id: a, decision: allow}\n  - {id: a, decision: allow}", "extra.yaml:3", "used twice"),
        ("people:\n  zoe:\n    name: Zoe\n    groups: [cats]", "extra.yaml:4", "no group `cats`"),
        ("people:\n  ann: {name: Again}", "small.yaml:10", "also in extra.yaml:2"),
        ("people:\n  zoe: {name: Zoe}\n  zoe: {name: Zoe}", "extra.yaml:3", "written twice"),
        ("access:\n  - id: a\n    decision: allow\n    max_duration: 30", "extra.yaml:4", "max_duration"),
        ("acces: []", "extra.yaml:1", "acces"),
        ("access: [", "extra.yaml:1", "not YAML"),
        ("- a", "extra.yaml:1", "mapping"),
        ("people:\n  zoe:\n    name: 2026-13-45", "extra.yaml:3", "people.zoe.name: month must be in 1..12"),
        ("groups:\n  ? [a]\n  : b", "extra.yaml:2", "groups: a key is a text"),
        ("groups: {1: one}", "extra.yaml:1", "groups: a key is a text"),
        ("groups: &x\n  cats: *x", "extra.yaml:1", "nested too deeply"),
        ("groups: " + "[" * 5000 + "]" * 5000, "extra.yaml:1", "nested too deeply"),
        (BOMB, "extra.yaml:1: a", "more than 100000 values"),
        ('groups:\n  cats: !!binary "x"', "extra.yaml:2", "failed to decode base64 data"),
        ("groups:\n  cats: !!python/object:os.system x", "extra.yaml:2", "could not determine a constructor"),
        ("fields: [{id: f, resource: db, relation: public.t, masks: {ssn: stars}}]", "masks.ssn: ", "should be 'hide'"),
        ("people: {zoe: {nmae: Zoe}}", "people.zoe.nmae", "unknown key, did you mean `name`?"),
        ("people: {zoe: {groups: []}}", "people.zoe.name", "is required"),
        ("statements: [{id: a, decision: deny, relations: [public.secret_*]}]", "relations[0]", "pattern"),
        ("statements: [{id: a, decision: deny, relations: ['*.secret']}]", "relations[0]", "pattern"),
        ("statements: [{id: a, decision: deny, functions: [PG_SLEEP]}]", "functions[0]", "names no function"),
        ("statements: [{id: a, decision: deny, functions: [pg_catalog.pg_sleep]}]", "functions[0]", "without their"),
        ("statements: [{id: a, decision: ask, reviewers: []}]", "extra.yaml:1", "nobody could answer"),
        ("fields: [{id: f, resource: db, relation: public.*}]", "fields[0].relation", "without a star"),
        ("groups: [devs]", "small.yaml:8", "groups: of another kind in extra.yaml:1"),
        ("groups:", "small.yaml:8", "groups: of another kind in extra.yaml:1"),
        (SMALL.replace("db:", "list:", 1).split("groups")[0], "extra.yaml:3", "word of the /access command"),
    ],
)
def test_a_broken_file_is_named_with_line_and_key(extra: str, where: str, what: str) -> None:
    with pytest.raises(PolicyUnreadable) as caught:
        policy(extra)
    assert any(where in finding and what in finding for finding in caught.value.findings), caught.value.findings


PIECES = [
    "people",
    "access",
    "masks",
    "id",
    ":",
    " ",
    "\n",
    "\n  ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    "&a",
    "*a",
    "? ",
    "!!int",
    '"',
    "1",
]


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=40).map("".join))
def test_whatever_a_file_holds_it_loads_or_its_findings_name_the_file(text: str) -> None:
    findings = ["odd.yaml:"]
    try:
        read_texts({"odd.yaml": text})
    except PolicyUnreadable as error:
        findings = error.findings
    assert findings
    assert all(finding.startswith("odd.yaml:") for finding in findings), findings


def test_files_that_cannot_be_read_or_would_be_passed_over_are_findings(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"groups:\n  cats: \xff\n")
    (tmp_path / "b.yml").write_text("groups: {dogs: ''}")
    (tmp_path / "c.yaml").mkdir()
    (tmp_path / "d.YAML").write_text("groups: {cows: ''}")
    with pytest.raises(PolicyUnreadable) as caught:
        load(tmp_path)
    told = "\n".join(caught.value.findings)
    assert "a.yaml:2: not UTF-8" in told
    assert "b.yml: a policy file's name ends in `.yaml`" in told
    assert "d.YAML: a policy file's name ends in `.yaml`" in told
    assert "c.yaml: Is a directory" in told


def test_an_empty_folder_is_not_a_policy(tmp_path: Path) -> None:
    with pytest.raises(PolicyUnreadable):
        load(tmp_path)


def test_the_hash_ignores_layout_and_sees_every_value() -> None:
    assert policy("# a comment").hash == policy().hash
    assert policy("groups: {cats: ''}").hash != policy().hash


def test_the_published_schema_is_the_models() -> None:
    assert json.loads((POLICIES / "schema.json").read_text()) == Policy.model_json_schema()


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


@pytest.mark.parametrize(
    "rule",
    [
        "{id: a, decision: deny, max_rows: 3}",
        "{id: a, decision: allow, effects: [read], max_rows: 3}",
        "{id: a, decision: allow, max_rows: 0}",
        "{id: a, decision: ask, reviewers: {groups: [ops]}, rows_factor: 2}",
        "{id: a, decision: allow, max_rows: 3, rows_factor: 2}",
        "{id: a, decision: ask, reviewers: {groups: [ops]}, max_rows: 3, rows_factor: .inf}",
    ],
)
def test_bound_that_could_bind_nothing_does_not_load(rule: str) -> None:
    with pytest.raises(PolicyUnreadable):
        policy(f"statements: [{rule}]")


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


@pytest.mark.parametrize(
    "mask",
    [
        "{mask: hide, reveal: ask}",
        "{mask: hide, reviewers: {groups: [ops]}}",
        "{mask: hide, reveal: ask, reviewers: {groups: [nobody]}}",
    ],
)
def test_reveal_without_known_reviewers_does_not_load(mask: str) -> None:
    with pytest.raises(PolicyUnreadable):
        policy(f"fields: [{{id: f, resource: db, relation: public.t, masks: {{a: {mask}}}}}]")


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
