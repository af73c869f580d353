"""What comes in and what leaves: each payload once, each lane in order, edits that can wait as one."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from bot.adapters.boxes import Inbox, Outbox
from bot.adapters.desks import Desks
from bot.outgoing import PostOrder
from tests.unit.bot.memory import NOW
from tests.unit.bot.stored import Still


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
