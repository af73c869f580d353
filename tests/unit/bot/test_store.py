"""The database: one winner, once, and the state tables repeated by it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from bot.adapters.boxes import Inbox, Outbox
from bot.adapters.desks import Desks
from bot.adapters.store import SqlWork, Store
from bot.adapters.tables import MIGRATIONS, grants, holds, metadata, requests
from bot.handlers import handle
from bot.intents import Approve, ApproveHold, Ask, Cancel
from bot.model import Exhibit, Given, Hold, Request
from bot.ordering import Opened, opened
from bot.outgoing import PostOrder
from bot.ports import Desk
from policies.engine.decisions import Need, Requirement
from tests.unit.bot.memory import LATER, NOW, CountingIds, desk, member, policy, source
from workflows import grants as grant_table
from workflows import holds as hold_table
from workflows import requests as request_table
from workflows.grants import GrantState
from workflows.holds import HoldState
from workflows.requests import RequestEvent, RequestState
from workflows.reviews import Answer
from workflows.storage.boxes import RowMoved
from workflows.storage.engine import make_engine, sqlite_url
from workflows.storage.migrate import upgrade


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


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    made = make_engine(sqlite_url(tmp_path / "bot.db"))
    await upgrade(made, MIGRATIONS)
    yield made
    await made.dispose()


@pytest.fixture
def desks(engine: AsyncEngine) -> Desks:
    clock = Still()
    return Desks(
        Store(engine, clock), Fixed(), clock, CountingIds(), command="/access", channel="C0ACCESS01", pending_cap=5
    )


async def filed(desks: Desks, role: str = "read") -> Request:
    async with desks.open() as (at, work):
        await handle(at, Ask(source("alice"), "prod-db", role, "30m", "why"), member("alice"), f"ask-{role}")
        [request] = [one for one in await work.requests_of("alice") if one.role == role]
    return request


async def test_migrations_make_what_the_program_expects(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        found = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync, opts={"compare_type": True}), metadata)
        )
    assert found == []


async def test_upgrading_twice_changes_nothing(engine: AsyncEngine) -> None:
    await upgrade(engine, MIGRATIONS)


async def test_what_is_stored_is_read_back_as_it_was(desks: Desks) -> None:
    request = await filed(desks, "write")
    async with desks.open() as (_, work):
        assert await work.request(request.id) == request
        assert await work.request_by_token(request.token) == request
        assert await work.request_by_token("another") is None
    assert request.requirement.needs[1].groups == ("security",)
    assert (request.asked_at, request.evidence.user) == (NOW, "U0ALICE001")


@pytest.mark.parametrize(("old", "new"), list(itertools.product(RequestState, RequestState)))
async def test_database_moves_requests_as_the_table_says(
    engine: AsyncEngine, desks: Desks, old: RequestState, new: RequestState
) -> None:
    request = await filed(desks)
    allowed = {(state, to) for (state, _), to in request_table.TABLE.items()}
    async with engine.begin() as connection:
        await connection.execute(text("drop trigger requests_birth"))
    path = {
        RequestState.PENDING: [],
        RequestState.APPROVED: ["approved"],
        RequestState.DENIED: ["denied"],
        RequestState.EXPIRED: ["expired"],
        RequestState.CANCELLED: ["cancelled"],
    }[old]
    async with engine.begin() as connection:
        for state in path:
            await connection.execute(update(requests).where(requests.c.id == request.id).values(state=state))
    move = update(requests).where(requests.c.id == request.id).values(state=new.value)
    if old is new or (old, new) in allowed:
        async with engine.begin() as connection:
            await connection.execute(move)
    else:
        with pytest.raises(DBAPIError, match="cannot move so"):
            async with engine.begin() as connection:
                await connection.execute(move)


@pytest.mark.parametrize(("old", "new"), list(itertools.product([GrantState.ACTIVE, GrantState.ENDED], GrantState)))
async def test_database_moves_grants_as_the_table_says(
    engine: AsyncEngine, desks: Desks, old: GrantState, new: GrantState
) -> None:
    request = await filed(desks)
    async with desks.open() as (at, _):
        await opened(at, Opened("g1", request.id, "o", NOW, LATER))
    async with engine.begin() as connection:
        await connection.execute(update(grants).values(state=old.value))
    allowed = {(state, to) for (state, _), to in grant_table.TABLE.items()}
    if old is new or (old, new) in allowed:
        async with engine.begin() as connection:
            await connection.execute(update(grants).values(state=new.value))
    else:
        with pytest.raises(DBAPIError, match="cannot move so"):
            async with engine.begin() as connection:
                await connection.execute(update(grants).values(state=new.value))


async def held(desks: Desks) -> Hold:
    request = await filed(desks)
    async with desks.open() as (at, work):
        await opened(at, Opened("g1", request.id, "o", NOW, LATER))
        digest, needs = "d" * 64, Requirement((Need(1, ("dbas",)), Need(1, ("security",))))
        what = (("prod-writes",), ("write",), ("public.orders",))
        hold = Hold("h0001", "t0", "g1", "s1", digest, HoldState.WAITING, needs, *what, NOW, LATER, Exhibit.CARD)
        await work.add_hold(hold)
    return hold


async def test_hold_and_its_reviews_are_read_back_as_they_were(desks: Desks) -> None:
    hold = await held(desks)
    given = Given("bob", "U0BOB00001", Answer.APPROVE, "", NOW, source("bob").evidence())
    async with desks.open() as (_, work):
        assert await work.hold(hold.id) == hold == await work.hold_by_token(hold.token)
        assert await work.holds_of("g1") == [hold]
        assert await work.hold("another") is None
        await work.add_hold_review(hold, given)
        await work.add_hold_review(hold, replace(given, person="erin"))
        await work.add_hold_review(hold, replace(given, answer=Answer.DENY))
        found = await work.hold_reviews(hold)
        assert [(one.person, one.answer) for one in found] == [("bob", Answer.DENY), ("erin", Answer.APPROVE)]
        assert await work.hold_reviews(replace(hold, digest="e" * 64)) == []
        changed = await work.change_hold(hold, answered=HoldState.REFUSED, note="x", people=("bob",))
        assert await work.hold(hold.id) == changed
        with pytest.raises(RowMoved):
            await work.change_hold(replace(hold, state=HoldState.RELEASED), note="y")


@pytest.mark.parametrize(("old", "new"), list(itertools.product(HoldState, HoldState)))
async def test_database_moves_holds_as_the_table_says(
    engine: AsyncEngine, desks: Desks, old: HoldState, new: HoldState
) -> None:
    await held(desks)
    ways = {HoldState.WAITING: (), HoldState.CONSUMED: (HoldState.RELEASED, HoldState.CONSUMED)}
    async with engine.begin() as connection:
        for state in ways.get(old, (old,)):
            await connection.execute(update(holds).values(state=state.value))
    allowed = {(state, to) for (state, _), to in hold_table.TABLE.items()}
    if old is new or (old, new) in allowed:
        async with engine.begin() as connection:
            await connection.execute(update(holds).values(state=new.value))
    else:
        with pytest.raises(DBAPIError, match="cannot move so"):
            async with engine.begin() as connection:
                await connection.execute(update(holds).values(state=new.value))


async def test_hold_is_born_waiting(desks: Desks) -> None:
    hold = await held(desks)
    with pytest.raises(DBAPIError, match="cannot begin so"):
        async with desks.open() as (_, work):
            await work.add_hold(replace(hold, id="h0002", token="t2", state=HoldState.RELEASED))


async def test_a_hundred_clicks_of_two_people_on_one_statement_are_one_answer(desks: Desks) -> None:
    await held(desks)
    async with desks.open() as (_, work):
        await work.want("hold:h0001", "hold:h0001")
        hold = await work.hold("h0001")
        assert hold is not None
        hold = await work.change_hold(hold, requirement=Requirement((Need(1, ("dbas",)),)))

    async def one(number: int) -> None:
        person = ("bob", "dana")[number % 2]

        async def do(at: Desk, _: SqlWork) -> None:
            await handle(at, ApproveHold(source(person), hold.token), member(person), f"click-{number}")

        await desks.settle(do)

    await asyncio.gather(*(one(number) for number in range(100)))
    async with desks.open() as (_, work):
        assert len(await work.hold_reviews(hold)) == 1
        assert await work.count_sent("click-") == 100


async def test_request_is_born_pending(engine: AsyncEngine, desks: Desks) -> None:
    request = await filed(desks)
    with pytest.raises(DBAPIError, match="cannot begin so"):
        async with desks.open() as (_, work):
            await work.add_request(replace(request, id="rq-9", token="t9", state=RequestState.APPROVED))


async def test_change_of_a_row_that_moved_meanwhile_is_refused(desks: Desks) -> None:
    request = await filed(desks)
    async with desks.open() as (_, work):
        stale = await work.request(request.id)
        await work.move_request(request, RequestEvent.CANCEL)
        assert stale is not None
        with pytest.raises(RowMoved):
            await work.move_request(stale, RequestEvent.APPROVE)


async def test_forty_people_at_once_make_one_decision(engine: AsyncEngine, desks: Desks) -> None:
    request = await filed(desks)

    async def one(number: int) -> None:
        person = ("bob", "dana")[number % 2]
        intent = Cancel(source("alice"), request.token) if number % 5 == 0 else Approve(source(person), request.token)
        who = member("alice" if number % 5 == 0 else person)

        async def do(at: Desk, _: SqlWork) -> None:
            await handle(at, intent, who, f"click-{number}")

        await desks.settle(do)

    await asyncio.gather(*(one(number) for number in range(40)))
    async with desks.open() as (_, work):
        now = await work.request(request.id)
        orders = await work.count_sent("order:")
        answered = await work.count_sent("click-")
    assert now is not None
    assert now.state in (RequestState.APPROVED, RequestState.CANCELLED)
    assert orders == (1 if now.state is RequestState.APPROVED else 0)
    assert answered >= 39


async def test_nothing_of_a_transaction_that_fails_is_kept(desks: Desks) -> None:
    async def files_and_fails(at: Desk, _: SqlWork) -> None:
        await handle(at, Ask(source("alice"), "prod-db", "read", "30m"), member("alice"), "x")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await desks.settle(files_and_fails)
    async with desks.open() as (_, work):
        assert await work.requests_of("alice", pending=False) == []
        assert await work.count_sent("") == 0


async def test_payload_is_kept_once_and_taken_once(engine: AsyncEngine, desks: Desks) -> None:
    inbox = Inbox(engine, Still())
    assert await inbox.keep("k", "command", {"a": "\ud800"})
    assert not await inbox.keep("k", "command", {"a": 2})
    [row] = await inbox.waiting()
    assert row.payload == {"a": "\ud800"}
    async with desks.open() as (_, work):
        assert await work.take("k")
    async with desks.open() as (_, work):
        assert not await work.take("k")
    assert await inbox.waiting() == []


async def test_payload_that_fails_for_good_is_put_aside(engine: AsyncEngine) -> None:
    inbox = Inbox(engine, Still())
    await inbox.keep("k", "command", {})
    [row] = await inbox.waiting()
    await inbox.failed(row.id, "x" * 5000, give_up=False)
    [row] = await inbox.waiting()
    assert row.attempts == 1
    await inbox.failed(row.id, "again", give_up=True)
    assert await inbox.waiting() == []


async def test_outbox_gives_the_first_row_of_every_lane(engine: AsyncEngine, desks: Desks) -> None:
    outbox = Outbox(engine, Still())
    async with desks.open() as (_, work):
        for key, lane in (("a1", "a"), ("b1", "b"), ("a2", "a")):
            assert await work.send(key, lane, PostOrder("r", key))
        assert not await work.send("a1", "a", PostOrder("r", "other"))
    first, second = await outbox.heads()
    assert (first.key, second.key) == ("a1", "b1")
    await outbox.begins(first)
    assert (await outbox.heads())[0].uncertain
    await outbox.failed(first, "busy", NOW + timedelta(seconds=2), uncertain=False)
    head = (await outbox.heads())[0]
    assert (head.key, head.uncertain, head.not_before) == ("a1", False, NOW + timedelta(seconds=2))
    await outbox.gave_up(first, "no")
    assert {row.key for row in await outbox.heads()} == {"a2", "b1"}


async def test_later_wish_for_a_message_has_a_later_version(desks: Desks) -> None:
    async with desks.open() as (_, work):
        await work.want("card:x", "lane")
        await work.want("card:x", "lane")
        shown = await work.shown("card:x")
        assert shown is not None
        assert (shown.wanted, shown.shown) == (2, 0)
        await work.message_is_at("card:x", "C0", "1.0", 2)
        shown = await work.shown("card:x")
    assert shown is not None
    assert (shown.channel, shown.ts, shown.shown) == ("C0", "1.0", 2)


async def test_cursor_moves_only_from_where_it_was(desks: Desks) -> None:
    async with desks.open() as (_, work):
        await work.move_cursor("feed", "", "c1")
        await work.move_cursor("feed", "c1", "c2")
    with pytest.raises(RowMoved):
        async with desks.open() as (_, work):
            await work.move_cursor("feed", "c1", "c3")
    with pytest.raises(RowMoved):
        async with desks.open() as (_, work):
            await work.move_cursor("feed", "", "c9")
    async with desks.open() as (_, work):
        assert await work.cursor("feed") == "c2"


async def test_second_review_of_a_person_replaces_the_first(desks: Desks) -> None:
    request = await filed(desks, "write")
    async with desks.open() as (at, work):
        await handle(at, Approve(source("bob"), request.token), member("bob"), "one")
        [given] = await work.reviews(request.id)
        await work.add_review(request.id, replace(given, answer=Answer.DENY))
        [again] = await work.reviews(request.id)
    assert again.answer is Answer.DENY


def test_desk_defaults_are_those_of_the_product() -> None:
    assert desk(None).pending_cap == 5


async def rows(engine: AsyncEngine, lane: str) -> int:
    async with engine.connect() as connection:
        query = text("select count(*) from outbox where lane = :lane and sent_at is null")
        return int((await connection.execute(query, {"lane": lane})).scalar_one())


async def test_edits_that_can_wait_become_one_row_and_show_the_last(engine: AsyncEngine, desks: Desks) -> None:
    for _ in range(5):
        async with desks.open() as (at, work):
            await work.want("counter:g1", "counter:g1", at.now + timedelta(seconds=2))
    assert await rows(engine, "counter:g1") == 1
    async with desks.open() as (_, work):
        shown = await work.shown("counter:g1")
    assert shown is not None
    assert (shown.wanted, shown.shown) == (5, 0)


async def test_edit_that_is_due_is_not_counted_on(engine: AsyncEngine, desks: Desks) -> None:
    async with desks.open() as (at, work):
        await work.want("counter:g1", "counter:g1", at.now + timedelta(seconds=2))
    clock = desks.clock
    assert isinstance(clock, Still)
    clock.at += timedelta(seconds=2)
    async with desks.open() as (at, work):
        await work.want("counter:g1", "counter:g1", at.now + timedelta(seconds=2))
    assert await rows(engine, "counter:g1") == 2


async def test_message_wanted_anew_while_it_was_on_its_way_is_queued_again(engine: AsyncEngine, desks: Desks) -> None:
    async with desks.open() as (_, work):
        await work.want("counter:g1", "counter:g1")
        row = await work.shown("counter:g1")
        await work.want("counter:g1", "counter:g1")
    assert row is not None
    async with desks.open() as (_, work):
        await work.connection.execute(text("delete from outbox"))
        await work.message_is_at("counter:g1", "C1", "1.1", row.wanted)
        await work.show_rest("counter:g1", "counter:g1")
    assert await rows(engine, "counter:g1") == 1
    async with desks.open() as (_, work):
        await work.connection.execute(text("delete from outbox"))
        await work.message_is_at("counter:g1", "C1", "1.1", 2)
        await work.show_rest("counter:g1", "counter:g1")
    assert await rows(engine, "counter:g1") == 0
