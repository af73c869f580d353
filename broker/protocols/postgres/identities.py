"""Makes and ends the upstream's roles of sessions, over a provisioning credential; what is ended is checked gone."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import asyncpg
import structlog

from broker.errors import AirlockError, Misconfigured, UpstreamUnavailable
from broker.protocols.postgres import identity as roles
from broker.protocols.postgres import records
from broker.protocols.postgres.outage import unavailable
from broker.sessions.model import IdentityEnd, Killed, Lease
from broker.sessions.ports import Endpoint

if TYPE_CHECKING:
    from broker.protocols.postgres.admin import Admin
    from broker.protocols.postgres.house import House

DROP_SECONDS = 3.0
SWEEP_SECONDS = 600.0
_LEFT = "select rolcanlogin as open from pg_roles where rolname = $1"
_FOUND = "select rolname::text as name from pg_roles where starts_with(rolname::text, $1)"
_log = structlog.get_logger("identities")


async def make(admin: Admin, identity: roles.Identity, level: str, until: datetime) -> None:
    """Make a session's role; raises UpstreamUnavailable."""
    version = await admin.version()
    refusal = await admin.change(roles.creation(identity, level, admin.user, until, version))
    if refusal is not None:
        raise unavailable(refusal)


async def end(admin: Admin, lease: Lease) -> Killed:
    """Drop the role of a session whose processes are gone, and look; one that owns something is disabled instead."""
    name = lease.identity
    if name is None or roles.session_of(name) != lease.session:
        # Whatever the lease says, no other role is touched.
        return Killed(verified=True)
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + DROP_SECONDS
    while True:
        try:
            return await _end(admin, name)
        except UpstreamUnavailable as error:
            # Two who drop it at once get in each other's way; then it is gone at the next look.
            if loop.time() >= give_up_at:
                _log.error("a session's role is not dropped yet", role=name, error=str(error))
                return Killed(verified=False)
            await asyncio.sleep(0.1)


async def _end(admin: Admin, name: str) -> Killed:
    owns = ""
    if await admin.fetch(_LEFT, name):
        refusal = await admin.change(roles.removal(name))
        if isinstance(refusal, asyncpg.DependentObjectsStillExistError):
            owns = str(refusal.detail or "something").partition("\n")[0]
            await admin.change(roles.disabling(name))
    rows = await admin.fetch(_LEFT, name)
    if not rows:
        return Killed(verified=True, identity=IdentityEnd.DROPPED)
    _log.error("a session's role owns something, so it is disabled and left behind", role=name, owns=owns)
    return Killed(verified=not rows[0]["open"], identity=IdentityEnd.DISABLED, owns=owns)


class Swept:
    """The roles whose end was said: where several processes sweep, one of them says it."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def first(self, name: str) -> bool:
        """Say whether nobody has said it yet."""
        first = name not in self._names
        self._names.add(name)
        return first


class Sweep:
    """Ends this broker's roles that no lease speaks of any more: never those of others, nor of a session that lives."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def run(self) -> None:
        """Look at once, and now and then, for ever."""
        while True:
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001  the next look may do better
                _log.error("a sweep stumbled", error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(SWEEP_SECONDS)

    async def look(self) -> None:
        """Look once at every upstream where sessions have roles of their own."""
        broker = self._house.broker
        seen: set[Endpoint] = set()
        for resource, held in broker.policies.current.resources.items():
            for role in held.roles:
                try:
                    maker = broker.endpoints.of(resource, role).provisioner
                    if maker is not None and maker not in seen:
                        seen.add(maker)
                        await self._sweep(resource, role, maker)
                except Misconfigured as error:
                    # Nothing else says so before somebody wants a session.
                    given = "a credential is `user:password`, in the file or the variable that the policy names"
                    hint = f"{given}; `airlock doctor {resource}` says whether it is good"
                    what = "a role's upstream or credential cannot be read, so its sessions do not open"
                    _log.error(what, resource=resource, role=role, error=str(error), hint=hint)
                except AirlockError as error:
                    _log.error("roles of sessions cannot be swept", resource=resource, error=str(error))

    async def _sweep(self, resource: str, role: str, maker: Endpoint) -> None:
        house, broker = self._house, self._house.broker
        admin = house.admins.of(maker)
        rows = await admin.fetch(_FOUND, f"{roles.PREFIX}{house.name}_")
        # Read after the roles: the lease of a session is written before its role is made, and closed after it is gone.
        living = broker.leases.sessions()
        for name in (str(row["name"]) for row in rows):
            session = roles.session_of(name, house.name)
            if session is None or session in living:
                continue
            now = datetime.now(UTC)
            lease = Lease(session, "", "postgres", resource, role, now, os.getpid(), 0, maker.source, identity=name)
            killed = await admin.kill(lease)
            if killed.verified and house.common.swept.first(name):
                broker.recorder.write(records.swept(resource, name, killed))
