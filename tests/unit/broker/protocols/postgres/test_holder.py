"""What a client that waits for reviewers is told of the time that is left."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.protocols.postgres import holder
from broker.protocols.postgres.events import Event, Hold, HoldWaited
from broker.protocols.postgres.explaining import Question
from broker.protocols.postgres.holder import Holder
from broker.sessions import holds
from broker.sessions.holds import Asked, Estimate, HoldFacts
from broker.sessions.model import GrantFacts, SessionFacts
from policies.engine.decisions import Requirement


class Desk:
    """A desk where nobody answers."""

    def open(self, facts: HoldFacts) -> holds.Hold:
        loop = asyncio.get_running_loop()
        opened, answered = loop.create_future(), loop.create_future()
        opened.set_result(None)
        left = (facts.session.grant.expires_at - datetime.now(UTC)).total_seconds()
        return holds.Hold("h1", min(left, facts.seconds), False, opened, answered)

    def drop(self, hold: str, reason: str) -> None:
        pass


async def asks_nothing(_hold: str, _question: Question) -> Estimate:
    return Estimate()


async def test_who_waits_hears_of_more_time_once_their_access_is_extended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holder, "TELL_SECONDS", 0.01)
    told: list[float] = []
    news = asyncio.Event()

    def feed(event: Event) -> None:
        if isinstance(event, HoldWaited):
            told.append(event.seconds)
            news.set()

    async def next_told() -> float:
        news.clear()
        await asyncio.wait_for(news.wait(), 5)
        return told[-1]

    desk: Any = Desk()
    waits = Holder(desk, feed, asks_nothing)
    until = datetime.now(UTC) + timedelta(seconds=60)
    session = SessionFacts("s1", "t1", GrantFacts("g1", "r1", "alice", "prod-db", "write", until, until))
    facts = HoldFacts(session, "q1", Asked("delete"), Requirement(()), (), seconds=600.0, sequence=1)
    question: Any = None
    waits.hold(Hold(facts, "waiting", question))
    assert 50 < await next_told() <= 60
    waits.extend(300)
    assert 290 < await next_told() <= 300
    waits.extend(9_000)
    assert 590 < await next_told() <= 600
    waits.extend(5)
    assert 590 < await next_told() <= 600
    waits.drop("client")
