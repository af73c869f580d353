"""Holding: a plan that policy asks about waits for its reviewers, and is decided again when they have answered."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any, assert_never

from broker.protocols.postgres import records
from broker.protocols.postgres.beginnings import ANEW
from broker.protocols.postgres.events import Command, Drain, Drop, Hold, Match, Reload, Use
from broker.protocols.postgres.explaining import question
from broker.protocols.postgres.owning import ask_when_sure
from broker.protocols.postgres.plan import Plan, Planning
from broker.protocols.postgres.registry import Portal
from broker.protocols.postgres.replies import Problem, Recheck, denial
from broker.protocols.postgres.ruling import Asking, Denied, Permitted, must_be_asked, shown_text
from broker.protocols.postgres.settings import current
from broker.protocols.postgres.shared import Session
from broker.sessions.holds import Abandoned, Answer, Asked, HoldFacts, Pending, Refused, Released, Sought, TimedOut
from broker.sessions.shapes import Shape, ShapeRule, shape_digest
from broker.sessions.transcript import plain
from broker.sql.meaning import UNKNOWN, changed
from broker.sql.model import Control, Meaning
from broker.sql.placeholders import Parameters, Pattern, pattern
from policies.engine.decisions import Effect

_ABANDONED = {
    "ended": "the access was ended",
    "error": "the session failed",
    "expired": "the access ran out",
    "policy": "the policy has changed",
    "recording": "it cannot be recorded",
    "revoked": "the access was revoked",
    "schema": "what it names was changed",
    "shutdown": "the broker stops",
    "upstream": "the resource went away",
}
"""Why a hold was given up that its client still waits for."""
_OWN = "what this session has made itself"
_A_WHILE = 0.1
"""Seconds between Bind and Execute that are more than a client needs to send both."""
IN_TRANSACTION = 60.0
"""Seconds that a hold may keep a transaction open, with the locks it has."""


@dataclass(frozen=True, slots=True)
class Cleared:
    """What may be recorded and sent: the plan as it is now, its statements' ids, the approval that was used up.

    `decided` is when it was planned, `most` how many rows it may touch, where that is bounded. `shape` is the rule of a
    shape approved before.
    """

    plan: Plan
    ids: tuple[str, ...]
    hold: str
    decided: float
    most: int | None = None
    shape: str = ""
    recheck: Recheck | None = None
    """Says why what has run is not what was approved."""


Reviewed = Cleared | Denied | Problem


def review(
    session: Session, plan: Plan, asking: Asking, asked: Asked, again: Callable[[], Planning]
) -> Generator[Command, Any, Reviewed]:
    """Have a plan reviewed; `again` decides anew what was asked."""
    while not session.drained:
        yield Drain()
    if session.status == "E":
        return unasked(session)
    if session.altered and not asking.waits:
        # Its names mean what they mean within this transaction, and that ends with the refusal.
        return must_be_asked(plan.ruling, asking, "commit the change of the schema before it, then send it again")
    shown = records.shown(asked)
    if shown is None:
        return must_be_asked(plan.ruling, asking, "its parameters are too long to be shown to them")
    free = session.unlocked or (asking.waits and (yield from _begun_anew(session)))
    if session.skipping:
        return unasked(session)
    ids = tuple(session.ids() for _ in plan.statements)
    facts = _facts(session, plan, asking, asked, shown, ids[0], free=free)
    answer: Answer | None = yield Hold(
        facts,
        f"waiting for {asking.requirement} ({asking.people}) to review this statement",
        question((plan.ruling, *plan.bodies), asked, shown, facts.in_transaction),
    )
    match answer:
        case Released(hold=hold, most=most):
            return (yield from _released(session, hold, ids, asked, again, most))
        case Pending(hold):
            return replace(must_be_asked(plan.ruling, asking, _how(asking)), hold=hold)
        case Refused(hold, by, reason):
            # It is shown in a terminal, which obeys what does not show.
            why = "\n".join(plain(row) for row in reason.splitlines())
            return denial(
                "42501", f"{by} refused this statement{f': {why}' if why else ''}", _rules(asking, hold), None
            )
        case TimedOut(hold):
            hint = f"run it again when {asking.people} can answer"
            several = sum(need.count for need in asking.requirement.needs) > 1
            whom = "not everybody who was needed answered" if several else "nobody answered"
            return denial("57014", f"{whom} in time, so this statement was not run", _rules(asking, hold), hint)
        case Abandoned(hold, reason):
            why = _ABANDONED.get(reason, reason)
            return denial("57014", f"canceled: the review is over, because {why}", _rules(asking, hold), None)
        case None:
            yield Drop("cancelled")
            return Problem("57014", "canceled: the review was given up")
        case _:
            assert_never(answer)


def _begun_anew(session: Session) -> Generator[Command, Any, bool]:
    """Have a transaction in which nothing was done yet begin anew, without the locks of what was prepared in it."""
    bound = [*session.portals.known.values(), *(change.value for change in session.portals.pending)]
    fresh = session.block and session.beginning.fresh == session.segment
    if not fresh or any(isinstance(one, Portal) and not _begins(one) for one in bound):
        return False
    told = yield from ask_when_sure(session, [ANEW])
    if told is None or not told.tags:
        return False
    yield from session.end_transaction(committed=False)
    return True


def _begins(portal: Portal) -> bool:
    return [one.control for one in portal.prepared.ruling.inspection.statements] == [Control.BEGIN]


def unasked(session: Session) -> Problem:
    """Say why nobody is asked about a statement that the server would not run."""
    if session.status == "E":
        return Problem("25P02", "current transaction is aborted, commands ignored until end of transaction block")
    return Problem("57014", "canceled: an earlier statement failed")


def _released(
    session: Session, hold: str, ids: tuple[str, ...], asked: Asked, again: Callable[[], Planning], most: int | None
) -> Generator[Command, Any, Reviewed]:
    """Use the approval, if what was approved may still run, and still means what was shown."""
    # As the catalogue is at this moment: somebody could have changed it since the last look.
    yield Reload(own=False)
    plan, decided = (yield from again()), session.now
    if isinstance(plan, Denied):
        yield Drop("policy")
        return plan
    if session.skipping:
        # An error came meanwhile: the server would skip this one, so the approval is not used.
        yield Drop("upstream")
        return unasked(session)
    if name := changed(asked.means, about(session, plan)):
        yield Drop("schema")
        message = f"the approval is not good any more: {name} is not what it was when this was shown"
        return Problem("42501", message, hint="run it again: it is asked about anew")
    now = plan.ruling.asking
    if len(plan.statements) != len(ids) or not (yield Use(hold, now.requirement if now is not None else None)):
        yield Drop("policy")
        said = "the approval is not good any more: it is used, or the policy has changed"
        return Problem("42501", said, hint="run it again")
    return Cleared(plan, ids, hold, decided, narrowest(most, plan), recheck=rechecking(session, plan, asked, again))


def rechecking(session: Session, plan: Plan, asked: Asked, again: Callable[[], Planning]) -> Recheck | None:
    """Return what looks at a change again that has run: it may have waited for a lock while its names were given away.

    What it has run on keeps its name until its transaction ends. Nothing can be looked up behind changes of the schema
    that are its own.
    """
    if any(one.alters for one in plan.statements):
        return None

    def recheck() -> Generator[Command, Any, Problem | None]:
        yield Reload(own=False)
        plan = yield from again()
        if isinstance(plan, Denied):
            return Problem("42501", f"this was rolled back, as it may not run any more: {plan.message}")
        if name := changed([one for one in asked.means if one[0] != _OWN], plan.means):
            message = f"this was rolled back: {name} is not what it was when this was approved"
            return Problem("42501", message, hint="run it again: it is asked about anew")
        return None

    return recheck


def about(session: Session, plan: Plan) -> Meaning:
    """Return what a plan is about, each with a stamp of what it is.

    What only its session knows, as what is temporary, is what it is until the session changes the schema again.
    """
    means = plan.means
    if all(stamp != UNKNOWN for _, stamp in means):
        return means
    return (*means, (_OWN, f"{session.facts.id} {session.alterations}"))


def narrowest(most: int | None, plan: Plan) -> int | None:
    """Return how many rows a plan may touch: what was approved, and what its rules say now."""
    bounds = [most, plan.ruling.bound.most if plan.ruling.bound is not None else None]
    return min((bound for bound in bounds if bound is not None), default=None)


def _facts(
    session: Session,
    plan: Plan,
    asking: Asking,
    asked: Asked,
    shown: tuple[str | None, ...],
    statement: str,
    *,
    free: bool,
) -> HoldFacts:
    facts = [one.facts for ruling in (plan.ruling, *plan.bodies) for one in ruling.inspection.statements]
    session.reviews += 1
    # What this segment has sent keeps its locks until Sync, as an open transaction does.
    inside = session.status != "I" or session.touched
    return HoldFacts(
        session=session.facts,
        statement=statement,
        asked=asked,
        requirement=asking.requirement,
        rules=asking.rules,
        seconds=min(asking.seconds, IN_TRANSACTION) if asking.waits and not free else asking.seconds,
        sequence=session.reviews,
        verb=facts[0].verb,
        redacted=shown_text(plan.ruling.inspection),
        shown=shown,
        effects=tuple(sorted({effect.value for fact in facts for effect in fact.all_effects})),
        relations=tuple(sorted({relation for fact in facts for relation in fact.relations})),
        in_transaction=inside,
        waits=asking.waits,
        bound=plan.ruling.bound,
        reveals=tuple(sorted({field for fact in facts for field in fact.reveals})),
        shape=_shape(session, plan, asking, asked, shown),
    )


def match(session: Session, plan: Plan, asking: Asking, asked: Asked) -> Generator[Command, Any, ShapeRule | None]:
    """Look up whether a plan's shape was approved; what it may do is what was decided of it just now."""
    shown = records.shown(asked) if asking.shape else None
    shape = _shape(session, plan, asking, asked, shown) if shown is not None else None
    if shape is None:
        return None
    sought = Sought(session.facts.grant, asked, shape, asking.requirement, asking.rules, asking.waits)
    rule: ShapeRule | None = yield Match(sought)
    return rule


def afresh(session: Session, portal: Portal, again: Planning) -> Planning:
    """Plan a portal by the catalogue of this moment, where it was approved a while ago."""
    if portal.hold and session.now - portal.since > _A_WHILE:
        yield Reload(own=False)
    return (yield from again)


def still_approved(session: Session, portal: Portal, plan: Plan) -> Generator[Command, Any, bool]:
    """Say whether what policy asks about a recorded portal was approved, and is still; it may end meanwhile."""
    if not portal.statements:
        return False
    if not plan.ruling.consults:
        return True
    if portal.asked.settings != (yield from current(session)):
        return False
    if plan.ruling.asking is None:
        return True
    if portal.hold:
        # Its client may have let it wait: what it runs is looked up as it is executed.
        return portal.altered == session.alterations and not changed(portal.asked.means, about(session, plan))
    if not portal.shape:
        return False
    rule = yield from match(session, plan, plan.ruling.asking, portal.asked)
    return rule is not None and rule.id == portal.shape


def _shape(session: Session, plan: Plan, asking: Asking, asked: Asked, shown: tuple[str | None, ...]) -> Shape | None:
    """Return a plan's shape, where policy lets it be approved and it is plain what that would be."""
    parameters = Parameters(asked.values, asked.formats, asked.types, shown)
    # What is temporary is in no version of the catalogue, nor what its own transaction has changed.
    unsure = session.altered or any(stamp == UNKNOWN for _, stamp in plan.means)
    found = None if plan.bodies or unsure else offered(plan.ruling, asking, parameters)
    if found is None:
        return None
    (statement,) = plan.statements
    inspection = plan.ruling.inspection
    bound = (session.facts.grant, inspection.catalogue, asked.settings, statement.facts.masked)
    digest = shape_digest(found.key, *bound)
    return Shape(digest, found.text, found.values)


def offered(ruling: Permitted, asking: Asking, parameters: Parameters) -> Pattern | None:
    """Return what could be approved of a text beyond one run, where policy offers that."""
    if not asking.shape or len(ruling.inspection.statements) != 1:
        return None
    (statement,) = ruling.inspection.statements
    facts = statement.facts
    if statement.control is not Control.NONE or statement.compared or facts.reveals or facts.searched:
        # Comparing what is masked compares the same text for every row; what is revealed is for one run.
        return None
    if Effect.WRITE in facts.all_effects and ruling.bound is None:
        return None  # Nobody sees the values of later runs: the count of rows is what is left (fail closed).
    return pattern(ruling.sql, parameters)


def _how(asking: Asking) -> str:
    # Without the time that is left, so that the same statement is always refused in the same words.
    return (
        f"{asking.people} can approve it now, on its card; "
        "then this very statement runs once, within 10m of the approval, when it is sent again"
    )


def _rules(asking: Asking, hold: str) -> tuple[str, ...]:
    return (*asking.rules, f"hold:{hold}")
