"""The card of a held statement: all of what would run, what it does, who may let it, what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import assert_never

from bot import cards
from bot.cards import (
    Buttons,
    Card,
    Fact,
    Facts,
    Mention,
    MessageLink,
    Moment,
    Note,
    Paragraph,
    Part,
    Span,
    Spans,
    Words,
    clock,
    moments,
    say,
)
from bot.hold_estimate import bound_words, expected_words, has_locks, listed_words, locks_words, sizes_words
from bot.hold_reading import redacted_parts, statement_parts
from bot.model import Exhibit, Given, Grant, Hold, approvers
from bot.outgoing import hold_of
from bot.request_card import CONFIRM_ROOM, approve_button, deny_button
from bot.request_words import missing_words, name_of, names_of, requirement_words, unanswered_words
from bot.statement_text import read
from bot.text import clip, excerpt, length, one_line
from policies.engine.durations import format_duration
from policies.engine.model import Policy
from workflows.holds import HoldState
from workflows.reviews import Met, Missing, Refused, reviewers, tally
from workflows.wire import HoldView

MENTIONED = 20
RELATIONS_SHOWN = 8
_DOES = {
    "read": "reads",
    "write": "changes",
    "ddl": "changes the schema of",
    "session": "changes settings of its session",
    "admin": "administers the server",
}
_WITH_RELATIONS = ("read", "write", "ddl")
_GIVEN_UP = {
    "client": "{who} left",
    "cancelled": "{who} cancelled it",
    "crowded": "{who} has sent too many others since",
    "expired": "the access ran out",
    "revoked": "the access was revoked",
    "ended": "the access was ended",
    "policy": "the policy changed meanwhile",
    "schema": "what it names was changed meanwhile",
    "shutdown": "the broker stopped",
    "upstream": "the resource went away",
    "error": "its session failed",
}

_RAN = {
    "": "ran once",
    "failed": "ran once and failed",
    "rolled_back": "ran once; its transaction was rolled back",
    "not_run": "but not run: what its session sent before it failed, or it was closed first",
    "unknown": "sent once; its session ended before anybody heard what became of it",
}


@dataclass(frozen=True, slots=True)
class HoldFacts:
    """Everything a card is made from; `view` is what the broker says now, None where it does not answer any more."""

    hold: Hold
    reviews: Sequence[Given]
    grant: Grant
    view: HoldView | None
    policy: Policy

    @property
    def waiting(self) -> bool:
        return self.hold.state is HoldState.WAITING and self.hold.answered is None and self.grant.live


def hold_card(facts: HoldFacts) -> Card:
    """Make the card for the state a hold is in."""
    hold, grant = facts.hold, facts.grant
    who = name_of(facts.policy, grant.person)
    status = hold_words(facts.policy, hold, grant.person, facts.reviews)
    asked = f"{who} asks to run a statement that {does(hold)}, under {grant.role} on {grant.resource}"
    # What would run comes first, and what it takes room from is what stands below it.
    parts: list[Part] = [
        Paragraph(_asked(facts)),
        *_statement(facts),
        Paragraph(_status(facts, status)),
        Facts(tuple(_facts(facts))),
        _small_print(facts),
    ]
    if facts.waiting:
        parts.append(_buttons(facts))
    return Card(f"{asked}. {status}", tuple(parts))


def does(hold: Hold) -> str:
    """Say what a statement does, and to what: `changes public.orders`."""
    effects = [effect for effect in _DOES if effect in hold.effects]
    named = [one_line(name, 80) for name in hold.relations]
    if len(named) > RELATIONS_SHOWN:
        named = [*named[:RELATIONS_SHOWN], f"{len(named) - RELATIONS_SHOWN} more"]
    on = " and ".join(_DOES[effect] for effect in effects if effect in _WITH_RELATIONS)
    words = [f"{on} {', '.join(named) or 'no relation'}"] if on else []
    words += [_DOES[effect] for effect in effects if effect not in _WITH_RELATIONS]
    return " and ".join(words) or "does what the broker did not name"


def hold_words(policy: Policy, hold: Hold, requester: str, reviews: Sequence[Given]) -> str:
    """Say in a sentence how a hold stands, or what became of it."""
    by = names_of(policy, hold.people, "and")
    match hold.state:
        case HoldState.WAITING:
            return _waiting(policy, hold, requester, reviews)
        case HoldState.RELEASED:
            until = f"it may run once until {clock(hold.expires_at)}"
            return f"Approved by {by or 'its reviewers'}; it has not run yet, {until}."
        case HoldState.CONSUMED:
            return f"Approved by {by or 'its reviewers'}, {_RAN.get(hold.reason or '', _RAN['unknown'])}."
        case HoldState.REFUSED:
            shown, _ = excerpt(hold.reason or "no reason was given")
            return f"Denied by {by or 'a reviewer'}: {shown}"
        case HoldState.TIMED_OUT if by:
            return f"Approved by {by}, but not used in time, so it did not run."
        case HoldState.TIMED_OUT:
            text = unanswered_words(policy, hold.requirement, approvers(reviews))
            return f"{text[:1].upper()}{text[1:]}, so it did not run."
        case HoldState.ABANDONED:
            why = _GIVEN_UP.get(hold.reason or "", "nobody waits for it any more")
            approved = f" It had been approved by {by}." if by else ""
            return (
                f"Given up: {why.format(who=name_of(policy, requester))}. It did not run; nobody denied it.{approved}"
            )
        case _:
            assert_never(hold.state)


def _waiting(policy: Policy, hold: Hold, requester: str, reviews: Sequence[Given]) -> str:
    count = tally(policy, hold.requirement, requester, [given.review() for given in reviews])
    note = f" {hold.note}" if hold.note else ""
    match count:
        case Met(by=people):
            return f"Approved by {names_of(policy, people, 'and')}.{note or ' The broker is told.'}"
        case Refused(by=person):
            return f"Denied by {name_of(policy, person)}.{note or ' The broker is told.'}"
        case Missing():
            shaped = [one.person for one in reviews if one.shape is not None and one.person in count.by]
            also = f" {names_of(policy, shaped, 'and')} approved its shape too." if shaped else ""
            return f"{missing_words(policy, count, requester)}{also}{note}"
        case _:
            assert_never(count)


def held_spans(policy: Policy, grant: Grant, hold: Hold) -> Spans:
    """Say to whoever sent it that a statement waits, and for whom; its card is one click away."""
    whom = requirement_words(policy, hold.requirement.needs, grant.person)
    link = MessageLink(hold_of(hold.id), f"A statement that {does(hold)}")
    return say(link, f" waits for {whom}, until ", Moment(hold.expires_at), ".")


def held_words(policy: Policy, holds: Sequence[Hold]) -> str:
    """Sum holds up for a counter: `3 held: 1 approved by Bob, 1 denied by Dana, 1 given up`."""
    counts: dict[str, int] = {}
    for hold in holds:
        by = names_of(policy, hold.people, "and")
        match hold.state:
            case HoldState.WAITING:
                what = "waiting"
            case HoldState.RELEASED | HoldState.CONSUMED:
                what = f"approved by {by}" if by else "approved"
            case HoldState.REFUSED:
                what = f"denied by {by}" if by else "denied"
            case HoldState.TIMED_OUT:
                what = "not used in time" if by else "unanswered"
            case HoldState.ABANDONED:
                what = "given up"
            case _:
                assert_never(hold.state)
        counts[what] = counts.get(what, 0) + 1
    listed = clip(", ".join(f"{number} {what}" for what, number in counts.items()), 600)
    return f"{len(holds)} held: {listed}" if holds else ""


def _asked(facts: HoldFacts) -> tuple[Span, ...]:
    """Return the one line above the statement: who wants to run it, and where."""
    grant = facts.grant
    where = Words(f"{grant.role} on {grant.resource}", bold=True)
    if facts.waiting:
        return say(Mention(grant.account), " asks to run this, once, as ", where)
    return say(Words(name_of(facts.policy, grant.person), bold=True), " asked to run this, once, as ", where)


def _facts(facts: HoldFacts) -> list[Fact]:
    hold = facts.hold
    what = clip(does(hold), 600)
    listed = [Fact("What it does", say(what))]
    if facts.view is not None and facts.view.reveals:
        listed.append(Fact("Reveals", say(f"{revealed_words(facts.view.reveals)}, in clear")))
    if facts.view is not None and facts.view.digest == hold.digest and (facts.view.estimate or facts.waiting):
        listed.append(Fact("Estimate", say(expected_words(facts.view))))
        if facts.view.estimate is not None and facts.view.estimate.relations:
            listed.append(Fact("Size", say(sizes_words(facts.view.estimate))))
        if facts.view.estimate is not None and facts.view.estimate.cascades:
            listed.append(Fact("Cascade", say(listed_words(facts.view.estimate.cascades))))
        if facts.view.estimate is not None and facts.view.estimate.triggers:
            listed.append(Fact("Triggers", say(listed_words(facts.view.estimate.triggers))))
        if facts.view.most is not None:
            listed.append(Fact("May touch", say(bound_words(facts.view.most, facts.view))))
    if facts.waiting:
        listed.append(Fact("Waits until", say(Moment(hold.expires_at), f"\n{_meanwhile(facts)}")))
    return listed


def revealed_words(fields: Sequence[str]) -> str:
    """Name the fields that would come in clear."""
    return clip(", ".join(one_line(field, 120) for field in fields), 600)


def _meanwhile(facts: HoldFacts) -> str:
    hold, view = facts.hold, facts.view
    if view is not None and not view.waits:
        return "It was refused at once; once approved, the same statement may run, once, within ten minutes."
    limit = format_duration(timedelta(seconds=round((hold.expires_at - hold.opened_at).total_seconds())))
    if view is not None and view.in_transaction and not has_locks(view):
        return f"It waits in an open transaction that has locked no table yet, for at most {limit}."
    if view is not None and view.in_transaction:
        locks = locks_words(view)
        kept = f" Locks: {locks}, and those on rows it changed." if locks else ""
        return f"It waits in an open transaction, for at most {limit}: locks are held.{kept}"
    return f"The session waits, for at most {limit}; no transaction is open."


def _statement(facts: HoldFacts) -> list[Part]:
    show = redacted_parts if is_redacted(facts.policy, facts.grant.resource) else statement_parts
    return show(facts.view, facts.hold, facts.waiting)


def is_redacted(policy: Policy, resource: str) -> bool:
    """Say whether a resource's cards show statements without their values; also of one that is gone (fail closed)."""
    found = policy.resources.get(resource)
    return found is None or found.show == "redacted"


def _status(facts: HoldFacts, status: str) -> tuple[Span, ...]:
    """Return how things stand; who may answer is mentioned, because a reply alone notifies nobody."""
    spans = list(moments(status, facts.hold.expires_at, bold=True))
    if facts.waiting:
        answered = {given.person for given in facts.reviews}
        people = reviewers(facts.policy, facts.hold.requirement, facts.grant.person)
        accounts = [facts.policy.people[one].slack for one in people if one not in answered]
        for account in [account for account in accounts if account][:MENTIONED]:
            spans += [Words(" "), Mention(account)]
    return tuple(spans)


def _small_print(facts: HoldFacts) -> Part:
    hold = facts.hold
    rules = ", ".join(one_line(rule, 60) for rule in hold.rules[:10]) or "unknown"
    return Note(say(f"Hold {hold.id}, session {hold.session}, since ", Moment(hold.opened_at), f", rule {rules}."))


def approvable(facts: HoldFacts) -> bool:
    """Say whether all of the statement can be read now, which approving it demands."""
    view, hold = facts.view, facts.hold
    if not facts.waiting or view is None or view.digest != hold.digest:
        return False
    return hold.exhibit is Exhibit.FILE or read(view).fits


def _buttons(facts: HoldFacts) -> Buttons:
    hold, grant = facts.hold, facts.grant
    who = name_of(facts.policy, grant.person)
    if is_redacted(facts.policy, grant.resource):
        label = clip(f"Read all of {who}'s statement on {grant.resource}, and answer", 75)
        review = cards.Button(cards.REVIEW_HOLD, "Review…", hold.token, style="primary", label=label)
        return Buttons((review, *_shape(facts, who)))
    deny = deny_button(cards.DENY_HOLD, hold.token, f"{who}'s statement")
    if not approvable(facts):
        return Buttons((deny,))
    asked = f"Let it run on {grant.resource}?"
    what = f"{who}'s statement on {grant.resource}, once"
    approve = approve_button(cards.APPROVE_HOLD, hold.token, asked, _runs(facts, who), what)
    return Buttons((approve, *_shape(facts, who), deny))


def _shape(facts: HoldFacts, who: str) -> list[cards.Button]:
    """Return the button to approve more than this run, where policy offers that."""
    if facts.view is None or facts.view.shape is None:
        return []
    label = clip(f"Approve the shape of {who}'s statement on {facts.grant.resource}", 75)
    return [cards.Button(cards.SHAPE_HOLD, "Approve this shape…", facts.hold.token, label=label)]


def _runs(facts: HoldFacts, who: str) -> str:
    """Say what an approval lets run: how the statement begins, and the digest that tells it from any other."""
    hold, grant, view = facts.hold, facts.grant, facts.view
    if view is None:
        return ""  # what is not there is not offered for approval
    count = len(view.parameters)
    given = f", with {count} parameter{'' if count == 1 else 's'}" if count else ""
    if view.reveals:
        given += f", and sees {clip(revealed_words(view.reveals), 80)} in clear"
    does_run = "runs this once" if view.waits else "may run this once, within ten minutes"
    runs = f"{who} {does_run}, as {grant.role} on {grant.resource}{given}. Digest {hold.digest[:12]}."
    return f"{runs}\n{one_line(read(view).text, max(CONFIRM_ROOM - length(runs) - 1, 20))}"
