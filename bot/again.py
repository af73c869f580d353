"""Decides what becomes of a click on Ask again: a new request with the same terms, for whoever asked before."""

from __future__ import annotations

from datetime import timedelta

from bot import asking, extending
from bot.asking import tell
from bot.cards import plain
from bot.intents import Ask, AskAgain, Extend
from bot.model import approvers
from bot.ports import Desk, Member
from bot.request_card import may_ask_again
from bot.request_words import name_of
from bot.reviewing import lateness, not_known
from policies.engine.durations import format_duration


async def ask_again(desk: Desk, intent: AskAgain, member: Member, cause: str) -> None:
    """Ask once more for what nobody answered; the policy as it is now decides on it anew."""
    request = await desk.work.request_by_token(intent.token)
    if request is None:
        await tell(desk, intent.source, cause, plain(not_known()))
        return
    if request.requester != member.person:
        who = name_of(desk.policy, request.requester)
        await tell(desk, intent.source, cause, plain(f"Only {who} can ask for this again."))
        return
    grant = await desk.work.grant(request.extends) if request.extends else None
    if not may_ask_again(request, grant):
        waits = "This request still waits for an answer."
        text = lateness(desk.policy, request, approvers(await desk.work.reviews(request.id))) or waits
        if grant is not None and not grant.live:
            text = "The access that this was to extend is over; ask for it anew."
        await tell(desk, intent.source, cause, plain(text))
    elif grant is not None:
        await extending.extend(desk, Extend(intent.source, grant.token, request.seconds), member, cause)
    else:
        duration = format_duration(timedelta(seconds=request.seconds))
        same = Ask(intent.source, request.resource, request.role, duration, request.reason)
        await asking.ask(desk, same, member, cause)
