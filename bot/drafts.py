"""Drafts: what of an ask can be put into a form, and the choices that a form offers to one person."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from bot import cards
from bot.cards import Button
from bot.intents import Ask
from bot.text import LINES_SHOWN, REASON_SHOWN, excerpt, length, reveal
from policies.engine.decide import Terms as Offered
from policies.engine.decide import decide_access, may_ask
from policies.engine.decisions import Deny
from policies.engine.durations import DurationUnreadable, format_duration, parse_duration
from policies.engine.model import Policy
from workflows.words import counted

USUAL = tuple(timedelta(minutes=minutes) for minutes in (15, 30, 60, 120, 240, 480, 1440, 4320, 10080))
"""Durations that people choose; a form offers those that policy gives, and the longest that it gives."""
RESOURCE, ROLE, DURATION, REASON = "resource", "role", "duration", "reason"


@dataclass(frozen=True, slots=True)
class Draft:
    """What a form starts with; empty is nothing. `resource` and `role` are names that this person may ask for."""

    resource: str = ""
    role: str = ""
    duration: str = ""
    reason: str = ""


def draft_of(policy: Policy, person: str, ask: Ask) -> Draft:
    """Return what a form starts with: what is right, the nearest name for what is not, nothing for what has none."""
    offered = may_ask(policy, person)
    names = [term.resource for term in offered]
    if ask.role in names and ask.resource not in names:
        ask = replace(ask, resource=ask.role, role=ask.resource)  # the one in the other's place
    resource = _near(ask.resource or "", names)
    role = _near(ask.role or "", roles_of(offered, resource))
    draft = Draft(resource, role, "", ask.reason or ask.extra)
    try:
        return replace(draft, duration=format_duration(parse_duration(ask.duration or "")))
    except DurationUnreadable as error:
        return replace(draft, duration=error.meant)


def fitted(policy: Policy, person: str, draft: Draft) -> Draft:
    """Return a draft without what does not go with its resource and role any more."""
    offered = may_ask(policy, person)
    role = draft.role if draft.role in roles_of(offered, draft.resource) else ""
    try:
        fits = parse_duration(draft.duration) <= limit_of(offered, draft.resource, role)
    except DurationUnreadable:
        fits = True  # it is shown as it was typed
    return replace(draft, role=role, duration=draft.duration if fits else "")


def wants_form(policy: Policy, person: str, ask: Ask) -> bool:
    """Say whether a form answers an ask: nothing in it is wrong, something is missing, and there is something to ask
    for."""
    if ask.extra or None not in (ask.resource, ask.role, ask.duration):
        return False
    offered = may_ask(policy, person)
    if not offered or ask.resource not in (None, *(term.resource for term in offered)):
        return False
    return ask.role in (None, *roles_of(offered, ask.resource or ""))


def problems(policy: Policy, person: str, draft: Draft) -> dict[str, str]:
    """Return what keeps a sent form from being a request, by field; empty where nothing does."""
    offered = may_ask(policy, person)
    if draft.resource not in {term.resource for term in offered}:
        return {RESOURCE: "Choose one that you may ask for."}
    if draft.role not in roles_of(offered, draft.resource):
        return {ROLE: "Choose one of these."} if draft.role else {RESOURCE: "Choose a role on it as well."}
    if not draft.duration:
        return {DURATION: "Choose how long, or type it below."}
    try:
        duration = parse_duration(draft.duration)
    except DurationUnreadable as error:
        return {DURATION: f"{str(error)[:1].upper()}{str(error)[1:]}".replace("`", "")}
    decision = decide_access(policy, person, draft.resource, draft.role, duration)
    if isinstance(decision, Deny):
        return {DURATION: f"{decision.message[:1].upper()}{decision.message[1:]}."}
    problem = too_long(draft.reason)
    return {REASON: f"{problem[:1].upper()}{problem[1:]}"} if problem else {}


def too_long(reason: str) -> str:
    """Refuse a reason that the card would cut: reviewers approve what they see, so all of it must be there."""
    if not excerpt(reason)[1]:
        return ""
    shown = reveal(reason)
    has = f"{counted(length(shown), 'character')} and {counted(shown.count(chr(10)) + 1, 'line')}"
    return (
        f"reviewers must see all of a reason, and a card shows {REASON_SHOWN:,} characters and {LINES_SHOWN} lines of "
        f"it; this one has {has}. Say it shorter, or say where the rest can be read."
    )


def roles_of(offered: Sequence[Offered], resource: str) -> list[str]:
    """Return the roles that are offered on a resource."""
    return [term.role for term in offered if term.resource == resource]


def limit_of(offered: Sequence[Offered], resource: str, role: str) -> timedelta:
    """Return the longest that is offered; of any role where none is chosen yet."""
    fitting = [t.max_duration for t in offered if t.resource == resource and role in ("", t.role)]
    return max(fitting, default=timedelta())


def durations_to(limit: timedelta) -> list[str]:
    """Return the durations to choose from, up to a limit."""
    usual = [one for one in USUAL if one < limit]
    return [format_duration(one) for one in (*usual, limit)] if limit >= timedelta(minutes=1) else []


def new_button() -> Button:
    """Return the button that opens the form with nothing in it yet."""
    return replace(form_button(Draft()), text="New request", label="Ask for access")


def form_button(draft: Draft) -> Button:
    """Return the button that opens the form with a draft; the platform's renderer writes the draft into it."""
    values = (draft.resource, draft.role, draft.duration, draft.reason)
    return Button(cards.ASK, "Open the form", cards.packed(values), label="Open the form, filled in so far")


def _near(typed: str, names: Sequence[str]) -> str:
    if typed in names:
        return typed
    return next(iter(difflib.get_close_matches(typed[:63].lower(), dict.fromkeys(names), n=1)), "") if typed else ""
