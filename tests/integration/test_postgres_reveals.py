"""Masked fields that a rule lets be revealed or searched: in clear where that was approved, and nowhere else."""

import asyncio

import asyncpg
import pytest

from policies.engine.load import read_texts
from tests.integration.postgres_world import psql
from tests.integration.test_postgres_holds import served
from tests.support.broker import POLICY, TestBroker
from tests.support.postgres import Server
from workflows.reviews import Answer

__all__ = ["served"]

REVEALING = POLICY.replace("ssn: hide", "ssn: {mask: hide, reveal: ask, reviewers: {groups: [dbas]}}")
REVEALED = "select id, airlock.reveal(ssn), ssn from people where id = 1"


async def test_revealed_field_waits_for_a_reviewer_and_comes_in_clear_once(
    served: TestBroker, postgres: Server
) -> None:
    served.policies.current = read_texts({"test.yaml": REVEALING})
    ticket = served.ticket(role="ask")
    running = asyncio.create_task(psql(ticket, REVEALED))
    hold = await served.held()
    assert (hold.reveals, hold.effects) == (["public.people.ssn"], ["read"])
    await served.until(lambda: bool(served.recorder.of("hold.estimated")))
    await served.answer(hold)
    assert (await running)[:2] == (0, "1|123-45-6789|***\n")
    (allowed,) = served.recorder.of("statement.allowed")
    assert allowed["revealed"] == ["public.people.ssn"]
    assert not any("123-45" in repr(entry) for entry in served.recorder.entries)
    running = asyncio.create_task(psql(ticket, REVEALED))
    await served.answer(await served.held(2), Answer.DENY, reason="not today")
    status, output, errors = await running
    assert (status, output) == (1, "")
    assert "Bob refused this statement: not today" in errors
    assert (await psql(ticket, "select ssn from people where id = 1"))[1] == "***\n"


async def test_prepared_reveal_is_asked_about_at_each_bind(served: TestBroker, postgres: Server) -> None:
    served.policies.current = read_texts({"test.yaml": REVEALING})
    connection = await asyncpg.connect(**served.ticket(role="ask").asyncpg())
    try:
        prepared = await connection.prepare("select airlock.reveal(ssn) as s from people where id = $1")
        for number, (id_, value) in enumerate([(1, "123-45-6789"), (2, "987-65-4321")], 1):
            running = asyncio.create_task(prepared.fetchval(id_))
            hold = await served.held(number)
            assert hold.parameters == [str(id_)]
            await served.answer(hold)
            assert await running == value
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="stands by itself"):
            await connection.fetch("select upper(airlock.reveal(ssn)) from people")
        name = (await connection.prepare("select airlock.reveal(ssn) from people where id = $1")).get_name()
        with pytest.raises(asyncpg.PostgresError, match="is not fetched by name"):
            await connection.execute(f"execute {name}(1)")
    finally:
        await connection.close()


async def test_equality_search_compares_the_clear_value_and_is_rationed_by_grant(
    served: TestBroker, postgres: Server
) -> None:
    policy = POLICY.replace("ssn: hide", "ssn: {mask: hide, search: equality, searches_per_hour: 4}")
    served.policies.current = read_texts({"test.yaml": policy})
    ticket = served.ticket(role="read")
    status, output, _ = await psql(
        ticket,
        "select * from people where ssn = '123-45-6789'",
        "select count(*) from people where ssn = 'nobody'",
        "select count(*) from people where ssn = '123-45-6789' or false",
    )
    assert (status, output) == (0, "1|Ann|***\n0\n0\n")
    connection = await asyncpg.connect(**ticket.asyncpg())
    try:
        prepared = await connection.prepare("select id, ssn from people where ssn = $1")
        assert [tuple(row) for row in await prepared.fetch("987-65-4321")] == [(2, "***")]
        assert await prepared.fetch("***") == []
        with pytest.raises(asyncpg.PostgresError, match=r"4 searches of public\.people\.ssn an hour are used up"):
            await prepared.fetch("123-45-6789")
        assert await connection.fetchval("select count(*) from people") == 2
    finally:
        await connection.close()
    searched = [one for one in served.recorder.of("statement.allowed") if one.get("searched")]
    assert [one["searched"] for one in searched] == [["public.people.ssn"]] * 4
    assert not any("123-45" in str(one["text"]) for one in served.recorder.of("statement.allowed"))
    assert (await psql(served.ticket(role="read"), "select id from people where ssn = '123-45-6789'"))[1] == "1\n"
    # SQL runs what the protocol has prepared, too.
    connection = await asyncpg.connect(**served.ticket(role="read").asyncpg())
    try:
        name = (await connection.prepare("select id, ssn from people where ssn = $1")).get_name()
        for number in range(4):
            await connection.execute(f"execute {name}('guess {number}')")
        with pytest.raises(asyncpg.PostgresError, match=r"4 searches of public\.people\.ssn an hour are used up"):
            await connection.execute(f"execute {name}('123-45-6789')")
    finally:
        await connection.close()
    by_name = [one for one in served.recorder.of("statement.allowed") if one["verb"] == "EXECUTE"]
    assert [one.get("searched") for one in by_name] == [["public.people.ssn"]] * 4


async def test_function_in_the_place_of_a_column_is_given_no_masked_field(served: TestBroker, postgres: Server) -> None:
    served.policies.current = read_texts({"test.yaml": REVEALING})
    postgres.execute("grant update on people to app_write", "shop")
    postgres.execute("create domain everything as people", "shop")
    await asyncio.sleep(1.0)
    ticket = served.ticket(role="write")
    for sql in (
        "update people p set name = name where id = 1 returning p.row_to_json",
        "update people p set name = name where id = 1 returning p.everything",
        "update people p set name = name where p.to_jsonb ->> 'ssn' = '123-45-6789'",
        "select airlock.reveal(p.ssn), json_agg(p.row_to_json) over () from people p order by id limit 1",
    ):
        status, output, errors = await psql(ticket, sql)
        assert (status, output) == (1, ""), sql
        assert "every field of public.people" in errors or "does not go together with all of p" in errors
    assert (await psql(ticket, "select p.row_to_json ->> 'ssn' from people p where id = 1"))[1] == "***\n"
    activity = "select count(*) from pg_stat_activity a where a.row_to_json ->> 'query' like '%pg_stat%'"
    assert (await psql(ticket, activity))[1] == "0\n"
