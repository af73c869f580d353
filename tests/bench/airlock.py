"""Airlock as it runs: the broker's and the reaper's processes, a grant by a signed order, a ticket over the API.

One takes TLS alone, as it comes; one lets clients of this machine do without, to be compared with what has none.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.adapters.auditkey import public_pem
from tests.bench import programs
from tests.bench.peers import Peer
from workflows.orders import Evidence, Order, sign_call, sign_order

PERSON, ROLE = "alice", "read"
CLEAR, MASKED, AHEAD = "bench-clear", "bench-masked", "bench-ahead"
# The masks have the type and the width of what they hide, so that as many bytes flow.
POLICY = """
groups: {{engineers: Engineers}}
people:
  alice: {{name: Alice, groups: [engineers]}}
resources:
  bench-clear: &bench
    protocol: postgres
    upstream: {{host: 127.0.0.1, port: {port}, database: {database}, tls: disable}}
    roles:
      read: {{credential: "file:bench", relations: ["public.*"]}}
  bench-masked: *bench
  bench-ahead:
    protocol: postgres
    upstream: {{host: 127.0.0.1, port: {port}, database: {database}, tls: disable}}
    roles:
      read: {{credential: "file:bench", relations: ["public.*"], spares: 2}}
access:
  - {{id: bench, decision: allow, groups: [engineers], max_duration: 8h}}
statements:
  - {{id: reads, decision: allow, effects: [read, session]}}
fields:
  - id: accounts
    resource: bench-masked
    relation: public.pgbench_accounts
    clear: [aid, filler]
    masks: {{bid: {{mask: fixed, value: "1"}}, abalance: {{mask: fixed, value: "0"}}}}
"""
_GRANT_SECONDS = 4 * 3600


def policy_text(direct: Peer) -> str:
    """Write the policy: one resource passes everything through, on the other two fields are masked."""
    return POLICY.format(port=direct.port, database=direct.database)


@contextmanager
def airlock(direct: Peer, folder: Path, *, tls: bool, workers: int = 1) -> Iterator[list[Peer]]:
    """Run a broker and its reaper in front of the server; yields ways without masks, with them, and with spares."""
    state, policies = folder / "state", folder / "policies"
    policies.mkdir(parents=True)
    (policies / "bench.yaml").write_text(policy_text(direct))
    (state / "secrets").mkdir(parents=True)
    (state / "secrets" / "bench").write_text(f"{direct.user}:{direct.password}\n")
    key = Ed25519PrivateKey.generate()
    (state / "bot").mkdir()
    (state / "bot" / "order.pub.pem").write_bytes(public_pem(key.public_key()))
    settings = {
        "AIRLOCK_STATE": str(state),
        "AIRLOCK_POLICIES": str(policies),
        "AIRLOCK_API_PORT": "0",
        "AIRLOCK_PORT_POSTGRES": "0",
        "AIRLOCK_LOG_LEVEL": "warning",
        "AIRLOCK_WORKERS": str(workers),
        "AIRLOCK_PLAINTEXT": "never" if tls else "loopback",
    }
    ready = {"AIRLOCK_READY_FILE": str(folder / "ready.json")}
    with (
        _module("broker.reaper", folder, settings),
        _module("broker", folder, settings | ready) as broker,
    ):
        url = _wait_ready(broker, folder)
        pids = broker.pid, *json.loads((folder / "ready.json").read_text()).get("workers", ())
        way = partial(_way, key=key, url=url, tls=tls, pids=pids)
        yield [
            way("airlock", CLEAR),
            replace(way("airlock masked", MASKED), masked=True),
            replace(way("airlock spares", AHEAD), ahead=True),
        ]


@contextmanager
def _module(name: str, folder: Path, settings: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", name]
    with programs.running(name, command, folder, environment=settings, cwd=programs.ROOT) as process:
        yield process


def _wait_ready(broker: subprocess.Popen[bytes], folder: Path, patience: float = 30.0) -> str:
    """Wait until the broker serves and its reaper watches; returns the API's address."""
    deadline = time.monotonic() + patience
    ready = folder / "ready.json"
    while time.monotonic() < deadline and broker.poll() is None:
        if ready.exists():
            url = str(json.loads(ready.read_text())["api"])
            try:
                urllib.request.urlopen(f"{url}/v1/ready", timeout=5).close()
            except urllib.error.HTTPError:
                pass  # no reaper yet
            else:
                return url
        time.sleep(0.05)
    raise programs.BenchFailed(f"the broker did not start:\n{programs.tail(folder / 'broker.log')}")


def _way(name: str, resource: str, key: Ed25519PrivateKey, url: str, *, tls: bool, pids: tuple[int, ...]) -> Peer:
    now = datetime.now(UTC)
    order = Order(
        id=f"o{secrets.token_hex(6)}",
        request=f"r{secrets.token_hex(6)}",
        requester=PERSON,
        requester_evidence=Evidence(platform="bench", team="T1", user="U1"),
        resource=resource,
        role=ROLE,
        seconds=_GRANT_SECONDS,
        reason="bench",
        asked_at=now,
        reviews=[],
        policy_hash="0" * 64,
    )
    grant = _post(url, "/v1/grants", {"order": sign_order(order, key, now)})
    path = f"/v1/grants/{grant['id']}/tickets"
    ticket = _post(url, path, {}, sign_call("POST", path, key, datetime.now(UTC), PERSON))
    user, password = ticket["user"], ticket["password"]
    return Peer(name, ticket["port"], ticket["database"], user, password, tls, pids=pids)


def _post(url: str, path: str, body: dict[str, str], token: str | None = None) -> dict[str, Any]:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    request = urllib.request.Request(url + path, json.dumps(body).encode(), headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except urllib.error.HTTPError as error:
        raise programs.BenchFailed(f"POST {path}: {error.code} {error.read().decode(errors='replace')}") from None
