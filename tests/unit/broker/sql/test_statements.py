"""Each kind of statement: what it does, and what the session must know of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.sql.inspect import inspect
from broker.sql.model import Control, Refusal, Terms
from policies.engine.decisions import Effect
from tests.unit.broker.sql.shop import CATALOGUE, FIELDS, refused
from tests.unit.broker.sql.test_in_clear import with_system


@pytest.mark.parametrize(
    ("sql", "copying"),
    [
        ("copy orders to stdout", "out"),
        ("copy customers to stdout", "out"),
        ("copy (select 1) to stdout", "out"),
        ("copy orders from stdin", "in"),
        ("select 1", ""),
    ],
)
def test_which_way_a_copy_goes_is_a_fact(sql: str, copying: str) -> None:
    (statement,) = inspect(sql, CATALOGUE, FIELDS).statements
    assert statement.facts.copying == copying


def test_what_a_function_says_or_returns_in_the_condition_of_a_copy_is_withheld_like_anywhere_else() -> None:
    sql = "copy orders from stdin where archive.spent(id)"
    assert inspect(sql, CATALOGUE, FIELDS).scrub
    assert not inspect(sql, CATALOGUE, {}, terms=Terms(covers=("*.*",))).scrub
    assert (
        "returns rows of public.customers"
        in refused("copy orders from stdin where (everybody()).ssn like '1%'").message
    )


@pytest.mark.parametrize(
    ("sql", "verb"),
    [
        ("create or replace temp view v as select 1", "CREATE VIEW"),
        ("create unique index on orders (id)", "CREATE INDEX"),
        ("create or replace temp recursive view v (n) as values (1)", "CREATE VIEW"),
        ("create constraint trigger t after insert on orders for each row execute function f()", "CREATE TRIGGER"),
        ("select id into orders_2025 from orders", "CREATE TABLE"),
        ("analyse orders", "ANALYZE"),
        ("lock only orders", "LOCK TABLE"),
        ("revoke select on orders from x", "REVOKE"),
        ("drop table orders", "DROP TABLE"),
        ("table orders", "SELECT"),
        ("vacuum", "VACUUM"),
    ],
)
def test_a_verb_is_the_first_word_and_for_schema_changes_what_they_are_about(sql: str, verb: str) -> None:
    (statement,) = inspect(sql, CATALOGUE, FIELDS).statements
    assert statement.facts.verb == verb


@pytest.mark.parametrize(
    ("sql", "control", "name"),
    [
        ("begin", Control.BEGIN, ""),
        ("commit", Control.COMMIT, ""),
        ("savepoint a", Control.SAVEPOINT, "a"),
        ("release a", Control.RELEASE, "a"),
        ("rollback to a", Control.ROLLBACK_TO, "a"),
        ("prepare p(int) as select $1", Control.PREPARE, "p"),
        ("execute p(1)", Control.EXECUTE, "p"),
        ("deallocate p", Control.DEALLOCATE, "p"),
        ("deallocate all", Control.DEALLOCATE, ""),
        ("copy orders to stdout", Control.COPY_OUT, ""),
        ("copy orders from stdin", Control.COPY_IN, ""),
    ],
)
def test_control_says_what_the_connection_must_remember(sql: str, control: Control, name: str) -> None:
    (statement,) = inspect(sql, CATALOGUE, FIELDS).statements
    assert (statement.control, statement.name) == (control, name)


def test_prepare_keeps_the_users_inner_text() -> None:
    (statement,) = inspect("prepare p(int) as select ssn from customers where id = $1", CATALOGUE, FIELDS).statements
    assert statement.body.strip() == "select ssn from customers where id = $1"


def test_estimates_over_masked_relations_are_hidden() -> None:
    rewritten = inspect("explain (analyze, costs on, format json) select * from customers", CATALOGUE, FIELDS).rewritten
    assert rewritten.startswith("explain (analyze, format json, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF)")
    assert inspect("explain verbose select 1", CATALOGUE, FIELDS).rewritten == "explain verbose select 1"


@pytest.mark.parametrize("options", ["analyze 0", "analyze -0", "analyze false, verbose off", "analyze, analyze 'OFF'"])
def test_a_change_is_not_run_for_a_plan_that_is_not_measured(options: str) -> None:
    """pgAdmin writes all of them out. One that was given as 0 became one that is on, and the change was made."""
    sql = f"explain ({options}) update customers set name = 'x' where id = 1"
    said = inspect(sql, CATALOGUE, FIELDS).rewritten.partition(")")[0].lower()
    assert said.split(", ")[0].removeprefix("explain (") in ("analyze 0", "analyze false", "analyze off")


@pytest.mark.parametrize(
    "options", ["analyze", "analyze 1", "analyze on", "analyze off, analyze", "analyze 0.0", "analyze ''", "analyze no"]
)
def test_a_change_of_masked_rows_is_not_measured(options: str) -> None:
    with pytest.raises(Refusal) as raised:
        inspect(f"explain ({options}) update customers set name = 'x' where id = 1", CATALOGUE, FIELDS)
    assert raised.value.rule == "explain"


def test_a_plan_does_not_show_the_defaults_that_the_catalogue_hides() -> None:
    for sql in ("explain verbose insert into customers (id) values (1)", "explain (verbose) delete from customers"):
        assert inspect(sql, CATALOGUE, FIELDS).rewritten.startswith("explain (COSTS OFF) ")
    for options, left in (("verbose", ""), ("analyze verbose", " (analyze)"), ("(verbose, wal)", " (wal)")):
        insert = "insert into orders (id) values (1)"
        kept = f"explain {options} {insert}"
        assert inspect(kept, CATALOGUE, FIELDS, terms=Terms(covers=("*.*",))).rewritten == f"explain{left} {insert}"
        assert inspect(kept, CATALOGUE, {}, terms=Terms(covers=("*.*",))).rewritten == kept
    read = "explain verbose select ssn from customers"
    assert inspect(read, CATALOGUE, FIELDS).rewritten.startswith("explain (verbose, COSTS OFF) ")


@pytest.mark.parametrize(
    ("sql", "shown"),
    [
        ("select note from orders", "public.orders.note"),
        ("select * from orders", "public.orders.note"),
        ("select id from orders o where o.note = 'x'", "public.orders.note"),
        ("delete from orders where note = 'x'", "public.orders.note"),
        ("select spent(id) from orders", "public.spent(integer)"),
        ("update orders set id = spent('x')", "public.spent(text)"),
    ],
)
def test_a_plan_does_not_show_definitions_that_the_catalogue_hides(sql: str, shown: str) -> None:
    """What is generated as it is read, and a function in SQL, stand written out in a plan."""
    catalogue = replace(CATALOGUE, virtual=frozenset({(16401, 2)}))
    for options in ("", "analyze", "(verbose, costs off)"):
        with pytest.raises(Refusal, match="would show its definition") as raised:
            inspect(f"explain {options} {sql}", catalogue, FIELDS)
        assert raised.value.rule == "explain"
        assert shown.partition("(")[0] in raised.value.message
        inspect(f"explain {options} {sql}", catalogue, {}, terms=Terms(covers=("*.*",)))
    inspect("explain select id from orders", catalogue, FIELDS)


@pytest.mark.parametrize(
    "sql",
    [
        "reset all",
        "reset search_path",
        "set statement_timeout to default",
        "discard all",
        "discard temp",
        "set constraints all immediate",
        "set constraints late, public.later deferred",
        "set standard_conforming_strings = on",
        "set time zone interval '+02:00' hour to minute",
        "set local default_transaction_read_only = on",
        "set transaction_read_only to true",
        "set transaction_isolation = 'repeatable read'",
        "set row_security = on",
        "set row_security = off",
        "set default_statistics_target = 10",
        "set vacuum_cost_delay = 0",
        "set check_function_bodies = false",
        "set default_tablespace = ''",
        "set default_table_access_method = heap",
        "set xmloption = content",
    ],
)
def test_what_only_undoes_a_session_of_its_own_changes_the_session(sql: str) -> None:
    found = inspect(sql, CATALOGUE, FIELDS)
    (statement,) = found.statements
    assert (found.rewritten, statement.refusal, statement.facts.effects) == (sql, None, {Effect.SESSION})
    controls = {"discard all": Control.DISCARD_ALL, "set constraints all immediate": Control.CONSTRAINTS}
    assert statement.control is controls.get(sql, Control.NONE)


@pytest.mark.parametrize(
    "sql",
    [
        "set time zone interval '1 day'",
        "set time zone interval 'ssn' hour to minute",
        "set default_transaction_read_only = off",
        "set transaction_read_only = no",
        "set row_security = maybe",
        "set default_statistics_target = '-1'",
        "set default_tablespace = 'elsewhere'",
        "set xmloption = document",
        "set statement_timeout = '-1s'",
        "set transaction_isolation = 'x'",
    ],
)
def test_what_is_pinned_is_set_to_nothing_else(sql: str) -> None:
    (statement,) = inspect(sql, CATALOGUE, FIELDS).statements
    assert statement.refusal is not None
    assert statement.refusal.rule == "settings"


@pytest.mark.parametrize(
    ("sql", "sent", "lasting"),
    [
        ("set statement_timeout = 5000", "", 5000),
        ("set local idle_in_transaction_session_timeout to '2min'", "", 120_000),
        ("set session transaction_timeout = '1 h'", "", 3_600_000),
        ("begin; set local idle_session_timeout = '7d'", "", 604_800_000),
        ("set statement_timeout = 0", "SET statement_timeout TO DEFAULT", 0),
        ("set local statement_timeout to '0s'", "SET LOCAL statement_timeout TO DEFAULT", 0),
    ],
)
def test_a_timeout_says_how_long_it_is_to_last_and_is_never_without_an_end(sql: str, sent: str, lasting: int) -> None:
    found = inspect(sql, CATALOGUE, FIELDS)
    statement = found.statements[-1]
    assert (found.rewritten, statement.lasting) == (sent or sql, lasting)
    assert (statement.refusal, statement.facts.effects) == (None, {Effect.SESSION})


@pytest.mark.parametrize(
    "value", ["-1", "'-1s'", "'500us'", "1.5", "'1.5min'", "'5 parsecs'", "''", "on", "'5s', '6s'", "99999999999"]
)
def test_what_is_no_whole_time_sets_no_timeout(value: str) -> None:
    assert refused(f"set statement_timeout = {value}").rule == "settings"
    assert refused("select set_config('statement_timeout', '5s', false)").rule == "settings"


@pytest.mark.parametrize(
    ("sql", "writable"),
    [
        ("begin read write", True),
        ("start transaction isolation level serializable, read write", True),
        ("set transaction read write", True),
        ("set session characteristics as transaction read write", True),
        ("begin read only", False),
        ("set session characteristics as transaction isolation level serializable, read only", False),
        ("begin", False),
        ("set timezone to 'UTC'", False),
    ],
)
def test_what_asks_for_transactions_that_may_change_data_says_so(sql: str, writable: bool) -> None:
    (statement,) = inspect(sql, CATALOGUE, FIELDS).statements
    assert (statement.refusal, statement.writable) == (None, writable)


@pytest.mark.parametrize("sql", ["truncate orders, archive.orders restart identity", "lock orders, archive.orders"])
def test_what_is_about_whole_relations_names_them(sql: str) -> None:
    (statement,) = inspect(sql, CATALOGUE, FIELDS).statements
    truncates = sql.startswith("truncate")
    assert statement.refusal is None
    assert statement.facts.writes == {"public.orders", "archive.orders"}
    assert statement.facts.effects == {Effect.WRITE if truncates else Effect.ADMIN}
    assert statement.facts.missing_where == (statement.facts.writes if truncates else set())
    with pytest.raises(Refusal):
        inspect(sql.replace("archive.orders", "nothing"), CATALOGUE, FIELDS)


@pytest.mark.parametrize("sql", ["listen news", "do $$ begin end $$"])
def test_what_could_bring_anything_passes_only_where_nothing_is_masked(sql: str) -> None:
    assert refused(sql).rule == "statement-kind"
    covered = tuple({f"{relation.schema}.*" for relation in CATALOGUE.relations.values()})
    (statement,) = inspect(sql, CATALOGUE, {}, terms=Terms(covers=covered)).statements
    assert statement.refusal is None


@pytest.mark.parametrize(
    ("sql", "said", "next_step"),
    [
        (
            "set synchronize_seqscans to off",
            "pg_dump, which sets synchronize_seqscans",
            r"\copy (select ...) to 'file' csv",
        ),
        ("set nix = 1", "nix is not among the settings that a session may change", "may be set: application_name, "),
        ("set role = 'x'", "role is pinned for this session", "/access asks for another role"),
        ("set backslash_quote = on", "backslash_quote is pinned for this session", "may be set: application_name, "),
        ("set client_encoding = 'LATIN1'", "in UTF-8 only", "SET client_encoding = 'UTF8'"),
        ("set bytea_output = 'base64'", "bytea_output cannot be set to that value", "may be set to: hex, escape"),
        ("show all", "all is not on the list of settings", "from pg_settings where"),
        ("show nix", "nix is not on the list of settings", "from pg_settings where setting is not null"),
    ],
)
def test_a_setting_that_is_refused_says_why_and_what_would_do(sql: str, said: str, next_step: str) -> None:
    refusal = refused(sql)
    assert refusal.rule == "settings"
    assert said in refusal.message
    assert next_step in (refusal.hint or "")


def test_what_is_offered_in_place_of_a_setting_that_is_not_shown_passes() -> None:
    offered = (refused("show nix").hint or "").partition(";")[0]
    assert inspect(offered, with_system("pg_settings"), FIELDS).statements[0].refusal is None


def test_show_all_lists_settings_without_those_that_are_private() -> None:
    written = inspect("begin; show all; commit", with_system("pg_settings"), FIELDS).rewritten
    assert written.startswith("begin; SELECT t.name, CASE WHEN")
    assert written.endswith(
        """FROM pg_catalog.pg_settings AS t ORDER BY pg_catalog.lower(t.name) COLLATE pg_catalog."C"; commit"""
    )
    assert " THEN pg_catalog.current_setting(t.name) END AS setting" in written


def test_a_function_that_is_not_there_is_told_from_one_that_is_refused() -> None:
    assert (refused("select nix(1)").message, refused("select nix(1)").sqlstate) == (
        "there is no function nix under this search path",
        "42883",
    )
    assert refused("select pg_read_file('x')").sqlstate == "42501"


@pytest.mark.parametrize(
    ("sql", "said", "next_step"),
    [
        ("select pg_reload_conf()", "function pg_reload_conf is not on the list", "functions that wait"),
        ("security label on table orders is 'x'", "SECURITY LABEL is work on the server", "ask whoever runs"),
    ],
)
def test_what_is_never_passed_says_what_it_is_and_what_would_do(sql: str, said: str, next_step: str) -> None:
    refusal = refused(sql)
    assert refusal.message.startswith(said)
    assert (refusal.hint or "").startswith(next_step)
