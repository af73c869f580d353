"""What this protocol offers to the broker: listening, ticket lines, kills and previews."""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from broker.config import Settings
from broker.errors import Misconfigured
from broker.protocols.postgres.admin import Admin, Admins
from broker.protocols.postgres.catalogues import Catalogues, field_rules_of
from broker.protocols.postgres.estimator import Estimator
from broker.protocols.postgres.examine import examine
from broker.protocols.postgres.explaining import question
from broker.protocols.postgres.frontdoor import FrontDoor
from broker.protocols.postgres.holding import offered
from broker.protocols.postgres.house import Common, House
from broker.protocols.postgres.identities import Sweep
from broker.protocols.postgres.identity import house_of
from broker.protocols.postgres.inspector import Inspector, terms_of
from broker.protocols.postgres.provision import provision, provisioner, wanted
from broker.protocols.postgres.rereading import read_rows
from broker.protocols.postgres.ruling import Asking, Denied, Permitted, Subject, refused, rule
from broker.protocols.postgres.workers import WorkerFailed, Workers
from broker.sessions.findings import Finding
from broker.sessions.holds import Asked
from broker.sessions.model import Killed, Lease
from broker.sessions.ports import Broker, Door, Endpoint, TicketLine
from broker.sql.building import build
from broker.sql.model import Inspection, Refusal
from broker.sql.placeholders import Parameters
from broker.sql.sight import sights
from broker.transport.listener import TcpListener
from broker.transport.tls import certificate, server_context
from policies.engine.decide import field_view
from policies.engine.model import Policy
from workflows.words import counted


class PostgresListener:
    """A running listener, with what its sessions share."""

    def __init__(self, door: TcpListener | Door, port: int, house: House, workers: Workers) -> None:
        self._door = door
        self.port = port
        self._house = house
        self._workers = workers
        self._sweeping = asyncio.get_running_loop().create_task(Sweep(house).run(), name="sweep roles")
        self._last: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Stop accepting; live sessions are ended by their owner, and the admin connections close after the last."""
        await self._door.close()
        self._house.spares.close()
        self._sweeping.cancel()
        await asyncio.gather(self._sweeping, return_exceptions=True)
        if self._last is None:
            self._last = asyncio.get_running_loop().create_task(self._close_last(), name="close postgres")
        if not self._house.sessions:
            await self._last

    async def _close_last(self) -> None:
        if self._house.sessions:
            await self._house.empty.wait()
        await self._workers.close()
        await self._house.admins.close()


class PostgresOffer:
    """PostgreSQL, for any libpq client."""

    name = "postgres"
    default_port = 6432

    def __init__(self) -> None:
        self._killers: dict[Endpoint, tuple[asyncio.AbstractEventLoop, Admin]] = {}

    async def listen(self, broker: Broker, host: str, port: int) -> PostgresListener:
        """Serve clients; raises OSError where the port is taken, Misconfigured for a certificate that does not load."""
        settings = Settings()
        crt, key = certificate(broker.home, settings.public_host)
        context, binding = server_context(crt, key, ["postgresql"])
        admins, workers = Admins(), Workers()
        common = broker.common.get(self.name) or self.common()
        catalogues = Catalogues(admins, field_rules_of(broker.policies), common.names, common.changes)
        inspector = Inspector(broker.policies, catalogues, workers, broker.clock)
        secret = _secret(broker.home / "postgres.secret")
        house = House(broker, admins, inspector, common, house_of(secret))
        heard: dict[str, Callable[..., object]] = {"changed": catalogues.hear, "full": house.spares.make_room}
        broker.told[self.name] = lambda what, *said: heard[what](*said)
        front = FrontDoor(house, context, binding, secret, plain=settings.plaintext == "loopback")
        if broker.door is not None:
            broker.door.serve(self.name, front.serve)
            return PostgresListener(broker.door, port, house, workers)
        tcp = TcpListener(front.serve)
        await tcp.open(host, port)
        return PostgresListener(tcp, tcp.port, house, workers)

    def common(self) -> Common:
        """Make what all processes of a broker share: cancel keys, rations, swept roles, what happens to schemas."""
        return Common()

    def ticket_line(self, resource: str, user: str, password: str, host: str, port: int) -> TicketLine:
        """Write a ticket as a line that runs psql when pasted into a shell."""
        target = f"host={host} port={port} dbname={resource} user={user} sslmode=require"
        line = f'PGPASSWORD={shlex.quote(password)} psql "{target}"'
        fields = {"host": host, "port": str(port), "database": resource, "user": user, "password": password}
        return TicketLine(line, fields)

    async def kill(self, lease: Lease, endpoint: Endpoint) -> Killed:
        """End a session's upstream work and return whether it is verified gone; the connection stays for the next."""
        loop = asyncio.get_running_loop()
        held = self._killers.get(endpoint)
        if held is None or held[0] is not loop:
            held = self._killers[endpoint] = (loop, Admin(endpoint))
        return await held[1].kill(lease)

    async def preview(
        self,
        policy: Policy,
        person: str,
        resource: str,
        role: str,
        text: str,
        endpoint: Endpoint,
        now: datetime | None = None,
        rows: int | None = None,
    ) -> dict[str, Any]:
        """Say what would happen to a statement and why, under today's catalogue; raises UpstreamUnavailable.

        `rows` stands for what the planner would expect, where a rule asks about that.
        """
        admin, workers = Admin(endpoint), Workers()
        try:
            described, version = await read_rows(admin)
            held = policy.resources.get(resource)
            path = held.search_path if held else ["public"]
            catalogue = build(described, path, version)
            found: Inspection | Refusal
            try:
                view = field_view(policy, person, resource)
                terms = terms_of(policy, Subject(person, resource, role))
                found, redacted = await workers.inspect(text, catalogue, view, terms=terms)
            except WorkerFailed as failure:
                found, redacted = Refusal("limit-time", str(failure), sqlstate="54001"), ""
            if isinstance(found, Refusal):
                return _told(refused(found, redacted), None)
            ruling = rule(policy, Subject(person, resource, role), text, found, now)
            expected = ""
            if isinstance(ruling, Permitted) and ruling.estimating:
                if rows is None:
                    touched, expected = await _expected(admin, path, ruling)
                else:
                    touched, expected = rows, f"{counted(rows, 'row')}, as you say"
                ruling = rule(policy, Subject(person, resource, role), text, found, now, touched)
        finally:
            await workers.close()
            await admin.close()
        told = _told(ruling, found) if isinstance(ruling, Denied) else _told(None, found, ruling.rules, ruling.asking)
        if isinstance(ruling, Permitted) and ruling.asking is not None:
            shape = offered(ruling, ruling.asking, Parameters())
            told["hint"] += f"; they may approve its shape too: {shape.text}" if shape is not None else ""
        told["expected"] = expected
        reasons = {name: sights(catalogue, view).why(name) for name in told["masked"]}
        return {**told, "masked": [f"{name} ({why})" if why else name for name, why in reasons.items()]}

    async def examine(self, policy: Policy, resource: str, role: str, endpoint: Endpoint) -> list[Finding]:
        """Say what is right and wrong with a role at its upstream, and what mends it."""
        return await examine(policy, resource, role, endpoint)

    def provision(self, policy: Policy, resource: str, users: Mapping[str, str], maker: str, version: int) -> list[str]:
        """Write the SQL that makes good roles, and who makes the roles of sessions where one is ephemeral."""
        held, lines = policy.resources[resource], []
        for role, user in users.items():
            lines += [*provision(wanted(policy, resource, role, user)), ""]
        levels = [user for role, user in users.items() if held.roles[role].identity == "ephemeral"]
        if set(users.values()) - set(levels):
            lines += ["-- broker and reaper end these sessions as the role itself: no further right is needed", ""]
        if levels:
            lines += [*provisioner(maker, levels, held.upstream.database, version), ""]
        return lines


def _told(
    denied: Denied | None,
    found: Inspection | None,
    rules: tuple[tuple[str, ...], ...] = (),
    asking: Asking | None = None,
) -> dict[str, Any]:
    facts = [statement.facts for statement in found.statements] if found is not None else []
    message, hint = (denied.message, denied.hint) if denied is not None else (None, None)
    if asking is not None:
        message, hint = f"this needs a review by {asking.requirement}", f"{asking.people} could approve it"
    return {
        "decision": "deny" if denied is not None else "ask" if asking is not None else "allow",
        "rules": list(denied.rules) if denied is not None else list(dict.fromkeys(one for of in rules for one in of)),
        "message": message,
        "hint": hint,
        "effects": sorted({effect.value for fact in facts for effect in fact.all_effects}),
        "relations": sorted({relation for fact in facts for relation in fact.relations}),
        "every_row": sorted({relation for fact in facts for relation in fact.missing_where}),
        "calls": sorted({str(call) for fact in facts for call in fact.calls if not call.computes}),
        "masked": sorted({field for fact in facts for field in fact.masked}),
        "rewritten": found.rewritten if found is not None else None,
        "expected": "",
    }


async def _expected(admin: Admin, path: Sequence[str], ruling: Permitted) -> tuple[int | None, str]:
    """Ask the planner how many rows a statement touches, as the gate would; returns that, and says it."""

    async def record() -> None:
        """This is no session's: an operator asks, with the upstream's credential at hand."""

    about = question([ruling], Asked(ruling.sql), (), in_transaction=False)
    estimate = await Estimator(admin, path, 0).estimate(about, record)
    if estimate.touched is None:
        return None, f"not known how many rows: {estimate.why}"
    return estimate.touched, f"about {counted(estimate.touched, 'row')}, says the planner"


def _secret(path: Path) -> bytes:
    """Return the secret that unknown users' salts are made of, kept so that they stay the same after a restart."""
    try:
        found = path.read_bytes()
    except FileNotFoundError:
        found = secrets.token_bytes(32)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(found)
    if len(found) < 32:
        raise Misconfigured(f"`{path}` is too short to be the secret it was")
    return found
