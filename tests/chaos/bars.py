"""The bars that hold on a quiet rig: races of clicks, kills, acknowledgements, releases; all measured and printed."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.chaos.evidence import Watch, bot_rows, broker_rows
from tests.chaos.people import CARDS
from tests.chaos.policy import RESOURCES, resource
from tests.chaos.rig import Rig
from tests.chaos.stage import LONG
from tests.chaos.upstream import Upstream
from tests.integration.broker import Bot
from tests.support.bot_world import buttons, shown

CLICKS = 20
TOGETHER = 150
"""So many sessions run to their end at a time: the upstream takes 400 connections, and spares are among them."""
CROWD = ("alice", "bob", "dana", "erin", "gus")


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar as measured."""

    name: str
    measured: str
    held: bool

    def __str__(self) -> str:
        return f"{'ok' if self.held else 'MISSED':>6}  {self.name}: {self.measured}"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How often each is tried."""

    races: int = 10
    kills: int = 40
    kills_alone: int = 20
    seconds: int = 10
    releases: int = 30


class Bars:
    """A quiet rig and what is measured on it."""

    def __init__(self, rig: Rig, watch: Watch) -> None:
        self.rig = rig
        self.watch = watch

    async def race(self, count: int) -> Bar:
        """Twenty clicks by five people on one card at once: one decision, and everybody hears something."""
        await self.rig.people.post("command", user="bob", channel=CARDS, text="/invite @gus")
        wrong: list[str] = []
        decisions: Counter[str] = Counter()
        clicks = 0
        for number in range(count):
            reason = f"race {number}."
            since = f"{time.time() - 1:.6f}"
            assert await self.rig.people.command("alice", f"/access {resource(number)} read 1m because {reason}")
            card = await self._card(reason, since)
            await asyncio.sleep(0.05)
            rng = random.Random(number)
            doing = [
                (CROWD[turn % 5], "request.cancel" if rng.random() < 0.25 else "request.approve")
                for turn in range(CLICKS)
            ]
            rng.shuffle(doing)
            before = await self._whispers(since)
            answers = await asyncio.gather(*(self._press(who, what, card) for who, what in doing))
            clicks += len(answers)
            if bad := [answer["error"] for answer in answers if not answer["ok"]]:
                wrong.append(f"race {number}: not acknowledged: {Counter(bad)}")
            wrong += await self._judged(number, reason, since, before, decisions)
        words = f"{count} races, {clicks} clicks, decisions {dict(decisions)}, {len(wrong)} wrong {wrong[:3] or ''}"
        return Bar(f"{CLICKS} clicks by {len(CROWD)} people on one card", words, not wrong)

    async def _press(self, who: str, action: str, card: dict[str, Any]) -> dict[str, Any]:
        token = next(e["value"] for b in card["blocks"] if b["type"] == "actions" for e in b["elements"])
        return await self.rig.people.click(who, card, action, force=True, value=token, wait_ms=0)

    async def _judged(self, number: int, reason: str, since: str, before: int, decisions: Counter[str]) -> list[str]:
        """Wait until every click was worked on, then count decisions and answers."""
        async with asyncio.timeout(30):
            while bot_rows(self.rig, "select 1 from inbox where done_at is null") or bot_rows(
                self.rig, "select 1 from outbox where sent_at is null and lane like 'tell:%'"
            ):
                await asyncio.sleep(0.02)
        [request] = bot_rows(self.rig, "select * from requests where reason = ?", reason)
        decisions[request["state"]] += 1
        orders = bot_rows(self.rig, "select 1 from outbox where kind = 'order' and lane = ?", f"order:{request['id']}")
        wrong = []
        if request["state"] not in ("approved", "cancelled"):
            wrong.append(f"race {number} ended {request['state']}")
        if len(orders) != (request["state"] == "approved"):
            wrong.append(f"race {number}: {len(orders)} orders, {request['state']}")
        told = await self._whispers(since) - before
        if told != CLICKS - 1:
            wrong.append(f"race {number}: one click decided, and {told} of the other {CLICKS - 1} were answered")
        return wrong

    async def _whispers(self, since: str) -> int:
        count = 0
        for who in CROWD:
            count += sum(message["ephemeral"] for message in await self.rig.people.seen(who, CARDS, since=since))
        return count

    async def _card(self, has: str, since: str) -> dict[str, Any]:
        async with asyncio.timeout(30):
            while True:
                for message in await self.rig.people.seen("bob", CARDS, since=since):
                    if has in shown(message) and not message["ephemeral"]:
                        return message
                await asyncio.sleep(0.02)

    def _bot(self) -> Bot:
        key: Any = load_pem_private_key((self.rig.state / "bot" / "order.pem").read_bytes(), None)
        return Bot(key, self.rig.api, self.rig.http)

    async def kills(self, count: int) -> Bar:
        """Sessions at work whose grant is revoked, or runs out, are gone from the upstream within a second."""
        revoked = count - count // 2
        late = [*await self._expired(count // 2), *await self._revoked(revoked)]
        late.sort()
        worst = late[-1]
        p50, p99 = late[len(late) // 2] * 1000, late[int(len(late) * 0.99)] * 1000
        words = (
            f"{revoked} revoked, {count // 2} expired; p50 {p50:.0f} ms, p99 {p99:.0f} ms, max {worst * 1000:.0f} ms"
        )
        held = p99 <= 500 and worst <= 1.0
        return Bar("session gone after revoke or expiry, p99 500 ms, max 1 s, by the upstream's own log", words, held)

    async def kills_alone(self, count: int) -> Bar:
        """Sessions at work end at their time though the broker stands still, and at once where it is killed."""
        broker, late = self.rig.members["broker"], []
        stopped = await self._opened_together(count // 2)
        broker.freeze()
        ends = {grant["id"]: _deadline(self.rig, grant) for grant, _ in stopped}
        late += [await self._ended_at(grant, 120) - ends[grant["id"]] for grant, _ in stopped]
        await self.rig.healed()
        await asyncio.gather(*(work for _, work in stopped))
        killed = await self._opened_together(count - count // 2)
        asked = time.time()
        broker.up.clear()
        broker.kill(pause=5.0)
        late += [await self._ended_at(grant) - asked for grant, _ in killed]
        await asyncio.wait_for(broker.up.wait(), 60)
        await asyncio.gather(*(work for _, work in killed))
        late.sort()
        words = (
            f"{len(stopped)} past their end with it stopped, {len(killed)} as it was killed;"
            f" p50 {late[len(late) // 2]:.2f} s, max {late[-1]:.2f} s"
        )
        return Bar("session gone with the broker stopped or killed, max 3 s", words, late[-1] <= 3.0)

    async def _opened_together(self, count: int) -> list[tuple[dict[str, Any], asyncio.Task[None]]]:
        bot = self._bot()
        return [await self._opened(bot, number, busy=number % 40 == 0) for number in range(count)]

    async def _opened(self, bot: Bot, number: int, busy: bool) -> tuple[dict[str, Any], asyncio.Task[None]]:
        order = bot.order(resource=resource(number), seconds=60)
        status, grant = await bot.post(order)
        assert status == 201, grant
        _, ticket = await bot.json("POST", f"/v1/grants/{grant['id']}/tickets")
        connection = await psycopg.AsyncConnection.connect(
            host="127.0.0.1", port=self.rig.postgres_port, user=ticket["user"], dbname=ticket["database"],
            password=ticket["password"], sslmode="require", autocommit=True,
        )  # fmt: skip
        # While it is open: the broker begins its leases anew now and then, where none is.
        self.watch.look()
        return grant, asyncio.create_task(_work(connection, busy))

    async def _revoked(self, count: int) -> list[float]:
        bot, late = self._bot(), []
        for number in range(count):
            grant, work = await self._opened(bot, number, busy=number % 5 == 0)
            await asyncio.sleep(0.02)
            asked = time.time()
            status, body = await bot.json("DELETE", f"/v1/grants/{grant['id']}", params={"by": "dana"})
            assert status == 200, body
            await work
            late.append(await self._ended_at(grant) - asked)
        return late

    async def _expired(self, count: int) -> list[float]:
        late = []
        for begin in range(0, count, TOGETHER):
            opened = await self._opened_together(min(TOGETHER, count - begin))
            await asyncio.gather(*(work for _, work in opened))
            late += [await self._ended_at(grant) - _deadline(self.rig, grant) for grant, _ in opened]
        return late

    async def _ended_at(self, grant: dict[str, Any], patience: float = 20.0) -> float:
        async with asyncio.timeout(patience):
            while True:
                self.rig.upstream.flush()
                self.watch.look()
                names = {f"airlock:{session}" for session, of in self.watch.leases.items() if of == grant["id"]}
                mine = [backend for backend in self.rig.upstream.backends if backend.name in names]
                if mine and all(backend.ended is not None for backend in mine):
                    return max(backend.ended or 0.0 for backend in mine)
                await asyncio.sleep(0.05)

    async def acknowledgements(self, seconds: int) -> Bar:
        """Payloads at fifty a second are acknowledged in time."""
        people, rate = self.rig.people, 50
        first = max((entry["seq"] for entry in (await people.get("journal"))["entries"]), default=0)
        sent: dict[str, float] = {}
        took: list[float] = []
        refused = 0

        async def collect() -> None:
            nonlocal first
            for entry in (await people.get("journal", since=str(first)))["entries"]:
                first = max(first, entry["seq"])
                body = entry["body"] if isinstance(entry["body"], dict) else {}
                name = str(body.get("envelope_id", ""))
                if entry["direction"] == "to_app" and name:
                    sent[name] = entry["at"]
                elif entry["kind"] == "ack" and name in sent:
                    took.append(entry["at"] - sent.pop(name))

        async def one(number: int) -> bool:
            text = ("/access list", "/access status", f"/access {resource(number)} read 1m because load {number}")
            return await people.command(CROWD[number % 3], text[number % 3])

        began, tasks = time.monotonic(), []
        for number in range(rate * seconds):
            tasks.append(asyncio.create_task(one(number)))
            await asyncio.sleep(max(0.0, began + (number + 1) / rate - time.monotonic()))
            if number % rate == 0:
                await collect()
        refused = sum(not taken for taken in await asyncio.gather(*tasks))
        await collect()
        took.sort()
        p50, p99 = took[len(took) // 2] * 1000, took[int(len(took) * 0.99)] * 1000
        words = (
            f"{len(tasks)} in {seconds} s; p50 {p50:.0f} ms, p99 {p99:.0f} ms, max {took[-1] * 1000:.0f} ms;"
            f" {refused + len(sent)} not acknowledged"
        )
        return Bar("acknowledgement at 50 a second, p99 500 ms", words, p99 <= 500 and not refused and not sent)

    async def releases(self, count: int) -> Bar:
        """From a click on a held statement's card to its client's answer."""
        people = self.rig.people
        reason, since = "releases.", f"{time.time() - 1:.6f}"
        await people.command("alice", f"/access {resource(RESOURCES - 1)} write 30m because {reason}")
        card = await self._card(reason, since)
        for who in ("bob", "erin"):
            await people.click(who, card, "request.approve")
        bot = self._bot()
        grant = await self._grant(reason)
        _, ticket = await bot.json("POST", f"/v1/grants/{grant}/tickets")
        connection = await psycopg.AsyncConnection.connect(
            host="127.0.0.1", port=self.rig.postgres_port, user=ticket["user"], dbname=ticket["database"],
            password=ticket["password"], sslmode="require", autocommit=True,
        )  # fmt: skip
        took, trips = [], []
        for number in range(count):
            running = asyncio.create_task(_timed(connection, f"insert into effects values ('release {number}')"))
            held = await self._held(card, f"release {number}")
            await asyncio.sleep(0.1)
            asked = time.monotonic()
            await people.api("api.test")
            trips.append(time.monotonic() - asked)
            clicked = time.monotonic()
            await people.click("dana", held, "hold.approve", wait_ms=0)
            took.append(await running - clicked)
        await connection.close()
        took.sort()
        p50, p95 = took[len(took) // 2] * 1000, took[int(len(took) * 0.95)] * 1000
        trip = sorted(trips)[len(trips) // 2] * 1000
        words = f"{count} held; p50 {p50:.0f} ms, p95 {p95:.0f} ms; the workspace's own round trip {trip:.0f} ms"
        return Bar("click to released statement's result, p95 300 ms", words, p95 <= 300)

    async def _grant(self, reason: str) -> str:
        async with asyncio.timeout(30):
            while True:
                rows = bot_rows(
                    self.rig, "select g.id from grants g join requests r on r.id = g.request where r.reason = ?", reason
                )
                # The bot's own ticket comes first: one that is minted after it would be replaced by it.
                if rows and bot_rows(
                    self.rig,
                    "select 1 from outbox where sent_at is not null and key like ?",
                    f"ticket:{rows[0]['id']}:%",
                ):
                    return str(rows[0]["id"])
                await asyncio.sleep(0.05)

    async def _held(self, card: dict[str, Any], marker: str) -> dict[str, Any]:
        async with asyncio.timeout(30):
            while True:
                for reply in await self.rig.people.seen("dana", CARDS, thread_ts=card["ts"]):
                    if f"{marker}'" in json.dumps(reply) and "hold.approve" in buttons(reply):
                        return reply
                await asyncio.sleep(0.02)


def _deadline(rig: Rig, grant: dict[str, Any]) -> float:
    """Return when a grant ends, as a wall time."""
    [row] = broker_rows(rig, "select * from grants where id = ?", grant["id"])
    return float(row["boot_deadline"]) + (time.time() - time.clock_gettime(time.CLOCK_BOOTTIME))


async def _work(connection: psycopg.AsyncConnection[Any], busy: bool) -> None:
    with suppress(psycopg.Error):
        if busy:
            await connection.execute(LONG.encode())
        await connection.execute(b"select count(*) from notes")
        while True:
            await connection.execute(b"select 1")
            await asyncio.sleep(0.5)


async def _timed(connection: psycopg.AsyncConnection[Any], sql: str) -> float:
    await connection.execute(sql.encode())
    return time.monotonic()


async def measure(sizes: Sizes, echo: Callable[[str], None], workers: int = 1) -> list[Bar]:
    """Measure every bar on a rig of its own."""
    upstream = Upstream()
    await upstream.start()
    found: list[Bar] = []
    try:
        rig = Rig(upstream, echo, workers)
        await rig.start()
        watch = Watch(rig)
        bars = Bars(rig, watch)
        try:
            for bar in (
                bars.releases(sizes.releases),
                bars.race(sizes.races),
                bars.kills(sizes.kills),
                bars.kills_alone(sizes.kills_alone),
                bars.acknowledgements(sizes.seconds),
            ):
                found.append(await bar)
                echo(str(found[-1]))
        finally:
            await rig.stop()
    finally:
        await upstream.stop()
    return found
