"""Messages made from the database at the moment they leave: cards, counters, offers, transcripts."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import structlog

from bot.adapters.boxes import Outbox, Queued
from bot.adapters.desks import Desks
from bot.adapters.sender import Done, Later, Never, Outcome
from bot.cards import Card
from bot.chat.slack.blocks import render
from bot.chat.slack.check import PayloadInvalid
from bot.chat.slack.failures import failure_words
from bot.chat.slack.gateway import Gateway, SlackRefused
from bot.extensions import OfferFacts, offer_card
from bot.grant_cards import counter_card, refusals_card
from bot.hold_card import held_words
from bot.homes import grant_behind
from bot.model import Shown
from bot.outgoing import PostTranscript, Show, card_of
from bot.ports import Broker, BrokerAway, Desk, Refusal
from bot.request_card import RequestFacts, request_card
from bot.shape_card import shapes_words
from bot.unposted import tell_unposted

log = structlog.get_logger()

T = TypeVar("T")
GONE = frozenset({"message_not_found", "thread_not_found"})
SHARED_CHECKED_FOR = timedelta(minutes=5)
SHARED = "the reviewers' channel is shared with another workspace, so no card is posted there"
TRANSCRIPT_TRIES = 8
AWAY = "the broker does not answer"


class Shows:
    """Posts messages made from the database, or edits them in place."""

    def __init__(self, gateway: Gateway, desks: Desks, outbox: Outbox, broker: Broker) -> None:
        self.gateway = gateway
        self._desks = desks
        self._outbox = outbox
        self._broker = broker
        self._shared: tuple[datetime, bool] | None = None

    async def certain(self, row: Queued, call: Coroutine[Any, Any, T]) -> T:
        """Make a call that must not happen twice: before it, the row says that it may have happened."""
        try:
            await self._outbox.begins(row)
        except BaseException:
            call.close()
            raise
        return await call

    async def show(self, row: Queued, item: Show) -> Outcome:
        """Bring a message up to date, unless a later version is up already."""
        async with self._desks.open() as (desk, work):
            shown = await work.shown(item.message)
            if shown is None or shown.shown >= shown.wanted:
                return Done({"skipped": True})
            found = await _found(desk, item.message)
        if found is None:
            return Done({"nothing": True})
        return await self.put(row, item, shown, found)

    async def put(self, row: Queued, item: Show, shown: Shown, found: Found) -> Outcome:
        """Edit a message in place, or post it where it is not there."""
        payload = render(found.card)
        if shown.channel and shown.ts:
            try:
                await self.gateway.update(shown.channel, shown.ts, payload)
            except SlackRefused as error:
                if error.error not in GONE:
                    raise
                log.warning("message.gone", message=item.message)
            else:
                return await self.is_at(row, item, shown.channel, shown.ts, shown.wanted)
        if item.message.startswith("ticket:"):
            return Done({"nothing": True})
        return await self._post(row, item, shown, payload, found)

    async def _post(self, row: Queued, item: Show, shown: Shown, payload: dict[str, Any], found: Found) -> Outcome:
        """Post a message that is not there, under its parent where it has one, or to one person."""
        if await self._outbox.follows(row, f"show:{item.message}:"):
            # The counter has two lanes, and what an earlier row may have posted only that row can find again.
            return Later("an earlier version is not posted yet", 0.25)
        async with self._desks.open() as (_, work):
            now = await work.shown(item.message)
        if now is not None and now.ts != shown.ts:
            return Later("it was posted meanwhile", 0.05)
        channel, thread = self._desks.channel, ""
        if found.account is not None:
            channel = await self.gateway.direct(found.account)
        elif found.parent is not None:
            async with self._desks.open() as (_, work):
                above = await work.shown(found.parent)
            if above is None or not above.channel or not above.ts:
                return Later("the card is not posted yet", 0.25 if row.attempts < 20 else None)
            channel, thread = above.channel, above.ts
        elif await self._is_shared():
            await self._tell_unposted(item, SHARED)
            return Never(SHARED)
        since = row.made_at.timestamp() - 60
        if row.uncertain and (ts := await self.gateway.find(channel, row.key, since, thread)):
            return await self.is_at(row, item, channel, ts, item.version)
        try:
            ts = await self.certain(row, self.gateway.post(channel, payload, row.key, thread))
        except (SlackRefused, PayloadInvalid) as error:
            await self._tell_unposted(item, str(error))
            raise
        return await self.is_at(row, item, channel, ts, shown.wanted)

    async def _tell_unposted(self, item: Show, error: str) -> None:
        await self._desks.settle(lambda desk, _: tell_unposted(desk, item.message, failure_words(error)))

    async def is_at(self, row: Queued, item: Show, channel: str, ts: str, version: int) -> Outcome:
        """Note where a message is and what people see there."""
        async with self._desks.open() as (_, work):
            await work.message_is_at(item.message, channel, ts, version)
            await work.show_rest(item.message, row.lane)
        return Done({"channel": channel, "ts": ts})

    async def _is_shared(self) -> bool:
        now = self._desks.clock.now()
        if self._shared is None or now - self._shared[0] > SHARED_CHECKED_FOR:
            self._shared = (now, await self.gateway.is_shared_outside(self._desks.channel))
        return self._shared[1]

    async def transcript(self, row: Queued, item: PostTranscript) -> Outcome:
        """Put a grant's transcript into the thread, or before one person, as a file."""
        async with self._desks.open() as (_, work):
            grant = await work.grant(item.grant)
            card = await work.shown(card_of(grant.request)) if grant else None
        if grant is None or not grant.recording or card is None or not card.channel or not card.ts:
            return Never("there is no thread or no recording")
        channel, thread = (await self.gateway.direct(item.account), "") if item.account else (card.channel, card.ts)
        name = transcript_name(grant.request, item.format)
        if row.uncertain and await self.gateway.find_file(channel, thread, name):
            return Done({"file": name, "found": True})
        try:
            content = await self._broker.recording(grant.id, item.format)
        except BrokerAway as error:
            log.info("transcript.waits", grant=grant.id, error=str(error))
            # Before one person a lane waits that others' messages go through too; they are told where the thread is.
            return Never(AWAY) if item.account and row.attempts >= TRANSCRIPT_TRIES else Later(AWAY)
        except Refusal as error:
            log.warning("transcript.refused", grant=grant.id, code=error.problem.code)
            return Never(error.problem.message)
        kind = "Transcript, to read" if item.format == "text" else "Transcript, for programs (JSON lines)"
        title = f"{kind}: {grant.role} on {grant.resource}"
        upload = self.gateway.upload(channel, thread, name, content or b"\n", title)
        return Done({"file": await self.certain(row, upload)})


def transcript_name(request: str, format: str) -> str:
    """Name the file that holds the transcript of the access that a request gave."""
    return f"transcript-{request}.{'txt' if format == 'text' else 'jsonl'}"


@dataclass(frozen=True, slots=True)
class Found:
    """What a message says now; `parent` is the message it replies to, `account` whom it goes to alone."""

    card: Card
    parent: str | None = None
    account: str | None = None


async def _found(desk: Desk, message: str) -> Found | None:
    """Make a message from what the database says now."""
    kind, _, id = message.partition(":")
    if kind == "card":
        return await _request(desk, id)
    id, _, end = id.partition(":")
    grant = await desk.work.grant(id)
    if grant is None:
        return None
    if kind == "counter":
        shapes = shapes_words(desk.policy, await desk.work.shapes_of(grant.id))
        held = ", ".join(filter(None, (held_words(desk.policy, await desk.work.holds_of(grant.id)), shapes)))
        return Found(counter_card(desk.policy, grant, held), card_of(grant.request))
    if kind == "refusals":
        return Found(refusals_card(desk.policy, grant), card_of(grant.request))
    if kind in ("offer", "reminder"):
        at, direct = datetime.fromtimestamp(int(end), UTC), kind == "reminder"
        card = offer_card(OfferFacts(grant, at, await desk.work.extensions_of(grant.id), desk.policy, direct))
        return Found(card, account=grant.account) if direct else Found(card, card_of(grant.request))
    return None


async def _request(desk: Desk, id: str) -> Found | None:
    request = await desk.work.request(id)
    if request is None:
        return None
    grant = await grant_behind(desk, request)
    card = request_card(RequestFacts(request, await desk.work.reviews(id), grant, desk.policy, desk.now))
    return Found(card, card_of(grant.request) if grant and request.extends else None)
