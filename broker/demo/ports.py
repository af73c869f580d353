"""The demo's ports: free ones, chosen once and kept with the state."""

import json
import random
import time
from collections.abc import Callable
from pathlib import Path

from broker.demo.cluster import port_is_free

NAMES = ("workspace", "postgres", "api", "upstream")
# Below the ranges that Linux and macOS take the ports of outgoing connections from.
_RANGE = range(20_000, 32_000)
_PATIENCE = 3.0


def choose_ports(file: Path, say: Callable[[str, str], None]) -> dict[str, int]:
    """The port of each name: the one used before where it is still free, else a new one."""
    known = _read(file)
    ports: dict[str, int] = {}
    for name in NAMES:
        port = known.get(name)
        if port is not None and not _becomes_free(port):
            say(name, f"port {port} is taken by another program: using a new one")
            port = None
        ports[name] = port or _new_port({*ports.values(), *known.values()})
    partial = file.with_suffix(".part")
    partial.write_text(json.dumps(ports, indent=2) + "\n")
    partial.replace(file)
    return ports


def _read(file: Path) -> dict[str, int]:
    try:
        known = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {name: port for name, port in known.items() if isinstance(port, int) and 0 < port < 65_536}


def _becomes_free(port: int) -> bool:
    """Whether the port is free, after a moment for what an earlier demo left to end."""
    deadline = time.monotonic() + _PATIENCE
    while not port_is_free(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _new_port(taken: set[int]) -> int:
    for port in random.sample(_RANGE, len(_RANGE)):
        if port not in taken and port_is_free(port):
            return port
    raise OSError("no free port between 20000 and 32000 on 127.0.0.1")
