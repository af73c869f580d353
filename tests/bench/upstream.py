"""The database that everything is measured on: pgbench's tables, a table of wide rows, and one role that reads them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.demo.install import Install
from broker.demo.owner import Owner, server_owner
from broker.transport.tls import certificate
from tests.bench.peers import Peer
from tests.bench.programs import BenchFailed, bare_environment, hand_over
from tests.support.postgres import Server, running_server

DATABASE = "bench"
ROLE = "bench_app"
PASSWORD = "bench-password"
SCALE = 10
NARROW_ROWS = 100_000 * SCALE
WIDE_ROWS = 30_000
WIDE_BYTES = 10_000
_SETTINGS = {"shared_buffers": "512MB", "max_parallel_workers_per_gather": "0", "jit": "off"}
# Storage external: the server sends what it reads, and does not unpack it first.
_WIDE = f"""
    create table wide (id int primary key, body text);
    alter table wide alter body set storage external;
    insert into wide select g, repeat(md5(g::text), {WIDE_BYTES // 32 + 1})::varchar({WIDE_BYTES})
    from generate_series(1, {WIDE_ROWS}) g;
    grant select on all tables in schema public to {ROLE};
    vacuum analyze;
"""


@contextmanager
def upstream(install: Install, folder: Path, connections: int) -> Iterator[tuple[Server, list[Peer]]]:
    """Run a server with the tables in it; yields it with the direct ways to it: plain, and by TLS where it has that.

    `connections` is how many it takes.
    """
    tls = _has_tls(install)
    settings = {
        **_SETTINGS,
        "max_connections": str(connections),
        **(_tls_settings(folder, server_owner()) if tls else {}),
    }
    with running_server(install.label, settings) as server:
        server.create_role(ROLE, PASSWORD)
        server.create_database(DATABASE)
        _fill(server)
        ways = (False, True) if tls else (False,)
        yield server, [Peer("direct", server.port, DATABASE, ROLE, PASSWORD, way) for way in ways]


def _fill(server: Server) -> None:
    pgbench = server.cluster.install.program("pgbench")
    command = [pgbench, "-i", "-q", "-n", "-s", str(SCALE), server.url(DATABASE)]
    done = subprocess.run(command, env=bare_environment(), capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise BenchFailed(f"pgbench could not make its tables: {done.stderr.strip()}")
    loaded = server.psql(_WIDE, DATABASE)
    if loaded.returncode != 0:
        raise BenchFailed(f"the tables could not be made: {loaded.stderr.strip()}")


def _has_tls(install: Install) -> bool:
    asked = subprocess.run(
        [install.program("pg_config"), "--configure"], capture_output=True, text=True, timeout=20, check=False
    )
    return any(word in asked.stdout for word in ("--with-openssl", "--with-ssl"))


def _tls_settings(folder: Path, owner: Owner | None) -> dict[str, str]:
    crt, key = certificate(folder / "server-tls", "localhost")
    hand_over(folder / "server-tls", owner)
    return {"ssl": "on", "ssl_cert_file": str(crt), "ssl_key_file": str(key)}
