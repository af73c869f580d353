"""Orders of events nobody thought of, over what decides: one decision (I3), one execution (I4), never one's own (I5).

`CHAOS_EXAMPLES` says how many orders are tried; `make chaos` tries ten thousand of each.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot import ordering, relay
from bot.handlers import handle
from bot.intents import Approve, Ask, Cancel, EndNow, Refuse
from bot.model import Request
from bot.ordering import Opened
from bot.outgoing import EndGrant, PostOrder
from bot.ports import Refusal
from bot.reviewing import expire
from broker.errors import RecordingFailed
from broker.sessions.holds import Refused, Released
from broker.sessions.services import Refusal as BrokerRefusal
from policies.engine.decisions import Need, Requirement
from tests.unit.bot.memory import NOW, CountingIds, MemoryWork, desk, member, source
from tests.unit.broker.adapters.test_holds import Desk as Holds
from workflows import grants, holds, requests
from workflows.requests import FINAL, RequestState
from workflows.reviews import Answer
from workflows.wire import EventView, Problem

EXAMPLES = int(os.environ.get("CHAOS_EXAMPLES", "150"))
many = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)

PEOPLE = ("alice", "bob", "dana", "erin")
DBAS, SECURITY = {"bob", "dana"}, {"erin"}


def enough(role: str, approvers: set[str]) -> bool:
    """Count by hand what the policy of these tests wants."""
    return bool(approvers & DBAS) and (role == "read" or bool(approvers & SECURITY))


@dataclass
class Board:
    """The bot's decisions over one request, and what is wrong with them."""

    role: str
    work: MemoryWork = field(default_factory=MemoryWork)
    now: Any = NOW
    ids: CountingIds = field(default_factory=CountingIds)
    orders: list[str] = field(default_factory=list)
    path: list[RequestState] = field(default_factory=list)
    count: int = 0

    @property
    def request(self) -> Request:
        return next(iter(self.work.requests.values()))

    async def ask(self) -> None:
        await handle(self.desk(), Ask(source("alice"), "prod-db", self.role, "30m", "why"), member("alice"), "ask")
        self.check()

    def desk(self) -> Any:
        return desk(self.work, self.now, ids=self.ids)

    async def step(self, move: tuple[str, str, int]) -> None:
        what, who, number = move
        self.count += 1
        cause = f"c{self.count}"
        token = self.request.token
        match what:
            case "approve":
                await handle(self.desk(), Approve(source(who), token), member(who), cause)
            case "deny":
                await handle(self.desk(), Refuse(source(who), token, "no"), member(who), cause)
            case "cancel":
                await handle(self.desk(), Cancel(source(who), token), member(who), cause)
            case "wait":
                self.now += timedelta(minutes=number * 7)
                late = self.desk()
                for one in await self.work.overdue(self.now):
                    await expire(late, one)
            case "end" if self.work.grants:
                grant = list(self.work.grants.values())[number % len(self.work.grants)]
                await handle(self.desk(), EndNow(source(who), grant.token), member(who), cause)
            case _:
                await self.broker(what, number)
        self.check()

    async def broker(self, what: str, number: int) -> None:
        """Let the broker say something about an order: the newest, or one of long ago, perhaps for the second time."""
        if not self.orders:
            return
        order = self.orders[-1 - number % len(self.orders)]
        match what:
            case "opened":
                until = self.now + timedelta(minutes=30)
                await ordering.opened(self.desk(), Opened(f"g-{order}", self.request.id, order, self.now, until))
            case "refused":
                refusal = Refusal(403, Problem(code="denied", message="frozen"))
                await ordering.refused(self.desk(), self.request.id, order, refusal)
            case "more":
                needs = [{"count": 1, "groups": ["dbas"]}]
                problem = Problem(code="more_reviews", message="more", needs=needs)
                await ordering.refused(self.desk(), self.request.id, order, Refusal(409, problem))
            case "over":
                kind = ("grant.ended", "grant.expired", "grant.revoked", "grant.closed")[number % 4]
                event = EventView(
                    cursor=f"c{self.count}", stream="s", seq=self.count, at=self.now, type=kind, grant=f"g-{order}",
                    data={"by": "bob", "verified": True},
                )  # fmt: skip
                await relay.apply(self.desk(), [event])
            case _:
                await ordering.waiting(self.desk(), self.request.id, order)

    def check(self) -> None:
        request = self.request
        posted = [item.order for _, item in self.work.sent.values() if isinstance(item, PostOrder)]
        assert len(posted) == len(set(posted))
        state = request.state
        if self.path and self.path[-1] is not state:
            moves = {after for (before, _), after in requests.TABLE.items() if before is self.path[-1]}
            # A sweep and a click may come together: two moves of the table, never one that it does not have.
            further = {after for (before, _), after in requests.TABLE.items() if before in moves}
            assert state in moves | further, self.path
            assert self.path[-1] not in FINAL, self.path
        self.path.append(state)
        approvers = {one.person for one in self.work.given.get(request.id, {}).values() if one.answer is Answer.APPROVE}
        assert "alice" not in approvers
        new = posted[len(self.orders) :]
        assert len(new) <= 1
        if new:
            assert state is RequestState.APPROVED
            assert request.order == new[0]
            assert enough(self.role, approvers), (approvers, self.path)
            self.orders += new
        assert (state is RequestState.APPROVED) == (request.order is not None and bool(posted))
        ended = {item.grant for _, item in self.work.sent.values() if isinstance(item, EndGrant)}
        wanted = [g for g in self.work.grants.values() if g.live and g.id not in ended]
        assert len(wanted) <= 1, "two grants that nobody ends"
        assert all(g.id == f"g-{request.order}" for g in wanted)


MOVES = st.tuples(
    st.sampled_from("approve approve deny cancel wait end opened refused more over away".split()),
    st.sampled_from(PEOPLE),
    st.integers(0, 7),
)


@many
@given(role=st.sampled_from(("read", "write")), moves=st.lists(MOVES, max_size=14))
def test_whatever_comes_in_whatever_order_a_request_has_one_decision_by_others_than_its_requester(
    role: str, moves: list[tuple[str, str, int]]
) -> None:
    async def play() -> None:
        board = Board(role)
        await board.ask()
        for move in moves:
            await board.step(move)

    asyncio.run(play())


NEEDS = {
    "one": Requirement((Need(1, ("dbas",)),)),
    "two": Requirement((Need(2, ("dbas",)),)),
}
HOLD_MOVES = st.tuples(
    st.sampled_from("open again approve approve both own deny forged use use drop leave end late broken".split()),
    st.integers(0, 3),
    st.booleans(),
)


@dataclass
class Table:
    """The broker's holds with several statements at once; what is done to them may overlap."""

    needs: str
    holds: Holds = field(default_factory=Holds)
    opened: list[Any] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)
    uses: Counter[str] = field(default_factory=Counter)
    given: dict[str, list[str]] = field(default_factory=dict)
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)

    async def step(self, move: tuple[str, int, bool]) -> None:
        what, number, overlapping = move
        if what in ("open", "again"):
            facts = self.holds.facts(f"insert {number}", requirement=NEEDS[self.needs], waits=what == "open")
            try:
                hold = self.holds.desk.open(facts)
            except RecordingFailed:
                self.holds.recorder.broken = False
                return
            if hold.id not in [one.id for one in self.opened]:
                self.opened.append(hold)
            return
        if not self.opened:
            return
        hold = self.opened[number % len(self.opened)]
        work = asyncio.ensure_future(self.do(what, hold, number))
        if overlapping:
            self.tasks.append(work)
            await asyncio.sleep(0)
        else:
            await work

    async def do(self, what: str, hold: Any, number: int) -> None:
        table = self.holds.desk
        match what:
            case "approve":
                await self.answer(hold, [("bob", "dana")[number % 2]])
            case "both":
                await self.answer(hold, ["bob", "dana"])
            case "own":
                await self.answer(hold, ["alice", "erin"])
            case "deny":
                await self.answer(hold, ["bob"], answer=Answer.DENY)
            case "forged":
                await self.answer(hold, ["bob", "dana"], digest="f" * 64)
            case "use":
                if table.use(hold.id, NEEDS[self.needs]):
                    self.uses[hold.id] += 1
            case "drop":
                table.drop(hold.id, "cancelled")
            case "leave":
                table.leave("s1", "client")
            case "end":
                table.end("g1", "revoked")
            case "late":
                self.holds.clock.offset += timedelta(minutes=number * 5)
                if (held := table._live.get(hold.id)) is not None:
                    table._time_out(held)
            case _:
                self.holds.recorder.broken = not self.holds.recorder.broken

    async def answer(self, hold: Any, people: list[str], **more: Any) -> None:
        try:
            await self.holds.desk.answer(hold.id, self.holds.signed(hold.id, *people, **more))
        except (BrokerRefusal, RecordingFailed):
            return
        if more.get("answer") is None:
            self.given.setdefault(hold.id, []).extend(people)

    async def check(self) -> None:
        await asyncio.gather(*self.tasks)
        await asyncio.sleep(0)
        self.holds.recorder.broken = False
        await self.holds.desk.stop()
        for hold in self.opened:
            self.one(hold)

    def one(self, hold: Any) -> None:
        kinds = [e.type.removeprefix("hold.") for e in self.holds.recorder.entries if e.data.get("hold") == hold.id]
        assert self.uses[hold.id] <= 1
        if self.uses[hold.id]:
            approvers = set(self.given.get(hold.id, [])) & DBAS
            assert "released" in kinds
            assert len(approvers) >= (2 if self.needs == "two" else 1)
            assert "forged" not in kinds
        assert kinds.count("released") <= 1
        assert sum(kinds.count(kind) for kind in ("refused", "timed_out", "abandoned")) <= 1
        if hold.answered.done():
            answer = hold.answered.result()
            if isinstance(answer, Released):
                assert "released" in kinds
            if isinstance(answer, Refused):
                assert "refused" in kinds
                assert not self.uses[hold.id]


@many
@given(needs=st.sampled_from(("one", "two")), moves=st.lists(HOLD_MOVES, max_size=16))
def test_whatever_overlaps_an_approval_runs_one_statement_once_and_only_after_its_record(
    needs: str, moves: list[tuple[str, int, bool]]
) -> None:
    async def play() -> None:
        table = Table(needs)
        await table.step(("open", 0, False))
        for move in moves:
            await table.step(move)
        await table.check()

    asyncio.run(play())


@many
@given(st.lists(st.sampled_from([*requests.RequestEvent, *grants.GrantEvent, *holds.HoldEvent]), max_size=20))
def test_no_order_of_events_leads_out_of_an_end(events: list[Any]) -> None:
    tables: list[tuple[dict[Any, Any], Any]] = [
        (requests.TABLE, RequestState.PENDING),
        (grants.TABLE, grants.GrantState.OPENING),
        (holds.TABLE, holds.HoldState.WAITING),
    ]
    for table, state in tables:
        ends = {after for after in table.values() if not any(before is after for before, _ in table)}
        path = [state]
        for event in events:
            path.append(table.get((path[-1], event), path[-1]))
        for before, after in pairwise(path):
            assert before is after or before not in ends
