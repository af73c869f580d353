"""What statement rules may ask of a statement, and how a policy's author hears of rules that never speak."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.protocols.postgres.pins import never_changes
from policies.engine.decide import decide_statement, settings_named
from policies.engine.decisions import (
    UNASKED,
    Allow,
    Ask,
    Decision,
    Deny,
    Effect,
    Limits,
    OwnFunction,
    Rows,
    StatementFacts,
)
from policies.engine.load import read_texts
from policies.engine.model import Policy
from policies.engine.problems import warnings
from tests.unit.policies.rules import MONDAY, READ, WORLD, WRITE, decided, facts, policy


def test_a_rule_may_speak_only_of_writes_without_a_where() -> None:
    asking = "{id: all-rows, decision: ask, missing_where: true, reviewers: {groups: [ops]}}"
    found = decided(policy(WRITE, asking), facts(bare=True))
    assert isinstance(found, Ask)
    assert found.rules == ("all-rows",)
    assert isinstance(decided(policy(WRITE, asking), facts()), Allow)
    never = "{id: never, decision: deny, missing_where: true, message: name the rows}"
    assert decided(policy(WRITE, never), facts(bare=True)) == Deny("name the rows", ("never",))
    assert isinstance(decided(policy(WRITE, never), facts()), Allow)


def test_joining_another_table_does_not_lead_around_an_ask() -> None:
    asking = "{id: pay, decision: ask, effects: [read], relations: [public.t], reviewers: {groups: [ops]}}"
    joined = StatementFacts("SELECT", frozenset({Effect.READ}), frozenset({"public.t", "public.other"}))
    assert isinstance(decided(policy(READ, asking), joined), Ask)
    assert isinstance(decided(policy(READ, asking), replace(joined, reads=frozenset({"public.other"}))), Allow)
    # It asks about one of them, and lets nothing pass that no rule speaks of.
    assert isinstance(decided(policy(asking), joined), Deny)
    # A condition that does not hold keeps it from asking, as it would for that relation alone.
    late = asking.replace("relations", "missing_where: true, relations")
    assert isinstance(decided(policy(READ, late), joined), Allow)


def test_a_do_that_a_rule_about_something_else_forbids_says_that_it_is_not_looked_into() -> None:
    schema = "{id: schema, decision: deny, effects: [ddl], message: only through migrations, hint: open a pull request}"
    code = StatementFacts("DO", frozenset(Effect))
    assert decided(policy(READ, schema), code) == Deny(
        "DO runs code that cannot be inspected, and may do what is forbidden: only through migrations",
        ("schema",),
        "run its statements one by one",
    )
    named = schema.replace("effects: [ddl]", "verbs: [DO]")
    assert decided(policy(READ, named), code) == Deny("only through migrations", ("schema",), "open a pull request")


def test_a_setting_of_an_applications_own_needs_a_rule_that_names_it() -> None:
    session = "{id: session, decision: allow, effects: [read, session]}"
    named = "{id: named, decision: allow, effects: [session], settings: [App.User_Id, 'jwt.*']}"

    def answer(*rules: str, names: tuple[str, ...] = ("app.user_id",)) -> Decision:
        setting = StatementFacts("SET", frozenset({Effect.SESSION}), settings=frozenset(names))
        return decided(policy(*rules), setting)

    assert answer(session) == Deny(
        "app.user_id is a setting of an application's own, and no rule names it",
        ("default-setting",),
        "a rule that says `effects: [session]` and `settings: [app.user_id]` would let it be set and shown",
    )
    assert answer(session, named) == Allow(("session", "named"))
    assert answer(session, named, names=("app.user_id", "jwt.claims.role")) == Allow(("session", "named"))
    for other in ("app.user", "app.user_id.more", "jwtx.role", "my.jwt.role"):
        assert isinstance(answer(session, named, names=("app.user_id", other)), Deny)
    # It speaks of nothing else, and what it does needs a rule as ever.
    assert isinstance(answer(named), Deny)
    assert isinstance(answer(named, names=()), Deny)
    shut = "{id: shut, decision: deny, settings: [jwt.admin], message: nobody}"
    assert isinstance(answer(session, named, shut), Allow)
    assert answer(session, named, shut, names=("jwt.admin",)) == Deny("nobody", ("shut",))
    asks = "{id: asks, decision: ask, settings: [app.user_id], reviewers: {groups: [ops]}}"
    assert isinstance(answer(session, named, asks), Ask)
    assert isinstance(answer(session, asks), Ask)
    assert settings_named(policy(session, named, shut), "ann", "db", "read") == ("app.user_id", "jwt.*")
    assert settings_named(policy(session, named), "nobody", "db", "write") == ("app.user_id", "jwt.*")
    assert never_changes(policy(session, "{id: own, decision: allow, settings: [app.x]}"), "ann", "db", "read")
    assert not list(warnings(policy(session, named)))


def test_a_policy_that_is_written_out_is_read_as_the_same() -> None:
    mask = "{id: f, resource: db, relation: public.t, clear: [id], masks: {ssn: {mask: partial, tail: 4}}}"
    given = read_texts({"world.yaml": WORLD, "fields.yaml": f"fields: [{mask}]"})
    assert Policy.model_validate(given.model_dump(mode="json")) == given


def test_a_rule_for_writes_with_a_where_says_to_add_one() -> None:
    given = policy("{id: some-rows, decision: allow, effects: [write], missing_where: false}")
    assert isinstance(decided(given, facts()), Allow)
    found = decided(given, facts(bare=True))
    assert isinstance(found, Deny)
    assert found.hint == "add a WHERE that names a column"


def test_copying_in_needs_a_rule_that_says_so() -> None:
    copying = facts("COPY", copying="in")
    found = decided(policy(WRITE), copying)
    assert isinstance(found, Deny)
    assert (found.rules, "insert the rows" in (found.hint or "")) == (("default-copy",), True)
    loads = "{id: loads, decision: allow, effects: [write], copies: [in]}"
    assert isinstance(decided(policy(loads), copying), Allow)
    assert isinstance(decided(policy(loads), facts("INSERT")), Deny)


@pytest.mark.parametrize(
    ("about", "naming"),
    [
        (facts("DO"), "effects: [write], verbs: [DO]"),
        (facts("TRUNCATE"), "effects: [write], verbs: [TRUNCATE]"),
        (facts("COPY", copying="in"), "effects: [write], copies: [in]"),
    ],
)
def test_a_rule_about_all_code_adds_up_with_one_that_names_what_runs_it(about: StatementFacts, naming: str) -> None:
    about = replace(about, code=frozenset({"what this transaction has defined"}))
    code, named = (
        "{id: code, decision: allow, effects: [write], functions: ['*.*']}",
        f"{{id: named, decision: allow, {naming}}}",
    )
    assert isinstance(decided(policy(code, named), about), Allow)
    assert isinstance(decided(policy(named), about), Deny)
    # It lets no verb pass that a rule has to name, and no copying in.
    assert isinstance(decided(policy(code, WRITE), about), Deny)
    asking = named.replace("decision: allow", "decision: ask, reviewers: {groups: [ops]}")
    assert isinstance(decided(policy(code, asking), about), Ask)
    other = code.replace("functions", "verbs: [UPDATE], functions")
    assert isinstance(decided(policy(other, named), about), Deny)


def test_copying_out_is_reading_and_may_be_denied_by_itself() -> None:
    copying = facts("COPY", write=False, copying="out")
    assert isinstance(decided(policy(READ), copying), Allow)
    no_copies = "{id: no-copies, decision: deny, copies: [out], message: no exports}"
    assert decided(policy(READ, no_copies), copying) == Deny("no exports", ("no-copies",))
    assert isinstance(decided(policy(READ, no_copies), facts("SELECT", write=False)), Allow)


def test_the_narrowest_limit_of_all_the_rules_that_let_a_copy_pass_counts() -> None:
    copying = facts("COPY", write=False, copying="out")
    small = "{id: small, decision: allow, effects: [read], copies: [out], copy_limit: {rows: 10, bytes: 2kB}}"
    large = "{id: large, decision: ask, effects: [read], copy_limit: {rows: 20}, reviewers: {groups: [ops]}}"
    found = decided(policy(READ, small), copying)
    assert found == Allow(("reads", "small"), limits=Limits(10, 2048))
    found = decided(policy(READ, large, small), copying)
    assert isinstance(found, Ask)
    assert found.limits == Limits(10, 2048)
    assert decided(policy(READ, small), facts("SELECT", write=False)) == Allow(("reads",))


def test_verbs_match_by_their_first_word_too() -> None:
    given = policy("{id: all, decision: allow}", "{id: drops, decision: deny, verbs: [drop], message: never}")
    for verb, kind in (("DROP TABLE", Deny), ("DELETE", Allow), ("", Allow)):
        assert isinstance(decided(given, facts(verb)), kind), verb


def test_a_routine_is_each_kind_of_one_to_rules() -> None:
    for listed in ("DROP FUNCTION", "DROP PROCEDURE", "DROP AGGREGATE", "DROP ROUTINE", "DROP"):
        denying = policy(
            "{id: all, decision: allow}", f"{{id: kept, decision: deny, verbs: [{listed}], message: never}}"
        )
        assert isinstance(decided(denying, facts("DROP ROUTINE")), Deny), listed
        assert isinstance(decided(denying, facts("ALTER ROUTINE")), Allow), listed
        asking = policy(
            "{id: all, decision: allow}",
            f"{{id: asked, decision: ask, verbs: [{listed}], reviewers: {{groups: [ops]}}}}",
        )
        assert isinstance(decided(asking, facts("DROP ROUTINE")), Ask), listed
        letting = policy(f"{{id: some, decision: allow, effects: [write], verbs: [{listed}]}}")
        kind = Allow if listed in ("DROP ROUTINE", "DROP") else Deny
        assert isinstance(decided(letting, facts("DROP ROUTINE")), kind), listed
    meant = policy("{id: all, decision: allow}", "{id: kept, decision: deny, verbs: [DROP ROUTINE], message: never}")
    assert isinstance(decided(meant, facts("DROP FUNCTION")), Deny)
    assert isinstance(decided(meant, facts("DROP TABLE")), Allow)


def test_verbs_are_also_those_of_the_changes_within_a_statement() -> None:
    insert, delete = frozenset({"INSERT"}), frozenset({"DELETE"})
    denying = policy("{id: all, decision: allow}", "{id: kept, decision: deny, verbs: [DELETE], message: never}")
    asking = policy(
        "{id: all, decision: allow}", "{id: asked, decision: ask, verbs: [DELETE], reviewers: {groups: [ops]}}"
    )
    letting = policy("{id: some, decision: allow, effects: [write], verbs: [INSERT, SELECT, EXPLAIN]}")
    for verb in ("SELECT", "EXPLAIN", "COPY", "PREPARE", "INSERT", "MERGE"):
        assert isinstance(decided(denying, facts(verb, does=insert | delete)), Deny)
        assert isinstance(decided(denying, facts(verb, does=insert)), Allow)
        assert isinstance(decided(asking, facts(verb, does=insert | delete)), Ask)
        assert isinstance(decided(asking, facts(verb, does=insert)), Allow)
    for verb in ("SELECT", "EXPLAIN", "INSERT"):
        assert isinstance(decided(letting, facts(verb, does=insert)), Allow)
        assert isinstance(decided(letting, facts(verb, does=insert | delete)), Deny)
    # What asks about the whole statement lets it pass, and what asks about a part of it does not.
    only = policy("{id: asked, decision: ask, verbs: [DELETE], effects: [write], reviewers: {groups: [ops]}}")
    assert isinstance(decided(only, facts("DELETE", does=delete)), Ask)
    assert isinstance(decided(only, facts("SELECT", does=delete)), Deny)


FEW = "{id: few, decision: allow, effects: [write], max_estimated_rows: 100, above: %s}"


@pytest.mark.parametrize(("rows", "allowed"), [(0, True), (100, True), (101, False), (None, False), (UNASKED, True)])
def test_what_the_planner_expects_decides_and_what_nobody_can_say_is_above(rows: Rows, allowed: bool) -> None:
    for above, kind in (("deny", Deny), ("ask, reviewers: {groups: [ops]}", Ask)):
        found = decide_statement(policy(FEW % above), "ann", "db", "read", facts(), MONDAY, rows)
        assert isinstance(found, Allow if allowed else kind)
        assert found.rules == ("few",)
        if isinstance(found, Allow):
            assert found.estimating is (rows is UNASKED)
        if isinstance(found, Deny):
            assert "and at most 100 are allowed" in found.message


def test_what_depends_on_the_planner_is_never_allowed_by_another_rule_before_it_is_asked() -> None:
    given = policy(FEW % "deny", WRITE, "{id: asks, decision: ask, effects: [write], reviewers: {groups: [ops]}}")
    asked = decide_statement(given, "ann", "db", "read", facts(), MONDAY, UNASKED)
    assert isinstance(asked, Ask)
    assert asked.estimating
    assert isinstance(decide_statement(given, "ann", "db", "read", facts(), MONDAY, 101), Deny)


SPENT = OwnFunction("public", "spent", ("integer",))
OTHER = OwnFunction("public", "spent", ("text", "timestamp with time zone"))
BUMP = OwnFunction("public", "bump", (), acting=True)
NATIVE = OwnFunction("public", "xpath_table", (), native=True)
ALIKE = OwnFunction("ext", "similarity", ("text", "text"), computes=True)


@pytest.mark.parametrize(
    ("names", "calls", "allowed"),
    [
        ("[public.spent(integer)]", {SPENT}, True),
        ("[public.spent( int )]", {SPENT}, True),
        ("[public.spent(integer)]", {SPENT, OTHER}, False),
        ("['public.spent(int4)', 'public.spent(text, timestamptz)']", {SPENT, OTHER}, True),
        ("[public.spent]", {SPENT, OTHER}, True),
        ("[public.*]", {SPENT, OTHER}, True),
        ("[public.*]", {SPENT, BUMP}, False),
        ("[public.*]", {SPENT, NATIVE}, False),
        ("[public.*, public.xpath_table]", {SPENT, NATIVE}, True),
        ("[public.bump]", {BUMP}, False),  # It says nothing of writing.
        ("[archive.spent]", {SPENT}, False),
        ("[archive.*]", {SPENT}, False),
        ("[spent]", {SPENT}, False),
    ],
)
def test_each_function_that_a_call_could_mean_needs_a_rule_that_names_it(
    names: str, calls: set[OwnFunction], allowed: bool
) -> None:
    given = policy(READ, f"{{id: own, decision: allow, functions: {names}}}")
    about = facts("SELECT", write=False, calls=frozenset(calls), functions=frozenset({"spent"}))
    found = decided(given, about)
    if allowed:
        assert found == Allow(("reads", "own"))
    else:
        assert isinstance(found, Deny)
        assert found.rules == ("default-function",)
        assert "functions: [public." in (found.hint or "")


def test_what_a_known_extension_brings_to_compute_with_needs_no_rule_and_is_under_those_there_are() -> None:
    about = facts("SELECT", write=False, calls=frozenset({ALIKE}), functions=frozenset({"similarity"}))
    assert decided(policy(READ), about) == Allow(("reads",))
    denies = "{id: none, decision: deny, functions: [ext.similarity], message: not here}"
    assert decided(policy(READ, denies), about) == Deny("not here", ("none",))
    asks = "{id: asks, decision: ask, functions: [ext.similarity], reviewers: {groups: [ops]}}"
    assert isinstance(decided(policy(READ, asks), about), Ask)
    both = replace(about, calls=frozenset({ALIKE, SPENT}))
    assert isinstance(decided(policy(READ), both), Deny)


def test_a_function_that_no_rule_can_name_is_denied_without_the_advice_to_write_one() -> None:
    unlink = OwnFunction("pg_catalog", "pg_file_unlink", ("text",), acting=True, native=True)
    given = policy(READ, "{id: code, decision: allow, functions: ['*.*']}")
    found = decided(given, facts("SELECT", write=False, calls=frozenset({unlink})))
    assert isinstance(found, Deny)
    assert "functions:" not in (found.hint or "")


@pytest.mark.parametrize("listed", ["public.*", "*.*"])
@pytest.mark.parametrize("call", [SPENT, BUMP, NATIVE])
def test_a_star_denies_what_it_would_not_let_pass(listed: str, call: OwnFunction) -> None:
    allows = (
        "{id: own, decision: allow, effects: [read, write], functions: [public.spent, public.bump, public.xpath_table]}"
    )
    about = facts("SELECT", write=False, calls=frozenset({call}))
    assert isinstance(decided(policy(READ, allows), about), Allow)
    given = policy(READ, allows, f"{{id: none, decision: deny, functions: ['{listed}'], message: not here}}")
    assert decided(given, about) == Deny("not here", ("none",))


def test_a_function_that_could_change_data_passes_where_its_rule_says_write_and_nothing_else_does() -> None:
    given = policy(READ, "{id: bumps, decision: allow, effects: [write], functions: [public.bump()]}")
    calling = facts("SELECT", write=False, calls=frozenset({BUMP}))
    assert decided(given, calling) == Allow(("reads", "bumps"))
    assert isinstance(decided(given, facts("DELETE", calls=frozenset({BUMP}))), Deny)
    assert isinstance(decided(given, facts("DELETE")), Deny)
    no_writes = policy(READ, "{id: own, decision: allow, effects: [write], functions: [public.bump]}",
                       "{id: frozen, decision: deny, effects: [write], message: frozen}")  # fmt: skip
    assert decided(no_writes, calling) == Deny("frozen", ("frozen",))


@pytest.mark.parametrize("verb", ["TRUNCATE", "LISTEN", "NOTIFY", "DO", "LOCK TABLE"])
def test_what_few_think_of_needs_a_rule_that_names_its_verb(verb: str) -> None:
    about = facts(verb)
    found = decided(policy("{id: all, decision: allow}"), about)
    assert isinstance(found, Deny)
    assert found.rules == ("default-verb",)
    assert found.hint
    named = policy("{id: all, decision: allow}", f"{{id: named, decision: allow, verbs: [{verb.split()[0]}]}}")
    assert decided(named, about) == Allow(("named",))
    assert decided(named, facts("DELETE")) == Allow(("all",))


@pytest.mark.parametrize(
    ("rule", "acting", "allowed"),
    [
        ("functions: [pg_sleep]", False, True),
        ("functions: [pg_sleep, public.spent]", False, True),
        ("functions: [pg_advisory_lock]", False, False),
        ("functions: ['public.*']", False, False),
        ("functions: [nextval]", True, False),
        ("effects: [write], functions: [nextval]", True, True),
        ("effects: [read, write]", True, False),
    ],
)
def test_a_builtin_function_that_does_more_than_compute_needs_a_rule_that_names_it(
    rule: str, acting: bool, allowed: bool
) -> None:
    name = "nextval" if acting else "pg_sleep"
    given = policy(READ, f"{{id: named, decision: allow, {rule}}}")
    calls = frozenset({OwnFunction("", name, acting=acting)})
    found = decided(given, facts("SELECT", write=False, calls=calls, functions=frozenset({name})))
    if allowed:
        assert found == Allow(("reads", "named"))
    else:
        assert isinstance(found, Deny)
        assert found.rules == ("default-function",)
        assert f"`functions: [{name}]`" in (found.hint or "")
    # That rule speaks of nothing else.
    alone = policy("{id: named, decision: allow, functions: [pg_sleep]}")
    assert isinstance(decided(alone, facts("SELECT", write=False)), Deny)


def test_a_rule_about_a_function_of_users_lets_no_effect_pass() -> None:
    given = policy("{id: own, decision: allow, functions: [public.spent]}")
    found = decided(given, facts("SELECT", write=False, calls=frozenset({SPENT})))
    assert isinstance(found, Deny)
    assert found.rules == ("default-read",)


def test_a_session_is_pinned_read_only_unless_a_function_may_write() -> None:
    for effects, pinned in (("", True), ("effects: [read],", True), ("effects: [write],", False)):
        given = policy(READ, f"{{id: own, decision: allow, {effects} functions: [public.spent]}}")
        assert never_changes(given, "ann", "db", "read") is pinned
