"""Runs the demo's database server in the foreground: `python -m broker.demo.upstream --state DIR --port N`."""

import argparse
import asyncio
import json
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import FrameType
from typing import Any

from broker.demo.cluster import SUPERUSER, Cluster, ClusterFailed
from broker.demo.install import NoPostgres, find_postgres
from broker.demo.owner import NoShelter, reachable_install, server_home, server_owner
from broker.demo.shop import prepare, write_private

PROGRESS = "progress: "
_SETTINGS = {"max_connections": "250", "shared_buffers": "128MB", "log_checkpoints": "off"}


class PasswordLost(Exception):
    """the superuser's password is gone, and with it the way into the data"""


def main(arguments: list[str] | None = None) -> int:
    """Starts the server, fills the shop once, and stays until a signal or the server's end."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    started = time.monotonic()

    def say(text: str) -> None:
        sys.stdout.write(f"{PROGRESS}{text} ({time.monotonic() - started:.1f} s)\n")
        sys.stdout.flush()

    try:
        return _serve(options, say)
    except (NoPostgres, NoShelter, ClusterFailed, PasswordLost) as error:
        sys.stderr.write(f"upstream: {error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m broker.demo.upstream", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="folder for the data and the superuser's password")
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1")
    parser.add_argument("--ready", type=Path, help="file to write, as JSON, once the shop can be queried")
    parser.add_argument("--postgres", help="which install: wheel, debian, a major version or a folder of programs")
    parser.add_argument(
        "--secrets", type=Path, help="folder for the broker's credentials (default: AIRLOCK_SECRETS, or STATE/secrets)"
    )
    return parser


_filling: list[Callable[[], object]] = []
"""What ends the filling of the shop while that is under way."""


def _leave(_signum: int, _frame: FrameType | None) -> None:
    if not _filling:
        raise SystemExit(0)
    # Raised in a driver's C callback an exception is swallowed, and the filling would wait for ever for what that had
    # to say; and some would be taken for an error of the driver's own.
    _filling[0]()


async def _fill(filling: Coroutine[Any, Any, None]) -> None:
    """Fill the shop; a signal cancels that, and then leaves."""
    task = asyncio.ensure_future(filling)
    loop = asyncio.get_running_loop()
    told = False

    def cancel() -> None:
        nonlocal told
        told = True
        loop.call_soon_threadsafe(task.cancel)

    _filling.append(cancel)
    try:
        await task
    except BaseException:
        # Whatever a cancelled driver says, it was told to stop.
        if not told:
            raise
    finally:
        _filling.clear()
    if told:
        raise SystemExit(0)


def _serve(options: argparse.Namespace, say: Callable[[str], None]) -> int:
    state: Path = options.state.absolute()
    folder: Path = options.secrets or Path(os.environ.get("AIRLOCK_SECRETS") or state / "secrets")
    owner = server_owner()
    home = server_home(state, owner)
    install = reachable_install(find_postgres(options.postgres), home, owner)
    cluster = Cluster(install, home, owner, _SETTINGS)
    password = _superuser_password(state, cluster)
    if not cluster.exists:
        say(f"creating a PostgreSQL {install.version} cluster")
        cluster.create(password)
    try:
        pid = cluster.start(options.port)
        asyncio.run(_fill(prepare(options.port, password, folder, say)))
        say(f"PostgreSQL {install.version} is ready")
        if options.ready:
            write_private(options.ready, json.dumps({"pid": pid, "host": "127.0.0.1", "port": options.port}))
        assert cluster.server is not None
        cluster.server.wait()
        raise ClusterFailed(f"PostgreSQL ended by itself (status {cluster.server.returncode})")
    finally:
        # A second signal must not cut the shutdown short.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        cluster.stop()


def _superuser_password(state: Path, cluster: Cluster) -> str:
    path = state / "superuser"
    if path.exists():
        return path.read_text().strip().partition(":")[2]
    if cluster.exists and cluster.home != state:
        # A shelter outlives the state that it belonged to, and a new state of the same name finds it.
        shutil.rmtree(cluster.data)
    if cluster.exists:
        raise PasswordLost(
            f"the data in `{cluster.home}` is there, but its password in `{path}` is gone: "
            f"remove `{cluster.home}` to start with a new shop"
        )
    password = secrets.token_urlsafe(24)
    write_private(path, f"{SUPERUSER}:{password}\n")
    return password


if __name__ == "__main__":
    sys.exit(main())
