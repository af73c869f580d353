"""The card of an access request, made from the database: facts, who may answer and why, what the policy will do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import assert_never

from bot import cards
from bot.cards import (
    Button,
    Buttons,
    Card,
    Confirm,
    Fact,
    Facts,
    Heading,
    Mention,
    Moment,
    Note,
    Paragraph,
    Part,
    Quote,
    Spans,
    Words,
    clock,
    moments,
    say,
)
from bot.model import Given, Grant, Request, approvers
from bot.policy_words import effect_words, masked_words
from bot.request_words import (
    because_words,
    duration_of,
    ending_words,
    given_words,
    missing_words,
    name_of,
    names_of,
    requirement_words,
    subject_of,
    unanswered_words,
    wish_words,
)
from bot.text import clip, excerpt, length, one_line
from policies.engine.decide import decide_access
from policies.engine.decisions import Deny
from policies.engine.durations import format_duration
from policies.engine.model import Policy
from workflows.requests import RequestState
from workflows.reviews import Answer, Missing, reviewers, tally
from workflows.terms import Terms

ROWS_SHOWN = 12
MENTIONED = 10
CONFIRM_ROOM = 300
"""Characters that a dialog has."""
LEFT = "The requester's account was deactivated, so the request is closed."


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """Everything a card is made from."""

    request: Request
    reviews: Sequence[Given]
    grant: Grant | None
    policy: Policy
    now: datetime


def request_card(facts: RequestFacts) -> Card:
    """Make the card for the state a request is in."""
    request = facts.request
    status, status_text = _status(facts)
    who = name_of(facts.policy, request.requester)
    asked = f"{who} asks for {wish_words(request)}"
    kind = "Access request" if request.extends is None else "Extension"
    parts: list[Part] = [
        Heading(f"{kind}: {request.resource} ({_shown_terms(request).role})"),
        Facts(tuple(_facts(facts))),
        *_reason(request),
        *_policy_words(facts),
        Paragraph(status),
        *_small_print(facts),
    ]
    if request.state is RequestState.PENDING:
        if request.extends is not None:
            parts.append(Paragraph(_mentions(facts)))
        parts.append(_buttons(facts))
    elif may_ask_again(request, facts.grant):
        parts.append(Buttons((again_button(request),)))
    return Card(f"{asked}. {status_text}", tuple(parts))


def _shown_terms(request: Request) -> Terms:
    """Return what a card is about: what was asked for, and once it is decided what was given."""
    return request.terms if request.state is RequestState.APPROVED else request.asked


def _mentions(facts: RequestFacts) -> Spans:
    """Mention who may answer: a reply in a thread notifies nobody by itself."""
    request, policy = facts.request, facts.policy
    people = reviewers(policy, request.requirement, request.requester)
    accounts = [account for person in people if (account := policy.people[person].slack)]
    spans = [span for account in accounts[:MENTIONED] for span in (Words(" "), Mention(account))]
    return say("May be answered by", *spans) if spans else say("Nobody is left who may answer.")


def _facts(facts: RequestFacts) -> list[Fact]:
    request, policy = facts.request, facts.policy
    resource = policy.resources.get(request.resource)
    about = _shown_terms(request)
    role = resource.roles.get(about.role) if resource else None
    listed = [
        Fact("Requester", say(Mention(request.account))),
        Fact("Resource", _described(request.resource, resource.description if resource else "")),
        Fact("Role", _role(request, role.description if role else "")),
        Fact("Duration", _duration(facts)),
    ]
    if any(given.terms for given in facts.reviews):
        listed.append(Fact("Approved", say("\n".join(_approvals(facts)))))
    if request.narrowed:
        listed.append(Fact("Gives", say(Words(given_words(request, request.narrowed), bold=True))))
    if request.requirement.needs:
        words = requirement_words(policy, request.requirement.needs, request.requester)
        listed.append(Fact("Policy needs", say(words)))
    else:
        listed.append(Fact("Policy needs", say("nobody: the policy allows this at once")))
    if request.state is RequestState.PENDING:
        listed.append(Fact("Expires if unanswered", say(Moment(request.expires_at))))
    elif facts.grant and facts.grant.live:
        listed.append(Fact("Open until", say(Moment(facts.grant.expires_at))))
    return listed


def _role(request: Request, description: str) -> Spans:
    given = _shown_terms(request).role
    spans = _described(given, description)
    return spans if given == request.role else (*spans, Words(f"\n{request.role} was asked for"))


def _duration(facts: RequestFacts) -> Spans:
    request, grant = facts.request, facts.grant
    if request.extends is None:
        given = format_duration(timedelta(seconds=_shown_terms(request).seconds))
        asked = "" if given == duration_of(request) else f"; {duration_of(request)} was asked for"
        return say(f"{given} from when access opens{asked}")
    end = request.until
    if end is None and grant is not None and grant.live:
        end = grant.expires_at + timedelta(seconds=_shown_terms(request).seconds)
    about = _shown_terms(request)
    given = given_words(request, about)
    asked = "" if about == request.asked else f"; {duration_of(request)} more was asked for"
    return say(f"{given}, until ", Moment(end), asked) if end else say(f"{given}{asked}")


def _approvals(facts: RequestFacts) -> list[str]:
    """Return what each reviewer approved, a row each."""
    approved = [given for given in facts.reviews if given.answer is Answer.APPROVE]
    shown = ((one.person, given_words(facts.request, one.terms) if one.terms else "as asked") for one in approved)
    rows = [f"{name_of(facts.policy, person)}: {terms}" for person, terms in islice(shown, ROWS_SHOWN)]
    left = len(approved) - len(rows)
    return [*rows, f"and {left} more"] if left else rows


def _described(name: str, description: str) -> Spans:
    return say(Words(name, bold=True), f"\n{one_line(description)}") if description else say(Words(name, bold=True))


def _reason(request: Request) -> list[Part]:
    if not request.reason:
        return [Note(say("No reason was given."))]
    shown, remark = excerpt(request.reason)
    parts: list[Part] = [Paragraph(say(Words("Reason", bold=True))), Quote(shown)]
    if remark:
        parts.append(Note(say(f"The reason is {remark}; the broker's record has all of it.")))
    return parts


def _policy_words(facts: RequestFacts) -> list[Part]:
    request = facts.request
    if request.extends is not None:
        return []  # the card above in the thread says it
    if request.resource not in facts.policy.resources:
        return [Note(say("The policy does not have this resource any more."))]
    lines: list[Spans] = []
    if masked := masked_words(facts.policy, request.requester, request.resource, request.terms.role):
        lines.append(say(Words("Masked: ", bold=True), masked))
    refused, asked = effect_words(facts.policy, request.requester, request.resource, request.terms.role)
    if asked:
        lines.append(say(Words("Needs a reviewer each time: ", bold=True), asked))
    if refused:
        lines.append(say(Words("Blocked: ", bold=True), refused))
    return [Paragraph(line) for line in lines]


def _status(facts: RequestFacts) -> tuple[Spans, str]:
    """Return how things stand, for the card and as plain text."""
    request, policy = facts.request, facts.policy
    by = name_of(policy, request.decided_by) if request.decided_by else "the policy"
    match request.state:
        case RequestState.PENDING:
            text = _waiting(facts)
        case RequestState.DENIED:
            shown, _ = excerpt(request.answer or "")
            text = f"Denied by {by}: {shown}"
        case RequestState.CANCELLED:
            text = f"Cancelled: {request.note}" if request.note else f"Cancelled by {by}{because_words(request.answer)}"
        case RequestState.EXPIRED:
            why = unanswered_words(policy, request.requirement, approvers(facts.reviews))
            text = f"Expired: {why}. {name_of(policy, request.requester)} may ask again."
        case RequestState.APPROVED:
            return _granted(facts)
        case _:
            assert_never(request.state)
    return say(Words(text, bold=True)), text


def standing_words(facts: RequestFacts, limit: int) -> Spans:
    """Say in one sentence or two how things stand."""
    ends = facts.grant.expires_at if facts.grant else None
    return moments(clip(_status(facts)[1], limit), facts.request.until, ends)


def _waiting(facts: RequestFacts) -> str:
    request, policy = facts.request, facts.policy
    count = tally(policy, request.requirement, request.requester, [given.review() for given in facts.reviews])
    note = f"{request.note} " if request.note else ""
    if not isinstance(count, Missing):
        return f"{note}Approve again to try once more."
    waiting = f"{note}{missing_words(policy, count, request.requester)}"
    return f"It would give {given_words(request, request.narrowed)}. {waiting}" if request.narrowed else waiting


def _granted(facts: RequestFacts) -> tuple[Spans, str]:
    request, policy, grant = facts.request, facts.policy, facts.grant
    people = approvers(facts.reviews)
    by = f"Approved by {names_of(policy, people, 'and')}" if people else "Allowed by the policy"
    if request.narrowed:
        by = f"{by}, {given_words(request, request.narrowed)}"
    if request.extends is not None:
        return _extension(facts, by)
    if grant is None:
        text = f"{by}. {request.note or 'The broker is opening the access.'}"
        return say(Words(text, bold=True)), text
    if grant.live:
        text = f"{by}; open until {clock(grant.expires_at, grant.opened_at)}."
        spans = say(Words(f"{by}", bold=True), "; open until ", Moment(grant.expires_at), ".")
        return spans, text
    text = f"{by}. {ending_words(policy, grant)}"
    return say(Words(text, bold=True)), text


def _extension(facts: RequestFacts, by: str) -> tuple[Spans, str]:
    """Say what became of an approved extension; what becomes of its grant is on the grant's own card."""
    request = facts.request
    if request.until is None:
        text = f"{by}. {request.note or 'The broker is moving the end.'}"
        return say(Words(text, bold=True)), text
    if facts.grant is not None and not facts.grant.live:
        text = f"{by}; the access was extended, and is over: {ending_words(facts.policy, facts.grant)}"
        return say(Words(text, bold=True)), text
    spans = say(Words(by, bold=True), "; the access was extended until ", Moment(request.until), ".")
    return spans, f"{by}; the access was extended until {clock(request.until, request.asked_at)}."


def _small_print(facts: RequestFacts) -> list[Part]:
    request, policy = facts.request, facts.policy
    groups = dict.fromkeys(group for need in request.requirement.needs for group in need.groups)
    why = [f"{group}: {one_line(policy.groups[group])}" for group in groups if policy.groups.get(group)]
    rules = ", ".join(_rules(facts))
    return [
        Note(
            say(
                *(f"{text}. " for text in why),
                f"Request {request.id}, asked ",
                Moment(request.asked_at),
                f", rule {rules}.",
            )
        )
    ]


def _rules(facts: RequestFacts) -> tuple[str, ...]:
    """Return the rules by which a request was filed; of one that was given less, those that give it."""
    request, given = facts.request, _shown_terms(facts.request)
    if given == request.asked or request.extends is not None:
        return request.rules
    length_ = timedelta(seconds=given.seconds)
    decision = decide_access(facts.policy, request.requester, request.resource, given.role, length_)
    return request.rules if isinstance(decision, Deny) else decision.rules


def _buttons(facts: RequestFacts) -> Buttons:
    request = facts.request
    who = name_of(facts.policy, request.requester)
    given = format_duration(timedelta(seconds=request.terms.seconds))
    scope = f"{request.terms.role} on {request.resource} for {given}"
    if request.extends is not None:
        scope = f"{given} more of {request.role} on {request.resource}"
    cancel = Button(
        cards.CANCEL,
        "Cancel",
        request.token,
        confirm=Confirm(
            "Cancel this request?", f"Only {who} can. Nobody will be able to approve it.", "Cancel it", "Keep it"
        ),
        label=f"Cancel the request of {who}",
    )
    if not request.requirement.needs:
        return Buttons((cancel,))
    asked = f"Approve {request.terms.role} on {request.resource}?" if request.extends is None else "Approve more time?"
    gives = f"{who} gets {scope}{', from the moment the broker opens it' if request.extends is None else ''}."
    if (left := _still_needed(facts)) > 1:
        gives += f" Yours is one of {left} approvals that it still needs."
    if request.narrowed:
        # The dialog is the same for everybody, and who approved less may approve all of it after all.
        gives += f" Whoever approved less before now approves {given_words(request, request.asked)}."
    gives = with_reason(gives, request.reason)
    approve = approve_button(cards.APPROVE, request.token, asked, gives, f"{scope} for {who}")
    label = clip(f"Approve less than {scope} for {who}", 75)
    changes = Button(cards.CHANGES, "Approve with changes…", request.token, label=label)
    return Buttons((approve, changes, deny_button(cards.DENY, request.token, f"{who} {scope}"), cancel))


def _still_needed(facts: RequestFacts) -> int:
    """Return how many approvals are missing, the next one among them."""
    request = facts.request
    reviews = [given.review() for given in facts.reviews]
    count = tally(facts.policy, request.requirement, request.requester, reviews)
    return sum(need.count for need in count.needs) if isinstance(count, Missing) else 0


def approve_button(action: str, token: str, question: str, consequence: str, what: str) -> Button:
    """Return a button that approves, once what follows from it has been read."""
    confirm = Confirm(clip(question, 100), clip(consequence, CONFIRM_ROOM), "Approve", "Not now", "primary")
    return Button(action, "Approve", token, style="primary", confirm=confirm, label=clip(f"Approve {what}", 75))


def with_reason(sentence: str, reason: str) -> str:
    """Return what somebody is about to confirm, and why it was asked for; the reason is cut, never the sentence."""
    room = CONFIRM_ROOM - length(sentence) - len("\nReason: ")
    if not reason.strip() or room < 20:
        return clip(f"{sentence} No reason was given." if not reason.strip() else sentence, CONFIRM_ROOM)
    return f"{sentence}\nReason: {one_line(reason, room)}"


def deny_button(action: str, token: str, what: str) -> Button:
    """Return a button that opens the form for a denial."""
    return Button(action, "Deny…", token, style="danger", label=clip(f"Deny {what}, with a reason", 75))


def again_button(request: Request) -> Button:
    """Return the button that asks once more for the same."""
    return Button(cards.AGAIN, "Ask again", request.token, label=clip(f"Ask again for {subject_of(request)}", 75))


def may_ask_again(request: Request, grant: Grant | None) -> bool:
    """Say whether asking again is of use: nobody said no, the requester is there, what it extends is open."""
    return (
        request.state in (RequestState.EXPIRED, RequestState.CANCELLED)
        and request.note != LEFT
        and (request.extends is None or (grant is not None and grant.live))
    )
