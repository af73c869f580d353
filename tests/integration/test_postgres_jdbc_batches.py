"""Batches of pgJDBC: answered as by the server itself, and decided statement by statement."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.postgres_world import endpoint, make_world
from tests.integration.test_postgres_bounds import BOUNDED
from tests.support.broker import Line, serving
from tests.support.jdbc import Program, compiled
from tests.support.postgres import Server

MODES = {
    "": {},
    "rewritten": {"reWriteBatchedInserts": "true"},
    "named": {"prepareThreshold": "1", "autosave": "always"},
    "simple": {"preferQueryMode": "simple"},
    "cached": {"preferQueryMode": "extendedCacheEverything"},
}
RULED = [
    *("too many rows failed 54000", "left 0 0 0", "denied failed 42501", "left 0 0 0"),
    *("sixteen rows", "left 16 32184 8", "emptied"),
]
REWRITTEN = [*RULED[:4], "sixteen rows failed 54000", "left 0 0 0", "emptied"]
"""Sixteen rows in one statement are too many for it."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    made = compiled(tmp_path_factory.mktemp("java"), "Batches")
    yield made
    made.close()


async def test_a_batch_is_answered_as_by_the_server_itself(
    postgres: Server, tmp_path: Path, program: Program, subtests: pytest.Subtests
) -> None:
    read, write = make_world(postgres), endpoint(postgres, "app_write")
    direct = Line("app_write", "app_write-password", "shop", postgres.port)
    async with serving(tmp_path, read, write=write) as served:
        for name, properties in MODES.items():
            with subtests.test(name):
                async with program.running("plain", direct, **{**properties, "sslmode": "disable"}) as run:
                    expected = await run.said()
                async with program.running("plain", served.ticket(role="write"), **properties) as run:
                    assert await run.said() == expected
        closed = len(MODES)
        await served.until(lambda: len(served.recorder.of("session.closed")) == closed)
        allowed, finished = served.recorder.of("statement.allowed"), served.recorder.of("statement.finished")
        assert sorted(one["statement"] for one in allowed) == sorted(one["statement"] for one in finished)


async def test_nothing_is_left_of_a_batch_with_a_statement_that_may_not_run(
    postgres: Server, tmp_path: Path, program: Program, subtests: pytest.Subtests
) -> None:
    read, write = make_world(postgres), endpoint(postgres, "app_write")
    async with serving(tmp_path, read, policy=BOUNDED, write=write) as served:
        # A batch of simple queries is no batch on the wire: each of them is a transaction of its own.
        for name, properties in MODES.items():
            if name == "simple":
                continue
            with subtests.test(name):
                async with program.running("ruled", served.ticket(role="write"), **properties) as run:
                    told = [line.partition(", ")[0].partition(" [")[0] for line in await run.said()]
                assert told == (RULED if name != "rewritten" else REWRITTEN) * 2
        denied = served.recorder.of("statement.denied")
        assert {one["verb"] for one in denied} == {"VACUUM"}
        assert {one["most"] for one in served.recorder.of("statement.counted")} == {10}
