"""What a plan goes through before it may be sent: the planner's estimate, its ration, its review, and its record."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from datetime import timedelta
from typing import Any

from broker.protocols.postgres import bounding, records
from broker.protocols.postgres.events import Command, Record, Weigh
from broker.protocols.postgres.explaining import Question, question
from broker.protocols.postgres.holding import Cleared, Reviewed, about, match, narrowest, rechecking, review, unasked
from broker.protocols.postgres.plan import Plan, Planning, weighed
from broker.protocols.postgres.registry import Portal
from broker.protocols.postgres.ruling import Denied, Ruling, shown_text
from broker.protocols.postgres.settings import current, otherwise, reading
from broker.protocols.postgres.shared import Session
from broker.sessions.holds import Asked
from broker.sessions.model import Durability
from policies.engine.durations import format_duration

LATE = 0.25
"""Seconds beyond which what was decided is decided anew before it is sent: with how old its catalogue may have been by
then, they make the second within which a change of the schema counts."""


def clear(
    session: Session, plan: Plan, asked: Asked, again: Callable[[], Planning], portal: Portal | None
) -> Generator[Command, Any, Reviewed]:
    """Have a plan reviewed where policy asks, and recorded; `again` decides anew what was asked."""
    decided = session.now
    if plan.ruling.consults:
        settings = yield from current(session)
        if settings is None:
            return unasked(session)
        if portal is not None and (
            reading(portal.prepared.settings) != reading(settings) or portal.asked.settings not in ((), settings)
        ):
            return otherwise
        asked = replace(asked, settings=settings)
        if portal is not None:
            portal.asked = asked
    estimated = yield from _weighed(plan, asked)
    if isinstance(estimated, Denied):
        return estimated
    plan = estimated
    if (denied := _rationed(session, plan)) is not None:
        return denied
    if plan.ruling.asking is not None:
        asked = replace(asked, means=about(session, plan), altered=bool(session.altered))
        if portal is not None:
            portal.asked, portal.altered = asked, session.alterations
    if plan.ruling.asking is None:
        ids = tuple(session.ids() for _ in plan.statements)
        cleared = Cleared(plan, ids, "", decided, narrowest(None, plan))
    elif (rule := (yield from match(session, plan, plan.ruling.asking, asked))) is not None:
        ids = tuple(session.ids() for _ in plan.statements)
        most = narrowest(rule.most, plan)
        cleared = Cleared(plan, ids, "", decided, most, rule.id, rechecking(session, plan, asked, again))
    else:
        asked = replace(asked, bodies=plan.texts)
        reviewed = yield from review(session, plan, plan.ruling.asking, asked, again)
        if not isinstance(reviewed, Cleared):
            return reviewed
        cleared = reviewed
    yield from _record(session, cleared, portal)
    if session.now - cleared.decided <= LATE or session.skipping:
        return cleared
    # The planner, the disk or the process that records took long: what this names may mean something else by now.
    late = yield from again()
    if isinstance(late, Plan) and _alike(late, cleared):
        return cleared
    yield from session.cut_unsent() if portal is None else session.finish_portal(portal)
    return late if isinstance(late, Denied) else (yield from clear(session, late, asked, again, portal))


def _alike(late: Plan, cleared: Cleared) -> bool:
    """Say whether what was cleared would be sent in the same words now, and mean the same where that was approved."""
    approved = bool(cleared.hold or cleared.shape)
    same = late.means == cleared.plan.means if approved else late.ruling.asking is None
    return same and late.rewritten == cleared.plan.rewritten


def _weighed(plan: Plan, asked: Asked) -> Generator[Command, Any, Plan | Denied]:
    """Have a plan ruled on again with what the planner expects, where a rule depends on it."""
    if not plan.ruling.estimating:
        return plan
    shown = records.shown(asked)
    rulings = [plan.parsed, *plan.bodies]
    if shown is None:
        about = Question((), why="its parameters are too long")
    else:
        about = question(rulings, asked, shown, in_transaction=False)
    for at, one in enumerate(rulings):
        if one.estimating:
            answer: Ruling = yield Weigh(one, about)
            if isinstance(answer, Denied):
                return answer
            rulings[at] = answer
    return weighed(plan, rulings[0], rulings[1:])


def _record(session: Session, cleared: Cleared, portal: Portal | None) -> Generator[Command, Any, None]:
    """Record every statement of a plan before it is sent, and with them the approval they use up."""
    ruling, ids, hold = cleared.plan.ruling, cleared.ids, cleared.hold
    session.watch(ruling.inspection.tripwire)
    if cleared.plan.writes:
        session.wrote = session.segment
    session.named |= dict.fromkeys(cleared.plan.named, session.segment)
    session.own_settings |= cleared.plan.settings
    idle = session.status == "I" and not session.block and session.drained
    controls = [one.control for one in cleared.plan.statements]
    session.beginning.sent(controls, session.segment, idle=idle, plain=portal is None and session.clean)
    if portal is not None:
        portal.statements, portal.hold, portal.shape, portal.most = ids, hold, cleared.shape, cleared.most
        portal.recheck = cleared.recheck
    if not ids:
        return
    session.unsent |= dict.fromkeys(ids, session.now)
    parameters = portal.parameters if portal is not None else ()
    entries = records.allowed(session.facts, ids, ruling, parameters, hold, cleared.shape)
    if cleared.most is not None:
        entries = (*entries, records.bounded(session.facts, ids[0], cleared.most, bounding.OWN))
    if hold:
        session.fates.begun(hold, ids)
        yield Record((records.consumed(session.facts, hold, ids[0]), *entries), Durability.SYNCED)
    elif cleared.shape:
        yield Record(entries, Durability.SYNCED)
    else:
        yield Record(entries, ruling.durability)


def _rationed(session: Session, plan: Plan) -> Denied | None:
    """Take what a statement searches from its grant's ration; an attempt counts, whatever becomes of it."""
    for name, most in plan.ruling.inspection.searches:
        if (wait := session.rations.take(session.facts.grant.id, name, most, session.now)) > 0:
            message = f"{most} searches of {name} an hour are used up under this access"
            again = format_duration(timedelta(seconds=max(60.0, wait)))
            facts = plan.statements[0].facts
            text = shown_text(plan.ruling.inspection)
            return Denied("53400", message, ("search-limit",), f"search again in {again}", verb=facts.verb, text=text)
    return None
