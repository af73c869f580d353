"""Kills on one endpoint share their looks, and none of them stands or falls with another."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from broker.protocols.postgres import kill
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


async def test_polite_ends_are_looked_for_together_and_what_is_urgent_waits_for_none_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kill, "POLITE_SECONDS", 600.0)
    looks: list[list[int]] = []

    async def fetch(sql: str, pids: list[int], names: list[str], identities: list[str]) -> list[dict[str, Any]]:
        looks.append(sorted(pids))
        return []

    killer = Killer(fetch)
    polite = [
        asyncio.create_task(killer.kill(replace(LEASE, session=f"s{pid}", pid=pid, backend_start=1), 900.0))
        for pid in (1, 2)
    ]
    await asyncio.sleep(0.02)
    assert not looks
    assert await asyncio.wait_for(killer.kill(replace(LEASE, session="s3", pid=3, backend_start=1)), 30)
    assert await asyncio.wait_for(asyncio.gather(*polite), 30) == [True, True]
    assert looks == [[1, 2, 3]]


async def test_one_that_was_told_to_end_and_has_not_is_terminated_when_its_grace_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kill, "POLITE_SECONDS", 0.01)
    terminated: list[float] = []
    loop = asyncio.get_running_loop()

    async def fetch(sql: str, *_: object) -> list[dict[str, Any]]:
        if "pg_terminate_backend" in sql:
            terminated.append(loop.time())
        return [] if terminated else [{"pid": 7, "start": 1, "name": "", "identity": "app"}]

    told = loop.time()
    assert await asyncio.wait_for(Killer(fetch).kill(replace(LEASE, pid=7, backend_start=1), 0.05), 30)
    (at,) = terminated
    assert at >= told + 0.05
