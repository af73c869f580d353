"""Decides what the broker's events mean for people: lines in threads, counters, summaries, ends of grants."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from bot.asking import count_soon, mirror, to_thread
from bot.cards import (
    Buttons,
    Card,
    Code,
    Note,
    Paragraph,
    moments,
    plain,
    say,
)
from bot.extensions import TOO_LATE, want_offers
from bot.grant_cards import ask_again_button
from bot.hold_card import held_words
from bot.hold_estimate import rows_words
from bot.hold_events import apply_to_holds
from bot.lines import line
from bot.model import Grant, Request, approvers
from bot.ordering import BOT, Extended, Opened, extended, opened, refused
from bot.outgoing import EndGrant, PostTranscript, Say, ToPerson, card_of, counter_of, refusals_of, ticket_of
from bot.ports import Desk, Refusal
from bot.request_words import ending_words, name_of, names_of, subject_of
from bot.reviewing import withdraw
from bot.shape_card import shapes_words
from bot.shapes import apply_to_shapes, count_runs, want_shapes
from bot.text import excerpt, one_line
from workflows.grants import GrantEvent
from workflows.requests import RequestState
from workflows.wire import FOLDED, EventView, Problem
from workflows.words import CLOSED, REFUSED

DENIALS_SHOWN = 25
REFUSALS_SHOWN = 5
REFUSALS_PACE = timedelta(seconds=10)
MASKED_KEPT = 200
UNKNOWN = "the bot's records do not have the request that this was given for; ask again"
UPSTREAM_DOWN = "upstream down"
"""What the broker refuses a connection with once `upstream.failed` has said the same to people."""
_MOVES = {
    "grant.ended": (GrantEvent.END, "by"),
    "grant.expired": (GrantEvent.EXPIRE, ""),
    "grant.revoked": (GrantEvent.REVOKE, "by"),
}


async def apply(desk: Desk, events: Sequence[EventView]) -> None:
    """Apply events in order, in one transaction."""
    for event in events:
        if event.type == "grant.opened":
            await _opened(desk, event)
        elif event.type == "grant.refused":
            await _refused(desk, event)
        elif event.type == "upstream.failed":
            await _upstream_failed(desk, event)
        elif event.type == FOLDED:
            await _folded(desk, event)
        elif event.grant is not None and (grant := await desk.work.grant(event.grant)) is not None:
            await _apply_to_grant(desk, grant, event)


async def _opened(desk: Desk, event: EventView) -> None:
    if event.grant is None:
        return
    until = datetime.fromisoformat(str(event.data["expires_at"]))
    since = datetime.fromisoformat(str(event.data.get("opened_at") or event.at.isoformat()))
    if until > desk.now and await desk.work.request(str(event.data["request"])) is None:
        await _end_unknown(desk, event.grant, event.data)
        return
    await opened(desk, Opened(event.grant, str(event.data["request"]), str(event.data["order"]), since, until))


async def _end_unknown(desk: Desk, grant: str, data: dict[str, Any]) -> None:
    """End what the bot's own records, put back, do not have: nobody would see what is done under it."""
    person = desk.policy.people.get(str(data.get("person")))
    account = (person.slack if person else None) or ""
    await desk.work.send(f"unknown:{grant}", f"end:{grant}", EndGrant(grant, BOT, account, True, UNKNOWN))
    if account:
        role, resource = (one_line(str(data.get(key)), 60) for key in ("role", "resource"))
        text = f"Your {role} on {resource} is over: the bot's records were put back to a time before it."
        told = plain(f"{text} Ask for it anew: `{desk.command} {resource} {role}`")
        await desk.work.send(f"unknown:{grant}:told", f"person:{account}", Say(ToPerson(account), told))


async def _refused(desk: Desk, event: EventView) -> None:
    problem = Problem(code="refused", message=str(event.data.get("reason", "no reason was given")))
    await refused(desk, str(event.data["request"]), str(event.data["order"]), Refusal(422, problem))


async def _apply_to_grant(desk: Desk, grant: Grant, event: EventView) -> None:
    request = await desk.work.request(grant.request)
    if request is None or (grant.closed_at is not None and event.at <= grant.closed_at):
        # What is told of a closed grant was told: the feed is being read again.
        return
    if await apply_to_holds(desk, grant, request, event) or await apply_to_shapes(desk, grant, request, event):
        return
    if event.type in _MOVES:
        await _over(desk, grant, request, event)
    elif event.type in _STEPS:
        await _STEPS[event.type](desk, grant, request, event)


async def _over(desk: Desk, grant: Grant, request: Request, event: EventView) -> None:
    if not grant.live:
        return
    move, key = _MOVES[event.type]
    by = str(event.data.get(key) or "") if key else ""
    why = str(event.data.get("reason") or "").removeprefix("policy: ") if key else ""
    ended_by = by if by in desk.policy.people else None
    await desk.work.move_grant(grant, move, ended_by=ended_by, ended_because=why or None)
    await desk.work.want(card_of(request.id), f"card:{request.id}")
    await desk.work.want(counter_of(grant.id), f"thread:{request.id}")
    await desk.work.want(ticket_of(grant.id), f"ticket:{grant.id}")
    if await desk.work.shown(refusals_of(grant.id)) is not None:
        await desk.work.want(refusals_of(grant.id), refusals_of(grant.id))
    await want_offers(desk, grant, grant.expires_at)
    for extension in await desk.work.extensions_of(grant.id):
        if extension.state is RequestState.PENDING:
            await withdraw(desk, extension, None, f"event:{event.name}", TOO_LATE)
            await _tell_too_late(desk, grant, extension)
    await _show_extensions(desk, grant)
    await want_shapes(desk, grant)
    if move is GrantEvent.REVOKE and by not in (grant.person, BOT):
        await _tell_revoked(desk, grant, event, by, why)


async def _tell_too_late(desk: Desk, grant: Grant, extension: Request) -> None:
    """Tell whoever asked for more time that nobody answered: they were told to wait for a direct message."""
    text = f"Your request for {subject_of(extension)} is closed. {TOO_LATE}"
    card = plain(text, Buttons((ask_again_button(grant),)))
    await desk.work.send(f"late:{extension.id}", f"person:{grant.account}", Say(ToPerson(grant.account), card))


async def _show_extensions(desk: Desk, grant: Grant) -> None:
    """Bring the cards up to date that said until when the access was extended."""
    for extension in await desk.work.extensions_of(grant.id):
        if extension.until is not None:
            await desk.work.want(card_of(extension.id), f"card:{extension.id}")


async def _tell_revoked(desk: Desk, grant: Grant, event: EventView, by: str, reason: str) -> None:
    """Tell whoever had the access in a message of its own: an edit of the one with the line notifies nobody."""
    who = name_of(desk.policy, by) if by in desk.policy.people else f"The {by or 'broker'}"
    text = line("revoked", by=who, role=grant.role, resource=grant.resource, at=event.at, reason=reason)
    card = Card(text, (Paragraph(moments(text, event.at)),))
    await desk.work.send(f"revoked:{grant.id}", f"person:{grant.account}", Say(ToPerson(grant.account), card))


async def _extended(desk: Desk, grant: Grant, request: Request, event: EventView) -> None:
    until = datetime.fromisoformat(str(event.data["expires_at"]))
    await extended(desk, Extended(grant.id, str(event.data.get("request") or ""), until))


async def _session_opened(desk: Desk, grant: Grant, request: Request, event: EventView) -> None:
    first = grant.sessions == 0
    await desk.work.change_grant(
        grant, sessions=grant.sessions + 1, open_sessions=grant.open_sessions + 1, down_since=None
    )
    if grant.down_since is not None:
        await to_thread(
            desk, request, f"back:{event.name}", line("upstream_back", resource=grant.resource), mirrored=True
        )
    if first:
        application = str(event.data.get("application") or "")
        who = name_of(desk.policy, grant.person)
        text = line("session_opened", person=who, resource=grant.resource, role=grant.role, application=application)
        await to_thread(desk, request, f"event:{event.name}", text)
    await count_soon(desk, grant)


async def _session_refused(desk: Desk, grant: Grant, request: Request, event: EventView) -> None:
    reason = str(event.data.get("reason") or "no reason was given")
    words, address = one_line(REFUSED.get(reason, reason), 300), one_line(str(event.data.get("address") or ""), 60)
    told = f"{words} (from {address})" if address else words
    few = grant.refused < REFUSALS_SHOWN
    grant = await desk.work.change_grant(grant, refused=grant.refused + 1, refusal=told, refused_at=event.at)
    if not grant.live:
        # psql comes back by itself once: recorded and counted, and nothing for anybody to look into.
        return
    who = name_of(desk.policy, grant.person)
    if few and reason != UPSTREAM_DOWN:
        text = line("session_refused", person=who, reason=told)
        await to_thread(desk, request, f"event:{event.name}", text, mirrored=True)
    elif reason != UPSTREAM_DOWN:
        await _refused_on(desk, grant, who)
    await count_soon(desk, grant)


async def _refused_on(desk: Desk, grant: Grant, who: str) -> None:
    """Say once more that connections are refused, and go on counting there: a line for each would be a flood."""
    message = refusals_of(grant.id)
    if await desk.work.shown(message) is not None:
        await desk.work.want(message, message, desk.now + REFUSALS_PACE)
        return
    # Behind the lines that came before it.
    await desk.work.want(message, f"thread:{grant.request}")
    text = line("refusals_many", person=who, reason=grant.refusal, which=f"{grant.role} on {grant.resource}")
    await mirror(desk, grant.account, message, text)


async def _session_closed(desk: Desk, grant: Grant, request: Request, event: EventView) -> None:
    unsure = f"unverified:{event.session}"
    facts = {"person": name_of(desk.policy, grant.person), "resource": grant.resource}
    if event.session and await desk.work.count_sent(unsure):
        # It was counted when it was closed; this is the reaper, which has found it gone.
        if event.data.get("verified") is True:
            await to_thread(desk, request, f"gone:{event.session}", line("session_gone", **facts), mirrored=True)
        return
    await desk.work.change_grant(grant, open_sessions=max(grant.open_sessions - 1, 0))
    if event.data.get("verified") is False:
        code = str(event.data.get("reason") or "")
        text = line("session_unverified", **facts, reason=CLOSED.get(code, code or "its end was not seen"))
        await to_thread(desk, request, unsure if event.session else f"event:{event.name}", text, mirrored=True)
    await count_soon(desk, grant)


async def _folded(desk: Desk, event: EventView) -> None:
    """Count statements that merely ran, told together."""
    told = event.data.get("grants")
    for id, share in told.items() if isinstance(told, dict) else ():
        if (grant := await desk.work.grant(str(id))) is not None and isinstance(share, dict):
            rules = share.get("rules")
            runs = {str(rule): _number(rules, rule, 0) for rule in rules} if isinstance(rules, dict) else {}
            await _count(desk, grant, _number(share, "statements", 0), _names(share.get("masked")), runs)


async def _count(desk: Desk, grant: Grant, statements: int, masked: list[str], rules: dict[str, int]) -> None:
    await count_runs(desk, grant, rules)
    fields = tuple(dict.fromkeys((*grant.masked, *masked)))[:MASKED_KEPT]
    await desk.work.change_grant(grant, statements=grant.statements + statements, masked=fields)
    await count_soon(desk, grant)


async def _statement_allowed(desk: Desk, grant: Grant, request: Request, event: EventView) -> None:
    rules = dict.fromkeys(_names(event.data.get("rules")), 1)
    await _count(desk, grant, 1, _names(event.data.get("masked")), rules)
    if revealed := _names(event.data.get("revealed")):
        who = name_of(desk.policy, grant.person)
        text = line("statement_revealed", requester=who, fields=tuple(revealed)[:MASKED_KEPT])
        await to_thread(desk, request, f"event:{event.name}", text, mirrored=True)


async def _statement_denied(desk: Desk, grant: Grant, request: Request, event: EventView) -> None:
    mistyped, held = event.data.get("mistyped") is True, bool(event.data.get("hold"))
    await desk.work.change_grant(
        grant, statements=grant.statements + 1, denied=grant.denied + (not held), mistyped=grant.mistyped + mistyped
    )
    # A slip of the keyboard is only counted: it must not use up the room of what somebody should see. What is refused
    # until it is reviewed has a card that says so.
    if not (mistyped or held) and grant.blocked < DENIALS_SHOWN:
        text, parts = blocked(event.data)
        await to_thread(desk, request, f"event:{event.name}", text, *parts, mirrored=True)
    elif not (mistyped or held) and grant.blocked == DENIALS_SHOWN:
        await to_thread(desk, request, f"event:{event.name}", line("denials_many"), mirrored=True)
    await count_soon(desk, grant)


async def _statement_counted(desk: Desk, grant: Grant, request: Request, event: EventView) -> None:
    """Say that a change was rolled back, for it touched more than it might."""
    if event.data.get("kept") is not False:
        return
    rows, most = (rows_words(found) if (found := _number(event.data, key, 0)) else None for key in ("rows", "most"))
    text = line("statement_undone", requester=name_of(desk.policy, grant.person), rows=rows, most=most)
    await to_thread(desk, request, f"event:{event.name}", text, mirrored=True)


def blocked(data: dict[str, Any]) -> tuple[str, list[Paragraph | Code | Note]]:
    """Word a blocked statement: the rule and the message, then its redacted text."""
    rules = _names(data.get("rules")) or ["unknown"]
    message = str(data.get("message") or "the policy does not allow it").rstrip(".")
    text = line("statement_denied", message=message, hint=data.get("hint"), rules=rules)
    shown, remark = excerpt(str(data.get("text") or ""), 1200)
    parts: list[Paragraph | Code | Note] = [Code(shown)] if shown.strip() else []
    if remark:
        parts.append(Note(say(f"The statement is {remark}; the transcript has all of it.")))
    return text, parts


async def _closed(desk: Desk, grant: Grant, request: Request, event: EventView) -> None:
    data = event.data
    if grant.closed_at is not None:
        return
    if grant.live:
        # The broker says how it ended in an event of its own, before this one; a feed without it still closes.
        grant = await desk.work.move_grant(grant, GrantEvent.EXPIRE)
    head = data.get("recording")
    recording = head.get("hash") if isinstance(head, dict) else head
    grant = await desk.work.change_grant(
        grant,
        closed_at=event.at,
        open_sessions=0,
        sessions=_number(data, "sessions", grant.sessions),
        statements=_number(data, "statements", grant.statements),
        denied=_number(data, "denied", grant.denied),
        masked=tuple(_names(data.get("masked")) or grant.masked)[:MASKED_KEPT],
        verified=data.get("verified") is True,
        recording=str(recording) if recording else None,
    )
    revealed, searched = (tuple(_names(data.get(key)))[:MASKED_KEPT] for key in ("revealed", "searched"))
    text = await _summary(desk, grant, request, revealed, searched)
    await to_thread(desk, request, f"summary:{grant.id}", text)
    await mirror(desk, grant.account, f"summary:{grant.id}", text)
    if grant.recording and grant.sessions:
        lane = f"thread:{request.id}"
        await desk.work.send(f"transcript:{grant.id}:text", lane, PostTranscript(grant.id, "text"))
        await desk.work.send(f"transcript:{grant.id}:json", lane, PostTranscript(grant.id, "json"))
        told = PostTranscript(grant.id, "text", grant.account)
        await desk.work.send(f"transcript:{grant.id}:told", f"person:{grant.account}", told)
    await desk.work.want(card_of(request.id), f"card:{request.id}")
    await desk.work.want(counter_of(grant.id), f"counter:{grant.id}")
    await desk.work.want(ticket_of(grant.id), f"ticket:{grant.id}")
    await want_offers(desk, grant, grant.expires_at)
    await _show_extensions(desk, grant)


async def _summary(
    desk: Desk, grant: Grant, request: Request, revealed: tuple[str, ...], searched: tuple[str, ...]
) -> str:
    people = approvers(await desk.work.reviews(request.id))
    holds = await desk.work.holds_of(grant.id)
    ended_at = min(grant.closed_at or desk.now, grant.expires_at)
    return line(
        "summary",
        person=name_of(desk.policy, grant.person),
        role=grant.role,
        resource=grant.resource,
        seconds=max(round((ended_at - grant.opened_at).total_seconds()), 1),
        approvers=names_of(desk.policy, people, "and"),
        ending=ending_words(desk.policy, grant),
        sessions=grant.sessions,
        statements=grant.statements,
        blocked=grant.blocked,
        mistyped=grant.mistyped,
        masked=grant.masked,
        revealed=revealed,
        searched=searched,
        held=held_words(desk.policy, holds),
        shapes=shapes_words(desk.policy, await desk.work.shapes_of(grant.id)),
    )


async def _upstream_failed(desk: Desk, event: EventView) -> None:
    """Say once a minute, in the threads that it concerns, that a resource does not answer."""
    resource = str(event.data.get("resource") or "")
    named = await desk.work.grant(event.grant) if event.grant else None
    for grant in [named] if named else await desk.work.live_grants(resource=resource):
        request = await desk.work.request(grant.request)
        if request is not None:
            text = line("upstream_failed", resource=resource, reason=one_line(str(event.data.get("reason") or "")))
            await to_thread(desk, request, f"upstream:{grant.id}:{event.at:%Y%m%d%H%M}", text, mirrored=True)
            await desk.work.change_grant(grant, down_since=grant.down_since or event.at)


def _number(data: dict[str, Any], key: str, otherwise: int) -> int:
    value = data.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise


def _names(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list | tuple) else []


_Step = Callable[[Desk, Grant, Request, EventView], Awaitable[None]]
_STEPS: dict[str, _Step] = {
    "session.opened": _session_opened,
    "session.refused": _session_refused,
    "session.closed": _session_closed,
    "statement.allowed": _statement_allowed,
    "statement.denied": _statement_denied,
    "statement.counted": _statement_counted,
    "grant.extended": _extended,
    "grant.closed": _closed,
}
