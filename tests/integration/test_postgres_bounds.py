"""Row bounds with real clients: what a change touches, triggers and cascades included, is counted before it commits."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import psycopg
import pytest

from broker.protocols.postgres import codec
from policies.engine.load import read_texts
from tests.integration.postgres_world import endpoint, enter, kinds, make_world, problem, psql, raw
from tests.support.broker import POLICY, TestBroker, serving
from tests.support.postgres import Server
from workflows.reviews import Answer

BOUNDED = (
    POLICY.replace("effects: [write, ddl]}", "effects: [write, ddl], max_rows: 10}")
    .replace("copies: [in]}", "copies: [in], max_rows: 10}")
    .replace("effects: [write], reviewers", "effects: [write], max_rows: 500, rows_factor: 2, reviewers")
    .replace("{count: 1, groups: [dbas]}}\nfields", "{count: 1, groups: [dbas]}, shape: grant}\nfields")
)
MORE = (
    "create table owners (id int primary key, name text)",
    "create table pets (id int primary key, owner int references owners on delete cascade)",
    "insert into owners select g, 'o' || g from generate_series(1, 20) g",
    "insert into pets select g, 1 + g % 3 from generate_series(1, 60) g",
    "create table audit (what text)",
    "create function audits() returns trigger language plpgsql as "
    "$$ begin insert into audit select 'x' from generate_series(1, new.id); return new; end $$",
    "create table watched (id int)",
    "create trigger audited after insert on watched for each row execute function audits()",
    "create table late (id int)",
    "create constraint trigger audited after insert on late deferrable initially deferred "
    "for each row execute function audits()",
    "create function empties() returns trigger language plpgsql security definer as "
    "$$ begin truncate audit; return new; end $$",
    "create table emptying (id int)",
    "create trigger empties after insert on emptying for each row execute function empties()",
    "create table later (id int primary key, owner int references owners deferrable initially deferred)",
    "analyze pets, owners",
    "grant select, insert, update, delete on owners, pets, audit, watched, late, emptying, later to app_write",
)


@pytest.fixture
async def served(postgres: Server, tmp_path: Path) -> AsyncIterator[TestBroker]:
    read = make_world(postgres, *MORE)
    write = endpoint(postgres, "app_write")
    async with serving(tmp_path, read, policy=BOUNDED, write=write, ask=write, ask_first=write) as broker:
        yield broker


def count(server: Server, table: str) -> int:
    return int(server.execute(f"select count(*) from {table}", "shop")[0][0])


async def test_psql_sees_nothing_of_the_count_where_a_change_stays_within_its_bound(
    served: TestBroker, postgres: Server
) -> None:
    ticket = served.ticket(role="write")
    changes = (
        "delete from owners where id = 10 returning name",
        "insert into watched values (3); insert into watched values (2)",
        "update notes set body = 'x' where id <= 10",
    )
    status, output, errors = await psql(ticket, *changes)
    assert (status, errors) == (0, "")
    assert output == "o10\nDELETE 1\nINSERT 0 1\nINSERT 0 1\nUPDATE 10\n"
    assert (count(postgres, "owners"), count(postgres, "audit")) == (19, 5)
    said = served.recorder.of("statement.counted")
    assert [(one["rows"], one["most"], one["kept"]) for one in said] == [(1, 10, True), (7, 10, True), (10, 10, True)]
    (first, *_) = [entry for entry in served.recorder.entries if entry.type == "statement.bounded"]
    assert first.detail["own"][0] == "begin"
    assert [one["outcome"] for one in served.recorder.of("statement.finished")] == ["ok"] * 4


TOO_MUCH = {
    "delete from owners where id = 1": 21,
    "insert into watched values (15)": 16,
    "insert into late values (15)": 16,
    "update notes set body = 'x' where id <= 11": 11,
    "with gone as (delete from pets returning id) select count(*) from gone": 60,
}


async def test_psql_is_told_both_counts_where_a_change_touches_too_much(served: TestBroker, postgres: Server) -> None:
    before = postgres.execute("select count(*), min(body) from notes", "shop")
    status, output, errors = await psql(served.ticket(role="write"), *TOO_MUCH, "select 1")
    assert (status, output.splitlines()[-1]) == (0, "1")
    told = [f"this touched {rows} rows, triggers and cascades included, and may touch 10" for rows in TOO_MUCH.values()]
    assert [line.partition("airlock: ")[2].partition(":")[0] for line in errors.splitlines() if "ERROR" in line] == told
    assert (count(postgres, "owners"), count(postgres, "pets"), count(postgres, "audit")) == (20, 60, 0)
    assert postgres.execute("select count(*), min(body) from notes", "shop") == before
    assert count(postgres, "watched") + count(postgres, "late") == 0
    said = served.recorder.of("statement.counted")
    assert [(one["rows"], one["most"], one["kept"]) for one in said] == [
        (rows, 10, False) for rows in TOO_MUCH.values()
    ]
    finished = served.recorder.of("statement.finished")
    assert [(one["outcome"], one["sqlstate"]) for one in finished] == [("failed", "54000")] * 5 + [("ok", None)]


async def test_psql_transaction_fails_above_the_bound_and_at_commit_for_deferred_triggers(
    served: TestBroker, postgres: Server
) -> None:
    ticket = served.ticket(role="write")
    script = (
        "begin;\ninsert into audit values ('a');\ninsert into watched values (15);\ncommit;\n"
        "begin;\ninsert into late values (15);\nselect 1;\ncommit;\n"
        "begin;\ninsert into late values (4);\ncommit;\n"
        "begin;\ninsert into watched values (15);\nrollback;\ninsert into watched values (1);\n"
    )
    _, output, errors = await psql(ticket, stdin=script)
    # The first COMMIT is of a failed transaction, as everywhere; the second fails itself and ends its transaction.
    lines = "BEGIN/INSERT 0 1/ROLLBACK/BEGIN/INSERT 0 1/1/BEGIN/INSERT 0 1/COMMIT/BEGIN/ROLLBACK/INSERT 0 1"
    assert output.splitlines() == lines.split("/")
    assert errors.count("this touched 16 rows, triggers and cascades included, and may touch 10") == 3
    assert (count(postgres, "late"), count(postgres, "watched"), count(postgres, "audit")) == (1, 1, 5)


async def test_drivers_of_the_extended_protocol_are_counted_too(served: TestBroker, postgres: Server) -> None:
    connection = await asyncpg.connect(**served.ticket(role="write").asyncpg())
    try:
        assert await connection.execute("insert into watched values ($1)", 4) == "INSERT 0 1"
        for change, values in (
            ("delete from owners where id = $1", 1),
            ("insert into watched values ($1)", 15),
            ("insert into late values ($1)", 15),
        ):
            with pytest.raises(asyncpg.PostgresError, match="triggers and cascades included") as caught:
                await connection.execute(change, values)
            assert caught.value.sqlstate == "54000"
        assert await connection.fetchval("select count(*) from owners") == 20
        with pytest.raises(asyncpg.PostgresError, match="touched 16 rows"):
            async with connection.transaction():
                await connection.execute("insert into late values ($1)", 15)
        async with connection.transaction():
            assert await connection.fetch("insert into watched values ($1) returning id", 2) == [(2,)]
            with pytest.raises(asyncpg.PostgresError, match="touched 16 rows"):
                async with connection.transaction():
                    await connection.execute("insert into watched values ($1)", 15)
        await connection.executemany("insert into pets values ($1, 2)", [(100,), (101,)])
    finally:
        await connection.close()
    assert (count(postgres, "watched"), count(postgres, "late"), count(postgres, "audit")) == (2, 0, 6)
    assert count(postgres, "pets") == 62
    assert {one["outcome"] for one in served.recorder.of("statement.finished")} <= {"ok", "failed", "cut"}


async def test_psycopg_pipeline_copy_and_errors_come_as_without_a_bound(served: TestBroker, postgres: Server) -> None:
    async with await psycopg.AsyncConnection.connect(served.ticket(role="write").dsn(), autocommit=True) as connection:
        async with connection.cursor() as cursor:
            async with cursor.copy("copy watched from stdin") as copy:
                await copy.write("1\n2\n")
            with pytest.raises(psycopg.Error, match="touched 11 rows"):
                async with cursor.copy("copy owners (id) from stdin") as copy:
                    await copy.write("".join(f"{id_}\n" for id_ in range(100, 111)))
            with pytest.raises(psycopg.errors.UniqueViolation):
                await cursor.execute("insert into owners values (1)")
            with pytest.raises(psycopg.errors.ForeignKeyViolation):
                await cursor.execute("insert into later values (1, 999)")
            await cursor.execute("insert into later values (1, 2)")
        async with connection.pipeline() as pipeline:
            await connection.execute("insert into watched values (3)")
            await connection.execute("insert into watched values (15)")
            with pytest.raises(psycopg.Error, match="touched 16 rows"):
                await pipeline.sync()
        await connection.execute("select 1")
    assert (count(postgres, "watched"), count(postgres, "owners"), count(postgres, "later")) == (2, 20, 1)


async def test_what_cannot_be_counted_is_not_let_through(served: TestBroker, postgres: Server) -> None:
    ticket = served.ticket(role="write")
    _, _, errors = await psql(ticket, "insert into emptying values (1)")
    assert "this, or a trigger, emptied, altered or dropped a table" in errors
    _, _, errors = await psql(ticket, "begin; insert into audit values ('a'); commit")
    assert "not sent in one message with BEGIN or COMMIT" in errors
    postgres.execute("alter role app_write set track_counts = off")
    try:
        _, _, errors = await psql(ticket, "insert into audit values ('a')")
    finally:
        postgres.execute("alter role app_write reset track_counts")
    assert "cannot be counted here" in errors
    assert (count(postgres, "emptying"), count(postgres, "audit")) == (0, 0)


async def test_an_approval_is_good_for_so_many_times_what_its_card_expected(
    served: TestBroker, postgres: Server
) -> None:
    ticket = served.ticket(role="ask")
    running = asyncio.create_task(psql(ticket, "delete from owners where id = 1"))
    await served.until(lambda: bool(served.recorder.of("hold.estimated")))
    hold = await served.held()
    assert hold.estimate is not None
    assert (hold.estimate.rows, hold.most) == (1, 2)
    await served.answer(hold)
    _, _, errors = await running
    assert "this touched 21 rows, triggers and cascades included, and may touch 2" in errors
    assert (count(postgres, "owners"), count(postgres, "pets")) == (20, 60)
    (released,) = served.recorder.of("hold.released")
    assert released["most"] == 2
    running = asyncio.create_task(psql(ticket, "delete from owners where id = 19"))
    await served.answer(await served.held(2))
    assert (await running)[:2] == (0, "DELETE 1\n")


async def test_sync_and_query_end_no_transaction_that_was_not_counted(served: TestBroker, postgres: Server) -> None:
    ticket = served.ticket(role="write")

    def run(sql: str) -> bytes:
        return codec.parse("", sql) + codec.bind("", "") + codec.execute("")

    def by_hand() -> list[list[codec.Frame]]:
        with raw(served.port) as client:
            enter(client, ticket)
            found = []
            for sent in (
                run("insert into watched values (2)") + codec.query("insert into audit values ('a')"),
                run("insert into late values (15)") + codec.SYNC,
                run("insert into late values (15)") + codec.query("select 1"),
                run("insert into late values (2)") + codec.query("select 1"),
                run("insert into late values (2)") + codec.SYNC,
            ):
                client.send(sent)
                found.append(client.until("Z"))
            return found

    mixed, late, queried, kept, synced = await asyncio.to_thread(by_hand)
    assert kinds(mixed) == "12CEZ"
    assert "not sent by Query while other messages wait for Sync" in problem(mixed[3])["M"]
    # As with a deferred constraint that fails: the change was complete, its transaction does not commit.
    assert (kinds(late), kinds(queried)) == ("12CEZ", "12CEZ")
    assert "touched 16 rows" in problem(late[3])["M"]
    assert "touched 16 rows" in problem(queried[3])["M"]
    assert (kinds(kept), kinds(synced)) == ("12CTDCZ", "12CZ")
    assert (count(postgres, "watched"), count(postgres, "late"), count(postgres, "audit")) == (0, 2, 4)


async def test_a_shape_that_was_approved_runs_with_other_values_within_its_bound_and_no_other_shape_does(
    served: TestBroker, postgres: Server
) -> None:
    ticket = served.ticket(role="ask", lasts=3600)
    running = asyncio.create_task(psql(ticket, "delete from pets where id = 1"))
    await served.until(lambda: bool(served.recorder.of("hold.estimated")))
    held = await served.held()
    assert held.shape is not None
    assert (held.shape.text, held.shape.values) == ("delete from pets where id = $1", ["$1: any whole number"])
    rule = await served.approve_shape(held)
    assert (await running)[:2] == (0, "DELETE 1\n")
    (said,) = served.recorder.of("shape.approved")
    assert (said["by"], said["text"], said["rules"], said["most"]) == (
        ["bob"],
        "delete from pets where id = ?",
        ["asked"],
        2,
    )
    status, output, errors = await psql(
        ticket, "delete from pets where id = 2;", "delete  from pets where id = 3 -- three"
    )
    assert (status, output, errors) == (0, "DELETE 1\nDELETE 1\n", "")
    allowed = served.recorder.of("statement.allowed")
    assert [one["rules"][-1] for one in allowed] == [f"hold:{held.id}", rule, rule]
    assert len(served.recorder.of("hold.opened")) == 1
    other = asyncio.create_task(psql(ticket, "delete from pets where id >= 4"))
    await served.answer(await served.held(2), Answer.DENY, reason="not that")
    assert (await other)[0] == 1
    assert count(postgres, "pets") == 57


async def test_a_run_by_an_approved_shape_is_rolled_back_above_what_its_card_said(
    served: TestBroker, postgres: Server
) -> None:
    ticket = served.ticket(role="ask", lasts=3600)
    running = asyncio.create_task(psql(ticket, "delete from pets where id <= 1"))
    await served.approve_shape(await served.held())
    assert (await running)[0] == 0
    status, _, errors = await psql(ticket, "delete from pets where id <= 50")
    assert status == 1
    assert "this touched 49 rows, triggers and cascades included, and may touch 2" in errors
    assert count(postgres, "pets") == 59


async def test_a_shape_is_withdrawn_at_once_in_a_session_that_is_open_and_a_bound_portal_asks_again(
    served: TestBroker, postgres: Server
) -> None:
    ticket = served.ticket(role="ask", lasts=3600)
    connection = await asyncpg.connect(**ticket.asyncpg())
    try:
        delete = "delete from pets where id = $1"
        running = asyncio.create_task(connection.execute(delete, 1))
        rule = await served.approve_shape(await served.held())
        assert await running == "DELETE 1"
        assert await connection.execute(delete, 2) == "DELETE 1"
        view = await served.shapes.withdraw(rule, "alice", "")
        assert view.withdrawn_by == "alice"
        again = asyncio.create_task(connection.execute(delete, 3))
        await served.answer(await served.held(2), Answer.DENY, reason="withdrawn")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="withdrawn"):
            await again
        assert served.recorder.of("shape.withdrawn") == [{"shape": rule, "by": "alice", "reason": ""}]
    finally:
        await connection.close()
    assert count(postgres, "pets") == 58


async def test_a_shape_holds_only_while_policy_asks_the_same_and_the_schema_is_what_it_was(
    served: TestBroker, postgres: Server
) -> None:
    ticket = served.ticket(role="ask", lasts=3600)
    delete = "delete from pets where id = {}".format
    running = asyncio.create_task(psql(ticket, delete(1)))
    await served.approve_shape(await served.held())
    assert (await running)[0] == 0
    assert (await psql(ticket, delete(2)))[0] == 0
    policy = served.policies.current
    stricter = (
        BOUNDED.replace("{count: 1, groups: [dbas]}, shape", "{count: 2, groups: [dbas]}, shape"),
        BOUNDED.replace(", shape: grant", ""),
        BOUNDED.replace("id: asked", "id: asked-anew"),
    )
    for number, text in enumerate(stricter, 2):
        served.policies.current = read_texts({"test.yaml": text})
        asked = asyncio.create_task(psql(ticket, delete(number + 1)))
        await served.answer(await served.held(number), Answer.DENY)
        assert (await asked)[0] == 1
    served.policies.current = policy
    assert (await psql(ticket, delete(3)))[0] == 0
    postgres.execute("alter table pets rename column owner to keeper", "shop")
    await asyncio.sleep(1.0)
    asked = asyncio.create_task(psql(ticket, delete(4)))
    await served.answer(await served.held(5), Answer.DENY)
    assert (await asked)[0] == 1
    assert count(postgres, "pets") == 57


async def test_where_a_hold_is_refused_at_once_its_own_approval_is_used_first_and_then_the_shape(
    served: TestBroker,
) -> None:
    ticket = served.ticket(role="ask_first", lasts=3600)
    assert (await psql(ticket, "delete from pets where id = 1"))[0] == 1
    rule = await served.approve_shape(await served.held())
    for number in (1, 1, 2):
        assert (await psql(ticket, f"delete from pets where id = {number}"))[0] == 0
    (first, *rest) = [one["rules"][-1] for one in served.recorder.of("statement.allowed")]
    assert (first.partition(":")[0], rest) == ("hold", [rule, rule])
