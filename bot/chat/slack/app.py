"""Bolt: every payload is a row in the inbox before it is acknowledged; nothing is worked on here."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import structlog
from slack_bolt.app.async_app import AsyncApp
from slack_bolt.request.async_request import AsyncBoltRequest
from slack_bolt.response import BoltResponse
from slack_sdk.web.async_client import AsyncWebClient

from bot import cards
from bot.adapters.boxes import Inbox, Reserved
from bot.adapters.desks import Desks
from bot.chat.slack.forms import PICK_RESOURCE, PICKS
from bot.chat.slack.opening import SENT, Opener, may_want_form
from bot.chat.slack.payloads import intent_of, kept_of, key_of, kind_of

log = structlog.get_logger()

ANYTHING = re.compile(".*", re.DOTALL)
ENVELOPE: ContextVar[str] = ContextVar("envelope", default="")
"""The id of the Socket Mode envelope that is being handled; Bolt does not pass it on."""
KEY, DUPLICATE, ERRORS = "airlock_key", "airlock_duplicate", "airlock_errors"
RETRY = "x-slack-retry-num"
TRIGGER_SECONDS = 3.0
"""How long a form can be opened after a click; so long, nobody else works on it."""

Next = Callable[[], Awaitable[None]]


class Rim:
    """What Bolt calls; it keeps payloads, answers what must be answered in the acknowledgement, and opens forms."""

    def __init__(
        self, inbox: Inbox, desks: Desks, opener: Opener, kept: Callable[[], None], reserved: Reserved
    ) -> None:
        self._inbox = inbox
        self._desks = desks
        self._opener = opener
        self._kept = kept
        self._keeping: set[asyncio.Task[bool]] = set()
        self.missed: Callable[[str], None] = lambda why: None
        """Told when something first came as a repetition: what came before it went astray."""
        self._reserved = reserved

    def attach(self, app: AsyncApp) -> None:
        """Register with Bolt; the listeners only acknowledge."""
        app.use(self.keep)
        for button in (cards.DENY, cards.DENY_HOLD, cards.REVIEW_HOLD, cards.SHAPE_HOLD, cards.CHANGES, cards.ASK):
            app.action(button)(ack=acknowledge, lazy=[self.open_form])
        for pick in PICKS:
            app.action(pick)(ack=acknowledge, lazy=[self.choose])
        for form in SENT:
            app.view(form)(self.answer_form)
        app.options(PICK_RESOURCE)(self.offer_resources)
        app.command(self._desks.command)(ack=acknowledge, lazy=[self.open_form])
        app.command(ANYTHING)(acknowledge)
        app.action(ANYTHING)(acknowledge)
        app.view(ANYTHING)(acknowledge)
        app.view_closed(ANYTHING)(acknowledge)
        app.shortcut(ANYTHING)(acknowledge)
        app.options(ANYTHING)(no_options)
        app.event(ANYTHING)(acknowledge)

    async def keep(self, req: AsyncBoltRequest, body: dict[str, Any], context: Any, next: Next) -> BoltResponse | None:
        """Keep a payload before anything acknowledges it; where that fails, nothing is acknowledged."""
        if kind_of(body) == "view_submission" and (errors := await self._opener.errors(body)):
            context[ERRORS] = errors
            await next()
            return None
        key = key_of(body, ENVELOPE.get())
        wants_form = may_want_form(intent_of(body, self._desks.command))
        if wants_form:
            self._reserved.reserve(key, TRIGGER_SECONDS)
        # Shielded: a socket that closes cuts its handlers off, and a row half written keeps the database locked.
        keeping = asyncio.create_task(self._inbox.keep(key, kind_of(body), kept_of(body)))
        self._keeping.add(keeping)
        keeping.add_done_callback(self._keeping.discard)
        new = await asyncio.shield(keeping)
        context[KEY], context[DUPLICATE] = key, not new
        if new and not wants_form:
            self._kept()
        if new and any(number not in ("", "0") for number in req.headers.get(RETRY, ())):  # a first delivery says 0
            log.warning("payload.missed_before", kind=kind_of(body))
            self.missed("a payload was missed")
        await next()
        return None

    async def rest(self) -> None:
        """Wait until what is being kept is kept."""
        await asyncio.gather(*self._keeping, return_exceptions=True)

    async def answer_form(self, ack: Callable[..., Awaitable[Any]], context: Any) -> None:
        """Answer a sent form: its errors belong into the acknowledgement."""
        if errors := context.get(ERRORS):
            await ack(response_action="errors", errors=errors)
        else:
            await ack()

    async def open_form(self, body: dict[str, Any], client: AsyncWebClient, context: Any) -> None:
        """Open a form while its trigger lives; where it is open, there is nothing left to do for the worker."""
        intent = intent_of(body, self._desks.command)
        if context.get(DUPLICATE) or not may_want_form(intent):
            return
        key = str(context[KEY])
        try:
            if await self._opener.open(intent, str(body.get("trigger_id")), client):
                await self._inbox.done(key)
        finally:
            self._reserved.release(key)
            self._kept()

    async def choose(self, body: dict[str, Any], client: AsyncWebClient, context: Any) -> None:
        """Show what depends on a choice in an open form."""
        if not context.get(DUPLICATE):
            await self._opener.choose(body, client)

    async def offer_resources(self, ack: Callable[..., Awaitable[Any]], body: dict[str, Any]) -> None:
        """Answer a menu that is too long to be sent whole."""
        await ack(options=await self._opener.options(body))


async def acknowledge(ack: Callable[..., Awaitable[Any]]) -> None:
    """Acknowledge, and do nothing else: an exception right after would take the acknowledgement back."""
    await ack()


async def no_options(ack: Callable[..., Awaitable[Any]]) -> None:
    """Answer a menu that nothing here sends."""
    await ack(options=[])
