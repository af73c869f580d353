"""What every run has: a rig, a plan with its faults, people's patience, and the record of what was done."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.faults import Fault, Plan, apply
from tests.chaos.people import CARDS, Unanswered
from tests.chaos.policy import resource
from tests.chaos.rig import Rig
from tests.support.bot_world import shown

PATIENCE = 30.0
"""Seconds after the last fault is over in which everything has to come right."""
SECONDS = 60
LONG = "select count(*) from notes a, notes b, notes c where a.id + b.id + c.id < 0"


class NeverCame(AssertionError):
    """what everybody waits for did not come"""


@dataclass(slots=True)
class Effect:
    """A held write: what the client knows of it, and whether a reviewer let it run."""

    marker: str
    approved: bool = False
    denied: bool = False
    outcome: str = "unknown"
    """done, refused or unknown."""


@dataclass(slots=True)
class Deeds:
    """What people and the client did, and what they were told; the invariants are checked against it."""

    asked: dict[str, bool] = field(default_factory=dict)
    """Reason of each ask -> whether it was acknowledged."""
    clicks: set[tuple[str, str, str]] = field(default_factory=set)
    """(request's reason, person, action), acknowledged or not."""
    taken: set[tuple[str, str, str]] = field(default_factory=set)
    """Those that were acknowledged."""
    effects: list[Effect] = field(default_factory=list)
    clear: list[str] = field(default_factory=list)
    """Masked values that came in clear."""
    passed: list[str] = field(default_factory=list)
    """Denied statements that ran."""
    sessions: int = 0


class Stage:
    """Lets a plan's faults happen at its steps, and looks until things have come."""

    def __init__(self, rig: Rig, plan: Plan, say: Callable[[str], None]) -> None:
        self.rig = rig
        self.plan = plan
        self.say = say
        self.deeds = Deeds()
        self.resource = resource(plan.seed)
        self.reason = ""
        self.began = time.time()
        self.since = f"{self.began - 1:.6f}"
        self.healed_at = 0.0
        self.opened_at = 0.0
        self.rng = random.Random(plan.seed ^ 0xC4A05)
        self._faulting: list[asyncio.Task[None]] = []
        self._due = list(plan.faults)

    async def heal(self) -> None:
        """Wait for every fault to be over, and let nothing further go wrong."""
        for fault in self._due:
            self.say(f"not reached: {fault}")
        self._due = []
        for outcome in await asyncio.gather(*self._faulting, return_exceptions=True):
            if isinstance(outcome, Exception):
                self.say(f"the fault itself failed: {outcome!r}")
        await self.rig.healed()
        with suppress(Unanswered):
            await self.rig.people.fault(clear=True)
        self.healed_at = max(self.healed_at, time.time())

    @asynccontextmanager
    async def step(self, name: str) -> AsyncIterator[None]:
        self.say(f"step {name}")
        for fault in [one for one in self._due if one.step == name]:
            self._due.remove(fault)
            self._faulting.append(asyncio.create_task(self._go_wrong(fault), name=str(fault)))
        await asyncio.sleep(0)
        yield

    async def _go_wrong(self, fault: Fault) -> None:
        await asyncio.sleep(fault.delay)
        self.say(f"FAULT {fault}")
        await apply(self.rig, fault)
        self.healed_at = time.time()
        self.say(f"over: {fault.kind} {fault.target}")

    async def eventually(self, what: str, look: Callable[[], Awaitable[Any]], patience: float = PATIENCE) -> Any:
        """Look until it is there; `patience` counts from the end of the last fault."""
        began = time.time()
        while True:
            if (found := await look()) is not None:
                return found
            busy = any(not task.done() for task in self._faulting) or not self._all_up()
            if busy:
                self.healed_at = time.time()
            if time.time() > max(began, self.healed_at) + patience:
                raise NeverCame(f"{what} did not come within {patience:.0f} s")
            await asyncio.sleep(0.04)

    def _all_up(self) -> bool:
        return all(member.up.is_set() for member in self.rig.members.values())

    async def card(self, has: str) -> dict[str, Any] | None:
        """Return the request's card, once it says something."""
        for message in await self.rig.people.seen("bob", CARDS, since=self.since):
            text = shown(message)
            if not message["ephemeral"] and self.reason in text and has in text:
                return message
        return None
