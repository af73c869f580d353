"""What the suites run against: one PostgreSQL, an all-allowing broker before it, and a forwarder that only copies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from policies.engine.builtins import NAMED
from policies.engine.conditions import BY_VERB
from tests.integration.postgres_world import endpoint
from tests.support.broker import TestBroker, serving
from tests.support.postgres import Server

POLICY = """
groups: {engineers: ""}
people: {alice: {name: Alice, groups: [engineers]}}
resources:
  postgres:
    protocol: postgres
    upstream: {host: 127.0.0.1, port: 1, database: postgres, tls: disable}
    roles: {all: {credential: "file:x", relations: ["*.*"]}}
access:
  - {id: give, decision: allow, groups: [engineers], max_duration: 4h}
statements:
  - {id: everything, decision: allow, effects: [read, write, ddl, session, admin]}
  - {id: copying-in, decision: allow, copies: [in]}
  - {id: by-verb, decision: allow, effects: [read, write, ddl, session, admin], verbs: [VERBS]}
  - {id: code, decision: allow, effects: [read, write, ddl, session, admin], functions: ['*.*']}
  - {id: builtin, decision: allow, effects: [read, write], functions: [FUNCTIONS]}
""".replace("VERBS", ", ".join(BY_VERB)).replace("FUNCTIONS", ", ".join(sorted(NAMED)))
"""An all-allowing role without masks: what differs under it is the broker's doing, not a rule's."""
ROLE = "compat"
SET_UP = (
    f"drop owned by {ROLE} cascade",
    "drop schema if exists public cascade",
    f"create schema public authorization {ROLE}",
    f"create schema test_schema authorization {ROLE}",
    f"create schema test_schema_2 authorization {ROLE}",
    f"grant create on database postgres to {ROLE}",
)


@dataclass(frozen=True, slots=True)
class Door:
    """A way to the server: what a client is told."""

    name: str
    port: int
    user: str
    password: str
    database: str
    sslmode: str


@asynccontextmanager
async def doors(server: Server, home: Path) -> AsyncIterator[tuple[Door, Door]]:
    """Open both ways: through a forwarder, and through the broker."""
    server.create_role(ROLE, f"{ROLE}-password")
    end = endpoint(server, ROLE, "postgres")
    async with _forwarding(server.port) as port, serving(home, end, policy=POLICY) as broker:
        plain = Door("forwarder", port, ROLE, f"{ROLE}-password", "postgres", "disable")
        yield plain, _entered(broker)


def _entered(broker: TestBroker) -> Door:
    ticket = broker.ticket(resource="postgres", role="all", lasts=4 * 3600)
    return Door("broker", ticket.port, ticket.user, ticket.password, ticket.database, "require")


def fresh_database(server: Server) -> None:
    """Empty the database that clients ask for by default: what one run leaves behind is not found by the next."""
    with server.connect() as connection:
        for statement in SET_UP:
            connection.execute(statement.encode())


@asynccontextmanager
async def _forwarding(target: int) -> AsyncIterator[int]:
    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(64 * 1024):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(copy(reader, upstream[1]), copy(upstream[0], writer))

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
