"""Real clients whose statements are held: nothing passes before the answer, and an approval runs one statement once."""

import asyncio
import signal
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest

from broker.protocols.postgres import codec
from broker.sessions.model import CloseReason
from broker.sessions.services import Refusal
from policies.engine.load import read_texts
from tests.integration.postgres_world import (
    backends,
    connected,
    endpoint,
    enter,
    make_world,
    problem,
    psql,
    raw,
    written,
)
from tests.support.broker import POLICY, TestBroker, serving
from tests.support.postgres import Server
from workflows.reviews import Answer

WRITE = "insert into log (what) values ('held')"


@pytest.fixture
async def served(postgres: Server, tmp_path: Path) -> AsyncIterator[TestBroker]:
    read = make_world(postgres)
    write = endpoint(postgres, "app_write")
    async with serving(tmp_path, read, write=write, ask=write, ask_first=write) as broker:
        yield broker


async def test_a_held_statement_waits_in_psql_and_runs_once_it_is_approved(
    served: TestBroker, postgres: Server
) -> None:
    # The grant outlives the hold by far, however slowly psql starts.
    ticket = served.ticket(role="ask", lasts=3600)
    running = asyncio.create_task(psql(ticket, WRITE, "select count(*) from log"))
    hold = await served.held()
    assert (hold.state, hold.text, hold.person, hold.needs) == (
        "waiting",
        WRITE,
        "alice",
        [{"count": 1, "groups": ["dbas"]}],
    )
    await asyncio.sleep(0.2)
    assert postgres.execute("select count(*) from log", "shop") == [(0,)]
    assert (await served.answer(hold)).state in ("released", "consumed")
    status, output, errors = await running
    assert (status, output) == (0, "INSERT 0 1\n1\n")
    assert "airlock: waiting for 1 of dbas (Bob or Dana) to review this statement, up to 10m; Ctrl-C gives up" in errors


async def test_a_refused_statement_says_who_and_why(served: TestBroker, postgres: Server) -> None:
    running = asyncio.create_task(psql(served.ticket(role="ask"), WRITE))
    await served.answer(await served.held(), Answer.DENY, reason="use staging")
    status, _, errors = await running
    assert status == 1
    assert "ERROR:  airlock: Bob refused this statement: use staging" in errors
    assert postgres.execute("select count(*) from log", "shop") == [(0,)]


async def test_nothing_of_a_held_statement_reaches_the_server_before_its_release(
    served: TestBroker, postgres: Server
) -> None:
    def seen(mark: str) -> list[str]:
        # All but the planner's estimate, which runs nothing.
        lines = postgres.log.read_text().splitlines()
        return [line for line in lines if mark in line and "prepare airlock_" not in line]

    postgres.execute("alter role app_write set log_statement = 'all'")
    try:
        for mark, run in (
            ("markone", lambda c: c.execute("insert into log (what) values ('markone')")),
            ("marktwo", lambda c: c.execute("insert into log (what) select %s as marktwo", ("x",))),
        ):
            async with await connected(served.ticket(role="ask")) as connection:
                running = asyncio.create_task(run(connection))
                hold = await served.held(len(served.recorder.of("hold.opened")) + 1)
                await asyncio.sleep(0.1)
                assert seen(mark) == []
                await served.answer(hold)
                await running
            await served.until(lambda mark=mark: seen(mark) != [])
    finally:
        postgres.execute("alter role app_write reset log_statement")


async def test_ctrl_c_in_psql_gives_the_review_up(served: TestBroker, postgres: Server) -> None:
    ticket = served.ticket(role="ask")
    process = await asyncio.create_subprocess_exec(
        *("psql", "--no-psqlrc", "-At", ticket.dsn(), "-c", WRITE),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PGPASSWORD": ticket.password},
    )
    hold = await served.held()
    process.send_signal(signal.SIGINT)
    _, errors = await asyncio.wait_for(process.communicate(), 20)
    assert b"ERROR:  airlock: canceled: the review was given up" in errors
    assert served.recorder.of("hold.abandoned") == [{"hold": hold.id, "reason": "cancelled"}]
    with pytest.raises(Refusal, match="nobody waits for this statement any more") as caught:
        await served.answer(hold)
    assert caught.value.code == "over"
    assert written(postgres) == []


@pytest.mark.parametrize("behind", [0, 1_800_000], ids=["nothing behind", "more behind than is read meanwhile"])
async def test_a_client_that_disconnects_abandons_its_hold(served: TestBroker, postgres: Server, behind: int) -> None:
    with raw(served.port) as client:
        await asyncio.to_thread(enter, client, served.ticket(role="ask"))
        client.send(codec.query(WRITE))
        hold = await served.held()
        client.send(codec.query("select 1") * (behind // 14))
        await asyncio.sleep(0.2 if behind else 0)
    await served.until(lambda: bool(served.recorder.of("hold.abandoned")))
    assert served.recorder.of("hold.abandoned") == [{"hold": hold.id, "reason": "client"}]
    types = [entry.type for entry in served.recorder.entries]
    await served.until(lambda: bool(served.recorder.of("session.closed")))
    assert "statement.allowed" not in types
    assert written(postgres) == []


@pytest.mark.parametrize("reason", [CloseReason.REVOKED, CloseReason.ENDED])
async def test_the_end_of_a_grant_cuts_what_it_holds(served: TestBroker, postgres: Server, reason: CloseReason) -> None:
    async with await connected(served.ticket(role="ask")) as connection:
        running = asyncio.create_task(connection.execute(WRITE))
        hold = await served.held()
        assert await asyncio.wait_for(served.live.sessions[0].end(reason), 30)
        with pytest.raises(psycopg.OperationalError):
            await running
    assert served.recorder.of("hold.abandoned") == [{"hold": hold.id, "reason": reason.value}]
    assert backends(postgres, "app_write") == []
    with pytest.raises(Refusal):
        await served.answer(hold)


async def test_a_grant_that_expires_while_it_waits_takes_its_hold_with_it(served: TestBroker, postgres: Server) -> None:
    ticket = served.ticket(role="ask", lasts=1.2)
    async with await connected(ticket) as connection:
        with pytest.raises(psycopg.OperationalError):
            await connection.execute(WRITE)
    hold = await served.held()
    assert hold.expires_at == ticket.grant.expires_at
    assert hold.state in ("abandoned", "timed_out")
    with pytest.raises(Refusal):
        await served.answer(hold)
    assert written(postgres) == []


async def test_nobody_in_time_is_said_so(served: TestBroker, postgres: Server) -> None:
    async with await connected(served.ticket(role="ask")) as connection:
        running = asyncio.create_task(connection.execute(WRITE))
        hold = await served.held()
        served.clock.offset = timedelta(minutes=9, seconds=59)
        held = served.holds._live[hold.id]
        held.wanted = served.clock.now()
        served.holds._time_out(held)
        with pytest.raises(psycopg.errors.QueryCanceled, match="nobody answered in time"):
            await running
        served.clock.offset = timedelta()
        await connection.execute("select 1")
    assert served.recorder.of("hold.timed_out") == [{"hold": hold.id}]


async def test_asyncpg_shows_its_binary_parameters_and_is_held_at_bind(served: TestBroker, postgres: Server) -> None:
    connection = await asyncpg.connect(**served.ticket(role="ask").asyncpg())
    try:
        text = "insert into log (what) select $1::int || $2::text || $3::numeric || $4::timestamptz"
        statement = await connection.prepare(text)
        assert served.recorder.of("hold.opened") == []
        when = datetime.fromisoformat("2026-01-02T03:04:05.000006+00:00")
        for number in (1, 2):
            running = asyncio.create_task(statement.fetch(number, "note", Decimal("-12.50"), when))
            hold = await served.held(number)
            assert hold.text == text
            assert hold.parameters == [str(number), "note", "-12.50", "2026-01-02 03:04:05.000006+00"]
            assert len(written(postgres)) == number - 1
            await served.answer(hold)
            await running
        assert len(written(postgres)) == 2
        assert await connection.fetchval("select 1") == 1
    finally:
        await connection.close()


async def test_a_pipeline_keeps_its_order_around_a_hold(served: TestBroker, postgres: Server) -> None:
    async with await connected(served.ticket(role="ask")) as connection, connection.pipeline():
        before = await connection.execute("select count(*) from log")
        change = await connection.execute("insert into log (what) values (%s) returning what", ("held",))
        after = await connection.execute("select count(*) from log")
        running = asyncio.create_task(after.fetchone())
        hold = await served.held()
        assert (hold.in_transaction, hold.parameters) == (True, ["held"])
        await asyncio.sleep(0.1)
        assert written(postgres) == []
        await served.answer(hold)
        assert await running == (1,)
        assert (await before.fetchone(), await change.fetchone()) == ((0,), ("held",))


async def test_a_refusal_in_a_pipeline_runs_nothing_behind_it(served: TestBroker, postgres: Server) -> None:
    async with await connected(served.ticket(role="ask")) as connection:
        running = asyncio.create_task(_pipeline(connection))
        await served.answer(await served.held(), Answer.DENY)
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="Bob refused this statement"):
            await running
        assert len(served.recorder.of("hold.opened")) == 1
        assert (await (await connection.execute("select 1")).fetchone()) == (1,)
    assert written(postgres) == []


async def _pipeline(connection: psycopg.AsyncConnection[Any]) -> None:
    async with connection.pipeline():
        for what in ("one", "two"):
            await connection.execute("insert into log (what) values (%s)", (what,))
        cursor = await connection.execute("select 2")
        await cursor.fetchone()


async def test_a_hold_in_a_transaction_is_short_and_its_refusal_fails_both_sides(
    served: TestBroker, postgres: Server
) -> None:
    async with await connected(served.ticket(role="ask"), autocommit=False) as connection:
        await connection.execute("select 1")
        running = asyncio.create_task(connection.execute(WRITE))
        hold = await served.held()
        assert hold.in_transaction
        assert (hold.expires_at - hold.opened_at).total_seconds() == 60
        await served.answer(hold, Answer.DENY)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await running
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INERROR
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            await connection.execute(WRITE)
        await connection.rollback()
        running = asyncio.create_task(connection.execute(WRITE))
        await served.answer(await served.held(2))
        await running
        await connection.commit()
    assert written(postgres) == ["held"]


async def test_two_sessions_of_a_grant_wait_each_for_its_own(served: TestBroker, postgres: Server) -> None:
    ticket = served.ticket(role="ask")
    first, second, third = [await connected(ticket) for _ in range(3)]
    one = asyncio.create_task(first.execute("insert into log (what) values ('one')"))
    hold_one = await served.held(1)
    two = asyncio.create_task(second.execute("insert into log (what) values ('two')"))
    hold_two = await served.held(2)
    assert hold_one.digest != hold_two.digest
    assert (await (await third.execute("select count(*) from log")).fetchone()) == (0,)
    await served.answer(hold_two)
    await two
    assert written(postgres) == ["two"]
    with pytest.raises(Refusal, match="another statement"):
        await served.answer(hold_one, hold=hold_two.id, digest=hold_two.digest)
    await served.answer(hold_one)
    await one
    assert written(postgres) == ["two", "one"]
    for connection in (first, second, third):
        await connection.close()


async def test_a_reviewer_who_may_not_answer_by_then_does_not_count(served: TestBroker, postgres: Server) -> None:
    async with await connected(served.ticket(role="ask")) as connection:
        running = asyncio.create_task(connection.execute(WRITE))
        hold = await served.held()
        with pytest.raises(Refusal) as caught:
            await served.answer(hold, person="alice")
        assert caught.value.code == "more_reviews"
        moved = POLICY.replace("bob: {name: Bob, groups: [dbas]}", "bob: {name: Bob, groups: [engineers]}")
        served.policies.current = read_texts({"test.yaml": moved})
        with pytest.raises(Refusal) as caught:
            await served.answer(hold, person="bob")
        assert caught.value.code == "more_reviews"
        await served.answer(hold, person="dana")
        await running
    assert written(postgres) == ["held"]


CHANGED_MEANWHILE = (
    "alter table log add column extra int",
    "alter table log rename to log_before; create table log (id int, what text)",
    "create function tr() returns trigger language plpgsql as 'begin return null; end'; "
    "create trigger tr before insert on log for each row execute function tr()",
    "create or replace function tr() returns trigger language plpgsql as 'begin return new; end'",
)


async def test_what_changed_under_an_approval_is_not_run(served: TestBroker, postgres: Server) -> None:
    for count, change in enumerate(CHANGED_MEANWHILE, 1):
        running = asyncio.create_task(psql(served.ticket(role="ask"), WRITE))
        hold = await served.held(count)
        # Not in the loop: the broker, which runs in it, may still hold the lock under which it asks for an estimate.
        await asyncio.to_thread(postgres.execute, change, "shop")
        await served.answer(hold)
        status, _, errors = await running
        assert (status, "public.log is not what it was when this was shown" in errors) == (1, True), (change, errors)
    assert [entry["reason"] for entry in served.recorder.of("hold.abandoned")] == ["schema"] * len(CHANGED_MEANWHILE)
    running = asyncio.create_task(psql(served.ticket(role="ask"), WRITE))
    hold = await served.held(len(CHANGED_MEANWHILE) + 1)
    postgres.execute("create table another (id int); create index on notes (body)", "shop")
    postgres.execute("grant select, insert on log to app_write", "shop")
    await served.answer(hold)
    assert (await running)[0] == 0


async def test_an_approval_for_later_is_of_what_it_was_shown_for(served: TestBroker, postgres: Server) -> None:
    ticket = served.ticket(role="ask_first")
    await psql(ticket, WRITE)
    await served.answer(await served.held())
    postgres.execute("alter table log add column extra int", "shop")
    for _ in range(2):
        # The first finds the approval void, unless the broker has seen the change by then: it is asked about anew.
        assert (await psql(ticket, WRITE))[0] == 1
    await served.answer(await served.held(2))
    assert (await psql(ticket, WRITE))[0] == 0


async def test_what_policy_forbids_by_then_is_not_run(served: TestBroker, postgres: Server) -> None:
    async with await connected(served.ticket(role="ask")) as connection:
        running = asyncio.create_task(connection.execute(WRITE))
        hold = await served.held()
        rule = "  - {id: never, decision: deny, effects: [write], message: not this week}\nfields:"
        served.policies.current = read_texts({"test.yaml": POLICY.replace("fields:", rule, 1)})
        await served.answer(hold)
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="not this week"):
            await running
    assert served.recorder.of("hold.abandoned") == [{"hold": hold.id, "reason": "policy"}]
    assert written(postgres) == []


async def test_a_role_that_does_not_wait_runs_the_same_statement_once_after_its_approval(
    served: TestBroker, postgres: Server
) -> None:
    async with await connected(served.ticket(role="ask_first")) as connection:

        async def refused(text: str, *values: str) -> None:
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="this needs a review by 1 of dbas"):
                await connection.execute(text, values)

        text = "insert into log (what) values (%s)"
        await refused(text, "a")
        await refused(text, "a")
        assert len(served.recorder.of("hold.opened")) == 1
        hold = await served.held()
        await served.answer(hold)
        await refused(text, "b")
        await connection.execute(text, ("a",))
        await refused(text, "a")
    assert written(postgres) == ["a"]
    assert len(served.recorder.of("hold.opened")) == 3
    assert [entry["hold"] for entry in served.recorder.of("hold.consumed")] == [hold.id]


async def test_what_is_copied_in_cannot_be_reviewed(served: TestBroker) -> None:
    _, _, errors = await psql(served.ticket(role="ask"), "copy notes from stdin", stdin="1001\tx\n")
    assert "copying data in is not allowed by this role" in errors
    assert "HINT:  /access prod-db write 30m" in errors
    assert served.recorder.of("hold.opened") == []


async def test_a_client_that_floods_behind_a_hold_is_put_off_and_nothing_is_reordered(
    served: TestBroker, postgres: Server
) -> None:
    with raw(served.port) as client:
        await asyncio.to_thread(enter, client, served.ticket(role="ask"))
        client.send(codec.query(WRITE))
        hold = await served.held()
        flood = asyncio.to_thread(client.send, codec.query("select 1 --" + "x" * 1000) * 5000)
        sending = asyncio.create_task(flood)
        await asyncio.sleep(0.3)
        assert written(postgres) == []
        await served.answer(hold)

        def read() -> list[codec.Frame]:
            frames = client.until("C")
            for _ in range(5000):
                frames += client.until("Z")
            return frames

        frames = await asyncio.wait_for(asyncio.to_thread(read), 60)
        await sending
        tags = [codec.read_tag(frame.body) for frame in frames if chr(frame.type) == "C"]
        assert tags[0] == "INSERT 0 1"
        assert set(tags[1:]) == {"SELECT 1"}
        assert not [problem(frame) for frame in frames if chr(frame.type) == "E"]
