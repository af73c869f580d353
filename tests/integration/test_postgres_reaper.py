"""The reaper ends sessions of a broker that is stopped or dead, verified on the upstream, and is itself watched."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from broker.adapters.leases import LeaseFile
from broker.adapters.recovery import survivors
from broker.protocols.postgres import codec
from tests.integration.broker import until
from tests.integration.postgres_world import (
    SLOW,
    backends,
    enter,
    gone_within,
    kinds,
    make_maker,
    make_world,
    raw,
    session_roles,
)
from tests.support.broker import POLICY, Line
from tests.support.postgres import Server

WAITING = "select count(*) from notes"
OLD = "1970-01-01T00:00:00+00:00"
ROOT = Path(__file__).parents[2]


@contextmanager
def reaper(state: Path, secrets: Path) -> Iterator[subprocess.Popen[bytes]]:
    ready = state / f"reaper-{time.monotonic_ns()}.json"
    environment = {
        "PATH": os.environ["PATH"],
        "AIRLOCK_STATE": str(state),
        "AIRLOCK_POLICIES": str(state / "none"),
        "AIRLOCK_SECRETS": str(secrets),
        "AIRLOCK_READY_FILE": str(ready),
    }
    process = subprocess.Popen([sys.executable, "-m", "broker.reaper"], cwd=ROOT, env=environment)
    try:
        deadline = time.monotonic() + 30
        while not ready.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert json.loads(ready.read_text())["pid"] == process.pid
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        assert process.wait(30) == 0


SERVER = """
import asyncio, json, sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
sys.path.insert(0, {root!r})
from broker.adapters.leases import LeaseFile
from broker.sessions.model import Source
from broker.sessions.ports import Endpoint
from tests.support.broker import POLICY, serving

async def main():
    state = Path({state!r})
    source = Source("127.0.0.1", {upstream}, "shop", "disable", "file:x")
    making = replace(source, credential="file:m")
    maker = Endpoint("127.0.0.1", {upstream}, "shop", "maker", "maker-password", "disable", None, making)
    end = Endpoint("127.0.0.1", {upstream}, "shop", "app", "app-password", "disable", None, source, {maker})
    async with serving(state / "broker", end, policy={policy!r}, leases=LeaseFile(state / "broker")) as broker:
        ticket = broker.ticket(lasts={lasts})
        shown = {{"user": ticket.user, "password": ticket.password, "port": ticket.port,
                 "ends": ticket.grant.expires_at.timestamp()}}
        Path(state / "ready.json.part").write_text(json.dumps(shown))
        (state / "ready.json.part").rename(state / "ready.json")
        if {longer}:
            while not any(lease.pid for lease in broker.leases._open.values()):
                await asyncio.sleep(0.02)
            await broker.live.sessions[0].extend(ticket.grant.expires_at + timedelta(seconds={longer}))
        await asyncio.sleep(60)

asyncio.run(main())
"""


@contextmanager
def broker_process(
    state: Path, policy: str, upstream: int, lasts: float, longer: float = 0.0, maker: str = "None"
) -> Iterator[tuple[Any, dict[str, Any]]]:
    values = {"state": str(state), "upstream": upstream, "policy": policy, "lasts": lasts, "longer": longer}
    text = SERVER.format(root=str(ROOT), **values, maker=maker)
    process = subprocess.Popen([sys.executable, "-c", text], cwd=ROOT)
    try:
        deadline = time.monotonic() + 30
        while not (state / "ready.json").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield process, json.loads((state / "ready.json").read_text())
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("how", "limit"), [(signal.SIGSTOP, 15.0), (signal.SIGKILL, 15.0)])
async def test_the_reaper_ends_sessions_of_a_broker_that_cannot(
    wheel_postgres: Server, tmp_path: Path, how: signal.Signals, limit: float
) -> None:
    make_world(wheel_postgres)
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    policy = POLICY.replace("port: 1,", f"port: {wheel_postgres.port},")
    # What waits for a session ends with the broker's process; while that stands still, it waits for nobody.
    ahead = how is signal.SIGKILL
    policy = policy.replace("read: {", "read: {spares: 1, ") if ahead else policy
    (secrets / "x").write_text("app:app-password\n")
    with (
        locked(wheel_postgres),
        reaper(tmp_path, secrets),
        broker_process(tmp_path, policy, wheel_postgres.port, 4.0) as (process, shown),
    ):
        ticket = Line(shown["user"], shown["password"], "prod-db", shown["port"])
        with raw(shown["port"]) as client:
            assert kinds(await asyncio.to_thread(enter, client, ticket)).endswith("Z")
            client.send(codec.query(WAITING))
            deadline = time.monotonic() + 15
            while len(backends(wheel_postgres)) != 1 + ahead:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)
            process.send_signal(how)
            begun = time.monotonic()
            if how is signal.SIGSTOP:
                begun += max(0.0, shown["ends"] - time.time())
                await asyncio.sleep(max(0.0, shown["ends"] - time.time()))
            await gone_within(wheel_postgres, limit)
            assert time.monotonic() - begun < limit
        await until(lambda: _told(tmp_path))
        (line,) = _told(tmp_path)
        assert line["data"]["verified"] is True
        assert line["data"]["reason"] == ("expired" if how is signal.SIGSTOP else "error")


async def test_a_broker_that_starts_again_waits_until_survivors_and_their_roles_are_gone(
    wheel_postgres: Server, tmp_path: Path
) -> None:
    make_world(wheel_postgres)
    make_maker(wheel_postgres)
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "m").write_text("maker:maker-password\n")
    policy = POLICY.replace("port: 1,", f"port: {wheel_postgres.port},")
    with (
        reaper(tmp_path, secrets),
        broker_process(tmp_path, policy, wheel_postgres.port, 60.0, maker="maker") as (process, shown),
        raw(shown["port"]) as client,
    ):
        ticket = Line(shown["user"], shown["password"], "prod-db", shown["port"])
        assert kinds(await asyncio.to_thread(enter, client, ticket)).endswith("Z")
        client.send(codec.query(SLOW))
        assert len(session_roles(wheel_postgres)) == 1
        process.send_signal(signal.SIGKILL)
        # What a broker that starts again waits for, before it listens.
        left = await survivors(tmp_path / "broker", 15.0)
        assert left.open == frozenset()
        assert len(left.reaped) == 1
        assert session_roles(wheel_postgres) == []
        await until(lambda: _told(tmp_path))
        (line,) = _told(tmp_path)
    assert (line["type"], line["data"].get("identity")) == ("session.closed", "dropped")


async def test_the_reaper_follows_an_extension_and_ends_the_session_at_its_new_end(
    wheel_postgres: Server, tmp_path: Path
) -> None:
    make_world(wheel_postgres)
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    policy = POLICY.replace("port: 1,", f"port: {wheel_postgres.port},")
    (secrets / "x").write_text("app:app-password\n")
    with (
        locked(wheel_postgres),
        reaper(tmp_path, secrets),
        broker_process(tmp_path, policy, wheel_postgres.port, 4.0, longer=2.0) as (process, shown),
    ):
        ticket = Line(shown["user"], shown["password"], "prod-db", shown["port"])
        with raw(shown["port"]) as client:
            assert kinds(await asyncio.to_thread(enter, client, ticket)).endswith("Z")
            client.send(codec.query(WAITING))
            leases = tmp_path / "broker" / "leases" / "leases.ndjson"
            later = shown["ends"] + 1.0
            while not any(
                datetime.fromisoformat(row.get("expires_at", OLD)).timestamp() > later for row in _lines(leases)
            ):
                assert time.time() < shown["ends"]
                await asyncio.sleep(0.02)
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(max(0.0, shown["ends"] + 1.0 - time.time()))
            assert len(backends(wheel_postgres)) == 1
            await asyncio.sleep(max(0.0, shown["ends"] + 2.0 - time.time()))
            await gone_within(wheel_postgres, 15.0)


@contextmanager
def locked(server: Server) -> Iterator[None]:
    """Have whoever reads the notes wait, which takes no time of the processor."""
    with server.connect("shop", autocommit=False) as other:
        other.execute("lock table notes in access exclusive mode")
        yield


def _told(state: Path) -> list[dict[str, Any]]:
    """What the reaper's own log says of sessions; beside its events it has checkpoints, as time goes by."""
    lines = [line for path in (state / "broker" / "events").glob("reaper*.ndjson") for line in _lines(path)]
    return [line for line in lines if line.get("session")]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_a_stopped_or_ended_reaper_is_seen(tmp_path: Path) -> None:
    leases = LeaseFile(tmp_path / "broker")
    try:
        assert not leases.reaper_alive()
        with reaper(tmp_path, tmp_path) as process:
            await until(leases.reaper_alive)
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(2.2)
            assert not leases.reaper_alive()
            process.send_signal(signal.SIGCONT)
            await until(leases.reaper_alive)
        assert not leases.reaper_alive()
    finally:
        leases.release()
