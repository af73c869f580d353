"""Orders, grants and tickets over the broker's real API."""

import asyncio
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.adapters.verify import verify
from broker.sessions.model import CloseReason, Entry
from tests.integration.broker import POLICY, PretendSession, Times, World, facts_of, until
from workflows.orders import sign_order
from workflows.reviews import Answer


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def types(events: list[dict[str, object]]) -> list[object]:
    return [event["type"] for event in events]


async def test_signed_order_opens_a_grant_and_a_ticket_is_minted(world: World) -> None:
    async with world.broker() as (_, bot):
        grant = await bot.grant()
        assert grant["state"] == "active"
        status, ticket = await bot.json("POST", f"/v1/grants/{grant['id']}/tickets")
        assert status == 201
        assert (ticket["database"], ticket["host"], ticket["port"]) == ("prod-db", "airlock.test", 7001)
        assert ticket["user"].startswith("alice.")
        events = await bot.events()
        assert types(events) == ["policy.loaded", "grant.opened", "ticket.minted"]
        opened = events[1]["data"]
        assert (opened["person"], opened["resource"], opened["role"]) == ("alice", "prod-db", "read")
        assert opened["by"] == ["dana"]
        status, found = await bot.json("GET", f"/v1/grants/{grant['id']}")
        assert found == grant
        status, found = await bot.json("GET", "/v1/grants", params={"request": grant["request"]})
        assert found == grant
    assert verify(world.settings.state).good


async def test_allowed_role_needs_no_review(world: World) -> None:
    async with world.broker() as (_, bot):
        grant = await bot.grant(resource="dev-db", reviews=[])
        assert grant["state"] == "active"


async def test_same_order_again_gives_the_same_grant_also_when_it_is_over(world: World) -> None:
    async with world.broker() as (_, bot):
        order = bot.order()
        first = await bot.post(order)
        assert await bot.post(order) == (200, first[1])
        await bot.call("DELETE", f"/v1/grants/{first[1]['id']}")
        status, again = await bot.post(order)
        assert (status, again["id"], again["state"]) == (200, first[1]["id"], "ended")


async def test_another_order_for_the_same_request_is_refused(world: World) -> None:
    async with world.broker() as (_, bot):
        order = bot.order()
        await bot.post(order)
        status, problem = await bot.post(order.model_copy(update={"id": "another1"}))
        assert (status, problem["code"]) == (409, "already")
        status, problem = await bot.post(order.model_copy(update={"seconds": 3600}))
        assert (status, problem["code"]) == (409, "already")


async def test_order_signed_by_another_key_tampered_or_stale_is_refused(world: World) -> None:
    async with world.broker() as (_, bot):
        order = bot.order()
        assert (await bot.post(order, Ed25519PrivateKey.generate()))[0] == 401
        token = sign_order(order, world.key, datetime.now(UTC))
        head, _, tail = token.partition(".")
        for bad in (
            f"{head}.{tail[:40]}{'A' if tail[40] != 'A' else 'B'}{tail[41:]}",
            sign_order(order, world.key, datetime.now(UTC) - timedelta(hours=1)),
            sign_order(order, world.key, datetime.now(UTC) + timedelta(hours=1)),
            "",
            "x" * 70_000,
        ):
            async with bot.http.post(f"{bot.url}/v1/grants", json={"order": bad}) as answer:
                assert (answer.status, (await answer.json())["code"]) == (401, "order_invalid")
        assert types(await bot.events()) == ["policy.loaded"]


@pytest.mark.parametrize(
    ("reviewers", "missing"),
    [(["alice"], 1), ([], 1), (["nobody", "alice"], 1)],
    ids=["self", "none", "stranger and self"],
)
async def test_reviews_that_do_not_count_are_found_by_the_brokers_own_tally(
    world: World, reviewers: list[str], missing: int
) -> None:
    async with world.broker() as (_, bot):
        status, problem = await bot.post(bot.order(reviews=[bot.review(person) for person in reviewers]))
        assert (status, problem["code"]) == (409, "more_reviews")
        assert problem["needs"] == [{"count": missing, "groups": ["dbas"]}]


async def test_reviewer_cannot_approve_their_own_request_though_in_the_group(world: World) -> None:
    async with world.broker() as (_, bot):
        status, problem = await bot.post(bot.order(requester="bob", reviews=[bot.review("bob")]))
        assert (status, problem["code"]) == (409, "more_reviews")


async def test_one_person_does_not_fill_two_places_and_the_request_may_come_back(world: World) -> None:
    async with world.broker() as (_, bot):
        order = bot.order(role="write", reviews=[bot.review("dana"), bot.review("dana")])
        status, problem = await bot.post(order)
        assert (status, problem["needs"]) == (409, [{"count": 1, "groups": ["dbas"]}])
        more = order.model_copy(update={"id": "second12", "reviews": [bot.review("dana"), bot.review("bob")]})
        assert (await bot.post(more))[0] == 201


async def test_denied_by_a_reviewer_by_policy_or_too_long_is_refused_with_an_event(world: World) -> None:
    async with world.broker() as (_, bot):
        denied = bot.order(reviews=[bot.review("dana", Answer.DENY), bot.review("bob")])
        for order in (denied, bot.order(seconds=7200), bot.order(requester="dana"), bot.order(resource="nowhere")):
            status, problem = await bot.post(order)
            assert (status, problem["code"]) == (403, "denied"), problem
        assert types(await bot.events()) == ["policy.loaded"] + 4 * ["grant.refused"]


async def test_missing_credential_refuses_the_grant_without_the_secret_and_the_request_stays_open(world: World) -> None:
    world.endpoints.missing.add(("prod-db", "read"))
    async with world.broker() as (_, bot):
        order = bot.order()
        status, problem = await bot.post(order)
        assert (status, problem["code"]) == (409, "refused")
        assert "file:prod-read" in problem["message"]
        assert (await bot.post(order))[1]["code"] == "refused"
        event = (await bot.events())[-1]
        assert (event["type"], event["data"]["request"]) == ("grant.refused", order.request)
        world.endpoints.missing.clear()
        assert (await bot.post(order.model_copy(update={"id": "second12"})))[0] == 201


async def test_policy_that_the_bot_knows_and_the_broker_does_not_yet_is_read_once_more(world: World) -> None:
    async with world.broker() as (process, bot):
        world.write_policy(POLICY.replace("max_duration: 1h", "max_duration: 3h"))
        assert (await bot.post(bot.order(seconds=7200, policy_hash="f" * 64)))[0] == 201
        assert (await bot.events())[1]["data"]["hash"] == process.policies.hash


async def test_missing_key_of_the_bot_is_said(world: World) -> None:
    pem = world.settings.order_key_path.read_bytes()
    world.settings.order_key_path.unlink()
    async with world.broker() as (_, bot):
        status, problem = await bot.post(bot.order())
        assert (status, problem["code"]) == (503, "no_order_key")
        world.settings.order_key_path.write_bytes(pem)
        await bot.grant()


async def test_hundred_concurrent_posts_of_one_order_make_one_grant(world: World) -> None:
    async with world.broker() as (_, bot):
        order = bot.order()
        answers = await asyncio.gather(*(bot.post(order) for _ in range(100)))
        assert len({body["id"] for _, body in answers}) == 1
        assert sorted(status for status, _ in answers) == [200] * 99 + [201]
        assert types(await bot.events()).count("grant.opened") == 1


async def test_twenty_concurrent_ends_make_one_event_and_wait_for_the_sessions(world: World) -> None:
    async with world.broker() as (process, bot):
        grant = await bot.grant()
        session = PretendSession(process, facts_of(process, grant), lag=0.2)
        assert session.open()
        calls = (
            bot.json("DELETE", f"/v1/grants/{grant['id']}", json={"by": "alice", "reason": "", "kind": kind})
            for kind in ["end", "revoke"] * 10
        )
        answers = await asyncio.gather(*calls)
        assert {body["verified"] for _, body in answers} == {True}
        assert len({body["state"] for _, body in answers}) == 1
        assert session.ended in ([CloseReason.ENDED], [CloseReason.REVOKED])
        await until(lambda: not process.book._closings)
        found = types(await bot.events())
        assert found[:3] == ["policy.loaded", "grant.opened", "session.opened"]
        assert sorted(found[3:], key=str) in (
            ["grant.closed", "grant.ended", "session.closed"],
            ["grant.closed", "grant.revoked", "session.closed"],
        )
        assert found[-1] == "grant.closed"
        assert not session.open()


async def test_session_that_is_not_verified_is_said(world: World) -> None:
    async with world.broker() as (process, bot):
        grant = await bot.grant()
        session = PretendSession(process, facts_of(process, grant), verified=False)
        session.open()
        status, body = await bot.json("DELETE", f"/v1/grants/{grant['id']}", params={"by": "bob", "kind": "revoke"})
        assert (status, body["state"], body["verified"]) == (200, "revoked", False)
        await until(lambda: not process.book._closings)
        closed = (await bot.events())[-1]
        assert (closed["type"], closed["data"]["verified"], closed["data"]["sessions"]) == ("grant.closed", False, 1)


async def test_new_ticket_voids_the_unused_one_only(world: World) -> None:
    async with world.broker() as (process, bot):
        grant = await bot.grant()
        tickets = [(await bot.json("POST", f"/v1/grants/{grant['id']}/tickets"))[1] for _ in range(2)]
        first, second = [await process.tickets.find(ticket["user"]) for ticket in tickets]
        assert first is not None
        assert second is not None
        assert first.refusal == "this ticket was replaced by a newer one"
        assert await process.tickets.used(first) is None
        assert second.refusal is None
        facts = await process.tickets.used(second)
        assert facts is not None
        assert facts.id == grant["id"]
        await bot.json("POST", f"/v1/grants/{grant['id']}/tickets")
        assert await process.tickets.used(second) is not None
        await bot.json("DELETE", f"/v1/grants/{grant['id']}", params={"by": "alice", "kind": "end"})
        over = await process.tickets.find(tickets[0]["user"])
        assert over is not None
        assert await process.tickets.used(over) is None
        assert await process.tickets.over(over) == "this access was ended"
        assert await process.tickets.find("alice.zzzz") is None
        assert await process.tickets.find("x" * 5000) is None


async def test_ticket_is_kept_as_a_scram_verifier_only(world: World) -> None:
    async with world.broker() as (process, bot):
        grant = await bot.grant()
        _, ticket = await bot.json("POST", f"/v1/grants/{grant['id']}/tickets")
        facts = await process.tickets.find(ticket["user"])
        assert facts is not None
        salted = hashlib.pbkdf2_hmac(
            "sha256", ticket["password"].encode(), facts.verifier.salt, facts.verifier.iterations
        )
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        assert hashlib.sha256(client_key).digest() == facts.verifier.stored_key
        assert hmac.digest(salted, b"Server Key", "sha256") == facts.verifier.server_key
        assert facts.verifier.iterations >= 4096
        assert len(ticket["password"]) == 52
        assert ticket["password"].isalnum()
    for path in world.settings.state.rglob("*"):
        if path.is_file():
            assert ticket["password"].encode() not in path.read_bytes(), path
            assert b"hunter2-credential" not in path.read_bytes(), path


async def test_tickets_are_bounded_and_end_with_the_grant(world: World) -> None:
    async with world.broker() as (process, bot):
        grant = await bot.grant()
        path = f"/v1/grants/{grant['id']}/tickets"
        answers = [await bot.json("POST", path) for _ in range(11)]
        assert [status for status, _ in answers] == [201] * 10 + [429]
        await bot.call("DELETE", f"/v1/grants/{grant['id']}")
        status, problem = await bot.json("POST", path)
        assert (status, problem["code"]) == (409, "over")
        facts = await process.tickets.find(answers[9][1]["user"])
        assert facts is not None
        assert await process.tickets.used(facts) is None
        assert await process.tickets.over(facts) == "this access was ended"
        assert (await bot.json("POST", "/v1/grants/nothing1/tickets"))[0] == 404


async def test_grant_expires_on_time_and_its_sessions_with_it(world: World) -> None:
    times = Times()
    async with world.broker(clock=times.clock()) as (process, bot):
        grant = await bot.grant()
        session = PretendSession(process, facts_of(process, grant))
        session.open()
        times.passed(timedelta(minutes=29))
        await process.book.tick()
        assert process.live.active(grant["id"]) is not None
        times.passed(timedelta(minutes=1))
        assert process.live.active(grant["id"]) is None
        await process.book.tick()
        await until(lambda: not process.book._closings)
        assert session.ended == [CloseReason.EXPIRED]
        row = await process.store.grant(grant["id"])
        assert row is not None
        assert (row.state.value, row.verified) == ("expired", True)


async def test_summary_counts_what_happened(world: World) -> None:
    async with world.broker() as (process, bot):
        grant = (await bot.grant())["id"]

        def entry(kind: str, data: dict[str, object]) -> None:
            process.recorder.write(Entry(kind, grant, "s1", data, {"sql": "select 'literal'"}))

        entry("session.opened", {"person": "alice"})
        entry("statement.allowed", {"statement": "1", "text": "select $1", "masked": ["public.customers.ssn"]})
        entry("statement.finished", {"statement": "1", "outcome": "ok", "rows": 3})
        entry("statement.denied", {"statement": "2", "text": "drop table x", "message": "no"})
        entry("session.closed", {"reason": "client", "verified": True})
        await bot.call("DELETE", f"/v1/grants/{grant}")
        await until(lambda: not process.book._closings)
        events = await bot.events()
        data = events[-1]["data"]
        assert {key: data[key] for key in ("statements", "denied", "masked", "sessions", "verified")} == {
            "statements": 2,
            "denied": 1,
            "masked": ["public.customers.ssn"],
            "sessions": 1,
            "verified": True,
        }
        assert "literal" not in json.dumps(events)
    assert verify(world.settings.state).good
