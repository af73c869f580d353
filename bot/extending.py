"""Decides what becomes of a click on +15m: a request that names the grant, access at once, or why not."""

from __future__ import annotations

from datetime import timedelta

from bot.asking import Wish, cap_card, denied_card, file, tell
from bot.cards import plain
from bot.extensions import open_extension, room_of, want_offers
from bot.holding import NOT_KNOWN
from bot.intents import Extend
from bot.model import Grant
from bot.ports import Desk, Member
from bot.request_words import duration_of, name_of
from policies.engine.decide import decide_access
from policies.engine.decisions import Deny
from policies.engine.durations import format_duration

SHORTEST = timedelta(minutes=1)


async def extend(desk: Desk, intent: Extend, member: Member, cause: str) -> None:
    """Ask for more time of a grant; only its owner can, while it is open."""
    grant = await desk.work.grant_by_token(intent.token)
    problem = NOT_KNOWN if grant is None else await _why_not(desk, grant, member, intent.seconds)
    if grant is None or problem:
        await tell(desk, intent.source, cause, plain(problem or NOT_KNOWN))
        return
    more = timedelta(seconds=intent.seconds)
    root = await desk.work.request(grant.request)
    # The broker decides on whole seconds of what it knows; here, what is shown counts.
    total = timedelta(seconds=round((grant.expires_at - grant.opened_at).total_seconds())) + more
    decision = decide_access(desk.policy, grant.person, grant.resource, grant.role, total)
    if isinstance(decision, Deny):
        await tell(desk, intent.source, cause, denied_card(decision))
        return
    pending = await desk.work.requests_of(member.person)
    if len(pending) >= desk.pending_cap:
        await tell(desk, intent.source, cause, cap_card(pending, desk.command))
        return
    wish = Wish(grant.resource, grant.role, more, root.reason if root else "")
    await file(desk, intent.source, member, wish, decision, cause, grant)
    await want_offers(desk, grant, grant.expires_at)


async def _why_not(desk: Desk, grant: Grant, member: Member, seconds: int) -> str | None:
    if grant.person != member.person:
        who = name_of(desk.policy, grant.person)
        return f"This access is {who}'s; only they can ask for more of it."
    if not grant.live or grant.expires_at <= desk.now:
        line = f"`{desk.command} {grant.resource} {grant.role}`"
        return f"This access is over, so it cannot be extended; ask for it anew: {line}"
    if (waiting := open_extension(await desk.work.extensions_of(grant.id))) is not None:
        return f"You have asked for {duration_of(waiting)} more already, and that is not answered yet."
    room = room_of(desk.policy, grant)
    if not SHORTEST <= timedelta(seconds=seconds) <= room:
        if room < SHORTEST:
            return "This access has lasted as long as the policy gives; ask for it anew when it is over."
        return f"This access can be extended by at most {format_duration(room)}."
    return None
