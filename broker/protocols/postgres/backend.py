"""A session's side towards its upstream: the lease first, its own role where it has one, the login; and the kill."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from broker.errors import AirlockError, UpstreamUnavailable
from broker.protocols.postgres import identities, pins
from broker.protocols.postgres.identity import Identity, identity_of
from broker.protocols.postgres.login import LoggedIn, Served
from broker.protocols.postgres.spares import Kind, Spare
from broker.protocols.postgres.upstream import Upstream
from broker.sessions.model import Killed, Lease, SessionFacts

if TYPE_CHECKING:
    from broker.protocols.postgres.house import House

FULL = "53300"
"""How a server says that it has no connection left, for anybody or for a role."""
ROOM_SECONDS = 0.1


class Backend:
    """`level` is the role's credential, over which the broker reads; the session's too, where sessions share it."""

    def __init__(self, house: House, facts: SessionFacts, kind: Kind, spare: Spare | None) -> None:
        self._house = house
        self._facts = facts
        self._kind = kind
        self.level = level = kind.endpoint
        self._killer = level.provisioner or level
        self.identity = identity_of(house.name, facts.id) if level.provisioner is not None else None
        self.upstream = Upstream(self.identity.endpoint(level) if self.identity is not None else level)
        self._has_role = False
        """The role of its own is made; a second try to log in finds it."""
        self._lease: Lease | None = None
        self._spare = spare
        self._naming: Awaitable[None] | None = None
        """The lease that names the process is on its way to the disk."""
        self._pinned: dict[str, str] = {}

    @property
    def pid(self) -> int:
        """The upstream's process, 0 before it is known."""
        return (self._lease.pid if self._lease is not None else None) or 0

    async def open(self, admitted: Callable[[], object]) -> LoggedIn:
        """Log in to the upstream, or take what is logged in already; raises UpstreamUnavailable, LeaseFailed.

        `admitted` is called as soon as there is a connection, while its pins are read back or its times armed.
        """
        broker, kind = self._house.broker, self._kind
        # The connection that kills is warm before there is anything to kill, and says which pins this server knows.
        version = await self._house.admins.of(self._killer).version()
        asked = dict(kind.settings)
        pinned = pins.pinned(
            kind.home,
            version=version,
            remaining_ms=pins.remaining(kind.until, broker.clock.now()),
            read_only=kind.read_only,
            session=self._facts.id,
            clear=kind.clear,
        )
        self._pinned = pins.narrowed(pinned, asked)
        if (taken := await self._take(admitted)) is not None:
            return taken
        opened = (asked, self._pinned, self._leased, admitted, self._served)
        try:
            return await self.upstream.open(*opened)
        except UpstreamUnavailable as error:
            if FULL not in str(error) or not self._house.make_room(self.level):
                raise
            # What waited for sessions must not keep one out.
            self.upstream.abort()
            await asyncio.sleep(ROOM_SECONDS)
            return await self.upstream.open(*opened)

    async def _take(self, admitted: Callable[[], object]) -> LoggedIn | None:
        """Take the connection that was opened ahead: its lease on disk and its times armed, or it is not used.

        All that is waited for is begun at once: the lease, the arming, and what `admitted` writes.
        """
        spare, self._spare = self._spare, None
        if spare is None:
            return None
        if spare.policy != self._house.broker.policies.hash:
            spare.upstream.abort()
            return None
        self._lease = self._drafted()
        self.upstream.adopt(spare.upstream, self._pinned)
        self._served(Served(spare.logged_in.pid, spare.logged_in.backend_start))
        admitted()
        armed = await self.upstream.armed()
        await self.known()
        if armed:
            return spare.logged_in
        self.upstream.abort()
        return None

    def leave(self) -> None:
        """Close what nobody uses, of a session that does not open."""
        if self._spare is not None:
            self._spare.upstream.abort()

    async def known(self) -> None:
        """Wait until it is written which process serves the session, before a byte of its client's can reach that."""
        if self._naming is not None:
            await self._naming
            self._naming = None
        assert self._lease is not None
        assert self._lease.pid is not None

    def replenish(self) -> None:
        """Have a connection ready for the next session of this kind."""
        if self.identity is None:
            self._house.spares.need(self._kind, self._pinned)

    async def extend(self, until: datetime) -> None:
        """Write the lease with a later end; where that fails the session keeps its old one (fail closed)."""
        before, facts = self._lease, self._facts
        # What is still to be written of it, while it opens, has that end too.
        self._facts = replace(facts, grant=replace(facts.grant, expires_at=until))
        if before is None:
            return
        self._lease = replace(before, expires_at=until)
        try:
            # Queued at once, so that the close of a session that ends meanwhile comes after it.
            await self._house.broker.leases.write(self._lease)
        except AirlockError:
            self._lease, self._facts = replace(self._lease, expires_at=before.expires_at), facts
            raise

    async def kill(self, grace: float) -> Killed:
        """End the upstream's work, and the role that was made for it; where nothing was sent there is nothing yet."""
        if self._lease is None or (self.identity is None and self.upstream.stream is None):
            return Killed(verified=True)
        return await self._house.admins.of(self._killer).kill(self._lease, grace)

    async def close_lease(self) -> bool:
        """Say that all of it is verified gone; False where the reaper has, and recorded the end."""
        return self._lease is None or await self._house.broker.leases.close(self._facts.id)

    def _leased(self) -> Awaitable[None]:
        """Begin what comes before anything is sent: the lease; then the role, so that no crash leaves one unknown."""
        self._lease = self._drafted()
        written = self._house.broker.leases.write(self._lease)
        return written if self.identity is None or self._has_role else self._made(self.identity, written)

    async def _made(self, identity: Identity, leased: Awaitable[None]) -> None:
        await leased
        await identities.make(self._house.admins.of(self._killer), identity, self.level.user, self._kind.until)
        self._has_role = True

    def _served(self, process: Served) -> None:
        """Begin to write down which process serves the session."""
        assert self._lease is not None
        port, pid, start = self.upstream.local_port, process.pid, process.backend_start
        self._lease = replace(self._lease, local_port=port, pid=pid, backend_start=start)
        self._naming = asyncio.ensure_future(self._house.broker.leases.write(self._lease))

    def _drafted(self) -> Lease:
        grant = self._facts.grant
        return Lease(
            session=self._facts.id,
            grant=grant.id,
            protocol="postgres",
            resource=grant.resource,
            role=grant.role,
            expires_at=grant.expires_at,
            broker_pid=os.getpid(),
            local_port=0,
            source=self._killer.source,
            identity=self.identity.name if self.identity is not None else None,
        )
