"""Policy files: what is wrong in them is named, and nothing else is read into them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.engine.load import PolicyUnreadable, load, read_texts
from policies.engine.model import Policy
from policies.engine.problems import warnings
from tests.unit.policies.small import POLICIES, SMALL, policy

BOMB = "\n".join(
    ["a0: &a0 [" + ", ".join("1" * 10) + "]"]
    + [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 10) + "]" for n in range(1, 8)]
)
"""A few lines of aliases that stand for a hundred million values."""


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


def test_a_key_in_what_may_be_a_list_or_a_mapping_is_the_only_finding() -> None:
    asked = "access: [{id: a, decision: ask, reviewers: {count: 1, groups: [dbas], tail: 2}}]"
    with pytest.raises(PolicyUnreadable) as caught:
        read_texts({"small.yaml": SMALL, "extra.yaml": asked})
    assert caught.value.findings == [
        "extra.yaml:1: access[0].reviewers.tail: unknown key here; there is `fields.masks.NAME.tail`"
    ]


def test_a_folder_that_is_not_there_is_told_from_one_without_files(tmp_path: Path) -> None:
    with pytest.raises(PolicyUnreadable, match=r"no policy files .* named with AIRLOCK_POLICIES, or --policies"):
        load(tmp_path)
    with pytest.raises(PolicyUnreadable, match="no such folder"):
        load(tmp_path / "none")


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
        ("resources: {a: {roles: {r: {provisioner: x}}}}", "a.roles.r.provisioner", "is `resources.NAME.provisioner`"),
        ("resources: {a: {relations: []}}", "resources.a.relations", "there is `resources.NAME.roles.NAME.relations`"),
        ("groups: {}\nzzzzzz: 1", "zzzzzz", "unknown key"),
        ("people: {zoe: {groups: []}}", "people.zoe.name", "is required"),
        ("statements: [{id: a, decision: deny, relations: [public.secret_*]}]", "relations[0]", "`schema.*` or"),
        ("statements: [{id: a, decision: deny, relations: ['*.secret']}]", "relations[0]", "`schema.*` or"),
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
