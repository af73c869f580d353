"""What shows nothing masked of tables with masked fields answers as it does without a broker."""

from __future__ import annotations

import pytest

from tests.integration.two_worlds import World, worlds
from tests.support.postgres import CASES

__all__ = ["worlds"]

READS = CASES.with_name("honest_reads.sql").read_text().splitlines()[1:]


@pytest.mark.parametrize("sql", READS)
def test_what_shows_nothing_masked_is_what_it_is_directly(worlds: tuple[World, World], sql: str) -> None:
    for world in worlds:
        direct = world._rows(sql, world.connection)
        world.connection.execute("rollback; deallocate all; reset search_path")
        assert repr(world.run(sql)) == repr(direct)
