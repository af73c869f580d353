"""Workers as the broker has them, in this process: what it says and does as they start, die or do not answer."""

import asyncio
import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.adapters import crew, endings, live, seats
from broker.adapters.journal import Line, packed, worker_journal
from broker.adapters.leases import folder_of, line
from broker.errors import RecordingFailed
from broker.sessions.eventchain import timestamp
from broker.sessions.model import CloseReason, Entry
from tests.integration.broker import until
from tests.integration.crew_world import begun, hands, held
from workflows.holds import HoldEvent

STATEMENT = '"statement":"q1","text":"x"'


async def test_a_worker_hears_of_the_policy_that_came_while_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hands(tmp_path, monkeypatch) as found:
        starting = await begun(found)
        text = (found.world.settings.policies / "all.yaml").read_text()
        found.world.write_policy(text.replace("max_duration: 1h", "max_duration: 2h"))
        await found.process.policies.reload()
        found.may_start.set()
        await starting
        await until(lambda: found.ends[1].heard("policy"))
        for end in found.ends:
            assert end.heard("policy")[-1].hash == found.process.policies.hash
        assert found.ends[1].heard("clock")


async def test_a_worker_that_is_gone_as_it_is_ready_is_none_of_the_crew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hands(tmp_path, monkeypatch) as found:
        starting = await begun(found)
        found.ends[1].die()
        await asyncio.sleep(0.05)
        found.may_start.set()
        with pytest.raises(Exception, match="gone at once"):
            await starting
        assert list(found.crew._workers) == [1]


async def test_what_one_worker_says_reaches_every_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with hands(tmp_path, monkeypatch) as found:
        await found.crew._start(2)
        await found.ends[0].channel.call("common", ("pretend", "tell"), ("shop", 7))
        for end in found.ends:
            await until(lambda end=end: ("told", ("pretend", "shop", 7)) in end.told)


async def test_all_others_are_told_where_one_turns_out_to_be_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hands(tmp_path, monkeypatch) as found:
        await found.crew._start(2)
        found.may_start.clear()
        found.ends[0].die()
        found.crew._tell("clock", 1.0, 2.0)
        await until(lambda: ("clock", (1.0, 2.0)) in found.ends[1].told)
        found.may_start.set()


async def test_an_upstream_that_does_not_answer_keeps_neither_the_next_worker_nor_the_closing_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "END_SECONDS", 0.05)
    monkeypatch.setattr(endings, "DRAIN_PATIENCE", 0.05)
    async with hands(tmp_path, monkeypatch) as found:
        grant = await found.granted()
        session, unopened = await found.session(grant), await found.session(grant, lease=False, opened=False)
        found.offer.answers.clear()
        found.ends[0].die()
        await until(lambda: len(found.ends) == 2)
        assert found.offer.shared.left == {session.id, unopened.id}
        _, ended = await found.bot.json("DELETE", f"/v1/grants/{grant.id}", json={"reason": "over"})
        assert ended["verified"] is False
        await until(lambda: found.recorded(grant)[-1][0] == "grant.closed")
        assert found.process.live.sessions(grant.id)
        found.offer.answers.set()
        await until(lambda: not found.process.live.sessions(grant.id))
        # The recording is closed and stays it; the feed says the end, once.
        assert found.recorded(grant)[-1][0] == "grant.closed"
        await until(lambda: grant.id not in found.process.recorder.stories)
        assert await found.said(session) == [("session.opened", None), ("session.closed", True)]
        assert await found.said(unopened) == []


async def test_a_full_disk_delays_the_end_of_a_dead_workers_session_behind_what_it_has_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hands(tmp_path, monkeypatch) as found:
        grant = await found.granted()
        session = await found.session(grant)
        left = Line("statement.allowed", timestamp(datetime.now(UTC)), grant.id, session.id, "q1", "", STATEMENT, "{}")
        worker_journal(found.world.settings.home, 1).write_bytes(packed(left))
        recorder, tries = found.process.recorder, 0
        take_up, write = recorder.take_up, recorder.write

        def failing(path: Path, sealed: bytes) -> None:
            nonlocal tries
            if (tries := tries + 1) < 3:
                raise RecordingFailed("no space left on device")
            take_up(path, sealed)

        def failing_write(entry: Entry) -> Any:
            nonlocal tries
            if (tries := tries + 1) < 6:
                raise RecordingFailed("no space left on device")
            return write(entry)

        monkeypatch.setattr(crew, "_PAUSE", 0.1)
        monkeypatch.setattr(recorder, "take_up", failing)
        monkeypatch.setattr(recorder, "write", failing_write)
        found.ends[0].die()
        await until(lambda: not found.process.live.sessions(grant.id))
        kinds = [kind for kind, _ in found.recorded(grant)]
        assert kinds[-3:] == ["statement.allowed", "statement.finished", "session.closed"]
        assert len(found.ends) == 2


@pytest.mark.parametrize("leased", [True, False], ids=["before its lease is closed", "after its lease was closed"])
async def test_what_the_reaper_has_ended_is_not_said_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leased: bool
) -> None:
    async with hands(tmp_path, monkeypatch) as found:
        grant = await found.granted()
        session = await found.session(grant)
        found.offer.answers.clear()
        reaped = folder_of(found.world.settings.home) / "reaped.ndjson"
        reaped.write_bytes(line({"session": session.id, "at": datetime.now(UTC).isoformat()}))
        if not leased:
            assert await found.ends[0].channel.call("leases.close", session.id) is False
        found.ends[0].die()
        await until(lambda: not found.process.live.sessions(grant.id))
        assert await found.said(session) == [("session.opened", None), ("session.settled", True)]


async def test_an_end_that_a_dead_worker_could_not_verify_is_said_once_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hands(tmp_path, monkeypatch) as found:
        grant = await found.granted()
        session, verified = await found.session(grant), await found.session(grant)
        for facts, known in ((session, False), (verified, True)):
            closed = {"reason": "client", "verified": known, "seconds": 1.0}
            await found.process.recorder.write(Entry("session.closed", grant.id, facts.id, closed))
        await found.ends[0].channel.call("leases.close", verified.id)
        found.ends[0].die()
        await until(lambda: not found.process.live.sessions(grant.id))
        ends = [("session.opened", None), ("session.closed", False), ("session.settled", True)]
        assert await found.said(session) == ends
        assert await found.said(verified) == [("session.opened", None), ("session.closed", True)]


async def test_an_approval_that_a_dead_worker_used_and_did_not_record_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hands(tmp_path, monkeypatch) as found:
        grant = await found.granted()
        session = await found.session(grant)
        facts = held(session, "q1")
        used, _, _, _, _ = await found.ends[0].channel.call("holds.open", facts)
        waits, _, _, _, _ = await found.ends[0].channel.call("holds.open", dataclasses.replace(facts, statement="q2"))
        at_once = dataclasses.replace(facts, statement="q3", waits=False)
        stays, _, _, _, _ = await found.ends[0].channel.call("holds.open", at_once)
        found.process.holds._go(found.process.holds._live[used], HoldEvent.RELEASE)
        assert await found.ends[0].channel.call("holds.use", used, None)
        found.ends[0].die()
        await until(lambda: not found.process.live.sessions(grant.id))
        given_up = [data["hold"] for kind, data in found.recorded(grant) if kind == "hold.abandoned"]
        assert sorted(given_up) == sorted([used, waits])
        assert found.process.holds.alive(stays)


async def test_a_hold_that_is_opened_while_its_grant_ends_is_given_up_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hands(tmp_path, monkeypatch) as found:
        grant = await found.granted()
        session = await found.session(grant, lease=False)
        worker, opened = found.ends[0].channel, []

        async def end(*_: object) -> bool:
            """What was on its way as the broker said so."""
            hold, _, _, _, _ = await worker.call("holds.open", held(session, "q1", waits=False))
            opened.append(hold)
            await found.process.recorder.write(Entry("session.closed", grant.id, session.id, {"verified": True}))
            worker.cast("live.remove", session.id)
            return True

        found.ends[0].does["end"] = end
        await found.bot.json("DELETE", f"/v1/grants/{grant.id}", json={"reason": "over"})
        await until(lambda: found.recorded(grant)[-1][0] == "grant.closed")
        assert [data["hold"] for kind, data in found.recorded(grant) if kind == "hold.abandoned"] == opened
        assert not found.process.holds.alive(opened[0])


async def test_a_session_that_its_worker_registers_after_an_extension_has_the_later_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hands(tmp_path, monkeypatch) as found:
        grant = await found.granted()
        later = grant.expires_at + timedelta(minutes=5)
        active = found.process.live.active(grant.id)
        assert active is not None
        found.process.live.extend(dataclasses.replace(active.row, expires_at=later))
        session = await found.session(grant)
        await until(lambda: found.ends[0].heard("extend"))
        assert ("extend", (session.id, later)) in found.ends[0].told


async def test_a_worker_that_does_not_answer_keeps_no_session_alive_that_is_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seats, "END_SECONDS", 0.05)
    async with hands(tmp_path, monkeypatch) as found:
        grant = await found.granted()
        leased, coming = await found.session(grant), await found.session(grant, pid=None)
        hung = asyncio.get_running_loop().create_future()
        found.ends[0].does["end"] = lambda *_: hung
        sessions = found.process.live.sessions(grant.id)
        assert [one.facts.id for one in sessions] == [leased.id, coming.id]
        # Its process is ended from here; one that nobody knows yet may be about to come.
        assert await sessions[0].end(CloseReason.REVOKED) is True
        assert found.offer.killed == [leased.id]
        waiting = asyncio.create_task(sessions[1].end(CloseReason.REVOKED))
        found.offer.answers.clear()
        still = asyncio.create_task(sessions[0].end(CloseReason.REVOKED))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        assert not still.done()
        # What the worker says counts as soon as it says it.
        hung.set_result(False)
        assert (await waiting, await still) == (False, False)
        found.offer.answers.set()
        found.ends[0].die()


async def test_an_extension_does_not_wait_for_a_worker_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seats, "END_SECONDS", 0.05)
    async with hands(tmp_path, monkeypatch) as found:
        grant = await found.granted()
        await found.session(grant)
        hung = asyncio.get_running_loop().create_future()
        found.ends[0].does["extend"] = lambda *_: hung
        order = found.bot.order(kind="extension", extends=grant.id, seconds=300)
        status, _ = await asyncio.wait_for(found.bot.post(order), 5)
        assert status == 201
        assert found.ends[0].heard("extend")
        hung.set_result(None)


async def test_the_stop_of_the_broker_leaves_to_the_reaper_what_does_not_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hands(tmp_path, monkeypatch) as found:
        grant = await found.granted()
        await found.session(grant)
        found.ends[0].does["end"] = lambda *_: asyncio.get_running_loop().create_future()
        (session,) = found.process.live.sessions(grant.id)
        ending = asyncio.create_task(session.end(CloseReason.SHUTDOWN))
        await until(lambda: found.ends[0].heard("end"))
        await found.crew.stop()
        assert await asyncio.wait_for(ending, 5) is False
        found.process.live.remove(session)


async def test_a_cancel_is_over_when_the_worker_has_sent_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with hands(tmp_path, monkeypatch) as found:
        grant = await found.granted()
        facts = await found.session(grant)
        sent = asyncio.get_running_loop().create_future()
        found.ends[0].does["cancel"] = lambda _: sent
        cancelling = asyncio.ensure_future(found.ends[0].channel.call("live.cancel", facts.id))
        await until(lambda: found.ends[0].heard("cancel") == [facts.id])
        assert not cancelling.done()
        sent.set_result(None)
        await cancelling
