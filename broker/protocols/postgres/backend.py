"""A session's side towards its upstream: the lease first, its own role where it has one, the login; and the kill."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from broker.errors import AirlockError
from broker.protocols.postgres import identities, pins
from broker.protocols.postgres.identity import identity_of
from broker.protocols.postgres.login import LoggedIn
from broker.protocols.postgres.upstream import Upstream
from broker.sessions.model import Killed, Lease, SessionFacts
from broker.sessions.ports import Endpoint

if TYPE_CHECKING:
    from broker.protocols.postgres.house import House


class Backend:
    """`level` is the role's credential, over which the broker reads; the session's too, where sessions share it."""

    def __init__(self, house: House, facts: SessionFacts, level: Endpoint) -> None:
        self._house = house
        self._facts = facts
        self.level = level
        self._killer = level.provisioner or level
        self.identity = identity_of(house.name, facts.id) if level.provisioner is not None else None
        self.upstream = Upstream(self.identity.endpoint(level) if self.identity is not None else level)
        self._lease: Lease | None = None

    @property
    def pid(self) -> int:
        """The upstream's process, 0 before it is known."""
        return (self._lease.pid if self._lease is not None else None) or 0

    async def open(self, settings: dict[str, str], search_path: tuple[str, ...]) -> LoggedIn:
        """Log in to the upstream; raises UpstreamUnavailable, LeaseFailed."""
        broker, grant = self._house.broker, self._facts.grant
        # The connection that kills is warm before there is anything to kill, and says which pins this server knows.
        version = await self._house.admins.of(self._killer).version()
        terms = self._house.terms(grant)
        pinned = pins.pinned(
            search_path,
            version=version,
            remaining_ms=int((self._furthest() - broker.clock.now()).total_seconds() * 1000),
            read_only=terms.read_only,
            session=self._facts.id,
            clear=terms.clear,
        )
        logged_in = await self.upstream.open(settings, pinned, self._dialled)
        assert self._lease is not None
        self._lease = replace(self._lease, pid=logged_in.pid, backend_start=logged_in.backend_start)
        return logged_in

    async def known(self) -> None:
        """Write down which process serves the session, before a byte of its client's can have it do anything."""
        assert self._lease is not None
        await self._house.broker.leases.write(self._lease)

    async def extend(self, until: datetime) -> None:
        """Write the lease with a later end; where that fails the session keeps its old one (fail closed)."""
        before = self._lease
        if before is None:
            return
        self._lease = replace(before, expires_at=until)
        try:
            # Queued at once, so that the close of a session that ends meanwhile comes after it.
            await self._house.broker.leases.write(self._lease)
        except AirlockError:
            self._lease = replace(self._lease, expires_at=before.expires_at)
            raise

    async def kill(self, grace: float) -> Killed:
        """End the upstream's work, and the role that was made for it; without a lease there is nothing yet."""
        if self._lease is None:
            return Killed(verified=True)
        return await self._house.admins.of(self._killer).kill(self._lease, grace)

    async def close_lease(self) -> bool:
        """Say that all of it is verified gone; False where the reaper has, and recorded the end."""
        return self._lease is None or await self._house.broker.leases.close(self._facts.id)

    def _furthest(self) -> datetime:
        """Return the latest end that extensions could bring, for what is armed upstream once and cannot be moved."""
        grant = self._facts.grant
        return max(grant.expires_at, grant.opened_at + self._house.terms(grant).longest)

    async def _dialled(self, local_port: int) -> None:
        """Before anything is sent: the lease, on disk; then the role, so that no crash leaves one that nobody knows."""
        grant = self._facts.grant
        self._lease = Lease(
            session=self._facts.id,
            grant=grant.id,
            protocol="postgres",
            resource=grant.resource,
            role=grant.role,
            expires_at=grant.expires_at,
            broker_pid=os.getpid(),
            local_port=local_port,
            source=self._killer.source,
            identity=self.identity.name if self.identity is not None else None,
        )
        await self._house.broker.leases.write(self._lease)
        if self.identity is not None:
            admin = self._house.admins.of(self._killer)
            await identities.make(admin, self.identity, self.level.user, self._furthest())
