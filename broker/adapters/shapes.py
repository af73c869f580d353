"""Approved shapes: each makes a rule of its grant, which is stored, recorded, and only then in force; until it is
withdrawn or the grant ends.

A rule holds for as little as can be told apart: the same shape under the same schema, asked about by the same rules of
policy, with reviews that meet what policy demands now. Whatever else has changed, the statement is held again (fail
closed).
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import structlog

from broker.adapters.held import Held
from broker.adapters.store import ShapeRow, StoreUnavailable
from broker.errors import RecordingFailed
from broker.sessions.holds import Sought
from broker.sessions.model import Entry
from broker.sessions.ports import Clock, Recorder
from broker.sessions.services import Refusal
from broker.sessions.shapes import ShapeRule
from policies.engine.model import Policy
from workflows.orders import HoldAnswer
from workflows.reviews import Met, Review, tally
from workflows.storage.boxes import RowMoved
from workflows.wire import ShapeView

NOT_ENOUGH = "not enough of its reviewers approved more than one run"
NOT_OFFERED = "policy does not let this shape be approved"
OVER = "the access is over"
_log = structlog.get_logger("shapes")


class LoadedPolicy(Protocol):
    @property
    def current(self) -> Policy: ...


class ShapeRows(Protocol):
    async def add_shape(self, row: ShapeRow) -> None: ...

    async def withdraw_shape(self, shape: str, by: str, at: datetime) -> None: ...

    async def shape(self, shape: str) -> ShapeRow | None: ...

    async def shapes_of(self, grant: str) -> list[ShapeRow]: ...


@dataclass(slots=True)
class _Rule:
    """A rule, and what it rests on; once `withdrawn` it is not in force, whether that is stored and recorded or not."""

    row: ShapeRow
    reviews: tuple[Review, ...]
    withdrawn: bool = False
    recorded: bool = False
    """Its withdrawal is."""


class ShapeBook:
    """Implements ShapeDesk of the API; the hold desk brings approvals here, and asks for rules."""

    def __init__(self, store: ShapeRows, recorder: Recorder, clock: Clock, policies: LoadedPolicy) -> None:
        self._store = store
        self._recorder = recorder
        self._clock = clock
        self._policies = policies
        self._live: dict[str, dict[str, _Rule]] = {}
        """By grant and id."""

    def match(self, sought: Sought) -> ShapeRule | None:
        """Return the rule that lets a statement pass, if there is one that what policy says now still bears."""
        for one in self._live.get(sought.grant.id, {}).values():
            row = one.row
            if one.withdrawn or row.digest != sought.shape.digest or set(row.rules) != set(sought.rules):
                continue
            found = tally(self._policies.current, sought.requirement, sought.grant.person, one.reviews)
            if isinstance(found, Met):
                return ShapeRule(row.id, row.most)
        return None

    async def approve(self, held: Held, answer: HoldAnswer) -> None:
        """Make a rule of what the reviewers of a hold that was just released approved beyond it, if they did."""
        named = [one for one in answer.reviews if one.shape is not None]
        if not named:
            return
        try:
            why = await self._made(held, answer)
        except (StoreUnavailable, RecordingFailed) as error:
            why = f"it could not be kept: {type(error).__doc__}"
        except RowMoved:
            why = OVER
        if why is None:
            return
        _log.warning("a shape makes no rule", hold=held.id, reason=why)
        session = held.facts.session
        try:
            data = {"hold": held.id, "reason": why}
            await self._recorder.write(Entry("shape.refused", session.grant.id, session.id, data))
        except RecordingFailed as error:
            _log.error("what became of a shape is not recorded", hold=held.id, error=str(error))

    async def _made(self, held: Held, answer: HoldAnswer) -> str | None:
        """Make a rule; say why where none is made."""
        facts, shape = held.facts, held.facts.shape
        if shape is None:
            return NOT_OFFERED
        reviews = [one.review() for one in answer.of_shape(shape.digest)]
        found = tally(self._policies.current, facts.requirement, facts.session.grant.person, reviews)
        if not isinstance(found, Met):
            return NOT_ENOUGH
        row = ShapeRow(
            id="shape-" + secrets.token_hex(6),
            grant=facts.session.grant.id,
            hold=held.id,
            digest=shape.digest,
            text=shape.text,
            redacted=facts.redacted,
            values=list(shape.values),
            rules=list(facts.rules),
            counted=list(found.by),
            most=held.most,
            answer=answer.model_dump(mode="json"),
            approved_at=self._clock.now(),
        )
        await self._store.add_shape(row)
        detail = {"sql": shape.text, "values": list(shape.values), "answer": row.answer}
        await self._recorder.write(Entry("shape.approved", row.grant, facts.session.id, _said(row), detail))
        self._keep(row)
        return None

    async def get(self, shape: str) -> ShapeView:
        """Return an approved shape; raises Refusal `not_found`."""
        return _view(await self._find(shape))

    async def withdraw(self, shape: str, by: str, reason: str) -> ShapeView:
        """Withdraw a shape at once; one that is withdrawn, or whose grant is over, stays what it is. Raises Refusal."""
        row = await self._find(shape)
        rule = self._live.get(row.grant, {}).get(shape)
        if rule is None:
            if row.withdrawn_at is None:
                raise Refusal("over", "this shape is not in force any more")
            return _view(row)
        # Whatever fails from here on: no statement passes by it, and whoever asks again has the rest done.
        rule.withdrawn = True
        if not rule.recorded:
            data = {"shape": shape, "by": by, "reason": reason}
            await self._recorder.write(Entry("shape.withdrawn", row.grant, None, data))
            rule.recorded = True
        await self._store.withdraw_shape(shape, by, self._clock.now())
        self._live.get(row.grant, {}).pop(shape, None)
        return _view(await self._find(shape))

    def end(self, grant: str) -> None:
        """Forget the rules of a grant that is over."""
        self._live.pop(grant, None)

    async def take_up(self, grant: str, recorded: Sequence[str] | set[str]) -> None:
        """Put a grant's rules in force again, after a start: those that are stored and recorded, and not withdrawn."""
        for row in await self._store.shapes_of(grant):
            if row.withdrawn_at is None and row.id in recorded:
                self._keep(row)

    def _keep(self, row: ShapeRow) -> None:
        answer = HoldAnswer.model_validate(row.answer)
        reviews = tuple(one.review() for one in answer.of_shape(row.digest))
        self._live.setdefault(row.grant, {})[row.id] = _Rule(row, reviews)

    async def _find(self, shape: str) -> ShapeRow:
        row = await self._store.shape(shape)
        if row is None:
            raise Refusal("not_found", "there is no such shape")
        return row


def _said(row: ShapeRow) -> dict[str, object]:
    """Return what the feed says of a rule that was made."""
    most = {"most": row.most} if row.most is not None else {}
    return {"shape": row.id, "hold": row.hold, "by": row.counted, "text": row.redacted, "rules": row.rules, **most}


def _view(row: ShapeRow) -> ShapeView:
    return ShapeView(
        id=row.id,
        grant=row.grant,
        hold=row.hold,
        digest=row.digest,
        text=row.text,
        redacted=row.redacted,
        values=row.values,
        rules=row.rules,
        by=row.counted,
        most=row.most,
        approved_at=row.approved_at,
        withdrawn_at=row.withdrawn_at,
        withdrawn_by=row.withdrawn_by,
    )
