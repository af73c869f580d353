"""Delivers outbox rows: messages to Slack, orders to the broker, tickets from one to the other."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import assert_never

import structlog
from pydantic import ValidationError

from bot.adapters.answers import AnswerDesk
from bot.adapters.boxes import Queued
from bot.adapters.desks import Desks
from bot.adapters.orders import OrderDesk
from bot.adapters.sender import Done, Later, Never, Outcome
from bot.cards import Card, MessageLink, Note, Paragraph, plain
from bot.chat.slack.blocks import render
from bot.chat.slack.check import PayloadInvalid
from bot.chat.slack.exhibits import Exhibits
from bot.chat.slack.failures import failure_words
from bot.chat.slack.gateway import Gateway, SlackRefused, SlackUncertain
from bot.chat.slack.home import Homes
from bot.chat.slack.pacing import TURN, SlackBusy
from bot.chat.slack.shows import TRANSCRIPT_TRIES, Shows, transcript_name
from bot.chat.slack.tickets import Tickets
from bot.model import Grant
from bot.outgoing import (
    AnswerHold,
    DeliverTicket,
    EndGrant,
    InThread,
    Mirror,
    PostOrder,
    PostStatement,
    PostTranscript,
    Privately,
    Say,
    Show,
    ToPerson,
    WithdrawShape,
    card_of,
    from_row,
)
from bot.ports import Desk
from bot.request_words import name_of
from bot.text import one_line

log = structlog.get_logger()

REPLY_URL_LIFE = timedelta(minutes=29)
REPLY_URL_TRIES = 3
GIVE_UP_AFTER = timedelta(days=1)
LINK_PATIENCE = 20
MEMBER_FOR = timedelta(minutes=1)
HEAL_SECONDS = 30.0
HEALABLE = frozenset(
    {
        "account_inactive",
        "channel_not_found",
        "invalid_auth",
        "is_archived",
        "missing_scope",
        "not_in_channel",
        "restricted_action",
        "token_expired",
        "token_revoked",
    }
)
"""What somebody puts right: the bot is invited again, a channel comes back, a token is renewed."""


class Delivery:
    """Does what outbox rows say."""

    def __init__(
        self,
        gateway: Gateway,
        desks: Desks,
        orders: OrderDesk,
        answers: AnswerDesk,
        shows: Shows,
        exhibits: Exhibits,
        tickets: Tickets,
        homes: Homes,
    ) -> None:
        self._gateway = gateway
        self._desks = desks
        self._orders = orders
        self._answers = answers
        self._shows = shows
        self._exhibits = exhibits
        self._tickets = tickets
        self._homes = homes
        self._members: dict[str, tuple[datetime, bool]] = {}

    async def deliver(self, row: Queued) -> Outcome:
        """Do what a row says, and say how it went."""
        outcome = await self._tried(row)
        if row.payload.get("kind") == "transcript":
            await self._say_without_transcript(row, outcome)
        return outcome

    async def _tried(self, row: Queued) -> Outcome:
        TURN.set((row.urgency, row.id))
        try:
            outcome = await self._do(row)
        except SlackBusy as busy:
            outcome = Later(str(busy), busy.after, uncertain=row.uncertain)
        except SlackUncertain as error:
            outcome = Later(str(error), uncertain=True)
        except SlackRefused as error:
            outcome = Later(error.error, HEAL_SECONDS) if error.error in HEALABLE else Never(error.error)
        except PayloadInvalid as error:
            outcome = Never(f"the payload breaks Slack's limits: {error}")
        except ValidationError as error:
            outcome = Never(f"the row does not read: {error.error_count()} problems")
        if isinstance(outcome, Later) and row.made_at + GIVE_UP_AFTER < self._desks.clock.now():
            return Never(f"tried for a day: {outcome.error}")
        return outcome

    async def _do(self, row: Queued) -> Outcome:
        item = from_row(row.payload)
        match item:
            case Say():
                return await self._say(row, item)
            case Show() if item.message.startswith("hold:"):
                return await self._exhibits.show(row, item)
            case Show() if item.message.startswith("shape:"):
                return await self._exhibits.shape(row, item)
            case Show() if item.message.startswith("ticket:"):
                return await self._tickets.show(row, item)
            case Show() if item.message.startswith("home:"):
                return await self._homes.show(row, item)
            case Show():
                return await self._shows.show(row, item)
            case DeliverTicket():
                return await self._tickets.deliver(row, item)
            case PostTranscript() if item.account and await self._sees_cards(item.account):
                return Done({"in_channel": True})
            case PostTranscript():
                return await self._shows.transcript(row, item)
            case PostOrder():
                return await self._orders.post(row, item)
            case AnswerHold():
                return await self._answers.answer(row, item)
            case PostStatement():
                return await self._exhibits.statement(row, item)
            case EndGrant():
                return await self._orders.end(row, item)
            case WithdrawShape():
                return await self._orders.withdraw(row, item)
            case _:
                assert_never(item)

    async def _say_without_transcript(self, row: Queued, outcome: Outcome) -> None:
        """Say once in a thread, which promises a transcript, that it does not come, or comes later."""
        item = from_row(row.payload)
        if not isinstance(item, PostTranscript) or item.format != "text":
            return
        match outcome:
            case Never(error=error):
                what = "could not be sent" if item.account else "could not be posted"
                text = f"The transcript {what}: {failure_words(one_line(error))}."
            case Later(error=error) if row.attempts >= TRANSCRIPT_TRIES and not item.account:
                text = f"The transcript is not here yet: {failure_words(one_line(error))}. It is tried again for a day."
            case _:
                return
        key = f"{row.key}:{'failed' if isinstance(outcome, Never) else 'late'}"
        async with self._desks.open() as (desk, work):
            if (grant := await work.grant(item.grant)) is None:
                return
            if item.account:
                await self._say_not_sent(desk, grant, key, text)
                return
            if isinstance(outcome, Never):
                kept = f"The broker keeps the recording of {item.grant}"
                text = f"{text} {kept}: `airlock audit transcript {item.grant}` on its machine shows it."
            # A lane of its own: the thread's waits for the transcript.
            place = InThread(grant.request)
            await work.send(key, f"card:{grant.request}", Say(place, plain(text)))

    async def _say_not_sent(self, desk: Desk, grant: Grant, key: str, text: str) -> None:
        """Say, in the thread and to whoever does not see it, how they get the transcript that is not sent to them."""
        who, file = name_of(desk.policy, grant.person), transcript_name(grant.request, "text")
        there = text.replace("could not be sent", f"could not be sent to {who}")
        passed = f"It comes into this thread as {file}: whoever sees it here may pass it on."
        place = InThread(grant.request)
        await desk.work.send(key, f"card:{grant.request}", Say(place, plain(f"{there} {passed}")))
        told = f"{text} It comes as {file} into the thread of your request, where its reviewers can pass it on to you."
        await desk.work.send(f"{key}:told", f"tell:{grant.account}", Say(ToPerson(grant.account), plain(told)))

    async def _say(self, row: Queued, item: Say) -> Outcome:
        links = await self._links(item.card)
        if links is None and row.attempts < LINK_PATIENCE:
            return Later("the message it points at is not posted yet", 0.25)
        payload = render(item.card, links or {})
        match item.place:
            case InThread(request=request):
                async with self._desks.open() as (_, work):
                    card = await work.shown(card_of(request))
                if card is None or not card.channel or not card.ts:
                    return Later("the card is not posted yet", 0.25 if row.attempts < LINK_PATIENCE else None)
                return await self._post(row, card.channel, payload, card.ts)
            case ToPerson(account=account):
                return await self._post(row, await self._gateway.direct(account), payload)
            case Mirror(account=account):
                if await self._sees_cards(account):
                    return Done({"in_channel": True})
                return await self._post(row, await self._gateway.direct(account), payload)
            case Privately():
                return await self._whisper(row, item.place, payload)
            case _:
                assert_never(item.place)

    async def _sees_cards(self, account: str) -> bool:
        """Say whether somebody is in the reviewers' channel; where Slack does not say, they are told once more."""
        now = self._desks.clock.now()
        seen = self._members.get(account)
        if seen is None or now - seen[0] > MEMBER_FOR:
            try:
                seen = (now, await self._gateway.has_member(self._desks.channel, account))
            except SlackRefused as error:
                log.warning("member.unknown", account=account, error=error.error)
                return False
            self._members[account] = seen
        return seen[1]

    async def _post(self, row: Queued, channel: str, payload: dict[str, object], thread: str = "") -> Outcome:
        if row.uncertain and (ts := await self._gateway.find(channel, row.key, row.made_at.timestamp() - 60, thread)):
            return Done({"channel": channel, "ts": ts, "found": True})
        ts = await self._shows.certain(row, self._gateway.post(channel, payload, row.key, thread))
        return Done({"channel": channel, "ts": ts})

    async def _whisper(self, row: Queued, place: Privately, payload: dict[str, object]) -> Outcome:
        """Answer through the payload's own address; else in the channel; else as a direct message."""
        fresh = row.made_at + REPLY_URL_LIFE > self._desks.clock.now()
        if place.reply_url and fresh and row.attempts < REPLY_URL_TRIES:
            try:
                await self._gateway.reply(place.reply_url, payload, place.thread)
                return Done({"through": "reply"})
            except (SlackRefused, SlackUncertain) as error:
                log.info("reply.fallback", key=row.key, error=str(error))
        if place.channel:
            try:
                await self._gateway.whisper(place.channel, place.account, payload, place.thread)
                return Done({"through": "channel"})
            except SlackRefused as error:
                log.info("whisper.fallback", key=row.key, error=error.error)
        return await self._post(row, await self._gateway.direct(place.account), payload)

    async def _links(self, card: Card) -> Mapping[str, str] | None:
        """Return the addresses of the messages a card points at; None while one is not posted."""
        spans = [span for part in card.parts if isinstance(part, Paragraph | Note) for span in part.spans]
        found: dict[str, str] = {}
        for message in {span.message for span in spans if isinstance(span, MessageLink)}:
            async with self._desks.open() as (_, work):
                shown = await work.shown(message)
            if shown is None or not shown.channel or not shown.ts:
                return None
            try:
                found[message] = await self._gateway.permalink(shown.channel, shown.ts)
            except (SlackRefused, SlackUncertain) as error:
                log.info("link.missing", message=message, error=str(error))
        return found
