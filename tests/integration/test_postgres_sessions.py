"""Real clients through the broker to a real server: what is allowed works, what is denied is denied in place."""

import asyncio
import re
from collections.abc import AsyncIterator
from itertools import product
from pathlib import Path

import asyncpg
import psycopg
import pytest

from broker.protocols.postgres import codec
from tests.integration.postgres_world import backends, endpoint, enter, kinds, make_world, problem, psql, raw
from tests.support.broker import TestBroker, serving
from tests.support.postgres import Server
from tests.support.require import require_program

LOOPS = ("uvloop",)


@pytest.fixture
async def served(postgres: Server, tmp_path: Path) -> AsyncIterator[TestBroker]:
    read = make_world(postgres)
    write = endpoint(postgres, "app_write")
    async with serving(tmp_path, read, write=write, ask_first=write, few=write) as broker:
        yield broker


async def test_psql_reads_masked_rows_and_is_refused_in_its_own_words(served: TestBroker) -> None:
    require_program("psql", "apt install postgresql-client")
    status, output, errors = await psql(served.ticket(), "select id, ssn from people", "drop table people")
    assert output.splitlines() == ["1|***", "2|***"]
    assert status == 1
    assert "ERROR:  airlock: this change of the schema is not passed where fields are masked" in errors
    assert "DETAIL:  rules: ddl-masked" in errors
    # Not the write role: it could not drop a table either.
    assert "HINT:  on tables without masked fields, CREATE TABLE with plain columns" in errors
    assert [entry["text"] for entry in served.recorder.of("statement.denied")] == ["drop table people"]


async def test_what_postgresql_itself_would_refuse_is_recorded_as_mistyped(served: TestBroker) -> None:
    typos = ("selec 1", "select * from nothing_like_it", "execute nothing_like_it")
    await psql(served.ticket(), *typos, "drop table people", "select 1::nowhere.nothing")
    denied = served.recorder.of("statement.denied")
    assert [entry.get("mistyped", False) for entry in denied] == [True, True, True, False, True]


async def test_no_value_of_a_denied_text_is_in_what_others_read_of_it(served: TestBroker) -> None:
    texts = (
        "select 1 'value 9'",
        "select id from people where name = 'O'Brien' and ssn = 'value 9'",
        "select 9value",
        "select set_config('value 9', 'on', false)",
        "drop table people -- value 9",
    )
    _, _, errors = await psql(served.ticket(), *texts)
    assert "syntax error at or near" in errors
    denied = served.recorder.of("statement.denied")
    assert len(denied) == len(texts)
    assert [entry for entry in denied if "9" in f"{entry['text']} {entry['message']} {entry['hint']}"] == []


async def test_a_denied_write_names_the_line_that_asks_for_the_role_that_may(served: TestBroker) -> None:
    _, _, errors = await psql(served.ticket(), "insert into log (what) values ('x')")
    assert "ERROR:  airlock: changing data is not allowed by this role" in errors
    assert "HINT:  /access prod-db write 30m" in errors


NEVER = {
    "vacuum people": ("VACUUM is work on the server, and not passed by this broker", "ask whoever runs"),
    "lock table people": ("LOCK holds up everybody else", "locks the rows that it needs"),
    "listen news": ("LISTEN receives data that no rule has seen", "query the tables"),
    "notify news": ("NOTIFY sends data out of the session", "from the application"),
    "do $$ begin end $$": ("DO runs code that cannot be inspected", "one by one"),
    "alter user app password 'x'": ("roles and their passwords are not changed", "your ticket"),
}


async def test_what_no_rule_lets_pass_says_so_of_itself(served: TestBroker) -> None:
    for (text, (said, hint)), role in product(NEVER.items(), ("read", "write")):
        _, _, errors = await psql(served.ticket(role=role), text)
        assert f"ERROR:  airlock: {said}" in errors
        assert re.search("DETAIL:  rules: (statement-kind|default-verb)", errors), errors
        assert hint in errors


async def test_what_psql_sends_to_describe_a_table_passes(served: TestBroker) -> None:
    status, output, errors = await psql(served.ticket(), r"\d people", r"\dt", r"\du", r"\df", r"\dn")
    assert {"ssn|text|||", "public|people|table|postgres"} <= set(output.splitlines())
    assert (status, errors) == (0, "")


async def test_channel_binding_works_and_is_never_silently_dropped(served: TestBroker) -> None:
    assert (await psql(served.ticket(), "select 1", channel_binding="require"))[:2] == (0, "1\n")
    assert (await psql(served.ticket(), "select 1", channel_binding="disable"))[:2] == (0, "1\n")


async def test_denial_in_a_transaction_fails_it_on_both_sides(served: TestBroker) -> None:
    _, output, errors = await psql(
        served.ticket(role="write"),
        stdin="begin;\ninsert into log (what) values ('x');\n"
        "vacuum people;\nselect 1;\ncommit;\nselect count(*) from log;\n",
    )
    assert "25P02" in errors or "current transaction is aborted" in errors
    assert output.splitlines() == ["BEGIN", "INSERT 0 1", "ROLLBACK", "0"]


async def test_a_denied_statement_of_a_message_denies_all_of_it(served: TestBroker) -> None:
    ticket = served.ticket(role="write")
    _, output, errors = await psql(ticket, "insert into log (what) values ('a'); drop database shop")
    assert output == ""
    assert "airlock:" in errors
    assert (await psql(ticket, "select count(*) from log"))[1] == "0\n"


async def test_writes_are_recorded_before_and_finished_after(served: TestBroker) -> None:
    await psql(served.ticket(role="write"), "insert into log (what) values ('secret'); select 1")
    allowed, finished = served.recorder.of("statement.allowed"), served.recorder.of("statement.finished")
    assert [entry["verb"] for entry in allowed] == ["INSERT", "SELECT"]
    assert [(entry["outcome"], entry["rows"]) for entry in finished] == [("ok", 1), ("ok", 1)]
    assert [entry["statement"] for entry in allowed] == [entry["statement"] for entry in finished]
    assert not any("secret" in str(entry.data) for entry in served.recorder.entries)
    assert served.recorder.entries[1].detail["sql"].startswith("insert into log (what) values ('secret')")


async def test_what_needs_a_review_is_refused_with_who_could_give_it(served: TestBroker) -> None:
    _, _, errors = await psql(served.ticket(role="ask_first"), "insert into log (what) values ('x')")
    assert "this needs a review by 1 of dbas" in errors
    assert "HINT:  Bob or Dana can approve it now, on its card; then this very statement runs once" in errors


async def test_functions_of_ones_own_are_called_under_a_rule_that_names_them(
    served: TestBroker, postgres: Server
) -> None:
    _, output, errors = await psql(
        served.ticket(role="few"),
        "select spent(11), spent('x'), public.spent(ssn) from people where id = 1",
        "select noted('from a function')",
        "select everybody()",
        "select told()",
        "select p.spent from people p",
        "insert into log (what) values ('x')",
    )
    assert output == "10|X|***\n\n"
    assert postgres.execute("select what from log where what = 'from a function'", "shop") == [("from a function",)]
    assert "public.everybody() returns rows of public.people, which has masked fields" in errors
    assert "raised by a function (its text is withheld" in errors
    assert "123-45" not in errors
    assert "would call the function spent" in errors
    assert "changing data is not allowed by this role" in errors
    _, _, errors = await psql(served.ticket(), "select spent(11)", "select noted('x')")
    assert "public.spent(integer) is of this database's own, and no rule lets it be called" in errors
    assert "public.noted(text) is a function of this database's own that could change data" in errors


async def test_errors_of_statements_that_read_masked_fields_show_no_values(served: TestBroker) -> None:
    ticket = served.ticket(role="write")
    _, _, errors = await psql(ticket, "insert into people values (3, 'C', '123-45-6789')")
    assert "123-45-6789" not in errors
    _, _, errors = await psql(served.ticket(), "select ssn::int from people")
    assert "123-45" not in errors
    assert "***" not in errors.replace("'***'", "")


async def test_error_positions_point_into_the_users_own_text(served: TestBroker) -> None:
    texts = {
        "select id, nonesuch from notes": "nonesuch",
        "select 'é\U0001f600', p.nonesuch from people p": "p.nonesuch",
        "select 'é' from people p, notes n where p.ssn = n.id": "= n.id",
        "select 'é' as x from people p join people q using (id) where nonesuch = 1": "nonesuch",
        "select 'é' from nowhere": "nowhere",
        "select 'é' from people where": None,
    }
    for threshold in (None, 0):
        async with await psycopg.AsyncConnection.connect(
            served.ticket().dsn(), autocommit=True, prepare_threshold=threshold
        ) as connection:
            for text, at in texts.items():
                with pytest.raises(psycopg.Error) as caught:
                    await connection.execute(text)
                assert caught.value.diag.statement_position == str(len(text) + 1 if at is None else text.index(at) + 1)


async def test_psql_shows_rule_ids_places_and_what_is_compared(served: TestBroker) -> None:
    verbose = r"\set VERBOSITY verbose"
    _, _, errors = await psql(served.ticket(), verbose, "drop table people", "select 'é', nonesuch from people")
    assert "public.people has masked fields, or belongs to what has some\nDETAIL:  rules: ddl-masked\nHINT" in errors
    assert "LINE 1: select 'é', nonesuch from people\n                    ^\n" in errors
    seen = "select count(*) from people where ssn = 'x'"
    _, output, errors = await psql(served.ticket(), seen, seen, "select id from people order by ssn, id")
    assert output.split() == ["0", "0", "1", "2"]
    assert errors.count("NOTICE:  airlock: masked for you, so filters, joins and sorting compare what is shown") == 1
    assert "not what is stored: public.people.ssn" in errors


async def test_psycopg_prepares_binds_and_pipelines(served: TestBroker) -> None:
    async with await psycopg.AsyncConnection.connect(served.ticket().dsn(), prepare_threshold=0) as connection:
        for number in range(1, 8):
            cursor = await connection.execute("select body, %s::text from notes where id = %s", ("p", number))
            assert await cursor.fetchone() == (f"note {number}", "p")
        await connection.commit()
        async with connection.pipeline():
            cursors = [await connection.execute("select body from notes where id = %s", (n,)) for n in range(1, 51)]
            assert [await cursor.fetchone() for cursor in cursors] == [(f"note {n}",) for n in range(1, 51)]
        binary = await connection.execute("select ssn, id from people order by id", binary=True)
        assert await binary.fetchall() == [("***", 1), ("***", 2)]
    parameters = [entry.detail.get("parameters") for entry in served.recorder.entries]
    assert any(found and {"text": "p"} in found for found in parameters)


async def test_a_denial_in_a_pipeline_is_one_error_and_nothing_behind_it_runs(served: TestBroker) -> None:
    ticket = served.ticket(role="write")
    async with await psycopg.AsyncConnection.connect(ticket.dsn(), autocommit=True) as connection:

        async def piped() -> None:
            async with connection.pipeline():
                for number in range(50):
                    word = "drop database shop" if number == 25 else "insert into log (what) values ('piped')"
                    await connection.execute(word)

        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="airlock"):
            await piped()
        cursor = await connection.execute("select count(*) from log")
        assert await cursor.fetchone() == (0,)


async def test_asyncpg_prepares_iterates_and_uses_transactions(served: TestBroker) -> None:
    connection = await asyncpg.connect(**served.ticket(role="write").asyncpg())
    try:
        assert await connection.fetchval("select $1::int + 1", 41) == 42
        assert [tuple(row) for row in await connection.fetch("select * from people order by id")] == [
            (1, "Ann", "***"),
            (2, "Bo", "***"),
        ]
        async with connection.transaction():
            numbers = [row["id"] async for row in connection.cursor("select id from notes order by id", prefetch=100)]
        assert numbers == list(range(1, 1001))
        await connection.executemany("insert into log (what) values ($1)", [(str(n),) for n in range(200)])
        assert await connection.fetchval("select count(*) from log") == 200
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="airlock"):
            await connection.execute("drop database shop")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("select pg_sleep($1)", 1.0)
        assert await connection.fetchval("select 7") == 7
    finally:
        await connection.close()


async def test_sql_prepare_and_protocol_statements_are_one_registry(served: TestBroker) -> None:
    status, output, errors = await psql(
        served.ticket(), "prepare p as select ssn from people limit 1", "execute p", "deallocate p"
    )
    assert (status, errors) == (0, "")
    assert output.splitlines() == ["PREPARE", "***", "DEALLOCATE"]
    _, _, errors = await psql(served.ticket(), "execute nonesuch")
    assert 'prepared statement "nonesuch" does not exist' in errors
    ticket = served.ticket()
    with raw(served.port) as client:
        frames = await asyncio.to_thread(enter, client, ticket)
        assert kinds(frames).endswith("Z")
        client.send(codec.parse("d1", "select 1") + codec.SYNC)
        assert kinds(await asyncio.to_thread(client.until, "Z")) == "1Z"
        client.send(codec.query("begin; deallocate d1; rollback"))
        assert kinds(await asyncio.to_thread(client.until, "Z")) == "CCCZ"
        bind = codec.message(b"B", b"\0d1\0" + bytes(6))
        client.send(bind + codec.execute("") + codec.SYNC)
        answers = await asyncio.to_thread(client.until, "Z")
        assert kinds(answers) == "EZ"
        assert problem(answers[0])["C"] == "26000"


async def test_what_a_statement_means_now_counts_not_what_it_meant_at_parse(
    served: TestBroker, postgres: Server
) -> None:
    ticket = served.ticket()
    with raw(served.port) as client:
        await asyncio.to_thread(enter, client, ticket)
        client.send(codec.parse("s", "select name from people") + codec.SYNC)
        await asyncio.to_thread(client.until, "Z")
        masked = served.policies.current.model_dump(mode="json")
        masked["fields"][0]["clear"] = ["id"]
        served.policies.current = type(served.policies.current).model_validate(masked)
        client.send(codec.message(b"B", b"\0s\0" + bytes(6)) + codec.execute("") + codec.SYNC)
        answers = await asyncio.to_thread(client.until, "Z")
        assert kinds(answers) == "EZ"
        assert problem(answers[0])["C"] == "0A000"
        assert "cached plan must not change result type" in problem(answers[0])["M"]


async def test_a_driver_prepares_again_what_the_policy_has_outdated(served: TestBroker) -> None:
    connection = await asyncpg.connect(**served.ticket().asyncpg())
    try:
        sql = "select name from people where id = $1"
        assert await connection.fetchval(sql, 1) == "Ann"
        masked = served.policies.current.model_dump(mode="json")
        masked["fields"][0]["clear"] = ["id"]
        served.policies.current = type(served.policies.current).model_validate(masked)
        assert await connection.fetchval(sql, 1) == "***"
    finally:
        await connection.close()


async def test_empty_queries_are_answered_as_the_server_would(served: TestBroker) -> None:
    with raw(served.port) as client:
        await asyncio.to_thread(enter, client, served.ticket())
        for text, expected in (("", "IZ"), (";", "IZ"), ("-- nothing", "IZ"), (";;;select 1;;", "TDCZ")):
            client.send(codec.query(text))
            assert kinds(await asyncio.to_thread(client.until, "Z")) == expected, text


async def test_cancel_reaches_its_own_session_only(served: TestBroker, postgres: Server) -> None:
    with raw(served.port) as client, raw(served.port) as other:
        greeting = await asyncio.to_thread(enter, client, served.ticket())
        await asyncio.to_thread(enter, other, served.ticket())
        key = next(frame.body for frame in greeting if frame.type == ord("K"))
        for session in (client, other):
            session.send(codec.query(SLOW))
        await served.until(lambda: [row[1:] for row in backends(postgres)] == [("active", SLOW)] * 2)
        wrong = [key[:4] + bytes([key[4] ^ 1]) + key[5:], (1).to_bytes(4, "big") + b"abcd"]
        for tail in (*wrong, key):
            with raw(served.port) as request:
                request.send(codec.request(codec.CANCEL_REQUEST, tail))
                assert await asyncio.to_thread(request.receive) == b""
        answers = await asyncio.to_thread(client.until, "Z")
        assert problem(next(frame for frame in answers if frame.type == ord("E")))["C"] == "57014"
        assert [row[1] for row in backends(postgres) if row[2] == SLOW].count("active") == 1


async def test_cancel_guesses_are_bounded(served: TestBroker) -> None:
    with raw(served.port) as client:
        greeting = await asyncio.to_thread(enter, client, served.ticket())
        key = next(frame.body for frame in greeting if frame.type == ord("K"))
        client.send(codec.query(SLOW))
        for tail in [(n).to_bytes(4, "big") + b"abcd" for n in range(12)] + [key]:
            with raw(served.port) as request:
                request.send(codec.request(codec.CANCEL_REQUEST, tail))
                await asyncio.to_thread(request.receive)
        client.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(client.until, "Z")


SLOW = "select count(*) from notes a, notes b, notes c, notes d where a.body || b.body <> c.body || d.body"


async def test_a_table_that_is_made_while_a_session_lives_is_known_at_once(
    served: TestBroker, postgres: Server
) -> None:
    async with await psycopg.AsyncConnection.connect(served.ticket().dsn(), autocommit=True) as connection:
        with pytest.raises(psycopg.Error, match="airlock"):
            await connection.execute("select * from made")
        postgres.execute("create table made as select 1 as id; grant select on made to app", "shop")
        await asyncio.sleep(1.05)
        found = await connection.execute("select * from made")
        assert await found.fetchone() == (1,)


async def test_a_column_that_is_added_while_a_session_lives_is_masked(served: TestBroker, postgres: Server) -> None:
    async with await psycopg.AsyncConnection.connect(served.ticket().dsn(), autocommit=True) as connection:
        first = await connection.execute("select * from people where id = 1")
        assert await first.fetchone() == (1, "Ann", "***")
        postgres.execute("alter table people add column salary text default '55000'", "shop")
        later = await connection.execute("select * from people where id = 1")
        assert "55000" not in str(await later.fetchall())


async def test_two_sessions_of_one_ticket_do_not_see_each_other(served: TestBroker) -> None:
    ticket = served.ticket()
    async with (
        await psycopg.AsyncConnection.connect(ticket.dsn(), autocommit=True) as one,
        await psycopg.AsyncConnection.connect(ticket.dsn(), autocommit=True) as two,
    ):
        await one.execute("prepare p as select 1")
        with pytest.raises(psycopg.errors.InvalidSqlStatementName):
            await two.execute("execute p")
        assert one.info.backend_pid != two.info.backend_pid
