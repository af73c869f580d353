"""Decides what withdrawing an approved shape does, and what the broker's events about shapes mean for people."""

from __future__ import annotations

import re
from collections.abc import Mapping

from bot.asking import count_soon, mirror, tell, tell_at, to_thread
from bot.cards import moments, plain
from bot.intents import Withdraw
from bot.lines import line
from bot.model import Grant, Request, Shape
from bot.outgoing import Privately, WithdrawShape, shape_of
from bot.ports import Desk, Member, Refusal
from bot.request_words import name_of, names_of
from bot.reviewing import misplaced, not_known
from bot.text import one_line
from workflows.reviews import may_review
from workflows.shapes import TABLE, ShapeEvent, ShapeState
from workflows.wire import EventView

_ID = re.compile(r"shape-[A-Za-z0-9_-]{4,40}")


async def withdraw(desk: Desk, intent: Withdraw, member: Member, cause: str) -> None:
    """Withdraw a shape; whose access it is may, and those who may review the statement it was approved with."""
    shape = await desk.work.shape_by_token(intent.token)
    grant = await desk.work.grant(shape.grant) if shape else None
    problem: str | None = not_known("shape")
    if shape is not None and grant is not None:
        problem = await misplaced(desk, intent.source, shape_of(shape.id), "shape")
        problem = problem or await _why_not(desk, shape, grant, member.person)
    if shape is None or problem is not None:
        await tell(desk, intent.source, cause, plain(problem or ""))
        return
    source = intent.source
    place = Privately(source.account, source.channel, source.thread, source.reply_url)
    await desk.work.send(f"{cause}:withdraw", f"withdraw:{shape.id}", WithdrawShape(shape.id, member.person, place))


async def _why_not(desk: Desk, shape: Shape, grant: Grant, person: str) -> str | None:
    """Say why a person may not withdraw a shape now; None where they may."""
    if shape.state is not ShapeState.ACTIVE:
        return f"This shape was already withdrawn by {name_of(desk.policy, shape.withdrawn_by or '')}."
    if not grant.live:
        return f"The access is over ({grant.state.value}), and the shape with it."
    hold = await desk.work.hold(shape.hold)
    if person == grant.person or (
        hold is not None and may_review(desk.policy, hold.requirement, grant.person, person) is None
    ):
        return None
    return f"Only {name_of(desk.policy, grant.person)} and those who may review such statements can withdraw it."


async def not_withdrawn(desk: Desk, item: WithdrawShape, refusal: Refusal, cause: str) -> None:
    """Tell whoever wanted it why the broker did not withdraw a shape."""
    message = f"The broker did not withdraw the shape: {one_line(refusal.problem.message, 300).rstrip('.')}."
    await tell_at(desk, item.place, cause, plain(message))


async def apply_to_shapes(desk: Desk, grant: Grant, request: Request, event: EventView) -> bool:
    """Apply an event if it is one about a shape; say whether it was."""
    match event.type:
        case "shape.approved":
            await _approved(desk, grant, event)
        case "shape.refused":
            reason = str(event.data.get("reason") or "no reason was given")
            text = line("shape_refused", requester=name_of(desk.policy, grant.person), reason=reason)
            await to_thread(desk, request, f"event:{event.name}", text, mirrored=True)
        case "shape.withdrawn":
            await _withdrawn(desk, grant, request, event)
        case _:
            return False
    return True


async def _approved(desk: Desk, grant: Grant, event: EventView) -> None:
    data = event.data
    id, hold = str(data.get("shape") or ""), await desk.work.hold(str(data.get("hold") or ""))
    if not _ID.fullmatch(id) or hold is None or hold.grant != grant.id or await desk.work.shape(id) is not None:
        return
    most, by = data.get("most"), data.get("by")
    shape = Shape(
        id=id,
        token=desk.ids.token(),
        grant=grant.id,
        hold=hold.id,
        state=ShapeState.ACTIVE,
        people=tuple(str(person) for person in by) if isinstance(by, list | tuple) else (),
        approved_at=event.at,
        most=most if isinstance(most, int) and not isinstance(most, bool) else None,
    )
    await desk.work.add_shape(shape)
    await desk.work.want(shape_of(id), f"shape:{id}")
    await count_soon(desk, grant)
    by_whom = names_of(desk.policy, shape.people, "and") or "A reviewer"
    text = line("shape_approved", person=by_whom, until=grant.expires_at, since=grant.opened_at)
    await mirror(desk, grant.account, f"shape:{id}", text, spans=moments(text, grant.expires_at))


async def _withdrawn(desk: Desk, grant: Grant, request: Request, event: EventView) -> None:
    shape = await desk.work.shape(str(event.data.get("shape") or ""))
    if shape is None or shape.grant != grant.id or (shape.state, ShapeEvent.WITHDRAW) not in TABLE:
        return
    by = str(event.data.get("by") or "")
    await desk.work.move_shape(shape, ShapeEvent.WITHDRAW, withdrawn_by=by[:64])
    await desk.work.want(shape_of(shape.id), f"shape:{shape.id}")
    await count_soon(desk, grant)
    who, requester = name_of(desk.policy, by), name_of(desk.policy, grant.person)
    text = line("shape_withdrawn", person=who, requester=requester, shape=shape.id)
    await to_thread(desk, request, f"event:{event.name}", text, mirrored=True)


async def count_runs(desk: Desk, grant: Grant, rules: Mapping[str, int]) -> None:
    """Count statements that passed by an approved shape: so many by each rule."""
    for rule, runs in rules.items():
        if _ID.fullmatch(rule) and (shape := await desk.work.shape(rule)) and shape.grant == grant.id:
            await desk.work.change_shape(shape, runs=shape.runs + runs)


async def want_shapes(desk: Desk, grant: Grant) -> None:
    """Bring the messages up to date that say what was approved under a grant, and until when that is in force."""
    for shape in await desk.work.shapes_of(grant.id):
        await desk.work.want(shape_of(shape.id), f"shape:{shape.id}")
