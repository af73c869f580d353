"""Kills on one endpoint share their looks, and none of them stands or falls with another."""

import asyncio
from dataclasses import replace
from typing import Any

from broker.protocols.postgres.kill import Killer
from tests.unit.broker.protocols.test_leases import LEASE


async def test_a_lease_that_no_query_takes_keeps_no_other_session_alive() -> None:
    async def fetch(sql: str, pids: list[Any], names: list[Any]) -> list[dict[str, Any]]:
        if not all(isinstance(pid, int) for pid in pids):
            raise TypeError("an integer is required")
        return []

    killer = Killer(fetch)
    odd = asyncio.create_task(killer.kill(replace(LEASE, session="s2", pid="x", backend_start=1)))  # type: ignore[arg-type]
    assert await asyncio.wait_for(killer.kill(replace(LEASE, pid=7, backend_start=1)), 3)
    assert not odd.done()
    odd.cancel()
