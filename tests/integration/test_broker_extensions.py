"""Orders that move a grant's end, and orders that give less than was asked for, over the broker's real API."""

import asyncio
import itertools
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.adapters.verify import verify
from broker.errors import RecordingFailed
from tests.integration.broker import POLICY, Bot, PretendSession, Times, World, facts_of, until
from tests.integration.test_broker_holds import open_hold
from workflows.grants import TABLE, GrantEvent, GrantState
from workflows.orders import Order, OrderedTerms
from workflows.reviews import Answer

LEVELS = POLICY.replace(
    'write: {credential: "file:prod-write",', 'write: {above: [read], credential: "file:prod-write",'
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.write_policy(LEVELS)
    return made


def extension(bot: Bot, grant: dict[str, Any], seconds: int = 900, **change: Any) -> Order:
    """An order that extends a grant by a quarter of an hour."""
    return bot.order(**{"kind": "extension", "extends": grant["id"], "seconds": seconds, **change})


def at(body: dict[str, Any], key: str = "expires_at") -> datetime:
    return datetime.fromisoformat(body[key])


async def test_extension_moves_the_end_of_the_grant_and_of_its_sessions_and_says_so(world: World) -> None:
    async with world.broker() as (process, bot):
        grant = await bot.grant()
        session = PretendSession(process, facts_of(process, grant))
        assert session.open()
        order = extension(bot, grant)
        status, body = await bot.post(order)
        assert (status, body["id"], body["request"]) == (201, grant["id"], grant["request"])
        assert at(body) - at(grant) == timedelta(minutes=15)
        assert session.extended == [at(body)]
        assert facts_of(process, grant).expires_at == at(body)
        event = (await bot.events())[-1]
        assert (event["type"], event["grant"]) == ("grant.extended", grant["id"])
        told = event["data"]
        assert (told["request"], told["order"], told["by"], told["seconds"]) == (order.request, order.id, ["dana"], 900)
        assert (at(told, "before"), at(told)) == (at(grant), at(body))
        assert await bot.json("GET", f"/v1/grants/{grant['id']}") == (200, body)
    assert verify(world.settings.state).good


async def test_same_extension_again_moves_nothing_also_when_the_grant_is_over(world: World) -> None:
    async with world.broker() as (process, bot):
        grant = await bot.grant()
        order = extension(bot, grant)
        answers = await asyncio.gather(*(bot.post(order) for _ in range(20)))
        assert sorted(status for status, _ in answers) == [200] * 19 + [201]
        assert {at(body) for _, body in answers} == {at(grant) + timedelta(minutes=15)}
        await bot.call("DELETE", f"/v1/grants/{grant['id']}")
        await until(lambda: not process.book._closings)
        status, body = await bot.post(order)
        assert (status, body["state"]) == (200, "ended")
        assert [event["type"] for event in await bot.events()].count("grant.extended") == 1


async def test_one_request_extends_once_and_gives_nothing_else(world: World) -> None:
    async with world.broker() as (_, bot):
        grant = await bot.grant()
        order = extension(bot, grant)
        await bot.post(order)
        again = order.model_copy(update={"id": "another1"})
        assert (await bot.post(again))[1]["code"] == "already"
        assert (await bot.post(order.model_copy(update={"seconds": 60})))[1]["code"] == "already"
        assert (await bot.post(bot.order(request=order.request)))[1]["code"] == "already"
        assert (await bot.post(extension(bot, grant, request=grant["request"])))[1]["code"] == "already"


async def test_extensions_reach_the_policys_maximum_and_no_further(world: World) -> None:
    async with world.broker() as (_, bot):
        grant = await bot.grant()
        assert (await bot.post(extension(bot, grant, 1200)))[0] == 201
        status, problem = await bot.post(extension(bot, grant, 660))
        assert (status, problem["code"], problem["message"]) == (
            403,
            "denied",
            "read on prod-db is given for at most 1h",
        )
        assert (await bot.events())[-1]["type"] == "extension.refused"
        status, body = await bot.post(extension(bot, grant, 600))
        assert (status, at(body) - at(body, "opened_at")) == (201, timedelta(hours=1))


async def test_many_extensions_at_once_stay_within_the_policys_maximum(world: World) -> None:
    async with world.broker() as (process, bot):
        grant = await bot.grant(seconds=600)
        answers = await asyncio.gather(*(bot.post(extension(bot, grant, 600)) for _ in range(12)))
        assert sorted(status for status, _ in answers) == [201] * 5 + [403] * 7
        assert facts_of(process, grant).expires_at == at(grant) + timedelta(minutes=50)


@pytest.mark.parametrize(
    "change", [{"role": "write", "reviews": 2}, {"resource": "dev-db"}, {"requester": "bob"}], ids=str
)
async def test_extension_may_move_only_the_end(world: World, change: dict[str, Any]) -> None:
    async with world.broker() as (process, bot):
        grant = await bot.grant()
        reviews = [bot.review(person) for person in ("bob", "dana")]
        status, problem = await bot.post(extension(bot, grant, **{**change, "reviews": reviews}))
        assert (status, problem["code"]) == (403, "denied")
        assert "only the end" in problem["message"]
        assert facts_of(process, grant).expires_at == at(grant)


async def test_reviews_of_an_extension_are_counted_again(world: World) -> None:
    async with world.broker() as (process, bot):
        grant = await bot.grant()
        status, problem = await bot.post(extension(bot, grant, reviews=[bot.review("alice")]))
        assert (status, problem["code"]) == (409, "more_reviews")
        status, problem = await bot.post(extension(bot, grant, reviews=[bot.review("dana", Answer.DENY)]))
        assert (status, problem["code"]) == (403, "denied")
        status, problem = await bot.post(extension(bot, {"id": "g0000000000000000"}))
        assert (status, problem["code"]) == (404, "not_found")
        assert facts_of(process, grant).expires_at == at(grant)


@pytest.mark.parametrize("state", [GrantState.ENDED, GrantState.EXPIRED, GrantState.REVOKED, GrantState.ACTIVE])
async def test_extension_is_obeyed_in_the_states_of_the_table_and_reopens_nothing(
    world: World, state: GrantState
) -> None:
    times = Times()
    async with world.broker(clock=times.clock()) as (process, bot):
        grant = await bot.grant()
        match state:
            case GrantState.ENDED | GrantState.REVOKED:
                kind = "end" if state is GrantState.ENDED else "revoke"
                await bot.call("DELETE", f"/v1/grants/{grant['id']}", params={"kind": kind})
            case GrantState.EXPIRED:
                times.passed(timedelta(minutes=31))
            case _:
                pass
        status, body = await bot.post(extension(bot, grant), now=process.clock.now())
        if (state, GrantEvent.EXTEND) in TABLE:
            assert (status, body["state"]) == (201, "active")
            return
        assert (status, body["code"]) == (409, "over")
        assert f"this access is over ({state.value})" in body["message"]
        assert "/access prod-db read" in body["hint"]
        await until(lambda: not process.book._closings)
        assert process.live.active(grant["id"]) is None
        assert (await process.book.get(grant["id"])).expires_at == at(grant)
        types = [event.type for event in await process.feed.read("", 100, 0)]
        assert "extension.refused" in types
        assert "grant.extended" not in types


async def test_extension_and_end_at_once_leave_a_grant_that_is_over(world: World) -> None:
    async with world.broker() as (process, bot):
        for _ in range(10):
            grant = await bot.grant()
            await asyncio.gather(
                bot.post(extension(bot, grant)), bot.call("DELETE", f"/v1/grants/{grant['id']}", params={"kind": "end"})
            )
            await until(lambda: not process.book._closings)
            assert process.live.active(grant["id"]) is None
            assert (await bot.json("GET", f"/v1/grants/{grant['id']}"))[1]["state"] == "ended"
            story = [event for event in await bot.events() if event["grant"] == grant["id"]]
            kinds = [event["type"] for event in story]
            if "grant.extended" in kinds:
                assert kinds.index("grant.extended") < kinds.index("grant.ended")
    assert verify(world.settings.state).good


async def test_extension_that_cannot_be_recorded_reaches_no_session_and_is_put_right_by_the_same_order(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.broker() as (process, bot):
        grant = await bot.grant()
        session = PretendSession(process, facts_of(process, grant))
        assert session.open()
        write = process.recorder.write

        def fail(entry: Any, **more: Any) -> Any:
            if entry.type == "grant.extended":
                raise RecordingFailed("the disk is full")
            return write(entry, **more)

        order = extension(bot, grant)
        monkeypatch.setattr(process.recorder, "write", fail)
        status, problem = await bot.post(order)
        assert (status, problem["code"]) == (503, "recording")
        assert session.extended == []
        assert facts_of(process, grant).expires_at == at(grant)
        monkeypatch.undo()
        status, body = await bot.post(order)
        assert (status, session.extended) == (200, [at(grant) + timedelta(minutes=15)])
        assert at(body) == session.extended[0]
    assert verify(world.settings.state).good


async def test_extension_survives_a_broker_that_stopped_before_it_was_recorded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.broker() as (process, bot):
        grant = await bot.grant()
        order = extension(bot, grant)
        write = process.recorder.write

        def fail(entry: Any, **more: Any) -> Any:
            if entry.type == "grant.extended":
                raise RecordingFailed("the disk is full")
            return write(entry, **more)

        monkeypatch.setattr(process.recorder, "write", fail)
        await bot.post(order)
        monkeypatch.undo()
    async with world.broker() as (process, bot):
        assert facts_of(process, grant).expires_at == at(grant) + timedelta(minutes=15)
        extended = [event for event in await bot.events() if event["type"] == "grant.extended"]
        assert [event["data"]["order"] for event in extended] == [order.id]
        assert (await bot.post(order))[0] == 200
    assert verify(world.settings.state).good


async def test_extended_grant_ends_at_its_new_end_also_after_a_restart(world: World) -> None:
    times = Times()
    async with world.broker(clock=times.clock()) as (process, bot):
        grant = await bot.grant()
        await bot.post(extension(bot, grant))
        times.passed(timedelta(minutes=31))
        await process.book.tick()
        assert process.live.active(grant["id"]) is not None
    async with world.broker(clock=times.clock()) as (process, bot):
        assert process.live.active(grant["id"]) is not None
        times.passed(timedelta(minutes=15))
        await until(lambda: "grant.expired" in process.recorder.resume(grant["id"]).types)


async def test_step_of_the_wall_clock_gives_an_extended_grant_no_more_time(world: World) -> None:
    times = Times()
    async with world.broker(clock=times.clock()) as (process, bot):
        grant = await bot.grant()
        await bot.post(extension(bot, grant))
        times.step(timedelta(hours=-2))
        await process.book.tick()
        active = process.live.active(grant["id"])
        assert active is not None
        assert active.left(process.clock) <= 45 * 60


async def test_policy_that_gives_less_by_now_revokes_what_was_extended(world: World) -> None:
    async with world.broker() as (process, bot):
        grant = await bot.grant()
        await bot.post(extension(bot, grant))
        world.write_policy(LEVELS.replace("max_duration: 1h", "max_duration: 40m"))
        await process.policies.reload()
        await until(lambda: process.live.active(grant["id"]) is None)


def approved(bot: Bot, person: str, role: str, seconds: int) -> Any:
    """A review of less than was asked for."""
    return bot.review(person).model_copy(update={"terms": OrderedTerms(role=role, seconds=seconds)})


@pytest.mark.parametrize(
    ("role", "seconds", "people", "status"),
    [
        ("read", 900, [("bob", "read", 900)], 201),
        ("read", 600, [("bob", "read", 900)], 201),
        ("read", 901, [("bob", "read", 900)], 403),
        ("write", 900, [("bob", "read", 900), ("dana", "write", 1800)], 403),
        ("write", 1800, [("bob", "write", 900), ("dana", "write", 1800)], 403),
        ("write", 900, [("bob", "write", 900), ("dana", "write", 1800)], 201),
        ("write", 900, [("bob", "write", 900)], 409),
        ("write", 1801, [("bob", "write", 1800), ("dana", "write", 1800)], 403),
        ("read", 900, [("bob", "other", 900)], 403),
    ],
)
async def test_order_gives_no_more_than_its_reviewers_agreed_on(
    world: World, role: str, seconds: int, people: list[tuple[str, str, int]], status: int
) -> None:
    async with world.broker() as (_, bot):
        reviews = [approved(bot, *one) for one in people]
        asked = OrderedTerms(role="write", seconds=1800)
        answer, body = await bot.post(bot.order(role=role, seconds=seconds, asked=asked, reviews=reviews))
        assert answer == status, body
        if status == 201:
            assert (body["role"], at(body) - at(body, "opened_at")) == (role, timedelta(seconds=seconds))


async def test_without_an_order_of_roles_none_is_lower(world: World) -> None:
    world.write_policy(POLICY)
    async with world.broker() as (_, bot):
        asked = OrderedTerms(role="write", seconds=1800)
        order = bot.order(role="read", asked=asked, reviews=[approved(bot, "bob", "read", 1800)])
        assert (await bot.post(order))[0] == 403


def test_only_an_active_grant_can_be_extended() -> None:
    assert [state for state, event in itertools.product(GrantState, GrantEvent) if (state, event) in TABLE
            and event is GrantEvent.EXTEND] == [GrantState.ACTIVE]  # fmt: skip


async def test_extension_lets_what_is_held_wait_longer_and_says_so(world: World) -> None:
    async with world.broker() as (process, bot):
        grant = await bot.grant(seconds=60)
        hold = open_hold(process, grant)
        assert at((await bot.json("GET", f"/v1/holds/{hold.id}"))[1]) == at(grant)
        status, body = await bot.post(extension(bot, grant))
        assert status == 201
        view = (await bot.json("GET", f"/v1/holds/{hold.id}"))[1]
        assert at(view) - at(view, "opened_at") == timedelta(minutes=10)
        assert at(view) < at(body)
        [told] = [event["data"] for event in await bot.events() if event["type"] == "hold.prolonged"]
        assert (told["hold"], at(told)) == (hold.id, at(view))
    assert verify(world.settings.state).good
