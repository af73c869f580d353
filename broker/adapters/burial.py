"""How sessions end whose worker has died: at their upstream as the reaper ends them, and in the recording."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import structlog

from broker.adapters.endpoints import resolved
from broker.adapters.process import Process
from broker.adapters.seats import RemoteSession
from broker.errors import AirlockError, Misconfigured
from broker.sessions.model import CloseReason, Entry, IdentityEnd, Killed, Lease

RETRY_SECONDS = 0.5
_log = structlog.get_logger("workers")


async def bury(process: Process, session: RemoteSession) -> None:
    """End what a dead worker's session left at its upstream, and say so; the reaper does where this cannot."""
    facts = session.facts
    # Without a lease it never reached its upstream, or its end there was verified.
    lease = session.leases.of(facts.id)
    killed = Killed(verified=lease is None)
    try:
        process.holds.leave(facts.id, CloseReason.ERROR.value)
        while lease is not None and not killed.verified:
            killed = await _kill(process, lease)
            if not killed.verified:
                await asyncio.sleep(RETRY_SECONDS)
        reaped = lease is not None and not await session.leases.close(facts.id)
        await _say(process, session, lease, killed, reaped=reaped)
    except AirlockError as error:
        _log.error("a dead worker's session could not be closed", session=facts.id, error=str(error))
    finally:
        session.gone.set_result(killed.verified)
        process.live.remove(session)


async def _kill(process: Process, lease: Lease) -> Killed:
    try:
        endpoint = resolved(lease.source, process.settings.secrets_path)
        return await process.outside.offers[lease.protocol].kill(lease, endpoint)
    except Misconfigured as error:
        _log.error("a lease's upstream cannot be reached", session=lease.session, error=str(error))
        return Killed(verified=False)


async def _say(process: Process, session: RemoteSession, lease: Lease | None, killed: Killed, *, reaped: bool) -> None:
    """Record what a dead worker could not: how its session's statement and the session ended."""
    facts, recorder = session.facts, process.recorder
    grant = facts.grant.id
    for whose, statement in list(recorder.resume(grant).open_statements):
        if whose == facts.id:
            unknown = {"statement": statement, "outcome": "unknown"}
            recorder.write(Entry("statement.finished", grant, facts.id, unknown))
    if facts.id not in recorder.resume(grant).open_sessions:
        return
    if killed.identity is IdentityEnd.DISABLED and lease is not None and not reaped:
        left = {"identity": lease.identity, "resource": lease.resource, "owns": killed.owns}
        recorder.write(Entry("identity.left", grant, facts.id, left))
    seconds = round(time.monotonic() - session.begun, 3)
    data: dict[str, Any] = {
        "reason": CloseReason.ERROR.value,
        **killed.facts(),
        "seconds": seconds,
        "outcome": "unknown",
    }
    kind = "session.settled" if reaped else "session.closed"
    await recorder.write(Entry(kind, grant, facts.id, data))
