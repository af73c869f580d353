"""Intents in, rows out: sends each intent to what decides it, once its author is known to be somebody who may."""

from __future__ import annotations

from typing import assert_never

from bot import again, asking, extending, holding, holds, homes, naming, reviewing, shapes
from bot.asking import tell
from bot.cards import plain
from bot.intents import (
    AccountChanged,
    Approve,
    ApproveChanged,
    ApproveHold,
    ApproveShape,
    Ask,
    AskAgain,
    Cancel,
    Connect,
    EndNow,
    Extend,
    ExtendNamed,
    Help,
    HomeOpened,
    Ignored,
    Intent,
    List,
    NewLine,
    OpenAsk,
    OpenChanges,
    OpenDeny,
    OpenDenyHold,
    OpenReview,
    OpenShape,
    Refuse,
    RefuseHold,
    ReviewHold,
    Revoke,
    Status,
    Unknown,
    Wanted,
    Withdraw,
)
from bot.ordering import BOT
from bot.outgoing import EndGrant
from bot.ports import Desk, Member, Outsider, Standing
from bot.request_card import LEFT


async def handle(desk: Desk, intent: Intent, standing: Standing, cause: str) -> None:
    """Do what an intent asks for, in one transaction; `cause` names the payload, so that nothing is done twice."""
    match intent:
        case Ignored():
            pass
        case AccountChanged():
            await account_changed(desk, intent, cause)
        case HomeOpened():
            await homes.opened(desk, intent)
        case Unknown():
            text = f"Nothing here answers to {intent.what}, so nothing was done. {desk.command} help says what does."
            await tell(desk, intent.source, cause, plain(text))
        case _ if isinstance(standing, Outsider):
            await tell(desk, intent.source, cause, plain(f"You cannot use this: {standing.reason}."))
        case _:
            await _act(desk, intent, standing, cause)


async def _act(desk: Desk, intent: Wanted, member: Member, cause: str) -> None:
    """Do what somebody asks for who may use this."""
    match intent:
        case Ask():
            await asking.ask(desk, intent, member, cause)
        case OpenAsk():
            await asking.open_form(desk, intent, member, cause)
        case AskAgain():
            await again.ask_again(desk, intent, member, cause)
        case Extend():
            await extending.extend(desk, intent, member, cause)
        case Approve() | ApproveChanged():
            await reviewing.approve(desk, intent, member, cause)
        case OpenDeny() | OpenChanges():
            await reviewing.open_form(desk, intent, member, cause)
        case Refuse():
            await reviewing.refuse(desk, intent, member, cause)
        case Cancel():
            await reviewing.cancel(desk, intent, member, cause)
        case ApproveHold():
            await holds.approve(desk, intent, member, cause)
        case OpenDenyHold() | OpenReview() | OpenShape():
            await holds.open_form(desk, intent, member, cause)
        case RefuseHold():
            await holds.refuse(desk, intent, member, cause)
        case ReviewHold():
            await holds.review(desk, intent, member, cause)
        case ApproveShape():
            await holds.approve_shape(desk, intent, member, cause)
        case Withdraw():
            await shapes.withdraw(desk, intent, member, cause)
        case NewLine():
            await holding.new_line(desk, intent, member, cause)
        case EndNow():
            await holding.end_now(desk, intent, member, cause)
        case Revoke():
            await naming.revoke(desk, intent, member, cause)
        case Connect():
            await naming.connect(desk, intent, member, cause)
        case ExtendNamed():
            await naming.extend(desk, intent, member, cause)
        case List():
            await holding.show_list(desk, intent, member, cause)
        case Status():
            await holding.show_status(desk, intent, member, cause)
        case Help():
            await holding.show_help(desk, intent, member, cause)
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
