"""A worker's journal, which another process seals: the same lines, each once, also where the worker dies in between."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import Mock

import pytest

from broker.adapters.journal import left_behind, worker_journal
from broker.adapters.recorder import FileRecorder, open_journal
from broker.adapters.remote import Promises, RemoteHolds, RemoteRecorder
from broker.adapters.stories import recording_path
from broker.adapters.verify import verify
from broker.core import compiled
from broker.errors import RecordingFailed
from broker.sessions.model import Entry
from tests.support.require import needs_core
from tests.unit.broker.adapters.recording import ALLOWED, FINISHED, Q, lane_of, lines_of, make, ride

if TYPE_CHECKING:
    from broker.core.lane import Journal

pytestmark = needs_core


class Away:
    """The recorder of a worker, whose journal the broker's own recorder seals; `lost` has the broker gone."""

    def __init__(self, recorder: FileRecorder, home: Path) -> None:
        self._carrier = recorder.carrier()
        self.path = worker_journal(home, 1)
        self.lost = False
        self.carried: list[bytes] = []
        assert compiled is not None
        self._journal = open_journal(self.path, compiled.Courier(self._send))

    def journal(self) -> Journal:
        return self._journal

    def _send(self, records: bytes, urgent: bool, said: Any) -> tuple[asyncio.Future[None], dict[str, RecordingFailed]]:
        if self.lost:
            raise RecordingFailed("the broker is gone")
        self.carried.append(records)
        pending, failed = self._carrier.deliver(records, urgent, said)
        return pending, {grant: RecordingFailed(str(error)) for grant, error in failed.items()}


async def test_what_a_worker_records_is_sealed_as_if_it_had_been_recorded_here(tmp_path: Path) -> None:
    log, recorder = make(tmp_path)
    recorder.resume("grant2")
    away: Any = Away(recorder, tmp_path)
    first = lane_of(away, [], {"masked": ["public.people.ssn"]})
    second = lane_of(away, [], grant="grant2", begun=4)
    ride(first)
    ride(second, land=False)
    assert not recording_path(tmp_path, "grant1").exists()
    away.journal().flush()
    assert not left_behind(away.path).lines
    assert lines_of(tmp_path) == [(ALLOWED, Q[1]), (FINISHED, Q[1])]
    assert lines_of(tmp_path, "grant2") == [(ALLOWED, Q[4])]
    story = recorder.resume("grant1")
    assert (story.statements, story.masked, list(story.open_statements)) == (1, {"public.people.ssn"}, [])
    assert list(recorder.resume("grant2").open_statements) == [("s1", Q[4])]
    ride(first)
    await recorder.write(Entry("statement.denied", "grant2", "s1", {"statement": "d1"}))
    away.journal().flush()
    assert lines_of(tmp_path)[2:] == [(ALLOWED, Q[2]), (FINISHED, Q[2])]
    log.close()
    assert verify(tmp_path).good


async def test_what_waits_for_the_disk_is_synced_before_its_answer_goes(tmp_path: Path) -> None:
    log, recorder = make(tmp_path)
    away: Any = Away(recorder, tmp_path)
    sent: list[str] = []
    lane = lane_of(away, sent, {"masked": ["public.people.ssn"]}, waits=True)
    ride(lane)
    before = len(sent)
    async with asyncio.timeout(10):
        while len(sent) == before:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert lines_of(tmp_path)[0] == (ALLOWED, Q[1])
    log.close()


async def test_one_grant_whose_recording_is_closed_ends_that_grant_alone(tmp_path: Path) -> None:
    log, recorder = make(tmp_path)
    recorder.resume("grant2")
    away: Any = Away(recorder, tmp_path)
    sent: list[str] = []
    late, other = lane_of(away, sent, grant="grant2"), lane_of(away, [])
    await recorder.write(Entry("grant.closed", "grant2", None, {}))
    recorder.forget("grant2")
    ride(late, land=False)
    ride(other)
    away.journal().flush()
    assert "records belong in a recording, and their grant has none open" in sent[-1]
    assert lines_of(tmp_path) == [(ALLOWED, Q[1]), (FINISHED, Q[1])]
    ride(other)
    log.close()


async def test_without_the_broker_nothing_departs_and_what_is_recorded_stays(tmp_path: Path) -> None:
    log, recorder = make(tmp_path)
    away: Any = Away(recorder, tmp_path)
    sent: list[str] = []
    lane = lane_of(away, sent)
    ride(lane)
    away.lost = True
    with pytest.raises(RecordingFailed):
        away.journal().flush()
    assert sent[-1] == "the broker is gone"
    assert [line.kind for line in left_behind(away.path).lines] == [ALLOWED, FINISHED]
    log.close()


async def test_a_hold_is_recorded_behind_what_its_session_has_done_before(tmp_path: Path) -> None:
    log, recorder = make(tmp_path)
    carrier = recorder.carrier()

    class Near:
        """A broker that is asked here and now."""

        def __init__(self) -> None:
            self.asked: list[str] = []

        def ask(self, method: str, *arguments: Any) -> Any:
            self.asked.append(method)
            return (1, carrier.deliver(*arguments)[1]) if method == "seal" else ("h1", 60.0, True, 2, 3)

        cast = ask

    near: Any = Near()
    away = RemoteRecorder(near, Promises(), worker_journal(tmp_path, 1))
    holds, facts, estimate = RemoteHolds(near, Promises(), away), Mock(), Mock()
    lane = lane_of(cast("Any", away), [])
    for record in (
        lambda: holds.open(facts),
        lambda: holds.estimated("h1", estimate),
        lambda: holds.drop("h1", "client"),
        lambda: holds.leave("s1", "client"),
    ):
        near.asked.clear()
        ride(lane)
        record()
        assert near.asked[0] == "seal"
        assert len(near.asked) == 2
    log.close()


@pytest.mark.parametrize("restarted", [False, True], ids=["the broker lives", "the broker died with it"])
@pytest.mark.parametrize("sealed", [False, True], ids=["not sealed", "sealed before it died"])
async def test_a_dead_workers_records_are_sealed_once(tmp_path: Path, sealed: bool, restarted: bool) -> None:
    log, recorder = make(tmp_path)
    recorder.resume("grant2")
    away: Any = Away(recorder, tmp_path)
    first, second = lane_of(away, []), lane_of(away, [], grant="grant2", begun=4)
    ride(first)
    ride(second, land=False)
    left = away.path.read_bytes()
    if sealed:
        away.journal().flush()
        # As far as it came: the broker has sealed them, and the worker has not heard of it.
        away.path.write_bytes(left)
    # The dead seal nothing any more, also once it is time to.
    away.lost = True
    if restarted:
        log.close()
        log, recorder = make(tmp_path)
        recorder.resume("grant2")
        recorder.put_aside()
    else:
        recorder.take_up(away.path, away.carried[-1] if sealed else b"")
    assert not away.path.exists()
    assert [line for line in lines_of(tmp_path) if line[1]] == [(ALLOWED, Q[1]), (FINISHED, Q[1])]
    assert [line for line in lines_of(tmp_path, "grant2") if line[1]] == [(ALLOWED, Q[4])]
    assert list(recorder.resume("grant2").open_statements) == [("s1", Q[4])]
    events = [json.loads(line) for line in (tmp_path / "events" / "broker.ndjson").read_bytes().splitlines()]
    assert sorted(e["data"]["statement"] for e in events if e["type"] == ALLOWED) == [Q[1], Q[4]]
    assert not list((tmp_path / "recordings").glob("*.torn"))
    log.close()
    assert verify(tmp_path).good


async def test_no_recording_is_read_for_a_dead_worker_and_what_is_written_next_comes_behind_its_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, recorder = make(tmp_path)
    recorder.resume("grant2")
    away: Any = Away(recorder, tmp_path)
    first = lane_of(away, [], {"masked": ["public.people.ssn"]})
    ride(first)
    away.journal().flush()
    ride(first, land=False)
    ride(lane_of(away, [], grant="grant2", begun=4), land=False)
    away.lost = True
    # Whoever reads a long one does nothing else meanwhile.
    monkeypatch.setattr(recorder, "_read", Mock(side_effect=AssertionError))
    recorder.take_up(away.path, away.carried[-1])
    for grant, statement in (("grant1", Q[2]), ("grant2", Q[4])):
        await recorder.write(Entry("session.closed", grant, "s1", {"reason": "client"}))
        assert lines_of(tmp_path, grant)[-2:] == [(ALLOWED, statement), ("session.closed", "")]
    story = recorder.resume("grant1")
    assert (story.statements, story.masked) == (2, {"public.people.ssn"})
    assert list(story.open_statements) == [("s1", Q[2])]
    log.close()
    assert verify(tmp_path).good


async def test_what_a_dead_worker_left_of_a_grant_that_is_over_is_kept_aside(tmp_path: Path) -> None:
    log, recorder = make(tmp_path)
    recorder.resume("grant2")
    away: Any = Away(recorder, tmp_path)
    ride(lane_of(away, [], grant="grant2"), land=False)
    ride(lane_of(away, []), land=False)
    await recorder.write(Entry("grant.closed", "grant2", None, {}))
    recorder.forget("grant2")
    away.lost = True
    recorder.take_up(away.path, b"")
    assert lines_of(tmp_path)[-1] == (ALLOWED, Q[1])
    assert lines_of(tmp_path, "grant2")[-1] == ("grant.closed", "")
    (aside,) = (tmp_path / "recordings").glob("*.stranded.journal")
    assert [(line.grant, line.id) for line in left_behind(aside).lines] == [("grant2", Q[1])]
    log.close()


async def test_records_that_do_not_read_or_do_not_fit_are_not_sealed(tmp_path: Path) -> None:
    log, recorder = make(tmp_path)
    carrier = recorder.carrier()
    away: Any = Away(recorder, tmp_path)
    ride(lane_of(away, []))
    away.journal().flush()
    (records,) = away.carried
    for wrong in (records[:-1], records + b"x" * 70, b"\1" * 200, bytes(2 * 1024 * 1024)):
        with pytest.raises(ValueError, match="these records"):
            carrier.deliver(wrong, False, [])
    assert len(lines_of(tmp_path)) == 2
    await carrier.deliver(records, False, [])[0]
    assert len(lines_of(tmp_path)) == 4
    log.close()
