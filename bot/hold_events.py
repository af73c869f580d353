"""Decides what the broker's events about holds mean for people: a card to answer, then what became of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bot.asking import count_soon, mirror, to_thread
from bot.cards import MessageLink, Spans, Words, moments, say
from bot.hold_card import does, hold_words
from bot.lines import line
from bot.model import Given, Grant, Hold, Request, approvers
from bot.ordering import needs_from
from bot.outgoing import hold_of
from bot.ports import Desk
from bot.request_words import name_of, names_of, requirement_words, unanswered_words
from policies.engine.decisions import Requirement
from workflows.holds import TABLE, HoldEvent, HoldState
from workflows.wire import EventView

_ID = re.compile(r"[A-Za-z0-9_-]{4,64}")
LISTED = 100
_MOVES = {
    "hold.released": HoldEvent.RELEASE,
    "hold.consumed": HoldEvent.CONSUME,
    "hold.refused": HoldEvent.REFUSE,
    "hold.timed_out": HoldEvent.TIME_OUT,
    "hold.abandoned": HoldEvent.ABANDON,
}


@dataclass(frozen=True, slots=True)
class _Scene:
    """What an event of a hold is about."""

    hold: Hold
    grant: Grant
    request: Request


async def apply_to_holds(desk: Desk, grant: Grant, request: Request, event: EventView) -> bool:
    """Apply an event if it is one about a hold; say whether it was."""
    if event.type == "hold.opened":
        await _opened(desk, grant, request, event)
    elif event.type == "hold.estimated":
        await _estimated(desk, grant, event)
    elif event.type == "hold.prolonged":
        await _prolonged(desk, grant, event)
    elif event.type == "hold.undone":
        await _undone(desk, grant, event)
    elif event.type in _MOVES:
        await _moved(desk, grant, request, event)
    else:
        return False
    return True


async def _opened(desk: Desk, grant: Grant, request: Request, event: EventView) -> None:
    data = event.data
    id = str(data.get("hold") or "")
    if not _ID.fullmatch(id) or await desk.work.hold(id) is not None:
        return
    hold = Hold(
        id=id,
        token=desk.ids.token(),
        grant=grant.id,
        session=str(event.session or "")[:64],
        digest=str(data.get("digest") or "")[:64],
        state=HoldState.WAITING,
        requirement=Requirement(needs_from(data.get("needs") or ())),
        rules=_names(data.get("rules")),
        effects=_names(data.get("effects")),
        relations=_names(data.get("relations")),
        opened_at=event.at,
        expires_at=datetime.fromisoformat(str(data["expires_at"])),
    )
    await desk.work.add_hold(hold)
    await desk.work.want(hold_of(id), f"hold:{id}")
    await count_soon(desk, grant)
    waits = requirement_words(desk.policy, hold.requirement.needs, grant.person)
    how = "waits for" if data.get("waits", True) else "was refused for now, and may run once after a review by"
    await _mirror(desk, _Scene(hold, grant, request), f"Your statement that {does(hold)} {how} {waits}.")


async def _estimated(desk: Desk, grant: Grant, event: EventView) -> None:
    """Bring the card up to date: what the upstream says of the statement is fetched with its text."""
    hold = await desk.work.hold(str(event.data.get("hold") or ""))
    if hold is not None and hold.grant == grant.id and hold.state is HoldState.WAITING:
        await desk.work.want(hold_of(hold.id), f"hold:{hold.id}")


async def _prolonged(desk: Desk, grant: Grant, event: EventView) -> None:
    """Have the card say until when a statement waits, or may run, since its access was extended."""
    hold = await desk.work.hold(str(event.data.get("hold") or ""))
    if hold is not None and hold.grant == grant.id and hold.state in (HoldState.WAITING, HoldState.RELEASED):
        await desk.work.change_hold(hold, expires_at=datetime.fromisoformat(str(event.data["expires_at"])))
        await desk.work.want(hold_of(hold.id), f"hold:{hold.id}")


async def _undone(desk: Desk, grant: Grant, event: EventView) -> None:
    """Have the card say that what ran is not kept."""
    hold = await desk.work.hold(str(event.data.get("hold") or ""))
    if hold is not None and hold.grant == grant.id and hold.state is HoldState.CONSUMED:
        await desk.work.change_hold(hold, reason=str(event.data.get("outcome") or "unknown"))
        await desk.work.want(hold_of(hold.id), f"hold:{hold.id}")


async def _moved(desk: Desk, grant: Grant, request: Request, event: EventView) -> None:
    hold = await desk.work.hold(str(event.data.get("hold") or ""))
    move = _MOVES[event.type]
    if hold is None or (hold.state, move) not in TABLE or hold.grant != grant.id:
        return
    changes: dict[str, Any] = {"note": None}
    if move in (HoldEvent.RELEASE, HoldEvent.REFUSE):
        changes["people"] = _names(event.data.get("by"))
    if move in (HoldEvent.REFUSE, HoldEvent.ABANDON):
        changes["reason"] = str(event.data.get("reason") or "") or None
    if move is HoldEvent.RELEASE and (until := event.data.get("expires_at")) is not None:
        changes["expires_at"] = datetime.fromisoformat(str(until))
    hold = await desk.work.move_hold(hold, move, **changes)
    if move is HoldEvent.REFUSE:
        # As the broker's own summary counts it.
        grant = await desk.work.change_grant(grant, statements=grant.statements + 1, denied=grant.denied + 1)
    await desk.work.want(hold_of(hold.id), f"hold:{hold.id}")
    await count_soon(desk, grant)
    await _say_so(desk, _Scene(hold, grant, request), move, bool(event.data.get("waits", True)))


async def _say_so(desk: Desk, scene: _Scene, move: HoldEvent, waits: bool) -> None:
    """Put a line into the thread where people waited for this: an edited card notifies nobody."""
    hold, grant = scene.hold, scene.grant
    requester = name_of(desk.policy, grant.person)
    by = names_of(desk.policy, hold.people, "and") or "A reviewer"
    reviews: Sequence[Given] = ()
    match move:
        case HoldEvent.RELEASE:
            text = line("hold_released", person=by, requester=requester, until=None if waits else hold.expires_at)
        case HoldEvent.REFUSE:
            text = line("hold_refused", person=by, requester=requester, reason=hold.reason or "no reason was given")
        case HoldEvent.TIME_OUT:
            reviews = await desk.work.hold_reviews(hold)
            why = unanswered_words(desk.policy, hold.requirement, approvers(reviews))
            text = line("hold_timed_out", people=hold.people, why=why, requester=requester)
        case HoldEvent.CONSUME | HoldEvent.ABANDON:
            return
    await to_thread(
        desk, scene.request, f"hold:{hold.id}:{hold.state.value}", text, spans=_linked(text, hold, requester)
    )
    told = hold_words(desk.policy, hold, grant.person, reviews)
    if move is HoldEvent.RELEASE and waits:
        told = f"Approved by {by}; it runs now."
    await _mirror(desk, scene, f"Your statement that {does(hold)}: {told}")


def _linked(text: str, hold: Hold, requester: str) -> Spans:
    """Have a line of the thread lead to the card of the statement that it is about: several may wait at once."""
    named, spans = f"statement of {requester}", _timed(text, hold)
    for index, span in enumerate(spans):
        if isinstance(span, Words) and named in span.text:
            before, _, behind = span.text.partition(named)
            link = MessageLink(hold_of(hold.id), named)
            return (*spans[:index], *say(before, link, behind), *spans[index + 1 :])
    return spans


async def _mirror(desk: Desk, scene: _Scene, text: str) -> None:
    """Tell the requester as well, in words for them."""
    key = f"hold:{scene.hold.id}:{scene.hold.state.value}"
    await mirror(desk, scene.grant.account, key, text, spans=_timed(text, scene.hold))


def _timed(text: str, hold: Hold) -> Spans:
    # Elsewhere a time is a person's own words.
    return moments(text, hold.expires_at if hold.state is HoldState.RELEASED else None)


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(str(item) for item in value)[:LISTED] if isinstance(value, list | tuple) else ()
