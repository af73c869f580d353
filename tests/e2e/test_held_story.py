"""A held statement with the real processes: psql waits, a reviewer answers in the thread, and it runs once or never."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import REPOSITORY, start_demo
from tests.e2e.test_story import CARDS, Workspace, line_of, now_of, psql
from tests.support.bot_world import buttons, shown
from tests.support.places import in_memory
from tests.support.require import require_program

pytestmark = pytest.mark.e2e
CHANGE = "update orders set total = 4242.42 where id = 4"
LOOK = "select total from orders where id = 4"


@pytest.fixture(scope="module")
def workspace() -> Iterator[Workspace]:
    """A demo of its own whose production writes wait."""
    require_program("psql", "apt-get install postgresql-client")
    folder = Path(tempfile.mkdtemp(prefix="airlock-test-held-", dir=in_memory()))
    folder.chmod(0o711)
    shutil.copytree(
        REPOSITORY / "policies", folder / "policies", ignore=shutil.ignore_patterns("engine", "__pycache__")
    )
    resources = folder / "policies" / "resources.yaml"
    resources.write_text(resources.read_text().replace("hold: refuse", "hold: wait"))
    running = start_demo(folder, folder / "policies")
    try:
        yield Workspace(running.summary["workspace"])
    finally:
        assert running.stop() == 0, (folder / "output").read_text(errors="replace")
        shutil.rmtree(folder, ignore_errors=True)


def opened(workspace: Workspace) -> tuple[dict[str, Any], str]:
    """Alice asks to write, Bob and Erin approve; gives the card and her line."""
    since = now_of(workspace)
    text = "/access prod-db write 30m because INC-42"
    assert workspace.post("command", user="alice", channel="incidents", text=text)["ok"]
    card = workspace.find("bob", CARDS, "Access request", since)
    workspace.click("bob", card, "request.approve")
    workspace.find("bob", CARDS, "so far. Still waiting for", since)
    workspace.click("erin", card, "request.approve")
    workspace.find("bob", CARDS, "open until", since)
    return card, line_of(workspace.find("alice", "@Airlock", "PGPASSWORD", since))


@contextmanager
def waiting(line: str, sql: str) -> Iterator[subprocess.Popen[str]]:
    """Run a statement in a psql that waits for its review."""
    command = f"exec env {line} --no-psqlrc -At -c {shlex.quote(sql)}"
    process = subprocess.Popen(
        ["/bin/sh", "-c", command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)


def deny(workspace: Workspace, user: str, message: dict[str, Any], reason: str) -> None:
    view = workspace.click(user, message, "hold.deny")["view"]
    assert workspace.post("submit", user=user, view_id=view["id"], values={"Reason": reason})["ok"]


def test_held_statement_waits_in_psql_runs_once_and_is_held_again(workspace: Workspace) -> None:
    card, line = opened(workspace)
    thread = {"thread_ts": card["ts"]}
    before = psql(line, LOOK).stdout.strip()
    assert before
    assert before != "4242.42"

    with waiting(line, CHANGE) as process:
        hold = workspace.find("bob", CARDS, "it would change about 1 row", **thread)
        text = shown(hold)
        assert CHANGE in text
        assert "public.orders: about 1" in text
        assert "Waiting for 1 of dbas: Bob or Dana" in text
        assert buttons(hold) == ["hold.approve", "hold.shape", "hold.deny"]
        assert psql(line, LOOK).stdout.strip() == before
        workspace.click("alice", hold, "hold.approve")
        workspace.find("alice", CARDS, "You cannot answer this", **thread)
        assert process.poll() is None
        workspace.click("bob", hold, "hold.approve")
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, output) == (0, "UPDATE 1\n"), errors
    assert "airlock: waiting for 1 of dbas (Bob or Dana) to review this statement" in errors
    assert psql(line, LOOK).stdout.strip() == "4242.42"
    done = workspace.find("bob", CARDS, "Approved by Bob, ran once.", **thread)
    assert (done["ts"], buttons(done)) == (hold["ts"], [])

    with waiting(line, CHANGE) as process:
        second = workspace.find("bob", CARDS, "Waiting for 1 of dbas: Bob or Dana", hold["ts"], **thread)
        assert second["ts"] != hold["ts"]
        deny(workspace, "dana", second, "once was enough")
        _, errors = process.communicate(timeout=20)
    assert process.returncode != 0
    assert "airlock: Dana refused this statement: once was enough" in errors
    workspace.find("bob", CARDS, "Denied by Dana: once was enough", **thread)

    counter = workspace.find("bob", CARDS, "2 held: 1 approved by Bob, 1 denied by Dana", **thread)
    workspace.click("alice", counter, "grant.end")
    summary = workspace.find("bob", CARDS, "Alice had write on prod-db for", **thread)
    assert "2 held: 1 approved by Bob, 1 denied by Dana" in shown(summary)


def test_ctrl_c_is_said_in_the_thread_and_a_late_click_changes_nothing(workspace: Workspace) -> None:
    card, line = opened(workspace)
    thread = {"thread_ts": card["ts"]}
    with waiting(line, "update orders set total = 0 where id = 5") as process:
        hold = workspace.find("bob", CARDS, "to run this, once", **thread)
        process.send_signal(2)
        _, errors = process.communicate(timeout=20)
    assert "airlock: canceled: the review was given up" in errors
    over = workspace.find("bob", CARDS, "Given up: Alice cancelled it. It did not run; nobody denied it.", **thread)
    assert (over["ts"], buttons(over)) == (hold["ts"], [])
    workspace.post("command", user="alice", channel="incidents", text="/access revoke")
    assert "1 held: 1 given up" in shown(workspace.find("bob", CARDS, "Alice had write on prod-db for", **thread))


def test_approved_shape_lets_other_values_pass_within_its_bound_until_it_is_withdrawn(workspace: Workspace) -> None:
    card, line = opened(workspace)
    thread = {"thread_ts": card["ts"]}
    change = "update orders set total = {} where id <= {}".format
    with waiting(line, change(11, 1)) as process:
        hold = workspace.find("bob", CARDS, "the planner expects", **thread)
        assert workspace.click("alice", hold, "hold.shape").get("view") is None
        view = workspace.click("bob", hold, "hold.shape")["view"]
        form = json.dumps(view["blocks"])
        assert "update orders set total = $1 where id <= $2" in form
        assert "at most 10 rows" in form
        assert workspace.post("submit", user="bob", view_id=view["id"], values={})["ok"]
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, output) == (0, "UPDATE 1\n"), errors
    shape = workspace.find("bob", CARDS, "Bob approved this shape for Alice", **thread)
    assert buttons(shape) == ["shape.withdraw"]
    assert psql(line, f"{change(12, 2)}; ").stdout == "UPDATE 2\n"
    beyond = psql(line, change(13, 50))
    assert "airlock: this touched 50 rows, triggers and cascades included, and may touch 10" in beyond.stderr
    with waiting(line, "update orders set total = 14 where id = 3") as process:
        other = workspace.find("bob", CARDS, "Waiting for 1 of dbas: Bob or Dana", shape["ts"], **thread)
        deny(workspace, "dana", other, "not this one")
        process.communicate(timeout=20)

    workspace.click("erin", shape, "shape.withdraw")
    workspace.click("alice", shape, "shape.withdraw")
    line_ = workspace.find("bob", CARDS, "Alice withdrew the shape", **thread)
    gone = workspace.find("bob", CARDS, "withdrawn by Alice", **thread)
    assert (gone["ts"], buttons(gone)) == (shape["ts"], [])
    with waiting(line, change(15, 1)) as process:
        again = workspace.find("bob", CARDS, "Waiting for 1 of dbas: Bob or Dana", line_["ts"], **thread)
        deny(workspace, "dana", again, "once more, please")
        process.communicate(timeout=20)
    workspace.post("command", user="alice", channel="incidents", text="/access revoke")
    summary = shown(workspace.find("bob", CARDS, "Alice had write on prod-db for", **thread))
    assert "1 shape approved by Bob (1 withdrawn), 2 statements passed by it" in summary
