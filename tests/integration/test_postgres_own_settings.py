"""Settings of an application's own (`app.user_id`), by which row security goes: set where rules name them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import psycopg
import pytest

from tests.integration.postgres_world import connected, endpoint, make_world, psql
from tests.support.broker import POLICY, TestBroker, serving
from tests.support.postgres import Server

NAMING = """
  - {id: tenants, decision: allow, roles: [write, ask, ask_first], effects: [session],
     settings: [app.user_id, "jwt.claims.*"]}
  - {id: no-admins, decision: deny, settings: [jwt.claims.admin], message: nobody plays an administrator}
"""
CLEAR = POLICY.split("fields:", maxsplit=1)[0].replace('"public.*"', '"*.*"')
CODE = """
  - {id: code, decision: allow, effects: [read, write, ddl], functions: ['*.*']}
"""
TENANTS = (
    "create table orders (id int, owner text)",
    "insert into orders values (1, '7'), (2, '7'), (3, '8')",
    "alter table orders enable row level security",
    "create policy own_rows on orders using (owner = current_setting('app.user_id', true))",
    "grant select, insert, update, delete on orders to app, app_write",
)
HINT = "a rule that says `effects: [session]` and `settings: [app.tenant]` would let it be set and shown"


@pytest.fixture
async def served(postgres: Server, tmp_path: Path) -> AsyncIterator[TestBroker]:
    """Serve where fields are masked."""
    write = endpoint(postgres, "app_write")
    named = POLICY.replace("fields:\n", f"{NAMING}fields:\n")
    async with serving(tmp_path, make_world(postgres), policy=named, write=write, ask=write, ask_first=write) as broker:
        yield broker


@pytest.fixture
async def clear(postgres: Server, tmp_path: Path) -> AsyncIterator[TestBroker]:
    """Serve where nothing is masked, in front of rows that row security parts."""
    write = endpoint(postgres, "app_write")
    read = make_world(postgres, *TENANTS)
    async with serving(tmp_path, read, policy=CLEAR + CODE + NAMING, write=write, ask=write, ask_first=write) as broker:
        yield broker


@pytest.mark.parametrize(
    "sql",
    [
        "set app.tenant = '7'",
        "set session App.Tenant to 7",
        "begin; set local app.tenant = '7'; commit",
        "select set_config('app.tenant', '7', true)",
        "select pg_catalog.set_config('app.tenant', id::text, false) from notes where id = 7",
        "show app.tenant",
        "copy notes from stdin where set_config('app.tenant', 'x', false) = 'x'",
        "explain select set_config('app.tenant', '7', true)",
        "prepare s as select set_config('app.tenant', $1, true)",
    ],
)
async def test_what_no_rule_names_is_refused_with_the_line_that_would_let_it(served: TestBroker, sql: str) -> None:
    role = "few" if sql.startswith("copy") else "read"
    _, output, errors = await psql(served.ticket(role=role), sql)
    assert "app.tenant is a setting of an application's own, and no rule names it" in errors
    assert HINT in errors
    assert "7" not in output
    assert served.recorder.of("statement.denied")


async def test_another_role_that_may_set_one_is_said(served: TestBroker) -> None:
    assert "/access prod-db write 30m" in (await psql(served.ticket(), "set app.user_id = '7'"))[2]


async def test_settings_that_rules_name_are_set_shown_and_reset(served: TestBroker) -> None:
    async with await connected(served.ticket(role="write")) as connection:

        async def value() -> str | None:
            cursor = await connection.execute("select current_setting('app.user_id', true)")
            return (await cursor.fetchone() or ("",))[0]

        assert await value() is None
        await connection.execute("set app.user_id = '7'")
        assert await value() == "7"
        async with connection.transaction():
            await connection.execute("set local app.user_id to 8")
            assert await value() == "8"
        assert await value() == "7"
        cursor = await connection.execute("select set_config('App.user_id', %s, false)", ["it's 9"])
        assert await cursor.fetchone() == ("it's 9",)
        assert await (await connection.execute("show app.user_id")).fetchone() == ("it's 9",)
        for back in ("reset app.user_id", "reset all", "discard all", "set app.user_id to default"):
            await connection.execute("set app.user_id = 'x'")
            await connection.execute(back)
            assert await value() == ""
        # Others are as if there were none.
        assert await (await connection.execute("select current_setting('app.other', true)")).fetchone() == (None,)


async def test_a_rule_that_denies_one_stands_before_a_star_that_allows_it(served: TestBroker) -> None:
    ticket = served.ticket(role="write")
    assert (await psql(ticket, "set jwt.claims.role = 'x'", "show jwt.claims.role"))[1] == "SET\nx\n"
    for sql in (
        "set jwt.claims.admin = 'on'",
        "select set_config('jwt.claims.admin', 'on', true)",
        "select current_setting('jwt.claims.admin', true)",
    ):
        assert "nobody plays an administrator" in (await psql(served.ticket(role="write"), sql))[2]


async def test_names_that_come_as_parameters_are_held_to_those_that_rules_write_out(served: TestBroker) -> None:
    """As PostGraphile sends its pgSettings, in both of its ways."""
    connection = await asyncpg.connect(**served.ticket(role="write").asyncpg())
    several = "select set_config(el->>0, el->>1, true) from json_array_elements($1::json) el"
    try:
        async with connection.transaction():
            await connection.fetch("select set_config($1, $2, true)", "App.User_Id", "7")
            assert await connection.fetchval("select current_setting('app.user_id')") == "7"
            await connection.fetch(several, '[["app.user_id", "8"]]')
            assert await connection.fetchval("select current_setting('app.user_id')") == "8"
        for name in ("role", "search_path", "statement_timeout", "jwt.claims.role", "app.other", "datestyle"):
            with pytest.raises(asyncpg.UndefinedObjectError):
                await connection.fetch("select set_config($1, 'x', true)", name)
            with pytest.raises(asyncpg.UndefinedObjectError):
                await connection.fetch(several, f'[["{name}", "x"]]')
        with pytest.raises(asyncpg.PostgresError):
            await connection.fetch("select set_config($1, 'x', true)", None)
    finally:
        await connection.close()
    refused = await psql(served.ticket(), "select set_config('app.' || 'user_id', '7', true)")
    assert "set_config is set with arguments that are written out" in refused[2]


async def test_values_of_masked_fields_go_into_a_setting_masked(served: TestBroker) -> None:
    ticket = served.ticket(role="write")
    sql = "select set_config('app.user_id', string_agg(ssn, ','), false) from people"
    status, output, _ = await psql(ticket, sql, "show app.user_id")
    assert status == 0
    assert "123-45" not in output
    assert "***" in output


async def test_what_could_be_a_secret_is_neither_set_nor_shown(served: TestBroker, postgres: Server) -> None:
    for sql in (
        "set jwt.claims.secret = 'x'",
        "show jwt.claims.secret",
        "select set_config('jwt.claims.token', '', true)",
    ):
        status, _, errors = await psql(served.ticket(role="write"), sql)
        assert status
        assert "rules: settings" in errors
    postgres.execute("alter database shop set jwt.claims.secret = 'hush'")
    try:
        shown = await psql(served.ticket(role="write"), "select current_setting('jwt.claims.secret', true) is null")
        assert shown[1] == "t\n"
    finally:
        postgres.execute("alter database shop reset jwt.claims.secret")


async def test_a_session_may_begin_with_what_rules_name(served: TestBroker) -> None:
    said = await psql(
        served.ticket(role="write"),
        *("show app.user_id", "set app.user_id = '8'", "reset app.user_id", "show app.user_id"),
        options="-capp.user_id=it's",
    )
    assert said == (0, "it's\nSET\nRESET\nit's\n", "")
    assert next(one["text"] for one in served.recorder.of("statement.allowed")) == "SET app.user_id = ?"
    connection = await asyncpg.connect(**served.ticket(role="write").asyncpg(), server_settings={"app.user_id": "9"})
    assert await connection.fetchval("select current_setting('app.user_id')") == "9"
    await connection.close()
    for option, why in (("app.other=7", HINT.replace("tenant", "other")), ("jwt.claims.admin=on", "nobody plays an")):
        status, _, errors = await psql(served.ticket(role="write"), "select 1", options=f"-c{option}")
        assert status
        assert why in errors
    assert len(served.recorder.of("statement.denied")) == 2


async def test_reviewers_see_what_a_session_began_with(clear: TestBroker) -> None:
    running = asyncio.create_task(psql(clear.ticket(role="ask"), "delete from orders", options="-capp.user_id=7"))
    hold = await clear.held()
    assert hold.text == "-- under app.user_id = 7\ndelete from orders"
    await clear.answer(hold)
    assert (await running)[:2] == (0, "DELETE 2\n")


async def test_a_policy_that_goes_by_one_is_made_where_a_rule_names_it(clear: TestBroker, postgres: Server) -> None:
    postgres.execute("alter table notes owner to app_write", "shop")
    ticket = clear.ticket(role="write")
    made = "create policy mine on notes using (body = current_setting('app.{}', true))"
    assert (await psql(ticket, made.format("user_id")))[::2] == (0, "")
    assert "may be in it where a rule names that in `settings`" in (await psql(ticket, made.format("other")))[2]


async def test_row_security_goes_by_them(clear: TestBroker) -> None:
    ticket = clear.ticket(role="write")
    listed = "select count(*) from orders"
    status, output, errors = await psql(
        ticket, listed, "set app.user_id = '7'", listed, "set app.user_id = '8'", listed, "reset all", listed
    )
    assert (status, errors) == (0, "")
    assert output.split() == ["0", "SET", "2", "SET", "1", "RESET", "0"]


async def test_an_approval_is_for_the_values_that_its_session_had(clear: TestBroker, postgres: Server) -> None:
    change = "delete from orders"
    async with await connected(clear.ticket(role="ask_first")) as connection:

        async def refused(count: int) -> None:
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="this needs a review by 1 of dbas"):
                await connection.execute(change)
            assert len(clear.recorder.of("hold.opened")) == count

        await connection.execute("set app.user_id = '7'")
        await refused(1)
        hold = await clear.held()
        assert hold.text == f"-- under app.user_id = 7\n{change}"
        await clear.answer(hold)
        await connection.execute("set app.user_id = '8'")
        await refused(2)
        async with connection.transaction():
            await connection.execute("select set_config('app.user_id', '7', true)")
            assert (await connection.execute(change)).rowcount == 2
    assert postgres.execute("select owner from orders", "shop") == [("8",)]


async def test_a_value_that_is_long_counts_whole_and_is_shown_by_its_digest(clear: TestBroker) -> None:
    ticket = clear.ticket(role="ask")
    running = asyncio.create_task(psql(ticket, f"set app.user_id = '{'x' * 100_000}'", "delete from orders"))
    hold = await clear.held()
    assert hold.text.startswith("-- under app.user_id = sha256 ")
    await clear.answer(hold)
    assert (await running)[0] == 0


async def test_a_session_has_so_many_of_them(served: TestBroker) -> None:
    sets = [f"set jwt.claims.c{number} = 'x'" for number in range(65)]
    status, output, errors = await psql(served.ticket(role="write"), *sets)
    assert status
    assert output.count("SET") == 64
    assert "too many settings of an application's own in this session" in errors
