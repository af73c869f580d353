"""Rules about statements that do not load, and those that are warned of."""

from __future__ import annotations

import pytest

from policies.engine.decide import freely_read
from policies.engine.decisions import Ask
from policies.engine.load import PolicyUnreadable, read_texts
from policies.engine.problems import warnings
from tests.unit.policies.rules import READ, WORLD, WRITE, decided, facts, policy


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
        ("settings: [work_mem]", "names no setting of an application's"),
        ("settings: ['*.*']", "names no setting of an application's"),
        ("effects: [read], settings: [app.x]", "`settings` goes with `effects: [session]`"),
        ("functions: [public.f], settings: [app.x]", "needs a rule apart from `functions`"),
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


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        (("groups: [dbas]}", "groups: [dbos]}"), "no group `dbos`, did you mean `dbas`?"),
        (("resources: [crm]", "resources: [crn]"), "no resource `crn`, did you mean `crm`?"),
        (("roles: [read]", "roles: [red]"), "no role `red` on these resources, did you mean `read`?"),
        (("reviewers: {count: 1, groups: [dbas]}", "reviewers: {count: 1, groups: [dba]}"), "access[0].reviewers: no"),
        (("credential: file:x", "credential: x"), "should be `file:NAME`, a file in the secrets folder, or `env:NAME`"),
        (("relation: public.a", "relation: a"), "should be `schema.relation`"),
        (("relations: [public.*]", "relations: [public]"), "should be `schema.relation`, `schema.*` or `*.*`"),
        (("alice: {", "Alice: {"), "should begin with a small letter"),
    ],
)
def test_what_is_wrong_is_said_with_what_would_be_right(wrong: tuple[str, str], what: str) -> None:
    good = """
groups: {engineers: E, dbas: D}
people: {alice: {name: Alice, groups: [engineers]}, bob: {name: Bob, groups: [dbas]}}
resources:
  crm:
    protocol: postgres
    upstream: {host: 127.0.0.1, port: 1, database: x, tls: disable}
    roles: {read: {credential: file:x, relations: [public.*]}}
access:
  - {id: a, decision: ask, resources: [crm], roles: [read], groups: [engineers], reviewers: {count: 1, groups: [dbas]}}
fields:
  - {id: f, resource: crm, relation: public.a, clear: [id]}
"""
    assert "too few where one of them asks" in warnings(read_texts({"a.yaml": good}))[0]
    assert "nobody can ever meet that" in warnings(read_texts({"a.yaml": good.replace("count: 1", "count: 2")}))[0]
    assert wrong[0] in good
    with pytest.raises(PolicyUnreadable) as caught:
        read_texts({"a.yaml": good.replace(*wrong)})
    assert what in str(caught.value)
