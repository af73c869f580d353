"""What tests of the database begin with: a clock they move, and rows that are there already."""

from __future__ import annotations

from typing import Any

from bot.adapters.desks import Desks
from bot.handlers import handle
from bot.intents import Ask
from bot.model import Exhibit, Hold, Request
from bot.ordering import Opened, opened
from policies.engine.decisions import Need, Requirement
from tests.unit.bot.memory import LATER, NOW, member, policy, source
from workflows.holds import HoldState


class Still:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> Any:
        return self.at


class Fixed:
    """The policy of these tests."""

    current = policy()
    hash = current.hash


async def filed(desks: Desks, role: str = "read") -> Request:
    async with desks.open() as (at, work):
        await handle(at, Ask(source("alice"), "prod-db", role, "30m", "why"), member("alice"), f"ask-{role}")
        [request] = [one for one in await work.requests_of("alice") if one.role == role]
    return request


async def held(desks: Desks) -> Hold:
    request = await filed(desks)
    async with desks.open() as (at, work):
        await opened(at, Opened("g1", request.id, "o", NOW, LATER))
        digest, needs = "d" * 64, Requirement((Need(1, ("dbas",)), Need(1, ("security",))))
        what = (("prod-writes",), ("write",), ("public.orders",))
        hold = Hold("h0001", "t0", "g1", "s1", digest, HoldState.WAITING, needs, *what, NOW, LATER, Exhibit.CARD)
        await work.add_hold(hold)
    return hold
