r"""What clients ask of the catalogue by themselves passes: psql's `\d` family, and drivers' own queries."""

from __future__ import annotations

import re
import subprocess

import asyncpg.introspection
import pytest

from tests.integration.test_masking_corpus import World, worlds
from tests.support.postgres import CASES

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


@pytest.mark.parametrize("command", "".join(COMMANDS.split("\n")).replace("    ", "").split("|"))
def test_psql_can_describe(worlds: tuple[World, World], command: str) -> None:
    server = worlds[0].server
    psql = [server.cluster.install.program("psql"), "-XEc", command, server.url("world", "lvl_read")]
    queries = SHOWN.findall(subprocess.run(psql, capture_output=True, text=True, check=False).stdout)
    assert queries
    for query in queries:
        assert isinstance(worlds[0].run(query), list), (worlds[0].run(query), query)


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
        left, right = worlds[0].run(sql), worlds[1].run(sql)
        assert isinstance(left, list), (left, sql)
        assert repr(left) == repr(right), sql


def test_statistics_are_shown_without_their_numbers(worlds: tuple[World, World]) -> None:
    answer = worlds[0].run("select * from pg_stat_user_tables where relname = 'orders' and schemaname = 'public'")
    assert isinstance(answer, list)
    ((_, (row,)),) = answer
    assert tuple(row[1:3]) == ("public", "orders")
    assert set(row[3:]) == {None}


@pytest.mark.parametrize("driver", DRIVERS)
def test_drivers_can_introspect(worlds: tuple[World, World], driver: str) -> None:
    assert isinstance(worlds[0].run(DRIVERS[driver]), list), worlds[0].run(DRIVERS[driver])
