"""What is measured: ways to one database. Other proxies are started where they are installed, and else named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from broker.demo.cluster import free_port
from broker.demo.owner import server_owner
from broker.transport.tls import certificate
from tests.bench import programs

INSTALL_LINES = {name: f"apt install {name}" for name in ("pgbouncer", "haproxy")}


@dataclass(frozen=True, slots=True)
class Peer:
    """A way to the database; `tls` is of the client's side, `masked` says that fields arrive masked, `ahead` that
    connections to the server are logged in before they are needed, which matters for setting up alone.

    `pids` are the processes in between, where there is one or more.
    """

    name: str
    port: int
    database: str
    user: str
    password: str
    tls: bool
    masked: bool = False
    ahead: bool = False
    pids: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """Name it with its encryption, without which figures do not compare."""
        return f"{self.name} {'tls' if self.tls else 'plain'}"

    @property
    def environment(self) -> dict[str, str]:
        """What libpq needs to go this way; the mode leaves it no choice about encryption."""
        return {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGDATABASE": self.database,
            "PGUSER": self.user,
            "PGPASSWORD": self.password,
            "PGSSLMODE": "require" if self.tls else "disable",
            "PGGSSENCMODE": "disable",
            "PGCONNECT_TIMEOUT": "10",
        }


_PGBOUNCER = """
[databases]
{database} = host=127.0.0.1 port={upstream} dbname={database}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users.txt
pool_mode = session
default_pool_size = 2500
max_client_conn = 2500
server_tls_sslmode = disable
client_tls_sslmode = {mode}
client_tls_cert_file = {folder}/tls.crt
client_tls_key_file = {folder}/tls.key
log_connections = 0
log_disconnections = 0
"""
_HAPROXY = """
defaults
    mode tcp
    maxconn 2500
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen postgres
    bind 127.0.0.1:{port}
    server upstream 127.0.0.1:{upstream}
"""


@contextmanager
def other_proxies(ways: Sequence[Peer], folder: Path) -> Iterator[tuple[list[Peer], list[str]]]:
    """Run what is installed in front of the server; yields the ways, and a line for each that is not there.

    `ways` are the direct ones: haproxy passes TLS on where the server speaks it. Each way has a process of its own, for
    what one has left in memory the other would use.
    """
    peers: list[Peer] = []
    skipped: list[str] = []
    with ExitStack() as stack:
        for name, start in (("pgbouncer", _pgbouncer), ("haproxy", _haproxy)):
            program = programs.find_program(name)
            if program is None:
                skipped.append(f"{name} is not installed, so nothing is compared with it: {INSTALL_LINES[name]}")
                continue
            for tls in (False, True):
                direct = next((way for way in ways if way.tls is tls), None)
                if direct is not None or name == "pgbouncer":
                    own = folder / f"{name}-{'tls' if tls else 'plain'}"
                    peers.append(stack.enter_context(start(program, direct or ways[0], own, tls)))
        yield peers, skipped


@contextmanager
def _pgbouncer(program: str, direct: Peer, folder: Path, tls: bool) -> Iterator[Peer]:
    """Pool by session, as the broker does; never TLS to the server, as the broker is set up here."""
    port, owner = free_port(), server_owner()
    certificate(folder, "localhost")
    (folder / "users.txt").write_text(f'"{direct.user}" "{direct.password}"\n')
    mode = "require" if tls else "disable"
    values = {"database": direct.database, "upstream": direct.port, "port": port, "folder": folder, "mode": mode}
    (folder / "pgbouncer.ini").write_text(_PGBOUNCER.format(**values))
    programs.hand_over(folder, owner)
    command = [program, str(folder / "pgbouncer.ini")]
    with programs.running("pgbouncer", command, folder, owner=owner) as process:
        programs.wait_listening("pgbouncer", process, port, folder)
        yield Peer("pgbouncer", port, direct.database, direct.user, direct.password, tls, pids=(process.pid,))


@contextmanager
def _haproxy(program: str, direct: Peer, folder: Path, tls: bool) -> Iterator[Peer]:
    """Pass bytes without a look at them; it cannot end TLS for clients that ask for it in PostgreSQL's own way.

    With TLS it is the server that speaks it.
    """
    port, owner = free_port(), server_owner()
    folder.mkdir()
    (folder / "haproxy.cfg").write_text(_HAPROXY.format(port=port, upstream=direct.port))
    programs.hand_over(folder, owner)
    command = [program, "-db", "-f", str(folder / "haproxy.cfg")]
    with programs.running("haproxy", command, folder, owner=owner) as process:
        programs.wait_listening("haproxy", process, port, folder)
        yield Peer("haproxy", port, direct.database, direct.user, direct.password, tls, pids=(process.pid,))
