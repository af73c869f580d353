"""The psql programs of this machine, and a role for a pane to connect as."""

from pathlib import Path

from bot.workspace.terminal.ticket import Connection
from broker.demo.install import installs
from tests.support.postgres import Server


def psqls() -> list[Path]:
    """Every psql program here, a wheel's among them."""
    return [path for install in installs() if (path := install.bin / "psql").is_file()]


def connection(server: Server) -> Connection:
    server.create_role("pane", "pane-password")
    return Connection("127.0.0.1", server.port, "postgres", "pane", "disable", "pane-password")
