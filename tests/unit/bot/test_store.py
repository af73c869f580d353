"""The database: one winner, once, and what is stored is read back as it was."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.ext.asyncio import AsyncEngine

from bot.adapters.desks import Desks
from bot.adapters.store import SqlWork
from bot.adapters.tables import MIGRATIONS, metadata
from bot.handlers import handle
from bot.intents import Approve, ApproveHold, Ask, Cancel
from bot.model import Given
from bot.ports import Desk
from policies.engine.decisions import Need, Requirement
from tests.unit.bot.memory import NOW, desk, member, source
from tests.unit.bot.stored import filed, held
from workflows.holds import HoldState
from workflows.requests import RequestEvent, RequestState
from workflows.reviews import Answer
from workflows.storage.boxes import RowMoved
from workflows.storage.migrate import upgrade


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
