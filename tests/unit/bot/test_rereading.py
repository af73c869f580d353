"""A feed that is read again from its beginning: nothing is said twice, nothing lost, and nothing taken to be open."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from bot import relay, rereading
from bot.ordering import BOT
from bot.outgoing import EndGrant, Say
from tests.unit.bot.memory import LATER, NOW, MemoryWork, desk
from tests.unit.bot.test_handlers import granted
from tests.unit.bot.test_relay import event
from workflows.grants import GrantState
from workflows.wire import EventView


def texts(work: MemoryWork) -> list[str]:
    return [item.card.text for _, item in work.sent.values() if isinstance(item, Say)]


def story() -> list[EventView]:
    denied = event(3, "statement.denied", text="DROP TABLE x", rules=["r"], message="no")
    refused = event(5, "session.refused", reason="another database")
    facts = {"request": "rq-0001", "order": "token-0003", "expires_at": LATER.isoformat()}
    opened = event(1, "grant.opened", **facts)
    return [opened, event(2, "session.opened"), denied, event(4, "statement.allowed", rules=["r"]), refused]


async def test_what_was_told_is_told_once_and_counted_once_also_with_other_cursors() -> None:
    work = MemoryWork()
    grant = await granted(work)
    await relay.apply(desk(work), story())
    before, said = work.grants[grant.id], texts(work)
    await rereading.begin_again(desk(work), [])
    assert (work.grants[grant.id].statements, work.grants[grant.id].sessions) == (0, 0)
    # A cursor is a place in all streams, so the same event may have another one.
    await relay.apply(desk(work), [one.model_copy(update={"cursor": f"again{one.seq}"}) for one in story()])
    assert work.grants[grant.id] == before
    assert texts(work) == said


async def test_closed_access_stays_what_it_is() -> None:
    work = MemoryWork()
    grant = await granted(work)
    closed = event(9, "grant.closed", statements=2, denied=1, sessions=1, verified=True)
    await relay.apply(desk(work), [*story(), event(8, "grant.ended", by="alice"), closed])
    before, said = work.grants[grant.id], texts(work)
    await rereading.begin_again(desk(work, now=grant.expires_at), [])
    await relay.apply(desk(work), [*story(), event(8, "grant.ended", by="alice"), closed])
    assert work.grants[grant.id] == before
    assert texts(work) == said


async def test_access_that_was_ended_is_ended_again_for_the_broker_may_have_forgotten_it() -> None:
    work = MemoryWork()
    grant = await granted(work)
    work.grants[grant.id] = replace(grant, state=GrantState.REVOKED, ended_by="bob", closed_at=NOW)
    await rereading.begin_again(desk(work), [])
    [end] = [item for _, item in work.sent.values() if isinstance(item, EndGrant)]
    assert (end.grant, end.actor, end.revoke) == (grant.id, "bob", True)


async def test_access_that_the_broker_does_not_have_is_closed_and_its_owner_hears_why() -> None:
    work = MemoryWork()
    grant = await granted(work)
    await rereading.begin_again(desk(work), [grant.id])
    now = work.grants[grant.id]
    assert (now.state, now.closed_at, now.verified) == (GrantState.REVOKED, NOW, False)
    assert any("The broker revoked your access" in text and "ask again" in text for text in texts(work))


async def test_access_whose_request_the_bot_has_lost_is_ended_while_it_lasts() -> None:
    work = MemoryWork()
    facts = {"request": "rq-lost", "order": "o1", "person": "alice", "role": "read", "resource": "prod-db"}
    over = event(1, "grant.opened", "g0001", **facts, expires_at=NOW.isoformat())
    lasts = event(2, "grant.opened", "g0002", **facts, expires_at=(LATER + timedelta(hours=1)).isoformat())
    for _ in range(2):
        await relay.apply(desk(work), [over, lasts])
    [end] = [item for _, item in work.sent.values() if isinstance(item, EndGrant)]
    assert (end.grant, end.actor, end.account, end.revoke) == ("g0002", BOT, "U0ALICE001", True)
    assert work.grants == {}
    [told] = texts(work)
    assert told.endswith("put back to a time before it. Ask for it anew: `/access prod-db read`")
