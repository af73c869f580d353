"""Recordings read offline: found by what people have at hand, without literals, and never one that was changed."""

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner

import airlock
from broker.adapters.archive import NoRecording, kept, told
from broker.adapters.clock import SystemClock
from broker.adapters.eventlog import EventLog, LogDamaged
from broker.adapters.metrics import Metrics
from broker.adapters.recorder import FileRecorder
from broker.sessions.model import Entry

OPENED = {"request": "rq-0001", "person": "alice", "role": "read", "resource": "prod-db", "by": ["bob"]}


async def write(home: Path) -> None:
    log = EventLog(home, "broker", SystemClock())
    recorder = FileRecorder(home, log, SystemClock(), Metrics())
    recorder.resume("g0001")
    await recorder.write(Entry("grant.opened", "g0001", None, OPENED))
    allowed = {"statement": "q1", "text": "select ?", "verb": "SELECT"}
    await recorder.write(Entry("statement.allowed", "g0001", "s1", allowed, {"sql": "select 'secret'"}))
    log.close()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    asyncio.run(write(tmp_path / "broker"))
    (tmp_path / "broker" / "recordings" / "torn.ndjson").write_text("{")
    return tmp_path


@pytest.mark.parametrize("name", ["g0001", "rq-0001"])
def test_transcript_is_found_by_the_grant_or_its_request_and_has_no_literals(state: Path, name: str) -> None:
    text = "\n".join(told(state, name))
    assert "Airlock transcript of grant g0001" in text
    assert "select ?" in text
    assert "secret" not in text


def test_what_is_not_there_or_was_changed_is_said(state: Path) -> None:
    assert [one.grant for one in kept(state)] == ["g0001"]
    with pytest.raises(NoRecording):
        list(told(state, "../broker"))
    path = state / "broker" / "recordings" / "g0001.ndjson"
    path.write_bytes(path.read_bytes().replace(b"select ?", b"select !"))
    with pytest.raises(LogDamaged):
        list(told(state, "g0001"))


def test_command_lists_what_there_is_and_prints_one(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRLOCK_STATE", str(state))

    def says(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(airlock.app, ["audit", "transcript", *words, "--state", str(state)])
        return result.exit_code, result.output

    code, listed = says()
    assert (code, listed.split(maxsplit=2)[2].strip()) == (0, "g0001  alice: read on prod-db")
    assert "allowed SELECT" in says("rq-0001")[1]
    assert says("nothing") == (1, "there is no recording of `nothing`\n")
