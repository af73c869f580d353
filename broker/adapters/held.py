"""One hold as the desk keeps it, as its reviewers see it, and as it is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from broker.sessions.holds import Answer, Estimate, HoldFacts
from broker.sessions.model import Entry
from policies.engine.decisions import Requirement
from workflows.holds import HoldState
from workflows.orders import HoldAnswer
from workflows.reviews import Review
from workflows.wire import EstimateView, HoldView, ShapeOffer, SizedRelation


@dataclass(slots=True)
class Held:
    id: str
    facts: HoldFacts
    digest: str
    likeness: str
    opened_at: datetime
    wanted: datetime
    """Until when it would wait, or be good, if its grant never ended."""
    grant_ends: datetime
    answered: asyncio.Future[Answer]
    state: HoldState = HoldState.WAITING
    timer: asyncio.TimerHandle | None = None
    reviews: list[Review] = field(default_factory=list)
    counted: tuple[str, ...] = ()
    """Whose approvals counted when it was released."""
    answer: str = ""
    """The id of the answer that won."""
    estimate: Estimate | None = None
    most: int | None = None
    """How many rows the statement may touch, as it was shown when it was approved."""

    @property
    def expires_at(self) -> datetime:
        return min(self.wanted, self.grant_ends)

    @property
    def shown_most(self) -> int | None:
        """How many rows an approval is good for, with what is known now."""
        bound = self.facts.bound
        return bound.rows(self.estimate.rows if self.estimate is not None else None) if bound is not None else None

    def _offer(self) -> ShapeOffer | None:
        """Return the shape that may be approved, once it is known how many rows each run may touch."""
        shape, bound = self.facts.shape, self.facts.bound
        if shape is None or (bound is not None and bound.factor is not None and self.estimate is None):
            return None
        return ShapeOffer(digest=shape.digest, text=shape.text, values=list(shape.values))

    def view(self) -> HoldView:
        facts, grant = self.facts, self.facts.session.grant
        return HoldView(
            id=self.id,
            grant=grant.id,
            session=facts.session.id,
            statement=facts.statement,
            person=grant.person,
            resource=grant.resource,
            role=grant.role,
            state=self.state.value,
            digest=self.digest,
            text=facts.asked.text,
            parameters=list(facts.shown),
            effects=list(facts.effects),
            relations=list(facts.relations),
            reveals=list(facts.reveals),
            rules=list(facts.rules),
            needs=_needs(facts.requirement),
            in_transaction=facts.in_transaction,
            waits=facts.waits,
            redacted=facts.redacted,
            estimate=_estimate(self.estimate) if self.estimate is not None else None,
            most=self.shown_most if self.state is HoldState.WAITING else self.most,
            shape=self._offer(),
            opened_at=self.opened_at,
            expires_at=self.expires_at,
        )


_OVER = {
    "hold.released": HoldState.RELEASED,
    "hold.consumed": HoldState.CONSUMED,
    "hold.refused": HoldState.REFUSED,
    "hold.timed_out": HoldState.TIMED_OUT,
    "hold.abandoned": HoldState.ABANDONED,
}


def recorded_view(records: Iterable[dict[str, Any]], hold: str) -> HoldView | None:
    """Return a hold as its grant's recording has it; None where that has none of this id."""
    known: dict[str, Any] = {}
    for record in records:
        kind, data = record["type"], record["data"]
        if kind == "grant.opened":
            known |= {key: data.get(key) for key in ("person", "resource", "role")}
        if data.get("hold") != hold:
            continue
        if kind == "hold.opened":
            detail = record.get("detail", {})
            known |= {key: value for key, value in data.items() if key not in ("hold", "text", "verb")}
            known |= {"id": hold, "grant": record["grant"], "session": record["session"], "opened_at": record["at"]}
            known |= {"text": detail.get("sql", ""), "parameters": detail.get("parameters", [])}
            known |= {"redacted": data.get("text", ""), "state": HoldState.WAITING.value}
        elif kind == "hold.estimated":
            known["estimate"] = data
        elif kind in _OVER:
            known |= {"state": _OVER[kind].value, "most": data.get("most", known.get("most"))}
    return HoldView.model_validate(known) if "id" in known else None


def _needs(requirement: Requirement) -> list[dict[str, Any]]:
    return [need.facts() for need in requirement.needs]


def opened_entry(held: Held) -> Entry:
    """Write the record of a hold that begins."""
    facts = held.facts
    data = {
        "hold": held.id,
        "statement": facts.statement,
        "digest": held.digest,
        "text": facts.redacted,
        "verb": facts.verb,
        "rules": list(facts.rules),
        "needs": _needs(facts.requirement),
        "relations": list(facts.relations),
        "effects": list(facts.effects),
        "reveals": list(facts.reveals),
        "waits": facts.waits,
        "expires_at": held.expires_at,
    }
    detail: dict[str, Any] = {"sql": facts.asked.text}
    if facts.shown:
        detail["parameters"] = list(facts.shown)
    return Entry("hold.opened", facts.session.grant.id, facts.session.id, data, detail)


def entry_of(held: Held, kind: str, answer: HoldAnswer | None = None, **data: Any) -> Entry:
    """Write the record of what becomes of a hold."""
    detail = {"answer": answer.model_dump(mode="json")} if answer is not None else {}
    session = held.facts.session
    return Entry(kind, session.grant.id, session.id, {"hold": held.id, **data}, detail)


def said(estimate: Estimate) -> dict[str, Any]:
    """Return what is recorded of an estimate."""
    view = _estimate(estimate).model_dump()
    return {key: value for key, value in view.items() if value not in (None, "", [])}


def _estimate(estimate: Estimate) -> EstimateView:
    sized = [SizedRelation(name=one.name, rows=one.rows, bytes=one.bytes) for one in estimate.relations]
    return EstimateView(
        relations=sized,
        rows=estimate.rows,
        why=estimate.why,
        locks=None if estimate.locks is None else list(estimate.locks),
        cascades=list(estimate.cascades),
        triggers=list(estimate.triggers),
    )
