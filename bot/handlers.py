"""Intents in, rows out: sends each intent to what decides it, once its author is known to be somebody who may."""

from __future__ import annotations

from typing import assert_never

from bot import asking, holding, holds, homes, reviewing
from bot.asking import tell
from bot.cards import plain
from bot.intents import (
    AccountChanged,
    Approve,
    ApproveHold,
    Ask,
    Cancel,
    EndNow,
    Help,
    HomeOpened,
    Ignored,
    Intent,
    List,
    NewLine,
    OpenDeny,
    OpenDenyHold,
    OpenReview,
    Refuse,
    RefuseHold,
    ReviewHold,
    Revoke,
    Status,
    Unknown,
)
from bot.ordering import BOT
from bot.outgoing import EndGrant
from bot.ports import Desk, Outsider, Standing

LEFT = "The requester's account was deactivated, so the request is closed."


async def handle(desk: Desk, intent: Intent, standing: Standing, cause: str) -> None:
    """Do what an intent asks for, in one transaction; `cause` names the payload, so that nothing is done twice."""
    match intent:
        case Ignored():
            return
        case AccountChanged():
            await account_changed(desk, intent, cause)
            return
        case HomeOpened():
            await homes.opened(desk, intent)
            return
        case Unknown():
            text = f"Nothing here answers to {intent.what}, so nothing was done. {desk.command} help says what does."
            await tell(desk, intent.source, cause, plain(text))
            return
    if isinstance(standing, Outsider):
        await tell(desk, intent.source, cause, plain(f"You cannot use this: {standing.reason}."))
        return
    match intent:
        case Ask():
            await asking.ask(desk, intent, standing, cause)
        case Approve():
            await reviewing.approve(desk, intent, standing, cause)
        case OpenDeny():
            await reviewing.open_deny(desk, intent, standing, cause)
        case Refuse():
            await reviewing.refuse(desk, intent, standing, cause)
        case Cancel():
            await reviewing.cancel(desk, intent, standing, cause)
        case ApproveHold():
            await holds.approve(desk, intent, standing, cause)
        case OpenDenyHold():
            await holds.open_deny(desk, intent, standing, cause)
        case RefuseHold():
            await holds.refuse(desk, intent, standing, cause)
        case OpenReview():
            await holds.open_review(desk, intent, standing, cause)
        case ReviewHold():
            await holds.review(desk, intent, standing, cause)
        case NewLine():
            await holding.new_line(desk, intent, standing, cause)
        case EndNow():
            await holding.end_now(desk, intent, standing, cause)
        case Revoke():
            await holding.revoke(desk, intent, standing, cause)
        case List():
            await holding.show_list(desk, intent, standing, cause)
        case Status():
            await holding.show_status(desk, intent, standing, cause)
        case Help():
            await holding.show_help(desk, intent, standing, cause)
        case _:
            assert_never(intent)


async def account_changed(desk: Desk, intent: AccountChanged, cause: str) -> None:
    """End what somebody had who has left; anything else about an account is looked up when it matters."""
    person = desk.policy.person_by_slack(intent.source.account)
    if intent.gone:
        await desk.work.close_home(intent.source.account)
    elif intent.source.account in await desk.work.homes():
        await homes.soon(desk, intent.source.account)
    if not intent.gone or person is None:
        return
    for grant in await desk.work.live_grants(person):
        item = EndGrant(grant.id, BOT, intent.source.account, True, "the account was deactivated")
        await desk.work.send(f"{cause}:{grant.id}", f"end:{grant.id}", item)
    for request in await desk.work.requests_of(person):
        await reviewing.withdraw(desk, request, None, cause, LEFT)
