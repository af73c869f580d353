"""Search paths that a session sets: which, as what they are sent, and what names mean under them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.sql.building import build
from broker.sql.catalogue import Catalogue
from broker.sql.inspect import inspect
from broker.sql.model import Moves, Refusal, Terms
from broker.sql.paths import asked, confirmed, listed, written
from policies.engine.decisions import Effect, FieldView, RelationFields
from tests.support.catalogue import described

HIDDEN: FieldView = {"public.people": RelationFields(clear=frozenset({"id"}))}
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=15)


def catalogue() -> Catalogue:
    """Tables of one name in two schemas; `app.loose`, and a change of `app.traced`, run code that looks names up."""
    tables = [("public", "people"), ("app", "people"), ("public", "notes"), ("app", "traced"), ("app", "plain")]
    more = {"kind": "r", "rules": False, "row_security": False}
    kinds = {"type": "text", "typname": "text", "typschema": "pg_catalog", "category": "S", "base": None}
    relations = [
        {"oid": oid, "schema": schema, "name": name, "follows": name == "traced", **more}
        for oid, (schema, name) in enumerate(tables, 20000)
    ]
    columns = [
        {"oid": oid, "attnum": attnum, "name": name, **kinds}
        for oid in range(20000, 20000 + len(tables))
        for attnum, name in enumerate(("id", "ssn"), 1)
    ]
    rows = {
        **described(relations, columns),
        "functions": [{"schema": "app", "name": name, "single": False, "loose": False} for name in ("loose", "tight")],
        "overloads": [
            {"schema": "app", "name": name, "arguments": [], "acting": False, "returns": 0, "builtin": False}
            | {"follows": name == "loose"}
            for name in ("loose", "tight")
        ],
        **{name: [] for name in ("attributes", "builtins", "encoding", "operators", "views", "generated", "types")},
    }
    return build(rows, ["public"], 150018)


CATALOGUE = catalogue()


def refusal(sql: str, path: tuple[str, ...] | None = None) -> str:
    with pytest.raises(Refusal) as raised:
        inspect(sql, CATALOGUE, HIDDEN, terms=Terms(path=path))
    return raised.value.rule


SENT = {
    "set search_path to app": 'SET search_path TO "app", pg_temp',
    'SET  SESSION search_path = App, "Two Words" , pg_temp ;': 'SET search_path TO "app", "Two Words", pg_temp ;',
    "set local search_path = 'it''s', app, app -- so": 'SET LOCAL search_path TO "it\'s", "app", pg_temp -- so',
    "set search_path = pg_catalog, app": 'SET search_path TO "app", pg_temp',
    "set search_path = ''": "SET search_path TO pg_catalog, pg_temp",
    "set search_path = pg_catalog": "SET search_path TO pg_catalog, pg_temp",
    "set schema 'app'": 'SET search_path TO "app", pg_temp',
    "select pg_catalog.set_config('search_path', '', false)": (
        "select pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', false)"
    ),
    "select set_config('search_path', 'App, \"B\"', true) as x": (
        "select set_config('search_path', '\"app\", \"B\", pg_temp', true) as x"
    ),
    "begin; set local search_path = app": 'begin; SET LOCAL search_path TO "app", pg_temp',
}


@pytest.mark.parametrize("sql", SENT)
def test_a_path_is_sent_as_the_broker_writes_it_with_what_is_temporary_last(sql: str) -> None:
    found = inspect(sql, CATALOGUE, HIDDEN)
    assert found.rewritten == SENT[sql]
    assert found.statements[-1].moves is Moves.ELSEWHERE
    assert Effect.SESSION in found.statements[-1].facts.effects


@pytest.mark.parametrize("sql", ["reset search_path", "set search_path to default", "reset all", "discard all"])
def test_the_way_back_is_sent_as_it_came(sql: str) -> None:
    found = inspect(sql, CATALOGUE, HIDDEN)
    assert (found.rewritten, found.statements[0].moves) == (sql, Moves.BACK)


@given(st.lists(NAMES, max_size=6))
def test_what_is_written_is_read_back_as_it_was_meant(names: list[str]) -> None:
    try:
        path = asked(names)
    except Refusal:
        return
    assert confirmed(written(path)) == path


@given(st.text('" ,aA\t$\\pg_temp', max_size=12))
def test_reading_a_list_of_names_never_fails(value: str) -> None:
    names = listed(value)
    assert names is None or all("," not in name or '"' in value for name in names)


def test_names_mean_what_they_mean_under_the_path_that_is_set() -> None:
    sql = "select ssn from people"
    masked, clear = (
        inspect(sql, CATALOGUE, HIDDEN),
        inspect(sql, CATALOGUE, HIDDEN, terms=Terms(path=("app", "public"))),
    )
    assert (masked.statements[0].facts.reads, clear.statements[0].facts.reads) == ({"public.people"}, {"app.people"})
    assert '"public"."people"' in masked.rewritten
    assert clear.rewritten == sql
    assert masked.catalogue != clear.catalogue
    behind = inspect(sql, CATALOGUE, HIDDEN, terms=Terms(path=("nowhere", "public", "app")))
    assert behind.rewritten == masked.rewritten
    assert refusal("select * from notes", ("app",)) == "relation-unknown"
    assert refusal("select * from people", ()) == "relation-unknown"
    assert (
        inspect("select * from public.people", CATALOGUE, HIDDEN, terms=Terms(path=())).rewritten
        != "select * from public.people"
    )


def test_under_masks_code_that_looks_names_up_is_refused_under_another_path() -> None:
    path = ("app",)
    for sql in (
        "select loose()",
        "insert into traced (id) values ('1')",
        "update traced set id = '1' where id = '2'",
        "truncate traced",
        "copy traced from stdin",
    ):
        assert refusal(sql, path) == "search-path", sql
    for sql in ("select tight()", "insert into plain (id) values ('1')", "select * from traced", "lock table traced"):
        inspect(sql, CATALOGUE, HIDDEN, terms=Terms(path=path))
    for sql in ("select app.loose()", "insert into app.traced (id) values ('1')"):
        inspect(sql, CATALOGUE, HIDDEN)
    changed = inspect("create table t (id int)", CATALOGUE, HIDDEN, terms=Terms(path=path)).statements[0]
    assert changed.refusal is not None
    assert changed.refusal.rule == "search-path"


def test_where_nothing_is_masked_it_is_left_to_rules_about_all_code() -> None:
    for sql in ("select loose()", "insert into traced (id) values ('1')", "alter table traced add x int"):
        (under,) = inspect(sql, CATALOGUE, {}, terms=Terms(covers=("*.*",), path=("app",))).statements
        (pinned,) = inspect(sql.replace("traced", "app.traced"), CATALOGUE, {}, terms=Terms(covers=("*.*",))).statements
        assert any("under another search path" in one for one in under.facts.code), sql
        assert not any("under another search path" in one for one in pinned.facts.code)


@pytest.mark.parametrize(
    "sql", ["vacuum traced", "analyze app.plain", "reindex table app.traced", "cluster app.traced"]
)
def test_upkeep_passes_under_any_path_where_the_server_has_one_of_its_own_for_it(sql: str) -> None:
    newer = replace(CATALOGUE, server_version=170000, version="newer")
    for known, fields, passes in ((CATALOGUE, {}, False), (newer, HIDDEN, False), (newer, {}, True)):
        (upkeep,) = inspect(sql, known, fields, terms=Terms(covers=("*.*",), path=("app",))).statements
        assert (upkeep.refusal is None) == passes
        assert not passes or not upkeep.facts.code
