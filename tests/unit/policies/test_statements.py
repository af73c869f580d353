"""What statement rules may ask of a statement, and how a policy's author hears of rules that never speak."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.protocols.postgres.pins import never_changes
from policies.engine.conditions import DAYS, Window
from policies.engine.decide import decide_statement, freely_read, timed
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
from policies.engine.load import PolicyUnreadable, read_texts
from policies.engine.model import Policy
from policies.engine.problems import warnings
from tests.unit.policies.test_engine import SMALL

WORLD = f"""{SMALL}  ove: {{name: Ove, groups: [ops]}}
groups: {{devs: "", ops: "", ghosts: ""}}
""".replace('groups: {devs: "", ops: ""}', "", 1)
READ = "{id: reads, decision: allow, effects: [read]}"
WRITE = "{id: writes, decision: allow, effects: [write]}"
MONDAY = datetime(2026, 1, 5, 12, tzinfo=UTC)


@cache
def policy(*rules: str) -> Policy:
    return read_texts({"world.yaml": WORLD, "rules.yaml": f"statements: [{', '.join(rules)}]"})


def facts(verb: str = "DELETE", *, write: bool = True, bare: bool = False, **more: object) -> StatementFacts:
    effects = frozenset({Effect.WRITE} if write else {Effect.READ})
    writes = frozenset({"public.t"}) if write else frozenset()
    reads = frozenset() if write else frozenset({"public.t"})
    missing = frozenset({"public.t"}) if bare else frozenset()
    return StatementFacts(verb, effects, reads, writes, missing_where=missing, **more)  # type: ignore[arg-type]


def decided(given: Policy, about: StatementFacts, now: datetime | None = MONDAY) -> Decision:
    return decide_statement(given, "ann", "db", "read", about, now)


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


HOURS = "{id: hours, decision: allow, effects: [write], when: {days: mon-fri, hours: 09:00-18:00, zone: Europe/Berlin}}"


@pytest.mark.parametrize(
    ("moment", "allowed"),
    [
        ("2026-01-05T08:00+00:00", True),  # nine in Berlin, in winter
        ("2026-01-05T07:59+00:00", False),
        ("2026-07-06T07:00+00:00", True),  # nine in Berlin, in summer
        ("2026-01-05T17:00+00:00", False),
        ("2026-01-09T23:30+00:00", False),
        ("2026-01-10T12:00+00:00", False),  # a Saturday
        (None, False),
    ],
)
def test_hours_follow_the_wall_clock_of_their_zone(moment: str | None, allowed: bool) -> None:
    at = datetime.fromisoformat(moment) if moment else None
    found = decided(policy(HOURS), facts(), at)
    assert isinstance(found, Allow) is allowed
    if isinstance(found, Deny):
        assert found.hint == "rule hours is for mon, tue, wed, thu, fri 09:00-18:00 Europe/Berlin"


def test_a_deny_with_hours_speaks_then_and_where_the_time_is_unknown() -> None:
    frozen = "{id: frozen, decision: deny, effects: [write], when: {days: [sat, sun], zone: UTC}, message: frozen}"
    given = policy(WRITE, frozen)
    assert isinstance(decided(given, facts(), MONDAY), Allow)
    for moment in (MONDAY - timedelta(days=1), None):
        assert decided(given, facts(), moment) == Deny("frozen", ("frozen",))


def test_which_rules_with_hours_hold_says_when_a_decision_may_change() -> None:
    given = policy(HOURS, READ)
    assert timed(given, MONDAY) == {"hours"}
    assert timed(given, MONDAY + timedelta(hours=12)) == frozenset()


@given(
    st.sets(st.sampled_from(DAYS), min_size=1),
    st.integers(0, 1439),
    st.integers(1, 1440),
    st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1)),
)
def test_a_window_and_its_rest_make_up_the_day(days: set[str], begin: int, end: int, at: datetime) -> None:
    if begin == end or end == 1440:
        return
    hours = [f"{a // 60:02}:{a % 60:02}-{b // 60:02}:{b % 60:02}" for a, b in ((begin, end), (end, begin))]
    window, rest = (Window(zone="UTC", days=list(DAYS), hours=each) for each in hours)
    moment = at.replace(tzinfo=UTC)
    assert window.holds(moment) != rest.holds(moment)
    some, others = (
        Window(zone="UTC", days=[day for day in DAYS if (day in days) is wanted] or list(DAYS), hours=hours[0])
        for wanted in (True, False)
    )
    if len(days) < 7:
        assert window.holds(moment) == (some.holds(moment) != others.holds(moment))


@pytest.mark.parametrize(
    ("rule", "what"),
    [
        ("verbs: [DELTE]", "no statement begins with `DELTE`, did you mean `DELETE`?"),
        ("verbs: [DROP TABEL]", "no statement begins with `DROP TABEL`"),
        ("verbs: [SELECT INTO]", "no statement begins with"),
        ("effects: [wirte]", "should be 'read', 'write'"),
        ("copies: [import]", "should be 'in' or 'out'"),
        ("max_estimated_rows: 5", "go together"),
        ("above: deny", "go together"),
        ("max_estimated_rows: 5, above: ask", "`reviewers` goes with"),
        ("max_estimated_rows: -1, above: deny", "greater than or equal to 0"),
        ("functions: [public.f(numeric(10,2))]", "names no function"),
        ("functions: [pg_catalog.lo_get]", "named without their schema"),
        ("functions: ['*.f']", "names no function"),
        ("functions: ['public.f(integer,)']", "an argument has no type"),
        ("functions: [count, public.f]", "need a rule apart"),
        ("copy_limit: {}", "names `rows` or `bytes`"),
        ("copy_limit: {rows: 0}", "greater than or equal to 1"),
        ("copy_limit: {bytes: 10 MiB}", "write it like `10MB`"),
        ("when: {days: mon}", "zone"),
        ("when: {zone: Europe/Berlyn}", "no time zone `Europe/Berlyn`"),
        ("when: {zone: ../../etc/passwd}", "no time zone"),
        ("when: {zone: UTC, days: monday}", "days"),
        ("when: {zone: UTC, hours: 09:00-09:00}", "no hours of a day"),
        ("when: {zone: UTC, hours: 09:00-25:00}", "no hours of a day"),
        ("when: {zone: UTC, hours: 9-18}", "pattern"),
        ("when: {zone: UTC, hour: 09:00-18:00}", "unknown key, did you mean `hours`?"),
        ("shape: grant, max_rows: 5", "`shape` goes with `decision: ask`"),
        ("shape: session", "should be 'grant'"),
    ],
)
def test_a_condition_that_would_say_nothing_is_refused(rule: str, what: str) -> None:
    with pytest.raises(PolicyUnreadable) as caught:
        policy(f"{{id: a, decision: allow, {rule}}}")
    assert any(what in finding for finding in caught.value.findings), caught.value.findings


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("port: 5432", "port: 0", "greater than or equal to 1"),
        ("port: 5432", "port: 70000", "less than or equal to 65535"),
        ('"file:x"', '"file:../../etc/shadow"', "leave the secrets folder"),
        ('"file:x"', '"file:/etc/shadow"', "leave the secrets folder"),
        ("host: h", "host: 'file:../x'", "leave the secrets folder"),
        (
            "protocol: postgres",
            "protocol: postgres\n    search_path: [pg_temp]",
            "search_path[0]: `pg_temp` is the serv",
        ),
        ("protocol: postgres", "protocol: postgres\n    search_path: [public, pg_temp_3]", "search_path[1]"),
        ("protocol: postgres", "protocol: postgres\n    search_path: [pg_catalog, public]", "server's own"),
        ("protocol: postgres", "protocol: postgres\n    search_path: [public, public]", "there already"),
    ],
)
def test_a_resource_that_would_reach_elsewhere_is_refused(old: str, new: str, what: str) -> None:
    with pytest.raises(PolicyUnreadable) as caught:
        read_texts({"world.yaml": WORLD.replace(old, new)})
    assert any(what in finding for finding in caught.value.findings), caught.value.findings


SHAPED = "shape: grant, reviewers: {groups: [ops]}}"


@pytest.mark.parametrize("effects", ["", "effects: [write], ", "effects: [read, write], "])
def test_a_shape_of_what_may_change_data_needs_a_bound(effects: str) -> None:
    with pytest.raises(PolicyUnreadable) as caught:
        policy(f"{{id: a, decision: ask, {effects}{SHAPED}")
    assert any("goes with `max_rows`" in finding for finding in caught.value.findings), caught.value.findings
    found = warnings(policy(f"{{id: a, decision: ask, {effects}max_rows: 5, {SHAPED}"))
    assert any("`shape: grant` lets a statement" in one and "within 5 rows" in one for one in found), found


def test_a_shape_may_be_approved_where_every_rule_that_asks_offers_it() -> None:
    offers = f"{{id: a, decision: ask, effects: [write], max_rows: 5, {SHAPED}"
    reads = f"{{id: b, decision: ask, effects: [read], {SHAPED}"
    more = "{id: c, decision: ask, effects: [write], missing_where: true, reviewers: {groups: [ops]}}"
    for rules, bare, offered in (
        ((READ, offers), False, True),
        ((reads, offers), False, True),
        ((READ, offers, more), False, True),
        ((READ, offers, more), True, False),
    ):
        decision = decided(policy(*rules), facts(bare=bare))
        assert isinstance(decision, Ask)
        assert decision.shape is offered


@pytest.mark.parametrize(
    ("rules", "what"),
    [
        ((READ, "{id: shut, decision: deny}"), "`reads` makes no difference: `shut` denies all"),
        (
            ("{id: some, decision: allow, effects: [write], relations: [public.t], verbs: [DELETE]}",
             "{id: asks, decision: ask, effects: [write], reviewers: {groups: [ops]}}"),
            "`some` makes no difference: `asks` asks about all",
        ),
        ((READ, "{id: more, decision: allow, effects: [read], groups: [devs]}"), "`more` makes no difference: `reads`"),
        (("{id: a, decision: allow, groups: [ghosts]}",), "`a` never speaks: nobody is in ghosts"),
        (("{id: a, decision: deny, relations: [private.t]}",), "no role that it speaks of covers private.t"),
        (("{id: a, decision: ask, copies: [in], reviewers: {groups: [ops]}}",), "cannot be shown to reviewers"),
        (("{id: a, decision: allow, effects: [session], copy_limit: {rows: 1}}",), "limits nothing"),
        (("{id: a, decision: deny, effects: [read], missing_where: true}",), "only what writes can lack a WHERE"),
        ((f"{{id: a, decision: ask, effects: [session], {SHAPED}",), "its `shape` offers nothing"),
        ((f"{{id: a, decision: ask, effects: [read], verbs: [EXPLAIN], {SHAPED}",), "its `shape` offers nothing"),
    ],
)  # fmt: skip
def test_a_rule_that_never_decides_anything_is_warned_of(rules: tuple[str, ...], what: str) -> None:
    found = warnings(policy(*rules))
    assert any(what in warning for warning in found), found


def test_a_function_that_could_read_what_is_masked_is_warned_of() -> None:
    masked = "fields: [{id: f, resource: db, relation: public.people, clear: [id]}]"
    own = "statements: [{id: own, decision: allow, functions: [public.spent]}]"
    found = warnings(read_texts({"world.yaml": WORLD, "rules.yaml": own, "fields.yaml": masked}))
    assert any("public.spent may read by themselves what is masked on db (public.people)" in one for one in found)
    assert warnings(read_texts({"world.yaml": WORLD, "rules.yaml": own})) == []


def test_a_rule_that_allows_without_naming_effects_is_warned_of() -> None:
    (found,) = warnings(policy("{id: all, decision: allow, roles: [read]}"))
    assert found == "rule `all` names no `effects`, so it lets changes of data and of the schema pass too"


def test_rules_that_differ_in_what_they_speak_of_are_not_warned_of() -> None:
    rules = (
        READ,
        "{id: copies, decision: allow, effects: [write], copies: [in]}",
        "{id: shut, decision: deny, effects: [write], missing_where: true}",
        "{id: late, decision: deny, effects: [read], when: {zone: UTC, hours: 22:00-06:00}}",
        "{id: fewer, decision: allow, effects: [write], copies: [in], copy_limit: {rows: 10}}",
        "{id: devs, decision: deny, effects: [read], groups: [devs], functions: [lo_get]}",
        WRITE,
    )
    assert warnings(policy(*rules)) == []


@pytest.mark.parametrize(
    ("rules", "freely"),
    [
        ((READ,), ("public.*",)),
        ((READ, WRITE), ("public.*",)),
        ((WRITE,), ()),
        ((READ, "{id: pay, decision: deny, relations: [public.pay]}"), ("public.*", "but", "public.pay")),
        (
            (READ, "{id: pay, decision: ask, effects: [read], relations: [public.pay], reviewers: {groups: [ops]}}"),
            ("public.*", "but", "public.pay"),
        ),
        (
            (READ, "{id: pay, decision: deny, relations: [public.pay], when: {zone: UTC, hours: 22:00-06:00}}"),
            ("public.*", "but", "public.pay"),
        ),
        ((READ, "{id: pay, decision: deny, effects: [write], relations: [public.pay]}"), ("public.*",)),
        ((READ, "{id: pay, decision: deny, verbs: [TRUNCATE], relations: [public.pay]}"), ("public.*",)),
        ((READ, "{id: pay, decision: deny, missing_where: true, relations: [public.pay]}"), ("public.*",)),
        ((READ, "{id: no-count, decision: deny, functions: [count]}"), ("public.*",)),
        (("{id: reads, decision: allow, effects: [read], relations: [public.orders]}",), ()),
        (("{id: reads, decision: allow, effects: [read], relations: ['public.*']}",), ("public.*",)),
        (
            (READ.replace("}", ", relations: ['public.*'], when: {zone: UTC, hours: 09:00-18:00}}"),),
            (),
        ),
        (("{id: reads, decision: allow, effects: [read], when: {zone: UTC, hours: 09:00-18:00}}",), ("public.*",)),
        ((READ.replace("effects: [read]", "effects: [read], copies: [out]"),), ()),
        ((READ, "{id: others, decision: deny, relations: [public.pay], groups: [ghosts]}"), ("public.*",)),
    ],
)
def test_what_a_rule_stands_before_is_not_read_like_every_other(
    rules: tuple[str, ...], freely: tuple[str, ...]
) -> None:
    covers, but = freely_read(policy(*rules), "ann", "db", "read")
    assert (*covers, *(("but", *but) if but else ())) == freely
