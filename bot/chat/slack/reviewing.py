"""The forms that show all of a held statement to one who may answer it: to answer it, or to approve its shape too."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import structlog

from bot import holds
from bot.adapters.desks import Desks
from bot.cards import Code, Note, Paragraph, Part, say
from bot.chat.slack import limits
from bot.chat.slack.blocks import plain_text, rendered
from bot.chat.slack.views import CHOICE, REVIEW_VIEW, SHAPE_VIEW, reason_input
from bot.hold_card import does, is_redacted
from bot.hold_estimate import expected_words, sizes_words
from bot.hold_reading import form_parts
from bot.intents import OpenReview, OpenShape
from bot.model import Exhibit, Grant, Hold
from bot.ports import Broker, BrokerAway, Refusal
from bot.request_words import name_of
from bot.shape_card import shape_form_parts
from policies.engine.model import Policy
from workflows.holds import HoldState
from workflows.reviews import Answer
from workflows.wire import HoldView

log = structlog.get_logger()

SECONDS = 1.5
"""How long the broker may take: a trigger dies after three seconds."""
ROOM = 200_000
"""Bytes of a form, as JSON, that its blocks may take."""
AWAY = "The broker does not answer, so the statement cannot be shown now. Close this and press the button again."
NOT_THERE = "The broker does not show this statement, so it cannot be answered here."
NO_SHAPE = "Policy does not let the shape of this statement be approved by now, or it is too long to be shown here."
TOO_LONG = "This statement is too long to be shown whole here, so it cannot be approved; it can be denied."


class ReviewForms:
    """Makes the form for one person; the statement passes through and is written down nowhere."""

    def __init__(self, desks: Desks, broker: Broker) -> None:
        self._desks = desks
        self._broker = broker

    async def form(self, intent: OpenReview | OpenShape, person: str) -> dict[str, Any] | None:
        """Return the form; None where this person may not answer now, or the card itself shows the statement."""
        async with self._desks.open() as (desk, _):
            hold = await desk.work.hold_by_token(intent.token)
            grant = await desk.work.grant(hold.grant) if hold else None
            if hold is None or grant is None:
                return None
            hidden = is_redacted(desk.policy, grant.resource)
            if not hidden and isinstance(intent, OpenReview):
                return None
            if holds.why_not(desk.policy, hold, grant, person, desk.now) is not None:
                return None
            policy = desk.policy
        try:
            async with asyncio.timeout(SECONDS):
                view = await self._broker.hold(hold.id)
        except (BrokerAway, TimeoutError):
            return _message(AWAY)
        except Refusal as error:
            log.info("hold.not_shown", hold=hold.id, code=error.problem.code)
            return _message(NOT_THERE)
        if view.digest != hold.digest:
            return _message(NOT_THERE)
        if isinstance(intent, OpenShape):
            return await self._shape_form(policy, hold, grant, view, hidden)
        blocks = rendered(_parts(policy, hold, grant, view) or [])
        whole = _fits(blocks)
        await self._shown(hold, whole)
        if not whole:
            blocks = rendered([Paragraph(say(TOO_LONG))])
        return _form(hold, blocks, whole)

    async def _shape_form(
        self, policy: Policy, hold: Hold, grant: Grant, view: HoldView, hidden: bool
    ) -> dict[str, Any] | None:
        blocks = rendered(shape_form_parts(policy, hold, grant, view) or [])
        if view.shape is None or not _fits(blocks):
            return _message(NO_SHAPE)
        if hidden:
            await self._shown(hold, True)
        return {
            "type": "modal",
            "callback_id": SHAPE_VIEW,
            "private_metadata": f"{hold.token}:{hold.digest}:{view.shape.digest}",
            "title": plain_text("Approve this shape", limits.VIEW_TITLE),
            "submit": plain_text("Approve shape", limits.VIEW_TITLE),
            "close": plain_text("Not now", limits.VIEW_TITLE),
            "blocks": blocks,
        }

    async def _shown(self, hold: Hold, whole: bool) -> None:
        """Note, before the form is there, that a statement can be approved; a click may be faster than what follows."""

        async def note(desk: Any, work: Any) -> None:
            now = await work.hold(hold.id)
            wanted = Exhibit.FORM if whole else Exhibit.IMPOSSIBLE
            if now is not None and now.state is HoldState.WAITING and now.exhibit is not wanted:
                await work.change_hold(now, exhibit=wanted)

        await self._desks.settle(note)


def _fits(blocks: list[dict[str, Any]]) -> bool:
    return 0 < len(blocks) <= limits.VIEW_BLOCKS and len(json.dumps(blocks)) <= ROOM


def _parts(policy: Policy, hold: Hold, grant: Grant, view: HoldView) -> list[Part] | None:
    shown = form_parts(view)
    if shown is None:
        return None
    who = name_of(policy, grant.person)
    parts: list[Part] = [
        Paragraph(say(f"{who} asks to run this once, as {grant.role} on {grant.resource}. It {does(hold)}.")),
        *shown,
        Note(say(expected_words(view)[:1].upper() + expected_words(view)[1:] + ".")),
    ]
    if view.estimate is not None and view.estimate.relations:
        parts.append(Code(sizes_words(view.estimate)))
    return parts


def _form(hold: Hold, blocks: list[dict[str, Any]], whole: bool) -> dict[str, Any]:
    answers = ((Answer.APPROVE, "Approve: it runs once"), (Answer.DENY, "Deny: it does not run"))
    options = [
        {"text": plain_text(text, limits.BUTTON_TEXT), "value": answer.value}
        for answer, text in answers
        if whole or answer is Answer.DENY
    ]
    choice = {
        "type": "input",
        "block_id": CHOICE,
        "label": plain_text("Your answer", limits.INPUT_LABEL),
        "element": {"type": "radio_buttons", "action_id": CHOICE, "options": options},
    }
    reason = {**reason_input("Needed to deny. The requester and the thread will read it."), "optional": True}
    return {
        "type": "modal",
        "callback_id": REVIEW_VIEW,
        "private_metadata": f"{hold.token}:{hold.digest}",
        "title": plain_text("Review the statement", limits.VIEW_TITLE),
        "submit": plain_text("Answer", limits.VIEW_TITLE),
        "close": plain_text("Not now", limits.VIEW_TITLE),
        "blocks": [*blocks, choice, reason],
    }


def _message(text: str) -> dict[str, Any]:
    return {
        "type": "modal",
        "callback_id": "hold.unshown",
        "title": plain_text("Review the statement", limits.VIEW_TITLE),
        "close": plain_text("Close", limits.VIEW_TITLE),
        "blocks": [{"type": "section", "text": plain_text(text, limits.SECTION)}],
    }
