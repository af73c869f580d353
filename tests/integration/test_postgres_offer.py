"""What the protocol offers beside sessions: ticket lines that a shell runs, previews, and workers that may die."""

import asyncio
import os
import shlex
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from broker.errors import UpstreamUnavailable
from broker.protocols import offers
from broker.protocols.postgres import OFFER, codec
from broker.protocols.postgres.workers import WorkerFailed, Workers
from broker.sql.catalogue import Catalogue
from broker.sql.model import Inspection
from policies.engine.decide import field_view
from policies.engine.decisions import FieldView
from policies.engine.load import read_texts
from tests.integration.postgres_world import endpoint, enter, make_world, psql, raw
from tests.support.broker import POLICY, TestBroker, serving
from tests.support.postgres import Server


@pytest.fixture
async def served(wheel_postgres: Server, tmp_path: Path) -> AsyncIterator[TestBroker]:
    async with serving(tmp_path, make_world(wheel_postgres)) as broker:
        yield broker


def test_the_protocol_is_discovered() -> None:
    assert offers()["postgres"] is OFFER


async def test_the_ticket_line_runs_when_pasted_into_a_shell(served: TestBroker) -> None:
    ticket = served.ticket()
    shown = OFFER.ticket_line("prod-db", ticket.user, ticket.password, "127.0.0.1", served.port)
    assert shown.line == (
        f'PGPASSWORD={shlex.quote(ticket.password)} psql "host=127.0.0.1 port={served.port} dbname=prod-db '
        f'user={ticket.user} sslmode=require"'
    )
    assert set(shown.fields) == {"host", "port", "database", "user", "password"}
    done = await asyncio.to_thread(
        subprocess.run, ["sh", "-c", f"{shown.line} -XAtc 'select 1'"], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_a_password_cannot_leave_its_quotes() -> None:
    line = OFFER.ticket_line("r", "u", "a'; rm -rf $HOME `x`", "h", 1).line
    assert shlex.split(line)[0] == "PGPASSWORD=a'; rm -rf $HOME `x`"


async def test_a_preview_says_what_would_happen_and_runs_nothing(wheel_postgres: Server) -> None:
    end, policy = make_world(wheel_postgres), read_texts({"test.yaml": POLICY})
    told = await OFFER.preview(policy, "alice", "prod-db", "read", "select * from people", end)
    assert told["decision"] == "allow"
    assert told["rules"] == ["reads"]
    assert told["effects"] == ["read"]
    assert told["relations"] == ["public.people"]
    assert told["masked"] == ["public.people.ssn"]
    assert "***" in told["rewritten"]
    told = await OFFER.preview(policy, "alice", "prod-db", "read", "drop table people", end)
    assert (told["decision"], told["rules"]) == ("deny", ["ddl-masked"])
    told = await OFFER.preview(policy, "alice", "prod-db", "ask", "insert into log (what) values ('x')", end)
    assert (told["decision"], told["rules"]) == ("ask", ["asked"])
    assert told["hint"] == "Bob or Dana could approve it"
    offers = POLICY.replace(
        "{count: 1, groups: [dbas]}}\nfields", "{count: 1, groups: [dbas]}, max_rows: 5, shape: grant}\nfields"
    )
    shaped = read_texts({"test.yaml": offers})
    told = await OFFER.preview(shaped, "alice", "prod-db", "ask", "insert into log (what) values ('x')", end)
    shape = "insert into log (what) values ($1)"
    assert told["hint"] == f"Bob or Dana could approve it; they may approve its shape too: {shape}"
    told = await OFFER.preview(policy, "alice", "prod-db", "read", "selec", end)
    assert told["decision"] == "deny"
    assert wheel_postgres.execute("select count(*) from log", "shop") == [(0,)]


async def test_a_preview_asks_the_planner_where_a_rule_depends_on_it(wheel_postgres: Server) -> None:
    end, policy = make_world(wheel_postgres), read_texts({"test.yaml": POLICY})
    wheel_postgres.execute("insert into log (what) select 'x' from generate_series(1, 2000)", "shop")
    wheel_postgres.execute("analyze log", "shop")

    async def told(sql: str) -> tuple[str, str, list[str]]:
        found = await OFFER.preview(policy, "alice", "prod-db", "sized", sql, end)
        return found["decision"], found["expected"], found["rules"]

    few, many = "update log set what = 'y' where id = 1", "update log set what = 'y' where id > 0"
    assert await told(few) == ("allow", "about 1 row, says the planner", ["sized"])
    assert (await told(many))[:2] == ("deny", "about 2,000 rows, says the planner")
    assert wheel_postgres.execute("select count(*) from log where what = 'y'", "shop") == [(0,)]


async def test_a_preview_says_why_a_column_of_a_view_is_masked(wheel_postgres: Server) -> None:
    end, policy = make_world(wheel_postgres), read_texts({"test.yaml": POLICY})
    wheel_postgres.execute("create view cards as select id, left(ssn, 3) as area from people", "shop")
    wheel_postgres.execute("grant select on cards to app", "shop")
    told = await OFFER.preview(policy, "alice", "prod-db", "read", "select * from cards", end)
    assert told["masked"] == ["public.cards.area (by lineage from public.people.ssn)"]
    assert told["relations"] == ["public.cards"]
    wheel_postgres.execute("create view rich as select id from people where ssn > '5'", "shop")
    told = await OFFER.preview(policy, "alice", "prod-db", "read", "select * from rich", end)
    assert (told["decision"], told["rules"]) == ("deny", ["relation-rows"])
    assert "follows public.people.ssn" in told["message"]


async def test_a_preview_of_an_upstream_that_is_down_says_so(wheel_postgres: Server) -> None:
    policy = read_texts({"test.yaml": POLICY})
    with pytest.raises(UpstreamUnavailable):
        await OFFER.preview(policy, "alice", "prod-db", "read", "select 1", endpoint(wheel_postgres, "app", port=1))


async def test_long_statements_are_decided_as_short_ones_are(served: TestBroker) -> None:
    async with await psycopg.AsyncConnection.connect(served.ticket().dsn(), autocommit=True) as connection:
        padding = " or ".join(f"id = {n}" for n in range(2, 900))
        found = await connection.execute(f"select ssn from people where id = 1 or {padding} order by id".encode())
        assert await found.fetchall() == [("***",), ("***",)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="airlock"):
            await connection.execute(f"drop table people; select 1 where {padding.replace('id', '1')}".encode())


HOSTILE = {
    "a long sum": "select " + "1+" * 30_000 + "1",
    "nested comments": "/*" * 20_000 + "*/" * 20_000 + "select 1",
    "nested parentheses": "select " + "(" * 20_000 + "1" + ")" * 20_000,
    "too long": "select '" + "x" * 200_000 + "'",
    "a long union": " union all ".join(["select 1"] * 8_000),
    "nested cases": "select " + "case when true then " * 3_000 + "1" + " end" * 3_000,
    "operators in a row": "select 1" + "+" * 120_000,
    "assignments": "update notes set (" + "id," * 6_000 + "id) = (select " + "id," * 6_000 + "id)",
    "words": "grant select on a" + ",a" * 60_000 + " to b",
}


async def test_hostile_statements_cost_their_sender_an_error_and_nobody_anything(
    served: TestBroker, subtests: pytest.Subtests
) -> None:
    async with (
        await psycopg.AsyncConnection.connect(served.ticket().dsn(), autocommit=True) as hostile,
        await psycopg.AsyncConnection.connect(served.ticket().dsn(), autocommit=True) as other,
    ):

        async def attack(text: str) -> None:
            with pytest.raises(psycopg.Error, match="airlock"):
                await hostile.execute(text.encode())

        for name, text in HOSTILE.items():
            with subtests.test(name):
                running, slowest = asyncio.create_task(attack(text)), 0.0
                while not running.done():
                    # The broker's own time, for a wall's clock goes on where others have the processor.
                    begun = time.thread_time()
                    await asyncio.wait_for(other.execute("select 1"), 10)
                    slowest = max(slowest, time.thread_time() - begun)
                    await asyncio.sleep(0.01)
                await running
                assert slowest < 0.25
                found = await hostile.execute("select 1")
                assert await found.fetchone() == (1,)


async def test_a_flood_of_statements_does_not_keep_others_from_theirs(served: TestBroker) -> None:
    hard = "select " + ",".join(f"coalesce(id + {{0}}, {n})" for n in range(30)) + " from notes where false"
    with raw(served.port) as flooding, raw(served.port) as other:
        await asyncio.to_thread(enter, flooding, served.ticket())
        await asyncio.to_thread(enter, other, served.ticket())

        def decided() -> int:
            return len(served.recorder.of("statement.allowed"))

        # Each text is another, so that none is known already.
        flood = b"".join(codec.query(hard.replace("{0}", str(n))) for n in range(200))
        await asyncio.to_thread(flooding.send, flood)
        await served.until(lambda: decided() > 0)
        counts = []
        for n in range(5):
            other.send(codec.query(f"select {n}"))
            await asyncio.to_thread(other.until, "Z")
            counts.append(decided())
        assert counts[-1] < 200, counts
        await served.until(lambda: decided() == 205, seconds=60)


async def test_each_person_has_one_worker_at_a_time() -> None:
    workers = Workers(count=2, seconds=60)
    catalogue, view = _nothing_known()
    try:
        await asyncio.gather(*(workers.inspect("select 1", catalogue, view, person) for person in ("alice", "bob")))
        first, second = workers._idle
        os.kill(second.process.pid, signal.SIGSTOP)  # the next to be asked
        stalled = [asyncio.create_task(workers.inspect("select 1", catalogue, view, "alice")) for _ in range(5)]
        await asyncio.sleep(0)
        found, _ = await workers.inspect("select 1", catalogue, view, "bob")
        assert isinstance(found, Inspection)
        assert not any(task.done() for task in stalled)
        os.kill(second.process.pid, signal.SIGCONT)
        assert all(isinstance(found, Inspection) for found, _ in await asyncio.gather(*stalled))
        assert workers._all == {first, second}
    finally:
        await workers.close()


def _nothing_known() -> tuple[Catalogue, FieldView]:
    catalogue = Catalogue("v", ("pg_catalog", "public"), {}, frozenset(), frozenset(), frozenset(), {})
    return catalogue, field_view(read_texts({"test.yaml": POLICY}), "alice", "prod-db")


async def test_a_worker_that_dies_is_replaced() -> None:
    workers = Workers(count=1)
    catalogue, view = _nothing_known()
    try:
        found, _ = await workers.inspect("select 1", catalogue, view)
        assert isinstance(found, Inspection)
        (worker,) = workers._all
        os.kill(worker.process.pid, signal.SIGSTOP)
        begun = time.monotonic()
        with pytest.raises(WorkerFailed):
            await workers.inspect("select 1", catalogue, view)
        assert time.monotonic() - begun < 10
        found, _ = await workers.inspect("select 2", catalogue, view)
        assert isinstance(found, Inspection)
    finally:
        await workers.close()
    assert not workers._all


async def test_psql_prints_the_denial_of_a_long_statement(served: TestBroker) -> None:
    _, _, errors = await psql(served.ticket(), "select " + "1+" * 30_000 + "1")
    assert "airlock:" in errors
