"""Where nothing is masked and every relation is covered, the catalogue is shown as it is, but for secrets."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from broker.sql.catalogue import Catalogue, Relation
from broker.sql.inspect import inspect
from broker.sql.model import Refusal, Terms
from broker.sql.sight import sights
from broker.sql.system import CLOSED_COLUMNS, shown
from policies.engine.decisions import HIDE, FieldView, Mask, MaskKind, RelationFields, all_clear
from tests.unit.broker.sql.shop import CATALOGUE, FIELDS

EVERY = ("public.*", "archive.*")
CLEAR = "select pg_get_viewdef(1), obj_description(1), pg_get_expr(adbin, 1) from pg_attrdef"


def with_system(*names: str) -> Catalogue:
    """The catalogue of the tests with some of the server's own relations, each with the columns that may be closed."""
    made = {}
    for oid, name in enumerate(names, 9000):
        columns = tuple(
            replace(CATALOGUE.by_oid[2604].columns[0], name=column, attnum=at, type="text", typname="text")
            for at, column in enumerate(("oid", *sorted(CLOSED_COLUMNS.get(f"pg_catalog.{name}", ()))), 1)
        )
        made["pg_catalog", name] = Relation(oid, "pg_catalog", name, "r", False, False, columns)
    by_oid = {each.oid: each for each in made.values()}
    return replace(CATALOGUE, relations={**CATALOGUE.relations, **made}, by_oid={**CATALOGUE.by_oid, **by_oid},
                   version=f"with {names}")  # fmt: skip


def test_literals_come_as_they_are() -> None:
    assert inspect(CLEAR, CATALOGUE, {}, terms=Terms(covers=EVERY)).rewritten == CLEAR


@pytest.mark.parametrize("covers", [(), ("public.*",), ("public.customers", "archive.*"), ("archive.*", "other.*")])
def test_one_relation_that_is_not_covered_hides_them_all(covers: tuple[str, ...]) -> None:
    rewritten = inspect(CLEAR, CATALOGUE, {}, terms=Terms(covers=covers)).rewritten
    assert "pg_get_viewdef(" not in rewritten
    assert "obj_description(" not in rewritten
    assert """WHEN t."adbin" IS NOT NULL THEN '(hidden)' END""" in rewritten


@pytest.mark.parametrize(
    "fields",
    [
        FIELDS,
        {"public.customers": RelationFields(masks={"ssn": HIDE}, others=None)},
        {"public.customers": RelationFields(clear=frozenset({"id", "name", "ssn", "salary"}))},
        {"public.not_there": RelationFields(masks={"x": Mask(MaskKind.NULL)}, others=None)},
    ],
)
def test_one_rule_that_masks_anything_hides_them_all(fields: FieldView) -> None:
    assert "pg_get_viewdef(" not in inspect(CLEAR, CATALOGUE, fields, terms=Terms(covers=EVERY)).rewritten


def test_rules_that_mask_nothing_hide_nothing() -> None:
    fields: FieldView = {"public.customers": RelationFields(clear=frozenset({"id"}), others=None)}
    assert all_clear(fields)
    assert inspect(CLEAR, CATALOGUE, fields, terms=Terms(covers=EVERY)).rewritten == CLEAR


def test_what_is_known_of_one_role_is_not_taken_for_another() -> None:
    fields: FieldView = {}
    assert sights(CATALOGUE, fields, EVERY).in_clear
    assert not sights(CATALOGUE, fields, ("public.*",)).in_clear
    assert sights(CATALOGUE, fields, EVERY).in_clear


def test_others_queries_and_secrets_stay_closed() -> None:
    catalogue = with_system("pg_stat_activity", "pg_subscription", "pg_user_mappings", "pg_settings", "pg_roles")

    def read(sql: str) -> str:
        return inspect(sql, catalogue, {}, terms=Terms(covers=EVERY)).rewritten

    assert 'pg_backend_pid() THEN t."query" END AS "query"' in read("select * from pg_stat_activity")
    assert 't."usename"' in read("select * from pg_stat_activity")
    assert 'NULL::text AS "subconninfo"' in read("select * from pg_subscription")
    assert 'NULL::text AS "umoptions"' in read("select * from pg_user_mappings")
    assert "conninfo" in read("select setting from pg_settings")
    assert "conninfo" in read("select rolconfig from pg_roles")
    assert 't."rolpassword"' in read("select * from pg_roles")


@pytest.mark.parametrize("name", ["pg_authid", "pg_shadow", "pg_statistic", "pg_largeobject", "pg_hba_file_rules",
                                  "pg_ident_file_mappings", "pg_file_settings", "pg_stat_wal_receiver"])  # fmt: skip
def test_secrets_and_files_are_closed_whoever_asks(name: str) -> None:
    for covers in ((), EVERY):
        with pytest.raises(Refusal) as raised:
            inspect(f"select * from {name}", with_system(name), {}, terms=Terms(covers=covers))
        assert raised.value.rule == "catalogue"


def test_of_other_sessions_nothing_is_shown_where_fields_are_masked() -> None:
    rewritten = inspect("select * from pg_stat_activity", with_system("pg_stat_activity"), FIELDS).rewritten
    shown_always = re.findall(r"(?<!THEN )t\.\"(\w+)\"", rewritten)
    assert shown_always == ["oid"]
    assert 'THEN t."query" END' in rewritten


SETTINGS = {
    "work_mem": (True, True),
    "log_statement": (False, True),
    "data_directory": (False, True),
    "plpgsql.variable_conflict": (False, True),
    "primary_conninfo": (False, False),
    "ssl_passphrase_command": (False, False),
    "archive_command": (False, False),
    "ssl_key_file": (False, False),
    "app.jwt": (False, False),
    "app.api_key": (False, False),
    "auto_explain.secret": (False, False),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_could_hold_a_secret_are_not_shown(name: str) -> None:
    masked, clear = SETTINGS[name]
    assert (shown(name, in_clear=False), shown(name, in_clear=True)) == (masked, clear)
    for covers, passes in (((), masked), (EVERY, clear)):
        (statement,) = inspect(f"show {name}", CATALOGUE, {}, terms=Terms(covers=covers)).statements
        # An application's own is shown where a rule names it.
        own = name in ("app.jwt", "plpgsql.variable_conflict") and not passes
        assert statement.facts.settings == ({name} if own else set())
        assert (statement.refusal is None) == (passes or own)
        rewritten = inspect(f"select current_setting('{name}')", CATALOGUE, {}, terms=Terms(covers=covers)).rewritten
        assert (rewritten == f"select current_setting('{name}')") == passes


def test_pgadmin_lists_settings_as_pg_settings_has_them() -> None:
    catalogue = with_system("pg_settings")
    sql = "select set_config('bytea_output','hex',false) from pg_show_all_settings() where name = 'bytea_output'"
    for fields, covers in ((FIELDS, ()), ({}, EVERY)):
        inspection = inspect(sql, catalogue, fields, terms=Terms(covers=covers))
        assert "pg_catalog.pg_settings AS t) AS pg_show_all_settings where name" in inspection.rewritten
        assert "CASE WHEN " in inspection.rewritten
    aliased = inspect("select * from pg_catalog.pg_show_all_settings() as s (a)", catalogue, FIELDS).rewritten
    assert aliased.endswith("FROM pg_catalog.pg_settings AS t) as s (a)")


@pytest.mark.parametrize(
    "sql",
    [
        "select pg_show_all_settings()",
        "select * from pg_show_all_settings() with ordinality",
        "select * from rows from (pg_show_all_settings())",
        "select * from pg_show_all_settings(1)",
        "select * from lateral pg_show_all_settings()",
    ],
)
def test_other_forms_of_it_are_refused(sql: str) -> None:
    catalogue = with_system("pg_settings")
    try:
        rewritten = inspect(sql, catalogue, FIELDS).rewritten
    except Refusal:
        return
    assert "pg_show_all_settings(" not in rewritten


def test_functions_of_sequences_pass_in_clear_only() -> None:
    assert inspect("select pg_sequence_last_value(1)", CATALOGUE, {}, terms=Terms(covers=EVERY))
    with pytest.raises(Refusal):
        inspect("select pg_sequence_last_value(1)", CATALOGUE, FIELDS)


@pytest.mark.parametrize("name", ["pg_read_file", "pg_reload_conf", "lo_import", "query_to_xml"])
def test_functions_that_act_stay_refused(name: str) -> None:
    with pytest.raises(Refusal):
        inspect(f"select {name}('x')", CATALOGUE, {}, terms=Terms(covers=EVERY))


@pytest.mark.parametrize(
    "call",
    [
        "enum_last(null::mood)",
        "enum_range(null::mood)",
        "pg_relation_filenode('orders')",
        "pg_last_wal_replay_lsn()",
        "pg_last_xact_replay_timestamp()",
    ],
)
def test_functions_that_show_what_a_catalogue_does_pass_where_it_is_shown(call: str) -> None:
    name = call.partition("(")[0]
    known = replace(CATALOGUE, builtins=CATALOGUE.builtins | {name})
    assert inspect(f"select {call}", known, {}, terms=Terms(covers=EVERY)).rewritten == f"select {call}"
    with pytest.raises(Refusal, match=f"{name} is not on the list"):
        inspect(f"select {call}", known, FIELDS)


def test_what_a_domain_is_based_on_is_shown_anywhere() -> None:
    sql = "select pg_basetype(t.oid), pg_wal_lsn_diff('0/2', '0/1') from pg_type t"
    assert "pg_basetype(t.oid), pg_wal_lsn_diff('0/2', '0/1')" in inspect(sql, with_system("pg_type"), FIELDS).rewritten
