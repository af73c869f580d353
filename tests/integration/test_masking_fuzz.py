"""Random statements, judged: two worlds must look the same, and masks that change nothing must change no answer.

`AIRLOCK_FUZZ=N` tries N statements of each kind on each server, `AIRLOCK_SEED` begins elsewhere.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator

import psycopg
import pytest

from broker.sql.catalogue import Catalogue
from broker.sql.inspect import inspect
from broker.sql.model import Refusal
from tests.integration.sql_grammar import Grammar, mutant
from tests.integration.two_worlds import FIELDS, OBJECTS, World, texts, worlds
from tests.support.catalogue import load_catalogue
from tests.support.postgres import load_world

__all__ = ["worlds"]

COUNT = int(os.environ.get("AIRLOCK_FUZZ", "150"))
SEED = int(os.environ.get("AIRLOCK_SEED", "0"))
SEEDS = range(SEED, SEED + COUNT)
CHANGING = re.compile(
    "analy|now|clock|current|local|time|pid|random|uuid|port|snapshot|txid|xact|settings|show|ctid", re.I
)
"""Words of statements that two servers answer differently by nature; `ctid` follows the sizes of rows."""
EQUAL = """
    alter table customers drop constraint customers_ssn_key;
    update customers set ssn = '***', email = '***', dob = null, salary = null;
    update part set ssn = '***';
    update gone set ssn = '***';
    update people set ssn = '***';
    update parted set ssn = '***';
    insert into customers (id, name, ssn, email) select 1000 + g, {texts}, '***', '***' from generate_series(1, 60) g;
    insert into orders (id, customer_id, note) select 1000 + g, {numbers}, {texts} from generate_series(1, 60) g;
    refresh materialized view mv_cust;
    analyze;
"""
"""Makes every masked value what its mask shows, and all others random."""


@pytest.fixture(scope="module")
def equal(worlds: tuple[World, World]) -> Iterator[tuple[Catalogue, psycopg.Connection]]:
    server = worlds[0].server
    load_world(server, "equal", "A")
    assert server.psql(OBJECTS, "equal").returncode == 0
    choices = [
        "null",
        "''",
        "'name' || g",
        "repeat('7', 1 + g % 12)",
        "md5((g + {seed})::text)",
        "chr(1000 + g) || '%_'",
    ]
    texts = f"(array[{', '.join(choices)}])[1 + (hashint4(g + {{seed}}) & 7) % {len(choices)}]"
    numbers = "nullif(hashint4(g + {seed}) % 1500, 0)"
    rows = EQUAL.format(texts=texts, numbers=numbers).format(seed=SEED)
    done = server.psql(rows, "equal")
    assert done.returncode == 0, done.stderr
    with server.connect("equal", "lvl_read", prepare_threshold=None) as connection:
        connection.execute("set search_path = public, pg_temp")
        connection.execute("set statement_timeout = '10s'")
        yield load_catalogue(server, "equal"), connection


def test_random_statements_do_not_tell_two_worlds_apart(worlds: tuple[World, World]) -> None:
    ran = 0
    for seed in SEEDS:
        sql = Grammar(seed).statement()
        left, right = worlds[0].run(sql), worlds[1].run(sql)
        assert repr(left) == repr(right), (seed, sql)
        ran += isinstance(left, list)
    assert ran > COUNT * 0.6, "most random statements should run"


def test_mutants_of_the_corpus_do_not_tell_two_worlds_apart(worlds: tuple[World, World]) -> None:
    corpus = [sql for _, sql, _ in texts()]
    for seed in SEEDS:
        sql = mutant(corpus, random.Random(seed))
        if not CHANGING.search(sql):
            assert repr(worlds[0].run(sql)) == repr(worlds[1].run(sql)), (seed, sql)


def test_masks_that_change_no_value_change_no_answer(equal: tuple[Catalogue, psycopg.Connection]) -> None:
    catalogue, connection = equal
    for seed in SEEDS:
        sql = Grammar(seed).statement()
        if sql.startswith("select"):
            try:
                rewritten = inspect(sql, catalogue, FIELDS).rewritten
            except Refusal as refusal:
                pytest.fail(f"{seed} refused: {refusal.message}: {sql}")
            answers = _answer(connection, rewritten), _answer(connection, sql)
            assert "slow" in answers or answers[0] == answers[1], (seed, sql)


def test_where_every_field_is_clear_a_text_is_sent_as_it_came(equal: tuple[Catalogue, psycopg.Connection]) -> None:
    for seed in SEEDS:
        sql = Grammar(seed).statement()
        assert inspect(sql, equal[0], {}).rewritten == sql


def _answer(connection: psycopg.Connection, sql: str) -> object:
    try:
        return sorted(map(repr, connection.execute(sql.encode()).fetchall()))
    except psycopg.errors.QueryCanceled:
        return "slow"
    except psycopg.Error as error:
        return error.sqlstate
