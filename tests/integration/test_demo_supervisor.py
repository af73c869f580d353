"""The demo's supervisor keeps every process running, says where things are, and leaves nothing behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from broker.demo.keeper import Process
from broker.demo.lifeline import is_alive
from broker.demo.table import Demo

_NAMES = ("upstream", "workspace", "reaper", "broker", "bot")

# Stands in for a process: ready at once unless `mode` says otherwise; notes when it ends.
_FAKE = """
import json, os, signal, sys, time
name, mode, state = sys.argv[1:]
def leave(*_):
    open(os.path.join(state, "order"), "a").write(name + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if mode == "stubborn" else leave)
print("hello from", name, flush=True)
if mode == "broken":
    sys.exit("cannot start: the moon is full")
if mode == "unusable" or os.path.exists(os.path.join(state, name + ".unusable")):
    print("rules.yaml:3: what is this", file=sys.stderr)
    sys.exit(2)
if name == "workspace":
    os.makedirs(os.path.join(state, "workspace"), exist_ok=True)
    json.dump({"api_url": "http://x/api/", "bot_token": "xoxb-fake", "app_token": "xapp-fake", "users": {"alice": "U1"},
               "channels": {"general": "C1"}}, open(os.path.join(state, "workspace", "app.json"), "w"))
json.dump({key: value for key, value in os.environ.items() if key.startswith(("AIRLOCK_", "SLACK_"))},
          open(os.path.join(state, name + ".env"), "w"))
ready = os.environ["AIRLOCK_READY_FILE"]
os.makedirs(os.path.dirname(ready), exist_ok=True)
open(ready + ".new", "w").write("{}")
os.replace(ready + ".new", ready)
while True:
    time.sleep(60)
"""
_DRIVER = """
import sys
from pathlib import Path
from broker.demo.supervisor import run
from tests.integration.test_demo_supervisor import fake_table
state, ready = map(Path, sys.argv[1:3])
sys.exit(run(state, headless=True, ready=ready, table=fake_table))
"""


def fake_table(demo: Demo) -> list[Process]:
    """The real names and environments around processes that do nothing; MODE_<NAME> makes one misbehave."""
    processes = []
    for name in _NAMES:
        command = [sys.executable, "-c", _FAKE, name, os.environ.get(f"MODE_{name.upper()}", ""), str(demo.state)]
        environment = demo.bot_environment if name == "bot" else partial(demo.environment, name)
        processes.append(Process(name, command, demo.ready_file(name), environment, grace=1.0))
    return processes


class Run:
    """A supervisor in a process of its own."""

    def __init__(self, state: Path, **environment: str) -> None:
        self.state = state
        self.ready = state.parent / "ready.json"
        self.process = subprocess.Popen(
            [sys.executable, "-c", _DRIVER, str(state), str(self.ready)],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_ready(self) -> dict[str, Any]:
        wait_for(lambda: self.ready.exists() or self.process.poll() is not None)
        assert self.ready.exists(), self.output()
        return self.summary()

    def summary(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads(self.ready.read_text())
        return read

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def output(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.read()


def wait_for(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def _contains(path: Path, text: str) -> bool:
    return text in path.read_text()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Starts supervisors that do not outlive the test."""
    runs: list[Run] = []

    def begin(**environment: str) -> Run:
        runs.append(Run(tmp_path / "state", **environment))
        return runs[-1]

    yield begin
    for each in runs:
        if each.process.poll() is None:
            each.process.kill()
        each.process.wait()


def test_ready_file_says_where_everything_is(start: Callable[..., Run]) -> None:
    summary = start().wait_ready()
    assert set(summary) == {"workspace", "broker", "postgres", "resources", "users", "channels", "pids"}
    assert set(summary["pids"]) == {*_NAMES, "supervisor"}
    assert all(is_alive(pid) for pid in summary["pids"].values())
    assert summary["postgres"]["host"] == "127.0.0.1"
    assert summary["resources"] == ["prod-db", "staging-db"]
    assert summary["users"] == {"alice": "U1"}
    assert summary["channels"] == {"general": "C1"}


def test_processes_get_the_documented_environment(start: Callable[..., Run]) -> None:
    run = start(SLACK_BOT_TOKEN="xoxb-a-real-one", SLACK_SIGNING_SECRET="real")
    summary = run.wait_ready()
    seen = {name: json.loads((run.state / f"{name}.env").read_text()) for name in _NAMES}
    assert seen["broker"]["AIRLOCK_STATE"] == str(run.state)
    assert seen["broker"]["AIRLOCK_SECRETS"] == str(run.state / "secrets")
    assert seen["broker"]["AIRLOCK_PORT_POSTGRES"] == str(summary["postgres"]["port"])
    assert seen["bot"]["AIRLOCK_BROKER_URL"] == summary["broker"]
    assert Path(seen["reaper"]["AIRLOCK_POLICIES"], "resources.yaml").is_file()
    assert {key: value for key, value in seen["bot"].items() if key.startswith("SLACK_")} == {
        "SLACK_API_URL": "http://x/api/",
        "SLACK_BOT_TOKEN": "xoxb-fake",
        "SLACK_APP_TOKEN": "xapp-fake",
    }
    assert not [key for name in _NAMES if name != "bot" for key in seen[name] if key.startswith("SLACK_")]


@pytest.mark.parametrize("name", _NAMES)
def test_what_dies_is_started_again_and_its_new_pid_published(start: Callable[..., Run], name: str) -> None:
    run = start()
    before = run.wait_ready()["pids"]
    os.kill(before[name], signal.SIGKILL)
    wait_for(lambda: run.summary()["pids"][name] != before[name])
    after = run.summary()["pids"]
    assert is_alive(after[name])
    assert {key: pid for key, pid in after.items() if key != name} == {
        key: pid for key, pid in before.items() if key != name
    }


def test_sigterm_ends_everything_in_reverse_order(start: Callable[..., Run]) -> None:
    run = start()
    pids = run.wait_ready()["pids"]
    assert run.stop() == 0
    assert (run.state / "order").read_text().split() == list(reversed(_NAMES))
    assert not [pid for pid in pids.values() if is_alive(pid)]
    assert not run.ready.exists()


def test_a_process_that_will_not_end_is_forced_within_its_grace(start: Callable[..., Run]) -> None:
    run = start(MODE_BROKER="stubborn")
    pids = run.wait_ready()["pids"]
    began = time.monotonic()
    assert run.stop() == 0
    assert time.monotonic() - began < 30
    assert not [pid for pid in pids.values() if is_alive(pid)]
    assert "forced" in run.output()


def test_starting_again_keeps_the_ports(start: Callable[..., Run]) -> None:
    run = start()
    before = run.wait_ready()
    run.stop()
    after = start().wait_ready()
    for key in ("workspace", "broker", "postgres"):
        assert after[key] == before[key]


def test_a_port_that_a_stranger_took_is_replaced_and_named(start: Callable[..., Run]) -> None:
    run = start()
    before = run.wait_ready()
    run.stop()
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", before["postgres"]["port"]))
        stranger.listen()
        again = start()
        after = again.wait_ready()
        again.stop()
    assert after["postgres"]["port"] != before["postgres"]["port"]
    assert after["workspace"] == before["workspace"]
    assert f"port {before['postgres']['port']} is taken by another program" in again.output()


def test_a_second_demo_on_the_same_state_is_refused(start: Callable[..., Run]) -> None:
    run = start()
    pids = run.wait_ready()["pids"]
    second = start()
    assert second.process.wait(20) == 1
    assert f"another demo (pid {pids['supervisor']}) runs on" in second.output()
    assert all(is_alive(pid) for pid in run.summary()["pids"].values())


def test_a_process_that_never_starts_ends_the_demo_with_its_last_lines(start: Callable[..., Run]) -> None:
    run = start(MODE_BROKER="broken")
    assert run.process.wait(30) == 1
    said = run.output()
    assert "`broker` does not stay up: ended (status 1)" in said
    assert "cannot start: the moon is full" in said
    assert not run.ready.exists()


def test_what_only_a_person_can_mend_ends_the_start_at_once(start: Callable[..., Run]) -> None:
    run = start(MODE_BROKER="unusable")
    assert run.process.wait(30) == 1
    said = run.output()
    assert "`broker` does not stay up: it cannot start as things are" in said
    assert said.count("rules.yaml:3: what is this") == 1
    assert "starting it again" not in said


def test_what_only_a_person_can_mend_is_said_once_and_then_waited_for(start: Callable[..., Run]) -> None:
    run = start()
    before = run.wait_ready()["pids"]
    (run.state / "broker.unusable").touch()
    os.kill(before["broker"], signal.SIGKILL)
    log = run.state / "logs" / "broker.log"
    wait_for(lambda: log.read_text().count("what is this") >= 2)
    (run.state / "broker.unusable").unlink()
    wait_for(lambda: run.summary()["pids"]["broker"] != before["broker"])
    run.stop()
    said = run.output()
    assert said.count("rules.yaml:3: what is this") == 1
    assert "starts as soon as this is mended" in said
    assert "broker  is back" in said


def test_children_end_when_the_supervisor_is_killed(start: Callable[..., Run]) -> None:
    run = start()
    pids = run.wait_ready()["pids"]
    os.kill(run.process.pid, signal.SIGKILL)
    run.process.wait()
    wait_for(lambda: not [name for name in _NAMES if is_alive(pids[name])], 30)
    again = start()
    wait_for(lambda: again.ready.exists() and again.summary()["pids"]["supervisor"] == again.process.pid)


def test_output_goes_to_one_log_for_each_process(start: Callable[..., Run]) -> None:
    run = start()
    run.wait_ready()
    for name in _NAMES:
        log = run.state / "logs" / f"{name}.log"
        wait_for(partial(_contains, log, f"hello from {name}"))
