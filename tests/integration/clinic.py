"""The database that the doctor's tests examine, a policy for it, and what the doctor says of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broker.protocols.postgres import OFFER
from broker.sessions.findings import Finding, Grade
from policies.engine.load import read_texts
from policies.engine.model import Policy
from tests.integration.postgres_world import endpoint
from tests.support.postgres import Server

POLICY = """
groups: {engineers: ""}
people: {alice: {name: Alice, groups: [engineers]}}
resources:
  prod-db:
    protocol: postgres
    upstream: {host: 127.0.0.1, port: 1, database: clinic, tls: disable}
    roles:
      read: {credential: "file:x", relations: [public.people, "public.OddNames"]}
      write: {credential: "file:x", relations: ["ward.*", public.people]}
statements:
  - {id: reads, decision: allow, effects: [read]}
  - {id: writes, decision: allow, roles: [write], effects: [write]}
fields:
  - {id: people-fields, resource: prod-db, relation: public.people, clear: [id, name], masks: {ssn: hide}}
"""
WORLD = (
    "create table people (id int primary key, name text, ssn text)",
    'create table "OddNames" (id int)',
    "create table secrets (id int)",
    "create schema ward",
    "create table ward.beds (id serial primary key)",
)
USERS = {"read": "doc_read", "write": "doc_write"}


def read(text: str = POLICY) -> Policy:
    return read_texts({"test.yaml": text})


async def examined(server: Server, role: str = "read", policy: Policy | None = None, **more: Any) -> list[Finding]:
    return await OFFER.examine(policy or read(), "prod-db", role, endpoint(server, USERS[role], "clinic", **more))


def said(found: list[Finding], *grades: Grade) -> list[str]:
    return [one.text for one in found if one.grade in (grades or (Grade.PROBLEM, Grade.WARNING))]


def command(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """The command line on a policy whose credentials lead to a server."""
    from typer.testing import CliRunner

    import airlock

    (folder / "policies").mkdir()
    (folder / "secrets").mkdir()
    text = POLICY.replace("port: 1,", f"port: {server.port},")
    for role, user in USERS.items():
        text = text.replace(f'{role}: {{credential: "file:x"', f'{role}: {{credential: "file:{user}"')
        (folder / "secrets" / user).write_text(f"{user}:{user}-password\n")
    (folder / "policies" / "policy.yaml").write_text(text)
    for name in ("AIRLOCK_POLICIES", "AIRLOCK_STATE", "AIRLOCK_SECRETS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(airlock.console, "width", 200)

    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(airlock.app, [*words, "--policies", str(folder / "policies"), "--state", str(folder)])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.output

    return run
