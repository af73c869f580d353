"""How sessions end whose worker has died: at their upstream as the reaper ends them, and in the recording."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import structlog

from broker.adapters.leases import LeaseFailed, LeaseFile
from broker.adapters.process import Process
from broker.adapters.seats import RETRY_SECONDS, RemoteSession, kill
from broker.adapters.stories import Story
from broker.errors import RecordingFailed
from broker.sessions.model import CloseReason, Entry, IdentityEnd, Killed, Lease

_log = structlog.get_logger("workers")


async def bury(process: Process, session: RemoteSession, sealed: asyncio.Event) -> None:
    """End what a dead worker's session left at its upstream, and say so; the reaper does where this cannot.

    `sealed` is set when what the worker recorded is where it belongs: the end comes behind it.
    """
    facts = session.facts
    # Without a lease it never reached its upstream, or its end there was verified.
    lease = session.leases.of(facts.id)
    killed = Killed(verified=lease is None)
    try:
        process.holds.leave(facts.id, CloseReason.ERROR.value)
        if lease is not None:
            killed = await _gone(process, session.leases, lease)
        await sealed.wait()
        await _close(process, session, lease, killed)
    except Exception as error:  # noqa: BLE001  whatever one meets must not keep the others alive
        _log.error("a dead worker's session could not be closed", session=facts.id, error=str(error))
    finally:
        session.settle(verified=killed.verified)
        process.live.remove(session)


async def _gone(process: Process, leases: LeaseFile, lease: Lease) -> Killed:
    """End a session's upstream work, however long that takes; the reaper may be first."""
    while True:
        killed = await kill(process, lease)
        if killed.verified:
            return killed
        if leases.reaped(lease.session):
            return Killed(verified=True)
        await asyncio.sleep(RETRY_SECONDS)


async def _close(process: Process, session: RemoteSession, lease: Lease | None, killed: Killed) -> None:
    """Close the lease and say the end, however long the disk refuses."""
    while True:
        try:
            if lease is not None:
                await session.leases.close(session.facts.id)
            await _say(process, session, lease, killed)
        except (LeaseFailed, RecordingFailed) as error:
            _log.error("a dead worker's session is not closed yet", session=session.facts.id, error=str(error))
            await asyncio.sleep(RETRY_SECONDS)
        else:
            return


async def _say(process: Process, session: RemoteSession, lease: Lease | None, killed: Killed) -> None:
    """Record what a dead worker could not: how its session's statement and the session ended."""
    facts, recorder = session.facts, process.recorder
    grant, reaped = facts.grant.id, session.leases.reaped(facts.id)
    story, said = recorder.story(grant), reaped
    if story is None or story.closed:
        # It took so long that the recording is closed, which it stays: this is a fact for the feed.
        if reaped or lease is None:
            return
    elif not _settled(process, session, story):
        # The worker has said it itself; where it kept the lease, it did not know that nothing is left.
        if lease is None:
            return
        said = True
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
    kind = "session.settled" if said else "session.closed"
    await recorder.write(Entry(kind, grant, facts.id, data))


def _settled(process: Process, session: RemoteSession, story: Story) -> bool:
    """Record the ends of what a session has left open; False where its own is recorded already."""
    facts, recorder = session.facts, process.recorder
    ends = [
        ("statement.finished", {"statement": statement, "outcome": "unknown"})
        for whose, statement in story.open_statements
        if whose == facts.id
    ]
    # An approval that was used up and not recorded with a statement: nothing has run by it.
    ends += [
        ("hold.abandoned", {"hold": hold, "reason": CloseReason.ERROR.value})
        for hold, whose in story.open_holds.items()
        if whose == facts.id and not process.holds.alive(hold)
    ]
    for kind, data in ends:
        recorder.write(Entry(kind, facts.grant.id, facts.id, data))
    return facts.id in story.open_sessions
