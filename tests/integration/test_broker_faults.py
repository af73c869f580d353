"""What the broker does when it dies, the disk fills, the clock steps, the policy changes or the database is gone."""

import asyncio
import errno
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.adapters.disk import Disk
from broker.adapters.leases import folder_of, line, written
from broker.adapters.store import StoreUnavailable
from broker.adapters.stories import recording_path
from broker.adapters.verify import verify
from broker.errors import Misconfigured, RecordingFailed
from broker.sessions.model import CloseReason, Entry, Lease
from policies.engine.load import PolicyUnreadable
from tests.integration.broker import POLICY, SOURCE, PretendSession, Times, World, facts_of, until
from workflows.grants import GrantEvent, GrantState


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def kinds(bot: Any) -> list[str]:
    return [event["type"] for event in await bot.events()]


async def test_grant_past_its_end_at_restart_is_expired_at_once(world: World) -> None:
    times = Times()
    async with world.broker(clock=times.clock()) as (_, bot):
        grant = await bot.grant()
    times.passed(timedelta(hours=1))
    async with world.broker(clock=times.clock()) as (process, _):
        await until(lambda: not process.book._closings)
        row = await process.store.grant(grant["id"])
        assert row is not None
        assert (row.state, row.verified) == (GrantState.EXPIRED, True)
        assert [event.type for event in await process.feed.read("", 100, 0)][-2:] == ["grant.expired", "grant.closed"]


async def test_active_grant_goes_on_after_restart(world: World) -> None:
    async with world.broker() as (_, bot):
        grant = await bot.grant()
    async with world.broker() as (_, bot):
        assert (await bot.json("POST", f"/v1/grants/{grant['id']}/tickets"))[0] == 201


async def test_what_a_dead_broker_left_open_is_marked_unknown(world: World) -> None:
    process = world.make()
    await process.start()
    async with world.serve(process) as bot:
        grant = await bot.grant()
        for kind, data in (("session.opened", {}), ("statement.allowed", {"statement": "7", "text": "update t"})):
            await process.recorder.write(Entry(kind, grant["id"], "s1", data))
    await die(process)
    async with world.broker() as (_, bot):
        events = [event for event in await bot.events() if event["session"] == "s1"][2:]
        assert [(event["type"], event["data"]["outcome"]) for event in events] == [
            ("statement.finished", "unknown"),
            ("session.closed", "unknown"),
        ]
    assert verify(world.settings.state).good


async def test_what_a_dead_broker_left_open_is_on_disk_with_a_few_syncs_however_much_it_is(world: World) -> None:
    syncs = 0

    def fsync(fd: int) -> None:
        nonlocal syncs
        syncs += 1
        os.fsync(fd)

    process = world.make()
    await process.start()
    async with world.serve(process) as bot:
        for number in range(20):
            grant = (await bot.grant())["id"]
            process.recorder.write(Entry("session.opened", grant, f"s{number}", {}), lazy=True)
            for statement in range(10):
                process.recorder.write(Entry("statement.allowed", grant, f"s{number}", {"statement": str(statement)}))
    await die(process)
    async with world.broker(disk=Disk(fsync=fsync)) as (process, bot):
        # One for each recording, and now and then one of the log, however slow this machine is.
        assert syncs < 100
        ends = [event for event in await bot.events(limit=1000) if event["data"].get("outcome") == "unknown"]
        assert len(ends) == 20 * 11
    assert verify(world.settings.state).good


@pytest.mark.parametrize("reaped", [True, False])
async def test_session_that_the_reaper_ends_is_not_closed_twice_in_the_feed(
    world: World, reaped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.adapters.process.SURVIVOR_PATIENCE", 0.2)
    process = world.make()
    await process.start()
    async with world.serve(process) as bot:
        grant = await bot.grant()
        await process.recorder.write(Entry("session.opened", grant["id"], "s1", {}))
        facts = facts_of(process, grant)
    await die(process)
    lease = Lease("s1", facts.id, "pretend", "prod-db", "read", facts.expires_at, 1, 5000, SOURCE)
    folder = folder_of(world.settings.home)
    (folder / "leases.ndjson").write_bytes(line({"op": "lease", **written(lease)}))
    if reaped:
        (folder / "reaped.ndjson").write_bytes(line({"session": "s1"}))
    async with world.broker() as (_, bot):
        last = (await bot.events())[-1]
        assert (last["type"], last["session"], last["data"]["verified"]) == ("session.settled", "s1", reaped)
    assert verify(world.settings.state).good


async def test_session_whose_end_a_lost_host_kept_in_the_feed_alone_is_not_closed_twice(world: World) -> None:
    process = world.make()
    await process.start()
    async with world.serve(process) as bot:
        grant = await bot.grant()
        await process.recorder.write(Entry("session.opened", grant["id"], "s1", {}))
        path = recording_path(world.settings.home, grant["id"])
        synced = path.stat().st_size
        await process.recorder.write(Entry("session.closed", grant["id"], "s1", {"reason": "client", "verified": True}))
    await die(process)
    os.truncate(path, synced)
    async with world.broker() as (_, bot):
        told = [event["type"] for event in await bot.events() if event["session"] == "s1"]
        assert told == ["session.opened", "session.closed", "session.settled"]


async def test_death_between_event_and_row_ends_as_the_event_says(world: World) -> None:
    process = world.make()
    await process.start()
    async with world.serve(process) as bot:
        revoked, moved = await bot.grant(), await bot.grant()
        await process.recorder.write(Entry("grant.revoked", revoked["id"], None, {"by": "bob"}))
        row = await process.store.grant(moved["id"])
        assert row is not None
        await process.store.move(row, GrantEvent.END, "alice", "done")
    await die(process)
    async with world.broker() as (process, bot):
        await until(lambda: not process.book._closings)
        assert (await bot.json("GET", f"/v1/grants/{revoked['id']}"))[1]["state"] == "revoked"
        assert (await bot.json("GET", f"/v1/grants/{moved['id']}"))[1]["state"] == "ended"
        found = await kinds(bot)
        assert [found.count(kind) for kind in ("grant.revoked", "grant.ended", "grant.closed")] == [1, 1, 2]


async def test_death_while_opening_opens_once(world: World) -> None:
    process = world.make()
    await process.start()

    async def dies(*_: Any) -> Any:
        raise StoreUnavailable

    async with world.serve(process) as bot:
        order = bot.order()
        process.store.move = dies
        assert (await bot.post(order))[1]["code"] == "unavailable"
    await die(process)
    async with world.broker() as (process, bot):
        status, grant = await bot.post(order)
        assert (status, grant["state"]) == (200, "active")
        assert (await kinds(bot)).count("grant.opened") == 1


class Room:
    """What is left on a disk, until a test fills it."""

    full = False

    def write(self, fd: int, data: memoryview) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.write(fd, data)


async def test_full_disk_refuses_everything_and_recovers(world: World) -> None:
    room = Room()
    async with world.broker(disk=Disk(write=room.write)) as (process, bot):
        grant = await bot.grant()
        room.full = True
        with pytest.raises(RecordingFailed):
            process.recorder.write(Entry("statement.allowed", grant["id"], "s1", {"statement": "1"}))
        assert (await bot.post(bot.order()))[1]["code"] == "recording"
        assert (await bot.json("POST", f"/v1/grants/{grant['id']}/tickets"))[1]["code"] == "recording"
        session = PretendSession(process, facts_of(process, grant))
        process.live.add(session)
        session.end = ending(session, process)
        await bot.call("DELETE", f"/v1/grants/{grant['id']}")
        assert session.ended == [CloseReason.ENDED]
        room.full = False
        await bot.grant()
    assert verify(world.settings.state).good


async def test_grant_that_ended_while_the_disk_was_full_is_recorded_and_closed_once_there_is_room(world: World) -> None:
    room = Room()
    async with world.broker(disk=Disk(write=room.write)) as (process, bot):
        grant = await bot.grant()
        room.full = True
        assert (await bot.call("DELETE", f"/v1/grants/{grant['id']}"))[0] == 200
        assert process.live.active(grant["id"]) is None
        room.full = False
        await until(lambda: not process.book._closings)
        assert [kind for kind in await kinds(bot) if kind.startswith("grant.")] == [
            "grant.opened",
            "grant.ended",
            "grant.closed",
        ]
        row = await process.store.grant(grant["id"])
        assert row is not None
        assert row.closed_at is not None
    assert verify(world.settings.state).good


def ending(session: PretendSession, process: Any) -> Any:
    async def end(reason: CloseReason) -> bool:
        session.ended.append(reason)
        process.live.remove(session)
        return True

    return end


async def test_failed_sync_makes_the_broker_unready(world: World) -> None:
    failing = False

    def fsync(fd: int) -> None:
        if failing:
            raise OSError(errno.EIO, "Input/output error")
        os.fsync(fd)

    async with world.broker(disk=Disk(fsync=fsync)) as (process, bot):
        failing = True
        assert (await bot.post(bot.order()))[1]["code"] == "recording"
        failing = False
        assert (await bot.post(bot.order()))[1]["code"] == "recording"
        assert any("recorded" in reason for reason in process.monitor.unready())


@pytest.mark.parametrize("step", [timedelta(days=1), timedelta(hours=1), timedelta(hours=-1), timedelta(days=-1)])
async def test_step_of_the_wall_clock_never_makes_a_grant_longer(world: World, step: timedelta) -> None:
    times = Times()
    async with world.broker(clock=times.clock()) as (process, bot):
        grant = await bot.grant(seconds=600)
        times.passed(timedelta(minutes=5))
        times.step(step)
        await process.book.tick()
        if step < timedelta():
            facts = facts_of(process, grant)
            assert (facts.expires_at - process.clock.now()).total_seconds() == pytest.approx(300, abs=1)
            row = await process.store.grant(grant["id"])
            assert row is not None
            assert row.expires_at == facts.expires_at
        times.passed(timedelta(minutes=5, seconds=1))
        await process.book.tick()
        assert process.live.active(grant["id"]) is None
        await until(lambda: not process.book._closings)
        later = await process.store.grant(grant["id"])
        assert later is not None
        assert later.state is GrantState.EXPIRED


async def test_grant_opened_while_the_clock_was_wrong_ends_in_time_when_it_is_put_right(world: World) -> None:
    times = Times()
    async with world.broker(clock=times.clock()) as (process, bot):
        times.step(timedelta(minutes=4))
        await process.book.tick()
        grant = await bot.grant(seconds=600)
        times.step(timedelta(minutes=-4))
        await process.book.tick()
        times.passed(timedelta(minutes=9))
        assert process.live.active(grant["id"]) is not None
        times.passed(timedelta(minutes=1, seconds=1))
        assert process.live.active(grant["id"]) is None


async def test_clock_set_back_between_two_runs_of_one_boot_gives_nothing(world: World) -> None:
    times = Times()
    async with world.broker(clock=times.clock()) as (_, bot):
        grant = await bot.grant(seconds=600)
    times.passed(timedelta(minutes=11))
    times.step(timedelta(hours=-2))
    async with world.broker(clock=times.clock()) as (process, _):
        assert process.live.active(grant["id"]) is None


async def test_bad_policy_at_start_names_its_findings(world: World) -> None:
    world.write_policy(POLICY + "\nsurprise: 1\n")
    with pytest.raises(PolicyUnreadable, match="surprise"):
        world.make()


async def test_bad_policy_at_reload_is_said_once_and_the_last_good_one_stays(world: World) -> None:
    async with world.broker() as (process, bot):
        good = process.policies.hash
        world.write_policy(POLICY + "\nsurprise: 1\n")
        await process.policies.reload()
        await process.policies.reload()
        assert process.policies.hash == good
        assert process.policies.rejected
        await bot.grant()
        world.write_policy(POLICY)
        await process.policies.reload()
        assert process.policies.rejected is None
        found = await kinds(bot)
        assert [kind for kind in found if kind.startswith("policy")] == [
            "policy.loaded",
            "policy.rejected",
            "policy.loaded",
        ]


async def test_changed_files_are_noticed(world: World) -> None:
    async with world.broker() as (process, _):
        before = process.policies.hash
        world.write_policy(POLICY.replace("max_duration: 1h", "max_duration: 2h"))
        await until(lambda: process.policies.hash != before)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("slack: U1, groups: [engineers]", "slack: U1, groups: [engineers], active: false"),
        ("alice: {name: Alice, slack: U1, groups: [engineers]}", "carol: {name: Carol}"),
        ("roles: [read], groups: [engineers]", "roles: [read], groups: [dbas]"),
    ],
    ids=["inactive", "gone", "no rule"],
)
async def test_who_may_not_any_more_loses_the_session(world: World, old: str, new: str) -> None:
    async with world.broker() as (process, bot):
        grant, other = await bot.grant(), await bot.grant(requester="bob")
        session = PretendSession(process, facts_of(process, grant))
        session.open()
        assert old in POLICY
        world.write_policy(POLICY.replace(old, new))
        await process.policies.reload()
        await until(lambda: not process.book._closings)
        assert session.ended == [CloseReason.REVOKED]
        revoked = next(event for event in await bot.events() if event["type"] == "grant.revoked")
        assert revoked["data"]["by"] == "policy"
        assert process.live.active(other["id"]) is not None


async def test_sessions_end_although_the_database_is_gone(world: World) -> None:
    times = Times()
    async with world.broker(clock=times.clock()) as (process, bot):
        grant = await bot.grant()
        session = PretendSession(process, facts_of(process, grant))
        session.open()
        move = process.store.move
        answers = asyncio.Event()

        async def hangs(*arguments: Any) -> Any:
            await answers.wait()
            return await move(*arguments)

        process.store.move = hangs
        times.passed(timedelta(hours=1))
        await process.book.tick()
        await until(lambda: session.ended == [CloseReason.EXPIRED])
        answers.set()
        await until(lambda: not process.book._closings)
        row = await process.store.grant(grant["id"])
        assert row is not None
        assert row.state is GrantState.EXPIRED


async def test_sessions_are_bounded_and_end_when_the_broker_stops(world: World) -> None:
    world.settings.max_sessions = 2
    async with world.broker() as (process, bot):
        grant = await bot.grant()
        sessions = [PretendSession(process, facts_of(process, grant)) for _ in range(3)]
        assert [session.open() for session in sessions] == [True, True, False]
    assert [session.ended for session in sessions] == [[CloseReason.SHUTDOWN], [CloseReason.SHUTDOWN], []]
    async with world.broker() as (process, _):
        assert process.live.active(grant["id"]) is not None


async def test_one_broker_for_a_state_folder(world: World) -> None:
    async with world.broker():
        with pytest.raises(Misconfigured):
            world.make()


async def die(process: Any) -> None:
    """Let a broker go as a kill does: nothing more is written, files and locks are let go."""
    for task in process._tasks:
        task.cancel()
    for closing in list(process.book._closings.values()):
        closing.task.cancel()
    process.log.close()
    await process.engine.dispose()
