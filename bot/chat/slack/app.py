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
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot import cards, holds, reviewing
from bot.adapters.boxes import Inbox
from bot.adapters.desks import Desks
from bot.chat.slack.check import check_payload
from bot.chat.slack.payloads import intent_of, kept_of, key_of, kind_of
from bot.chat.slack.reviewing import ReviewForms
from bot.chat.slack.views import DENY_HOLD_VIEW, FORMS, deny_view, form_errors
from bot.hold_card import does
from bot.intents import OpenDeny, OpenDenyHold, OpenReview
from bot.ports import Desk, Directory, Member
from bot.request_card import duration_of, name_of

log = structlog.get_logger()

ANYTHING = re.compile(".*", re.DOTALL)
ENVELOPE: ContextVar[str] = ContextVar("envelope", default="")
"""The id of the Socket Mode envelope that is being handled; Bolt does not pass it on."""
DUPLICATE = "airlock_duplicate"
RETRY = "x-slack-retry-num"

Next = Callable[[], Awaitable[None]]


class Rim:
    """What Bolt calls; it keeps payloads, answers what must be answered in the acknowledgement, and opens forms."""

    def __init__(
        self, inbox: Inbox, desks: Desks, directory: Directory, reviews: ReviewForms, kept: Callable[[], None]
    ) -> None:
        self._inbox = inbox
        self._desks = desks
        self._directory = directory
        self._reviews = reviews
        self._kept = kept
        self._keeping: set[asyncio.Task[bool]] = set()
        self.missed: Callable[[str], None] = lambda why: None
        """Told when something first came as a repetition: what came before it went astray."""

    def attach(self, app: AsyncApp) -> None:
        """Register with Bolt; the listeners only acknowledge."""
        app.use(self.keep)
        for button in (cards.DENY, cards.DENY_HOLD, cards.REVIEW_HOLD):
            app.action(button)(ack=acknowledge, lazy=[self.open_form])
        for form in FORMS:
            app.view(form)(self.answer_form)
        app.command(ANYTHING)(acknowledge)
        app.action(ANYTHING)(acknowledge)
        app.view(ANYTHING)(acknowledge)
        app.view_closed(ANYTHING)(acknowledge)
        app.shortcut(ANYTHING)(acknowledge)
        app.options(ANYTHING)(no_options)
        app.event(ANYTHING)(acknowledge)

    async def keep(self, req: AsyncBoltRequest, body: dict[str, Any], context: Any, next: Next) -> BoltResponse | None:
        """Keep a payload before anything acknowledges it; where that fails, nothing is acknowledged."""
        if kind_of(body) == "view_submission" and invalid_form(body):
            await next()
            return None
        # Shielded: a socket that closes cuts its handlers off, and a row half written keeps the database locked.
        keeping = asyncio.create_task(self._inbox.keep(key_of(body, ENVELOPE.get()), kind_of(body), kept_of(body)))
        self._keeping.add(keeping)
        keeping.add_done_callback(self._keeping.discard)
        new = await asyncio.shield(keeping)
        context[DUPLICATE] = not new
        if new:
            self._kept()
            if any(number not in ("", "0") for number in req.headers.get(RETRY, ())):  # a first delivery says 0
                log.warning("payload.missed_before", kind=kind_of(body))
                self.missed("a payload was missed")
        await next()
        return None

    async def rest(self) -> None:
        """Wait until what is being kept is kept."""
        await asyncio.gather(*self._keeping, return_exceptions=True)

    async def answer_form(self, ack: Callable[..., Awaitable[Any]], body: dict[str, Any]) -> None:
        """Answer a sent form: its errors belong into the acknowledgement."""
        if errors := invalid_form(body):
            await ack(response_action="errors", errors=errors)
        else:
            await ack()

    async def open_form(self, body: dict[str, Any], client: AsyncWebClient, context: Any) -> None:
        """Open the form behind a button while its trigger lives; who may not answer is told by the worker."""
        intent = intent_of(body, self._desks.command)
        if context.get(DUPLICATE) or not isinstance(intent, OpenDeny | OpenDenyHold | OpenReview):
            return
        try:
            standing = await self._directory.standing(intent.source.team, intent.source.account, False)
            if not isinstance(standing, Member):
                return
            if isinstance(intent, OpenReview):
                view = await self._reviews.form(intent, standing.person)
            else:
                async with self._desks.open() as (desk, _):
                    view = await _deny_form(desk, intent, standing.person)
            if view is not None:
                check_payload(view)
                await client.views_open(trigger_id=str(body["trigger_id"]), view=view)
        except SlackApiError as error:
            log.warning("form.failed", error=str(error.response.get("error")))
        except Exception:  # the click is kept already, and the worker answers it; only the form does not open
            log.exception("form.failed")


async def _deny_form(desk: Desk, intent: OpenDeny | OpenDenyHold, person: str) -> dict[str, Any] | None:
    """Return the form for what a button belongs to; None where this person may not deny that now."""
    if isinstance(intent, OpenDeny):
        request = await desk.work.request_by_token(intent.token)
        if request is None or reviewing.why_not(desk.policy, request, person) is not None:
            return None
        scope = f"{request.role} on {request.resource} for {duration_of(request)}"
        return deny_view(intent.token, f"{name_of(desk.policy, request.requester)} asks for {scope}.")
    hold = await desk.work.hold_by_token(intent.token)
    grant = await desk.work.grant(hold.grant) if hold else None
    if hold is None or grant is None or holds.why_not(desk.policy, hold, grant, person, desk.now) is not None:
        return None
    what = f"{name_of(desk.policy, grant.person)} asks to run a statement that {does(hold)}"
    return deny_view(intent.token, f"{what}, under {grant.role} on {grant.resource}.", DENY_HOLD_VIEW)


def invalid_form(body: dict[str, Any]) -> dict[str, str]:
    """Return what is wrong with a sent form, by block; empty where nothing is."""
    return form_errors(body.get("view") or {})


async def acknowledge(ack: Callable[..., Awaitable[Any]]) -> None:
    """Acknowledge, and do nothing else: an exception right after would take the acknowledgement back."""
    await ack()


async def no_options(ack: Callable[..., Awaitable[Any]]) -> None:
    """Answer a menu that nothing here sends."""
    await ack(options=[])
