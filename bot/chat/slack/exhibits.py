"""Shows held statements and approved shapes, with the text as the broker has it now; files for what is too long."""

from __future__ import annotations

import structlog

from bot.adapters.boxes import Queued
from bot.adapters.desks import Desks
from bot.adapters.sender import Done, Later, Never, Outcome
from bot.adapters.store import SqlWork
from bot.cards import Card
from bot.chat.slack.gateway import SlackRefused
from bot.chat.slack.shows import Found, Shows
from bot.hold_card import HoldFacts, hold_card, is_redacted
from bot.hold_reading import file_name
from bot.model import Exhibit, Hold
from bot.outgoing import PostStatement, Show, card_of, hold_of
from bot.ports import Broker, BrokerAway, Desk, Refusal
from bot.shape_card import shape_card
from bot.statement_text import file_of, read
from workflows.holds import HoldState
from workflows.wire import HoldView, ShapeView

log = structlog.get_logger()

AWAY_WAIT = 1.0
SHAPE_TRIES = 20


class Exhibits:
    """What `Shows` is for other messages; the statement passes through and is written down nowhere."""

    def __init__(self, shows: Shows, desks: Desks, broker: Broker) -> None:
        self._shows = shows
        self._desks = desks
        self._broker = broker

    async def show(self, row: Queued, item: Show) -> Outcome:
        """Bring a hold's card up to date."""
        id = item.message.partition(":")[2]
        try:
            view = await self._view(id)
        except BrokerAway as error:
            if await self._waits(id):
                return Later(str(error), AWAY_WAIT)
            view = None  # what became of it matters more now than what it was
        async with self._desks.open() as (desk, work):
            shown = await work.shown(item.message)
            hold = await work.hold(id)
            grant = await work.grant(hold.grant) if hold else None
            if hold is None or grant is None or shown is None or shown.shown >= shown.wanted:
                return Done({"skipped": True})
            # What is shown only to those who may answer is neither whole on the card nor in a file in its thread.
            hidden = is_redacted(desk.policy, grant.resource)
            if not hidden and hold.exhibit is Exhibit.NOWHERE and view is not None and view.digest == hold.digest:
                if read(view).fits:
                    # Before the card is there: a click on it may be faster than the next transaction.
                    hold = await work.change_hold(hold, exhibit=Exhibit.CARD)
                elif hold.state is HoldState.WAITING:
                    await work.send(f"statement:{id}", f"statement:{id}", PostStatement(id))
            card: Card = hold_card(HoldFacts(hold, await work.hold_reviews(hold), grant, view, desk.policy))
        if shown.ts is None and not row.uncertain and _taken_back(hold):
            # Its client gave it up before anybody saw it: it is counted, and a flood of such holds no other card up.
            return Done({"taken_back": True})
        return await self._shows.put(row, item, shown, Found(card, card_of(grant.request)))

    async def shape(self, row: Queued, item: Show) -> Outcome:
        """Bring the message up to date that says what shape was approved."""
        id = item.message.partition(":")[2]
        view: ShapeView | None = None
        try:
            view = await self._broker.shape(id)
        except BrokerAway as error:
            if row.attempts < SHAPE_TRIES:
                return Later(str(error), AWAY_WAIT)
        except Refusal as error:
            log.info("shape.not_shown", shape=id, code=error.problem.code)
        async with self._desks.open() as (desk, work):
            shown = await work.shown(item.message)
            shape = await work.shape(id)
            grant = await work.grant(shape.grant) if shape else None
            if shape is None or grant is None or shown is None or shown.shown >= shown.wanted:
                return Done({"skipped": True})
            card = shape_card(desk.policy, shape, grant, view)
        return await self._shows.put(row, item, shown, Found(card, card_of(grant.request)))

    async def _view(self, hold: str) -> HoldView | None:
        async with self._desks.open() as (_, work):
            found = await work.hold(hold)
        try:
            return await self._broker.hold(hold, found.grant if found else "")
        except Refusal as error:
            log.info("hold.not_shown", hold=hold, code=error.problem.code)
            return None

    async def _waits(self, id: str) -> bool:
        async with self._desks.open() as (_, work):
            hold = await work.hold(id)
        return hold is not None and hold.state is HoldState.WAITING

    async def statement(self, row: Queued, item: PostStatement) -> Outcome:
        """Put all of a statement into the thread as a file; only then can it be approved."""
        async with self._desks.open() as (desk, work):
            hold = await work.hold(item.hold)
            grant = await work.grant(hold.grant) if hold else None
            card = await work.shown(card_of(grant.request)) if grant else None
            if grant is not None and is_redacted(desk.policy, grant.resource):
                return Never("the resource's statements are shown to reviewers alone by now")
        if hold is None or hold.state is not HoldState.WAITING or card is None or not card.channel or not card.ts:
            return Done({"over": True})
        name = file_name(hold)
        if row.uncertain and await self._shows.gateway.find_file(card.channel, card.ts, name):
            return await self._is_there(item.hold, Exhibit.FILE)
        try:
            view = await self._view(hold.id)
        except BrokerAway as error:
            return Later(str(error), AWAY_WAIT, uncertain=row.uncertain)
        if view is None or view.digest != hold.digest:
            return Never("the broker does not show this statement")
        content = file_of(hold.id, view, read(view))
        upload = self._shows.gateway.upload(card.channel, card.ts, name, content, f"Statement of hold {hold.id}")
        try:
            await self._shows.certain(row, upload)
        except SlackRefused as error:
            log.warning("statement.not_posted", hold=hold.id, error=error.error)
            return await self._is_there(item.hold, Exhibit.IMPOSSIBLE)
        return await self._is_there(item.hold, Exhibit.FILE)

    async def _is_there(self, id: str, exhibit: Exhibit) -> Outcome:
        async def note(desk: Desk, work: SqlWork) -> None:
            hold = await work.hold(id)
            if hold is not None and hold.state is HoldState.WAITING:
                await work.change_hold(hold, exhibit=exhibit)
                await work.want(hold_of(id), f"hold:{id}")

        await self._desks.settle(note)
        return Done({"exhibit": exhibit.value})


def _taken_back(hold: Hold) -> bool:
    return hold.state is HoldState.ABANDONED and hold.reason in ("client", "cancelled") and not hold.people
