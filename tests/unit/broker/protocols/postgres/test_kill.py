"""Kills on one endpoint share their looks, and none of them stands or falls with another."""

import asyncio
from dataclasses import replace
from typing import Any

from broker.protocols.postgres.kill import Killer
from tests.unit.broker.protocols.test_leases import LEASE


async def test_a_lease_that_no_query_takes_keeps_no_other_session_alive() -> None:
    async def fetch(sql: str, pids: list[Any], names: list[Any], identities: list[str]) -> list[dict[str, Any]]:
        assert identities == []
        if not all(isinstance(pid, int) for pid in pids):
            raise TypeError("an integer is required")
        return []

    killer = Killer(fetch)
    odd = asyncio.create_task(killer.kill(replace(LEASE, session="s2", pid="x", backend_start=1)))  # type: ignore[arg-type]
    assert await asyncio.wait_for(killer.kill(replace(LEASE, pid=7, backend_start=1)), 3)
    assert not odd.done()
    odd.cancel()


async def test_a_role_that_was_not_made_for_a_session_is_not_ended_with_it() -> None:
    asked: list[list[str]] = []

    async def fetch(sql: str, pids: list[int], names: list[str], identities: list[str]) -> list[dict[str, Any]]:
        asked.append(identities)
        return [{"pid": 1, "start": 1, "name": "psql", "identity": "postgres"}]

    session = "s0123456789abcdef"
    own = f"airlock_s_00000000_{session}"
    for identity in ("postgres", "airlock_s_00000000_s0000000000000000", f"{own}\n", f"x{own}"):
        lease = replace(LEASE, session=session, pid=7, backend_start=1, identity=identity)
        assert await asyncio.wait_for(Killer(fetch).kill(lease), 3)
    assert not any(asked)
    assert await asyncio.wait_for(Killer(fetch).kill(replace(LEASE, session=session, identity=own)), 3)
    assert asked[-1] == [own]
