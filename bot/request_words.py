"""How requests are worded: who people are, what is asked for, whose answer is missing, and how access ended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import assert_never

from bot.model import Grant, Request
from bot.text import one_line
from policies.engine.decisions import Need, Requirement
from policies.engine.durations import format_duration
from policies.engine.model import Policy
from workflows.grants import GrantState
from workflows.reviews import Missing, reviewers
from workflows.terms import Terms
from workflows.words import series

NAMES_SHOWN = 6
REASON_KEPT = 500
"""Characters of why access is ended; it goes to the broker in an address, and is told whole."""


def name_of(policy: Policy, person: str) -> str:
    """Return a person's name as one safe line; the handle where the policy does not know them any more."""
    found = policy.people.get(person)
    return one_line(found.name, 60) if found else person


def names_of(policy: Policy, people: Sequence[str], joint: str = "or") -> str:
    """Return names as `Bob or Dana`; the rest of a long list is counted."""
    names = [name_of(policy, person) for person in people]
    if len(names) > NAMES_SHOWN:
        names = [*names[:NAMES_SHOWN], f"{len(names) - NAMES_SHOWN} more"]
    return series(names, joint)


def duration_of(request: Request) -> str:
    """Return how long a request is for, the way people write it."""
    return format_duration(timedelta(seconds=request.seconds))


def subject_of(request: Request) -> str:
    """Return what a request is for, as `read on prod-db`, or `15m more of read on prod-db`."""
    what = f"{request.role} on {request.resource}"
    return what if request.extends is None else f"{duration_of(request)} more of {what}"


def wish_words(request: Request) -> str:
    """Return what a request is for and for how long, as `read on prod-db for 30m`."""
    return subject_of(request) if request.extends else f"{subject_of(request)} for {duration_of(request)}"


def terms_words(terms: Terms) -> str:
    """Return terms as `read for 15m`."""
    return f"{terms.role} for {format_duration(timedelta(seconds=terms.seconds))}"


def given_words(request: Request, terms: Terms) -> str:
    """Return what was approved of a request; of an extension, only its time differs."""
    more = f"{format_duration(timedelta(seconds=terms.seconds))} more"
    return terms_words(terms) if request.extends is None else more


def which_words(request: Request) -> str:
    """Name a request in its thread; an extension is not the request that the thread is about."""
    return "the request" if request.extends is None else f"the request for {duration_of(request)} more"


def need_words(policy: Policy, need: Need, requester: str, approved: Sequence[str] = ()) -> str:
    """Return one need as `1 of dbas: Bob or Dana`, without those who have approved: one person fills one place."""
    people = [one for one in reviewers(policy, Requirement((need,)), requester) if one not in approved]
    return f"{need}: {names_of(policy, people) or 'nobody is left who may'}"


def requirement_words(policy: Policy, needs: Sequence[Need], requester: str, approved: Sequence[str] = ()) -> str:
    """Return needs in words, with who may fill them."""
    return "; and ".join(need_words(policy, need, requester, approved) for need in needs)


def missing_words(policy: Policy, count: Missing, requester: str) -> str:
    """Say who has approved so far, and whose approval is missing."""
    needed = requirement_words(policy, count.needs, requester, count.by)
    if not count.by:
        return f"Waiting for {needed}."
    return f"Approved by {names_of(policy, count.by, 'and')} so far. Still waiting for {needed}."


def unanswered_words(policy: Policy, requirement: Requirement, approvers: Sequence[str]) -> str:
    """Say that time ran out, without passing over those of several who did approve; they may not be known here."""
    if approvers:
        return f"{names_of(policy, approvers, 'and')} approved, but not everybody who was needed answered in time"
    several = sum(need.count for need in requirement.needs) > 1
    return f"{'not everybody who was needed' if several else 'nobody'} answered in time"


def ending_words(policy: Policy, grant: Grant) -> str:
    """Say how a grant ended, and whether its sessions are verified gone."""
    by = f" by {name_of(policy, grant.ended_by)}" if grant.ended_by else ""
    match grant.state:
        case GrantState.ENDED:
            text = f"Ended{by}{because_words(grant.ended_because)}"
        case GrantState.REVOKED:
            text = f"Revoked{by}{because_words(grant.ended_because)}"
        case GrantState.EXPIRED:
            text = "The time is over."
        case GrantState.REFUSED:
            text = "The broker refused it."
        case GrantState.OPENING | GrantState.ACTIVE:
            return "Access is open."
        case _:
            assert_never(grant.state)
    if grant.closed_at is None:
        return f"{text} Its sessions are being cut."
    return f"{text} {verified_words(grant)}"


def because_words(reason: str | None) -> str:
    """Return the end of a sentence: a person's reason on one line, where there is one."""
    return f": {one_line(reason, REASON_KEPT).rstrip('.')}." if reason else "."


def verified_words(grant: Grant) -> str:
    """Say what is known of the work a grant left upstream."""
    if grant.verified is False:
        return "The broker could not verify that its sessions are gone."
    return "Its sessions are verified gone." if grant.sessions else "No session was opened."
