"""CALL through the broker: procedures run under rules that name them, as functions of users' do."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import psycopg
import pytest

from tests.integration.postgres_world import endpoint, make_world, psql
from tests.support.broker import POLICY, TestBroker, serving
from tests.support.postgres import Server

MORE = (
    "create procedure noting(what text) language sql as 'insert into log (what) values ($1)'",
    "create procedure bulk(many int) language plpgsql as "
    "$$begin for i in 1..many loop insert into log (what) values ('x'); end loop; end$$",
    "create procedure steps(many int) language plpgsql as "
    "$$begin for i in 1..many loop insert into log (what) values ('step'); commit; end loop; end$$",
    "create procedure doubled(inout n int) language plpgsql as 'begin n := 2 * n; end'",
    "create procedure tells() language plpgsql security definer as "
    "$$begin raise notice 'it is %', (select ssn from people where id = 1); perform 1 / 0; end$$",
    "create procedure wanders() language plpgsql as $$begin perform set_config('search_path', 'aside', false); end$$",
    "create function strays() returns text language plpgsql as "
    "$$begin return set_config('search_path', 'aside', false); end$$",
    "create schema aside",
    "create table aside.notes as select 1 as id, 'own' as body",
    "grant usage on schema aside to app_write",
    "grant select on aside.notes, people, log to app_write",
)
NAMED = (
    "public.noting, public.bulk, public.steps, 'public.doubled(integer)', public.tells, public.wanders, public.strays"
)
RULES = (
    f"\n  - {{id: calls, decision: allow, roles: [write], effects: [write], functions: [{NAMED}]}}"
    "\n  - {id: few, decision: allow, roles: [few], effects: [write], functions: [public.bulk, public.steps],"
    " max_rows: 10}"
    "\n  - {id: asks, decision: ask, roles: [ask], effects: [write], functions: [public.noting],"
    " reviewers: {count: 1, groups: [dbas]}}\nfields:"
)


@pytest.fixture
async def served(postgres: Server, tmp_path: Path) -> AsyncIterator[TestBroker]:
    read = make_world(postgres, *MORE)
    write = endpoint(postgres, "app_write")
    policy = POLICY.replace("\nfields:", RULES)
    async with serving(tmp_path, read, policy=policy, write=write, few=write, ask=write) as broker:
        yield broker


def logged(server: Server) -> int:
    return int(server.execute("select count(*) from log", "shop")[0][0])


async def test_a_procedure_runs_under_a_rule_that_names_it_and_under_no_other(
    served: TestBroker, postgres: Server
) -> None:
    assert await psql(served.ticket(role="write"), "call noting('one')", "call public.bulk(2)") == (
        *(0, "CALL\nCALL\n", ""),
    )
    assert await psql(served.ticket(role="write"), "call doubled(4)") == (0, "8\n", "")
    assert logged(postgres) == 3
    _, _, errors = await psql(served.ticket(role="few"), "call noting('two')")
    assert "public.noting(text) is a function of this database's own that could change data" in errors
    assert "/access prod-db write 30m" in errors
    for text in (
        "call missing()",
        "call pg_sleep(1)",
        "call lo_unlink(1)",
        "call noting((select ssn from people limit 1))",
    ):
        assert "ERROR" in (await psql(served.ticket(role="write"), text))[2], text
    assert logged(postgres) == 3


async def test_drivers_call_procedures_in_both_protocols(served: TestBroker, postgres: Server) -> None:
    ticket = served.ticket(role="write")
    connection = await asyncpg.connect(**ticket.asyncpg())
    assert await connection.execute("call noting($1)", "bound") == "CALL"
    assert await connection.fetchval("call doubled($1)", 21) == 42
    # By itself it may end its own transactions; within one of the client's the server says that it cannot.
    await connection.execute("call steps($1)", 3)
    with pytest.raises(asyncpg.InvalidTransactionTerminationError):
        async with connection.transaction():
            await connection.execute("call steps(2)")
    await connection.close()
    assert logged(postgres) == 4

    def plainly() -> None:
        with psycopg.connect(ticket.dsn(), password=ticket.password, autocommit=True) as client:
            client.execute("call steps(%s)", (2,))
            assert client.execute("call doubled(%s)", (5,)).fetchone() == (10,)

    await asyncio.to_thread(plainly)
    assert logged(postgres) == 6
    assert [each["text"] for each in served.recorder.of("statement.allowed")][:1] == ["call noting($1)"]


async def test_what_a_procedure_changes_counts_under_a_bound(served: TestBroker, postgres: Server) -> None:
    ticket = served.ticket(role="few")
    assert (await psql(ticket, "call bulk(10)"))[:2] == (0, "CALL\n")
    _, _, errors = await psql(ticket, "call bulk(11)")
    assert "this touched 11 rows, triggers and cascades included, and may touch 10" in errors
    # Its own COMMIT would take what it did from under the count, so there it may not.
    _, _, errors = await psql(ticket, "call steps(20)")
    assert "invalid transaction termination" in errors
    assert logged(postgres) == 10


async def test_an_approved_call_runs_the_procedure_that_was_shown(served: TestBroker, postgres: Server) -> None:
    connection = await asyncpg.connect(**served.ticket(role="ask").asyncpg())
    calling = asyncio.create_task(connection.execute("call noting('shown')"))
    held = await served.held()
    assert (held.text, held.effects) == ("call noting('shown')", ["read", "write"])
    await served.answer(held)
    await calling
    assert logged(postgres) == 1
    calling = asyncio.create_task(connection.execute("call noting('swapped')"))
    held = await served.held(2)
    postgres.execute("create or replace procedure noting(what text) language sql as 'delete from log'", "shop")
    await served.answer(held)
    with pytest.raises(asyncpg.PostgresError, match="is not what it was when this was shown"):
        await calling
    await connection.close()
    assert logged(postgres) == 1


async def test_what_a_procedure_says_and_sets_shows_nothing_masked(served: TestBroker) -> None:
    ticket = served.ticket(role="write")
    _, output, errors = await psql(ticket, "call tells()")
    assert "123-45" not in output + errors
    assert "ERROR" in errors
    _, output, errors = await psql(ticket, stdin="call wanders();\ntable notes;\ntable public.people;\n")
    assert "123-45" not in output + errors
    assert errors.count("the search path of this session is not one that may be set here") == 2
    back = "call wanders();\nreset search_path;\nselect ssn from people where id = 1;\n"
    assert (await psql(ticket, stdin=back))[1].split() == ["CALL", "RESET", "***"]
    # A function that does the same is no other way round it.
    looks = "select strays();\nselect ssn from people;\n"
    assert "is not one that may be set here" in (await psql(ticket, stdin=looks))[2]
    for first in ("select strays()", "call wanders()", "explain analyze select strays()", "execute p"):
        _, output, errors = await psql(ticket, "prepare p as select strays()", f"begin; {first}; table notes; commit")
        assert "functions of this database's own could set another search path" in errors
        assert "own" not in output
    cursor = "begin;\ndeclare c cursor for select strays();\n"
    for late in (
        *("prepare p as select public.strays();\nexecute p;\n", f"{cursor}fetch c;\n", f"{cursor}move c;\n"),
        *("declare c cursor with hold for select strays();\n", "copy (select strays()) to stdout;\n"),
    ):
        _, output, errors = await psql(ticket, stdin=f"{late}table notes;\n")
        assert "own" not in output, late
        assert errors.count("ERROR") == errors.count("is not one that may be set here") == 1, late
