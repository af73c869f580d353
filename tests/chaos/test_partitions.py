"""Hosts that are lost without a word, in network namespaces: the upstream ends their sessions, the broker notices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import pytest

from broker.protocols.postgres import codec
from tests.integration.postgres_world import Raw, enter, make_world
from tests.support.broker import Line
from tests.support.postgres import Server, running_server
from tests.support.require import missing, require_program

ROOT = Path(__file__).parents[2]
CABLES = 2
NOBODY = "02:00:00:00:00:01"
"""Where packets go after a partition: a card that is not there, so nothing comes back, not even a refusal."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's own")

HOST = """
import asyncio, json, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from broker.protocols.postgres import OFFER, codec
from broker.sessions.model import Source
from broker.sessions.ports import Endpoint
from tests.integration.postgres_world import SLOW, Raw, enter
from tests.support.broker import serving

STREAM = "select a.body || b.body || c.body from notes a, notes b, notes c"
STATES = {{
    "idle": [],
    "idle in a transaction": [codec.query("begin")],
    "a long query": [codec.query(SLOW)],
    "waiting for a lock": [codec.query("insert into log (what) values ('x')")],
    "a COPY that waits for a row": [
        codec.query("copy notes (id, body) from stdin"), codec.message(b"d", b"5000{tab}x{line}"),
        *[codec.message(b"d", b"%d{tab}" % number + b"x" * 8000 + b"{line}") for number in range(6000, 10000)],
    ],
    "a client that reads nothing": [codec.query(STREAM)],
}}

def say(**what):
    print(json.dumps(what), flush=True)

def endpoint(user):
    source = Source({upstream!r}, {port}, "shop", "disable", "file:x")
    return Endpoint({upstream!r}, {port}, "shop", user, user + "-password", "disable", None, source)

async def main():
    async with serving(Path({state!r}), endpoint("app"), write=endpoint("app_write")) as broker:
        outside = await OFFER.listen(broker.broker, {host!r}, 0)
        clients, names = [], {{}}
        for name, messages in STATES.items():
            client = Raw(broker.port)
            clients.append(client)
            await asyncio.to_thread(enter, client, broker.ticket(role="write"))
            names[broker.live.sessions[-1].facts.id] = name
            for message in messages:
                # What there is no room for stays here; the session has to bear that.
                client.socket.settimeout(2)
                try:
                    await asyncio.to_thread(client.send, message)
                    if "COPY" in name and message is messages[0]:
                        await asyncio.to_thread(client.until, "G")
                except TimeoutError:
                    break
        shown = [vars(broker.ticket())  | {{"port": outside.port}} for _ in range(2)]
        say(tickets=[{{name: one[name] for name in ("user", "password", "port")}} for one in shown], sessions=names)
        told = 0
        while True:
            await asyncio.sleep(0.1)
            entries = [one for one in broker.recorder.entries if one.type == "session.closed"]
            for entry in entries[told:]:
                say(closed=names.get(entry.session, "outside"), reason=entry.data["reason"])
            told = len(entries)

asyncio.run(main())
"""


class Link:
    """A cable between this machine and a namespace: `near` is the address here, `far` the one there."""

    def __init__(self, namespace: str, number: int) -> None:
        block = f"10.231.{os.getpid() % 250}"
        self.near, self.far = f"{block}.{number * 4 + 1}", f"{block}.{number * 4 + 2}"
        self._namespace = namespace
        self._cards = f"{namespace}n{number}", f"{namespace}f{number}"
        here, there = self._cards
        _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", namespace)
        _ip("addr", "add", f"{self.near}/30", "dev", here)
        _ip("link", "set", here, "up")
        _ip("-n", namespace, "addr", "add", f"{self.far}/30", "dev", there)
        _ip("-n", namespace, "link", "set", there, "up")

    def cut(self) -> None:
        """Lose every packet, both ways, without a word to anybody."""
        here, there = self._cards
        _ip("neigh", "replace", self.far, "lladdr", NOBODY, "nud", "permanent", "dev", here)
        _ip("-n", self._namespace, "neigh", "replace", self.near, "lladdr", NOBODY, "nud", "permanent", "dev", there)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


@contextmanager
def namespace() -> Iterator[str]:
    require_program("ip", "apt install iproute2")
    name = f"al{os.getpid() % 100_000}"
    if os.geteuid() != 0 or subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        missing("no network namespace can be made", "run the tests as root, with CAP_SYS_ADMIN and CAP_NET_ADMIN")
    try:
        _ip("-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        # The kernel keeps it for as long as a connection of a dead process waits for an answer; the cables go now.
        for number in range(CABLES):
            subprocess.run(["ip", "link", "del", f"{name}n{number}"], capture_output=True, check=False)


class Host:
    """A broker in a namespace, with clients of its own, and what it says."""

    def __init__(self, name: str, text: str) -> None:
        words = ["ip", "netns", "exec", name, sys.executable, "-c", text]
        self.process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self._said: SimpleQueue[str] = SimpleQueue()
        Thread(target=self._read, daemon=True).start()

    def hear(self, seconds: float) -> dict[str, Any]:
        """What it says next; nothing where it says nothing for so long."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                line = self._said.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                return {}
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._said.put(line)


@pytest.fixture
def server() -> Iterator[Server]:
    """The wheel's server, or the one that CHAOS_SERVER names: a minute is enough for `make test`."""
    label = os.environ.get("CHAOS_SERVER", "wheel")
    with running_server(label, {"listen_addresses": "*", "client_connection_check_interval": "0"}) as server:
        (server.cluster.data / "pg_hba.conf").write_text("host all all 0.0.0.0/0 scram-sha-256\n")
        server.execute("select pg_reload_conf()")
        make_world(server)
        yield server


@pytest.mark.timeout(240)
def test_hosts_that_are_lost_take_their_sessions_along_and_nobody_elses(server: Server, tmp_path: Path) -> None:
    with namespace() as name, server.connect("shop", autocommit=False) as other:
        other.execute("lock table log in access exclusive mode; insert into notes values (5000, 'not committed')")
        upstream, outside = Link(name, 0), Link(name, 1)
        values = {"root": str(ROOT), "state": str(tmp_path), "port": server.port, "tab": r"\t", "line": r"\n"}
        host = Host(name, HOST.format(**values, upstream=upstream.near, host=outside.far))
        try:
            told = host.hear(60)
            names = {f"airlock:{session}": state for session, state in told["sessions"].items()}
            # What runs a query all this time leaves the processor to other tests.
            for (pid,) in server.execute("select pid from pg_stat_activity where application_name like 'airlock:s%'"):
                os.setpriority(os.PRIO_PROCESS, pid, 10)
            clients = [_client(outside.far, ticket) for ticket in told["tickets"]]
            clients[1].send(codec.query("select a.body || b.body || c.body from notes a, notes b, notes c"))
            Thread(target=_drain, args=(clients[1],), daemon=True).start()
            time.sleep(1)
            begun = time.monotonic()
            outside.cut()
            _both_lost(host)
            # Longer than a kernel would wait that was asked to take those without room for lost.
            time.sleep(max(0.0, begun + 18 - time.monotonic()))
            assert host.hear(0) == {}
            assert set(_backends(server)) == set(names)
            upstream.cut()
            gone = _gone(server, [one for one, state in names.items() if state != "a client that reads nothing"])
            print(server.label, {names[one]: round(seconds, 1) for one, seconds in gone.items()})
            assert max(gone.values()) < 6.0, gone
            lost = {}
            while len(lost) < len(names) and (one := host.hear(40)):
                lost[one["closed"]] = one["reason"]
            assert lost == dict.fromkeys(names.values(), "upstream")
        finally:
            host.process.kill()
            host.process.wait()


def _client(address: str, ticket: dict[str, Any]) -> Raw:
    client = Raw(ticket["port"], address)
    shown = Line(ticket["user"], ticket["password"], "prod-db", ticket["port"])
    assert chr(enter(client, shown)[-1].type) == "Z"
    return client


def _drain(client: Raw) -> None:
    with suppress(TimeoutError):
        client.rest()


def _both_lost(host: Host) -> None:
    """A client that was idle, and one that was sent a result."""
    for _ in range(2):
        assert host.hear(40) == {"closed": "outside", "reason": "client"}


def _backends(server: Server) -> list[str]:
    rows = server.execute("select application_name from pg_stat_activity where application_name like 'airlock:s%'")
    return [str(name) for (name,) in rows]


def _gone(server: Server, names: list[str]) -> dict[str, float]:
    begun, gone = time.monotonic(), {}
    while len(gone) < len(names) and time.monotonic() - begun < 30:
        there = _backends(server)
        gone |= {name: time.monotonic() - begun for name in names if name not in there and name not in gone}
        time.sleep(0.05)
    return gone | {name: float("inf") for name in names if name not in gone}
