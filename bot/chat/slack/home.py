"""Publishes homes; each is made from the database at the moment it leaves, for who somebody is then."""

from __future__ import annotations

import structlog

from bot.adapters.boxes import Queued
from bot.adapters.desks import Desks
from bot.adapters.sender import Done, Outcome
from bot.cards import Buttons, Card, MessageLink, Paragraph
from bot.chat.slack.blocks import home_view
from bot.chat.slack.gateway import Gateway, SlackRefused
from bot.homes import home_for, outsider_card
from bot.outgoing import Show
from bot.ports import Directory, Outsider

log = structlog.get_logger()
PLACE = "home"


class Homes:
    """What `Shows` is for messages; publishing twice is the same as once, so nothing is ever looked up."""

    def __init__(self, gateway: Gateway, desks: Desks, directory: Directory, team: str) -> None:
        self._gateway = gateway
        self._desks = desks
        self._directory = directory
        self._team = team

    async def show(self, row: Queued, item: Show) -> Outcome:
        """Bring somebody's home up to date."""
        account = item.message.partition(":")[2]
        standing = await self._directory.standing(self._team, account, False)
        async with self._desks.open() as (desk, work):
            shown = await work.shown(item.message)
            if shown is None or shown.shown >= shown.wanted:
                return Done({"skipped": True})
            # Fail closed: a guest, a stranger or somebody who left sees no more of anything, whatever was theirs.
            if isinstance(standing, Outsider):
                card = outsider_card(standing.reason)
            else:
                card = await home_for(desk, standing.person)
        await self._gateway.publish(account, home_view(card, await self._links(card)))
        async with self._desks.open() as (_, work):
            await work.message_is_at(item.message, account, PLACE, shown.wanted)
            await work.show_rest(item.message, row.lane)
        return Done({"home": account})

    async def _links(self, card: Card) -> dict[str, str]:
        """Return the addresses of the cards that are posted; what leads to others is left out."""
        found: dict[str, str] = {}
        for message in _messages(card):
            async with self._desks.open() as (_, work):
                shown = await work.shown(message)
            if shown is None or not shown.channel or not shown.ts:
                continue
            try:
                found[message] = await self._gateway.permalink(shown.channel, shown.ts)
            except SlackRefused as error:
                log.info("link.missing", message=message, error=error.error)
        return found


def _messages(card: Card) -> list[str]:
    spans = [span for part in card.parts if isinstance(part, Paragraph) for span in part.spans]
    links = [span.message for span in spans if isinstance(span, MessageLink)]
    buttons = [button.message for part in card.parts if isinstance(part, Buttons) for button in part.buttons]
    return list(dict.fromkeys([*links, *filter(None, buttons)]))
