"""One run: somebody asks, reviewers answer, a client works, access ends; people and client try again where it fails."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import psycopg

from tests.chaos.client import Client, Connection, when
from tests.chaos.people import CARDS, Unanswered
from tests.chaos.stage import PATIENCE, SECONDS, Effect, NeverCame
from tests.support.bot_world import buttons, shown


class Story(Client):
    """Plays a plan on a rig."""

    async def play(self) -> None:
        """Do everything up to the moment where access ends by itself or somebody ends it."""
        card = await self._asked()
        if not await self._decided(card):
            await self.heal()
            return
        async with self.step("open"):
            ticket = await self.ticket()
        self.opened_at = time.time()
        connection = await self.work(ticket)
        try:
            await self._ended(connection)
        finally:
            with suppress(psycopg.Error, TimeoutError):
                await asyncio.wait_for(connection.close(), 5)
        async with self.step("summary"):
            pass
        await self.heal()

    async def _asked(self) -> dict[str, Any]:
        text = f"/access {self.resource} {self.plan.role} 1m because"
        for attempt in range(8):
            self.reason = f"chaos {self.plan.seed} ask {attempt}."
            async with self.step("ask"):
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
                people = ["bob", "erin"] if self.plan.role == "write" else [self.rng.choice(("bob", "dana"))]
                for who in people:
                    await self._press("decide", who, "request.approve", card, partial(self._approved_by, who))
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
        # The card names everybody who may answer, too.
        approved = re.findall(r"Approved by ([^.;]*?)(?: so far|[.;])", shown(card))
        return await when(any(who.capitalize() in names for names in approved))

    async def _press(
        self, step: str, who: str, action: str, message: dict[str, Any], look: Callable[[], Awaitable[bool | None]]
    ) -> None:
        """Press a button until what it is for has come; once it was acknowledged, it has to come by itself."""
        for _ in range(10):
            async with self.step(step):
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
        answer = await self.rig.people.click(who, message, action)
        if action not in ("request.deny", "hold.deny"):
            return bool(answer["ok"])
        if (view := answer.get("view")) is None:
            return False
        values = {"Reason": f"no, {self.plan.seed}"}
        try:
            return bool((await self.rig.people.post("submit", user=who, view_id=view["id"], values=values))["ok"])
        except Unanswered:
            return False

    async def answer_hold(self, effect: Effect, running: asyncio.Task[None]) -> None:
        """Answer a hold's card for as long as the client waits."""
        action = "hold.approve" if self.plan.reply == "approve" else "hold.deny"
        while not running.done():
            found = await self._hold_card(effect)
            if found is None:
                await asyncio.sleep(0.04)
                continue
            async with self.step("answer"):
                effect.approved = effect.approved or action == "hold.approve"
                effect.denied = effect.denied or action == "hold.deny"
                taken = await self._pressed("dana", action, found)
            self.say(f"dana {action}: {'acknowledged' if taken else 'no answer'}")
            if taken:
                await self.eventually("the answer of a held statement", lambda: when(running.done()))
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

    async def _ended(self, connection: Connection) -> None:
        running = None
        if self.plan.busy:
            running = asyncio.create_task(self.run_long(connection))
            await asyncio.sleep(0.15)
        if self.plan.ending == "expiry":
            # Whatever goes wrong here goes wrong while time runs out.
            await asyncio.sleep(max(self.opened_at + SECONDS - 0.7 - time.time(), 0))
        async with self.step("end"):
            pass
        match self.plan.ending:
            case "end" | "revoke":
                who = "alice" if self.plan.ending == "end" else self.rng.choice(("bob", "dana"))
                counter = await self.eventually("the counter", self._counter)
                words = "Ended by" if who == "alice" else "Revoked by"
                await self._press("end", who, "grant.end", counter, lambda: self._is(words))
            case "command":
                await self._typed_end()
            case _:
                await self.eventually("the end of its time", lambda: self._is("The time is over"), SECONDS + PATIENCE)
        if running is not None:
            await self.eventually("the end of a running statement", lambda: when(running.done()))
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

    async def _counter(self) -> dict[str, Any] | None:
        card = await self.card("")
        if card is None:
            return None
        for reply in await self.rig.people.seen("alice", CARDS, thread_ts=card["ts"]):
            if "grant.end" in buttons(reply):
                return reply
        return None
