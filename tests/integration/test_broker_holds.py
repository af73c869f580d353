"""Holds over the broker's real API and log: answered, ended with their grant, given up by a restart."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from broker.adapters.process import Process
from broker.adapters.verify import verify
from broker.sessions.holds import Asked, Hold, HoldFacts, Sought
from broker.sessions.model import GrantFacts, SessionFacts
from broker.sessions.shapes import Shape, ShapeRule
from policies.engine.decisions import Need, Requirement
from tests.integration.broker import Bot, PretendSession, World, facts_of
from workflows.orders import HoldAnswer, sign_hold_answer
from workflows.reviews import Answer


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def open_hold(process: Process, grant: dict[str, Any], session: str = "s1", **change: Any) -> Hold:
    facts = SessionFacts(session, "t1", facts_of(process, grant))
    values = {
        "statement": "q1",
        "asked": Asked("delete from carts where id = 7"),
        "requirement": Requirement((Need(1, ("dbas",)),)),
        "rules": ("prod-writes",),
        "seconds": 600.0,
        "sequence": 1,
        "verb": "DELETE",
        "redacted": "delete from carts where id = ?",
    }
    return process.holds.open(HoldFacts(session=facts, **{**values, **change}))


async def answered(
    bot: Bot, hold: str, digest: str, answer: Answer = Answer.APPROVE, shape: str | None = None
) -> tuple[int, dict[str, Any]]:
    review = bot.review("dana", answer).model_copy(update={"shape": shape})
    signed = HoldAnswer(id="answer" + hold, hold=hold, digest=digest, reviews=[review], policy_hash="0" * 64)
    body = {"answer": sign_hold_answer(signed, bot.key, datetime.now(UTC))}
    async with bot.http.post(f"{bot.url}/v1/holds/{hold}/answers", json=body) as response:
        return response.status, await response.json()


async def test_a_hold_is_shown_and_answered_once(world: World) -> None:
    async with world.broker() as (process, bot):
        grant = await bot.grant()
        hold = open_hold(process, grant)
        status, view = await bot.json("GET", f"/v1/holds/{hold.id}")
        assert (status, view["state"], view["text"]) == (200, "waiting", "delete from carts where id = 7")
        assert (await answered(bot, hold.id, "0" * 64))[1]["code"] == "order_invalid"
        status, after = await answered(bot, hold.id, view["digest"])
        assert (status, after["state"]) == (200, "released")
        assert await answered(bot, hold.id, view["digest"]) == (200, after)
        assert process.holds.use(hold.id, None)
        events = {event["type"]: event["data"] for event in await bot.events()}
        assert events["hold.opened"]["text"] == "delete from carts where id = ?"
        assert events["hold.opened"]["needs"] == [{"count": 1, "groups": ["dbas"]}]
        assert events["hold.released"]["by"] == ["dana"]
        assert (await bot.json("GET", "/v1/holds/hold1234"))[0] == 404
        late = open_hold(process, grant, session="s2")
        process.holds.leave("s2", "client")
        status, problem = await answered(bot, late.id, (await process.holds.get(late.id)).digest)
        assert (status, problem["code"]) == (409, "over")
        assert problem["message"] == "nobody waits for this statement any more"
    assert verify(world.settings.state).good


async def test_a_grant_that_ends_takes_its_holds_along_before_it_is_closed(world: World) -> None:
    async with world.broker() as (process, bot):
        grant = await bot.grant()
        session = PretendSession(process, facts_of(process, grant))
        assert session.open()
        hold = open_hold(process, grant, waits=False)
        refused = open_hold(process, grant, asked=Asked("delete from carts"))
        await answered(bot, refused.id, (await process.holds.get(refused.id)).digest, Answer.DENY)
        await bot.call("DELETE", f"/v1/grants/{grant['id']}", params={"by": "bob"})
        types: list[str] = []
        async with asyncio.timeout(20):
            while "grant.closed" not in types:
                events = await bot.events()
                types = [event["type"] for event in events]
        assert types.index("grant.revoked") < types.index("hold.abandoned") < types.index("grant.closed")
        abandoned = events[types.index("hold.abandoned")]["data"]
        assert (abandoned["hold"], abandoned["reason"]) == (hold.id, "revoked")
        closed = events[types.index("grant.closed")]["data"]
        assert (closed["statements"], closed["denied"]) == (1, 1)
        _, transcript = await bot.call("GET", f"/v1/recordings/{grant['id']}", params={"full": "true"})
        assert "HELD DELETE" in transcript
        assert "delete from carts where id = 7" in transcript
        _, redacted = await bot.call("GET", f"/v1/recordings/{grant['id']}")
        assert "id = 7" not in redacted
    assert verify(world.settings.state).good


async def test_a_broker_that_comes_back_gives_up_what_its_predecessor_held(world: World) -> None:
    async with world.broker() as (process, bot):
        grant = await bot.grant()
        hold, released = open_hold(process, grant), open_hold(process, grant)
        await answered(bot, released.id, (await process.holds.get(released.id)).digest)
        seen = (await bot.json("GET", f"/v1/holds/{hold.id}"))[1]
        # As if it had been killed: nothing is said at the end.
        process.holds._live.clear()
    async with world.broker() as (process, bot):
        found = [event["data"] for event in await bot.events() if event["type"] == "hold.abandoned"]
        assert {(one["hold"], one["reason"]) for one in found} == {(hold.id, "shutdown"), (released.id, "shutdown")}
        path = f"/v1/holds/{hold.id}"
        assert (await bot.json("GET", path))[0] == 404
        assert (await answered(bot, hold.id, "0" * 64))[0] == 404
        # Its card shows it on: the grant's recording has all of it.
        status, view = await bot.json("GET", path, params={"grant": grant["id"]})
        assert (status, view["text"], view["state"]) == (200, "delete from carts where id = 7", "abandoned")
        same = ("id", "grant", "session", "digest", "redacted", "person", "resource", "role", "parameters", "effects")
        assert [view[key] for key in same] == [seen[key] for key in same]
        assert {event["type"] for event in await bot.events()} >= {"recording.read"}
        other = await bot.grant()
        for wrong in (other["id"], "g0000000", "../etc"):
            assert (await bot.json("GET", path, params={"grant": wrong}))[0] in (400, 404)
    async with world.broker() as (_, bot):
        assert [event["type"] for event in await bot.events()].count("hold.abandoned") == 2


async def test_a_broker_that_stops_gives_up_what_it_holds(world: World) -> None:
    async with world.broker() as (process, bot):
        open_hold(process, await bot.grant(), waits=False)
    async with world.broker() as (_, bot):
        found = [event["data"]["reason"] for event in await bot.events() if event["type"] == "hold.abandoned"]
        assert found == ["shutdown"]


SHAPE = Shape("a" * 64, "delete from carts where id = $1", ("$1: any whole number",))


def matched(process: Process, grant: GrantFacts) -> ShapeRule | None:
    asked, needs = Asked("delete from carts where id = 8"), Requirement((Need(1, ("dbas",)),))
    return process.holds.match(Sought(grant, asked, SHAPE, needs, ("prod-writes",), waits=True))


async def test_an_approved_shape_outlives_the_broker_until_it_is_withdrawn_or_its_grant_ends(world: World) -> None:
    async with world.broker() as (process, bot):
        grant, other = await bot.grant(), await bot.grant()
        for one in (grant, other):
            hold = open_hold(process, one, shape=SHAPE)
            await answered(bot, hold.id, (await process.holds.get(hold.id)).digest, shape=SHAPE.digest)
        mine, others = (facts_of(process, one) for one in (grant, other))
        rule = matched(process, mine)
        assert rule is not None
        assert matched(process, others) not in (None, rule)
        assert (await bot.json("GET", f"/v1/shapes/{rule.id}"))[1]["text"] == SHAPE.text
    async with world.broker() as (process, bot):
        assert matched(process, mine) == rule
        _, view = await bot.json("DELETE", f"/v1/shapes/{rule.id}", params={"reason": "enough"})
        assert view["withdrawn_at"] is not None
        assert matched(process, mine) is None
        assert matched(process, others) is not None
        await bot.call("DELETE", f"/v1/grants/{other['id']}", params={"by": "bob"})
        assert matched(process, others) is None
        said = [event["data"] for event in await bot.events() if event["type"] == "shape.withdrawn"]
        assert [(one["shape"], one["reason"]) for one in said] == [(rule.id, "enough")]
        _, transcript = await bot.call("GET", f"/v1/recordings/{grant['id']}")
        assert f"dana approved this shape until the access ends, as rule {rule.id}" in transcript
        assert "delete from carts where id = ?" in transcript
    async with world.broker() as (process, _):
        assert matched(process, mine) is None
    assert verify(world.settings.state).good
