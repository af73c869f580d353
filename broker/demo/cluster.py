"""One PostgreSQL cluster of our own: made once, reachable by TCP on loopback only, ended with us."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from broker.demo.install import Install
from broker.demo.lifeline import command_line, die_with_parent, end, is_alive, watch
from broker.demo.owner import Owner

SUPERUSER = "postgres"
# PostgreSQL's own three ways to end: fast, at once, and by force.
_STEPS = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
_HBA = "host all all 127.0.0.1/32 scram-sha-256\n"
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # A failing statement of the set-up would write a role's password into the log.
    "log_min_error_statement": "panic",
}


class ClusterFailed(Exception):
    """PostgreSQL did not do what was asked of it"""


@dataclass(slots=True)
class Cluster:
    """A data directory under `home`, and the server that runs on it; `settings` are given to each start."""

    install: Install
    home: Path
    owner: Owner | None
    settings: Mapping[str, str] = field(default_factory=dict)
    log: IO[bytes] | None = None
    server: subprocess.Popen[bytes] | None = None
    port: int = 0

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.home / "data"

    @property
    def exists(self) -> bool:
        """Whether `create` has run to its end."""
        return (self.data / "PG_VERSION").is_file()

    def create(self, password: str, *, sync: bool = True) -> None:
        """Runs initdb, under another name until it is whole."""
        partial = self.home / "data.part"
        # The superuser's password goes by a file that only the server's user reads; initdb takes it in no other way.
        words = self.home / "initdb.password"
        try:
            words.unlink(missing_ok=True)
            descriptor = os.open(words, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(password)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(mode=0o700)
            self._give(words)
            self._give(partial)
            command = [
                self.install.program("initdb"),
                *("-D", str(partial), "-U", SUPERUSER, "--auth=scram-sha-256", f"--pwfile={words}"),
                *("--encoding=UTF8", "--locale=C"),
                *(("--no-instructions",) if self.install.major >= 14 else ()),
                *(() if sync else ("--no-sync",)),
            ]
            done = self._run(command)
            if done.returncode != 0:
                raise ClusterFailed(f"initdb failed: {done.stderr.decode(errors='replace').strip()}")
            (partial / "pg_hba.conf").write_text(_HBA)
        finally:
            words.unlink(missing_ok=True)
        partial.rename(self.data)

    def start(self, port: int, *, patience: float = 60.0) -> int:
        """Starts the server and returns the postmaster's pid once it accepts connections."""
        self._end_stray()
        if not port_is_free(port):
            raise ClusterFailed(f"port {port} on 127.0.0.1 is in use by another program")
        deadline = time.monotonic() + patience
        tries = 5
        while True:
            server = self._spawn(port)
            self.server, self.port = server, port
            if self._wait_ready(server, deadline):
                return server.pid
            tries -= 1
            # After a kill -9 the last server's children may hold its shared memory for a moment.
            if tries == 0 or time.monotonic() > deadline:
                self.stop()
                raise ClusterFailed(f"PostgreSQL {self.install.version} did not start: its own lines above say why")
            time.sleep(0.5)

    def stop(self) -> int:
        """Ends the server: fast, then at once, then by force; returns its exit status."""
        server = self.server
        if server is None:
            return 0
        for signum, patience in _STEPS:
            if server.poll() is None:
                server.send_signal(signum)
                try:
                    server.wait(patience)
                except subprocess.TimeoutExpired:
                    continue
            break
        self.server = None
        return server.returncode or 0

    def _spawn(self, port: int) -> subprocess.Popen[bytes]:
        command = [self.install.program("postgres"), "-D", str(self.data), "-p", str(port)]
        for name, value in {**_SETTINGS, **self.settings}.items():
            command += ["-c", f"{name}={value}"]
        server = subprocess.Popen(
            command,
            user=self.owner.uid if self.owner else None,
            group=self.owner.gid if self.owner else None,
            extra_groups=[] if self.owner else None,
            cwd="/",
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            # A group of its own: Ctrl-C in a terminal must not reach it before those who use it are gone.
            process_group=0,
            preexec_fn=die_with_parent(signal.SIGINT),
        )
        watch(server.pid, signal.SIGINT)
        return server

    def _wait_ready(self, server: subprocess.Popen[bytes], deadline: float) -> bool:
        while server.poll() is None and time.monotonic() < deadline:
            lines = self._pid_lines()
            if len(lines) > 7 and lines[0] == str(server.pid) and lines[7].strip() == "ready":
                return True
            time.sleep(0.02)
        return False

    def _pid_lines(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return []

    def _end_stray(self) -> None:
        """Ends a server that an earlier run left behind, and forgets a pid that another program has got since."""
        lines = self._pid_lines()
        pid = int(lines[0]) if lines and lines[0].isdigit() else 0
        if pid <= 0 or not is_alive(pid):
            return
        if str(self.data) not in command_line(pid):
            (self.data / "postmaster.pid").unlink(missing_ok=True)
            return
        if end(pid, _STEPS):
            return
        raise ClusterFailed(f"an earlier PostgreSQL on `{self.data}` would not end: its pid is {pid}")

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            command,
            user=self.owner.uid if self.owner else None,
            group=self.owner.gid if self.owner else None,
            extra_groups=[] if self.owner else None,
            cwd="/",
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )

    def _give(self, path: Path) -> None:
        if self.owner is not None:
            os.chown(path, self.owner.uid, self.owner.gid)


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port of the loopback address that nothing listens on now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _environment() -> dict[str, str]:
    """What the server gets of our environment: nothing that would change how it behaves, and no secrets."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
