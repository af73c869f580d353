"""Tells whoever waits for reviewers that they see nothing yet: Slack did not take the card."""

from __future__ import annotations

from bot.cards import plain
from bot.hold_card import does
from bot.model import Grant, Request
from bot.outgoing import Say, ToPerson
from bot.ports import Desk
from bot.request_words import subject_of
from bot.text import one_line
from workflows.holds import HoldState
from workflows.requests import RequestState


async def tell_unposted(desk: Desk, message: str, error: str) -> None:
    """Tell the requester behind a card that is not there, once, while it could still be answered."""
    kind, _, id = message.partition(":")
    if kind == "hold":
        hold = await desk.work.hold(id)
        grant = await desk.work.grant(hold.grant) if hold else None
        if hold is not None and grant is not None and hold.state is HoldState.WAITING:
            await _tell(desk, message, grant, f"your statement that {does(hold)}", error)
    elif kind == "card":
        request = await desk.work.request(id)
        if request is not None and request.state is RequestState.PENDING:
            await _tell(desk, message, request, f"your request for {subject_of(request)}", error)


async def _tell(desk: Desk, message: str, who: Grant | Request, what: str, error: str) -> None:
    why = one_line(error, 300).rstrip(".")
    text = f"No reviewer sees {what} yet, because its card cannot be posted: {why}. Tell whoever runs Airlock here."
    await desk.work.send(f"unposted:{message}", f"person:{who.account}", Say(ToPerson(who.account), plain(text)))
