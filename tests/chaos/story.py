"""One run: somebody asks, reviewers answer, a client works, access ends; people and client try again where it fails."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg

from tests.chaos.faults import Plan, apply
from tests.chaos.people import CARDS, Unanswered, buttons, shown
from tests.chaos.policy import resource
from tests.chaos.rig import Rig

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


class Story:
    """Plays a plan on a rig."""

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
        self._rng = random.Random(plan.seed ^ 0xC4A05)
        self._faulting: list[asyncio.Task[None]] = []
        self._due = list(plan.faults)

    async def play(self) -> None:
        """Do everything up to the moment where access ends by itself or somebody ends it."""
        card = await self._asked()
        if not await self._decided(card):
            await self.heal()
            return
        async with self._step("open"):
            ticket = await self._ticket()
        connection = await self._work(ticket)
        try:
            await self._ended(connection)
        finally:
            with suppress(psycopg.Error, TimeoutError):
                await asyncio.wait_for(connection.close(), 5)
        async with self._step("summary"):
            pass
        await self.heal()

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
    async def _step(self, name: str) -> AsyncIterator[None]:
        self.say(f"step {name}")
        for fault in [one for one in self._due if one.step == name]:
            self._due.remove(fault)
            self._faulting.append(asyncio.create_task(self._go_wrong(fault), name=str(fault)))
        await asyncio.sleep(0)
        yield

    async def _go_wrong(self, fault: Any) -> None:
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

    async def _asked(self) -> dict[str, Any]:
        text = f"/access {self.resource} {self.plan.role} 1m because"
        for attempt in range(8):
            self.reason = f"chaos {self.plan.seed} ask {attempt}."
            async with self._step("ask"):
                taken = await self.rig.people.command("alice", f"{text} {self.reason}")
            self.deeds.asked[self.reason] = taken
            self.say(f"asked, {'acknowledged' if taken else 'no answer'}")
            try:
                found: dict[str, Any] = await self.eventually(
                    "the card of an acknowledged ask", lambda: self.card("Waiting for"), PATIENCE if taken else 4.0
                )
            except NeverCame:
                if taken:
                    raise
                continue
            return found
        raise NeverCame("nobody could ask")

    async def _decided(self, card: dict[str, Any]) -> bool:
        match self.plan.decision:
            case "approve":
                people = ["bob", "erin"] if self.plan.role == "write" else [self._rng.choice(("bob", "dana"))]
                for who in people:
                    await self._press("decide", who, "request.approve", card, lambda who=who: self._approved_by(who))
                return True
            case "deny":
                await self._press("decide", "bob", "request.deny", card, lambda: self._is("Denied by"))
            case _:
                await self._press("decide", "alice", "request.cancel", card, lambda: self._is("Cancelled"))
        return False

    async def _is(self, words: str) -> bool | None:
        return True if await self.card(words) else None

    async def _approved_by(self, who: str) -> bool | None:
        card = await self.card("")
        if card is None:
            return None
        text = shown(card)
        return (
            True
            if who.capitalize() in text.split("Waiting for")[0].split("pproved")[-1] or "Approved by" in text
            else None
        )

    async def _press(
        self, step: str, who: str, action: str, message: dict[str, Any], look: Callable[[], Awaitable[bool | None]]
    ) -> None:
        """Press a button until what it is for has come; once it was acknowledged, it has to come by itself."""
        for _ in range(10):
            async with self._step(step):
                taken = await self._pressed(who, action, message)
            self.deeds.clicks.add((self.reason, who, action))
            if taken:
                self.deeds.taken.add((self.reason, who, action))
            self.say(f"{who} {action}: {'acknowledged' if taken else 'no answer'}")
            try:
                await self.eventually(f"what {who}'s acknowledged {action} is for", look, PATIENCE if taken else 1.0)
            except NeverCame:
                if taken:
                    raise
                continue
            return
        raise NeverCame(f"{who} could not {action}")

    async def _pressed(self, who: str, action: str, message: dict[str, Any]) -> bool:
        answer = await self.rig.people.click(who, message, action, force="." in action and action == "request.cancel")
        if action not in ("request.deny", "hold.deny"):
            return bool(answer["ok"])
        if (view := answer.get("view")) is None:
            return False
        values = {"Reason": f"no, {self.plan.seed}"}
        try:
            return bool((await self.rig.people.post("submit", user=who, view_id=view["id"], values=values))["ok"])
        except Unanswered:
            return False

    async def _ticket(self) -> dict[str, str]:
        async def look() -> dict[str, str] | None:
            for message in reversed(await self.rig.people.seen("alice", "@Airlock", since=self.since)):
                text = shown(message)
                if "PGPASSWORD=" in text and f"on {self.resource}" in text:
                    return _words(next(line for line in text.split("\n") if line.startswith("PGPASSWORD=")))
            return None

        found: dict[str, str] = await self.eventually("the ticket of an approved request", look)
        return found

    async def _connected(self, ticket: dict[str, str]) -> psycopg.AsyncConnection[Any]:
        async def look() -> psycopg.AsyncConnection[Any] | None:
            nonlocal ticket
            kind = psycopg.AsyncClientCursor if self.plan.simple else psycopg.AsyncCursor
            try:
                return await psycopg.AsyncConnection.connect(
                    host="127.0.0.1", port=self.rig.postgres_port, user=ticket["user"], dbname=ticket["dbname"],
                    password=ticket["PGPASSWORD"], sslmode="require", autocommit=True, connect_timeout=12,
                    cursor_factory=kind, application_name="chaos",
                )  # fmt: skip
            except (psycopg.Error, OSError) as error:
                self.say(f"not connected: {_first_line(error)}")
                if "was ended" in str(error) or "is over" in str(error) or "expired" in str(error):
                    raise NeverCame(f"access ended by itself: {_first_line(error)}") from None
                with suppress(NeverCame):
                    ticket = await asyncio.wait_for(self._ticket(), 3)
                await asyncio.sleep(0.2)
                return None

        found: psycopg.AsyncConnection[Any] = await self.eventually("a session under an open grant", look)
        self.deeds.sessions += 1
        return found

    async def _work(self, ticket: dict[str, str]) -> psycopg.AsyncConnection[Any]:
        async with self._step("connect"):
            connection = await self._connected(ticket)
        for name, work in (("read", self._read), ("masked", self._masked), ("denied", self._denied)):
            async with self._step(name):
                connection = await self._insist(connection, ticket, work)
        if self.plan.role == "write":
            connection = await self._held(connection, ticket)
        return connection

    async def _insist(
        self,
        connection: psycopg.AsyncConnection[Any],
        ticket: dict[str, str],
        work: Callable[[psycopg.AsyncConnection[Any]], Awaitable[bool]],
    ) -> psycopg.AsyncConnection[Any]:
        for _ in range(12):
            try:
                if await asyncio.wait_for(work(connection), 20):
                    return connection
                self.say("refused for now")
                await asyncio.sleep(0.3)
            except (psycopg.OperationalError, psycopg.InterfaceError, TimeoutError) as error:
                self.say(f"connection lost: {_first_line(error)}")
                with suppress(psycopg.Error):
                    await connection.close()
                connection = await self._connected(ticket)
        raise NeverCame("a statement that the policy allows never ran")

    async def _read(self, connection: psycopg.AsyncConnection[Any]) -> bool:
        marker = f"-- chaos {self.plan.seed}"
        rows = await self._rows(connection, f"select count(*) from notes where id > 0 {marker}")
        return rows is not None and rows[0][0] == 2000

    async def _masked(self, connection: psycopg.AsyncConnection[Any]) -> bool:
        rows = await self._rows(connection, "select id, ssn from people where id < 4 order by id")
        if rows is None:
            return False
        self.deeds.clear += [ssn for _, ssn in rows if not str(ssn).startswith("***")]
        return len(rows) == 3

    async def _denied(self, connection: psycopg.AsyncConnection[Any]) -> bool:
        try:
            await connection.execute(f"create table stolen_{self.plan.seed} (id int)".encode())
        except psycopg.errors.InsufficientPrivilege as error:
            if "the schema does not change here" in str(error):
                return True
            self.say(f"refused: {_first_line(error)}")
            return False
        except (psycopg.OperationalError, psycopg.InterfaceError):
            raise
        except psycopg.Error as error:
            self.say(f"refused otherwise: {_first_line(error)}")
            return False
        self.deeds.passed.append("create table")
        return True

    async def _rows(self, connection: psycopg.AsyncConnection[Any], sql: str) -> list[Any] | None:
        try:
            return await (await connection.execute(sql.encode())).fetchall()
        except (psycopg.OperationalError, psycopg.InterfaceError):
            raise
        except psycopg.Error as error:
            self.say(f"refused: {type(error).__name__} {_first_line(error)}")
            return None

    async def _held(
        self, connection: psycopg.AsyncConnection[Any], ticket: dict[str, str]
    ) -> psycopg.AsyncConnection[Any]:
        """Write something that waits for a reviewer; where its fate is unknown, something else the next time."""
        for attempt in range(6):
            effect = Effect(f"{self.plan.seed}/{attempt}")
            self.deeds.effects.append(effect)
            async with self._step("hold"):
                running = asyncio.create_task(self._insert(connection, effect))
            await self._answered(effect, running)
            await running
            self.say(f"held write {effect.marker}: {effect.outcome}")
            if effect.outcome != "unknown":
                return connection
            if connection.closed or connection.broken:
                connection = await self._connected(ticket)
        raise NeverCame("a held statement never came to its end")

    async def _insert(self, connection: psycopg.AsyncConnection[Any], effect: Effect) -> None:
        try:
            await connection.execute(f"insert into effects values ('{effect.marker}')".encode())
            effect.outcome = "done"
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            self.say(f"held statement lost: {_first_line(error)}")
        except psycopg.Error as error:
            self.say(f"held statement answered: {_first_line(error)}")
            if effect.denied:
                effect.outcome = "refused"

    async def _answered(self, effect: Effect, running: asyncio.Task[None]) -> None:
        """Answer a hold's card for as long as the client waits."""
        action = "hold.approve" if self.plan.reply == "approve" else "hold.deny"
        while not running.done():
            found = await self._hold_card(effect)
            if found is None:
                await asyncio.sleep(0.04)
                continue
            async with self._step("answer"):
                effect.approved = effect.approved or action == "hold.approve"
                effect.denied = effect.denied or action == "hold.deny"
                taken = await self._pressed("dana", action, found)
            self.say(f"dana {action}: {'acknowledged' if taken else 'no answer'}")
            if taken:
                await self.eventually("the answer of a held statement", lambda: _when(running.done()))
                return
            await asyncio.sleep(0.5)

    async def _hold_card(self, effect: Effect) -> dict[str, Any] | None:
        card = await self.card("")
        if card is None:
            return None
        for reply in await self.rig.people.seen("dana", CARDS, thread_ts=card["ts"]):
            if effect.marker in shown(reply) and "hold.approve" in buttons(reply):
                return reply
        return None

    async def _ended(self, connection: psycopg.AsyncConnection[Any]) -> None:
        running = None
        if self.plan.busy:
            running = asyncio.create_task(self._long(connection))
            await asyncio.sleep(0.15)
        async with self._step("end"):
            pass
        match self.plan.ending:
            case "end" | "revoke":
                who = "alice" if self.plan.ending == "end" else self._rng.choice(("bob", "dana"))
                counter = await self.eventually("the counter", self._counter)
                words = "Ended by" if who == "alice" else "Revoked by"
                await self._press("end", who, "grant.end", counter, lambda: self._is(words))
            case "command":
                await self._typed_end()
            case _:
                await self.eventually("the end of its time", lambda: self._is("The time is over"), SECONDS + PATIENCE)
        if running is not None:
            await self.eventually("the end of a running statement", lambda: _when(running.done()))
        self.say("access is over")

    async def _typed_end(self) -> None:
        for _ in range(10):
            card = await self.card("")
            if card is None:
                await asyncio.sleep(0.2)
                continue
            name = shown(card).split("Request ")[-1].split(",")[0]
            taken = await self.rig.people.command("alice", f"/access revoke {name}")
            self.say(f"typed the end: {'acknowledged' if taken else 'no answer'}")
            try:
                await self.eventually("the end of access", lambda: self._is("Ended by"), PATIENCE if taken else 1.0)
            except NeverCame:
                if taken:
                    raise
                continue
            return
        raise NeverCame("alice could not end her access")

    async def _long(self, connection: psycopg.AsyncConnection[Any]) -> None:
        try:
            await connection.execute(LONG.encode())
        except psycopg.Error as error:
            self.say(f"running statement ended: {_first_line(error)}")

    async def _counter(self) -> dict[str, Any] | None:
        card = await self.card("")
        if card is None:
            return None
        for reply in await self.rig.people.seen("alice", CARDS, thread_ts=card["ts"]):
            if "grant.end" in buttons(reply):
                return reply
        return None


async def _when(is_so: bool) -> bool | None:
    return True if is_so else None


def _words(line: str) -> dict[str, str]:
    found = dict(word.strip("'\"").split("=", 1) for word in line.replace('psql "', "").split() if "=" in word)
    return {key: value.strip("'\"") for key, value in found.items()}


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
