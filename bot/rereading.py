"""Decides what it means that the broker does not know how far its feed was read: all of it is read again.

The log was put back to an earlier moment, or it is another broker, or the bot's own state is another one. Either
way nothing may be taken to be open that is not, or to be over that is open again (fail closed).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from bot import relay
from bot.model import Grant
from bot.ordering import BOT
from bot.outgoing import EndGrant
from bot.ports import Desk
from workflows.wire import EventView

FORGOTTEN = "the broker's records were put back to a time before this access, or are others; ask again"
OVER = "it was over before the broker's records were put back"


async def begin_again(desk: Desk, unknown: Collection[str]) -> None:
    """Make what the feed tells ready to be told anew; `unknown` are the open grants that the broker does not have."""
    for grant in await desk.work.unsettled_grants():
        if grant.id in unknown:
            await _forgotten(desk, grant)
            continue
        if not grant.live and grant.expires_at > desk.now:
            # It may be open again by the broker's books. One that is over there stays what it is.
            item = EndGrant(grant.id, grant.ended_by or BOT, grant.account, True, OVER)
            await desk.work.send(f"again:{desk.ids.token()}", f"end:{grant.id}", item)
        if grant.closed_at is None:
            await _counted_anew(desk, grant)


async def _forgotten(desk: Desk, grant: Grant) -> None:
    """Close a grant that the broker does not have: its feed will not."""
    facts: dict[str, Any] = {"cursor": "", "stream": f"forgotten-{grant.id}", "at": desk.now, "grant": grant.id}
    revoked = EventView(seq=1, type="grant.revoked", data={"by": "broker", "reason": FORGOTTEN}, **facts)
    closed = EventView(seq=2, type="grant.closed", data={"verified": False}, **facts)
    await relay.apply(desk, [revoked, closed])


async def _counted_anew(desk: Desk, grant: Grant) -> None:
    nothing = dict.fromkeys(("sessions", "open_sessions", "statements", "denied", "mistyped", "refused"), 0)
    await desk.work.change_grant(grant, **nothing, masked=(), down_since=None)
    for shape in await desk.work.shapes_of(grant.id):
        await desk.work.change_shape(shape, runs=0)
