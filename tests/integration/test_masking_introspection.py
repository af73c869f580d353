r"""What clients ask of the catalogue by themselves passes: psql's `\d` family, and drivers' own queries."""

from __future__ import annotations

import asyncio
import difflib
import re
import subprocess
from pathlib import Path

import asyncpg.introspection
import pytest

from broker.sql.inspect import inspect
from broker.sql.model import Refusal
from broker.sql.system import EMPTY, NAMED_ONLY
from tests.integration.postgres_world import endpoint
from tests.integration.two_worlds import FIELDS, World, worlds
from tests.support.broker import POLICY, serving
from tests.support.catalogue import load_catalogue
from tests.support.postgres import CASES, Server
from tests.support.require import older_than, skip_where_older

__all__ = ["worlds"]

COMMANDS = r"""
    \d|\d+|\dS|\d+ customers|\d+ orders|\d+ part|\d+ part2_a|\d+ v_cust|\d+ mv_cust|\d+ s1|\d+ ix_lit|\d+ typed
    |\d+ staff|\da|\dA+|\dAc+|\dAf+|\dAo+|\dAp+|\db+|\dc+|\dC+|\dconfig|\dd|\ddp|\dD+|\dE+|\des+|\det+|\deu+
    |\dew+|\df+|\dF+|\dFd+|\dFp+|\dFt+|\dg+|\di+|\dl+|\dL+|\dm+|\dn+|\do+|\dO+|\dp|\dPn+|\drds|\dRp+|\dRs|\ds+|\dt+|\dT+|\du+
    |\dv+|\dx+|\dX|\dy|\l+|\z
"""
SHOWN = re.compile(r"\*{8,} QUERY \*{8,}/?\n(.*?)\n/?\*{24}", re.S)
DRIVERS = {
    "asyncpg": asyncpg.introspection.INTRO_LOOKUP_TYPES.replace("$1", "array[1007, 3904]"),
    "psycopg": "select typname as name, oid, typarray, oid::regtype::text, typdelim from pg_type t "
    "where t.oid = to_regtype('mood') order by t.oid",
    "jdbc": "select a.attname, (information_schema._pg_expandarray(i.indkey)).n from pg_catalog.pg_class ct join "
    "pg_catalog.pg_attribute a on ct.oid = a.attrelid join pg_catalog.pg_index i on a.attrelid = i.indrelid",
    "django": "select c.conname, array(select attname from unnest(c.conkey) with ordinality cols(colid, arridx) join "
    "pg_attribute as ca on cols.colid = ca.attnum where ca.attrelid = c.conrelid order by cols.arridx), c.contype "
    "from pg_constraint as c join pg_class as cl on c.conrelid = cl.oid where pg_catalog.pg_table_is_visible(cl.oid)",
}


DESCRIBING = "".join(COMMANDS.split("\n")).replace("    ", "").split("|")


@pytest.mark.parametrize("command", DESCRIBING)
def test_psql_can_describe(worlds: tuple[World, World], command: str) -> None:
    server = worlds[0].server
    psql = [server.cluster.install.program("psql"), "-XEc", command, server.url("world", "lvl_read")]
    queries = SHOWN.findall(subprocess.run(psql, capture_output=True, text=True, check=False).stdout)
    assert queries
    for query in queries:
        assert isinstance(worlds[0].run(query), list), (worlds[0].run(query), query)


def test_no_plan_shows_a_definition_that_the_catalogue_hides(postgres: Server) -> None:
    server = postgres
    kept = "virtual" if server.major >= 18 else "stored"
    server.create_database("defined")
    for statement in (
        "create function grade(int) returns text immutable language sql as $$select case $1 when 7 then 'canary' end$$",
        "create function slow(int) returns text immutable language plpgsql as $$begin return 'canary'; end$$",
        f"create table t (id int, k text default lower('canary'), g text generated always as (id || 'canary') {kept})",
    ):
        server.execute(statement, "defined")
    catalogue = load_catalogue(server, "defined")
    for sql in (
        "explain select id from t where g = 'x'",
        "explain verbose select * from t",
        "explain (verbose) insert into t (id) values (7)",
        "explain analyze verbose with one as (insert into t (id) values (7)) select 1",
        "explain verbose select public.grade(id) from t",
        "explain select id from t where public.grade(id) = 'x' or public.slow(id) = 'x'",
        "explain verbose select public.slow(id) from t",
    ):
        try:
            rewritten = inspect(sql, catalogue, FIELDS).rewritten
        except Refusal:
            continue
        assert "canary" not in repr(server.execute(rewritten, "defined")), sql
    inspect("explain verbose select public.slow(id), id from t", catalogue, FIELDS)
    assert bool(catalogue.virtual) == (server.major >= 18)


def tools() -> dict[str, list[str]]:
    """Tool -> what it sends."""
    found: dict[str, list[str]] = {}
    for line in CASES.with_name("introspection.sql").read_text().splitlines()[1:]:
        if line.startswith("-- "):
            found[line[3:]] = sent = []
        else:
            sent.append(line)
    return found


@pytest.mark.parametrize("tool", tools())
def test_tools_can_introspect(worlds: tuple[World, World], tool: str) -> None:
    for sql in tools()[tool]:
        if older_than(sql, worlds[0].server.major):
            continue
        left, right = worlds[0].run(sql), worlds[1].run(sql)
        assert isinstance(left, list), (left, sql)
        assert repr(left) == repr(right), sql


DASHBOARD = (
    "/*pga4dash*/ select 'session_stats' as chart_name, pg_catalog.row_to_json(t) as chart_data from (select "
    "(select count(*) from pg_catalog.pg_stat_activity where datname = 'world') as \"Total\", "
    "(select count(*) from pg_catalog.pg_stat_activity where state = 'active') as \"Active\") t "
    "union all select 'tps_stats' as chart_name, pg_catalog.row_to_json(t) as chart_data from (select "
    '(select sum(xact_commit) + sum(xact_rollback) from pg_catalog.pg_stat_database) as "Transactions", '
    "(select sum(tup_inserted) from pg_stat_database where datname = (select datname from pg_catalog.pg_database "
    'where oid = 1)) as "Inserts", (select sum(blks_hit) from pg_stat_database) as "Hits") t',
    "select pid, datname, usename, application_name, client_addr, "
    "pg_catalog.to_char(backend_start, 'YYYY-MM-DD HH24:MI:SS TZ') as backend_start, state, "
    "wait_event_type || ': ' || wait_event as wait_event, pg_catalog.array_to_string("
    "pg_catalog.pg_blocking_pids(pid), ', ') as blocking_pids, query, backend_type from pg_catalog.pg_stat_activity "
    "where pid = 0 order by pid",
    "select pid, locktype, datname, relation::regclass, page, tuple, virtualxid transactionid, classid::regclass, "
    "objid, objsubid, virtualtransaction, mode, granted, fastpath from pg_catalog.pg_locks l "
    "left outer join pg_catalog.pg_database d on (l.database = d.oid) order by pid, locktype",
    "select case when (select count(extname) from pg_catalog.pg_extension where extname = 'bdr') > 0 then 'pgd' "
    "when (select count(*) from pg_replication_slots) > 0 then 'log' else null end as type",
    "select * from pg_stat_replication order by pid",
    "select * from only pg_replication_slots as s (a, b)",
    "select name, category, setting, unit, short_desc from pg_catalog.pg_show_all_settings() where name <> 'port' "
    "order by category, name",
)
"""What pgAdmin's dashboard asks every second, and on connecting."""


async def test_a_dashboard_goes_on_and_is_told_nothing_of_others_where_fields_are_masked(
    worlds: tuple[World, World], tmp_path: Path
) -> None:
    sessions, *others = DASHBOARD
    assert isinstance(worlds[0].run(sessions), list), worlds[0].run(sessions)
    for sql in others:
        left, right = worlds[0].run(sql), worlds[1].run(sql)
        assert isinstance(left, list), (left, sql)
        assert repr(left) == repr(right), sql
    others_memory = {"pg_catalog.pg_backend_memory_contexts"}  # PostgreSQL itself shows it to few.
    for relation in (EMPTY - others_memory) & worlds[0].catalogue.by_name.keys():
        assert worlds[0].run(f"select count(*) from {relation}") == [("SELECT 1", [(0,)])]
        assert worlds[0].run(f"select * from {relation}") == [("SELECT 0", [])]
        assert worlds[0].run(f"table {relation}") == [("SELECT 0", [])]
    async with serving(tmp_path, endpoint(worlds[0].server, "lvl_read", "world"), policy=EVERYTHING) as broker:
        ticket = broker.ticket()
        asked = ["select count(*) > 0 from pg_locks;", "select sum(xact_commit) > 0 from pg_stat_database;"]
        said = await transcript([*asked, *(f"{sql};" for sql in DASHBOARD)], ticket.dsn(), ticket.password)
    assert [lines[2].strip() for lines in said[:2]] == ["t", "t"]
    assert "ERROR" not in repr(said)


def test_statistics_are_shown_without_their_numbers(worlds: tuple[World, World]) -> None:
    answer = worlds[0].run("select * from pg_stat_user_tables where relname = 'orders' and schemaname = 'public'")
    assert isinstance(answer, list)
    ((_, (row,)),) = answer
    assert tuple(row[1:3]) == ("public", "orders")
    assert set(row[3:]) == {None}
    for relation, names in NAMED_ONLY.items():
        answer = worlds[0].run(f"select to_jsonb(s) - '{{{','.join(names)}}}'::text[] from {relation} s limit 9")
        assert isinstance(answer, list), relation
        assert {value for (row,) in answer[0][1] for value in row.values()} <= {None}, relation
    assert worlds[0].run("select last_value from pg_sequences where sequencename = 's1'") == [("SELECT 1", [(None,)])]


def test_tables_are_as_if_nobody_had_counted_their_rows(worlds: tuple[World, World]) -> None:
    sql = "select reltuples, relpages from pg_class where oid = 'pg_proc'::regclass"
    assert worlds[0].server.execute(sql, "world")[0][0] > 0
    assert worlds[0].run(sql) == [("SELECT 1", [(-1.0, None)])]


def test_what_is_asked_for_no_system_columns_stands_beside_what_is(worlds: tuple[World, World]) -> None:
    for sql in (
        "select c.*, o.xmin is null, o.tableoid::regclass from customers c join orders o on o.id = c.id where c.id = 1",
        "select t.*, c.tableoid from pg_type t join pg_class c on c.oid = t.typrelid where t.oid = 75",
        "select c.xmin is null, v.* from customers c join v_own v on v.id = c.id where c.id = 1",
        "select c.xmin is null, l.label from pg_class c left join pg_seclabels l on l.objoid = c.oid limit 1",
    ):
        assert isinstance(worlds[0].run(sql), list), worlds[0].run(sql)


def test_that_there_is_a_definition_is_shown_and_what_it_is_is_not(worlds: tuple[World, World]) -> None:
    tables = "'watched'::regclass, 'numbered'::regclass, 'bykey'::regclass, 'orders'::regclass, 'part_a'::regclass"
    shown = {
        f"select pg_get_expr(adbin, adrelid) from pg_attrdef where adrelid in ({tables})": {
            "(hidden)",
            "now()",
            "nextval('numbered_id_seq'::regclass)",
        },
        "select column_default from information_schema.columns where table_name = 'watched'": {
            None,
            "(hidden)",
            "now()",
        },
        f"select pg_get_expr(indpred, indrelid) from pg_index where indrelid in ({tables})": {None, "(hidden)"},
        f"select pg_get_indexdef(indexrelid, 1, true) from pg_index where indrelid in ({tables})": {"id", "other"},
        f"select pg_get_partkeydef(oid) from pg_class where oid in ({tables})": {None, "LIST ((hidden))"},
        "select pg_get_partkeydef('parted'::regclass)": {"RANGE (id)"},
        "select pg_get_expr(relpartbound, oid) from pg_class where oid in ('part_a'::regclass, 'parted_1s'::regclass, "
        "'parted_1'::regclass, 'orders'::regclass)": {
            None,
            "DEFAULT",
            "FOR VALUES IN ('(hidden)')",
            "FOR VALUES FROM ('(hidden)') TO ('(hidden)')",
        },
        "select tgname || ' ' || encode(tgargs, 'escape') from pg_trigger where tgrelid = 'watched'::regclass": {
            "told (hidden)",
            "plain ",
        },
        "select pg_get_triggerdef(oid) from pg_trigger where tgrelid = 'watched'::regclass": {
            "(hidden)",
            "CREATE TRIGGER plain AFTER UPDATE OF note ON public.watched FOR EACH ROW EXECUTE FUNCTION watch()",
        },
        "select pg_get_constraintdef(oid) from pg_constraint where conrelid = 'watched'::regclass and contype <> 'n'": {
            "(hidden)",
            "PRIMARY KEY (id)",
            "EXCLUDE USING btree (id WITH =)",
        },
        "select last_value from s1": {None},
    }
    for sql, expected in shown.items():
        answers = [world.run(sql) for world in worlds]
        assert answers[0] == answers[1], sql
        assert isinstance(answers[0], list), (sql, answers[0])
        assert {value for (value,) in answers[0][0][1]} == expected, sql
    assert worlds[0].run("select * from v_stats") == ("refused", "relation-kind")


def test_a_star_beside_system_columns_lists_the_columns_alone(worlds: tuple[World, World]) -> None:
    for sql in (
        "select t.oid, t.xmin is null, t.*, c.relname from pg_trigger t join pg_class c on c.oid = t.tgrelid",
        "select ctid is null, * from customers where id < 3",
        "select c.*, c.ctid is null, o.* from customers c join orders o using (id) where c.id < 3",
        "select (select ctid is null from customers o where o.id = c.id), c.* from customers c where id = 1",
        'with x as (select c.*, c.xmin is null as "ssn " from only customers c) select x.* from x where id = 1',
        "select s1.*, s1.xmin is null from s1",
        "select c.ctid is null, x.* from customers c, lateral (select c.* from orders c) x where c.id = 1 and x.id = 1",
    ):
        left, right = worlds[0].run(sql), worlds[1].run(sql)
        assert isinstance(left, list), (sql, left)
        assert left == right, sql
        described = worlds[0].connection.execute(sql.encode()).description
        worlds[0].connection.execute("rollback")
        assert len(left[0][1][0]) == len(described or ()), sql
    for sql in (
        "select c.ctid, row_to_json(c) from customers c",
        "select *, c.ctid from customers c join orders o on o.id = c.id",
        "select c.ctid, x.* from customers c, lateral (select c.*) x",
        "with x as (table customers) select *, xmin from x, orders",
    ):
        assert worlds[0].run(sql) in (("refused", "system-column"), ("refused", "rewrite")), sql


def test_of_other_sessions_only_their_being_is_shown(worlds: tuple[World, World]) -> None:
    plain = "'{pid,datid,datname,backend_start,backend_type,leader_pid}'::text[]"
    for relation in ("pg_stat_activity", "pg_stat_ssl", "pg_stat_gssapi"):
        answer = worlds[0].run(f"select to_jsonb(a) - {plain} from {relation} a where pid <> pg_backend_pid()")
        assert isinstance(answer, list)
        assert answer[0][1] or relation != "pg_stat_activity"
        assert {value for (row,) in answer[0][1] for value in row.values()} <= {None}, relation
    own = worlds[0].run("select usename, query from pg_stat_activity where pid = pg_backend_pid()")
    assert isinstance(own, list)
    assert own[0][1][0][0] == "lvl_read"
    assert "pg_stat_activity" in own[0][1][0][1]


@pytest.mark.parametrize("driver", DRIVERS)
def test_drivers_can_introspect(worlds: tuple[World, World], driver: str) -> None:
    skip_where_older(DRIVERS[driver], worlds[0].server.major)
    assert isinstance(worlds[0].run(DRIVERS[driver]), list), worlds[0].run(DRIVERS[driver])


EVERYTHING = POLICY[: POLICY.index("fields:")].replace('["public.*"]', '["public.*", "evil.*", "closed.*"]')
"""Nothing is masked, and every relation is covered."""
STATISTICS = (
    "select * from pg_stats where schemaname = 'public' order by 1, 2, 3",
    "select attrelid::regclass, attname, attmissingval from pg_attribute where atthasmissing",
    "select proname, prosrc from pg_proc where pronamespace = 'public'::regnamespace order by 1",
    "select relname, reltuples, relpages, pg_get_expr(relpartbound, oid) from pg_class where oid >= 16384 order by 1",
    "select pg_get_functiondef('fsrc'::regproc), pg_get_viewdef('vlit'::regclass), pg_database_size('world') > 0",
    "explain select * from v_cust where id = 1",
    "select last_value, is_called from pg_sequences, lateral (select false) x (is_called) order by 1",
)
"""What holds literals, beside what tools ask for."""
DIFFERENT = {
    r"\dconfig": "the broker's own pins are among the session's settings, and where secrets could be is not shown",
    "show search_path": "it is pinned, and written as the broker writes it",
}
"""What is different through the broker where nothing is masked, and why."""


async def transcript(asked: list[str], dsn: str, password: str, *before: str) -> list[list[str]]:
    """What psql prints for each of some commands, in one session."""
    script = "\n".join([*before, *(f"\\echo ~~~~\n{each}" for each in asked)])
    process = await asyncio.create_subprocess_exec(
        *("psql", "--no-psqlrc", "--quiet", "--file", "-", dsn),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PGPASSWORD": password},
    )
    output, _ = await asyncio.wait_for(process.communicate(script.encode()), 120)
    lines = re.sub(r"(?m)^psql:<stdin>:\d+: ", "", output.decode())
    return [each.splitlines() for each in lines.split("~~~~\n")[1:]]


async def test_where_nothing_is_masked_the_catalogue_is_what_it_is_directly(
    worlds: tuple[World, World], tmp_path: Path
) -> None:
    server = worlds[0].server
    queries = [sql for sent in tools().values() for sql in sent] + [*DRIVERS.values(), *STATISTICS]
    asked = [*DESCRIBING, *(f"{sql};" for sql in queries if not older_than(sql, server.major))]
    async with serving(tmp_path, endpoint(server, "lvl_read", "world"), policy=EVERYTHING) as broker:
        ticket = broker.ticket()
        path = "set search_path = public, pg_temp;"
        direct = await transcript(asked, server.url("world", "lvl_read"), "lvl_read-password", path)
        through = await transcript(asked, ticket.dsn(), ticket.password)
    assert len(direct) == len(through) == len(asked)
    shown = {
        each.rstrip(";"): list(difflib.unified_diff(left, right, lineterm="", n=0))[:20]
        for each, left, right in zip(asked, direct, through, strict=True)
        # What others do is never twice the same: the broker's own connection may be amid a transaction.
        if left != right and "pg_stat_activity" not in each
    }
    assert set(shown) == set(DIFFERENT), shown


async def test_a_relation_that_is_not_covered_hides_every_literal(worlds: tuple[World, World], tmp_path: Path) -> None:
    server = worlds[0].server
    policy = EVERYTHING.replace(', "closed.*"]', "]")
    async with serving(tmp_path, endpoint(server, "lvl_read", "world"), policy=policy) as broker:
        ticket = broker.ticket()
        said = await transcript([f"{sql};" for sql in STATISTICS], ticket.dsn(), ticket.password)
    text = "\n".join(line for lines in said for line in lines)
    assert "canary" not in text
    assert "hidden" in text


def test_sizes_are_told_but_of_what_nobody_may_count(worlds: tuple[World, World]) -> None:
    sql = "select pg_relation_size('bykey_7'), pg_table_size('mv_rank'), pg_relation_size('orders')"
    assert worlds[0].run(sql) == worlds[1].run(sql) == [("SELECT 1", [(None, None, 8192)])]
