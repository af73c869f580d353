"""Opens forms while their trigger lives, and answers what must be answered in the acknowledgement of a form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import structlog
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot import drafts, holds, reviewing
from bot.adapters.desks import Desks
from bot.chat.slack.check import check_payload
from bot.chat.slack.forms import (
    ASK_VIEW,
    CHANGES_VIEW,
    PICK_RESOURCE,
    Place,
    ask_form,
    changes_form,
    draft_in,
    errors_in,
    place_in,
    resource_options,
)
from bot.chat.slack.payloads import picked, source_of
from bot.chat.slack.reviewing import ReviewForms
from bot.chat.slack.views import DENY_HOLD_VIEW, deny_view, form_errors
from bot.chat.slack.views import FORMS as ANSWERS
from bot.hold_card import does
from bot.intents import FORMS, Ask, Intent, OpenAsk, OpenChanges, OpenDeny, OpenDenyHold, OpenReview, OpenShape, Source
from bot.narrowing import Problem
from bot.ports import Desk, Directory, Member
from bot.request_words import name_of, wish_words
from policies.engine.decide import may_ask

log = structlog.get_logger()


class Opener:
    """Makes forms for whoever may have them; everybody else gets none, and is told why by the worker."""

    def __init__(self, desks: Desks, directory: Directory, reviews: ReviewForms) -> None:
        self._desks = desks
        self._directory = directory
        self._reviews = reviews

    async def open(self, intent: Intent, trigger: str, client: AsyncWebClient) -> bool:
        """Open the form that an intent wants; say whether it is open."""
        try:
            member = await self._member(intent.source)
            if member is None:
                return False
            if isinstance(intent, OpenReview | OpenShape):
                view = await self._reviews.form(intent, member.person)
            else:
                async with self._desks.open() as (desk, _):
                    view = await _form(desk, intent, member.person)
            if view is None:
                return False
            check_payload(view)
            await client.views_open(trigger_id=trigger, view=view)
        except SlackApiError as error:
            log.warning("form.failed", error=str(error.response.get("error")))
            return False
        except Exception:  # the click is kept already, and the worker answers it; only the form does not open
            log.exception("form.failed")
            return False
        return True

    async def choose(self, body: dict[str, Any], client: AsyncWebClient) -> None:
        """Show in an open form what depends on the choice that was made in it."""
        view = body.get("view")
        try:
            member = await self._member(source_of(body))
            if member is None or not isinstance(view, dict) or view.get("callback_id") != ASK_VIEW:
                return
            policy, draft = self._desks.policies.current, draft_in(view)
            if not may_ask(policy, member.person):
                return  # a policy that changed meanwhile offers nothing; sending the form says so
            if picked(body) == PICK_RESOURCE:
                draft = replace(draft, role="")  # what was chosen on another resource is not chosen on this one
            form = ask_form(policy, member.person, drafts.fitted(policy, member.person, draft), place_in(view))
            check_payload(form)
            # The hash: of two choices made at once, the later form must not be overwritten by the earlier one.
            await client.views_update(view_id=str(view["id"]), hash=str(view["hash"]), view=form)
        except SlackApiError as error:
            log.info("form.not_updated", error=str(error.response.get("error")))
        except Exception:  # the form stays as it was; sending it says what is wrong
            log.exception("form.failed")

    async def options(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the options of the menu of resources, for what was typed into it."""
        member = await self._member(source_of(body))
        typed = body.get("value")
        if member is None:
            return []
        return resource_options(self._desks.policies.current, member.person, typed if isinstance(typed, str) else "")

    async def errors(self, body: dict[str, Any]) -> dict[str, str]:
        """Return what is wrong with a sent form, by block; empty where nothing is, or where the worker says it."""
        view = body.get("view")
        if not isinstance(view, dict):
            return {}
        policy = self._desks.policies.current
        person = policy.person_by_slack(source_of(body).account)
        match view.get("callback_id"):
            case kind if kind in ANSWERS:
                return form_errors(view)
            case "access.ask" if person is not None:
                return errors_in(view, drafts.problems(policy, person, draft_in(view)))
            case "request.changes" if person is not None:
                return await self._changes_errors(view, person)
        return {}

    async def _changes_errors(self, view: dict[str, Any], person: str) -> dict[str, str]:
        async with self._desks.open() as (desk, work):
            request = await work.request_by_token(str(view.get("private_metadata")))
            if request is None or reviewing.why_not(desk.policy, request, person) is not None:
                return {}
            draft = draft_in(view)
            found = (await reviewing.scene_of(desk, request, person)).read(draft.role, draft.duration)
        return errors_in(view, {found.field: found.text}) if isinstance(found, Problem) else {}

    async def _member(self, source: Source) -> Member | None:
        standing = await self._directory.standing(source.team, source.account, False)
        return standing if isinstance(standing, Member) else None


def may_want_form(intent: Intent) -> bool:
    """Say whether an intent is answered by a form, as far as its words tell."""
    return isinstance(intent, FORMS) or (
        isinstance(intent, Ask) and None in (intent.resource, intent.role, intent.duration)
    )


def _place(source: Source) -> Place:
    return Place(source.channel, source.reply_url)


async def _form(desk: Desk, intent: Intent, person: str) -> dict[str, Any] | None:
    """Return the form for what somebody did; None where it is not for this person now."""
    match intent:
        case Ask() if drafts.wants_form(desk.policy, person, intent):
            return ask_form(desk.policy, person, drafts.draft_of(desk.policy, person, intent), _place(intent.source))
        case OpenAsk(ask=ask) if may_ask(desk.policy, person):
            return ask_form(desk.policy, person, drafts.draft_of(desk.policy, person, ask), _place(intent.source))
        case OpenDeny() | OpenChanges():
            return await _review_form(desk, intent, person)
        case OpenDenyHold():
            return await _hold_form(desk, intent, person)
        case _:
            return None


async def _review_form(desk: Desk, intent: OpenDeny | OpenChanges, person: str) -> dict[str, Any] | None:
    request = await desk.work.request_by_token(intent.token)
    if request is None or reviewing.why_not(desk.policy, request, person) is not None:
        return None
    if isinstance(intent, OpenChanges):
        return changes_form(await reviewing.scene_of(desk, request, person))
    return deny_view(intent.token, f"{name_of(desk.policy, request.requester)} asks for {wish_words(request)}.")


async def _hold_form(desk: Desk, intent: OpenDenyHold, person: str) -> dict[str, Any] | None:
    hold = await desk.work.hold_by_token(intent.token)
    grant = await desk.work.grant(hold.grant) if hold else None
    if hold is None or grant is None or holds.why_not(desk.policy, hold, grant, person, desk.now) is not None:
        return None
    what = f"{name_of(desk.policy, grant.person)} asks to run a statement that {does(hold)}"
    return deny_view(intent.token, f"{what}, under {grant.role} on {grant.resource}.", DENY_HOLD_VIEW)


SENT = (ASK_VIEW, CHANGES_VIEW, *ANSWERS)
"""Forms whose errors belong into the acknowledgement."""
