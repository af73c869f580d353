"""Hands tickets over: minted as they leave, sent to their owner alone, written down nowhere on the way."""

from __future__ import annotations

from typing import Any

import structlog

from bot.adapters.boxes import Queued
from bot.adapters.desks import Desks
from bot.adapters.orders import QUIET_TRIES
from bot.adapters.sender import Done, Later, Never, Outcome
from bot.cards import Card, Paragraph, plain, say
from bot.chat.slack.blocks import render
from bot.chat.slack.check import PayloadInvalid
from bot.chat.slack.gateway import SlackRefused, SlackUncertain
from bot.chat.slack.pacing import SlackBusy
from bot.chat.slack.shows import Found, Shows
from bot.grant_cards import spent_ticket_card, ticket_card
from bot.model import Grant, Shown
from bot.outgoing import DeliverTicket, Say, Show, ToPerson, ticket_of
from bot.ports import Broker, BrokerAway, Refusal
from bot.text import sentence
from policies.engine.model import Policy
from workflows.wire import TicketView

log = structlog.get_logger()


class Tickets:
    """What `Shows` is for other messages; the secret stands in the message alone."""

    def __init__(self, shows: Shows, desks: Desks, broker: Broker) -> None:
        self._shows = shows
        self._desks = desks
        self._broker = broker

    async def deliver(self, row: Queued, item: DeliverTicket) -> Outcome:
        """Mint a ticket and send it to its owner."""
        gateway = self._shows.gateway
        async with self._desks.open() as (desk, work):
            grant = await work.grant(item.grant)
            earlier = await work.shown(ticket_of(item.grant))
        if grant is None or not grant.live:
            return Done({"over": True})
        channel = await gateway.direct(item.account)
        since = row.made_at.timestamp() - 60
        if row.uncertain and (ts := await gateway.find(channel, row.key, since)):
            return await self._handed_over(grant, channel, ts, earlier)
        try:
            ticket = await self._broker.mint(grant.id, grant.person)
        except BrokerAway as error:
            if row.attempts >= QUIET_TRIES:
                await self._say_not_yet(row, item, grant)
            return Later(str(error), uncertain=row.uncertain)
        except Refusal as error:
            # Plain words: what the broker says may have backticks of its own.
            hint = f" {sentence(error.problem.hint)}" if error.problem.hint else ""
            text = f"The broker gives no line for {grant.role} on {grant.resource}: {error.problem.message}.{hint}"
            await gateway.post(channel, render(Card(text, (Paragraph(say(text)),))), row.key)
            return Never(f"{error.status} {error.problem.code}")
        payload = render(ticket_card(desk.policy, grant, ticket))
        ts = await self._shows.certain(row, gateway.post(channel, payload, row.key))
        return await self._handed_over(grant, channel, ts, earlier)

    async def _say_not_yet(self, row: Queued, item: DeliverTicket, grant: Grant) -> None:
        """Tell whoever waits for a line, once, why it does not come."""
        text = f"The broker does not answer, so your line for {grant.role} on {grant.resource} comes when it does."
        async with self._desks.open() as (_, work):
            await work.send(f"{row.key}:away", f"person:{item.account}", Say(ToPerson(item.account), plain(text)))

    async def _handed_over(self, grant: Grant, channel: str, ts: str, earlier: Shown | None) -> Outcome:
        async with self._desks.open() as (desk, work):
            await work.note_message(ticket_of(grant.id), channel, ts)
            now = await work.grant(grant.id)
            if now is not None and (not now.live or now.expires_at != grant.expires_at):
                # It ended, or was extended, while the ticket was on its way; the message must not say otherwise.
                await work.want(ticket_of(grant.id), f"ticket:{grant.id}")
            spent = render(spent_ticket_card(desk.policy, grant))
        if earlier is not None and earlier.channel and earlier.ts and earlier.ts != ts:
            try:
                await self._shows.gateway.update(earlier.channel, earlier.ts, spent)
            except (SlackBusy, SlackRefused, SlackUncertain) as error:
                log.info("ticket.kept", grant=grant.id, error=str(error))
        return Done({"channel": channel, "ts": ts})

    async def show(self, row: Queued, item: Show) -> Outcome:
        """Bring the message up to date: another end, or what is left of it when the access is over."""
        async with self._desks.open() as (desk, work):
            shown = await work.shown(item.message)
            grant = await work.grant(item.message.partition(":")[2])
        if grant is None or shown is None or not shown.channel or not shown.ts or shown.shown >= shown.wanted:
            return Done({"skipped": True})
        if not grant.live:
            return await self._shows.put(row, item, shown, Found(spent_ticket_card(desk.policy, grant)))
        message = await self._shows.gateway.message(shown.channel, shown.ts)
        payload = with_new_end(message or {}, desk.policy, grant)
        if payload is None:
            return Done({"nothing": True})
        try:
            await self._shows.gateway.update(shown.channel, shown.ts, payload)
        except PayloadInvalid as error:
            # The line still works; only the end that stands beside it is the old one.
            log.warning("ticket.kept", grant=grant.id, error=str(error))
            return Done({"nothing": True})
        return await self._shows.is_at(row, item, shown.channel, shown.ts, shown.wanted)


def with_new_end(message: dict[str, Any], policy: Policy, grant: Grant) -> dict[str, Any] | None:
    """Return a ticket's message with the end that its grant has now; None where it shows no ticket any more.

    What names the end is made anew; what holds the secret is taken from the message, which is the only place it is in.
    """
    nothing = dict.fromkeys(("id", "protocol", "host", "user", "password", "database", "line"), "-")
    ticket = TicketView.model_validate({**nothing, "grant": grant.id, "port": 1, "expires_at": grant.expires_at})
    made = render(ticket_card(policy, grant, ticket))
    new, old = made["blocks"], message.get("blocks")
    if not isinstance(old, list) or [block.get("type") for block in old] != [block["type"] for block in new]:
        return None
    # Slack wants ids of blocks to be new with each edit, and makes them where there are none.
    kept = [{key: value for key, value in block.items() if key != "block_id"} for block in old[1:-1]]
    return {"text": made["text"], "blocks": [new[0], *kept, new[-1]]}
