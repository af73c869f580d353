"""Real clients whose statements are held: nothing passes before the answer, and an approval runs one statement once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.postgres_world import endpoint, make_world, psql
from tests.support.broker import TestBroker, serving
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
    running = asyncio.create_task(psql(served.ticket(role="ask"), WRITE, "select count(*) from log"))
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
