"""A world whose schema sessions may change, and policies for it."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import asyncpg

from tests.integration.postgres_world import endpoint, make_world
from tests.support.broker import POLICY, Shown, TestBroker, serving
from tests.support.postgres import Server

RULES = """
  - {id: schema, decision: allow, roles: [write], effects: [ddl, admin]}
  - {id: counters, decision: allow, roles: [write], effects: [write], functions: [nextval]}
  - {id: ask-schema, decision: ask, roles: [ask], effects: [ddl], reviewers: {count: 1, groups: [dbas]}}
"""
CODE = "  - {id: code, decision: allow, roles: [write], effects: [read, write, ddl, admin], functions: ['*.*']}\n"
MASKED = POLICY.replace("fields:", f"{RULES.strip(chr(10))}\nfields:")
OPEN = MASKED[: MASKED.index("fields:")].replace('["public.*"]', '["*.*"]')


def let_change(postgres: Server) -> None:
    """Make the world of sessions in which one of the upstream's roles may change the schema, and owns what is in it."""
    make_world(postgres)
    for statement in (
        "grant create, temporary on database shop to app_write",
        *(f"alter table {name} owner to app_write" for name in ("notes", "log", "people")),
    ):
        postgres.execute(statement, "shop")


def serve(world: tuple[Server, Path], policy: str) -> AbstractAsyncContextManager[TestBroker]:
    server, home = world
    write = endpoint(server, "app_write")
    return serving(home, endpoint(server, "app"), policy=policy, write=write, ask=write)


async def connected(ticket: Shown) -> asyncpg.Connection:
    return await asyncpg.connect(**ticket.asyncpg())
