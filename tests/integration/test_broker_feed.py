"""The feed over the broker's real API: cursors, long polls, merged streams, recordings and transcripts."""

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest

from broker.adapters.eventlog import EventLog
from broker.adapters.feed import read_cursor, write_cursor
from broker.adapters.segments import segments
from broker.adapters.verify import verify
from broker.sessions.model import Entry
from tests.integration.broker import World
from workflows.wire import FOLDED


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_every_cursor_gives_exactly_the_rest(world: World) -> None:
    async with world.broker(segment=2000) as (process, bot):
        for number in range(30):
            await process.recorder.write(Entry("a.happened", None, None, {"n": number}))
        events = await bot.events()
        assert len(list(process.log.folder.glob("broker*.ndjson"))) > 3
        assert [event["seq"] for event in events] == list(range(1, 32))
        for index in (0, 1, 7, 29, 30):
            assert await bot.events(events[index]["cursor"]) == events[index + 1 :]
        paged, cursor = [], ""
        while page := await bot.events(cursor, limit=4):
            assert len(page) <= 4
            paged += page
            cursor = page[-1]["cursor"]
        assert paged == events


async def test_statements_that_merely_ran_are_told_together_and_nothing_else_is(world: World) -> None:
    async with world.broker(segment=3000) as (process, bot):
        grants = [(await bot.grant())["id"] for _ in range(2)]
        chance = random.Random(7)
        written: list[Entry] = []
        for number in range(300):
            kind = chance.choice(["statement.allowed"] * 6 + ["statement.finished"] * 6 + ["statement.denied"])
            data: dict[str, Any] = {"statement": f"q{number}", "text": 'select "},\\"grant\\":" ?', "verb": "SELECT"}
            if kind == "statement.allowed":
                names = [f"public.t.c{number % 3}", 'public."]t".é'][: chance.randrange(3)]
                data |= {"masked": names, "rules": ["reads", "shape-1234"][: chance.randrange(1, 3)]}
                data |= {"revealed": ["public.t.c"]} if chance.random() < 0.1 else {}
            written.append(Entry(kind, chance.choice(grants), "s1", data))
            process.recorder.write(written[-1], lazy=True)
        await process.recorder.write(Entry("a.happened", None, None, {}))
        plain = await bot.events()
        page, folded, cursor = await bot.events(fold="true", limit=3), [], ""
        while page:
            assert len(page) <= 3
            folded += page
            cursor = page[-1]["cursor"]
            page = await bot.events(cursor, fold="true", limit=3)
        runs = [one for one in folded if one["type"] == FOLDED]
        assert len(runs) < 100 < len(plain) - 100
        alone = ("statement.allowed", "statement.finished")
        assert [one for one in folded if one["type"] != FOLDED] == [
            one for one in plain if one["type"] not in alone or one["data"].get("revealed")
        ]
        for grant in grants:
            mine = [one["data"]["grants"][grant] for one in runs if grant in one["data"]["grants"]]
            ran = [e.data for e in written if e.type == alone[0] and e.grant == grant and "revealed" not in e.data]
            assert sum(share["statements"] for share in mine) == len(ran) > 20
            assert set().union(*(share["masked"] for share in mine)) == set().union(*(one["masked"] for one in ran))
            for rule in ("reads", "shape-1234"):
                assert sum(share["rules"].get(rule, 0) for share in mine) == sum(rule in one["rules"] for one in ran)
        # Each cursor goes on where the plain one would.
        assert await bot.events(folded[-1]["cursor"]) == []


async def test_cursor_lives_through_a_restart(world: World) -> None:
    async with world.broker() as (_, bot):
        await bot.grant()
        before = await bot.events()
    async with world.broker() as (_, bot):
        assert (await bot.events())[: len(before)] == before
        after: list[dict[str, Any]] = []
        while len(after) < 2:
            # What the start wrote is told once it is synced.
            after += await bot.events((after or before)[-1]["cursor"])
        assert [event["type"] for event in after] == ["policy.loaded", "recording.resumed"]


async def test_feed_goes_on_behind_what_a_lost_host_kept_nothing_of(world: World) -> None:
    async with world.broker(segment=2000) as (process, bot):
        for number in range(30):
            await process.recorder.write(Entry("a.happened", None, None, {"n": number}))
        events = await bot.events()
        second = sorted(process.log.folder.glob("broker.0*.ndjson"))[0]
        content = second.read_bytes()
        lost = json.loads(content.splitlines()[-1])["seq"]
        second.write_bytes(content[:-100])
        found, cursor = [], ""
        while page := await bot.events(cursor, limit=4):
            found += page
            cursor = page[-1]["cursor"]
        assert [one["seq"] for one in found] == [one["seq"] for one in events if one["seq"] != lost]
        assert await bot.events(cursor) == []


async def test_streams_of_two_writers_merge_without_loss_or_repeat(world: World) -> None:
    async with world.broker() as (process, bot):
        reaper = EventLog(world.settings.home, "reaper", process.clock)

        async def reap() -> None:
            for number in range(20):
                await asyncio.to_thread(reaper.append, "reaper.acted", None, None, {"n": number})

        async def work() -> None:
            for number in range(60):
                await process.recorder.write(Entry("a.happened", None, None, {"n": number}))

        async def read() -> list[tuple[str, int]]:
            seen, cursor = [], ""
            while len(seen) < 81:
                for event in await bot.events(cursor, wait=5, limit=7):
                    seen.append((event["stream"], event["seq"]))
                    cursor = event["cursor"]
            return seen

        _, _, seen = await asyncio.gather(reap(), work(), read())
        reaper.close()
        assert len(set(seen)) == 81
        for stream in ("broker", "reaper"):
            order = [seq for name, seq in seen if name == stream]
            assert order == sorted(order)
        again = [(event["stream"], event["seq"]) for event in await bot.events()]
        assert sorted(again) == sorted(seen)
        assert await bot.events() == await bot.events()


async def test_long_poll_wakes_for_an_event_and_ends_without_one(world: World) -> None:
    async with world.broker() as (process, bot):
        cursor = (await bot.events())[-1]["cursor"]
        loop = asyncio.get_running_loop()
        started = loop.time()
        assert await bot.events(cursor, wait=0.3) == []
        assert 0.2 < loop.time() - started < 2
        waiting = asyncio.create_task(bot.events(cursor, wait=10))
        await asyncio.sleep(0.1)
        started = loop.time()
        await process.recorder.write(Entry("a.happened", None, None, {}))
        assert [event["type"] for event in await waiting] == ["a.happened"]
        assert loop.time() - started < 1


@pytest.mark.parametrize(
    "cursor",
    [
        "!!",
        "AAAA",
        "e30=",
        write_cursor({"broker": 1}),
        write_cursor({"broker": 10**12}),
        write_cursor({"nobody": 5}),
        write_cursor({"broker": -1}),
        write_cursor({"../x": 0}),
        write_cursor({"broker": True}),
        "x" * 1000,
    ],
)
async def test_bad_cursor_is_refused(world: World, cursor: str) -> None:
    async with world.broker() as (_, bot):
        status, body = await bot.json("GET", "/v1/events", params={"after": cursor})
        assert (status, body["code"]) == (400, "bad_cursor")


async def test_the_beginning_is_the_earliest_line_that_is_still_there(world: World) -> None:
    async with world.broker(segment=2_000) as (process, bot):
        for number in range(20):
            await process.recorder.write(Entry("a.happened", None, None, {"number": number}))
        every = await bot.events()
        first, second, *_ = segments(process.log.folder, "broker")
        inside = [event["cursor"] for event in every if 0 < read_cursor(event["cursor"])["broker"] < second.base]
        first.path.unlink()
        left = await bot.events()
        assert left == [event for event in every if read_cursor(event["cursor"])["broker"] > second.base]
        status, body = await bot.json("GET", "/v1/events", params={"after": inside[0]})
        assert (status, body["code"]) == (400, "bad_cursor")


def test_cursor_reads_as_written() -> None:
    assert read_cursor(write_cursor({"broker": 12, "reaper": 0})) == {"broker": 12, "reaper": 0}
    assert read_cursor("") == {}


async def test_recording_and_transcript_show_literals_only_to_who_asks_and_that_is_an_event(world: World) -> None:
    async with world.broker() as (process, bot):
        grant = (await bot.grant(reason="INC-1\r\nuntil     2099 \u202e\x1b[31m"))["id"]
        for kind, data in (
            ("session.opened", {"person": "alice", "application": "psql\x1b]0;x\x07"}),
            ("statement.allowed", {"statement": "1", "text": "select * from t where a = ?", "verb": "SELECT",
                                   "rules": ["reads"], "masked": ["public.t.ssn"]}),
            ("statement.finished", {"statement": "1", "outcome": "ok", "rows": 3, "milliseconds": 1.5}),
            ("statement.denied", {"statement": "2", "text": "drop table t", "message": "no", "hint": "ask"}),
        ):  # fmt: skip
            await process.recorder.write(Entry(kind, grant, "s1", data, {"sql": "select 'LITERAL'"}))
        path = f"/v1/recordings/{grant}"
        _, text = await bot.call("GET", path)
        assert "LITERAL" not in text
        assert "1.5 ms" in text
        assert "3 rows" in text
        assert "BLOCKED" in text
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "\r" not in text
        assert len([line for line in text.splitlines() if line.startswith("until ")]) == 1
        _, text = await bot.call("GET", path, params={"format": "json"})
        assert "LITERAL" not in text
        assert len([json.loads(line) for line in text.splitlines()]) == 5
        _, text = await bot.call("GET", path, params={"full": "1"})
        assert "LITERAL" in text
        _, text = await bot.call("GET", path, params={"format": "json", "full": "true"})
        assert text.encode() == (world.settings.home / "recordings" / f"{grant}.ndjson").read_bytes()
        read = [event for event in await bot.events() if event["type"] == "recording.read"]
        assert [event["data"] for event in read] == [{"recording": grant, "by": "alice"}] * 2
        status, body = await bot.json("GET", "/v1/recordings/nothing1")
        assert (status, body["code"]) == (404, "not_found")
    assert verify(world.settings.state).good


async def test_health_readiness_and_metrics_answer(world: World) -> None:
    async with world.broker() as (_, bot):
        await bot.grant()
        async with bot.http.get(f"{bot.url}/v1/health") as answer:
            assert answer.status == 200
        async with bot.http.get(f"{bot.url}/metrics") as answer:
            text = await answer.text()
        assert 'airlock_events_total{type="grant.opened"} 1.0' in text
        assert "airlock_active_grants 1.0" in text
        world.leases.alive = False
        async with bot.http.get(f"{bot.url}/v1/ready") as answer:
            assert answer.status == 503
